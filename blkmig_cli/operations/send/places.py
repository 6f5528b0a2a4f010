"""The regions of a disk that is known in part, and the records that carry exactly these.

All numbers are sectors.
"""

from collections.abc import Iterator
from itertools import chain, islice

from blkmig_cli.disks.image import Readable
from blkmig_cli.operations.send.region import Placed, placed_region
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE

# The most regions that are placed one by one; more are placed as arrays.
_FEW = 1 << 12


def placed(image: Readable, total: int | None) -> Iterator[Placed]:
    """Return the records that carry the :func:`regions` of ``image``; ``total`` as in ``region.places``."""
    found = regions(image)
    first = list(islice(found, _FEW + 1))
    if len(first) > _FEW:
        from blkmig_cli.operations.send.many_regions import placed_many  # noqa: PLC0415 (numpy is slow to load)

        yield from placed_many(image, chain(first, found), total)
        return
    for start, end in first:
        yield from placed_region(image, start, end, total)


def regions(image: Readable) -> Iterator[tuple[int, int]]:
    """Yield the extents of ``image`` as (start, end), ascending; adjacent ones are joined."""
    low = high = 0
    for start, length in image.extents():
        first, behind = start // SECTOR_SIZE, -(-(start + length) // SECTOR_SIZE)
        if first <= high:
            high = max(high, behind)
            continue
        if low < high:
            yield low, high
        low, high = first, behind
    if low < high:
        yield low, high


def unplaceable(
    image: Readable, *, on_grid: bool, open_ended: bool = False
) -> Iterator[tuple[int, int]]:
    """Yield the :func:`regions` that records cannot carry, on the grid of chunks or at any sector.

    ``open_ended``: the disk may be larger than the image.
    """
    total = -1 if open_ended else image.size // SECTOR_SIZE
    for start, end in regions(image):
        if on_grid:
            fits = start % CHUNK_SECTORS == 0 and (end == total or end % CHUNK_SECTORS == 0)
        else:
            fits = end == total or end - start >= CHUNK_SECTORS
        if not fits:
            yield start, end
