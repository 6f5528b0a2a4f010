"""The two kinds of input that the decoder reads: a file, found by seeking, and a pipe, held in part.

Both keep the contract of ``parse.Input``.  Neither holds more than an event and a read ahead.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, LimitError
from blkmig_cli.system.pipes import give_pages
from blkmig_cli.wire.events import Payload


@contextmanager
def _failing(offset: int) -> Iterator[None]:
    """What the system says of a read becomes an error of ours, with the byte of the stream."""
    try:
        yield
    except OSError as error:
        message = f"reading the stream failed: {error.strerror or error}"
        raise FailureError(message, offset=offset) from error


_READ_MIN = 512
_READ_MAX = 1 << 18


class FileInput:
    """A stream in a seekable file; ``base`` is the byte of the file at which it begins.

    Reads ahead little after a hop over a payload, and more while it goes on from where it was.
    """

    def __init__(self, fd: int, size: int, base: int = 0) -> None:
        self._fd = fd
        self._base = base
        self._buffer = b""
        self._buffer_at = 0
        self._ahead = _READ_MIN
        self._scratch = bytearray(0)
        self._rows = np.empty(0, np.uint8)
        self.offset = 0
        self.size: int | None = max(size - base, 0)
        self._size = self.size

    def again(self) -> "FileInput":
        """The same stream, to be read from its start, apart from this reading of it."""
        return FileInput(self._fd, self._base + self._size, self._base)

    def peek(self, length: int) -> bytes:
        """See ``parse.Input``."""
        start = self.offset - self._buffer_at
        if start >= 0 and start + length <= len(self._buffer):
            return self._buffer[start : start + length]
        onward = 0 <= start <= len(self._buffer)
        self._ahead = min(self._ahead * 2, _READ_MAX) if onward else _READ_MIN
        self._buffer = self._read(self.offset, max(length, self._ahead))
        self._buffer_at = self.offset
        return self._buffer[:length]

    def peek_at(self, offset: int, length: int) -> bytes:
        """See ``parse.Input``; anywhere in the file."""
        start = offset - self._buffer_at
        if start >= 0 and start + length <= len(self._buffer):
            return self._buffer[start : start + length]
        return self._read(offset, length)

    def available(self, length: int) -> int:
        """See ``parse.Input``; reads nothing."""
        return min(length, self._size - self.offset)

    def advance(self, length: int) -> None:
        """See ``parse.Input``."""
        self.offset += length

    def discard(self, length: int) -> int:
        """See ``parse.Input``; reads nothing."""
        there = self.available(length)
        self.offset += there
        return there

    def release(self) -> None:
        """Nothing is held."""

    def view(self, payload: Payload) -> memoryview:
        """See ``parse.Input``; any payload of the file, into one reused buffer."""
        if len(self._scratch) < payload.length:
            self._scratch = bytearray(payload.length)
        target = memoryview(self._scratch)[: payload.length]
        self.read_into(target, payload.offset)
        return target

    def rows(
        self, offset: int, stride: int, pieces: Sequence[tuple[int, int]], most: int
    ) -> NDArray[np.uint8]:
        """See ``scan.RowInput``: one read where the rows are dense, else one read a piece.

        Nothing is mapped: a mapped file that shrinks kills its reader.
        """
        count = max(min(most, (self._size - offset) // stride), 0)
        width = sum(length for _, length in pieces)
        if width < stride:
            return self._read_apart(offset, stride, pieces, count).reshape(count, width)
        if len(self._rows) < count * width:
            self._rows = np.empty(count * width, np.uint8)
        target = self._rows[: count * width]
        self.read_into(target.data, offset)
        return target.reshape(count, width)

    def _read_apart(
        self, offset: int, stride: int, pieces: Sequence[tuple[int, int]], count: int
    ) -> NDArray[np.uint8]:
        fd, first = self._fd, self._base + offset
        starts = range(first, first + count * stride, stride)
        with _failing(offset):
            data = b"".join(
                [os.pread(fd, length, start + at) for start in starts for at, length in pieces]
            )
        if len(data) < count * sum(length for _, length in pieces):
            self._shrunk(offset)
        return np.frombuffer(data, np.uint8)

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` with the bytes from ``offset`` on; threads may do so at once.

        Raises FailureError.
        """
        filled = 0
        while filled < len(target):
            at = offset + filled
            with _failing(at):
                count = os.preadv(self._fd, [target[filled:]], self._base + at)
            if count == 0:
                self._shrunk(at)
            filled += count

    def give_to(self, pipe: int, payload: Payload) -> int:
        """See ``pipes.give_pages``."""
        return give_pages(pipe, self._fd, self._base + payload.offset, payload.length)

    def _read(self, offset: int, length: int) -> bytes:
        wanted = min(length, max(self._size - offset, 0))
        data = b""
        while len(data) < wanted:
            at = offset + len(data)
            with _failing(at):
                more = os.pread(self._fd, wanted - len(data), self._base + at)
            if not more:
                self._shrunk(at)
            data = data + more if data else more
        return data

    def _shrunk(self, offset: int) -> None:
        raise FailureError("the stream's file became shorter while it was read", offset=offset)


class PipeInput:
    """A stream that comes once, from ``readinto`` (fills a buffer, returns the count, 0 at the end).

    What the current event has consumed stays readable until ``release``; nothing before it does.
    The buffer begins with ``first_room`` bytes, and grows with the largest event.
    """

    size: int | None = None
    first_room = 1 << 16

    def __init__(self, readinto: Callable[[memoryview], int | None]) -> None:
        self._readinto = readinto
        self._buffer = bytearray(self.first_room)
        self._at = 0  # offset of the buffer's first byte
        self._end = 0  # offset behind the last byte read
        self._kept = 0  # offset from which bytes are still needed
        self.offset = 0

    def peek(self, length: int) -> bytes:
        """See ``parse.Input``."""
        return self.peek_at(self.offset, length)

    def peek_at(self, offset: int, length: int) -> bytes:
        """See ``parse.Input``; from what is held, onwards."""
        self._fill(offset + length)
        start = offset - self._at
        return bytes(self._buffer[start : min(start + length, self._end - self._at)])

    def available(self, length: int) -> int:
        """See ``parse.Input``; reads the bytes, so that they can be viewed."""
        self._fill(self.offset + length)
        return min(length, self._end - self.offset)

    def advance(self, length: int) -> None:
        """See ``parse.Input``."""
        self.offset += length

    def discard(self, length: int) -> int:
        """See ``parse.Input``."""
        start, target = self.offset, self.offset + length
        while self.offset < target:
            self.offset = min(target, max(self._end, self.offset))
            self.release()
            if self.offset < target:
                self._fill(min(target, self.offset + len(self._buffer)))
                if self._end == self.offset:
                    break
        return self.offset - start

    def release(self) -> None:
        """See ``parse.Input``."""
        self._kept = self.offset

    def view(self, payload: Payload) -> memoryview:
        """See ``parse.Input``; a payload of the current event, without a copy."""
        if payload.offset < self._kept:
            raise ValueError("a pipe's payload was asked for after its event")
        start = payload.offset - self._at
        return memoryview(self._buffer)[start : start + payload.length]

    def take(self, target: memoryview) -> int:
        """Fill some of ``target`` with what comes next; 0 at the end.  For who takes nothing else.

        Raises FailureError, and StreamError where packed data is damaged.
        """
        with _failing(self._end):
            count = self._readinto(target) or 0
        self._end += count
        return count

    def _fill(self, end: int) -> None:
        """Read on until ``end``, or the input's end."""
        while self._end < end:
            if end - self._at > len(self._buffer):
                self._make_room(end)
            view = memoryview(self._buffer)[self._end - self._at :]
            with _failing(self._end):
                count = self._readinto(view)
            if not count:
                return
            self._end += count

    def _make_room(self, end: int) -> None:
        """Room up to ``end``, or for some of it: it grows with what comes, not with what is claimed."""
        needed = end - self._kept
        if needed > limits.PIPE_EVENT_MAX:
            raise LimitError(
                f"an object needs over {limits.PIPE_EVENT_MAX >> 20} MiB of memory from a pipe",
                offset=self._kept,
                hint="save the stream to a file and read that",
            )
        room = len(self._buffer)
        if needed > room and self._end - self._at < room:
            return
        old = memoryview(self._buffer)[self._kept - self._at : self._end - self._at]
        if needed > room:
            # A new buffer, as somebody may hold a view of the old one.
            self._buffer = bytearray(min(2 * room, needed))
        # From one memoryview to another, as these may overlap.
        memoryview(self._buffer)[: len(old)] = old
        self._at = self._kept
