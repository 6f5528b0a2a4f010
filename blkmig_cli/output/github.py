"""Reports for GitHub Actions: workflow commands, which make annotations, and a step's summary in Markdown.

An error is ``::error file=PATH,title=CHECK::MESSAGE``, a note a ``notice``.  What a stream or a file name
says cannot make other workflow commands: these start a line, or ``##[`` anywhere in it.
"""

import os
import re
from collections.abc import Iterator

from blkmig_cli import limits
from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.checks.report import Report
from blkmig_cli.errors import UsageError, failing
from blkmig_cli.operations.many.tally import Tally
from blkmig_cli.system.address import parse_address
from blkmig_cli.text import count, encode_name, escape

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}
# What has a meaning in Markdown, or in HTML, which may be in it.
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>&~@:-])")


def annotations(report: Report) -> Iterator[str]:
    """Yield the lines of a stream: its verdict, and an annotation for each finding."""
    yield f"{report.verdict}: {escape(report.stream)}".replace("##[", "## [")
    yield from findings(report)


def findings(report: Report) -> Iterator[str]:
    """Yield an annotation for each finding of a stream."""
    path = _path(report.stream)
    for finding in report.findings:
        properties = [*([] if path is None else [("file", path)]), ("title", finding.id)]
        shown = ",".join(f"{key}={_replaced(value, _PROPERTY)}" for key, value in properties)
        command = _COMMANDS[finding.severity]
        yield f"::{command} {shown}::{_replaced(_message(report.stream, finding), _DATA)}"


def _message(stream: str, finding: Finding) -> str:
    place = f" ({finding.place})" if finding.place else ""
    return escape(f"{stream}: {finding.message}{place}")


def _replaced(text: str, characters: dict[str, str]) -> str:
    return "".join(characters.get(char, char) for char in text)


def _path(stream: str) -> str | None:
    """Return the path of a stream in a file, relative to the working directory if it is below that."""
    try:
        address = parse_address(stream)
    except UsageError:
        return None
    if address.scheme != "file":
        return None
    path = os.path.relpath(address.path)
    return escape(address.path if path.startswith("..") else path)


def write_step_summary(path: str, tally: Tally) -> None:
    """Append the summary of ``tally`` to the file at ``path`` ($GITHUB_STEP_SUMMARY).

    Raises FailureError.
    """
    text = "".join(f"{line}\n" for line in step_summary(tally))
    with failing(path), open(path, "ab") as file:
        file.write(encode_name(text))


def step_summary(tally: Tally) -> Iterator[str]:
    """Yield the lines of the summary: the verdicts, and a table of the streams that are not whole."""
    yield f"### blkmig validate: {count(len(tally.rows), 'stream')}"
    yield ""
    yield ", ".join(f"{number:,} {verdict}" for verdict, number in tally.counts()) or "none"
    if tally.passed_over:
        yield f"({count(tally.passed_over, 'other file')} passed over)"
    if tally.without_base:
        yield f"({count(len(tally.without_base), 'increment')} without their base)"
    yield ""
    rows = [row for row in tally.rows if row.verdict != "whole" or row.warnings]
    if not rows:
        return
    yield "| stream | verdict | errors | warnings |"
    yield "| --- | --- | ---: | ---: |"
    for row in rows[: limits.SHOWN_MAX]:
        yield f"| {_markdown(row.stream)} | {row.verdict} | {row.errors:,} | {row.warnings:,} |"
    if len(rows) > limits.SHOWN_MAX:
        yield ""
        yield f"and {count(len(rows) - limits.SHOWN_MAX, 'stream')} more"


def _markdown(text: str) -> str:
    """Return ``text`` such that Markdown shows it as it is."""
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", escape(text))
