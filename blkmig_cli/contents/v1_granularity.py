"""Narrowing the granularity of a coarse v1 bitmap by the words that its records repeat.

Eight bytes of bits per chunk mean 16 KiB or more.  From 32 KiB on, one word covers several chunks,
so that their records repeat it.  A granularity is excluded if the records contradict it:

- a bit that was set is clear in a later record of the same word;
- a bit appears in a later record of the same word, though no chunk that it covers was sent
  since (a write that sets the bit dirties the chunk, and a dirty chunk is sent again);
- a bit lies past the disk's end.
"""

from array import array
from collections.abc import Iterator
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas.block import first_word
from blkmig_cli.schemas.constants import (
    CHUNK_SECTORS,
    CHUNK_SIZE,
    SECTOR_SIZE,
    WORD_BITS,
    WORD_SIZE,
)

# Words whose bits are examined together.
_BATCH = 1 << 14


@dataclass(slots=True)
class Observations:
    """The records of a bitmap of unknown granularity, in stream order: sectors, and raw bits."""

    sectors: "array[int]" = field(default_factory=lambda: array("Q"))
    lengths: "array[int]" = field(default_factory=lambda: array("H"))
    bits: bytearray = field(default_factory=bytearray)

    def add(self, sector: int, bits: memoryview) -> None:
        """Add a record."""
        self.sectors.append(sector)
        self.lengths.append(len(bits))
        self.bits += bits

    def add_rows(self, sectors: NDArray[np.int64], bits: NDArray[np.uint8]) -> None:
        """Add a record for each of ``sectors``, with its row of ``bits``: shape (rows, bytes)."""
        rows, length = bits.shape
        self.sectors.frombytes(sectors.astype(np.uint64).tobytes())
        self.lengths.extend(array("H", [length]) * rows)
        self.bits += bits.tobytes()

    def numbers(self) -> NDArray[np.int64]:
        """Return the sectors of all records, in stream order: int64, shape (records,)."""
        return np.frombuffer(self.sectors, np.int64)

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Yield sectors and bits, shape (rows, bytes), of consecutive records of equal length."""
        sectors = np.frombuffer(self.sectors, np.int64)
        lengths = np.frombuffer(self.lengths, np.uint16)
        begin = at = 0
        for end in [*(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]:
            if begin < end:
                size = (end - begin) * int(lengths[begin])
                bits = np.frombuffer(self.bits, np.uint8, size, at)
                yield sectors[begin:end], bits.reshape(end - begin, -1)
                begin, at = end, at + size

    def narrow(self, candidates: list[int], size: int | None) -> list[int]:
        """Return those ``candidates`` (granularities in bytes) that the records do not contradict.

        ``size`` is the most bytes that the disk can have, if known.
        """
        if np.any(np.frombuffer(self.lengths, np.uint16) != WORD_SIZE):
            return candidates
        words = np.frombuffer(self.bits, "<u8")
        sectors = np.frombuffer(self.sectors, np.int64)
        return [g for g in candidates if _possible(g, sectors, words, size)]


def _possible(
    granularity: int,
    sectors: NDArray[np.int64],
    words: NDArray[np.uint64],
    size: int | None,
) -> bool:
    index = sectors // (WORD_BITS * granularity // SECTOR_SIZE)
    if size is not None and _bits_past(granularity, index, words, size):
        return False
    # Records of the same word, each with the next one: mostly, they are adjacent.
    order = None
    if np.any(index[1:] < index[:-1]):
        order = np.argsort(index, kind="stable")
        index, words = index[order], words[order]
    same = index[1:] == index[:-1]
    if np.any(same & (words[:-1] & ~words[1:] != 0)):
        return False
    grown = np.flatnonzero(same & (words[1:] & ~words[:-1] != 0))
    if not len(grown) or WORD_BITS * granularity < CHUNK_SIZE or np.any(sectors % CHUNK_SECTORS):
        return True  # off the grid, a record covers parts of two chunks
    # The last record of each chunk, or of each granule where that is larger.
    unit = max(granularity, CHUNK_SIZE) // SECTOR_SIZE
    units = WORD_BITS * granularity // SECTOR_SIZE // unit  # in a word
    places, behind = np.unique(sectors[::-1] // unit, return_index=True)
    last = len(sectors) - 1 - behind
    for begin in range(0, len(grown), _BATCH):
        at = grown[begin : begin + _BATCH]
        new = words[at + 1] & ~words[at]
        bits = np.unpackbits(new.view(np.uint8), bitorder="little")
        some = np.flatnonzero(bits.reshape(len(at) * units, -1).any(axis=1))
        row = some // units
        wanted = index[at[row]] * units + some % units
        found = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
        sent = np.where(places[found] == wanted, last[found], -1)
        before = at if order is None else order[at]
        if np.any(sent <= before[row]):
            return False
    return True


def _bits_past(
    granularity: int,
    index: NDArray[np.int64],
    words: NDArray[np.uint64],
    size: int,
) -> bool:
    last_granule = -(-size // granularity) - 1
    last_word = first_word(last_granule * granularity // SECTOR_SIZE, granularity)
    if np.any(words[index > last_word]):
        return True
    keep = (1 << (last_granule % WORD_BITS + 1)) - 1
    return bool(np.any(words[index == last_word] & np.uint64(~keep & (1 << WORD_BITS) - 1)))
