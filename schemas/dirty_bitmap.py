"""Chunks of the ``dirty-bitmap`` section (QEMU 2.12 and later), version 1."""

from construct import Int8ub, Int16ub, Int32ub, Int64ub, Struct

from .constants import (
    DIRTY_BITMAP_BITS_ALIGN,
    GRANULARITY_MAX,
    GRANULARITY_MIN,
    SECTOR_SIZE,
    WORD_BITS,
    WORD_SIZE,
)
from .framing import CountedString

#: 0x80 announces another flag byte, and 0x80 there two more; QEMU then uses the last byte alone.
ChunkFlags = Struct("flags" / Int8ub)
MoreFlags = Struct("flags" / Int16ub)

#: The alias of a device or a bitmap; left out where it is that of the chunk before.
Alias = Struct("name" / CountedString)

#: Granularity in bytes, flags of the bitmap.  (A comment in QEMU calls the granularity a be64.)
Start = Struct("granularity" / Int32ub, "flags" / Int8ub)

#: The range, in sectors; unless ZEROES, the length of the bits and the bits follow.
Range = Struct("sector" / Int64ub, "sectors" / Int32ub)
BitsLength = Struct("length" / Int64ub)


def bits_lengths(sectors: int, granularity: int) -> range:
    """Lengths in bytes that the bits of ``sectors`` sectors may have, the exact one first."""
    granules = -(-sectors * SECTOR_SIZE // granularity)
    exact = -(-granules // WORD_BITS) * WORD_SIZE
    padded = -(-exact // DIRTY_BITMAP_BITS_ALIGN) * DIRTY_BITMAP_BITS_ALIGN
    return range(exact, padded + 1)


def granularity_fault(granularity: int) -> str | None:
    """Why ``granularity`` in bytes is none, or None."""
    if granularity & (granularity - 1) or not GRANULARITY_MIN <= granularity <= GRANULARITY_MAX:
        return f"granularity {granularity} is no power of two from 512 bytes to 2 GiB"
    return None
