"""Accepting an image as an earlier replay left it at the end of an incomplete or damaged stream.

The journal keeps what was wrong with the stream, so that accepting it again gives the same report.
"""

from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.checks.report import Report
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.errors import BlkmigError, FailureError, StreamError
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.operations.replay.destinations import Destinations
from blkmig_cli.operations.replay.disk_size import Evidence, decide_size
from blkmig_cli.operations.replay.journal import Entry, Stop
from blkmig_cli.operations.replay.request import ReplayRequest, ReplayResult
from blkmig_cli.text import escape


def accept(request: ReplayRequest, destinations: Destinations) -> ReplayResult:
    """Set the sizes and names of the images of ``destinations``, which are open.

    Raises FailureError where the journal of an image does not record the end of its stream.
    """
    stops = {found.path: _stop(found) for found in destinations}
    findings: list[Finding] = []
    warnings: list[str] = []
    failure: BlkmigError | None = None
    for device, found in destinations.items():
        stop = stops[found.path]
        if stop is None:
            if not found.finished:
                warnings.append(
                    f"{escape(found.path)}: without the stream, its bitmaps are not written, if it has any"
                )
            continue
        name = device or (found.journal.device if found.journal is not None else None) or ""
        if not found.finished:
            evidence = _evidence(name, found, stop, request)
            decision = decide_size(evidence)
            if decision.finding is not None:
                findings.append(decision.finding)
            elif decision.size is not None:
                found.decide(decision.size, assumed=decision.assumed)
            if decision.assumed:
                warnings.append(
                    f"{escape(found.path)}: took {decision.size} bytes, the end of the last chunk "
                    f"({evidence.bounds}); see --device-size"
                )
        if stop.bitmaps:
            names = ", ".join(map(escape, stop.bitmaps))
            warnings.append(
                f"{escape(found.path)}: without the stream, its bitmaps are not written: {names}"
            )
        # Whether the size is unknown was decided again.
        kept = [stopped for stopped in stop.findings if stopped.id != "size-unknown"]
        findings += [Finding(f.id, "warning", f.message, None, name or None) for f in kept]
        if stop.damaged and failure is None:
            first = stop.findings[0] if stop.findings else None
            message = "the stream was damaged" if first is None else first.message
            failure = StreamError(message, check=None if first is None else first.id)
    complete = False if findings else None
    if not findings:
        text = "the stream was not read again, and nothing shows whether the images are complete"
        findings.append(Finding("completeness-unknown", "warning", text, None, None))
    report = Report("-", complete=complete, findings=tuple(findings), failure=failure)
    if any(found.severity == "error" for found in findings):
        return ReplayResult(report, accepted=False, partial_images=_incomplete(destinations))
    for found in destinations:
        found.accept()
    return ReplayResult(report, accepted=True, warnings=warnings)


def _evidence(name: str, found: Destination, stop: Stop, request: ReplayRequest) -> Evidence:
    return Evidence(
        name,
        found.path,
        SizeBounds(stop.least, stop.most, "stream"),
        0,
        stop.end,
        option=found.size,
        largest=request.hints.takes_most(name),
        image=found.existing_size,
        is_device=found.is_device,
        gaps=True,
    )


def _incomplete(destinations: Destinations) -> list[str]:
    return [found.incomplete_path for found in destinations if found.incomplete_path is not None]


def _stop(found: Destination) -> Stop | None:
    """Return the end of the stream from the journal; None if the image was finished with all of it."""
    entry: Entry | None = found.journal
    journal = escape(found.neighbours.journal)
    if entry is None:
        raise FailureError(f"{escape(found.path)} is not an incomplete image", hint="name a STREAM")
    if entry.stop is None and entry.state == "writing":
        raise FailureError(
            f"{journal}: the replay was interrupted before the end of its stream",
            hint="specify the STREAM again to continue it",
        )
    return entry.stop
