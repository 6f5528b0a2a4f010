"""The human output of reports and of replays."""

from typing import cast

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from blkmig_cli import limits
from blkmig_cli.checks.report import DeviceVerdict, Report, Verdict
from blkmig_cli.operations.many.tally import Row, Tally
from blkmig_cli.operations.replay.request import ReplayResult
from blkmig_cli.output.human.checks import SEVERITY_STYLES, where_explained
from blkmig_cli.output.human.console import not_shown
from blkmig_cli.output.human.console import table as new_table
from blkmig_cli.text import bitmap_name, count, device_name, escape, human_size, size_range

# Rows of a part of the summary.
_ROWS = 256
_VERDICT_STYLES: dict[Verdict, str] = {
    "whole": "bold green",
    "unknown": "yellow",
    "incomplete": "bold red",
    "faulty": "bold red",
    "damaged": "bold red",
    "not-a-stream": "bold red",
    "failed": "bold red",
}


def _shown_name(stream: str) -> str:
    return "(stdin)" if stream == "-" else escape(stream)


def _verdict(verdict: Verdict) -> Text:
    return Text(verdict, _VERDICT_STYLES[verdict])


def report_text(report: Report, out: Console) -> None:
    """Print a stream's report: verdict, disks, bitmaps, findings."""
    heading(report, out)
    disks_table(report, out)
    bitmaps_table(report, out)
    for name, path in report.same:
        out.print(Text(f"{escape(path)} matches {device_name(name)}", "green"))
    if report.manifest is not None:
        out.print(Text(f"matches {escape(report.manifest)}", "green"))
    findings_text(report, out)


def heading(report: Report, out: Console, *, brief: bool = False) -> None:
    """Print the stream's name and the verdict on it; unless ``brief``, what was moved of a URL, too."""
    kind = ", ".join(
        part
        for part in (
            f"dialect {report.dialect}" if report.dialect else "",
            f"container {report.container}" if report.container else "",
        )
        if part
    )
    out.print(
        Text.assemble(
            _shown_name(report.stream),
            ": ",
            _verdict(report.verdict),
            f"  ({kind})" if kind else "",
        )
    )
    if report.transfer is not None and not brief:
        moved, size = report.transfer.moved, report.transfer.size
        of = "" if size is None else f" of {human_size(size)}"
        requests = count(report.transfer.requests, "request")
        out.print(f"  {human_size(moved)}{of} moved in {requests}")


def disks_table(report: Report, out: Console) -> None:
    """Print a row for each disk, if there are any."""
    disks = [device for device in report.devices if device.disk.has_blocks]
    if not disks:
        return
    table = new_table(
        "DISK", "SIZE", "CHUNKS", "ZERO", "REPEATED", "MISSING",
        right=("SIZE", "CHUNKS", "ZERO", "REPEATED", "MISSING"),
    )  # fmt: skip
    for device in disks[: limits.SHOWN_MAX]:
        table.add_row(
            Text(device_name(device.disk.name)),
            size_range(device.size.least, device.size.most),
            f"{device.disk.chunks:,}",
            f"{device.disk.zero_chunks:,}",
            f"{device.disk.repeated_chunks:,}",
            _missing(device, report.complete),
        )
    out.print(table)
    not_shown(len(disks), "disk", out)


def _missing(device: DeviceVerdict, complete: bool | None) -> Text:
    """Return what is known to be missing of a disk, of a stream that may be ``complete``."""
    missing = device.missing_bytes
    if device.intended and complete is not False and (missing or not device.end_known):
        return Text("in the base")
    if not (missing or device.end_known):
        return Text("unknown")
    least = "" if device.end_known else "at least "
    return Text(f"{least}{human_size(missing)}", "bold red" if missing else "")


def bitmaps_table(report: Report, out: Console, most: int | None = None) -> None:
    """Print a row for each bitmap, ``most`` (None: the limit) at most, if there are any."""
    if not report.bitmaps:
        return
    table = new_table(
        "BITMAP", "GRANULARITY", "DIRTY", "FLAGS", "COMPLETE", right=("GRANULARITY", "DIRTY")
    )
    for verdict in report.bitmaps[: limits.SHOWN_MAX if most is None else most]:
        bitmap = verdict.bitmap
        flags = [
            "recording" if bitmap.recording else "disabled",
            *(["persistent"] if bitmap.persistent else []),
        ]
        complete = {True: "yes", False: "no", None: "?"}[verdict.complete]
        granularity = (
            f"{len(verdict.candidates)} candidates"
            if bitmap.granularity is None
            else human_size(bitmap.granularity)
        )
        table.add_row(
            Text(bitmap_name(bitmap.device, bitmap.name)),
            granularity,
            "?" if verdict.count is None else human_size(verdict.count),
            " ".join(flags),
            Text(complete, "bold red" if verdict.complete is False else ""),
        )
    out.print(table)
    not_shown(len(report.bitmaps), "bitmap", out, most)


def findings_text(report: Report, out: Console, most: int | None = None) -> None:
    """Print a line for each finding, as :func:`bitmaps_table`, but for the error that goes to stderr."""
    failure = report.failure
    at_end = None if failure is None else (failure.check, failure.offset)
    findings = [finding for finding in report.findings if (finding.id, finding.offset) != at_end]
    for finding in findings[: limits.SHOWN_MAX if most is None else most]:
        place = finding.place
        out.print(
            Text.assemble(
                (f"{finding.severity}: ", SEVERITY_STYLES[finding.severity]),
                finding.message,
                f" ({place})" if place else "",
                (f" [{finding.id}]", "dim"),
            )
        )
    not_shown(len(findings), "finding", out, most)


def replay_text(
    result: ReplayResult, out: Console, *, dry: bool, verified: bool, brief: bool = False
) -> None:
    """Print the result of a replay; ``brief``: only the verdict, and incomplete images.

    ``verified``: what was written, or had been, was read back.
    """
    checked = ", verified" if verified and result.accepted else ""
    if brief:
        heading(result.report, out, brief=True)
    else:
        report_text(result.report, out)
        for device, at in result.resumed.items():
            where = f"resumed at byte {at} of the stream"
            where = f"finished already{checked}" if at is None else where
            out.print(f"{device_name(device)}: {where}")
        for device, written in result.written.items():
            if device in result.resumed and result.resumed[device] is None:
                continue
            out.print(f"{device_name(device)}: {human_size(written)} written{checked}")
        for device in result.applied:
            out.print(f"{device_name(device)}: the image holds this increment already")
        for path in result.bitmap_files:
            out.print(f"bitmaps in {escape(path)}")
    for path in result.partial_images:
        out.print(f"{escape(path)} is incomplete; use --resume to continue")
    if dry and not brief:
        out.print("dry run: nothing was written")
    elif not (result.accepted or result.partial_images) or result.applied:
        out.print("nothing was written")
    if not brief and result.report.counting(strict=True):
        where_explained(out)


def summary(tally: Tally, out: Console) -> None:
    """Print the summary of many streams: a line for each, and their number by verdict."""
    # Not a table of rich's, which takes nine times as long: 0.28 s for 1,000 rows.
    rows = [("STREAM", "VERDICT", "ERRORS", "WARNINGS"), *map(_cells, tally.rows)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for at in range(0, len(rows), _ROWS):
        lines = Text("\n").join(_line(row, widths) for row in rows[at : at + _ROWS])
        out.print(lines, soft_wrap=True)
    counts = [
        Text.assemble(f"{number:,} ", _verdict(verdict)) for verdict, number in tally.counts()
    ]
    out.print(f"{count(len(tally.rows), 'stream')}: ", Text(", ").join(counts), sep="")
    if tally.passed_over:
        out.print(f"{count(tally.passed_over, 'other file')} passed over")
    if tally.unchanged:
        out.print(f"{count(tally.unchanged, 'file')} unchanged, not read again")


def _line(cells: tuple[str, ...], widths: list[int]) -> Text:
    """Return a row of the summary, its numbers aligned to the right; the heading in bold."""
    name, verdict, *numbers = cells
    style = _VERDICT_STYLES.get(cast(Verdict, verdict), "bold")
    heading = style if style == "bold" else ""
    line = Text(f"{name}{' ' * (widths[0] - cell_len(name))}  ", heading)
    line.append(f"{verdict:{widths[1]}}", style)
    for number, width in zip(numbers, widths[2:], strict=True):
        line.append(f"  {number:>{width}}")
    return line


def _cells(row: Row) -> tuple[str, str, str, str]:
    """Return the cells of a stream in a summary."""
    return _shown_name(row.stream), row.verdict, f"{row.errors:,}", f"{row.warnings:,}"


def without_base(tally: Tally, out: Console) -> None:
    """Print the increments in a catalogue that lack their base."""
    for report in tally.without_base:
        out.print(Text(f"{escape(report.stream)}:"), end=" ")
        findings_text(report, out)
