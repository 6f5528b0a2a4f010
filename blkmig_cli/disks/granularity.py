"""The granularity of dirty bitmaps: the bytes of a granule, a power of two."""

import math
from collections.abc import Iterable

from blkmig_cli.schemas.constants import SECTOR_SIZE

#: QEMU's default in bytes (QEMU 7.2, block.c: bdrv_get_default_bitmap_granularity).
GRANULARITY = 1 << 16


def granularity_of(ranges: Iterable[tuple[int, int]], size: int) -> int:
    """Return a granularity, in bytes, for dirty ``ranges`` (start, length) of a disk of ``size`` bytes.

    For a source that does not tell it: it is the largest one, up to QEMU's default, in which the ranges are
    whole granules.
    """
    found = GRANULARITY
    for start, length in ranges:
        for edge in (start, start + length):
            if edge != size:
                found = math.gcd(found, edge)
    return max(found, SECTOR_SIZE)
