"""One disk, or one bitmap, out of a stream.  What never came must not look as if it had."""

from blkmig_cli.bitmapfile import BitmapFile, bitmaps_text
from blkmig_cli.checks import BitmapVerdict, DeviceVerdict, Report
from blkmig_cli.decode.layout import describe
from blkmig_cli.errors import FailureError, UndecidableError, UsageError
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.sinks import Sink
from blkmig_cli.streamdisk import Contents, StreamDisk
from blkmig_cli.text import quote
from blkmig_cli.ticks import Tick


def choose_disk(report: Report, device: str | None) -> DeviceVerdict:
    """The verdict on the disk of ``device`` (None: the only one).

    Raises UsageError where there is no such disk, or more than one.
    """
    disks = [found for found in report.devices if found.disk.has_blocks]
    chosen = [found for found in disks if device in (None, found.disk.name)]
    if len(chosen) != 1:
        names = ", ".join(quote(found.disk.name) for found in disks)
        raise UsageError(f"the stream has the disks {names or 'none'}", hint="say --device DEVICE")
    return chosen[0]


def choose_bitmap(report: Report, name: str) -> BitmapVerdict:
    """The verdict on the bitmap ``[DEVICE:]NAME``.

    Raises UsageError where there is no such bitmap, or more than one.
    """
    chosen = [
        found
        for found in report.bitmaps
        if name in (found.bitmap.name, f"{found.bitmap.device}:{found.bitmap.name}")
    ]
    if len(chosen) != 1:
        names = ", ".join(
            quote(f"{found.bitmap.device}:{found.bitmap.name}") for found in report.bitmaps
        )
        raise UsageError(
            f"the stream has the bitmaps {names or 'none'}", hint="say --bitmap DEVICE:NAME"
        )
    return chosen[0]


def extract_disk(disk: StreamDisk, sink: Sink, tick: Tick) -> None:
    """Write all of ``disk``; zeros, and what never came, as holes where ``sink`` has such.

    ``tick`` is told the bytes of the disk that are done.  Raises FailureError.
    """
    for piece in disk.pieces():
        if piece.kind == "data":
            sink.copy(disk, piece.start, piece.end - piece.start)
        else:
            sink.zeros(piece.end - piece.start)
        tick(piece.end)


def bitmap_document(contents: Contents, verdict: BitmapVerdict) -> bytes:
    """The bitmap as a file of bitmaps (``bitmapfile.py``) that holds no other.

    Raises UndecidableError where its granularity is open, FailureError where it is not whole: a
    bitmap that has lost bits would lose writes.
    """
    bitmap = verdict.bitmap
    if bitmap.content is None:
        raise UndecidableError(
            f"the granularity of bitmap {quote(bitmap.name)} is {describe(verdict.candidates)}",
            device=bitmap.device,
            hint="say which with --granularity",
        )
    if verdict.complete is False:
        raise FailureError(f"bitmap {quote(bitmap.name)} is not whole", device=bitmap.device)
    size = contents.checker.size(bitmap.device)
    end = size.exact or size.most or bitmap.covered.end * SECTOR_SIZE
    bitmap.content.recording, bitmap.content.persistent = bitmap.recording, bitmap.persistent
    return bitmaps_text(BitmapFile(end, {bitmap.name: bitmap.content}))
