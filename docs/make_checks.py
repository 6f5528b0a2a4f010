"""Writes docs/checks.md: every check under a heading of its own, so that a link to its id leads there.

Usage: python docs/make_checks.py
"""

from pathlib import Path

from blkmig_cli.checks.acceptance import ACCEPTED, ALWAYS, accepting
from blkmig_cli.checks.catalogue import CHECKS
from blkmig_cli.checks.remedies import REMEDIES

TARGET = Path(__file__).with_name("checks.md")

START = """# Checks

Made by `make docs` from the catalogue. A finding has the id of its check: in brackets at the end of its
line, as `id` in JSON, `ruleId` in SARIF, `type` in JUnit XML, title of an annotation on GitHub. Here each id
is a heading, so that `checks.md#ID` leads to it; `blkmig validate --explain ID` prints the same.

An error makes a stream invalid, a warning does not (`validate --strict`: it does), a note says what is
unusual. [Exit status by finding](commands.md#exit-status-by-finding) has a table of the commands and
options that accept an error.
"""


def accepted_by(check: str) -> str:
    """Return the commands and options that accept an error, as a sentence; empty if there are none."""
    found = [
        f"`{command} {option}`" if option != ALWAYS else f"`{command}`"
        for command in ACCEPTED
        for option in accepting(command, check)
    ]
    return f"Accepted by {', '.join(found)}." if found else ""


def document() -> str:
    """Return the whole page."""
    lines = [START]
    for check, (severity, meaning) in CHECKS.items():
        lines += [f"## {check}", "", f"*{severity}.* {meaning}", "", REMEDIES[check], ""]
        if sentence := accepted_by(check):
            lines += [sentence, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    TARGET.write_text(document())
