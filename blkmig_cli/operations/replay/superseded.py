"""Finding superseded records, whose chunk is sent again later: they need not be written.

Only a later record at the same sector that covers as many sectors supersedes a record; those that
overlap otherwise are written in the order of the stream.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.runs.columns import Numbers, Run, blocks_of, is_past

_COLUMNS = 3
_ROWS_MIN = 1 << 20
_BATCH = 1 << 16


class Superseded:
    """Takes all records of a stream once, and determines which of them are superseded.

    It holds a few numbers for each chunk that is sent more than once, and none for the others.
    """

    def __init__(self) -> None:
        self._repeats: dict[str, _Repeats] = {}
        self._overlaps: dict[str, IntervalSet] = {}

    def overlaps(self, device: str) -> IntervalSet:
        """Return the bytes of the device's disk in which records may partly overlap others."""
        return self._overlaps.setdefault(device, IntervalSet())

    def feed(self, event: Block, covered: IntervalSet) -> None:
        """Take the next record; ``covered`` are the sectors of its disk that were sent before it."""
        if not event.has_content:
            return
        if event.sector % CHUNK_SECTORS:
            start = event.sector * SECTOR_SIZE
            self.overlaps(event.device).add(start, start + event.sectors * SECTOR_SIZE)
        if covered.touches(event.sector, event.sector + 1):
            row = array("q", (event.sector, event.offset, event.sectors))
            self._of(event.device).add(memoryview(row))

    def feed_run(self, run: Run, covered: Callable[[str], IntervalSet]) -> None:
        """Take a run of records; ``covered`` returns a device's sectors that were sent before."""
        for device, found in blocks_of(run).items():
            columns = [column for column in found if not is_past(column)]
            if not columns:
                continue
            lengths = np.repeat(
                [column.event.sectors for column in columns if isinstance(column.event, Block)],
                [column.rows for column in columns],
            )
            offsets = np.concatenate([column.offsets for column in columns])
            sectors = np.concatenate([c.numbers for c in columns if c.numbers is not None])
            unaligned = np.flatnonzero(sectors % CHUNK_SECTORS)
            starts = sectors[unaligned] * SECTOR_SIZE
            ends = starts + lengths[unaligned] * SECTOR_SIZE
            self.overlaps(device).add_all(np.stack((starts, ends), axis=1))
            table = np.stack((sectors, offsets, lengths), axis=1)[np.argsort(offsets)]
            rows = _repeating(table[:, 0], int(lengths.max()), covered(device))
            for first in range(0, len(rows), _BATCH):
                self._of(device).add(table[rows[first : first + _BATCH]].data)

    def __contains__(self, event: Block) -> bool:
        """Return whether a later record covers all sectors of ``event``."""
        repeats = self._repeats.get(event.device)
        if repeats is None:
            return False
        offset, sectors = repeats.last(event.sector)
        return event.offset < offset and event.sectors <= sectors

    def rows(self, event: Block, offsets: Numbers, sectors: Numbers) -> NDArray[np.bool_]:
        """Return which of the records like ``event`` at ``offsets`` and ``sectors`` are superseded."""
        repeats = self._repeats.get(event.device)
        if repeats is None:
            return np.zeros(len(sectors), np.bool_)
        return repeats.behind(offsets, sectors, event.sectors)

    def _of(self, device: str) -> "_Repeats":
        return self._repeats.setdefault(device, _Repeats())


def _repeating(sectors: Numbers, length: int, before: IntervalSet) -> Numbers:
    """Return the rows of a run whose chunk was sent before, in ``before`` or in the run itself."""
    steps = np.diff(sectors)
    low, high = int(sectors.min()), int(sectors.max()) + 1
    in_order = (steps >= length).all() or (steps <= -length).all()
    if not in_order or before.covers(low, high):
        return np.arange(len(sectors))
    if not before.touches(low, high):
        return np.arange(0)
    return np.flatnonzero(before.touches_each(sectors))


class _Repeats:
    """The last record of each chunk of one device that is sent more than once."""

    def __init__(self) -> None:
        # Rows of sector, offset, and length in sectors; thinned out when they have doubled.
        self._rows = array("q")
        self._most = _ROWS_MIN
        self._columns: list[array[int]] = []

    def add(self, rows: memoryview) -> None:
        """Take more rows, which are later in the stream."""
        self._rows.frombytes(rows.cast("B"))
        if len(self._rows) > _COLUMNS * self._most:
            rows_kept = self._table()[self._lasts()]
            self._rows = array("q")
            self._rows.frombytes(rows_kept.data.cast("B"))
            self._most = max(2 * len(rows_kept), _ROWS_MIN)

    def last(self, sector: int) -> tuple[int, int]:
        """Return offset and length of the last record at ``sector``; (-1, 0) if it is not repeated."""
        sectors, offsets, lengths = self._sorted()
        at = bisect_left(sectors, sector)
        if at == len(sectors) or sectors[at] != sector:
            return -1, 0
        return offsets[at], lengths[at]

    def behind(self, offsets: Numbers, sectors: Numbers, length: int) -> NDArray[np.bool_]:
        """Return which records of ``length`` sectors a later one covers."""
        known, last, lengths = (np.frombuffer(part, np.int64) for part in self._sorted())
        at = np.minimum(np.searchsorted(known, sectors), len(known) - 1)
        found: NDArray[np.bool_] = (known[at] == sectors) & (offsets < last[at])
        return found & (length <= lengths[at])

    def _sorted(self) -> "list[array[int]]":
        """Return the last records, by sector: sectors, offsets and lengths."""
        if not self._columns:
            lasts = self._lasts()
            for number in range(_COLUMNS):
                self._columns.append(array("q"))
                self._columns[-1].frombytes(self._table()[lasts, number].data.cast("B"))
            self._rows = array("q")
        return self._columns

    def _table(self) -> NDArray[np.int64]:
        """Return the rows as they are held, shape (rows, 3)."""
        return np.frombuffer(self._rows, np.int64).reshape(-1, _COLUMNS)

    def _lasts(self) -> NDArray[np.int64]:
        """Return which rows are the last of their sectors, by sector."""
        rows = self._table()
        order = np.lexsort((rows[:, 1], rows[:, 0]))
        sectors = rows[order, 0]
        lasts: NDArray[np.int64] = order[np.append(sectors[1:] != sectors[:-1], True)]
        return lasts
