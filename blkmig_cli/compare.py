"""Does an image hold what a stream leaves behind?  The last record of a chunk counts."""

import numpy as np

from blkmig_cli.events import Block
from blkmig_cli.images import Image
from blkmig_cli.intervals import IntervalSet
from blkmig_cli.parse import Input
from blkmig_cli.schemas.constants import CHUNK_SIZE, SECTOR_SIZE, BlockFlag


class ImageComparison:
    """Compares chunks as they come; a later record of the same place overrules an earlier one."""

    def __init__(self, image: Image) -> None:
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
        theirs = np.frombuffer(self._image.read(start, length), np.uint8)
        ours = np.zeros(length, np.uint8)
        if event.data is not None:
            ours = np.frombuffer(source.view(event.data), np.uint8, length)
        first = event.sector
        self._differing.remove(first, first + CHUNK_SIZE // SECTOR_SIZE)
        if not np.array_equal(ours, theirs):
            places = np.flatnonzero(ours != theirs) // SECTOR_SIZE
            for sector in np.unique(places).tolist():
                self._differing.add(first + sector, first + sector + 1)

    def differing(self) -> list[tuple[int, int]]:
        """Ranges (start, length) in bytes, whole sectors, in which the image differs."""
        return [(low * SECTOR_SIZE, (high - low) * SECTOR_SIZE) for low, high in self._differing]
