"""The sectors of records that carry many regions of a disk: those of zeros in one step, as arrays.

All numbers are sectors.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.disks.image import Readable
from blkmig_cli.operations.send.region import Placed, placed_region
from blkmig_cli.ranges import Table
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE

# The most chunks of a region of zeros that is one of many.
_FEW = 64
# Regions that are placed at once.
_BATCH = 1 << 16


def placed_many(
    image: Readable, regions: Iterable[tuple[int, int]], total: int | None
) -> Iterator[Placed]:
    """Return what ``region.placed_region`` does for each of ``regions`` (start, end), ascending."""
    table = _table(regions)
    zeros = _known_zeros(image)
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
                yield from placed_region(image, start, end, total)


def _whole_chunks(table: Table) -> NDArray[np.int64]:
    """Return what ``region.places`` gives for each of ``table``, none of which the disk's end cuts."""
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


def _table(ranges: Iterable[tuple[int, int]]) -> Table:
    """Return ``ranges`` as rows."""
    return np.fromiter(chain.from_iterable(ranges), np.int64).reshape(-1, 2)


def _known_zeros(image: Readable) -> Table:
    """Return the sectors of ``image`` that are known to be zeros as (start, end), ascending, joined."""
    ranges = _table(image.known_zeros(0, image.size))
    low = -(-ranges[:, 0] // SECTOR_SIZE)
    high = (ranges[:, 0] + ranges[:, 1]) // SECTOR_SIZE
    some = low < high
    low, high = low[some], np.maximum.accumulate(high[some])
    first = np.append(True, low[1:] > high[:-1])[: len(low)]
    last = np.append(first[1:], True)[: len(low)]
    table: Table = np.stack((low[first], high[last]), axis=1)
    return table
