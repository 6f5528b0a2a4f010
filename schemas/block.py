"""Block records: the payload of the ``block`` section, in three dialects.

A record is a word, then (for DEVICE_BLOCK) the device name, then what the dialect adds, then the
data.  ``dialects.py`` says which pieces a record has; this module says what each piece is.
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

#: Bytes of bits that a full chunk can have in v1, one for each granularity up to 16 KiB and above.
V1_FULL_LENGTHS = (8, 16, 32, 64, 128, 256)


def split_word(word: int) -> tuple[int, int]:
    """The upper bits (sector or percentage) and the flags of a record's word."""
    return word >> BLOCK_FLAG_BITS, word & BLOCK_FLAG_MASK


def join_word(upper: int, flags: int) -> int:
    """The inverse of :func:`split_word`; a plain number, whatever kind of flags it is made of."""
    # An IntFlag's own | would make a new member of every word, and keep it for ever.
    return upper << BLOCK_FLAG_BITS | int(flags)


def v1_words(sectors: int, granularity: int) -> int:
    """64-bit words of bits in a v1 record of ``sectors`` sectors, ``granularity`` in bytes."""
    return (sectors * SECTOR_SIZE - 1) // granularity // WORD_BITS + 1


def v1_granularity(full_length: int) -> int | None:
    """Granularity in bytes that ``full_length`` bytes of bits per full chunk mean.

    None for 8 bytes, which mean 16 KiB or anything above.
    """
    return None if full_length == WORD_SIZE else CHUNK_SIZE // (8 * full_length)


def v1_full_length(granularity: int) -> int:
    """Bytes of bits that a full chunk has at ``granularity`` bytes."""
    return WORD_SIZE * v1_words(CHUNK_SIZE // SECTOR_SIZE, granularity)


def first_word(sector: int, granularity: int) -> int:
    """Index in the whole bitmap of the word that holds the granule of ``sector``."""
    return sector * SECTOR_SIZE // granularity // WORD_BITS


def v2_words(sector: int, sectors: int, granularity: int) -> int:
    """Words on the whole bitmap's grid that touch ``[sector, sector + sectors)``."""
    return first_word(sector + sectors - 1, granularity) - first_word(sector, granularity) + 1
