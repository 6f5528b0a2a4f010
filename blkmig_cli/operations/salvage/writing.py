"""What is intact of a stream as a stream of its own, without a sector that is not.

Records of dialect classic hold a MiB of a disk at any sector, so that what begins or ends within one
is covered by records that overlap.  Sizes of disks that are known are stated in the description.
"""

from collections.abc import Iterator, Sequence

from blkmig_cli.contents.final_layout import EndState
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.operations.salvage.result import SalvagedDisk
from blkmig_cli.operations.send.dialects import bitmap_starts
from blkmig_cli.operations.send.stream import bitmap_sections, section
from blkmig_cli.progress import Tick
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import (
    BLOCK_SECTION,
    CHUNK_SECTORS,
    CHUNK_SIZE,
    DIRTY_BITMAP_SECTION,
    SECTOR_SIZE,
    VERSION,
    BlockFlag,
    SectionType,
)
from blkmig_cli.transport.payloads import ImageRange, literal
from blkmig_cli.wire.events import (
    Block,
    Configuration,
    Eof,
    Event,
    Header,
    Progress,
    VmDescription,
)
from blkmig_cli.wire.identity import description

_PART_CHUNKS = 8  # of one section part, as QEMU writes about as many
_BLOCK_ID, _BITMAPS_ID = 1, 2
_MACHINE = "none"


def unwritable_ranges(layout: EndState, size: int | None) -> list[tuple[int, int]]:
    """Return the ranges (start, end) of sectors that no record can hold without what is not there.

    They are shorter than a chunk, and do not end with the disk of ``size`` bytes (None: not known).
    """
    end = None if size is None else -(-size // SECTOR_SIZE)
    return [
        (low, high)
        for low, high in _ranges(layout)
        if high - low < CHUNK_SECTORS and (end is None or high < end)
    ]


def salvaged_events(disks: Sequence[SalvagedDisk], *, intact: bool, tick: Tick) -> Iterator[Event]:
    """Return the events of a stream of ``disks``, which hold nothing that cannot be written.

    Without ``intact`` the final progress of 100 % is left out.  ``tick`` gets the bytes of the
    disks that are done.  Raises FailureError where the stream's file fails.
    """
    with_blocks = any(any(disk.layout) for disk in disks)
    owners = [Disk(disk.device, disk.image, _cut(disk)) for disk in disks]
    with_bitmaps = any(disk.bitmaps for disk in disks)
    yield Header(0, 0, None, VERSION)
    yield Configuration(0, 0, None, _MACHINE)
    if with_blocks:
        yield from section(SectionType.START, BLOCK_SECTION, _BLOCK_ID, [])
    if with_bitmaps:
        starts = bitmap_starts(owners)
        yield from section(SectionType.START, DIRTY_BITMAP_SECTION, _BITMAPS_ID, starts)
    if with_blocks:
        done = 0
        for disk in disks:
            for records in _records(disk):
                part: list[Event] = [*records]
                yield from section(SectionType.PART, BLOCK_SECTION, _BLOCK_ID, part)
                tick(done + records[-1].sector * SECTOR_SIZE)
            done += disk.size
        final = Progress(0, 0, BLOCK_SECTION, 100, BlockFlag.PROGRESS)
        end: list[Event] = [final] if intact else []
        yield from section(SectionType.END, BLOCK_SECTION, _BLOCK_ID, end)
    if with_bitmaps:
        yield from bitmap_sections(owners, _BITMAPS_ID)
    yield Eof(0, 0, None)
    sizes = {disk.device: disk.size for disk in disks if disk.size_known}
    yield VmDescription(0, 0, None, literal(description(sizes)))


def _cut(disk: SalvagedDisk) -> list[DirtyBitmap]:
    """Return the bitmaps of a disk without what is dirty past its end."""
    bitmaps = []
    for bitmap in disk.bitmaps:
        granules = -(-disk.size // bitmap.granularity)
        if bitmap.end() > granules * bitmap.granularity:
            given = bitmap.ranges(disk.size)
            bitmap = DirtyBitmap(  # noqa: PLW2901
                bitmap.name, bitmap.granularity, bitmap.recording, bitmap.persistent
            )
            for start, length in given:
                bitmap.set_range(start, length)
        bitmaps.append(bitmap)
    return bitmaps


def _records(disk: SalvagedDisk) -> Iterator[list[Block]]:
    """Return the records of a disk, some at a time."""
    records: list[Block] = []
    end = -(-disk.size // SECTOR_SIZE)
    for low, high in _ranges(disk.layout):
        for sector in _chunks(low, min(high, end)):
            records.append(_record(disk, sector, end))
            if len(records) == _PART_CHUNKS:
                yield records
                records = []
    if records:
        yield records


def _ranges(layout: EndState) -> IntervalSet:
    """Return the sectors that are there, as ranges that do not touch."""
    ranges = IntervalSet()
    for stretch in layout:
        ranges.add(stretch.start, stretch.end)
    return ranges


def _chunks(start: int, end: int) -> Iterator[int]:
    """Return the sectors of records that hold [start, end) and nothing before it.

    They are on the grid of chunks where that is possible.  The last one ends at ``end``, unless the
    range is shorter than a chunk.
    """
    at = covered = start
    while at + CHUNK_SECTORS <= end:
        yield at
        covered = at + CHUNK_SECTORS
        at = (at // CHUNK_SECTORS + 1) * CHUNK_SECTORS
    if covered < end:
        yield max(end - CHUNK_SECTORS, start)


def _record(disk: SalvagedDisk, sector: int, end: int) -> Block:
    """Return the record of the chunk at ``sector`` of a disk that ends at sector ``end``."""
    flags, data = BlockFlag.DEVICE_BLOCK, None
    stretches = disk.layout.between(sector, sector + CHUNK_SECTORS)
    if any(stretch.offset is not None for stretch in stretches):
        start = sector * SECTOR_SIZE
        padding = max(start + CHUNK_SIZE - disk.size, 0)
        data = ImageRange(start, CHUNK_SIZE, None, padding, image=disk.image)
    else:
        flags |= BlockFlag.ZERO_BLOCK
    sectors = min(CHUNK_SECTORS, end - sector)
    return Block(
        0, 0, BLOCK_SECTION, disk.device, sector, sectors, sectors, flags, "classic", data, ()
    )
