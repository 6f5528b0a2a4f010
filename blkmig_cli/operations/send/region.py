"""The sectors of records that carry exactly one region of a disk.

A record carries a chunk of 1 MiB.  The dialects classic and qemu allow it at any sector, v1 and v2 only
on the grid of chunks.  Parts without records remain unchanged at the destination, so a record must not
reach beyond the part that is known.  All numbers are sectors.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.image import Readable
from blkmig_cli.schemas.constants import CHUNK_SECTORS, CHUNK_SIZE, SECTOR_SIZE

if TYPE_CHECKING:
    from blkmig_cli.wire.runs.columns import Numbers


@dataclass(frozen=True, slots=True)
class Placed:
    """The sectors of records, ascending: chunk by chunk, or (an array) whole chunks of zeros at any.

    ``zero``: they are known to be zeros.  ``since``: all from that sector on is carried as well.
    """

    sectors: "range | Numbers"
    zero: bool
    since: int


def placed_region(image: Readable, start: int, end: int, total: int | None) -> Iterator[Placed]:
    """Return the records that carry the region [start, end) of ``image``."""
    for chunks in places(start, end, total):
        for part, zero in split_by_zeros(image, chunks):
            yield Placed(part, zero, start)


def places(start: int, end: int, total: int | None) -> Iterator[range]:
    """Return the sectors of records that together carry [start, end) of a disk of ``total`` sectors.

    They come as ranges, chunk by chunk.  ``total`` None: the disk may end anywhere behind.  The range
    must not be ``places.unplaceable``.
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
