"""The part of a disk that changed since a point in time, as a disk of which only that part is known."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.image import Beginning, Image
from blkmig_cli.ranges import Table
from blkmig_cli.schemas.constants import CHUNK_SIZE


class Changed(Beginning):
    """The chunks of ``image`` in which ``bitmap`` has dirty granules, and those from byte ``grown`` on.

    It is an ``image.Readable``.  ``grown``: the size of the disk at that time; the bitmap tells nothing of
    what was added since.  Where nothing changed, it is the first chunk, so that the disk has a record.

    ``at_end``: the disk's last chunk will end with the disk, instead of being cut off by its end, so that
    the chunk before is included with it.
    """

    def __init__(self, image: Image, bitmap: DirtyBitmap, grown: int, *, at_end: bool) -> None:
        super().__init__(image, image.size)
        self._changing = image
        self._bitmap = bitmap
        self._grown = grown
        self._at_end = at_end and image.size >= CHUNK_SIZE
        self._coming: Iterator[tuple[int, int]] = iter(())
        self._reached = 0

    def read(self, offset: int, length: int) -> bytes:
        """See ``image.Readable``."""
        self._reach(offset)
        return super().read(offset, length)

    def is_zero(self, offset: int, length: int) -> bool:
        """See ``image.Readable``."""
        self._reach(offset)
        return super().is_zero(offset, length)

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """See ``image.Readable``."""
        self._reach(offset)
        super().copy_to(target, offset, length, pipe=pipe)

    def extents(self) -> Iterator[tuple[int, int]]:
        """See ``image.Readable``: whole chunks, joined where they touch.

        Afterwards, they are read in this order.
        """
        self._coming, self._reached = self._changing.planned(self._ranges()), 0
        return self._ranges()

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``image.Readable``: what is in no extent of the image."""
        end = offset + length
        rows = self._table[np.searchsorted(self._table[:, 1], offset, "right") :]
        for low, high in rows[: np.searchsorted(rows[:, 0], end)].clip(offset, end).tolist():
            at = low
            for start, size in self._changing.data_in(low, high - low):
                if at < start:
                    yield at, start - at
                at = start + size
            if at < high:
                yield at, high - at

    def _reach(self, offset: int) -> None:
        """Have the image read ahead what comes after byte ``offset``, in the order of the extents."""
        while self._reached <= offset:
            start, length = next(self._coming, (self.size, 1))
            self._reached = start + length

    def _ranges(self) -> Iterator[tuple[int, int]]:
        return ((start, end - start) for start, end in self._table.tolist())

    @cached_property
    def _table(self) -> Table:
        """The ranges of chunks in bytes, start and end: ascending, not adjacent, shape (ranges, 2)."""
        parts = [np.empty((0, 2), np.int64), *self._bitmap.range_parts(min(self._grown, self.size))]
        found: Table = np.concatenate(parts).astype(np.int64)
        found[:, 1] += found[:, 0]
        if self._grown < self.size:
            found = np.append(found, [[self._grown, self.size]], axis=0)
        if not len(found):
            found = np.array([[0, 1]])
        found[:, 0] //= CHUNK_SIZE
        found[:, 1] = -(-found[:, 1] // CHUNK_SIZE)
        if self._at_end and int(found[-1, 1]) * CHUNK_SIZE > self.size:
            found[-1, 0] = min(found[-1, 0], self.size // CHUNK_SIZE - 1)
        low, high = found[:, 0], found[:, 1]
        first = np.append(True, low[1:] > high[:-1])
        last = np.append(first[1:], True)
        joined: Table = np.stack((low[first], high[last]), axis=1) * CHUNK_SIZE
        return np.minimum(joined, self.size)
