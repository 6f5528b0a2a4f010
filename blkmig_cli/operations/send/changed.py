"""The part of a disk that changed since a point in time, as a disk of which only that part is known."""

from collections.abc import Iterator, Sequence

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.image import FilePart, Readable
from blkmig_cli.schemas.constants import CHUNK_SIZE


class Changed:
    """The chunks of ``image`` in which ``bitmap`` has dirty granules, and those from byte ``grown`` on.

    ``grown``: the size of the disk at that time; the bitmap tells nothing of what was added since.  The
    methods are used in ascending order of the disk.
    """

    def __init__(self, image: Readable, bitmap: DirtyBitmap, grown: int) -> None:
        self.path = image.path
        self._image = image
        self._bitmap = bitmap
        self._grown = grown
        self._data: Iterator[tuple[int, int]] = iter(())
        self._extent: tuple[int, int] | None = None  # the one of the image that was read last

    @property
    def size(self) -> int:
        """The virtual size."""
        return self._image.size

    def read(self, offset: int, length: int) -> bytes:
        """See ``image.Readable``."""
        return self._image.read(offset, length)

    def is_zero(self, offset: int, length: int) -> bool:
        """See ``image.Readable``."""
        return self._image.is_zero(offset, length)

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """See ``image.Readable``."""
        self._image.copy_to(target, offset, length, pipe=pipe)

    def places(self, offset: int, length: int) -> Sequence[FilePart]:
        """See ``image.Readable``."""
        return self._image.places(offset, length)

    def extents(self) -> Iterator[tuple[int, int]]:
        """See ``image.Readable``: whole chunks, joined where they touch."""
        self._data, self._extent = self._image.extents(), None
        start = end = 0
        for low, high in self._ranges():
            first = low // CHUNK_SIZE * CHUNK_SIZE
            if first > end:
                if start < end:
                    yield start, end - start
                start = first
            end = max(end, min(-(-high // CHUNK_SIZE) * CHUNK_SIZE, self.size))
        if start < end:
            yield start, end - start

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``image.Readable``: what is in no extent of the image."""
        end = offset + length
        while offset < end:
            start, size = self._next_data(offset)
            if offset < start:
                yield offset, min(start, end) - offset
            offset = max(offset, start + size)

    def _next_data(self, offset: int) -> tuple[int, int]:
        """Return the extent of the image that holds byte ``offset``, or the next one."""
        while self._extent is None or sum(self._extent) <= offset:
            self._extent = next(self._data, (self.size, CHUNK_SIZE))
        return self._extent

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, end) that changed, ascending."""
        for part in self._bitmap.range_parts(min(self._grown, self.size)):
            for start, length in part.tolist():
                yield start, start + length
        if self._grown < self.size:
            yield self._grown, self.size
