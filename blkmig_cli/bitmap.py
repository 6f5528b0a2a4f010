"""A dirty bitmap: granules of a power of two of bytes, each clean or dirty.

Kept sparsely, in segments of packed bits that exist only where something is dirty: memory follows
what is dirty, not the disk's size nor what a stream claims.  Bit ``i`` of the map is bit ``i % 8``
of byte ``i // 8``, which is how little-endian 64-bit words put it on the wire.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.schemas.constants import WORD_BITS, WORD_SIZE

_SEGMENT = 1 << 16  # bytes of packed bits
_SEGMENT_BITS = 8 * _SEGMENT

Bits = NDArray[np.uint8]


@dataclass(slots=True)
class DirtyBitmap:
    """A named bitmap.

    ``granularity`` is in bytes.  ``recording`` is QEMU's "enabled".  The disk's size is not part
    of it: where it matters, it is an argument, in bytes.
    """

    name: str
    granularity: int
    recording: bool = True
    persistent: bool = False
    _segments: dict[int, Bits] = field(default_factory=dict)

    def write_words(self, first_word: int, data: bytes | memoryview) -> None:
        """Replace whole words from word ``first_word`` by ``data``, packed bits as on the wire."""
        self._write(first_word * WORD_SIZE, np.frombuffer(data, np.uint8))

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
        """Make every granule dirty that touches ``length`` bytes from byte ``start``."""
        if length <= 0:
            return
        first = start // self.granularity
        count = (start + length - 1) // self.granularity - first + 1
        for segment, low, high in _bit_pieces(first, count):
            unpacked = np.unpackbits(self._segment(segment), bitorder="little")
            unpacked[low:high] = 1
            self._segments[segment] = np.packbits(unpacked, bitorder="little")

    def granule_runs(self) -> Iterator[tuple[int, int]]:
        """Runs of dirty granules, (first, count), ascending, not touching."""
        begun: int | None = None
        end = 0
        for segment in sorted(self._segments):
            base = segment * _SEGMENT_BITS
            bits = np.unpackbits(self._segments[segment], bitorder="little").view(np.int8)
            edges = np.flatnonzero(np.diff(bits, prepend=np.int8(0), append=np.int8(0)))
            for first, last in zip(
                (edges[::2] + base).tolist(), (edges[1::2] + base).tolist(), strict=True
            ):
                if begun is not None and first == end:
                    end = last
                    continue
                if begun is not None:
                    yield begun, end - begun
                begun, end = first, last
        if begun is not None:
            yield begun, end - begun

    def ranges(self, size: int | None) -> list[tuple[int, int]]:
        """Dirty ranges (start, length) in bytes, whole granules cut at ``size`` bytes, as QEMU counts."""
        found = []
        for first, number in self.granule_runs():
            start, end = first * self.granularity, (first + number) * self.granularity
            if size is not None:
                end = min(end, size)
            if end > start:
                found.append((start, end - start))
        return found

    def count(self, size: int | None) -> int:
        """Dirty bytes, the last granule cut at ``size`` bytes."""
        return sum(length for _, length in self.ranges(size))

    def end(self) -> int:
        """First byte behind the last dirty granule; 0 if all is clean."""
        end = 0
        for first, number in self.granule_runs():
            end = (first + number) * self.granularity
        return end

    def _segment(self, number: int) -> Bits:
        held = self._segments.get(number)
        if held is None:
            held = self._segments[number] = np.zeros(_SEGMENT, np.uint8)
        return held

    def _write(self, offset: int, data: Bits) -> None:
        for segment, start, stop, at in _pieces(offset, len(data)):
            piece = data[at : at + stop - start]
            if segment in self._segments or piece.any():
                self._segment(segment)[start:stop] = piece

    def _clear(self, first: int, count: int) -> None:
        last_segment = (first + count - 1) // _SEGMENT_BITS
        for segment in [s for s in self._segments if first // _SEGMENT_BITS <= s <= last_segment]:
            base = segment * _SEGMENT_BITS
            unpacked = np.unpackbits(self._segments[segment], bitorder="little")
            unpacked[max(first - base, 0) : max(first + count - base, 0)] = 0
            self._segments[segment] = np.packbits(unpacked, bitorder="little")


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
