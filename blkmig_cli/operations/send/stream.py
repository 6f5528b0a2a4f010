"""Disk images to the events that ``send`` writes.

Chunks are sent in order, disk by disk, with progress as QEMU computes it (QEMU 7.2, migration/block.c:
blk_mig_save_bulked_block); the container and the order of sections are QEMU's.  ``dialects.py`` has
the records of each dialect.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.image import Readable
from blkmig_cli.operations.send import dialects as sending
from blkmig_cli.operations.send.places import placed, regions
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
from blkmig_cli.wire.announcement import announcement
from blkmig_cli.wire.events import (
    Block,
    CommandEvent,
    Configuration,
    Eof,
    Eos,
    Event,
    Footer,
    Header,
    Progress,
    SectionHeader,
    VmDescription,
)
from blkmig_cli.wire.identity import Identity, description

if TYPE_CHECKING:
    from blkmig_cli.wire.runs.columns import Numbers, Piece

# Chunks of one section part.  As in QEMU, their progress records are first: it submits some
# chunks, counting them, before the first is written.  (A v1 layout can be inferred only from
# adjacent chunks: a progress record between them is as long as a word of bits.)
_PART_CHUNKS = 8
_PART_SECTORS = _PART_CHUNKS * CHUNK_SECTORS
# Chunks of bits in one section part.
_PART_BITS = 64
_BLOCK_ID = 1
_BITMAPS_ID = 2


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How to send.  ``dialect``: qemu, classic, v1 or v2; ``container``: qemu or none.

    ``disks``: send the disks' content, not only their bitmaps.  ``return_path``: request an answer
    from the destination (``wire/return_path.py``).  ``sizes``: sizes of disks in bytes, by
    device, and ``identity``: that of the stream, to state in the description at the stream's end, and
    whether it is the intact part of another one: ``salvaged``.
    ``received``: bytes at the start of disks, by device, that the destination has.
    """

    dialect: str = "qemu"
    container: str = "qemu"
    machine: str = "none"
    zero_blocks: bool = True
    disks: bool = True
    skip_unallocated: bool = False
    return_path: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    identity: Identity | None = None
    salvaged: bool = False
    received: Mapping[str, int] = field(default_factory=dict)


def is_cut(disk: Disk, options: SendOptions) -> bool:
    """Return whether the disk's end cuts its last chunk as it is sent."""
    if disk.size % CHUNK_SIZE == 0:
        return False
    moved = last_chunk(disk) if options.dialect == "qemu" else None
    if disk.partial:
        total = disk.size // SECTOR_SIZE
        last = deque(regions(disk.image), 1)
        return any(end == total and (moved is None or start > moved) for start, end in last)
    return moved is None or options.skip_unallocated


def send_events(disks: list[Disk], options: SendOptions) -> Iterator[Event]:
    """Return the events of :func:`send_pieces`, one by one."""
    from blkmig_cli.wire.runs.columns import expand  # noqa: PLC0415 (numpy is slow to load)

    return expand(send_pieces(disks, options))


def send_pieces(disks: list[Disk], options: SendOptions) -> "Iterator[Piece]":
    """Return the stream of ``disks``: events, and runs of parts with zero chunks only.

    Data is an ``ImageRange``, which is read when it is written.  Raises FailureError where an image
    fails.
    """
    yield from stream_start(disks, options)
    yield from disk_parts(disks, options)
    yield from stream_end(disks, options)


def stream_start(disks: list[Disk], options: SendOptions) -> Iterator[Event]:
    """Return the events before the first part; of bitmaps, only names, granularities and flags count."""
    if options.container == "none":
        return
    yield Header(0, 0, None, VERSION)
    yield Configuration(0, 0, None, options.machine)
    if options.return_path:
        yield CommandEvent(0, 0, None, Command.OPEN_RETURN_PATH, b"")
    if _with_blocks(options):
        announced = options.identity is not None and options.identity.incremental
        start: list[Event] = [announcement()] if announced else []
        yield from section(SectionType.START, BLOCK_SECTION, _BLOCK_ID, start)
    if _own_section(disks, options):
        starts = sending.bitmap_starts(disks)
        yield from section(SectionType.START, DIRTY_BITMAP_SECTION, _BITMAPS_ID, starts)


def disk_parts(
    disks: list[Disk],
    options: SendOptions,
    changes: Mapping[str, Iterable[tuple[int, int]]] | None = None,
    *,
    counts: bool = True,
) -> "Iterator[Piece]":
    """Return the parts with the chunks of ``disks``, as :func:`send_pieces` does.

    ``changes``: ranges (start, length) in bytes by device, ascending; only chunks that they touch are
    sent, though all of the disk can be read.  None: all.  ``counts``: with progress records.
    """
    if not _with_blocks(options):
        return
    for part, sectors in _Bulk(disks, options, changes, counts=counts).parts():
        framed = _framed(part, options)
        if sectors is None:
            yield from framed
        else:
            from blkmig_cli.operations.send.equal_parts import repeated  # noqa: PLC0415 (numpy)

            yield from repeated(framed, sectors, _PART_CHUNKS)


def progress_part(percent: int, options: SendOptions) -> list[Event]:
    """Return a part with a progress record only."""
    return _framed([_progress(percent)], options)


def stream_end(disks: list[Disk], options: SendOptions) -> Iterator[Event]:
    """Return the events after the last part, with all bits of the bitmaps in their own section."""
    if options.container == "none":
        yield _progress(100)
        yield Eos(0, 0, None, BlockFlag.EOS)
        return
    if _with_blocks(options):
        yield from section(SectionType.END, BLOCK_SECTION, _BLOCK_ID, [_progress(100)])
    if _own_section(disks, options):
        yield from bitmap_sections(disks, _BITMAPS_ID)
    yield Eof(0, 0, None)
    # It has no devices' state.  (QEMU warns where there is no description at all.)
    stated = description(options.sizes, options.identity, salvaged=options.salvaged)
    yield VmDescription(0, 0, None, literal(stated))


def _with_blocks(options: SendOptions) -> bool:
    """Return whether there is a block section, which QEMU 9.1 and later refuse: not for bitmaps only."""
    return options.disks or options.dialect != "qemu"


def _own_section(disks: list[Disk], options: SendOptions) -> bool:
    """Return whether the bitmaps have a section of their own."""
    return options.dialect == "qemu" and any(disk.bitmaps for disk in disks)


def _framed(part: list[Event], options: SendOptions) -> list[Event]:
    """Return the records of a part in its section, if the container has sections."""
    if options.container == "none":
        return part
    return list(section(SectionType.PART, BLOCK_SECTION, _BLOCK_ID, part))


def section(kind: SectionType, name: str, number: int, content: list[Event]) -> Iterator[Event]:
    """Return a section ``name`` with its payload, the end of the payload, and its footer."""
    blocks = name == BLOCK_SECTION
    version = BLOCK_VERSION if blocks else DIRTY_BITMAP_VERSION
    yield SectionHeader(0, 0, name, kind, number, 0, version)
    yield from content
    yield Eos(0, 0, name, BlockFlag.EOS) if blocks else sending.bitmap_eos()
    yield Footer(0, 0, name, number)


def bitmap_sections(disks: list[Disk], number: int) -> Iterator[Event]:
    """Return all bits of all bitmaps in parts, and the end of section ``number``."""
    part: list[Event] = []
    for chunk in sending.bitmap_chunks(disks):
        part.append(chunk)
        if len(part) == _PART_BITS:
            yield from section(SectionType.PART, DIRTY_BITMAP_SECTION, number, part)
            part = []
    yield from section(SectionType.END, DIRTY_BITMAP_SECTION, number, part)


def chunk_data(image: Readable, sector: int) -> ImageRange:
    """Return the chunk of ``image`` at ``sector``, with zeros after the disk's end."""
    start = sector * SECTOR_SIZE
    padding = max(start + CHUNK_SIZE - image.size, 0)
    # Read when it is written, so that no chunk is held in memory.
    return ImageRange(start, CHUNK_SIZE, None, padding, image=image)


def last_chunk(disk: Disk) -> int | None:
    """Return the sector of the chunk that ends with the disk; None where the disk is too small.

    QEMU 2.10 to 9.0 load the last MiB of a disk only in this form: where the disk's end cuts a chunk,
    they write its padding, too, and fail (QEMU 7.2, migration/block.c: block_load).
    """
    return (disk.size - CHUNK_SIZE) // SECTOR_SIZE if disk.size >= CHUNK_SIZE else None


def _progress(percent: int) -> Progress:
    return Progress(0, 0, BLOCK_SECTION, percent, BlockFlag.PROGRESS)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Chunks of a disk at the sectors from ``start`` to ``stop``.

    ``allocated``: they may hold data, unless they are known to be ``zero``.  ``since``: all that lies
    between that sector and ``stop`` is sent as well.
    """

    start: int
    stop: int
    allocated: bool
    since: int
    zero: bool = False


class _Bulk:
    """The block records of all disks, with the progress records between them."""

    def __init__(
        self,
        disks: list[Disk],
        options: SendOptions,
        changes: Mapping[str, Iterable[tuple[int, int]]] | None,
        *,
        counts: bool,
    ) -> None:
        self._disks = disks
        self._options = options
        self._changes = changes
        self._counting = counts
        self._dialect = sending.DIALECTS[options.dialect]
        self._total = sum(disk.size // SECTOR_SIZE for disk in disks)
        self._finished = 0
        self._percent: int | None = None
        # The part that is being filled.
        self._counts: list[Event] = []
        self._blocks: list[Event] = []

    def parts(self) -> "Iterator[tuple[list[Event], range | Numbers | None]]":
        """Yield parts, each with its progress records before its blocks.

        A part may stand for several that are equal but for their sectors: then these come with it, those
        of all its chunks.
        """
        for disk in self._disks:
            for record in self._dialect.before(disk):
                yield [record], None
            total = disk.size // SECTOR_SIZE
            last = max(self._begin(disk) - 1, 0) // CHUNK_SECTORS * CHUNK_SECTORS
            for stretch in self._stretches(disk):
                if not isinstance(stretch, _Stretch):
                    yield from self._zeros(disk, stretch)
                    last = int(stretch[-1])
                    continue
                if not self._sends(disk, stretch):
                    continue
                at = stretch.start
                while at < stretch.stop:
                    rows = self._equal_parts(disk, stretch, at)
                    equal = range(at, at + rows * _PART_SECTORS, CHUNK_SECTORS)
                    for _ in range(_PART_CHUNKS if rows else 1):
                        self._add(disk, at, stretch)
                        at += CHUNK_SECTORS
                    if len(self._blocks) >= _PART_CHUNKS:
                        yield self._take(), equal if rows > 1 else None
                    if rows:
                        at = equal.stop
                    last = at - CHUNK_SECTORS
            if last + CHUNK_SECTORS < total and self._options.disks:
                # QEMU counts holes at a disk's end as done when it has skipped them.
                last = total
                self._count(last)
            elif last % CHUNK_SECTORS:
                # Its last chunk ends with the disk, but is counted as if it were cut off by its end.
                last = (total - 1) // CHUNK_SECTORS * CHUNK_SECTORS
                self._count(last)
            if self._counts or self._blocks:
                yield self._take(), None
            # It counts a disk whose last chunk was sent only up to the start of that chunk.
            self._finished += last

    def _zeros(
        self, disk: Disk, sectors: "Numbers"
    ) -> "Iterator[tuple[list[Event], Numbers | None]]":
        """Yield the parts of whole chunks of zeros at ``sectors``, ascending, as :meth:`parts` does."""
        percents = list(map(self._percent_at, sectors.tolist()))
        at = 0
        while at < len(sectors):
            rows = 0
            if not self._blocks and percents[at] == self._percent:
                rows = (bisect_right(percents, percents[at]) - at) // _PART_CHUNKS
            for sector in sectors[at : at + (_PART_CHUNKS if rows else 1)].tolist():
                stretch = _Stretch(sector, sector + CHUNK_SECTORS, True, sector, zero=True)
                self._add(disk, sector, stretch)
            equal = sectors[at : at + rows * _PART_CHUNKS]
            if len(self._blocks) >= _PART_CHUNKS:
                yield self._take(), equal if rows > 1 else None
            at += len(equal) or 1

    def _stretches(self, disk: Disk) -> "Iterator[_Stretch | Numbers]":
        """Return the stretches of a disk, ascending; for a partly known disk, record by record.

        An array: the sectors of whole chunks of zeros.
        """
        total = disk.size // SECTOR_SIZE
        if disk.partial and not self._dialect.on_grid:
            gathered = self._options.zero_blocks and self._options.disks
            for found in placed(disk.image, None if disk.open_ended else total):
                sectors, since = found.sectors, found.since
                if isinstance(sectors, range):
                    stop = min(sectors.stop, total)
                    yield _Stretch(sectors.start, stop, True, since, found.zero)
                elif gathered:
                    yield sectors
                else:
                    for at in sectors.tolist():
                        yield _Stretch(at, at + CHUNK_SECTORS, True, at, zero=True)
            return
        at, since = self._begin(disk), 0
        extents = disk.image.extents() if self._changes is None else self._changes[disk.device]
        for offset, length in extents:
            start = max(offset // CHUNK_SIZE * CHUNK_SECTORS, at)
            stop = min(-(-(offset + length) // CHUNK_SIZE) * CHUNK_SECTORS, total)
            if start >= stop:
                continue
            if at < start:
                yield _Stretch(at, start, False, since)
                since = since if self._reads_gaps(disk) else start
            yield _Stretch(start, stop, True, since)
            at = stop
        if at < total:
            yield _Stretch(at, total, False, since)

    def _begin(self, disk: Disk) -> int:
        """Return the sector of the first chunk that the destination has not received completely."""
        received, total = self._options.received.get(disk.device, 0), disk.size // SECTOR_SIZE
        return total if received >= disk.size else received // CHUNK_SIZE * CHUNK_SECTORS

    def _sends(self, disk: Disk, stretch: _Stretch) -> bool:
        """Return whether there are records for the chunks of a stretch."""
        if self._bits_in_chunks(disk):
            return True
        return self._options.disks and (stretch.allocated or not self._skips_holes(disk))

    def _skips_holes(self, disk: Disk) -> bool:
        return not self._reads_gaps(disk) or self._changes is not None

    def _reads_gaps(self, disk: Disk) -> bool:
        """Return whether what lies between the extents can be sent as a part of a chunk."""
        return not (self._options.skip_unallocated or disk.partial)

    def _bits_in_chunks(self, disk: Disk) -> bool:
        return self._dialect.bits_in_chunks and bool(disk.bitmaps)

    def _equal_parts(self, disk: Disk, stretch: _Stretch, at: int) -> int:
        """Return how many parts of zero chunks begin at sector ``at``, equal but for their sectors."""
        if (stretch.allocated and not stretch.zero) or self._blocks or self._percent is None:
            return 0
        if self._bits_in_chunks(disk) or not self._options.zero_blocks:
            return 0
        # Up to here the percentage does not change, so that there are no progress records.
        end = -(-(self._percent + 1) * self._total // 100) - self._finished
        chunks = min((stretch.stop - at) // CHUNK_SECTORS, -((at - end) // CHUNK_SECTORS))
        return max(chunks // _PART_CHUNKS, 0)

    def _add(self, disk: Disk, sector: int, stretch: _Stretch) -> None:
        """Add the records of a chunk, and the progress before it, to the current part."""
        records = list(self._chunk(disk, sector, stretch))
        if records:
            self._count(sector)
            self._blocks += records

    def _take(self) -> list[Event]:
        part = self._counts + self._blocks
        self._counts, self._blocks = [], []
        return part

    def _count(self, sector: int) -> None:
        if not self._counting:
            return
        percent = self._percent_at(sector)
        if percent != self._percent:
            self._percent = percent
            self._counts.append(_progress(percent))

    def _percent_at(self, sector: int) -> int:
        return (self._finished + sector) * 100 // self._total

    def _chunk(self, disk: Disk, sector: int, stretch: _Stretch) -> Iterator[Block]:
        start, sectors = sector * SECTOR_SIZE, min(CHUNK_SECTORS, disk.size // SECTOR_SIZE - sector)
        data, zero = None, False
        if self._options.disks and (stretch.allocated or not self._skips_holes(disk)):
            zero = self._options.zero_blocks and (
                not stretch.allocated
                or stretch.zero
                or disk.image.is_zero(start, sectors * SECTOR_SIZE)
            )
            data = None if zero else chunk_data(disk.image, sector)
        # A chunk that ends with the disk also carries a part of the preceding one.
        moved = last_chunk(disk) if self._options.dialect == "qemu" else None
        if data and sectors < CHUNK_SECTORS and moved is not None and stretch.since <= moved:
            sector, sectors, data = moved, CHUNK_SECTORS, chunk_data(disk.image, moved)
        yield from self._dialect.records(disk, sector, sectors, data, zero)
