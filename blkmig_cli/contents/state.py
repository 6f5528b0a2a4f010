"""What a stream adds up to: the disks that its events cover, and the bitmaps that they carry.

``StreamState.feed`` takes every event in order.  It reads bits, never disk data.
"""

from dataclasses import dataclass, field

import numpy as np

from blkmig_cli.contents.sizes import ProgressBounds, SizeBounds
from blkmig_cli.contents.v1_granularity import Observations
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_words import Room
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.block import first_word
from blkmig_cli.schemas.constants import (
    BLOCK_SECTION,
    CHUNK_SECTORS,
    SECTOR_SIZE,
    BitmapAttribute,
    BlockFlag,
    SectionType,
)
from blkmig_cli.schemas.dirty_bitmap import bits_lengths
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapComplete,
    BitmapStart,
    Block,
    BlockBitmap,
    Event,
    Progress,
    SectionHeader,
    Undecoded,
)
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.schema_io import Input

# As plain numbers: operations on enums are slow.
_ZERO_BLOCK = int(BlockFlag.ZERO_BLOCK)
_HAS_BITMAPS = int(BlockFlag.HAS_BITMAPS)


@dataclass(slots=True)
class DiskState:
    """What came of one device's disk.  ``covered`` and ``bitmaps_covered`` are in sectors."""

    name: str
    covered: IntervalSet = field(default_factory=IntervalSet)
    chunks: int = 0
    zero_chunks: int = 0
    repeated_chunks: int = 0
    top: int = -1
    top_offset: int = 0
    bitmaps_covered: IntervalSet = field(default_factory=IntervalSet)
    stated: int | None = None

    @property
    def has_blocks(self) -> bool:
        """Did any record carry content of the disk?"""
        return self.chunks > 0


@dataclass(slots=True)
class BitmapState:
    """What came of one bitmap.  ``granularity`` in bytes; None while it is open (coarse v1)."""

    device: str
    name: str
    granularity: int | None
    recording: bool = True
    persistent: bool = False
    ended: bool = False
    covered: IntervalSet = field(default_factory=IntervalSet)
    content: DirtyBitmap | None = None
    open: Observations | None = None
    candidates: list[int] = field(default_factory=list)
    origin: str = "v1"


class StreamState:
    """The sum of a stream's events so far."""

    def __init__(self, decoder: Decoder, hints: Hints) -> None:
        self._decoder = decoder
        self._hints = hints
        self._in_end = False
        self._held: Progress | None = None
        self.disks: dict[str, DiskState] = {}
        self.bitmaps: dict[tuple[str, str], BitmapState] = {}
        self._room = Room()
        # Those of the dirty-bitmap section, by device.
        self._started: dict[str, list[BitmapState]] = {}
        self.progress = ProgressBounds()
        self.block_started = False
        self.block_ended = False
        self.undecoded: list[Undecoded] = []
        self.end = 0

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event; ``source`` gives the bits that it describes.

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
        elif isinstance(event, BitmapStart):
            self._start(event)
        elif isinstance(event, BitmapBits):
            self._bits(event, source)
        elif isinstance(event, BitmapComplete):
            self.bitmaps[event.device, event.bitmap].ended = True
        elif isinstance(event, Undecoded):
            self.undecoded.append(event)

    def finish(self, *, whole: bool) -> None:
        """The events are over, to the stream's proper end or not: settle what only the end tells."""
        if self._decoder.container == "none":
            # Without a container, the last record before the final EOS is the end's.
            self._in_end = self.block_started = True
            self.block_ended = whole
        self._release_progress()
        for bitmap in self.bitmaps.values():
            if bitmap.open is not None:
                self._settle(bitmap)
            if bitmap.content is not None:
                bitmap.content.recording = bitmap.recording
                bitmap.content.persistent = bitmap.persistent

    def _release_progress(self) -> None:
        """Count the progress record held back until what follows it shows whether it is the end's."""
        if self._held is not None:
            self.progress.record(self._held.percent, self.starts(), in_end=self._in_end)
            self._held = None

    def starts(self) -> dict[str, int]:
        """Start sector of the highest chunk that has come, by device.

        A last chunk that was moved forward to end with its disk counts where it would have stood.
        """
        return {
            name: -(-disk.top // CHUNK_SECTORS) * CHUNK_SECTORS
            for name, disk in self.disks.items()
            if disk.top >= 0
        }

    def covered(self, name: str) -> IntervalSet:
        """Sectors of the device called ``name`` that have come so far."""
        found = self.disks.get(name)
        return IntervalSet() if found is None else found.covered

    def disk(self, name: str) -> DiskState:
        """The state of the device called ``name``, made at its first record."""
        found = self.disks.get(name)
        if found is None:
            found = self.disks[name] = DiskState(name)
        return found

    def stated_size(self, device: str) -> int | None:
        """Bytes of the disk, as the stream itself says: v2 ranges, or the ranges of whole bitmaps."""
        stated = self._decoder.block.v2.stated_size(device)
        if stated is not None:
            return stated
        sizes = {
            bitmap.covered.end * SECTOR_SIZE
            for bitmap in self._started.get(device, ())
            if bitmap.ended and bitmap.covered
        }
        return sizes.pop() if len(sizes) == 1 else None

    def size(self, device: str, told: int | None = None) -> SizeBounds:
        """The disk's size by order of belief: ``told`` (bytes), the stream's own word, its bounds."""
        for size, source in ((told, "told"), (self.stated_size(device), "stream")):
            if size is not None:
                return SizeBounds(size, size, source)
        least, most, source = 0, None, "none"
        starts = self.starts()
        if device in starts:
            low, high = self.progress.device(device, starts)
            least = low * SECTOR_SIZE
            most = None if high is None else high * SECTOR_SIZE
            source = "none" if most is None else "progress"
        tail = self._decoder.block.layouts.size_range(device)
        if tail is not None:
            least = max(least, tail[0])
            most = tail[1] if most is None or not tail[0] <= most <= tail[1] else most
            source = "bitmap-layout"
        return SizeBounds(least, most, source)

    def _block(self, event: Block, source: Input) -> None:
        disk = self.disk(event.device)
        end = event.sector + event.sectors
        if event.data is not None or event.flags & _ZERO_BLOCK:
            disk.chunks += 1
            disk.zero_chunks += event.data is None
            # A last chunk may be cut by the disk's end, but its start always counts.
            disk.repeated_chunks += disk.covered.covers(event.sector, max(end, event.sector + 1))
            disk.covered.add(event.sector, end)
            if event.sector > disk.top:
                disk.top, disk.top_offset = event.sector, event.offset
        if event.flags & _HAS_BITMAPS:
            disk.bitmaps_covered.add(event.sector, end)
        for bitmap in event.bitmaps:
            self._block_bitmap(event, bitmap, source)

    def _block_bitmap(self, event: Block, part: BlockBitmap, source: Input) -> None:
        key = (event.device, part.name)
        state = self.bitmaps.get(key)
        if state is None:
            origin = event.dialect or "v1"
            state = BitmapState(event.device, part.name, part.granularity, origin=origin)
            self.bitmaps[key] = state
            if part.granularity is None:
                state.open = Observations()
            else:
                state.content = DirtyBitmap(part.name, part.granularity, room=self._room)
        if part.attributes is not None:
            state.recording = bool(part.attributes & BitmapAttribute.ENABLED)
            state.persistent = bool(part.attributes & BitmapAttribute.PERSISTENT)
        state.covered.add(event.sector, event.sector + event.sectors)
        bits = source.view(part.bits)
        if state.content is None:
            assert state.open is not None
            state.open.add(event.sector, bits)
        elif part.attributes is None:
            state.content.write_words(first_word(event.sector, state.content.granularity), bits)
        else:
            first = event.sector * SECTOR_SIZE // state.content.granularity
            last = ((event.sector + event.sectors) * SECTOR_SIZE - 1) // state.content.granularity
            state.content.write_granules(first, last - first + 1, bits)

    def _settle(self, bitmap: BitmapState) -> None:
        """Give a v1 bitmap its granularity, if nothing else is possible."""
        assert bitmap.open is not None
        layouts = self._decoder.block.layouts
        size = self.size(bitmap.device, self._hints.size(bitmap.device)).most
        possible = layouts.granularities(bitmap.device, bitmap.name)
        bitmap.candidates = bitmap.open.narrow(possible, size)
        if len(bitmap.candidates) == 1:
            bitmap.granularity = bitmap.candidates[0]
            bitmap.content = DirtyBitmap(bitmap.name, bitmap.granularity, room=self._room)
            for sectors, rows in bitmap.open.rows():
                words = first_word(sectors, bitmap.granularity)  # type: ignore[arg-type]
                bitmap.content.write_rows(np.asarray(words), rows)

    def _start(self, event: BitmapStart) -> None:
        self.disk(event.device)
        made = self.bitmaps[event.device, event.bitmap] = BitmapState(
            event.device,
            event.bitmap,
            event.granularity,
            bool(event.attributes & BitmapAttribute.ENABLED),
            bool(event.attributes & BitmapAttribute.PERSISTENT),
            content=DirtyBitmap(event.bitmap, event.granularity, room=self._room),
            origin="dirty-bitmap",
        )
        self._started.setdefault(event.device, []).append(made)

    def _bits(self, event: BitmapBits, source: Input) -> None:
        state = self.bitmaps[event.device, event.bitmap]
        assert state.content is not None
        state.covered.add(event.sector, event.sector + event.sectors)
        if event.bits is None:
            granules = -(-event.sectors * SECTOR_SIZE // event.granularity)
            first = event.sector * SECTOR_SIZE // event.granularity
            state.content.write_granules(first, granules, b"")
            return
        exact = bits_lengths(event.sectors, event.granularity)[0]
        first = first_word(event.sector, event.granularity)
        state.content.write_words(first, source.view(event.bits)[:exact])
