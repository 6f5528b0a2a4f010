"""The part of a disk that changed since a point in time, as a disk of which only that part is known."""

from collections.abc import Iterable, Iterator

from blkmig_cli.disks.image import Beginning, Image
from blkmig_cli.intervals import Intervals
from blkmig_cli.schemas.constants import CHUNK_SIZE


class Changed(Beginning):
    """The chunks of ``image`` that ``dirty`` ranges touch, and those from byte ``grown`` on.

    It is an ``image.Readable``.  ``dirty``: (start, length) in bytes.  ``grown``: the size of the disk at
    that time; the ranges tell nothing of what was added since.  Where nothing changed, it is the first
    chunk, so that the disk has a record.

    ``at_end``: the disk's last chunk will end with the disk, instead of being cut off by its end, so that
    the chunk before is included with it.

    Raises LimitError for more separate ranges than a disk may have.
    """

    def __init__(
        self, image: Image, dirty: Iterable[tuple[int, int]], grown: int, *, at_end: bool
    ) -> None:
        super().__init__(image, image.size)
        self._changing = image
        self._chunks = _touched(dirty, min(grown, self.size))
        if grown < self.size:
            self._chunks.add(grown // CHUNK_SIZE, -(-self.size // CHUNK_SIZE))
        if not self._chunks:
            self._chunks.add(0, 1)
        whole = self.size // CHUNK_SIZE
        if at_end and 0 < whole < self._chunks.end:
            self._chunks.add(whole - 1, whole)
        self._coming: Iterator[tuple[int, int]] = iter(())
        self._reached = self._chunk = 0

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
        self._coming, self._reached = self._changing.planned(self._plan()), 0
        self._chunk = 0
        return ((start, end - start) for start, end in self._ranges(0, self.size))

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``image.Readable``: what is in no extent of the image."""
        for low, high in self._ranges(offset, offset + length):
            at = low
            for start, size in self._changing.data_in(low, high - low):
                if at < start:
                    yield at, start - at
                at = start + size
            if at < high:
                yield at, high - at

    def _reach(self, offset: int) -> None:
        """Have the image read ahead what comes after byte ``offset``, in the order of the extents."""
        self._chunk = offset // CHUNK_SIZE
        while self._reached <= offset:
            start, length = next(self._coming, (self.size, 1))
            self._reached = start + length

    def _plan(self) -> Iterator[tuple[int, int]]:
        """Yield the chunks one by one, but for those before the one that is being read."""
        for first, end in self._chunks:
            number = max(first, self._chunk)
            while number < end:
                start = number * CHUNK_SIZE
                yield start, min(CHUNK_SIZE, self.size - start)
                number = max(number + 1, self._chunk)

    def _ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts (start, end) of bytes [start, end) that are in the chunks."""
        end = min(end, self.size)
        for low, high in self._chunks.between(start // CHUNK_SIZE, -(-end // CHUNK_SIZE)):
            yield max(low * CHUNK_SIZE, start), min(high * CHUNK_SIZE, end)


def _touched(dirty: Iterable[tuple[int, int]], size: int) -> Intervals:
    """Return the numbers of the chunks that ranges of the first ``size`` bytes touch."""
    found = Intervals()
    for start, length in dirty:
        if start < size:
            found.add(start // CHUNK_SIZE, -(-min(start + length, size) // CHUNK_SIZE))
    return found
