"""The state of a stream: the disks that its events cover, and the bitmaps that they carry.

A :class:`StreamState` depends only on the events and runs that it takes.  It reads bits, never disk data.
"""

from dataclasses import field

import numpy as np

from blkmig_cli.contents.bitmaps import BitmapState
from blkmig_cli.contents.sizes import ProgressBounds, SizeBounds
from blkmig_cli.contents.v1_granularity import Observations
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_words import Room
from blkmig_cli.ranges import IntervalSet, tiles
from blkmig_cli.schemas.constants import (
    BLOCK_SECTION,
    CHUNK_SECTORS,
    SECTOR_SIZE,
    BlockFlag,
    SectionType,
)
from blkmig_cli.schemas.dialects import V2
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapChunk,
    BitmapComplete,
    BitmapStart,
    Block,
    BlockBitmap,
    Conclusion,
    Configuration,
    Event,
    Progress,
    SectionHeader,
    Undecoded,
    VmDescription,
)
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.identity import Identity, read_statement
from blkmig_cli.wire.runs.columns import Column, Run, alike, bits_of, blocks_of, in_order, is_past
from blkmig_cli.wire.schema_io import Input

# As a plain number: operations on enums are slow.
_HAS_BITMAPS = int(BlockFlag.HAS_BITMAPS)


@dataclass(slots=True)
class DiskState:
    """The state of one device's disk.

    ``covered`` and ``bitmaps_covered`` are in sectors; ``top`` is the highest sector at which a chunk
    starts, -1 without chunks; ``repeated_chunks`` counts those of which every sector had been sent
    before; ``stated``: size of the disk in bytes, if a record states it; ``least``: its least size in
    bytes by records with bitmaps.
    """

    name: str
    covered: IntervalSet = field(default_factory=IntervalSet)
    chunks: int = 0
    zero_chunks: int = 0
    repeated_chunks: int = 0
    top: int = -1
    top_offset: int = 0
    bitmaps_covered: IntervalSet = field(default_factory=IntervalSet)
    stated: int | None = None
    least: int = 0

    @property
    def has_blocks(self) -> bool:
        """Whether any record contains data or zeros of the disk, or they were received before."""
        return self.chunks > 0 or bool(self.covered)


@dataclass(slots=True)
class StreamState:
    """The state of a stream after the events so far; see the module.

    ``machine`` is the machine type; ``described``: sizes of disks in bytes, by device, as stated in the
    description at the stream's end (``wire/identity.py``); ``identity``: that of the stream, if it has
    one; ``identity_fault``: why that in the description is ignored; ``salvaged``: the description states
    that it is the intact part of another stream; ``conclusion``: that of the decoder, None before
    :meth:`conclude`.
    """

    disks: dict[str, DiskState] = field(default_factory=dict)
    bitmaps: dict[tuple[str, str], BitmapState] = field(default_factory=dict)
    progress: ProgressBounds = field(default_factory=ProgressBounds)
    block_started: bool = False
    block_ended: bool = False
    undecoded: list[Undecoded] = field(default_factory=list)
    machine: str | None = None
    described: dict[str, int] = field(default_factory=dict)
    identity: Identity | None = None
    identity_fault: str | None = None
    salvaged: bool = False
    end: int = 0
    conclusion: Conclusion | None = None
    _owned: dict[str, list[BitmapState]] = field(default_factory=dict)
    _room: Room = field(default_factory=Room)
    _in_end: bool = False
    _held: Progress | None = None

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event; ``source`` has the bits that it describes.

        Raises LimitError where this would take too much memory.
        """
        self.end = event.offset + event.length
        if isinstance(event, Block):
            self._release_progress()
            self._block(event, source)
        elif isinstance(event, Progress):
            self._release_progress()
            self._held = event
        elif isinstance(event, SectionHeader):
            self._release_progress()
            if event.section == BLOCK_SECTION:
                self.block_started = True
                self._in_end = self.block_ended = event.kind == SectionType.END
        elif isinstance(event, BitmapChunk):
            self._bitmap_chunk(event, source)
        elif isinstance(event, Configuration):
            self.machine = event.machine
        elif isinstance(event, Undecoded):
            self.undecoded.append(event)
        elif isinstance(event, VmDescription):
            stated = read_statement(source.view(event.payload))
            self.described |= stated.sizes
            self.identity_fault = stated.fault
            self.salvaged = stated.salvaged
            if stated.identity is not None:
                self._identify(stated.identity)

    def feed_run(self, run: Run, source: Input) -> None:
        """Take a run: the same as taking its events one by one, but by columns."""
        # Records past the end of the disk cover nothing, so that their order does not matter.
        groups = [
            [column for column in columns if is_past(column) == past]
            for columns in blocks_of(run, content=False).values()
            for past in (False, True)
        ]
        if not all(map(alike, filter(None, groups))):
            # The order of the records of one device matters.
            for event in run:
                self.feed(event, source)
            return
        held = self._run_progress(run)
        # The first ones create what does not exist yet; the others change numbers only.
        seen = {id(column) for columns in groups for column in columns[1:]}
        for column in run.columns:
            if not isinstance(column.event, Progress | BitmapBits) and id(column) not in seen:
                self.feed(column.event, source)
        for columns in filter(None, groups):
            self._blocks(columns)
        self._held = held if self._held is None else self._held
        self.end = run.end
        for key, bits in bits_of(run).items():
            self.bitmaps[key].add_section_run(bits)

    def conclude(self, conclusion: Conclusion, hints: Hints, *, proper_end: bool) -> None:
        """Decide what depends on the stream's end; ``proper_end``: the stream was read to its end."""
        self.conclusion = conclusion
        if self.identity is None and hints.identity is not None:
            self._identify(hints.identity)
        if conclusion.container == "none":
            # Without a container, the last record before the final EOS is that of the section's end.
            self._in_end = self.block_started = True
            self.block_ended = proper_end
        self._release_progress()
        for (device, name), bitmap in self.bitmaps.items():
            if bitmap.open is not None:
                possible = list(conclusion.granularities.get((device, name), ()))
                bitmap.settle(possible, self.size(device, hints).most, self._room)
            if bitmap.content is not None:
                bitmap.content.recording = bitmap.recording
                bitmap.content.persistent = bitmap.persistent

    def _identify(self, identity: Identity) -> None:
        """Set the identity; a disk of which nothing was sent, as nothing changed, is one of the stream."""
        self.identity = identity
        for name in identity.disks:
            self.disk(name)

    def disk(self, name: str) -> DiskState:
        """Return the state of the device ``name``, creating it if it is missing."""
        found = self.disks.get(name)
        if found is None:
            found = self.disks[name] = DiskState(name)
        return found

    def add_received(self, name: str, length: int) -> None:
        """Count the first ``length`` bytes of a disk as sent before the first event of this stream."""
        disk, end = self.disk(name), -(-length // SECTOR_SIZE)
        disk.covered.add(0, end)
        disk.top = (end - 1) // CHUNK_SECTORS * CHUNK_SECTORS
        self.progress.continues = True
        self.progress.chunk(name, disk.top)

    def covered(self, name: str) -> IntervalSet:
        """Return the sectors of the device ``name`` that have been sent so far."""
        found = self.disks.get(name)
        return IntervalSet() if found is None else found.covered

    def stated_size(self, device: str) -> int | None:
        """Return the size of a disk in bytes as stated by v2 ranges, ended bitmaps or the description."""
        disk = self.disks.get(device)
        if disk is not None and disk.stated is not None:
            return disk.stated
        sizes = {
            bitmap.covered.end * SECTOR_SIZE
            for bitmap in self._owned.get(device, ())
            if bitmap.origin == "dirty-bitmap" and bitmap.ended and bitmap.covered
        }
        return sizes.pop() if len(sizes) == 1 else self.described.get(device)

    def size(self, device: str, hints: Hints) -> SizeBounds:
        """Return the disk's size by precedence: an option, the stream, an image file, bounds."""
        if (size := hints.option_size(device)) is not None:
            return SizeBounds(size, size, "option")
        if (size := self.stated_size(device)) is not None:
            return SizeBounds(size, size, "stream")
        if (size := hints.image_size(device)) is not None:
            return SizeBounds(size, size, "image")
        proven = self.proven_size(device)
        if proven.most is not None and hints.takes_most(device):
            return SizeBounds(proven.most, proven.most, "option")
        return proven

    def proven_size(self, device: str) -> SizeBounds:
        """Return the disk's size as far as the stream proves it, without options and images."""
        if (size := self.stated_size(device)) is not None:
            return SizeBounds(size, size, "stream")
        disk, most = self.disks.get(device), None
        least = 0 if disk is None else disk.least
        if device in self.progress.tops:
            low, high = self.progress.device(device, self._further_chunks)
            least = max(least, low * SECTOR_SIZE)
            most = None if high is None or high * SECTOR_SIZE < least else high * SECTOR_SIZE
        tail = None if self.conclusion is None else self.conclusion.tails.get(device)
        if tail is not None:
            least = max(least, tail[0])
            most = tail[1] if most is None or not tail[0] <= most <= tail[1] else most
            return SizeBounds(least, most, "bitmap-layout")
        return SizeBounds(least, most, "none" if most is None else "progress")

    def _further_chunks(self) -> int:
        """Return how many chunks of all disks were sent, beyond the first of each disk."""
        covered = (disk.covered.total for disk in self.disks.values() if disk.has_blocks)
        return sum(-(-sectors // CHUNK_SECTORS) - 1 for sectors in covered)

    def _release_progress(self) -> None:
        """Count the progress record that was held until it is known whether it is that of the end."""
        if self._held is not None:
            self.progress.record(self._held.percent, in_end=self._in_end)
            self._held = None

    def _run_progress(self, run: Run) -> Progress | None:
        """Count the progress records of ``run``, with the chunks before each of them.

        Returns the last one if nothing follows it that tells whether it is that of the end.
        """
        columns = [column for column in run.columns if isinstance(column.event, Progress)]
        if not columns:
            return None
        self._release_progress()
        heads = [c for c in run.columns if isinstance(c.event, SectionHeader)]
        if any(column.event.section == BLOCK_SECTION for column in heads):
            self._in_end = False  # runs are of parts
        percents, offsets = in_order(columns)
        # The chunks higher than all before them; of those between two progress records the last one.
        tops: dict[int, list[tuple[str, int]]] = {}
        for device, blocks in blocks_of(run).items():
            sectors, places = in_order(blocks)
            highest = np.maximum.accumulate(sectors)
            top = self.progress.tops.get(device, -1)
            higher = np.flatnonzero(np.diff(highest.clip(top), prepend=top))
            before = np.searchsorted(offsets, places[higher])
            newest = np.append(before[1:] != before[:-1], True)[: len(before)]
            for row, sector in zip(
                before[newest].tolist(), highest[higher[newest]].tolist(), strict=True
            ):
                tops.setdefault(row, []).append((device, sector))
        followed = [c for c in run.columns if isinstance(c.event, Block | SectionHeader)]
        open_ended = all(column.offsets[-1] < offsets[-1] for column in followed)
        for row, percent in enumerate(percents.tolist()):
            for device, sector in tops.get(row, ()):
                self.progress.chunk(device, sector)
            if row < len(percents) - 1 or not open_ended:
                self.progress.record(percent, in_end=self._in_end)
        if not open_ended:
            return None
        last = max(columns, key=lambda column: int(column.offsets[-1])).part(slice(-1, None)).event
        assert isinstance(last, Progress)
        return last

    def _block(self, event: Block, source: Input) -> None:
        disk = self.disk(event.device)
        end = event.sector + event.sectors
        if event.has_content:
            disk.chunks += 1
            disk.zero_chunks += event.data is None
            if event.sectors:
                disk.repeated_chunks += not disk.covered.add(event.sector, end)
            else:
                # The disk's end may cut a last chunk, but its start is always on the disk.
                disk.repeated_chunks += disk.covered.covers(event.sector, event.sector + 1)
            if event.sector > disk.top:
                disk.top, disk.top_offset = event.sector, event.offset
                self.progress.chunk(event.device, event.sector)
        if event.flags & _HAS_BITMAPS:
            disk.bitmaps_covered.add(event.sector, end)
            # The length of a v1 record may be unknown, but not its start.
            last = end if event.dialect == V2.name else event.sector + 1
            disk.least = max(disk.least, last * SECTOR_SIZE)
            if event.dialect == V2.name and event.sectors % CHUNK_SECTORS:
                disk.stated = end * SECTOR_SIZE  # such a range ends at the disk's end
        for part in event.bitmaps:
            state = self._block_bitmap(event, part)
            if part.attributes is not None:
                state.set_flags(part.attributes)
            state.add_record(event, part, source.view(part.bits))

    def _blocks(self, columns: list[Column]) -> None:
        """Take the records after the first one of ``columns``, which are ``alike``."""
        column = columns[0]
        event = column.event
        assert isinstance(event, Block)
        disk = self.disk(event.device)
        sectors, offsets = (numbers[1:] for numbers in in_order(columns))
        if not len(sectors):
            return
        if event.has_content:
            disk.chunks += len(sectors)
            disk.zero_chunks += len(sectors) * (event.data is None)
            highest = int(sectors.argmax())
            if sectors[highest] > disk.top:
                disk.top, disk.top_offset = int(sectors[highest]), int(offsets[highest])
                self.progress.chunk(event.device, disk.top)
            if event.sectors:
                disk.repeated_chunks += disk.covered.add_each(sectors, event.sectors)
            else:
                disk.repeated_chunks += int(disk.covered.touches_each(sectors).sum())
        if event.flags & _HAS_BITMAPS:
            disk.bitmaps_covered.add_each(sectors, event.sectors)
            last = int(sectors.max()) + (event.sectors if event.dialect == V2.name else 1)
            disk.least = max(disk.least, last * SECTOR_SIZE)
        if not event.bitmaps:
            return
        neighbours = list(tiles(sectors, event.sectors))
        for part, bits in zip(event.bitmaps, column.bits, strict=True):
            bitmap = self.bitmaps[event.device, part.name]
            bitmap.cover_rows(part, sectors, event.sectors, bits.shape[1])
            for rows in neighbours:
                bitmap.add_rows(part, sectors[rows], event.sectors, bits[1:][rows])

    def _own(self, bitmap: BitmapState) -> None:
        self.bitmaps[bitmap.device, bitmap.name] = bitmap
        self._owned.setdefault(bitmap.device, []).append(bitmap)

    def _block_bitmap(self, event: Block, part: BlockBitmap) -> BitmapState:
        key = (event.device, part.name)
        state = self.bitmaps.get(key)
        if state is None:
            origin = event.dialect or "v1"
            state = BitmapState(event.device, part.name, part.granularity, origin=origin)
            self._own(state)
            if part.granularity is None:
                state.open = Observations()
            else:
                state.content = DirtyBitmap(part.name, part.granularity, room=self._room)
        return state

    def _bitmap_chunk(self, event: BitmapChunk, source: Input) -> None:
        key = (event.device, event.bitmap)
        state = self.bitmaps.get(key)
        if state is None:
            self.disk(event.device)
            state = BitmapState(event.device, event.bitmap, None, origin="dirty-bitmap")
            self._own(state)
        if isinstance(event, BitmapStart):
            state.set_flags(event.attributes)
            state.know_granularity(event.granularity, self._room)
        elif isinstance(event, BitmapBits):
            bits = None if event.bits is None else source.view(event.bits)
            state.add_section_bits(event, bits, self._room)
        elif isinstance(event, BitmapComplete):
            state.ended = True
