"""Ranges of numbers, such as sectors of a disk, many at once: as arrays."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise, starmap
from typing import overload

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import LimitError
from blkmig_cli.intervals import BLOCK, Intervals, bounded

# Many ranges are added by sorting all, if they are at least this fraction of the existing ones.
_SORTED_SHARE = 16
_FEW = 64

#: Ranges as rows of start and end: int64, shape (ranges, 2), ascending.
Table = NDArray[np.int64]


class IntervalSet(Intervals):
    """A set of ranges, to which many are added at once."""

    __slots__ = ()

    def add_all(self, ranges: Table) -> None:
        """Add all of ``ranges``, which may overlap and be in any order; raises as :meth:`add`."""
        if len(ranges) < max(_FEW, self._count // _SORTED_SHARE):
            for start, end in ranges.tolist():
                self.add(start, end)
            return
        starts, ends = (np.append(self._column(at), ranges[:, at]) for at in (0, 1))
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], ends[order]
        del order
        np.maximum.accumulate(ends, out=ends)
        first = np.append(True, starts[1:] > ends[:-1])
        last = np.append(first[1:], True)
        self._set(starts[first], ends[last])

    def add_each(self, starts: NDArray[np.int64], length: int) -> int:
        """Add [start, start + length) for each of ``starts``, in their order.

        Returns how many of these ranges were in the set before they were added.  Raises as :meth:`add`.
        """
        edges = tile_edges(starts, length)
        repeated = 0
        if len(edges) > max(_FEW, self._count // _SORTED_SHARE):
            ordered = np.sort(starts)
            steps = np.diff(ordered)
            if not np.any((steps > 0) & (steps < length)):
                apart = ordered[np.append(True, steps > 0)]
                repeated = len(ordered) - len(apart)
                repeated += int(np.count_nonzero(self._covers_each(apart, length)))
                self.add_all(np.stack([apart, apart + length], axis=1))
                return repeated
        for tile in starmap(slice, pairwise(edges)):
            found = starts[tile]
            low, high = sorted((int(found[0]), int(found[-1])))
            high += length
            if self.covers(low, high):
                repeated += len(found)
            elif len(found) > 1 and self.touches(low, high):
                repeated += sum(self.covers(start, start + length) for start in found.tolist())
            self.add(low, high)
        return repeated

    def touches_each(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of ``numbers`` are in the set: shape (numbers,)."""
        if len(numbers) < max(_FEW, self._count // _SORTED_SHARE):
            return np.array([self.covers(at, at + 1) for at in numbers.tolist()], np.bool_)
        return self._covers_each(numbers, 1)

    def gap_table(self, start: int, end: int) -> Table:
        """Return the parts of [start, end) that are not in the set: shape (gaps, 2), start and end."""
        held = self.table()
        held = held[np.searchsorted(held[:, 1], start, "right") :]
        held = held[: np.searchsorted(held[:, 0], end)]
        found = np.empty((len(held) + 1, 2), np.int64)
        found[0, 0], found[1:, 0] = start, held[:, 1]
        found[-1, 1], found[:-1, 1] = end, held[:, 0]
        some = found[:, 0] < found[:, 1]
        gaps: Table = found if some.all() else found[some]
        return gaps

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return :meth:`gap_table` as a list."""
        return [(low, high) for low, high in self.gap_table(start, end).tolist()]

    def table(self) -> Table:
        """Return all ranges: shape (ranges, 2), start and end."""
        found = np.empty((self._count, 2), np.int64)
        for column in (0, 1):
            found[:, column] = self._column(column)
        return found

    def _column(self, column: int) -> NDArray[np.int64]:
        """Return the starts (0) or the ends (1) of all ranges."""
        blocks = [np.frombuffer(block[column], np.int64) for block in self._blocks]
        return np.concatenate(blocks) if blocks else np.empty(0, np.int64)

    def _set(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        """Set the ranges, which must be ascending and not adjacent."""
        if len(ends) and int(ends[-1]) > limits.DISK_MAX:
            raise LimitError(f"a disk that reaches {ends[-1]}, past what a file offset can say")
        bounded(len(starts))
        half = BLOCK // 2
        self._blocks = []  # released before the new ones are made
        self._blocks = [
            (_packed(starts[at : at + half]), _packed(ends[at : at + half]))
            for at in range(0, len(starts), half)
        ]
        self._firsts = starts[::half].tolist()
        self._count = len(starts)

    def _covers_each(self, starts: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
        """Return of each [start, start + length) whether all of it is in the set."""
        if not self._count:
            return np.zeros(len(starts), np.bool_)
        at = np.searchsorted(self._column(0), starts, "right") - 1
        covered: NDArray[np.bool_] = (at >= 0) & (starts + length <= self._column(1)[at])
        return covered


class ByteRanges(Sequence[tuple[int, int]]):
    """A sequence of ranges of a disk as (start, length) in bytes, converted only when accessed.

    ``table``: start and end in units of ``unit`` bytes, int64, shape (ranges, 2).
    """

    __slots__ = ("_table", "_unit")

    def __init__(self, table: Table, unit: int) -> None:
        self._table = table
        self._unit = unit

    @property
    def total(self) -> int:
        """The sum of all ranges in bytes."""
        # They do not overlap, so that their sum in units fits as well as their ends do.
        return self._unit * int((self._table[:, 1] - self._table[:, 0]).sum())

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for at in range(0, len(self._table), BLOCK):
            yield from self._pairs(slice(at, at + BLOCK))

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> "ByteRanges": ...
    def __getitem__(self, index: int | slice) -> "tuple[int, int] | ByteRanges":
        if isinstance(index, slice):
            return ByteRanges(self._table[index], self._unit)
        ((start, end),) = self._table[[index]].tolist()
        return start * self._unit, (end - start) * self._unit

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<ByteRanges: {len(self)} of {self.total} bytes>"

    def _pairs(self, part: slice) -> Iterator[tuple[int, int]]:
        unit = self._unit
        return ((low * unit, (high - low) * unit) for low, high in self._table[part].tolist())


def _packed(numbers: NDArray[np.int64]) -> "array[int]":
    packed = array("q")
    packed.frombytes(numbers.tobytes())
    return packed


def tile_edges(starts: NDArray[np.int64], length: int) -> list[int]:
    """Return where :func:`tiles` of ``starts`` begin, and the number of starts."""
    steps = starts[1:] - starts[:-1]
    if (steps == length).all():
        return [0, len(starts)]
    way = (steps == length).astype(np.int8) - (steps == -length)
    turns = (way[1:] != way[:-1]) & (way[:-1] != 0)
    breaks = np.flatnonzero((way == 0) | np.append(False, turns)) + 1
    return [0, *breaks.tolist(), len(starts)]


def tiles(starts: NDArray[np.int64], length: int) -> Iterator[slice]:
    """Yield the slices of ``starts`` in which each is ``length`` more (or less) than the last."""
    return starmap(slice, pairwise(tile_edges(starts, length)))


def joined(starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return the union of the ranges of ``length`` at ``starts``, in any order and overlapping.

    The result has shape (n, 2): start and end of ranges that are not adjacent, ascending.
    """
    if not len(starts):
        return np.empty((0, 2), np.int64)
    ordered = np.sort(starts)
    gaps = np.flatnonzero(np.diff(ordered) > length)
    lows, highs = np.append(0, gaps + 1), np.append(gaps, len(ordered) - 1)
    return np.stack((ordered[lows], ordered[highs] + length), axis=1)


def distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each of ``numbers`` once, ascending.  (``np.unique`` hashes them, which is slower.)"""
    ordered = np.sort(numbers, axis=None)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def common(ours: Table, theirs: Table) -> Table:
    """Return what is in both of two tables of disjoint ascending ranges: shape (n, 2)."""
    low = np.searchsorted(theirs[:, 1], ours[:, 0], "right")
    number = np.maximum(np.searchsorted(theirs[:, 0], ours[:, 1]) - low, 0)
    mine = np.repeat(np.arange(len(ours)), number)
    other = np.arange(len(mine)) + np.repeat(low - np.cumsum(number) + number, number)
    starts = np.maximum(ours[mine, 0], theirs[other, 0])
    return np.stack((starts, np.minimum(ours[mine, 1], theirs[other, 1])), axis=1)


def gaps_of(ranges: Table, start: int, end: int) -> Table:
    """Return what of [start, end) is not in ``ranges``, which are disjoint, ascending, and inside."""
    edges = np.concatenate(([start], ranges.reshape(-1), [end])).reshape(-1, 2)
    gaps: Table = edges[edges[:, 0] < edges[:, 1]]
    return gaps
