"""A dirty bitmap: granules of a power of two of bytes, each clean or dirty.

Kept sparsely, in segments of packed bits that exist only where something is dirty: memory follows
what is dirty, not the disk's size nor what a stream claims.  Bit ``i`` of the map is bit ``i % 8``
of byte ``i // 8``, which is how little-endian 64-bit words put it on the wire.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import LimitError
from blkmig_cli.ranges import tiles
from blkmig_cli.schemas.constants import WORD_BITS, WORD_SIZE

# Bytes of packed bits: few enough that bits strewn over a huge disk take little memory each.
_SEGMENT = 1 << 13
_SEGMENT_BITS = 8 * _SEGMENT

Bits = NDArray[np.uint8]


@dataclass(slots=True)
class Room:
    """Memory for the bits of some bitmaps together: ``left`` bytes of it are left."""

    left: int = limits.BITS_MAX

    def take(self, size: int) -> None:
        """Take ``size`` bytes; raises LimitError where there are not so many."""
        if size > self.left:
            raise LimitError(f"bitmaps of over {limits.BITS_MAX >> 20} MiB of bits")
        self.left -= size


@dataclass(slots=True)
class DirtyBitmap:
    """A named bitmap.

    ``granularity`` is in bytes.  ``recording`` is QEMU's "enabled".  The disk's size is not part
    of it: where it matters, it is an argument, in bytes.  Whatever makes granules dirty raises
    LimitError where ``room``, which bitmaps may share, is used up.
    """

    name: str
    granularity: int
    recording: bool = True
    persistent: bool = False
    room: Room = field(default_factory=Room, repr=False, compare=False)
    _segments: dict[int, Bits] = field(default_factory=dict)

    def write_words(self, first_word: int, data: bytes | memoryview) -> None:
        """Replace whole words from word ``first_word`` by ``data``, packed bits as on the wire."""
        self._write(first_word * WORD_SIZE, np.frombuffer(data, np.uint8))

    def write_rows(self, first_words: NDArray[np.int64], rows: Bits) -> None:
        """:meth:`write_words` of each of ``rows``, shape (rows, bytes), in their order."""
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
        start_word = first // WORD_BITS
        words = (first + count - 1) // WORD_BITS - start_word + 1
        if not len(data):
            self._clear(first, count)
            return
        new = np.frombuffer(data, np.uint8, words * WORD_SIZE).copy()
        # Only the first and last word hold granules that are not ours.
        old = self.words(start_word, 1), self.words(start_word + words - 1, 1)
        low = first - start_word * WORD_BITS
        high = low + count
        _merge(new[:WORD_SIZE], old[0], low, min(high, WORD_BITS))
        base = (words - 1) * WORD_BITS
        _merge(new[-WORD_SIZE:], old[1], max(low - base, 0), high - base)
        self._write(start_word * WORD_SIZE, new)

    def words(self, first_word: int, count: int) -> Bits:
        """``count`` words from ``first_word`` as packed bits: uint8, shape (8 * count,)."""
        out = np.zeros(count * WORD_SIZE, np.uint8)
        for segment, start, stop, at in _pieces(first_word * WORD_SIZE, len(out)):
            held = self._segments.get(segment)
            if held is not None:
                out[at : at + stop - start] = held[start:stop]
        return out

    def set_range(self, start: int, length: int) -> None:
        """Make every granule dirty that touches ``length`` bytes from byte ``start``.

        Raises LimitError where ``room`` is used up.
        """
        if length <= 0:
            return
        first = start // self.granularity
        count = (start + length - 1) // self.granularity - first + 1
        if count > 8 * (self.room.left + len(self._segments) * _SEGMENT):
            self.room.take(count // 8)
        for segment, low, high in _bit_pieces(first, count):
            _fill(self._segment(segment), low, high, dirty=True)

    def granule_runs(self) -> NDArray[Any]:
        """Runs of dirty granules, ascending, not touching: shape (runs, 2), first and count.

        int64 where the last byte of the last granule has a number in it, else Python integers.
        """
        found = [np.zeros((0, 2), np.int64)]
        for segment in sorted(self._segments):
            base = segment * _SEGMENT_BITS
            bits = np.unpackbits(self._segments[segment], bitorder="little").view(np.int8)
            edges = np.flatnonzero(np.diff(bits, prepend=np.int8(0), append=np.int8(0)))
            far = (base + _SEGMENT_BITS) * self.granularity >= 1 << 63
            found.append((edges.astype(object) if far else edges).reshape(-1, 2) + base)
        runs = np.concatenate(found)
        # A run that ends where the next begins has been cut by a segment's edge.
        apart = runs[1:, 0] != runs[:-1, 1]
        begins, ends = np.append(True, apart), np.append(apart, True)
        firsts = runs[begins[: len(runs)], 0]
        return np.stack([firsts, runs[ends[: len(runs)], 1] - firsts], axis=1)

    def ranges(self, size: int | None = None) -> list[tuple[int, int]]:
        """Dirty ranges (start, length) in bytes, whole granules cut at ``size`` bytes, as QEMU counts."""
        runs = self.granule_runs() * self.granularity
        starts, ends = runs[:, 0], runs[:, 0] + runs[:, 1]
        if size is not None and len(ends) and size < int(ends[-1]):
            ends = np.minimum(ends, size)
        inside = ends > starts
        lengths = (ends - starts)[inside].tolist()
        return list(zip(starts[inside].tolist(), lengths, strict=True))

    def count(self, size: int | None = None) -> int:
        """Dirty bytes, the last granule cut at ``size`` bytes."""
        if size is None:
            return self.granularity * sum(
                _number(held).bit_count() for held in self._segments.values()
            )
        whole, rest = divmod(size, self.granularity)
        granules = 0
        for segment, held in self._segments.items():
            inside = min(max(whole - segment * _SEGMENT_BITS, 0), _SEGMENT_BITS)
            granules += (_number(held) & (1 << inside) - 1).bit_count()
        last = int(self.words(whole // WORD_BITS, 1).view("<u8")[0]) >> whole % WORD_BITS & 1
        return granules * self.granularity + last * rest

    def digest_size(self, size: int) -> int:
        """Return the bytes that :meth:`sha256` hashes for a disk of ``size`` bytes."""
        granules = -(-size // self.granularity)
        return -(-granules // WORD_BITS) * WORD_SIZE

    def sha256(self, size: int) -> str:
        """The digest of the words of ``size`` bytes, as QEMU's x-debug-block-dirty-bitmap-sha256 has it."""
        left = self.digest_size(size)
        found, clean = hashlib.sha256(), np.zeros(_SEGMENT, np.uint8)
        for number in range(-(-left // _SEGMENT)):
            found.update(self._segments.get(number, clean)[: left - number * _SEGMENT].data)
        return found.hexdigest()

    def end(self) -> int:
        """First byte behind the last dirty granule; 0 if all is clean."""
        for segment in sorted(self._segments, reverse=True):
            bits = _number(self._segments[segment]).bit_length()
            if bits:
                return (segment * _SEGMENT_BITS + bits) * self.granularity
        return 0

    def _segment(self, number: int) -> Bits:
        held = self._segments.get(number)
        if held is None:
            self.room.take(_SEGMENT)
            held = self._segments[number] = np.zeros(_SEGMENT, np.uint8)
        return held

    def _write(self, offset: int, data: Bits) -> None:
        for segment, start, stop, at in _pieces(offset, len(data)):
            piece = data[at : at + stop - start]
            if segment in self._segments or piece.any():
                self._segment(segment)[start:stop] = piece

    def _clear(self, first: int, count: int) -> None:
        end = first + count
        touched = range(first // _SEGMENT_BITS, (end - 1) // _SEGMENT_BITS + 1)
        few, many = sorted((touched, self._segments), key=len)
        for segment in few:
            if segment in many:
                low = max(first - segment * _SEGMENT_BITS, 0)
                high = min(end - segment * _SEGMENT_BITS, _SEGMENT_BITS)
                _fill(self._segments[segment], low, high, dirty=False)


def last_of_each(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of ``keys`` are the last of equal ones that stand together: shape (keys,)."""
    return np.append(keys[1:] != keys[:-1], True)


def ascending(keys: NDArray[np.int64], rows: Bits) -> Bits:
    """``rows`` in the order of ``keys``, which only go up or only down."""
    return rows[::-1] if keys[0] > keys[-1] else rows


def _number(packed: Bits) -> int:
    """Packed bits as one integer, bit 0 being granule 0."""
    return int.from_bytes(packed, "little")


def _fill(packed: Bits, low: int, high: int, *, dirty: bool) -> None:
    """Make the bits [low, high) of ``packed`` dirty, or clean; low < high."""
    first, last = low // 8, (high - 1) // 8
    masks = np.full(last - first + 1, 0xFF, np.uint8)
    masks[0] &= 0xFF << low % 8 & 0xFF
    masks[-1] &= 0xFF >> 7 - (high - 1) % 8
    if dirty:
        packed[first : last + 1] |= masks
    else:
        packed[first : last + 1] &= ~masks


def _merge(new: Bits, old: Bits, low: int, high: int) -> None:
    """Put into the word ``new`` the bits of ``old`` that lie outside [low, high)."""
    mask = np.zeros(WORD_BITS, np.uint8)
    mask[low:high] = 1
    ours = np.packbits(mask, bitorder="little")
    new[:] = (new & ours) | (old & ~ours)


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    """Bytes [offset, offset + length) by segment: (segment, start, stop, bytes before)."""
    at = 0
    while at < length:
        segment, start = divmod(offset + at, _SEGMENT)
        stop = min(_SEGMENT, start + length - at)
        yield segment, start, stop, at
        at += stop - start


def _bit_pieces(first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Bits [first, first + count) by segment: (segment, low bit, high bit)."""
    end = first + count
    while first < end:
        segment, low = divmod(first, _SEGMENT_BITS)
        high = min(_SEGMENT_BITS, low + end - first)
        yield segment, low, high
        first += high - low
