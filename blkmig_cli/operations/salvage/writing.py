"""Writing the intact part of a stream as a new stream, without any other sector.

It states the known sizes of disks, and that it is the intact part of another one.  If a size is
unknown, progress records are omitted, as they would bound it.
"""

from collections.abc import Iterator, Sequence

from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.operations.salvage.result import SalvagedDisk
from blkmig_cli.operations.send.places import unplaceable
from blkmig_cli.operations.send.stream import SendOptions, send_pieces
from blkmig_cli.schemas.constants import SectionType
from blkmig_cli.wire.events import Progress, SectionHeader
from blkmig_cli.wire.runs.columns import Piece


def unwritable(image: StreamDisk, *, size_known: bool) -> list[tuple[int, int]]:
    """Return the sectors [start, end) that no records carry without some that are not intact.

    They are fewer than a chunk, and do not end with the disk, or the end of the disk is unknown.
    """
    return list(unplaceable(image.incremental(), on_grid=False, open_ended=not size_known))


def disks_to_send(found: Sequence[SalvagedDisk]) -> list[Disk]:
    """Return the disks with only what is intact of them, and their bitmaps."""
    return [
        Disk(
            disk.device,
            disk.image.incremental(),
            _cut(disk),
            partial=True,
            open_ended=not disk.size_known,
        )
        for disk in found
    ]


def salvaged_pieces(
    found: Sequence[SalvagedDisk], disks: list[Disk], *, intact: bool, whole: bool
) -> Iterator[Piece]:
    """Yield the stream of ``disks``, made from the ``found`` ones.

    It includes the final progress of 100 % only if the damaged stream was ``intact``; ``whole``: nothing is
    lost.  Raises FailureError where that stream's file fails.
    """
    sizes = {disk.device: disk.size for disk in found if disk.size_known}
    blocks = any(any(disk.layout) for disk in found)
    options = SendOptions("qemu", disks=blocks, sizes=sizes, salvaged=not whole)
    counted = intact and len(sizes) == len(found)
    in_end = False
    for piece in send_pieces(disks, options):
        if isinstance(piece, SectionHeader):
            in_end = piece.kind == SectionType.END
        if isinstance(piece, Progress) and not (counted or (intact and in_end)):
            continue
        yield piece


def _cut(disk: SalvagedDisk) -> list[DirtyBitmap]:
    """Return the bitmaps of a disk without dirty granules past its end."""
    bitmaps = []
    for bitmap in disk.bitmaps:
        granules = -(-disk.size // bitmap.granularity)
        if bitmap.end() <= granules * bitmap.granularity:
            bitmaps.append(bitmap)
            continue
        cut = DirtyBitmap(bitmap.name, bitmap.granularity, bitmap.recording, bitmap.persistent)
        for start, length in bitmap.ranges(disk.size):
            cut.set_range(start, length)
        bitmaps.append(cut)
    return bitmaps
