"""Does an image hold what a stream leaves behind?  The last record of a chunk counts.

Chunk by chunk as they come, so that a pipe will do; ``compare.py`` compares what is in files.
"""

from collections.abc import Iterator

import numpy as np

from blkmig_cli.disks.image import Readable
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import CHUNK_SIZE, SECTOR_SIZE, BlockFlag
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.schema_io import Input

_ZEROS = bytes(CHUNK_SIZE)


def differing_sectors(
    ours: bytes | memoryview, theirs: bytes | memoryview
) -> Iterator[tuple[int, int]]:
    """Ranges (start, end) of sectors in which two equally long pieces of a disk differ."""
    if ours == theirs:
        return
    length = len(ours)
    differ = np.zeros(-(-length // SECTOR_SIZE) * SECTOR_SIZE, np.bool_)
    differ[:length] = np.frombuffer(ours, np.uint8) != np.frombuffer(theirs, np.uint8)
    sectors = differ.reshape(-1, SECTOR_SIZE).any(axis=1).view(np.int8)
    edges = np.flatnonzero(np.diff(sectors, prepend=np.int8(0), append=np.int8(0)))
    yield from ((int(low), int(high)) for low, high in edges.reshape(-1, 2))


class ImageComparison:
    """Compares chunks as they come; a later record of the same place overrules an earlier one."""

    def __init__(self, image: Readable) -> None:
        self._image = image
        self._differing = IntervalSet()

    def feed(self, event: Block, source: Input) -> None:
        """One block record."""
        if event.data is None and not event.flags & BlockFlag.ZERO_BLOCK:
            return
        start = event.sector * SECTOR_SIZE
        length = max(min(event.sectors * SECTOR_SIZE, self._image.size - start), 0)
        if length == 0:
            return
        theirs = self._image.read(start, length)
        ours = memoryview(_ZEROS)[:length]
        if event.data is not None:
            ours = source.view(event.data)[:length]
        first = event.sector
        self._differing.remove(first, first + CHUNK_SIZE // SECTOR_SIZE)
        for low, high in differing_sectors(ours, theirs):
            self._differing.add(first + low, first + high)

    def differing(self) -> list[tuple[int, int]]:
        """Ranges (start, length) in bytes, whole sectors, in which the image differs."""
        return [(low * SECTOR_SIZE, (high - low) * SECTOR_SIZE) for low, high in self._differing]
