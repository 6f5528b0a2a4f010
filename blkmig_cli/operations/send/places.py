"""The sectors of records that carry exactly a part of a disk.

A record carries a chunk of 1 MiB.  The dialects classic and qemu allow it at any sector, v1 and v2 only
on the grid of chunks.  Parts without records remain unchanged at the destination, so a record must not
reach beyond the part that is known.  All numbers are sectors.
"""

from collections.abc import Iterator

from blkmig_cli.disks.image import Readable
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE


def regions(image: Readable) -> Iterator[tuple[int, int]]:
    """Return the extents of ``image`` as (start, end), ascending; adjacent ones are joined."""
    start = end = 0
    for first, length in image.extents():
        low, high = first // SECTOR_SIZE, -(-(first + length) // SECTOR_SIZE)
        if low > end:
            if start < end:
                yield start, end
            start = low
        end = max(end, high)
    if start < end:
        yield start, end


def places(start: int, end: int, total: int) -> Iterator[int]:
    """Return the sectors of records that carry [start, end) of a disk of ``total`` sectors.

    The range must not be :func:`unplaceable`.
    """
    grid = -(-start // CHUNK_SECTORS) * CHUNK_SECTORS
    if start < grid:
        yield start
    behind = end if end == total else end // CHUNK_SECTORS * CHUNK_SECTORS
    yield from range(grid, behind, CHUNK_SECTORS)
    if start < end - CHUNK_SECTORS and behind < end:
        yield end - CHUNK_SECTORS


def unplaceable(image: Readable, *, on_grid: bool) -> Iterator[tuple[int, int]]:
    """Return the :func:`regions` that records cannot carry, on the grid of chunks or at any sector."""
    total = image.size // SECTOR_SIZE
    for start, end in regions(image):
        if on_grid:
            fits = start % CHUNK_SECTORS == 0 and (end == total or end % CHUNK_SECTORS == 0)
        else:
            fits = end == total or end - start >= CHUNK_SECTORS
        if not fits:
            yield start, end
