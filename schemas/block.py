"""Block records: the payload of the ``block`` section, in three dialects.

The classic dialect is that of QEMU 0.12 to 9.0 (QEMU 7.2, migration/block.c: blk_send, block_load).

A record is a word, then (for DEVICE_BLOCK) the device name, then what the dialect adds, then the
data.  ``dialects.py`` selects the pieces of a record; this module defines each piece.
"""

from construct import Int8ub, Int32ub, Int64ub, Struct

from .constants import (
    BLOCK_FLAG_BITS,
    BLOCK_FLAG_MASK,
    CHUNK_SIZE,
    SECTOR_SIZE,
    WORD_BITS,
    WORD_SIZE,
)
from .framing import CountedString

#: ``(sector << 9) | flags``, or ``(percent << 9) | flags``: see :func:`split_word`.
RecordWord = Struct("word" / Int64ub)

DeviceName = Struct("device" / CountedString)

#: v1, after the device name if HAS_BITMAPS.
V1BitmapCount = Struct("count" / Int32ub)

#: v1, one per bitmap; the bits follow with no length on the wire: see :func:`v1_words`.
V1BitmapHead = Struct("name" / CountedString)

#: v2, after the device name if HAS_BITMAPS: sectors covered, number of bitmaps.
V2Range = Struct("sectors" / Int32ub, "count" / Int32ub)

#: v2, one per bitmap; ``length`` bytes of bits follow.
V2BitmapHead = Struct(
    "name" / CountedString, "flags" / Int8ub, "granularity" / Int32ub, "length" / Int32ub
)

#: Possible bytes of bits per full chunk in v1; 8 stands for every granularity of 16 KiB or more.
V1_FULL_LENGTHS = (8, 16, 32, 64, 128, 256)


def split_word(word: int) -> tuple[int, int]:
    """Return the upper bits (sector or percentage) and the flags of a record's word."""
    return word >> BLOCK_FLAG_BITS, word & BLOCK_FLAG_MASK


def join_word(upper: int, flags: int) -> int:
    """Return the word of ``upper`` bits and ``flags``, as a plain int: the inverse of :func:`split_word`."""
    # The | of an IntFlag would create a new member for every word, and cache it permanently.
    return upper << BLOCK_FLAG_BITS | int(flags)


def v1_words(sectors: int, granularity: int) -> int:
    """Return the number of 64-bit words in a v1 record of ``sectors``; ``granularity`` is in bytes."""
    return (sectors * SECTOR_SIZE - 1) // granularity // WORD_BITS + 1


def v1_granularity(full_length: int) -> int | None:
    """Return the granularity in bytes for which a full chunk has ``full_length`` bytes of bits.

    None for 8 bytes, which every granularity of 16 KiB or more gives.
    """
    return None if full_length == WORD_SIZE else CHUNK_SIZE // (8 * full_length)


def v1_full_length(granularity: int) -> int:
    """Return the number of bytes of bits per full chunk at ``granularity`` bytes."""
    return WORD_SIZE * v1_words(CHUNK_SIZE // SECTOR_SIZE, granularity)


def first_word(sector: int, granularity: int) -> int:
    """Return the index of the bitmap word that holds the granule of ``sector``."""
    return sector * SECTOR_SIZE // granularity // WORD_BITS


def v2_words(sector: int, sectors: int, granularity: int) -> int:
    """Return the number of bitmap words that cover any of ``[sector, sector + sectors)``."""
    return first_word(sector + sectors - 1, granularity) - first_word(sector, granularity) + 1
