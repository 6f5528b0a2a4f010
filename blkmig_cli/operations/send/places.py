"""The sectors of records that carry exactly a part of a disk.

A record carries a chunk of 1 MiB.  The dialects classic and qemu allow it at any sector, v1 and v2 only
on the grid of chunks.  Parts without records remain unchanged at the destination, so a record must not
reach beyond the part that is known.  All numbers are sectors.
"""

from collections.abc import Iterator
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.image import Readable
from blkmig_cli.ranges import Table
from blkmig_cli.schemas.constants import CHUNK_SECTORS, CHUNK_SIZE, SECTOR_SIZE

# The most chunks of a region of zeros that is one of many.
_FEW = 64
# Regions that are placed at once.
_BATCH = 1 << 16


@dataclass(frozen=True, slots=True)
class Placed:
    """The sectors of records, ascending: chunk by chunk, or (an array) whole chunks of zeros at any.

    ``zero``: they are known to be zeros.  ``since``: all from that sector on is carried as well.
    """

    sectors: range | NDArray[np.int64]
    zero: bool
    since: int


def placed(image: Readable, total: int | None) -> Iterator[Placed]:
    """Return the records that carry the :func:`regions` of ``image``; ``total`` as in :func:`places`."""
    table = regions(image)
    zeros = _joined(_table(image.known_zeros(0, image.size)), inwards=True)
    for first in range(0, len(table), _BATCH):
        batch = table[first : first + _BATCH]
        at = np.searchsorted(zeros[:, 0], batch[:, 0], "right") - 1
        lengths = batch[:, 1] - batch[:, 0]
        few = (lengths >= CHUNK_SECTORS) & (lengths <= _FEW * CHUNK_SECTORS)
        few &= at >= 0
        few[few] = zeros[at[few], 1] >= batch[few, 1]
        if total is not None and total % CHUNK_SECTORS:
            few &= batch[:, 1] != total
        edges = np.flatnonzero(np.diff(few)) + 1
        for low, high in pairwise([0, *edges.tolist(), len(batch)]):
            if few[low]:
                yield Placed(_whole_chunks(batch[low:high]), zero=True, since=int(batch[low, 0]))
                continue
            for start, end in batch[low:high].tolist():
                for chunks in places(start, end, total):
                    for part, zero in split_by_zeros(image, chunks):
                        yield Placed(part, zero, start)


def _whole_chunks(table: Table) -> NDArray[np.int64]:
    """Return what :func:`places` gives for each of ``table``, none of which the disk's end cuts."""
    start, end = table[:, 0], table[:, 1]
    grid = -(-start // CHUNK_SECTORS) * CHUNK_SECTORS
    behind = end // CHUNK_SECTORS * CHUNK_SECTORS
    head = (start < grid).astype(np.int64)
    body = np.maximum(behind - grid, 0) // CHUNK_SECTORS
    number = head + body + ((start < end - CHUNK_SECTORS) & (behind < end))
    owner = np.repeat(np.arange(len(table)), number)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(number) - number, number) - head[owner]
    found: NDArray[np.int64] = grid[owner] + within * CHUNK_SECTORS
    found[within < 0] = start[owner[within < 0]]
    last = within >= body[owner]
    found[last] = end[owner[last]] - CHUNK_SECTORS
    return found


def regions(image: Readable) -> Table:
    """Return the extents of ``image`` as (start, end), ascending; adjacent ones are joined."""
    return _joined(_table(image.extents()))


def _table(ranges: Iterator[tuple[int, int]]) -> Table:
    """Return ``ranges``, each a start and a length, as rows of start and end."""
    table: Table = np.fromiter(chain.from_iterable(ranges), np.int64).reshape(-1, 2)
    table[:, 1] += table[:, 0]
    return table


def _joined(ranges: Table, *, inwards: bool = False) -> Table:
    """Return ``ranges`` of bytes, ascending, in sectors; adjacent ones are joined.

    They are rounded outwards or ``inwards``, in place.
    """
    up, down = (0, 1) if inwards else (1, 0)
    ranges[:, down] //= SECTOR_SIZE
    ranges[:, up] = -(-ranges[:, up] // SECTOR_SIZE)
    ranges = ranges[ranges[:, 0] < ranges[:, 1]]
    low, high = ranges[:, 0], np.maximum.accumulate(ranges[:, 1])
    first = np.append(True, low[1:] > high[:-1])[: len(low)]
    last = np.append(first[1:], True)[: len(low)]
    table: Table = np.stack((low[first], high[last]), axis=1)
    return table


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


def unplaceable(image: Readable, *, on_grid: bool, open_ended: bool = False) -> Table:
    """Return the :func:`regions` that records cannot carry, on the grid of chunks or at any sector.

    ``open_ended``: the disk may be larger than the image.
    """
    total = -1 if open_ended else image.size // SECTOR_SIZE
    table = regions(image)
    start, end = table[:, 0], table[:, 1]
    if on_grid:
        fits = (start % CHUNK_SECTORS == 0) & ((end == total) | (end % CHUNK_SECTORS == 0))
    else:
        fits = (end == total) | (end - start >= CHUNK_SECTORS)
    apart: Table = table[~fits]
    return apart
