"""Disk images to events: what ``send`` writes.

Bulk in chunk order, device by device, with progress as QEMU computes it; the container and the
section order are QEMU's.  How bitmaps travel is the dialect's: ``dialects.py`` has one way each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.image import Readable
from blkmig_cli.operations.send import dialects as sending
from blkmig_cli.schemas.constants import (
    BLOCK_SECTION,
    BLOCK_VERSION,
    CHUNK_SECTORS,
    CHUNK_SIZE,
    DIRTY_BITMAP_SECTION,
    DIRTY_BITMAP_VERSION,
    SECTOR_SIZE,
    VERSION,
    BlockFlag,
    Command,
    SectionType,
)
from blkmig_cli.transport.payloads import ImageRange, literal
from blkmig_cli.wire.events import (
    Block,
    CommandEvent,
    Configuration,
    Eof,
    Eos,
    Event,
    Footer,
    Header,
    Payload,
    Progress,
    SectionHeader,
    VmDescription,
)

if TYPE_CHECKING:
    pass

# Chunks of one section part.  As in QEMU, their progress records come first: it submits some
# chunks, counting them, before the first is written.  (A v1 layout can be inferred only where
# chunk follows chunk: a progress record between them is as long as a word of bits.)
_PART_CHUNKS = 8
# Chunks of bits in one section part.
_PART_BITS = 64
# No device has any state.  (QEMU grumbles where there is no description at all.)
_DESCRIPTION = b'{"devices": []}'
_BLOCK_ID = 1
_BITMAPS_ID = 2


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How to send.  ``dialect``: qemu, classic, v1 or v2; ``container``: qemu or none.

    ``return_path``: ask the destination to answer (``wire/return_path.py``).
    """

    dialect: str = "qemu"
    container: str = "qemu"
    machine: str = "none"
    zero_blocks: bool = True
    disks: bool = True
    skip_unallocated: bool = False
    return_path: bool = False


def is_cut(disk: Disk, options: SendOptions) -> bool:
    """Does the disk's end cut its last chunk, as it is sent?  (Dialect qemu moves that, if it can.)"""
    moved = options.dialect == "qemu" and disk.size >= CHUNK_SIZE and not options.skip_unallocated
    return disk.size % CHUNK_SIZE != 0 and not moved


def send_events(disks: list[Disk], options: SendOptions) -> Iterator[Event]:
    """The whole stream of ``disks``.

    Data is an ``ImageRange``, to be read when it is written.  Raises FailureError where an image
    fails.
    """
    records = _Records(disks, options)
    if options.container == "none":
        for batch in records.bulk():
            yield from batch
        yield _progress(100)
        yield Eos(0, 0, None, BlockFlag.EOS)
        return
    own_section = options.dialect == "qemu" and any(disk.bitmaps for disk in disks)
    yield Header(0, 0, None, VERSION)
    yield Configuration(0, 0, None, options.machine)
    if options.return_path:
        yield CommandEvent(0, 0, None, Command.OPEN_RETURN_PATH, b"")
    # A stream of bitmaps only has no block section, which QEMU 9.1 and later would refuse.
    with_blocks = options.disks or options.dialect != "qemu"
    if with_blocks:
        yield from section(SectionType.START, BLOCK_SECTION, _BLOCK_ID, [])
    if own_section:
        starts = sending.bitmap_starts(disks)
        yield from section(SectionType.START, DIRTY_BITMAP_SECTION, _BITMAPS_ID, starts)
    if with_blocks:
        for batch in records.bulk():
            yield from section(SectionType.PART, BLOCK_SECTION, _BLOCK_ID, batch)
        yield from section(SectionType.END, BLOCK_SECTION, _BLOCK_ID, [_progress(100)])
    if own_section:
        yield from bitmap_sections(disks, _BITMAPS_ID)
    yield Eof(0, 0, None)
    yield VmDescription(0, 0, None, literal(_DESCRIPTION))


def section(kind: SectionType, name: str, number: int, content: list[Event]) -> Iterator[Event]:
    """A section called ``name`` with its payload, the end of the payload, and its footer."""
    blocks = name == BLOCK_SECTION
    version = BLOCK_VERSION if blocks else DIRTY_BITMAP_VERSION
    yield SectionHeader(0, 0, name, kind, number, 0, version)
    yield from content
    yield Eos(0, 0, name, BlockFlag.EOS) if blocks else sending.bitmap_eos()
    yield Footer(0, 0, name, number)


def bitmap_sections(disks: list[Disk], number: int) -> Iterator[Event]:
    """All bits of all bitmaps in parts of some chunks, and the end of section ``number``."""
    part: list[Event] = []
    for chunk in sending.bitmap_chunks(disks):
        part.append(chunk)
        if len(part) == _PART_BITS:
            yield from section(SectionType.PART, DIRTY_BITMAP_SECTION, number, part)
            part = []
    yield from section(SectionType.END, DIRTY_BITMAP_SECTION, number, part)


def _progress(percent: int) -> Progress:
    return Progress(0, 0, BLOCK_SECTION, percent, BlockFlag.PROGRESS)


class _Data:
    """Where an image may hold something; asked in rising order, it keeps one extent of them all."""

    def __init__(self, image: Readable) -> None:
        self._left = image.extents()
        self._extent = (0, 0)

    def touches(self, start: int, length: int) -> bool:
        """May any of ``length`` bytes from ``start`` be other than zero?"""
        while sum(self._extent) <= start:
            found = next(self._left, None)
            if found is None:
                return False
            self._extent = found
        return self._extent[0] < start + length


class _Records:
    """The block records of all disks, with the progress records between them."""

    def __init__(self, disks: list[Disk], options: SendOptions) -> None:
        self._disks = disks
        self._options = options
        self._dialect = sending.DIALECTS[options.dialect]
        self._unshifted = sending.DIALECTS[options.dialect.replace("qemu", "classic")]
        self._total = sum(disk.size // SECTOR_SIZE for disk in disks)
        self._finished = 0
        self._percent: int | None = None

    def bulk(self) -> Iterator[list[Event]]:
        """Records in batches of some chunks, each with its progress records before its blocks."""
        for disk in self._disks:
            for record in self._dialect.before(disk):
                yield [record]
            last = end = 0
            data, held = _Data(disk.image), False
            progress: list[Event] = []
            blocks: list[Event] = []
            for sector in range(0, disk.size // SECTOR_SIZE, CHUNK_SECTORS):
                end = sector
                held, before = data.touches(sector * SECTOR_SIZE, CHUNK_SIZE), held
                records = list(self._chunk(disk, sector, held, before))
                if records:
                    last = sector
                    progress.extend(self._count(sector))
                    blocks.extend(records)
                if len(blocks) >= _PART_CHUNKS:
                    yield progress + blocks
                    progress, blocks = [], []
            if last < end and self._options.disks:
                # QEMU counts holes at a disk's end as done when it has passed over them.
                last = disk.size // SECTOR_SIZE
                progress.extend(self._count(last))
            if progress or blocks:
                yield progress + blocks
            # ... and a disk whose last chunk was sent only to that chunk's start.
            self._finished += last

    def _count(self, sector: int) -> Iterator[Event]:
        percent = (self._finished + sector) * 100 // self._total
        if percent != self._percent:
            self._percent = percent
            yield _progress(percent)

    def _chunk(self, disk: Disk, sector: int, allocated: bool, before: bool) -> Iterator[Block]:
        """The records of a chunk; it and the one ``before`` it may be ``allocated``, or holes."""
        start = sector * SECTOR_SIZE
        length = min(CHUNK_SIZE, disk.size - start)
        data, zero = None, False
        if self._options.disks and (allocated or not self._options.skip_unallocated):
            data, zero = self._content(disk, start, length, allocated)
        dialect = self._dialect
        if self._options.skip_unallocated and not before:
            # A last MiB that ends at the disk's end would carry a part of the chunk before it,
            # which is to stay as the destination has it.
            dialect = self._unshifted
        yield from dialect.records(disk, sector, length // SECTOR_SIZE, data, zero)

    def _content(
        self, disk: Disk, start: int, length: int, allocated: bool
    ) -> tuple[Payload | None, bool]:
        """A chunk's data, padded with zeros to 1 MiB, or that it goes as a zero block."""
        if self._options.zero_blocks and (not allocated or disk.image.is_zero(start, length)):
            return None, True
        # Read when it is written, so that no chunk is held in memory.
        return ImageRange(start, CHUNK_SIZE, None, CHUNK_SIZE - length, image=disk.image), False
