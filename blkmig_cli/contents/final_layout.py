"""The final layout of a disk: for every sector, the place in the stream of the last record with it.

Records are first appended, and sorted only when there are many or the layout is read, so that no order
of records is slow.  Chunks that are contiguous on the disk, and at equal distances in the stream, then
become one stretch, so that the memory depends on the order of a stream and not on its length.
"""

from array import array
from collections.abc import Iterator
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.intervals import bounded
from blkmig_cli.ranges import IntervalSet, Table, distinct, tile_edges
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE, BlockFlag
from blkmig_cli.wire.events import Block, Event
from blkmig_cli.wire.runs.columns import Column, Run, blocks_of, is_past
from blkmig_cli.wire.schema_io import Input

_ZERO_BLOCK = int(BlockFlag.ZERO_BLOCK)

# Columns of a table of stretches, as in Stretch; special values of the offset.
_START, _END, _OFFSET, _FIRST, _STEP = range(5)
_COLUMNS = 5
_ZERO, _REMOVED = -1, -2
# The least number of records that are appended before they are sorted; stretches created at once.
_NOTED_MIN = 1 << 17
_BATCH = 1 << 12


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
        """Return the offset of ``sector`` in the stream, and how many sectors are contiguous from there.

        Only for data.
        """
        assert self.offset is not None
        chunk, inside = divmod(sector - self.first, CHUNK_SECTORS)
        byte = self.offset + chunk * self.step + inside * SECTOR_SIZE
        return byte, min(self.end, sector - inside + CHUNK_SECTORS) - sector


class EndState:
    """The stretches of one disk, ascending, not overlapping; sectors that were not sent are gaps."""

    def __init__(self) -> None:
        self._held = np.empty((0, _COLUMNS), np.int64)  # in order
        self._noted = array("q")  # rows of the same columns, in the order of the stream
        self._repeated = IntervalSet()

    def put(self, new: Stretch) -> None:
        """Add a stretch that is later in the stream than all others; raises LimitError."""
        offset = _ZERO if new.offset is None else new.offset
        self._note((new.start, new.end, offset, new.first, new.step))

    def put_all(self, rows: Table) -> None:
        """Add stretches in the order of the stream, each later than those before; raises LimitError.

        ``rows``: start, end, offset (-1 for zeros), first, step; int64, shape (stretches, 5).
        """
        self._noted.frombytes(rows.tobytes())
        self._settle_many()

    def remove(self, start: int, end: int) -> None:
        """Remove the sectors [start, end), as if they had not been sent."""
        self._note((start, end, _REMOVED, 0, 0))

    def between(self, start: int, end: int) -> Iterator[Stretch]:
        """Yield the stretches within the sectors [start, end), clipped to them."""
        for part in self.parts(start, end):
            for low, high, offset, first, step in part.tolist():
                yield Stretch(low, high) if offset < 0 else Stretch(low, high, offset, first, step)

    def parts(self, start: int, end: int) -> Iterator[Table]:
        """Yield what :meth:`between` yields as rows of :meth:`put_all`, in parts of bounded length."""
        rows = self._settled()
        rows = rows[np.searchsorted(rows[:, _END], start, "right") :]
        rows = rows[: np.searchsorted(rows[:, _START], end)]
        for at in range(0, len(rows), _BATCH):
            part = rows[at : at + _BATCH].copy()
            part[:, :_OFFSET] = part[:, :_OFFSET].clip(start, end)
            yield part

    def every(self, step: int) -> NDArray[np.int64]:
        """Return the sectors at which each ``step``-th stretch starts, ascending."""
        return self._settled()[::step, _START].copy()

    def ranges(self, start: int, end: int) -> tuple[Table, Table]:
        """Return the parts of the sectors [start, end) that were sent, and those sent as data.

        Both have the shape (ranges, 2), start and end; adjacent ones are not joined.
        """
        parts = [part[:, : _OFFSET + 1] for part in self.parts(start, end)]
        rows = np.concatenate([np.empty((0, _OFFSET + 1), np.int64), *parts])
        return rows[:, :_OFFSET], rows[rows[:, _OFFSET] >= 0, :_OFFSET]

    @property
    def repeated(self) -> IntervalSet:
        """The sectors that were sent more than once, including removed ones."""
        self._settled()
        return self._repeated

    @property
    def end(self) -> int:
        """The sector after the last stretch; 0 if there is none."""
        rows = self._settled()
        return int(rows[-1, _END]) if len(rows) else 0

    def __iter__(self) -> Iterator[Stretch]:
        return self.between(0, self.end)

    def __repr__(self) -> str:
        return f"<EndState of {len(self._settled())} stretches>"

    def _note(self, row: tuple[int, int, int, int, int]) -> None:
        if row[_START] < row[_END]:
            self._noted.extend(row)
            self._settle_many()

    def _settle_many(self) -> None:
        """Sort the records if there are so many that this takes less time than appending them took."""
        many = max(min(_NOTED_MIN, limits.RANGES_MAX), len(self._held))
        if len(self._noted) > many * _COLUMNS:
            self._settled()

    def _settled(self) -> Table:
        """Return all stretches, in order."""
        if self._noted:
            # What is no longer needed is released at once: there may be millions of rows.
            noted = np.frombuffer(self._noted, np.int64).reshape(-1, _COLUMNS)
            rows = np.concatenate([self._held, noted]) if len(self._held) else noted
            self._held, self._noted = np.empty((0, _COLUMNS), np.int64), array("q")
            del noted
            order = np.argsort(rows[:, _START], kind="stable")
            if np.all(rows[order[1:], _START] >= rows[order[:-1], _END]):
                for column in range(_COLUMNS):
                    rows[:, column] = rows[order, column]
            else:
                del order
                rows, repeated = _last_ones(rows)
                self._repeated.add_all(repeated)
            removed = rows[:, _OFFSET] == _REMOVED
            self._held = _joined(rows[~removed] if removed.any() else rows)
            bounded(len(self._held))
        return self._held


def _last_ones(rows: Table) -> tuple[Table, Table]:
    """Return ``rows`` without what later rows replace, and the ranges that are in several rows.

    Each of ``rows`` is later in the stream than those before it; the result is sorted by start.
    """
    # Between two edges, the same rows apply.  Of what is large, nothing is held longer than needed.
    edges = distinct(rows[:, :_OFFSET])
    low, high = (np.searchsorted(edges, rows[:, column]) for column in (_START, _END))
    owner = _highest(low, high, len(edges) - 1)
    came = rows[:, _OFFSET] != _REMOVED
    number = len(edges)
    depth = np.bincount(low[came], minlength=number)
    depth -= np.bincount(high[came], minlength=number)
    del low, high, came
    np.cumsum(depth, out=depth)
    several = np.flatnonzero(np.diff((depth > 1).view(np.int8), prepend=np.int8(0)))
    del depth
    begin = np.flatnonzero(np.diff(owner, prepend=-1))
    end, held = np.append(begin[1:], len(owner)), owner[begin] >= 0
    begin, end = begin[held], end[held]
    found = rows[owner[begin]]
    found[:, _START], found[:, _END] = edges[begin], edges[end]
    return found, edges[several].reshape(-1, 2)


def _highest(low: NDArray[np.int64], high: NDArray[np.int64], number: int) -> NDArray[np.int32]:
    """Return for each of ``number`` places the last range [low, high) that contains it; -1: none.

    A range is split into two that overlap, each as long as a power of two; the last range of each
    such length at a place also applies to both its halves, unless these have a later one.
    """
    found = np.full(number, -1, np.int32)
    power = np.frexp(high - low)[1] - 1
    for shift in range(int(power.max()), -1, -1):
        ours = np.flatnonzero(power == shift).astype(np.int32)
        np.maximum.at(found, low[ours], ours)
        np.maximum.at(found, high[ours] - (1 << shift), ours)
        half = 1 << shift >> 1
        if half:
            found[half:] = np.maximum(found[half:], found[:-half])
    return found


def _joined(rows: Table) -> Table:
    """Join those of ``rows`` (sorted, disjoint) that are contiguous on the disk and in the stream."""
    if not len(rows):
        return rows
    data = rows[:, _OFFSET] >= 0
    links = rows[:-1, _END] == rows[1:, _START]
    links &= data[:-1] == data[1:]
    steps = _steps(rows, data, links) if data.any() else None
    if not links.any():
        return rows
    begin = np.flatnonzero(np.append(True, ~links))
    found: Table = rows[begin]
    found[:, _END] = rows[np.append(begin[1:], len(rows)) - 1, _END]
    if steps is not None:
        several = np.append(links, False)[begin] & data[begin]
        found[several, _STEP] = steps[begin[several]]
    return found


def _steps(rows: Table, data: NDArray[np.bool_], links: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the distance in the stream from each of ``rows`` to the next one, for rows of ``data``.

    Rows that are cut at their start are changed to begin with a later chunk; of ``links``, those to a
    row of data that does not continue the one before it in the stream become False.
    """
    passed = np.where(data, (rows[:, _START] - rows[:, _FIRST]) // CHUNK_SECTORS, 0)
    rows[:, _OFFSET] += passed * rows[:, _STEP]
    passed *= CHUNK_SECTORS
    rows[:, _FIRST] += passed
    # There may be millions of rows: nothing is held longer than needed.
    del passed
    single = rows[:, _END] - rows[:, _FIRST] <= CHUNK_SECTORS
    follows = data[:-1] & data[1:]
    chunks, rest = np.divmod(np.diff(rows[:, _FIRST]), CHUNK_SECTORS)
    follows &= (chunks > 0) & (rest == 0)
    del rest
    np.maximum(chunks, 1, out=chunks)
    steps, uneven = np.divmod(np.diff(rows[:, _OFFSET]), chunks)
    follows &= uneven == 0
    del chunks, uneven
    for side in (slice(None, -1), slice(1, None)):
        follows &= single[side] | (rows[side, _STEP] == steps)
    follows[1:] &= ~follows[:-1] | (steps[1:] == steps[:-1])
    links &= follows | ~data[1:]
    return steps


@dataclass(slots=True)
class EndStates:
    """A consumer of a stream's events that collects the end states of its disks, by device."""

    disks: dict[str, EndState] = field(default_factory=dict)

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event; raises LimitError."""
        if isinstance(event, Block) and event.has_content:
            sector, offset = event.sector, None if event.data is None else event.data.offset
            self._of(event).put(Stretch(sector, sector + event.sectors, offset, sector))

    def feed_run(self, run: Run, source: Input) -> None:
        """Take a run of events; raises LimitError."""
        for device, columns in blocks_of(run).items():
            self.disks.setdefault(device, EndState())
            ours = [column for column in columns if not is_past(column)]
            if not ours:
                continue
            if len(ours) == 1:
                rows = _tiled(ours[0])
            else:
                offsets = np.concatenate([column.offsets for column in ours])
                rows = np.concatenate([_records(column) for column in ours])
                rows = rows[np.argsort(offsets, kind="stable")]
            self.disks[device].put_all(rows)

    def _of(self, event: Block) -> EndState:
        return self.disks.setdefault(event.device, EndState())


def _records(column: Column, rows: NDArray[np.int64] | None = None) -> Table:
    """Return the stretch of each of ``rows`` of ``column`` (None: of all): shape (rows, 5)."""
    event, sectors = column.event, column.numbers
    assert isinstance(event, Block)
    assert sectors is not None
    if rows is None:
        rows = np.arange(len(sectors))
    found = np.zeros((len(rows), _COLUMNS), np.int64)
    found[:, _START] = sectors[rows]
    found[:, _END] = found[:, _START] + event.sectors
    found[:, _OFFSET] = _ZERO
    if event.data is not None:
        found[:, _OFFSET] = column.offsets[rows] + (event.data.offset - event.offset)
        found[:, _FIRST] = found[:, _START]
    return found


def _tiled(column: Column) -> Table:
    """Return the stretches of ``column``, one for each sequence of rows contiguous on the disk."""
    event, sectors = column.event, column.numbers
    assert isinstance(event, Block)
    assert sectors is not None
    steps = np.diff(column.offsets)
    stride = int(steps[0]) if len(steps) else 0
    if event.data is not None and (event.sectors != CHUNK_SECTORS or np.any(steps != stride)):
        return _records(column)
    edges = np.array(tile_edges(sectors, event.sectors))
    first, last = edges[:-1], edges[1:] - 1
    down = sectors[last] < sectors[first]
    found = _records(column, np.where(down, last, first))
    found[:, _END] = sectors[np.where(down, first, last)] + event.sectors
    if event.data is not None:
        found[:, _STEP] = np.where(down, -stride, stride)
    return found
