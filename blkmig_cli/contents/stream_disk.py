"""The final content of a disk in a stream, read from the stream's file without extracting it.

It implements ``image.Readable``.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.contents.final_layout import EndState
from blkmig_cli.contents.layers import LayeredInput
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.image import FilePart
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.ranges import Table
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.system.pipes import write_all
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.wire.events import Payload

_PIECE = 256 << 10
_PROBE = 4 << 10


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, end) of a disk: ``data``, ``zero``, or ``missing`` (not in any record).

    ``offset``: that of the data in the stream.
    """

    start: int
    end: int
    kind: str
    offset: int | None = None


class StreamDisk:
    """The disk of ``size`` bytes that ``state`` describes, its data in ``source``.

    Missing ranges read as zeros; ``pieces`` distinguishes them.  ``path`` is the stream's name.
    """

    def __init__(
        self, path: str, source: FileInput | LayeredInput, state: EndState, size: int
    ) -> None:
        self.path = path
        self._source = source
        self._state = state
        self._size = size

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._size

    def resized(self, size: int) -> "StreamDisk":
        """Return the same disk with a size of ``size`` bytes."""
        return StreamDisk(self.path, self._source, self._state, size)

    def incremental(self) -> "StreamDisk":
        """Return the same disk, of which exactly the ranges that were sent are allocated, zeros too."""
        return _Incremental(self.path, self._source, self._state, self._size)

    def pieces(self, offset: int = 0, length: int | None = None) -> Iterator[Piece]:
        """Yield the bytes from ``offset`` (to the disk's end) as contiguous pieces, in order.

        Each piece of data is contiguous in the stream, and at most a chunk.
        """
        end = self._size if length is None else min(offset + length, self._size)
        for start, stop, kind, place in self._sectors(offset, end):
            low, high = max(start * SECTOR_SIZE, offset), min(stop * SECTOR_SIZE, end)
            if low < high:
                at = None if place is None else place + low - start * SECTOR_SIZE
                yield Piece(low, high, kind, at)

    def _sectors(self, offset: int, end: int) -> Iterator[tuple[int, int, str, int | None]]:
        at, last = offset // SECTOR_SIZE, -(-end // SECTOR_SIZE)
        for stretch in self._state.between(at, last):
            if at < stretch.start:
                yield at, stretch.start, "missing", None
            at = stretch.start
            if stretch.offset is None:
                yield at, stretch.end, "zero", None
                at = stretch.end
            while at < stretch.end:
                place, sectors = stretch.place(at)
                yield at, at + sectors, "data", place
                at += sectors
        if at < last:
            yield at, last, "missing", None

    def every(self, step: int) -> NDArray[np.int64]:
        """See ``EndState``."""
        return self._state.every(step)

    def ranges(self, start: int, end: int) -> tuple[Table, Table]:
        """See ``EndState``."""
        return self._state.ranges(start, end)

    def read(self, offset: int, length: int) -> bytes:
        """See ``image.Readable``; raises FailureError where the stream's file fails."""
        found = bytearray(length)
        self.read_into(memoryview(found), offset)
        return bytes(found)

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` with the disk's bytes from ``offset`` on; raises as :meth:`read`."""
        for piece in self.pieces(offset, len(target)):
            part = target[piece.start - offset : piece.end - offset]
            if piece.offset is None:
                part[:] = bytes(len(part))
            else:
                self._source.read_into(part, piece.offset)

    def is_zero(self, offset: int, length: int) -> bool:
        """See ``image.Readable``; examines few bytes first, as those of most data are not all zero."""
        return all(
            is_zero(memoryview(self.read(start, end - start)))
            for piece in self.pieces(offset, length)
            if piece.offset is not None
            for start, end in _steps(piece.start, piece.end)
        )

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """See ``image.Readable``."""
        buffer = memoryview(bytearray(min(length, _PIECE)))
        for piece in self.pieces(offset, length):
            at = piece.start
            if pipe and piece.offset is not None:
                at += self._source.give_to(target, Payload(piece.offset, piece.end - at))
            for start in range(at, piece.end, _PIECE):
                part = buffer[: min(_PIECE, piece.end - start)]
                self.read_into(part, start)
                write_all(target, part)

    def places(self, offset: int, length: int) -> Sequence[FilePart]:
        """See ``image.Readable``."""
        found = []
        for piece in self.pieces(offset, length):
            if piece.offset is None:
                return ()
            fd, place = self._source.place_of(piece.offset)
            found.append(FilePart(fd, place, piece.end - piece.start))
        return found

    def extents(self) -> Iterator[tuple[int, int]]:
        """See ``image.Readable``: the ranges that were sent as data."""
        for part in self._state.parts(0, -(-self._size // SECTOR_SIZE)):
            for start, end, *_ in part[part[:, 2] >= 0].tolist():
                low = start * SECTOR_SIZE
                yield low, min(end * SECTOR_SIZE, self._size) - low

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``images.Readable``: none, as zeros are in no extent."""
        yield from ()


def _steps(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the bytes [start, end) in steps, the first of which is small."""
    step = _PROBE
    while start < end:
        yield start, min(start + step, end)
        start, step = start + step, _PIECE


class _Incremental(StreamDisk):
    """See :meth:`StreamDisk.incremental`.  The zeros must not change once they have been read."""

    _zeros: "tuple[array[int], array[int]] | None" = None

    def extents(self) -> Iterator[tuple[int, int]]:
        for part in self._state.parts(0, -(-self._size // SECTOR_SIZE)):
            for start, end, *_ in part.tolist():
                low = start * SECTOR_SIZE
                yield low, min(end * SECTOR_SIZE, self._size) - low

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        starts, ends = self._zeros or self._find_zeros()
        end = min(offset + length, self._size)
        for at in range(bisect_right(ends, offset // SECTOR_SIZE), len(starts)):
            low, high = max(starts[at] * SECTOR_SIZE, offset), min(ends[at] * SECTOR_SIZE, end)
            if low >= high:
                break
            yield low, high - low

    def _find_zeros(self) -> "tuple[array[int], array[int]]":
        """Return the starts and ends, in sectors, of all stretches of zeros; few are asked for at once."""
        starts, ends = array("q"), array("q")
        for part in self._state.parts(0, self._state.end):
            zeros = part[part[:, 2] < 0]
            starts.frombytes(zeros[:, 0].tobytes())
            ends.frombytes(zeros[:, 1].tobytes())
        self._zeros = starts, ends
        return self._zeros
