"""Extracting one disk or one bitmap from a stream.

Chunks that were not sent are not treated as zeros: without ``allow_incomplete`` nothing is written.
"""

from dataclasses import field
from itertools import chain

from blkmig_cli import limits
from blkmig_cli.checks.acceptance import ALWAYS, UNSENT, accepted, accepting
from blkmig_cli.checks.catalogue import Finding, finding_of
from blkmig_cli.checks.names import Names, find_bitmaps, find_device, split_bitmap
from blkmig_cli.checks.report import BitmapVerdict, DeviceVerdict, Report
from blkmig_cli.checks.survey import Contents
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.bitmap_file import BitmapFile, bitmaps_text, check_room
from blkmig_cli.disks.disk import past_end
from blkmig_cli.errors import (
    BlkmigError,
    FailureError,
    IncompleteError,
    UndecidableError,
    UsageError,
)
from blkmig_cli.operations.extract_image import image_format, write_image
from blkmig_cli.operations.reading import Reading, check_target
from blkmig_cli.progress import Tick
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import (
    device_name,
    escape,
    exact_size,
    human_size,
    names_text,
    quote,
    size_range,
)
from blkmig_cli.transport.sinks import Sink
from blkmig_cli.transport.target import open_target
from blkmig_cli.wire.v1.layout import describe


@dataclass(frozen=True, slots=True)
class FoundDisk:
    """A disk of a stream, and warnings about it."""

    disk: StreamDisk
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class FoundBitmap:
    """A bitmap of a stream, as a file with only that one, and warnings about it."""

    file: BitmapFile
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Extracted:
    """The bytes written; warnings about them; the error that ended the reading, if any."""

    written: int
    warnings: list[str] = field(default_factory=list)
    failure: BlkmigError | None = None


def extract(
    stream: str,
    target: str | None,
    reading: Reading,
    *,
    device: str | None = None,
    bitmap: str | None = None,
    stated_format: str | None = None,
    allow_incomplete: bool = False,
) -> Extracted:
    """Write the disk of ``device`` (None: the only one) in the STREAM, or ``bitmap``, to the TARGET.

    A disk may be written as an image of another format than raw (``stated_format``, else by the suffix
    of TARGET), or to an NBD export.  Nothing is written if it raises; see
    :func:`find_disk`, :func:`find_bitmap`, :func:`open_target` and :func:`write_image`.

    With ``allow_incomplete``, the error that ended the reading of a damaged stream is in the result.
    """
    kind = None if bitmap is not None else image_format(target, stated_format)
    if kind is None:
        check_target(stream, target, *reading.bases)
    elif target is not None:
        FileUses.of_stream(stream, *reading.bases).add("the target", target, writes=True)
    with reading.contents(stream, again=bitmap is None) as contents:
        failure = contents.report.failure
        Names.of(contents.report).check_hints(reading.hints)
        if bitmap is not None:
            found = find_bitmap(contents, bitmap, allow_incomplete=allow_incomplete)
            check_room(found.file)
            with open_target(target, FileUses.of_stream(stream, *reading.bases)) as sink:
                for piece in bitmaps_text(found.file):
                    sink.write(piece)
            return Extracted(sink.written, found.warnings, failure)
        chosen = find_disk(contents, device, allow_incomplete=allow_incomplete)
        if kind is not None and target is not None:
            with reading.progress("extracting", chosen.disk.size) as tick:
                written = write_image(chosen.disk, target, kind, tick)
            return Extracted(written, chosen.warnings, failure)
        with (
            open_target(target, FileUses.of_stream(stream, *reading.bases)) as sink,
            reading.progress("extracting", chosen.disk.size) as tick,
        ):
            copy_disk(chosen.disk, sink, tick)
    return Extracted(sink.written, chosen.warnings, failure)


def find_disk(
    contents: Contents, device: str | None = None, *, allow_incomplete: bool = False
) -> FoundDisk:
    """Return the disk of ``device`` (None: the only one); if its size is unknown, up to its last chunk.

    ``allow_incomplete``: chunks that were not sent read as zeros.  Without it, raises IncompleteError
    if there are such chunks, and the StreamError of a damaged stream.  Raises UsageError where there
    is no such disk, several, or the stream is a pipe; IncompleteError where a record lies past the
    disk's end, or its size is unknown and cannot be the end of its last chunk; FailureError where
    that is beyond the size of any real disk.
    """
    report = contents.report
    _refuse_damaged(report, allow_incomplete=allow_incomplete)
    verdict = _choose_disk(report, device)
    name, exact = verdict.disk.name, verdict.size.exact
    disk = contents.disk(name)
    if exact is not None and verdict.disk.top * SECTOR_SIZE >= exact:
        raise past_end(name, verdict.disk.top, verdict.disk.top_offset, exact)
    warnings = []
    fault, missing = _fault(report, verdict), verdict.missing_bytes
    zeros = "use --allow-incomplete to write zeros for what was not sent"
    if fault is not None and fault.id not in accepted(
        "extract", {"--allow-incomplete": allow_incomplete}
    ):
        hint = zeros if accepting("extract", fault.id) else None
        raise IncompleteError(fault.message, device=name, hint=hint)
    if missing and not allow_incomplete:
        raise IncompleteError(
            f"{human_size(missing)} of the disk was not sent: the stream is an increment",
            device=name,
            hint=f"specify the streams under it with --base, or {zeros}",
        )
    if missing:
        text = f"{human_size(missing)} of {device_name(name)} was not sent, and is written as zeros"
        warnings.append(text)
    elif fault is not None:
        warnings.append(fault.message)
    if exact is None:
        disk = disk.resized(_assumed_size(verdict))
        warnings.append(_assumed_text(name, disk.size))
    return FoundDisk(disk, warnings)


def find_bitmap(contents: Contents, name: str, *, allow_incomplete: bool = False) -> FoundBitmap:
    """Return the bitmap ``[DEVICE:]NAME``, which is complete.

    ``allow_incomplete``: the stream may be damaged elsewhere.  Raises the StreamError of a damaged
    one, UndecidableError where the bitmap's granularity is not known, IncompleteError where the bitmap
    is incomplete (lost bits are lost writes), UsageError where there is no such bitmap, or several.
    """
    report = contents.report
    _refuse_damaged(report, allow_incomplete=allow_incomplete)
    verdict = _choose_bitmap(report, name)
    bitmap = verdict.bitmap
    if bitmap.content is None:
        raise UndecidableError(
            f"the granularity of bitmap {quote(bitmap.name)} is {describe(verdict.candidates)}",
            device=bitmap.device,
            hint="specify it with --granularity",
        )
    if verdict.complete is False:
        raise IncompleteError(
            f"bitmap {quote(bitmap.name)} is incomplete",
            device=bitmap.device,
            check="bitmap-incomplete",
        )
    size, warnings = contents.checker.size(bitmap.device), []
    end = size.exact
    if end is None:
        end = max(size.least, bitmap.covered.end * SECTOR_SIZE)
        warnings.append(_assumed_text(bitmap.device, end))
    return FoundBitmap(BitmapFile(end, {bitmap.name: bitmap.content}), warnings)


def copy_disk(disk: StreamDisk, sink: Sink, tick: Tick) -> None:
    """Write all of ``disk``; zeros and missing chunks become holes if ``sink`` supports them.

    ``tick`` gets the bytes of the disk written so far.  Raises FailureError.
    """
    at = 0
    for start, size in chain(disk.extents(), [(disk.size, 0)]):
        if at < start:
            sink.zeros(start - at)
        for piece in disk.pieces(start, size):
            length = piece.end - piece.start
            if sink.sparse and disk.is_zero(piece.start, length):
                sink.zeros(length)
            else:
                sink.copy(disk, piece.start, length)
            tick(piece.end)
        at = start + size
    tick(at)


def _refuse_damaged(report: Report, *, allow_incomplete: bool) -> None:
    failure = report.failure
    if failure is not None and not (allow_incomplete and report.verdict == "damaged"):
        if report.verdict == "damaged":
            hint = "use --allow-incomplete to write what precedes the damage"
            failure.hint = failure.hint or hint
        report.check_read()


def _choose_disk(report: Report, device: str | None) -> DeviceVerdict:
    disks = {found.disk.name: found for found in report.devices if found.disk.has_blocks}
    if device is None and len(disks) == 1:
        return next(iter(disks.values()))
    if device is None:
        text = (
            f"the stream has the disks {names_text(disks)}" if disks else "the stream has no disk"
        )
        raise UsageError(text, hint="specify --device DEVICE" if disks else None)
    if device not in disks:
        report.check_read()  # the device may be in the part that was not read
    find_device("--device", device, disks)
    return disks[device]


def _choose_bitmap(report: Report, name: str) -> BitmapVerdict:
    known = [(found.bitmap.device, found.bitmap.name) for found in report.bitmaps]
    wanted = find_bitmaps("--bitmap", split_bitmap(name), known)
    if len(wanted) > 1:
        names = names_text(f"{device}:{bitmap}" for device, bitmap in wanted)
        raise UsageError(f"the stream has the bitmaps {names}", hint="specify --bitmap DEVICE:NAME")
    return next(
        found for found in report.bitmaps if (found.bitmap.device, found.bitmap.name) in wanted
    )


def _fault(report: Report, verdict: DeviceVerdict) -> Finding | None:
    """Return an error that makes a disk incomplete or wrong; an unknown size alone does not."""
    came = verdict.size.exact is not None and not verdict.missing
    ignored = accepted("extract", {ALWAYS: True})
    damage = None if report.failure is None else finding_of(report.failure)
    for finding in report.findings:
        of_it = finding.device in (None, verdict.disk.name)
        # If all of its known size was sent, these do not show that the disk is incomplete.
        excused = finding.id in ignored or (came and finding.id in UNSENT)
        if damage is not None and (finding.id, finding.offset) == (damage.id, damage.offset):
            continue
        if finding.severity == "error" and of_it and not excused:
            return finding
    return None


def _assumed_size(verdict: DeviceVerdict) -> int:
    """Return the end of the last chunk of a disk of unknown size, if it can be the disk's.

    Raises IncompleteError where it cannot, FailureError where no real disk is so large.
    """
    size, end = verdict.size, (verdict.disk.top + CHUNK_SECTORS) * SECTOR_SIZE
    name = verdict.disk.name
    if not size.allows(end):
        option = f"--device-size {escape(name)}=" if name else "--device-size "
        most = "" if size.most is None else f" or {option}max"
        raise IncompleteError(
            f"size of {quote(name)} is unknown ({size_range(size.least, size.most)})",
            hint=f"specify {option}SIZE{most}",
            check="size-unknown",
        )
    if end > limits.GROWTH_MAX:
        raise FailureError(
            f"the disk has {human_size(end)}, up to its last chunk",
            device=name,
            hint="specify its size with --device-size, if that is intended",
        )
    return end


def _assumed_text(device: str, size: int) -> str:
    return f"size of {quote(device)} is unknown; assumed {exact_size(size)}; see --device-size"
