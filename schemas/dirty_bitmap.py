"""Chunks of the ``dirty-bitmap`` section, version 1 (QEMU 2.12 and later).

Source: QEMU 7.2, migration/block-dirty-bitmap.c (dirty_bitmap_load_header, dirty_bitmap_load_start,
dirty_bitmap_load_bits).
"""

from typing import Any

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

#: 0x80 announces another flag byte, and 0x80 in that one two more; QEMU uses the last byte only
#: (QEMU 7.2, migration/block-dirty-bitmap.c: qemu_get_bitmap_flags).
ChunkFlags = Struct("flags" / Int8ub)
MoreFlags = Struct("flags" / Int16ub)

#: The alias of a device or a bitmap; omitted where it is that of the preceding chunk.
Alias = Struct("name" / CountedString)

#: Granularity in bytes, and the flags of the bitmap.  (The comment at the top of QEMU's source file
#: states a be64; dirty_bitmap_load_start reads a be32.)
Start = Struct("granularity" / Int32ub, "flags" / Int8ub)

#: The range, in sectors; unless ZEROES, the length of the bits and the bits follow.
Range = Struct("sector" / Int64ub, "sectors" / Int32ub)
BitsLength = Struct("length" / Int64ub)


def bits_length(sectors: Any, granularity: int) -> Any:
    """Return the exact length in bytes of the bits of ``sectors`` (a number, or an array of them)."""
    granules = -(-sectors * SECTOR_SIZE // granularity)
    return -(-granules // WORD_BITS) * WORD_SIZE


def padded_length(length: Any) -> Any:
    """Return the greatest accepted length in bytes of bits of which ``length`` (or each) is exact."""
    return -(-length // DIRTY_BITMAP_BITS_ALIGN) * DIRTY_BITMAP_BITS_ALIGN


def granularity_fault(granularity: int) -> str | None:
    """Return why ``granularity`` in bytes is invalid, or None if it is valid."""
    if granularity & (granularity - 1) or not GRANULARITY_MIN <= granularity <= GRANULARITY_MAX:
        return f"granularity {granularity} is not a power of two from 512 bytes to 2 GiB"
    return None
