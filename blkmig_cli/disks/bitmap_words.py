"""The words of a dirty bitmap: 64 bits each, by number.

They are stored in segments; those whose words are all zero are omitted.  A segment in which few words
differ from the preceding one stores only these and their places; any other stores all its bits.  So
the memory depends on what is dirty, not on a disk's size or on what a stream states.
"""

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import LimitError
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import WORD_SIZE

# Words per segment, and bytes of its bits.
_WORDS = 1 << 10
_BYTES = _WORDS * WORD_SIZE
# A sparse segment is the places at which its words change, then the words from each place on.
_PLACE = np.dtype(np.uint16)
_WORD = np.dtype("<u8")
_EACH = _PLACE.itemsize + _WORD.itemsize
# Bytes that a segment takes in addition to its words, and the most bytes of a sparse one.
_OVERHEAD = 128
_SPARSE_MAX = _BYTES // 2
# Segments whose words are yielded together.
_BATCH = 1 << 6

#: Packed bits: bit ``i`` is bit ``i % 8`` of byte ``i // 8``.
Bits = NDArray[np.uint8]
Words = NDArray[np.uint64]

_CLEAN = bytes(_EACH)
_FULL = bytes(_PLACE.itemsize) + b"\xff" * WORD_SIZE


@dataclass(slots=True)
class Room:
    """The memory that several bitmaps may use for their bits: ``left`` bytes remain."""

    left: int = limits.BITS_MAX

    def take(self, size: int) -> None:
        """Reserve ``size`` bytes (negative: release); raises LimitError where fewer remain."""
        if size > self.left:
            raise LimitError(f"bitmaps of over {limits.BITS_MAX >> 20} MiB of bits")
        self.left -= size


class WordStore:
    """Words by their number; those never written are zero.

    Methods that write other words raise LimitError where ``room`` is exhausted.
    """

    __slots__ = ("_held", "_numbers", "room")

    def __init__(self, room: Room) -> None:
        self.room = room
        self._held: dict[int, bytes | Words] = {}
        self._numbers = IntervalSet()  # of the segments that are stored

    def write(self, first: int, data: bytes | bytearray | memoryview) -> None:
        """Replace the words from number ``first`` on by ``data``, packed bits."""
        for segment, start, stop, at in _pieces(first, len(data) // WORD_SIZE):
            piece = data[at * WORD_SIZE : (at + stop - start) * WORD_SIZE]
            self._replace(segment, start, stop, bytes(piece))

    def fill(self, first: int, count: int) -> None:
        """Set all bits of ``count`` words from number ``first`` on."""
        size = count * WORD_SIZE
        if size > self.room.left + len(self._held) * _BYTES:
            self.room.take(size)
        for segment, start, stop, _ in _pieces(first, count):
            if stop - start == _WORDS:
                self._store(segment, _FULL)
            else:
                self._replace(segment, start, stop, b"\xff" * ((stop - start) * WORD_SIZE))

    def clear(self, first: int, count: int) -> None:
        """Clear all bits of ``count`` words from number ``first`` on."""
        end = first + count
        for low, high in list(self._numbers.between(first // _WORDS, -(-end // _WORDS))):
            for segment in range(low, high):
                start = max(first - segment * _WORDS, 0)
                stop = min(end - segment * _WORDS, _WORDS)
                if stop - start == _WORDS:
                    self._store(segment, None)
                else:
                    self._replace(segment, start, stop, bytes((stop - start) * WORD_SIZE))

    def read(self, first: int, count: int) -> Words:
        """Return ``count`` words from number ``first`` on: uint64, shape (count,)."""
        out = np.zeros(count, _WORD)
        for segment, start, stop, at in _pieces(first, count):
            held = self._held.get(segment)
            if isinstance(held, bytes):
                places, words = _sparse(held)
                low, high = bisect_right(places, start) - 1, bisect_left(places, stop)
                edges = np.append(places[low:high].astype(np.int64), stop)
                edges[0] = start
                out[at : at + stop - start] = np.repeat(words[low:high], np.diff(edges))
            elif held is not None:
                out[at : at + stop - start] = held[start:stop]
        return out

    def is_clean(self, first: int, count: int) -> bool:
        """Return whether ``count`` words from ``first`` are in segments that are not stored: all zero.

        False where words of their segments are not zero, even if these are not.
        """
        return not self._numbers.touches(first // _WORDS, -(-(first + count) // _WORDS))

    def equals(self, other: "WordStore") -> bool:
        """Return whether all words are the same."""
        ours, theirs = self._held, other._held
        return ours.keys() == theirs.keys() and all(
            one == two
            if isinstance(one, bytes) and isinstance(two := theirs[segment], bytes)
            else np.array_equal(_full(one), _full(theirs[segment]))
            for segment, one in ours.items()
        )

    def parts(self, end: int | None = None) -> Iterator[tuple[NDArray[np.int64], Words]]:
        """Yield the numbers and values of the words that are not zero, ascending, up to number ``end``.

        Both have the shape (words,); in parts of bounded length, none of which is empty.
        """
        last = self._numbers.end if end is None else -(-end // _WORDS)
        batch: list[int] = []
        for low, high in self._numbers.between(0, last):
            for segment in range(low, high):
                batch.append(segment)
                if len(batch) == _BATCH:
                    yield from self._part(batch, end)
                    batch.clear()
        yield from self._part(batch, end)

    @property
    def end(self) -> int:
        """The number after that of the last word that is not zero; 0 if there is none."""
        if not self._held:
            return 0
        first = (self._numbers.end - 1) * _WORDS
        return first + int(np.flatnonzero(self.read(first, _WORDS))[-1]) + 1

    def _part(
        self, segments: list[int], end: int | None
    ) -> Iterator[tuple[NDArray[np.int64], Words]]:
        """Yield the words of some segments that are not zero, up to number ``end``, if there are any."""
        if len(segments) == 1:
            # Bitmaps may be many, and small.
            first = segments[0] * _WORDS
            full = _full(self._held[segments[0]])[: None if end is None else end - first]
            nonzero = np.flatnonzero(full)
            if len(nonzero):
                yield nonzero + first, full[nonzero]
            return
        if not segments:
            return
        numbers, words = [], []
        for segment in segments:
            held = self._held[segment]
            if isinstance(held, bytes):
                places, values = _sparse(held)
                numbers.append(places + np.int64(segment * _WORDS))
                words.append(values)
            else:
                numbers.append(np.arange(segment * _WORDS, (segment + 1) * _WORDS))
                words.append(held)
        firsts, found = np.concatenate(numbers), np.concatenate(words)
        # A word is repeated up to the next one, or up to its segment's end.
        following = np.append(firsts[1:], firsts[-1] + _WORDS)
        lengths = np.minimum(following - firsts, _WORDS - firsts % _WORDS)
        wanted = found != 0
        firsts, found, lengths = firsts[wanted], found[wanted], lengths[wanted]
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        firsts, found = np.repeat(firsts, lengths) + inside, np.repeat(found, lengths)
        if end is not None:
            firsts, found = firsts[firsts < end], found[firsts < end]
        if len(firsts):
            yield firsts, found

    def _replace(self, segment: int, start: int, stop: int, piece: bytes) -> None:
        """Replace the words [start, stop) of a segment by ``piece``."""
        held = self._held.get(segment, _CLEAN)
        if isinstance(held, bytes):
            made = _spliced(held, start, stop, piece)
            if made == _CLEAN:
                if held is not _CLEAN:
                    self._store(segment, None)
            elif len(made) <= _SPARSE_MAX:
                self._store(segment, made)
            else:
                self._store(segment, _full(made))
            return
        held[start:stop] = np.frombuffer(piece, _WORD)
        if not held[start:stop].any() and not held.any():
            self._store(segment, None)

    def _store(self, segment: int, new: bytes | Words | None) -> None:
        """Store ``new`` as a segment; None: store nothing."""
        old = self._held.get(segment)
        self.room.take(_size(new) - _size(old))
        if new is None:
            del self._held[segment]
            self._numbers.remove(segment, segment + 1)
            return
        self._held[segment] = new
        if old is None:
            self._numbers.add(segment, segment + 1)


def _size(held: bytes | Words | None) -> int:
    """Return the bytes of memory that a segment counts for; a few bytes of a file may make a full one."""
    if held is None:
        return 0
    return len(held) + _OVERHEAD if isinstance(held, bytes) and held is not _FULL else _BYTES


def _sparse(held: bytes) -> tuple[NDArray[np.uint16], Words]:
    """Return the places and words of a sparse segment."""
    number = len(held) // _EACH
    places = np.frombuffer(held, _PLACE, number)
    return places, np.frombuffer(held, _WORD, number, number * _PLACE.itemsize)


def _full(held: bytes | Words) -> Words:
    """Return all words of a segment: shape (1024,)."""
    if not isinstance(held, bytes):
        return held
    if len(held) == _EACH:
        return np.full(_WORDS, np.frombuffer(held, _WORD, 1, _PLACE.itemsize)[0])
    places, words = _sparse(held)
    edges = [*places.tolist(), _WORDS]
    return np.repeat(words, [after - at for at, after in pairwise(edges)])


def _place(number: int) -> bytes:
    return number.to_bytes(_PLACE.itemsize, sys.byteorder)


def _spliced(held: bytes, start: int, stop: int, piece: bytes) -> bytes:
    """Return the sparse segment ``held`` with the words [start, stop) replaced by ``piece``."""
    if stop - start == 1:
        places, words = _place(start), piece
    else:
        found = np.frombuffer(piece, _WORD)
        at = np.flatnonzero(np.append(True, found[1:] != found[:-1]))
        places, words = (at + start).astype(_PLACE).tobytes(), found[at].tobytes()
    number = len(held) // _EACH
    middle = number * _PLACE.itemsize
    old_places, old_words = memoryview(held)[:middle].cast("H"), held[middle:]
    low, high = bisect_left(old_places, start), bisect_left(old_places, stop)
    # The previous word continues after the piece.
    if high == number or old_places[high] != stop:
        behind = old_words[(high - 1) * WORD_SIZE : high * WORD_SIZE]
    else:
        behind = old_words[high * WORD_SIZE : (high + 1) * WORD_SIZE]
        high += 1
    if low and old_words[(low - 1) * WORD_SIZE : low * WORD_SIZE] == words[:WORD_SIZE]:
        places, words = places[_PLACE.itemsize :], words[WORD_SIZE:]
    if stop < _WORDS and behind != piece[-WORD_SIZE:]:
        places, words = places + _place(stop), words + behind
    return b"".join(
        (
            held[: low * _PLACE.itemsize],
            places,
            held[high * _PLACE.itemsize : middle],
            old_words[: low * WORD_SIZE],
            words,
            old_words[high * WORD_SIZE :],
        )
    )


def _pieces(first: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the words [first, first + count) by segment: (segment, start, stop, words before)."""
    at = 0
    while at < count:
        segment, start = divmod(first + at, _WORDS)
        stop = min(_WORDS, start + count - at)
        yield segment, start, stop, at
        at += stop - start
