"""Where a disk's final content stands in its stream: for every sector, the last record that holds it.

Kept as stretches: chunks that follow each other on the disk, and at equal distances in the stream,
are one, so that memory follows the order of a stream and not its length.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from blkmig_cli.ranges import IntervalSet, bounded, tiles
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE, BlockFlag
from blkmig_cli.wire.events import Block, Event
from blkmig_cli.wire.runs import Run
from blkmig_cli.wire.schema_io import Input

_ZERO_BLOCK = int(BlockFlag.ZERO_BLOCK)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Sectors [start, end) of a disk, zeros where ``offset`` is None, else data.

    ``offset`` is the byte of the stream at which the data of the chunk at sector ``first`` begins;
    each following chunk's begins ``step`` bytes further on (backwards in the disk: less than 0).
    """

    start: int
    end: int
    offset: int | None = None
    first: int = 0
    step: int = 0

    def place(self, sector: int) -> tuple[int, int]:
        """The byte of the stream that holds ``sector``, and how many sectors follow in one piece.

        Only for data.
        """
        assert self.offset is not None
        chunk, inside = divmod(sector - self.first, CHUNK_SECTORS)
        byte = self.offset + chunk * self.step + inside * SECTOR_SIZE
        return byte, min(self.end, sector - inside + CHUNK_SECTORS) - sector

    def joined(self, after: "Stretch") -> "Stretch | None":
        """This stretch and the one ``after`` it as one, if they are."""
        if self.end != after.start:
            return None
        if self.offset is None or after.offset is None:
            both_zero = self.offset is None and after.offset is None
            return replace(self, end=after.end) if both_zero else None
        chunks, rest = divmod(after.first - self.first, CHUNK_SECTORS)
        if rest or chunks < 1:
            return None
        step = self.step if self._chunks > 1 else (after.offset - self.offset) // chunks
        if after.offset != self.offset + chunks * step or (
            after._chunks > 1 and after.step != step
        ):
            return None
        return replace(self, end=after.end, step=step)

    @property
    def _chunks(self) -> int:
        return -(-(self.end - self.first) // CHUNK_SECTORS)


class EndState:
    """The stretches of one disk, ascending; they do not overlap.  Gaps are what never came.

    ``repeated``: the sectors that came more than once.
    """

    def __init__(self) -> None:
        self.repeated = IntervalSet()
        self._starts: list[int] = []
        self._stretches: list[Stretch] = []

    def put(self, new: Stretch) -> None:
        """Add a stretch that comes later in the stream than all before it; raises LimitError."""
        for old in self.between(new.start, new.end):
            self.repeated.add(old.start, old.end)
        self._replace(new.start, new.end, [new])

    def remove(self, start: int, end: int) -> None:
        """Take the sectors [start, end) out, as if they had never come."""
        self._replace(start, end, [])

    def _replace(self, start: int, end: int, pieces: list[Stretch]) -> None:
        held, starts = self._stretches, self._starts
        low = bisect_right(starts, start)
        if low and held[low - 1].end > start:
            low -= 1
        high = max(bisect_left(starts, end), low)
        if low < high:
            if held[low].start < start:
                pieces = [replace(held[low], end=start), *pieces]
            if held[high - 1].end > end:
                pieces = [*pieces, replace(held[high - 1], start=end)]
        if pieces and low and held[low - 1].end == pieces[0].start:
            low -= 1
            pieces = [held[low], *pieces]
        if pieces and high < len(held) and held[high].start == pieces[-1].end:
            pieces = [*pieces, held[high]]
            high += 1
        merged: list[Stretch] = []
        for piece in pieces:
            both = merged[-1].joined(piece) if merged else None
            if both is not None:
                merged[-1] = both
            else:
                merged.append(piece)
        held[low:high] = merged
        starts[low:high] = [piece.start for piece in merged]
        bounded(len(starts))

    def between(self, start: int, end: int) -> Iterator[Stretch]:
        """What has come of the sectors [start, end), cut to them."""
        at = max(bisect_right(self._starts, start) - 1, 0)
        while at < len(self._stretches) and self._stretches[at].start < end:
            found = self._stretches[at]
            if found.end > start:
                yield replace(found, start=max(found.start, start), end=min(found.end, end))
            at += 1

    def __iter__(self) -> Iterator[Stretch]:
        return iter(self._stretches)

    @property
    def end(self) -> int:
        """The sector behind the last stretch; 0 if there is none."""
        return self._stretches[-1].end if self._stretches else 0


@dataclass(slots=True)
class EndStates:
    """The end states of all disks of a stream, by device, from its events or runs in their order."""

    disks: dict[str, EndState] = field(default_factory=dict)

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event."""
        if isinstance(event, Block):
            self._put(event, event.sector, event.sector + event.sectors, 0, 0)

    def feed_run(self, run: Run, source: Input) -> None:
        """Take a run of events."""
        columns = [column for column in run.columns if isinstance(column.event, Block)]
        devices = {column.event.device for column in columns if isinstance(column.event, Block)}
        if len(devices) < len(columns):
            for event in run:  # the order within each row counts
                self.feed(event, source)
            return
        for column in columns:
            event, sectors = column.event, column.numbers
            assert isinstance(event, Block)
            assert sectors is not None
            if event.sectors != CHUNK_SECTORS and event.data is not None:
                for row, sector in enumerate(sectors.tolist()):
                    self._put(event, sector, sector + event.sectors, row * run.stride, 0)
                continue
            for rows in tiles(sectors, event.sectors):
                first, last = int(sectors[rows.start]), int(sectors[rows.stop - 1])
                low, high = min(first, last), max(first, last) + event.sectors
                row, step = rows.start, run.stride
                if last < first:
                    row, step = rows.stop - 1, -run.stride
                self._put(event, low, high, row * run.stride, step)

    def _put(self, event: Block, low: int, high: int, by: int, step: int) -> None:
        if event.data is not None:
            new = Stretch(low, high, event.data.offset + by, low, step)
        elif event.flags & _ZERO_BLOCK:
            new = Stretch(low, high)
        else:
            return
        if low < high:
            self.disks.setdefault(event.device, EndState()).put(new)
