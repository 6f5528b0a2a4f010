"""What a damaged or truncated stream still gives.

Behind damage, reading goes on where a record or a section's part stands whose successors are sound,
over more than two chunks or up to the stream's end: so that a disk which itself holds a stream, or
records, does not pass for one.  The data record right before damage may have been hit by it, and is
left out.  Damage within data cannot be seen: nothing in a stream says what it should be.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.decode import Decoder
from blkmig_cli.decode.resumed import ResumedDecoder, part_heads, payload_end
from blkmig_cli.endstate import EndState, EndStates
from blkmig_cli.errors import FailureError, StreamError, TruncatedError, UndecidableError
from blkmig_cli.events import (
    BitmapBits,
    BitmapComplete,
    Block,
    DeviceState,
    Event,
    Footer,
    Undecoded,
)
from blkmig_cli.hints import Hints
from blkmig_cli.inputs import FileInput
from blkmig_cli.runs import Run
from blkmig_cli.schemas.block import split_word
from blkmig_cli.schemas.constants import (
    BLOCK_SECTION,
    CHUNK_SECTORS,
    CHUNK_SIZE,
    DIRTY_BITMAP_SECTION,
    SECTOR_SIZE,
    BlockFlag,
)
from blkmig_cli.schemas.dialects import DIALECTS
from blkmig_cli.source import Disk
from blkmig_cli.state import BitmapState, StreamState
from blkmig_cli.streamdisk import StreamDisk
from blkmig_cli.superseded import has_content
from blkmig_cli.ticks import Tick

_WINDOW = 1 << 20
_WORD = 8
_HEAD_MAX = _WORD + 1 + 255
_CONFIRMED = 2 * CHUNK_SIZE + (1 << 12)
# So many candidates are tried behind one damage; a stream that is made of them ends there.
_TRIALS = 1 << 12
# The flags of block records, of any dialect.
_FLAGS = [
    flags
    for flags in range(1 << 8)
    if flags & BlockFlag.DEVICE_BLOCK
    and not flags & (BlockFlag.EOS | BlockFlag.PROGRESS)
    and any(dialect.fault(flags) is None for dialect in DIALECTS.values())
]


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes [start, end) of a stream that could not be read, and why."""

    start: int
    end: int
    why: str


@dataclass(slots=True)
class LostBitmap:
    """A bitmap that is not given, and why."""

    device: str
    name: str
    why: str


@dataclass(slots=True)
class Salvaged:
    """What was had of a stream of ``size`` bytes.

    ``doubtful``: records of data that were left out, as they stand right before damage, as (device,
    first sector).  ``stale``: what was lost may have held newer versions of chunks that are given.
    """

    stream: str
    size: int
    gaps: list[Gap] = field(default_factory=list)
    doubtful: list[tuple[str, int]] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    lost_bitmaps: list[LostBitmap] = field(default_factory=list)
    stale: bool = False

    @property
    def sound(self) -> bool:
        """Was there no damage at all?"""
        return not self.gaps

    @property
    def empty(self) -> bool:
        """Is there nothing to be had?"""
        return not self.disks

    def missing(self, disk: Disk) -> list[tuple[int, int]]:
        """Byte ranges (start, end) of ``disk`` that are not there."""
        assert isinstance(disk.image, StreamDisk)
        return [(p.start, p.end) for p in disk.image.pieces() if p.kind == "missing"]


class Salvage:
    """One stream.  ``decoder`` is at its start; ``dialect``: what is told of it, or ``auto``."""

    def __init__(
        self, name: str, source: FileInput, decoder: Decoder, hints: Hints, dialect: str = "auto"
    ) -> None:
        self._dialect = dialect
        self._source = source
        self._decoder = decoder
        self._hints = hints
        self._state = StreamState(decoder, hints)
        self._ends = EndStates()
        self._first_bits: dict[tuple[str, str], int] = {}
        self._complete: dict[tuple[str, str], int] = {}
        self._result = Salvaged(name, source.size or 0)

    def run(self, tick: Tick) -> Salvaged:
        """Read all that can be read.

        Raises UndecidableError where options must say how to read it, FailureError where the input
        fails.
        """
        found, decoder = self._result, self._decoder
        following: Decoder | None = decoder
        while following is not None:
            end, why, following = self._follow(following, tick)
            if why is not None:
                stop = found.size if following is None else self._source.offset
                found.gaps.append(Gap(end, stop, why))
        self._state.finish(whole=found.sound)
        self._settle()
        return found

    def _follow(self, decoder: Decoder, tick: Tick) -> tuple[int, str | None, Decoder | None]:
        """Take sound events; returns where they end, what ended them, and the decoder to go on with."""
        held: list[Event] = []
        end = self._source.offset
        try:
            for event in decoder:
                behind = event.offset + event.length
                if _suspicious(event):
                    inside = self._search(decoder, event.offset, behind, tick)
                    if inside is not None:
                        return end, "records stand in what seemed to be something else", inside
                    self._source.offset = behind
                end = behind
                # An end or a progress of eight bytes may be anything; a name or a footer is not.
                if isinstance(event, Footer) or self._knows(event, held):
                    self._take(held)
                    held = []
                held.append(event)
                tick(end)
        except (FailureError, UndecidableError):
            raise
        except StreamError as error:
            last = next((event for event in reversed(held) if isinstance(event, Block)), None)
            cut = (
                last is not None and isinstance(error, TruncatedError) and self._cut(last, decoder)
            )
            if cut or last is None:
                self._take(held)
            else:
                self._doubt(held)
            return end, str(error), self._search(decoder, end, self._result.size, tick)
        self._take(held)
        return end, None, None

    def _knows(self, event: Event, held: list[Event]) -> bool:
        """Is ``event`` a record of a disk that has been seen before?"""
        return isinstance(event, Block) and (
            event.device in self._ends.disks
            or any(isinstance(other, Block) and other.device == event.device for other in held)
        )

    def _cut(self, last: Block, decoder: Decoder) -> bool:
        """Is what follows the record ``last`` just what should, cut off, so that ``last`` is sound?

        Fewer bytes than a word tell nothing: some may have been lost inside ``last``.
        """
        at = last.offset + last.length
        data = self._source.peek_at(at, min(_HEAD_MAX, self._result.size - at))
        ends = len(data) >= _WORD and payload_end(decoder).startswith(data)
        return ends or 0 in self._records(data)

    def _doubt(self, events: list[Event]) -> None:
        """Leave records out; and what came before of their chunks, which they made out of date."""
        for event in events:
            state = self._ends.disks.get(event.device) if isinstance(event, Block) else None
            if isinstance(event, Block) and has_content(event):
                self._result.doubtful.append((event.device, event.sector))
                if state is not None:
                    state.remove(event.sector, event.sector + event.sectors)

    def _take(self, events: list[Event]) -> None:
        for event in events:
            self._ends.feed(event)
            self._state.feed(event, self._source)
            if isinstance(event, Block) and event.dialect is not None:
                self._dialect = event.dialect
            elif isinstance(event, BitmapBits):
                self._first_bits.setdefault((event.device, event.bitmap), event.offset)
            elif isinstance(event, BitmapComplete):
                self._complete[event.device, event.bitmap] = event.offset

    def _search(self, before: Decoder, start: int, stop: int, tick: Tick) -> Decoder | None:
        """The decoder that goes on between the bytes ``start`` and ``stop``, the input being there."""
        trials = 0
        doomed: list[range] = []  # what led to a dead end already
        for offset, between in self._candidates(before, start + 1, stop, tick):
            if any(offset in places for places in doomed):
                continue
            trial = ResumedDecoder(before, offset, self._dialect, between=between)
            path = _dead_end(trial, offset)
            if path is None:
                return ResumedDecoder(before, offset, self._dialect, between=between)
            doomed = path
            trials += 1
            if trials == _TRIALS:
                break
        return None

    def _candidates(
        self, before: Decoder, start: int, stop: int, tick: Tick
    ) -> Iterator[tuple[int, bool]]:
        """Where a record, or (True) a part's head may stand, in the order of the stream."""
        heads = part_heads(before, (BLOCK_SECTION, DIRTY_BITMAP_SECTION))
        for at in range(start, stop, _WINDOW):
            data = self._source.peek_at(at, min(_WINDOW + _HEAD_MAX, self._result.size - at))
            found = [(place, False) for place in self._records(data)]
            for head in heads:
                place = data.find(head)
                while place >= 0:
                    found.append((place, True))
                    place = data.find(head, place + 1)
            width = min(_WINDOW, stop - at)
            yield from ((at + place, what) for place, what in sorted(found) if place < width)
            tick(at)

    def _records(self, data: bytes) -> list[int]:
        """Places in ``data`` where the head of a block record may stand."""
        if len(data) < 10:
            return []
        raw = np.frombuffer(data, np.uint8)

        def byte(number: int) -> NDArray[np.uint8]:
            return raw[number : len(raw) - 9 + number]

        # A chunk's sector leaves the lowest bits of its word to the flags.
        may = (byte(0) == 0) & (byte(6) == 0) & (byte(5) & 0x0F == 0) & np.isin(byte(7), _FLAGS)
        places = np.flatnonzero(may & (byte(8) > 0)).tolist()
        return [place for place in places if self._plausible(data, place)]

    def _plausible(self, data: bytes, place: int) -> bool:
        sector, _ = split_word(int.from_bytes(data[place : place + 8], "big"))
        name = data[place + 9 : place + 9 + data[place + 8]]
        device = name.decode("utf-8", "surrogateescape")
        known = self._ends.disks
        if known and device not in known:
            return False
        end = (sector + CHUNK_SECTORS) * SECTOR_SIZE
        told = self._hints.size(device)
        most = limits.GROWTH_MAX if told is None else told + CHUNK_SIZE - 1
        return device.isprintable() and end <= most

    def _settle(self) -> None:
        """Disks and bitmaps, those that may have lost bits left out."""
        result, states = self._result, self._ends.disks
        result.stale = any(gap.end - gap.start >= CHUNK_SIZE for gap in result.gaps) and bool(
            states
        )
        bitmaps: dict[str, list[BitmapState]] = {}
        for bitmap in self._state.bitmaps.values():
            why = self._why_lost(bitmap)
            if why is None:
                bitmaps.setdefault(bitmap.device, []).append(bitmap)
            else:
                result.lost_bitmaps.append(LostBitmap(bitmap.device, bitmap.name, why))
        for device in dict.fromkeys([*states, *bitmaps]):
            state = states.get(device, EndState())
            held = [bitmap.content for bitmap in bitmaps.get(device, []) if bitmap.content]
            size = self._hints.size(device)
            if size is None:
                # A whole bitmap of the dirty-bitmap section covers the whole disk.
                ends = [
                    bitmap.covered.end
                    for bitmap in bitmaps.get(device, [])
                    if bitmap.origin == "dirty-bitmap"
                ]
                size = max(ends or [state.end]) * SECTOR_SIZE
            disk = StreamDisk(result.stream, self._source, state, size)
            result.disks.append(Disk(device, disk.incremental(), held))

    def _why_lost(self, bitmap: BitmapState) -> str | None:
        gaps = self._result.gaps
        if bitmap.content is None:
            return "its granularity is open: say it with --granularity"
        key = (bitmap.device, bitmap.name)
        if bitmap.origin != "dirty-bitmap":
            return "a record that was lost may have held newer bits" if gaps else None
        if not bitmap.ended:
            return "it never ended"
        first, last = self._first_bits.get(key, 0), self._complete[key]
        cut = any(first < gap.end and gap.start < last for gap in gaps) and key in self._first_bits
        if cut or bitmap.covered.gaps(0, bitmap.covered.end) or (gaps and not bitmap.covered):
            return "bits of it were lost"
        return None


def _suspicious(event: Event) -> bool:
    """May ``event`` be damage that has swallowed records?"""
    swallowed = isinstance(event, DeviceState) and event.sized_by == "footer"
    return isinstance(event, Undecoded) or (swallowed and event.length > CHUNK_SIZE)


def _dead_end(decoder: Decoder, start: int) -> list[range] | None:
    """None where what begins at byte ``start`` is sound over more than two chunks, or to the end.

    Else the places of the records on the way, from which it would lead no further.
    """
    path: list[range] = []
    try:
        while True:
            piece = decoder.piece()
            if isinstance(piece, Run):
                first = piece.columns[0].event.offset
                path.append(range(first, piece.end, piece.stride))
                end = piece.end
            elif isinstance(piece, Undecoded):
                return path
            else:
                path.append(range(piece.offset, piece.offset + 1))
                end = piece.offset + piece.length
            if end - start > _CONFIRMED:
                return None
    except StopIteration:
        return None
    except StreamError:
        return path


def salvage_json(found: Salvaged) -> dict[str, Any]:
    """The document of ``blkmig salvage --output json``."""
    return {
        "version": 1,
        "stream": found.stream,
        "sound": found.sound,
        "size": found.size,
        "gaps": [
            {"start": gap.start, "length": gap.end - gap.start, "why": gap.why}
            for gap in found.gaps
        ],
        "perhaps-stale": found.stale,
        "doubtful": [
            {"device": device, "start": sector * SECTOR_SIZE} for device, sector in found.doubtful
        ],
        "devices": [
            {
                "name": disk.device,
                "size": disk.size,
                "missing": [
                    {"start": start, "length": end - start} for start, end in found.missing(disk)
                ],
                "bitmaps": [bitmap.name for bitmap in disk.bitmaps],
            }
            for disk in found.disks
        ],
        "lost-bitmaps": [
            {"device": lost.device, "name": lost.name, "why": lost.why}
            for lost in found.lost_bitmaps
        ],
    }
