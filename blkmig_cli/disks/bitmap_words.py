"""The words of a dirty bitmap: 64 bits each, by number, those that are zero left out.

They stand in segments.  One with few words that are not zero holds these and their places; any other
holds all its bits.  So memory follows what is dirty, not a disk's size nor what a stream claims.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import LimitError
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import WORD_SIZE

# Words of a segment, and bytes of its bits.
_WORDS = 1 << 10
_BYTES = _WORDS * WORD_SIZE
# A sparse segment is the places of its words, then the words.
_PLACE = np.dtype(np.uint16)
_WORD = np.dtype("<u8")
_EACH = _PLACE.itemsize + _WORD.itemsize
# Bytes that a segment takes beside its words, and the largest that is sparse.
_OVERHEAD = 128
_SPARSE_MAX = _BYTES // 2
# Words that are handed out together, at least.
_BATCH = 1 << 13
_ZERO = bytes(WORD_SIZE)

#: Packed bits: bit ``i`` is bit ``i % 8`` of byte ``i // 8``.
Bits = NDArray[np.uint8]
Words = NDArray[np.uint64]

_ALL = np.arange(_WORDS, dtype=_PLACE).tobytes()
_FULL = np.full(_WORDS, -1, np.int64).view(_WORD)
_FULL.flags.writeable = False


@dataclass(slots=True)
class Room:
    """Memory for the bits of some bitmaps together: ``left`` bytes of it are left."""

    left: int = limits.BITS_MAX

    def take(self, size: int) -> None:
        """Take ``size`` bytes, or give some back; raises LimitError where there are not so many."""
        if size > self.left:
            raise LimitError(f"bitmaps of over {limits.BITS_MAX >> 20} MiB of bits")
        self.left -= size


class WordStore:
    """Words by their number; what is never written is zero.

    Whatever writes other words raises LimitError where ``room`` is used up.
    """

    __slots__ = ("_held", "_numbers", "room")

    def __init__(self, room: Room) -> None:
        self.room = room
        self._held: dict[int, bytes | Words] = {}
        self._numbers = IntervalSet()  # of the segments that are held

    def write(self, first: int, data: bytes | bytearray | memoryview) -> None:
        """Replace the words from number ``first`` on by ``data``, packed bits."""
        for segment, start, stop, at in _pieces(first, len(data) // WORD_SIZE):
            piece = data[at * WORD_SIZE : (at + stop - start) * WORD_SIZE]
            self._replace(segment, start, stop, piece)

    def fill(self, first: int, count: int) -> None:
        """Set all bits of ``count`` words from number ``first`` on."""
        size = count * WORD_SIZE
        if size > self.room.left + len(self._held) * _BYTES:
            self.room.take(size)
        for segment, start, stop, _ in _pieces(first, count):
            if stop - start == _WORDS:
                self._store(segment, _FULL)
            else:
                self._replace(segment, start, stop, _FULL[start:stop].data.cast("B"))

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
        """``count`` words from number ``first`` on: uint64, shape (count,)."""
        out = np.zeros(count, _WORD)
        for segment, start, stop, at in _pieces(first, count):
            held = self._held.get(segment)
            if isinstance(held, bytes):
                places, words = _sparse(held)
                low, high = bisect_left(places, start), bisect_left(places, stop)
                out[np.asarray(places[low:high], np.int64) + (at - start)] = words[low:high]
            elif held is not None:
                out[at : at + stop - start] = held[start:stop]
        return out

    def parts(self, end: int | None = None) -> Iterator[tuple[NDArray[np.int64], Words]]:
        """The words that are not zero, ascending, up to number ``end``: their numbers, and they.

        Both have the shape (words,); in parts of bounded length, none of which is empty.
        """
        last = self._numbers.end if end is None else -(-end // _WORDS)
        batch: list[tuple[int, bytes | Words]] = []
        length = 0
        for low, high in self._numbers.between(0, last):
            for segment in range(low, high):
                held = self._held[segment]
                batch.append((segment, held))
                length += len(held) // _EACH if isinstance(held, bytes) else _WORDS
                if length >= _BATCH:
                    yield from _joined(batch, end)
                    batch, length = [], 0
        yield from _joined(batch, end)

    @property
    def end(self) -> int:
        """The number behind that of the last word that is not zero; 0 if there is none."""
        if not self._held:
            return 0
        segment = self._numbers.end - 1
        held = self._held[segment]
        places = _sparse(held)[0] if isinstance(held, bytes) else np.flatnonzero(held)
        return segment * _WORDS + int(places[-1]) + 1

    def _replace(
        self, segment: int, start: int, stop: int, piece: bytes | bytearray | memoryview
    ) -> None:
        """Put ``piece`` in place of the words [start, stop) of a segment."""
        held = self._held.get(segment)
        if held is None or isinstance(held, bytes):
            self._replace_sparse(segment, held or b"", start, stop, piece)
            return
        if held is _FULL:
            held = self._held[segment] = _FULL.copy()
        held[start:stop] = np.frombuffer(piece, _WORD)
        if not held[start:stop].any() and not held.any():
            self._store(segment, None)

    def _replace_sparse(
        self,
        segment: int,
        held: bytes,
        start: int,
        stop: int,
        piece: bytes | bytearray | memoryview,
    ) -> None:
        if stop - start == 1:
            dirty = piece != _ZERO
            new_places, new_words = _PLACE.type(start).tobytes() * dirty, bytes(piece) * dirty
        else:
            found = np.frombuffer(piece, _WORD)
            at = np.flatnonzero(found)
            new_places, new_words = (at + start).astype(_PLACE).tobytes(), found[at].tobytes()
        if held:
            number = len(held) // _EACH
            middle = number * _PLACE.itemsize
            places = memoryview(held)[:middle].cast("H")
            low, high = bisect_left(places, start), bisect_left(places, stop)
            parts = (
                held[: low * _PLACE.itemsize],
                new_places,
                held[high * _PLACE.itemsize : middle + low * WORD_SIZE],
                new_words,
                held[middle + high * WORD_SIZE :],
            )
            made = b"".join(parts)
        else:
            made = new_places + new_words
        if not made:
            if held:
                self._store(segment, None)
        elif len(made) <= _SPARSE_MAX:
            self._store(segment, made)
        else:
            dense = np.zeros(_WORDS, _WORD)
            dense[_sparse(made)[0]] = _sparse(made)[1]
            self._store(segment, dense)

    def _store(self, segment: int, new: bytes | Words | None) -> None:
        """Hold ``new`` as a segment, None: nothing."""
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
    """Bytes of memory that a segment takes, more or less."""
    if held is None:
        return 0
    return len(held) + _OVERHEAD if isinstance(held, bytes) else _BYTES


def _sparse(held: bytes) -> tuple[NDArray[np.uint16], Words]:
    """The places and words of a sparse segment."""
    number = len(held) // _EACH
    places = np.frombuffer(held, _PLACE, number)
    return places, np.frombuffer(held, _WORD, number, number * _PLACE.itemsize)


def _joined(
    batch: list[tuple[int, bytes | Words]], end: int | None
) -> Iterator[tuple[NDArray[np.int64], Words]]:
    """The words of some segments, if any are left up to ``end``."""
    places, words, counts = [], [], []
    for _, held in batch:
        if isinstance(held, bytes):
            number = len(held) // _EACH
            middle = number * _PLACE.itemsize
            places.append(held[:middle])
            words.append(held[middle:])
            counts.append(number)
        else:
            places.append(_ALL)
            words.append(held.tobytes())
            counts.append(_WORDS)
    bases = np.array([segment for segment, _ in batch], np.int64) * _WORDS
    numbers = np.repeat(bases, counts) + np.frombuffer(b"".join(places), _PLACE)
    found = np.frombuffer(b"".join(words), _WORD)
    wanted = found != 0
    if end is not None:
        wanted &= numbers < end
    if wanted.any():
        yield numbers[wanted], found[wanted]


def _pieces(first: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Words [first, first + count) by segment: (segment, start, stop, words before)."""
    at = 0
    while at < count:
        segment, start = divmod(first + at, _WORDS)
        stop = min(_WORDS, start + count - at)
        yield segment, start, stop, at
        at += stop - start
