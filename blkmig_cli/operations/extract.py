"""One disk, or one bitmap, out of a stream.  What never came must not look as if it had."""

from dataclasses import dataclass

from blkmig_cli import limits
from blkmig_cli.checks.report import BitmapVerdict, DeviceVerdict, Report
from blkmig_cli.checks.survey import Contents
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.disks.bitmap_file import BitmapFile
from blkmig_cli.disks.disk import past_end
from blkmig_cli.errors import FailureError, IncompleteError, UndecidableError, UsageError
from blkmig_cli.progress import Tick
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.text import human_size, quote
from blkmig_cli.transport.target import Sink
from blkmig_cli.wire.v1_layout import describe

# Findings that leave a disk in doubt: the first kind only while its size is open, or some is missing.
_UNSENT = ("missing-chunks", "bulk-unfinished")
_BROKEN = ("section-unfinished", "merged-devices")


@dataclass(frozen=True, slots=True)
class FoundDisk:
    """A disk of a stream, and what must be said of it."""

    disk: StreamDisk
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class FoundBitmap:
    """A bitmap of a stream, as a file that holds no other, and what must be said of it."""

    file: BitmapFile
    warnings: list[str]


def find_disk(
    contents: Contents, device: str | None = None, *, allow_incomplete: bool = False
) -> FoundDisk:
    """The disk of ``device`` (None: the only one), which ends with its last chunk if nothing tells.

    ``allow_incomplete``: what never came reads as zeros.  Without it, raises IncompleteError where
    something never came, and the StreamError of a damaged stream.  Raises UsageError where there is
    no such disk, several, or the stream is a pipe; FailureError for a record past the disk's end.
    """
    report = contents.report
    _refuse_damaged(report, allow_incomplete=allow_incomplete)
    verdict = _choose_disk(report, device)
    name, exact = verdict.disk.name, verdict.size.exact
    disk = contents.disk(name)
    if exact is not None and verdict.disk.top * SECTOR_SIZE >= exact:
        raise past_end(name, verdict.disk.top, verdict.disk.top_offset, exact)
    warnings = []
    if exact is None:
        if disk.size > limits.GROWTH_MAX:
            raise FailureError(
                f"the disk would be of {human_size(disk.size)}",
                device=name,
                hint="if this is meant, say --device-size",
            )
        warnings.append(_size_taken(name, disk.size))
    doubt = _doubt(report, verdict)
    if doubt is not None:
        if not allow_incomplete:
            hint = "with --allow-incomplete, zeros stand for what never came"
            raise IncompleteError(doubt, device=name, hint=hint)
        missing = sum(length for _, length in verdict.missing)
        never = f"{human_size(missing)} of {quote(name)} never came, and are zeros"
        warnings.append(never if missing else doubt)
    return FoundDisk(disk, warnings)


def find_bitmap(contents: Contents, name: str, *, allow_incomplete: bool = False) -> FoundBitmap:
    """The bitmap ``[DEVICE:]NAME``, which is whole.

    ``allow_incomplete``: the stream may be damaged elsewhere.  Raises the StreamError of a damaged
    one, UndecidableError where the bitmap's granularity is open, IncompleteError where it is not
    whole (lost bits are lost writes), UsageError where there is no such bitmap, or several.
    """
    report = contents.report
    _refuse_damaged(report, allow_incomplete=allow_incomplete)
    verdict = _choose_bitmap(report, name)
    bitmap = verdict.bitmap
    if bitmap.content is None:
        raise UndecidableError(
            f"the granularity of bitmap {quote(bitmap.name)} is {describe(verdict.candidates)}",
            device=bitmap.device,
            hint="say which with --granularity",
        )
    if verdict.complete is False:
        raise IncompleteError(
            f"bitmap {quote(bitmap.name)} is not whole",
            device=bitmap.device,
            check="bitmap-incomplete",
        )
    size, warnings = contents.checker.size(bitmap.device), []
    end = size.exact
    if end is None:
        end = max(size.least, bitmap.covered.end * SECTOR_SIZE)
        warnings.append(_size_taken(bitmap.device, end))
    return FoundBitmap(BitmapFile(end, {bitmap.name: bitmap.content}), warnings)


def copy_disk(disk: StreamDisk, sink: Sink, tick: Tick) -> None:
    """Write all of ``disk``; zeros, and what never came, as holes where ``sink`` has such.

    ``tick`` is told the bytes of the disk that are done.  Raises FailureError.
    """
    for piece in disk.pieces():
        length = piece.end - piece.start
        if piece.offset is None or (sink.sparse and disk.is_zero(piece.start, length)):
            sink.zeros(length)
        else:
            sink.copy(disk, piece.start, length)
        tick(piece.end)


def _refuse_damaged(report: Report, *, allow_incomplete: bool) -> None:
    if report.failure is not None and not allow_incomplete:
        report.failure.hint = report.failure.hint or "--allow-incomplete takes what is sound"
        raise report.failure


def _choose_disk(report: Report, device: str | None) -> DeviceVerdict:
    disks = [found for found in report.devices if found.disk.has_blocks]
    chosen = [found for found in disks if device in (None, found.disk.name)]
    if len(chosen) != 1:
        names = ", ".join(quote(found.disk.name) for found in disks)
        raise UsageError(f"the stream has the disks {names or 'none'}", hint="say --device DEVICE")
    return chosen[0]


def _choose_bitmap(report: Report, name: str) -> BitmapVerdict:
    names = {f"{found.bitmap.device}:{found.bitmap.name}": found for found in report.bitmaps}
    chosen = [
        found for full, found in names.items() if name in (full, found.bitmap.name)
    ]  # fmt: skip
    if len(chosen) != 1:
        known = ", ".join(map(quote, names)) or "none"
        raise UsageError(f"the stream has the bitmaps {known}", hint="say --bitmap DEVICE:NAME")
    return chosen[0]


def _doubt(report: Report, verdict: DeviceVerdict) -> str | None:
    """What is proven of a disk that did not come whole; what nothing tells is no doubt."""
    came = verdict.size.exact is not None and not verdict.missing
    for finding in report.findings:
        of_it = finding.device in (None, verdict.disk.name)
        if of_it and (finding.id in _BROKEN or (finding.id in _UNSENT and not came)):
            return finding.message
    return None


def _size_taken(device: str, size: int) -> str:
    return f"the size of {quote(device)} is not in the stream; took {size} bytes; see --device-size"
