"""The part of a disk that changed since a point in time, as a disk of which only that part is known."""

from collections.abc import Iterator

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.image import Beginning, Image
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

    def extents(self) -> Iterator[tuple[int, int]]:
        """See ``image.Readable``: whole chunks, joined where they touch."""
        return self._changing.planned(self._chunks())

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``image.Readable``: what is in no extent of the image."""
        end = min(offset + length, self.size)
        for start, size in self._changing.data_in(offset, end - offset) if offset < end else ():
            if offset < start:
                yield offset, start - offset
            offset = start + size
        if offset < end:
            yield offset, end - offset

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, length) of chunks, ascending and not adjacent."""
        start = end = 0
        for low, high in self._ranges():
            first = low // CHUNK_SIZE * CHUNK_SIZE
            stop = -(-high // CHUNK_SIZE) * CHUNK_SIZE
            if stop > self.size:
                stop = self.size
                if self._at_end:
                    first = min(first, (stop - CHUNK_SIZE) // CHUNK_SIZE * CHUNK_SIZE)
            if first > end:
                if start < end:
                    yield start, end - start
                start = first
            end = max(end, stop)
        yield start, (end or min(CHUNK_SIZE, self.size)) - start

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, end) that changed, ascending."""
        for part in self._bitmap.range_parts(min(self._grown, self.size)):
            for start, length in part.tolist():
                yield start, start + length
        if self._grown < self.size:
            yield self._grown, self.size
