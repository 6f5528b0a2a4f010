"""A dirty bitmap: granules whose size is a power of two of bytes, each clean or dirty.

Bit ``i`` of the map is bit ``i % 8`` of byte ``i // 8``, as in a stream, which has little-endian 64-bit
words (QEMU 7.2, util/hbitmap.c: hbitmap_serialize_part).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.disks.bitmap_words import Bits, Room, Words, WordStore
from blkmig_cli.errors import LimitError
from blkmig_cli.ranges import tiles
from blkmig_cli.schemas.constants import WORD_BITS, WORD_SIZE

# Words whose runs are found at once.
_WORDS_MAX = 1 << 12
_PIECE = 1 << 13  # words that are hashed or read at once


@dataclass(slots=True, eq=False)
class DirtyBitmap:
    """A named bitmap.

    ``granularity`` is in bytes.  ``recording`` is QEMU's "enabled".  The disk's size is not part
    of it: where it matters, it is an argument, in bytes.  Methods that make granules dirty raise
    LimitError where ``room``, which bitmaps may share, is exhausted.
    """

    name: str
    granularity: int
    recording: bool = True
    persistent: bool = False
    room: InitVar[Room | None] = None
    _words: WordStore = field(init=False, repr=False)

    def __post_init__(self, room: Room | None) -> None:
        self._words = WordStore(Room() if room is None else room)

    def write_words(self, first_word: int, data: bytes | memoryview) -> None:
        """Replace the words from ``first_word`` on by ``data``, packed bits as in a stream."""
        self._words.write(first_word, data)

    def write_rows(self, first_words: NDArray[np.int64], rows: Bits) -> None:
        """Write each of ``rows``, shape (rows, bytes), in order, as :meth:`write_words` does."""
        kept = last_of_each(first_words)
        first_words, rows = first_words[kept], rows[kept]
        for tile in tiles(first_words, rows.shape[1] // WORD_SIZE):
            words = first_words[tile]
            self.write_words(int(words.min()), ascending(words, rows[tile]).tobytes())

    def write_granules(self, first: int, count: int, data: bytes | memoryview) -> None:
        """Replace ``count`` granules from ``first`` by those in ``data``.

        ``data`` begins at the word that holds ``first``; its bits outside are ignored.
        Empty ``data`` clears the granules.
        """
        if count <= 0:
            return
        if not len(data):
            self._change(first, count, dirty=False)
            return
        start, words, partial = _words_of(first, count)
        new = bytearray(data[: words * WORD_SIZE])
        for number, mask in partial:
            at = (number - start) * WORD_SIZE
            new[at : at + WORD_SIZE] = self._merged(number, new[at : at + WORD_SIZE], mask)
        self._words.write(start, new)

    def set_range(self, start: int, length: int) -> None:
        """Make every granule dirty that overlaps ``length`` bytes from byte ``start``.

        Raises LimitError where ``room`` is exhausted.
        """
        if length > 0:
            first = start // self.granularity
            last = (start + length - 1) // self.granularity
            self._change(first, last - first + 1, dirty=True)

    def _change(self, first: int, count: int, *, dirty: bool) -> None:
        """Make granules dirty, or clean."""
        if not dirty:
            start = first // WORD_BITS
            if self._words.is_clean(start, (first + count - 1) // WORD_BITS - start + 1):
                return
        start, words, partial = _words_of(first, count)
        for number, mask in partial:
            self._words.write(number, self._merged(number, _ONES if dirty else _ZERO, mask))
            start += number == start
        words -= len(partial)
        if words:
            (self._words.fill if dirty else self._words.clear)(start, words)

    def _merged(self, number: int, new: bytes | bytearray, mask: int) -> bytes:
        """Return word ``number`` with the bits of ``new`` where ``mask`` has ones."""
        old = int(self._words.read(number, 1)[0])
        merged = old & ~mask | int.from_bytes(new, "little") & mask
        return merged.to_bytes(WORD_SIZE, "little")

    def words(self, first_word: int, count: int) -> Bits:
        """Return ``count`` words from ``first_word`` as packed bits: uint8, shape (8 * count,)."""
        return self._words.read(first_word, count).view(np.uint8)

    def packed(self, first_word: int, count: int) -> bytes:
        """Return the bytes of ``count`` words from ``first_word``; none where all are clean."""
        if self._words.is_clean(first_word, count):
            return b""
        bits = self._words.read(first_word, count).tobytes()
        return bits if bits.count(0) != len(bits) else b""

    def bits(self, size: int, start: int = 0) -> NDArray[np.bool_]:
        """Return which granules are dirty from byte ``start`` of a disk of ``size`` bytes.

        Shape (granules,), bool; the first is granule ``start // granularity``.  Raises LimitError
        for more than ``limits.BITS_MAX`` granules.
        """
        first, end = start // self.granularity, -(-size // self.granularity)
        count = max(end - first, 0)
        if count > limits.BITS_MAX:
            raise LimitError(f"over {limits.BITS_MAX} granules at once")
        found = np.empty(count, np.bool_)
        at = 0
        while at < count:
            word, skip = divmod(first + at, WORD_BITS)
            words = self.words(word, min(_PIECE, -(-(skip + count - at) // WORD_BITS)))
            piece = np.unpackbits(words, bitorder="little")[skip : skip + count - at]
            found[at : at + len(piece)] = piece
            at += len(piece)
        return found

    def granule_runs(self) -> NDArray[Any]:
        """Return the runs of dirty granules, ascending and not adjacent: shape (runs, 2), first and count.

        int64 where the last byte of the last granule fits in it, else Python integers.
        """
        runs = self._wide(np.concatenate([np.empty((0, 2), np.int64), *self._runs()]))
        runs[:, 1] -= runs[:, 0]
        return runs

    def range_parts(self, size: int | None) -> Iterator[NDArray[Any]]:
        """Yield the ranges up to ``size`` bytes in parts, each of shape (ranges, 2): start and end.

        int64, or Python integers as in :meth:`granule_runs`.
        """
        for runs in self._runs():
            part = self._wide(runs) * self.granularity
            if size is not None and size < int(part[-1, 1]):
                part = np.minimum(part, size)
            part[:, 1] -= part[:, 0]
            inside = part[part[:, 1] > 0]
            if len(inside):
                yield inside

    def ranges(self, size: int | None = None) -> list[tuple[int, int]]:
        """Return the dirty ranges (start, length) in bytes: complete granules, clipped at ``size``."""
        return [
            (start, length) for part in self.range_parts(size) for start, length in part.tolist()
        ]

    def count(self, size: int | None = None) -> int:
        """Return the number of dirty bytes, the last granule clipped at ``size`` bytes."""
        if size is None:
            return self.granularity * sum(_ones(words) for _, words in self._words.parts())
        whole, rest = divmod(size, self.granularity)
        word, inside = divmod(whole, WORD_BITS)
        last = int(self._words.read(word, 1)[0])
        granules = sum(_ones(words) for _, words in self._words.parts(word))
        granules += (last & (1 << inside) - 1).bit_count()
        return granules * self.granularity + (last >> inside & 1) * rest

    def same(self, other: "DirtyBitmap", size: int | None = None) -> bool:
        """Return whether the same bytes are dirty in ``other``, up to byte ``size``."""
        if self.granularity == other.granularity and self._words.equals(other._words):
            return True
        ours, theirs = (
            chain.from_iterable(part.tolist() for part in bitmap.range_parts(size))
            for bitmap in (self, other)
        )
        return all(one == another for one, another in zip_longest(ours, theirs))

    def digest_size(self, size: int) -> int:
        """Return the bytes that :meth:`sha256` hashes for a disk of ``size`` bytes."""
        granules = -(-size // self.granularity)
        return -(-granules // WORD_BITS) * WORD_SIZE

    def sha256(self, size: int) -> str:
        """Return the digest of a disk of ``size`` bytes, as QMP's x-debug-block-dirty-bitmap-sha256.

        It is that of all words (QEMU 7.2, util/hbitmap.c: hbitmap_sha256).  Raises LimitError for
        more than ``limits.BITS_MAX`` bytes of words.
        """
        words = self.digest_size(size) // WORD_SIZE
        if words * WORD_SIZE > limits.BITS_MAX:
            raise LimitError(f"a bitmap of over {limits.BITS_MAX >> 20} MiB of bits")
        found = hashlib.sha256()
        for at in range(0, words, _PIECE):
            found.update(self.words(at, min(_PIECE, words - at)).data)
        return found.hexdigest()

    def end(self) -> int:
        """Return the byte after the last dirty granule; 0 if there is none."""
        number = self._words.end - 1
        if number < 0:
            return 0
        bits = int(self._words.read(number, 1)[0]).bit_length()
        return (number * WORD_BITS + bits) * self.granularity

    def _runs(self) -> Iterator[NDArray[np.int64]]:
        """Yield the runs of dirty granules in parts, ascending and not adjacent: first, last + 1."""
        held = np.empty((0, 2), np.int64)
        for numbers, words in self._word_parts():
            runs = np.stack(_edges(numbers, words), axis=1)
            if len(held) and held[0, 1] == runs[0, 0]:
                runs[0, 0] = held[0, 0]
            elif len(held):
                runs = np.concatenate([held, runs])
            # The last run may continue in the next part.
            held = runs[-1:]
            if len(runs) > 1:
                yield runs[:-1]
        if len(held):
            yield held

    def _word_parts(self) -> Iterator[tuple[NDArray[np.int64], Words]]:
        """Yield what ``WordStore.parts`` yields, few words at once, as each may have many runs."""
        for numbers, words in self._words.parts():
            for at in range(0, len(words), _WORDS_MAX):
                yield numbers[at : at + _WORDS_MAX], words[at : at + _WORDS_MAX]

    def _wide(self, granules: NDArray[np.int64]) -> NDArray[Any]:
        """Return ``granules``, as Python integers where their offsets in bytes do not fit in int64."""
        far = granules.size and int(granules.max()) * self.granularity >= 1 << 63
        return granules.astype(object) if far else granules


_ZERO, _ONES = bytes(WORD_SIZE), b"\xff" * WORD_SIZE
_ALL = (1 << WORD_BITS) - 1


def _words_of(first: int, count: int) -> tuple[int, int, list[tuple[int, int]]]:
    """Return the words of granules: first, number, and those covered partly, each with a mask."""
    start, low = divmod(first, WORD_BITS)
    last, high = divmod(first + count - 1, WORD_BITS)
    masks = {start: _ALL << low & _ALL}
    masks[last] = masks.get(last, _ALL) & _ALL >> WORD_BITS - 1 - high
    partial = [(number, mask) for number, mask in masks.items() if mask != _ALL]
    return start, last - start + 1, partial


def _edges(numbers: NDArray[np.int64], words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the starts and ends (last + 1) of all runs of bits in the words ``numbers``, ascending."""
    one, top = np.uint64(1), np.uint64(WORD_BITS - 1)
    follows = np.append(False, numbers[1:] == numbers[:-1] + 1)
    before = np.roll(words, 1) >> top & follows
    after = (np.roll(words, -1) & np.roll(follows, -1)) << top
    firsts = words & ~(words << one | before)
    lasts = words & ~(words >> one | after)
    return _places(numbers, firsts), _places(numbers, lasts) + 1


def _places(numbers: NDArray[np.int64], words: Words) -> NDArray[np.int64]:
    """Return the numbers of all set bits in the words ``numbers``, ascending."""
    some = np.flatnonzero(words)
    bits = np.flatnonzero(np.unpackbits(words[some].view(np.uint8), bitorder="little"))
    places: NDArray[np.int64] = numbers[some[bits // WORD_BITS]] * WORD_BITS + bits % WORD_BITS
    return places


def _ones(words: Words) -> int:
    """Return how many bits are set."""
    return int.from_bytes(words.tobytes(), "little").bit_count()


def last_of_each(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of ``keys`` are the last in a sequence of equal ones: shape (keys,)."""
    return np.append(keys[1:] != keys[:-1], True)


def ascending(keys: NDArray[np.int64], rows: NDArray[Any]) -> NDArray[Any]:
    """Return ``rows`` in ascending order of ``keys``, which only increase or only decrease."""
    return rows[::-1] if keys[0] > keys[-1] else rows
