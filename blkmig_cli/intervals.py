"""Sets of whole numbers, such as sectors of a disk, as sorted ranges that are not adjacent.

The ranges are stored in blocks of bounded length, so that adding in any order is fast, with 16 bytes of
memory per range.  (``ranges.py`` adds and returns many at once, as arrays of numpy, which takes a while to
load.)
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from blkmig_cli import limits
from blkmig_cli.errors import LimitError

#: The most ranges of a block; it is split if it becomes longer.
BLOCK = 1 << 10

#: The starts and ends of some ranges.
Block = tuple["array[int]", "array[int]"]
_Place = tuple[int, int]  # number of a block, and of a range in it


def bounded(number: int) -> None:
    """Raise LimitError where ``number`` ranges of one disk are too many."""
    if number > limits.RANGES_MAX:
        raise LimitError(f"a disk in over {limits.RANGES_MAX} pieces, more than any real one has")


class Intervals:
    """Half-open ranges of numbers from 0 to ``limits.DISK_MAX``, in sectors or in bytes.

    Adjacent ranges are joined, so that numbers added in order, forwards or backwards, are one range.
    """

    __slots__ = ("_blocks", "_count", "_firsts")

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._firsts: list[int] = []  # the first start of each block
        self._count = 0

    def add(self, start: int, end: int) -> bool:
        """Add [start, end); return whether any of it was not in the set.

        Raises LimitError where there are too many ranges, or they end past ``limits.DISK_MAX``.
        """
        if end <= start:
            return False
        if end > limits.DISK_MAX:
            raise LimitError(f"a disk that reaches {end}, past what a file offset can say")
        if not self._blocks:
            self._blocks.append((array("q", [start]), array("q", [end])))
            self._firsts.append(start)
            self._count = 1
        elif (new := self._add_before_next(start, end)) is not None:
            if not new:
                return False
        else:
            low, high = self._from(start - 1), self._to(end + 1)
            if low < high:
                block, at = low
                start = min(start, self._blocks[block][0][at])
                block, at = high
                end = max(end, self._blocks[block][1][at - 1])
            self._replace(low, high, [(start, end)])
        bounded(self._count)
        return True

    def _add_before_next(self, start: int, end: int) -> bool | None:
        """Add [start, end) if it reaches no range after the one that begins before it, else return None.

        Returns whether any of it was not in the set.
        """
        block = max(bisect_right(self._firsts, start) - 1, 0)
        starts, ends = self._blocks[block]
        at = bisect_right(starts, start)
        if at and end <= ends[at - 1]:
            return False
        if at < len(starts):
            following = starts[at]
        else:
            following = self._firsts[block + 1] if block + 1 < len(self._firsts) else end + 1
        if end >= following:
            return None
        if at == 0 or start > ends[at - 1]:
            starts.insert(at, start)
            ends.insert(at, end)
            self._firsts[block] = starts[0]
            self._count += 1
            self._cut(block)
        else:
            ends[at - 1] = end
        return True

    def remove(self, start: int, end: int) -> None:
        """Remove [start, end)."""
        if end <= start or not self._blocks:
            return
        low, high = self._from(start), self._to(end)
        if low >= high:
            return
        first = self._blocks[low[0]][0][low[1]]
        last = self._blocks[high[0]][1][high[1] - 1]
        pieces = [(first, start), (end, last)]
        self._replace(low, high, [piece for piece in pieces if piece[0] < piece[1]])

    def covers(self, start: int, end: int) -> bool:
        """Return whether all of [start, end) is in the set."""
        if end <= start:
            return True
        block = bisect_right(self._firsts, start) - 1
        if block < 0:
            return False
        starts, ends = self._blocks[block]
        return end <= ends[bisect_right(starts, start) - 1]

    def touches(self, start: int, end: int) -> bool:
        """Return whether any of [start, end) is in the set."""
        block = bisect_left(self._firsts, end) - 1
        if block < 0:
            return False
        starts, ends = self._blocks[block]
        return ends[bisect_left(starts, end) - 1] > start

    def between(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of [start, end) that are in the set, as (start, end)."""
        if end <= start or not self._blocks:
            return
        block, at = self._from(start)
        for starts, ends in self._blocks[block:]:
            for number in range(at, len(starts)):
                if starts[number] >= end:
                    return
                yield max(starts[number], start), min(ends[number], end)
            at = 0

    def end_at(self, number: int) -> int:
        """Return the end of the range with ``number`` in it; ``number`` where there is none."""
        if not self._blocks:
            return number
        block, at = self._from(number)
        starts, ends = self._blocks[block]
        return ends[at] if at < len(starts) and starts[at] <= number else number

    @property
    def end(self) -> int:
        """The end of the last range; 0 if there is none."""
        return self._blocks[-1][1][-1] if self._count else 0

    @property
    def total(self) -> int:
        """The count of numbers in the set."""
        return sum(sum(ends) - sum(starts) for starts, ends in self._blocks)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for starts, ends in self._blocks:
            yield from zip(starts, ends, strict=True)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._count} ranges>"

    def _from(self, number: int) -> _Place:
        """Return the place of the first range that ends after ``number``."""
        block = max(bisect_right(self._firsts, number) - 1, 0)
        ends = self._blocks[block][1]
        at = bisect_right(ends, number)
        if at == len(ends) and block + 1 < len(self._blocks):
            return block + 1, 0
        return block, at

    def _to(self, number: int) -> _Place:
        """Return the place after the last range that begins before ``number``."""
        block = max(bisect_left(self._firsts, number) - 1, 0)
        return block, bisect_left(self._blocks[block][0], number)

    def _replace(self, low: _Place, high: _Place, pieces: list[tuple[int, int]]) -> None:
        """Replace the ranges from ``low`` up to ``high`` by ``pieces``."""
        (block, at), (last, until) = low, max(low, high)
        starts, ends = self._blocks[block]
        self._count += len(pieces) - (until - at)
        if last > block:
            self._count -= sum(len(held[0]) for held in self._blocks[block:last])
            for mine, theirs in zip((starts, ends), self._blocks[last], strict=True):
                mine.extend(theirs)
            until += len(starts) - len(self._blocks[last][0])
            del self._blocks[block + 1 : last + 1], self._firsts[block + 1 : last + 1]
        if len(pieces) == until - at == 1:
            ((starts[at], ends[at]),) = pieces
        else:
            starts[at:until] = array("q", [piece[0] for piece in pieces])
            ends[at:until] = array("q", [piece[1] for piece in pieces])
        if not starts:
            del self._blocks[block], self._firsts[block]
            return
        self._firsts[block] = starts[0]
        self._cut(block)

    def _cut(self, block: int) -> None:
        """Split a block if it is too long."""
        starts, ends = self._blocks[block]
        if len(starts) > BLOCK:
            half = len(starts) // 2
            self._blocks.insert(block + 1, (starts[half:], ends[half:]))
            self._firsts.insert(block + 1, starts[half])
            del starts[half:], ends[half:]
