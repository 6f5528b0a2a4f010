"""The catalogue of checks as text."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from blkmig_cli.checks.catalogue import CHECKS
from blkmig_cli.checks.remedies import REMEDIES
from blkmig_cli.output.human.console import table as new_table

SEVERITY_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def checks_text(out: Console) -> None:
    """Print the list of checks."""
    table = new_table("CHECK", "SEVERITY", "MEANING")
    for check, (severity, meaning) in CHECKS.items():
        table.add_row(check, Text(severity, SEVERITY_STYLES[severity]), meaning)
    out.print(table)


def explanations_text(checks: Iterable[str], out: Console) -> None:
    """Print what each of ``checks`` (ids) means, and what to do about its findings."""
    for number, check in enumerate(checks):
        if number:
            out.print()
        severity, meaning = CHECKS[check]
        out.print(Text.assemble((check, "bold"), " (", (severity, SEVERITY_STYLES[severity]), ")"))
        out.print(Text(meaning))
        out.print(Text(REMEDIES[check]))


def where_explained(out: Console) -> None:
    """Print how to get an explanation of a finding: on a terminal only, for people."""
    if out.is_terminal:
        out.print(Text("blkmig validate --explain ID explains a finding", "dim"))
