"""The sectors of records that carry exactly a part of a disk.

A record carries a chunk of 1 MiB.  The dialects classic and qemu allow it at any sector, v1 and v2 only
on the grid of chunks.  Parts without records remain unchanged at the destination, so a record must not
reach beyond the part that is known.  All numbers are sectors.
"""

from collections.abc import Iterator

from blkmig_cli.disks.image import Readable
from blkmig_cli.schemas.constants import CHUNK_SECTORS, CHUNK_SIZE, SECTOR_SIZE


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


def places(start: int, end: int, total: int | None) -> Iterator[range]:
    """Return the sectors of records that together carry [start, end) of a disk of ``total`` sectors.

    They come as ranges, chunk by chunk.  ``total`` None: the disk may end anywhere behind.  The range
    must not be :func:`unplaceable`.
    """
    grid = -(-start // CHUNK_SECTORS) * CHUNK_SECTORS
    if start < grid:
        yield range(start, start + CHUNK_SECTORS, CHUNK_SECTORS)
        if start + CHUNK_SECTORS >= end:
            return
    behind = end if end == total else end // CHUNK_SECTORS * CHUNK_SECTORS
    if grid < behind:
        yield range(grid, behind, CHUNK_SECTORS)
    if start < end - CHUNK_SECTORS and behind < end:
        yield range(end - CHUNK_SECTORS, end, CHUNK_SECTORS)


def split_by_zeros(image: Readable, chunks: range) -> Iterator[tuple[range, bool]]:
    """Return the chunks at the sectors ``chunks`` in parts, and whether a part is known to be zero."""
    first, done = chunks.start, 0
    for start, length in image.known_zeros(first * SECTOR_SIZE, len(chunks) * CHUNK_SIZE):
        low = -(-(start // SECTOR_SIZE - first) // CHUNK_SECTORS)
        high = ((start + length) // SECTOR_SIZE - first) // CHUNK_SECTORS
        if low < high:
            if done < low:
                yield chunks[done:low], False
            yield chunks[low:high], True
            done = high
    if done < len(chunks):
        yield chunks[done:], False


def unplaceable(
    image: Readable, *, on_grid: bool, open_ended: bool = False
) -> Iterator[tuple[int, int]]:
    """Return the :func:`regions` that records cannot carry, on the grid of chunks or at any sector.

    ``open_ended``: the disk may be larger than the image.
    """
    total = None if open_ended else image.size // SECTOR_SIZE
    for start, end in regions(image):
        if on_grid:
            fits = start % CHUNK_SECTORS == 0 and (end == total or end % CHUNK_SECTORS == 0)
        else:
            fits = end == total or end - start >= CHUNK_SECTORS
        if not fits:
            yield start, end
