"""Sets of whole numbers as sorted ranges that do not touch: what of a disk has come."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import LimitError


def bounded(number: int) -> None:
    """Raises LimitError where ``number`` ranges of one disk are too many."""
    if number > limits.RANGES_MAX:
        raise LimitError(f"a disk in over {limits.RANGES_MAX} pieces, as no real one comes")


class IntervalSet:
    """Half-open ranges.  Adding in order, forwards or backwards, keeps it at one range."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Add [start, end); raises LimitError where there are too many."""
        if end <= start:
            return
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]
        bounded(len(self._starts))

    def remove(self, start: int, end: int) -> None:
        """Take [start, end) out."""
        low = bisect_right(self._ends, start)
        high = bisect_left(self._starts, end)
        if end <= start or low >= high:
            return
        kept = [(self._starts[low], start), (end, self._ends[high - 1])]
        pieces = [(first, last) for first, last in kept if first < last]
        self._starts[low:high] = [first for first, _ in pieces]
        self._ends[low:high] = [last for _, last in pieces]

    def covers(self, start: int, end: int) -> bool:
        """Is all of [start, end) in the set?"""
        at = bisect_right(self._starts, start) - 1
        return end <= start or (at >= 0 and end <= self._ends[at])

    def touches(self, start: int, end: int) -> bool:
        """Is any of [start, end) in the set?"""
        at = bisect_left(self._starts, end)
        return at > 0 and self._ends[at - 1] > start

    def between(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """What of [start, end) is in the set, as (start, end)."""
        at = bisect_right(self._ends, start)
        while at < len(self._starts) and self._starts[at] < end:
            yield max(self._starts[at], start), min(self._ends[at], end)
            at += 1

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of [start, end) is not in the set, as (start, end)."""
        found = []
        for low, high in self:
            if high <= start:
                continue
            if low >= end:
                break
            if low > start:
                found.append((start, low))
            start = high
        if start < end:
            found.append((start, end))
        return found

    @property
    def end(self) -> int:
        """The end of the last range; 0 if there is none."""
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __bool__(self) -> bool:
        return bool(self._starts)


def tiles(starts: NDArray[np.int64], length: int) -> Iterator[slice]:
    """Stretches of ``starts`` in which each is ``length`` more (or each ``length`` less) than the last."""
    steps = np.diff(starts)
    way = (steps == length).astype(np.int8) - (steps == -length)
    turns = (way[1:] != way[:-1]) & (way[:-1] != 0)
    breaks = np.flatnonzero((way == 0) | np.append(False, turns)) + 1
    begin = 0
    for end in [*breaks.tolist(), len(starts)]:
        yield slice(begin, end)
        begin = end


def joined(starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return what the ranges of ``length`` at ``starts`` cover together, in any order and overlapping.

    The result has shape (n, 2): start and end of ranges that do not touch, ascending.
    """
    if not len(starts):
        return np.empty((0, 2), np.int64)
    ordered = np.sort(starts)
    gaps = np.flatnonzero(np.diff(ordered) > length)
    lows, highs = np.append(0, gaps + 1), np.append(gaps, len(ordered) - 1)
    return np.stack((ordered[lows], ordered[highs] + length), axis=1)
