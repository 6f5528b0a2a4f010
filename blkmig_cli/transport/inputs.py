"""The two kinds of input that the decoder reads: a seekable file, and a pipe.

Both implement ``schema_io.Input``.  Neither holds more than one event and the bytes read ahead.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import BlkmigError, FailureError, LimitError, StreamError, failing
from blkmig_cli.system.pipes import give_pages
from blkmig_cli.wire.events import Payload


def _failing(offset: int) -> AbstractContextManager[None]:
    """Return a context that turns an OSError of a read into a FailureError with ``offset``."""
    return failing("reading the stream failed", offset=offset)


_FAR = 1 << 63
_READ_MIN = 512
_READ_MAX = 1 << 18
# Bytes before the current event that a pipe still holds, as templates of rows.
_HISTORY = 1 << 13
# The most room of a pipe's buffer for rows, as more of them make longer runs; a stream that is longer has it
# in any case.
_ROOM = 1 << 22


class FileInput:
    """A stream in a seekable file of ``size`` bytes; it begins at byte ``base`` of the file.

    Reads ahead a little after a skipped payload, and more while reads are contiguous.
    ``damage``: see ``schema_io.Input``.
    """

    seekable: Literal[True] = True
    #: Whether it reads the file that the user specified, not a copy.
    in_place = True

    def __init__(
        self, fd: int, size: int, base: int = 0, damage: StreamError | None = None
    ) -> None:
        self._fd = fd
        self._base = base
        self._damage = damage
        self.origin = base
        self._buffer = b""
        self._buffer_at = 0
        self._ahead = _READ_MIN
        self._scratch = bytearray(0)
        self._rows = np.empty(0, np.uint8)
        self.offset = 0
        self._size = max(size - base, 0)

    @property
    def size(self) -> int | None:
        """See ``schema_io.Input``."""
        return self._size

    @property
    def held(self) -> int:
        """See ``schema_io.Input``."""
        return self._size - self.offset

    @property
    def damage(self) -> StreamError | None:
        """See ``schema_io.Input``."""
        return self._damage

    def again(self) -> "FileInput":
        """Return an input for the same stream, at its start and independent of this one."""
        return FileInput(self._fd, self._base + self._size, self._base, self._damage)

    def version(self) -> tuple[int, int]:
        """Return what changes when the file is written to: its size in bytes, and its mtime in ns.

        Of a copy, which nobody else writes to, always the same.  Raises FailureError.
        """
        if not self.in_place:
            return 0, 0
        with failing("the stream"):
            found = os.fstat(self._fd)
        return found.st_size, found.st_mtime_ns

    def complete(self) -> None:
        """Read the rest of a stream that is still being received, so that ``size`` is known.

        A file is complete already.  Raises FailureError.
        """
        self._end(_FAR)

    def _end(self, wanted: int) -> int:
        """Return the offset at which the data end, exact only up to ``wanted``."""
        return self._size

    def peek(self, length: int) -> bytes:
        """See ``schema_io.Input``."""
        start = self.offset - self._buffer_at
        if start >= 0 and start + length <= len(self._buffer):
            return self._buffer[start : start + length]
        contiguous = 0 <= start <= len(self._buffer) + _READ_MIN  # but for a short payload
        self._ahead = min(self._ahead * 2, _READ_MAX) if contiguous else _READ_MIN
        self._buffer = self._read(self.offset, length, self._ahead)
        self._buffer_at = self.offset
        return self._buffer[:length]

    def peek_at(self, offset: int, length: int) -> bytes:
        """See ``schema_io.Input``; anywhere in the file."""
        start = offset - self._buffer_at
        if start >= 0 and start + length <= len(self._buffer):
            return self._buffer[start : start + length]
        return self._read(offset, length)[:length]

    def available(self, length: int) -> int:
        """See ``schema_io.Input``; reads nothing."""
        return min(length, self._end(self.offset + length) - self.offset)

    def advance(self, length: int) -> None:
        """See ``schema_io.Input``."""
        self.offset += length

    def discard(self, length: int) -> int:
        """See ``schema_io.Input``; reads nothing."""
        there = self.available(length)
        self.offset += there
        return there

    def release(self) -> None:
        """Do nothing: no bytes are held."""

    def view(self, payload: Payload) -> memoryview:
        """See ``schema_io.Input``; any payload of the file, into one reused buffer."""
        if len(self._scratch) < payload.length:
            self._scratch = bytearray(payload.length)
        target = memoryview(self._scratch)[: payload.length]
        self.read_into(target, payload.offset)
        return target

    def rows(
        self, offset: int, stride: int, pieces: Sequence[tuple[int, int]], most: int
    ) -> NDArray[np.uint8]:
        """See ``scanner.RowInput``: one read where the rows are dense, else one read for each piece.

        The file is not mapped into memory: if it shrank, that would kill the reader.
        """
        count = max(min(most, (self._end(offset + stride) - offset) // stride), 0)
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
        """Fill ``target`` with the bytes from ``offset`` on; several threads may do so at the same time.

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
        """Write ``payload`` to ``pipe`` as ``pipes.give_pages`` does; returns the bytes written."""
        return give_pages(pipe, self._fd, self._base + payload.offset, payload.length)

    def place_of(self, offset: int) -> tuple[int, int]:
        """Return where byte ``offset`` of the stream is: a descriptor, and the offset in its file."""
        return self._fd, self._base + offset

    def _read(self, offset: int, length: int, ahead: int = 0) -> bytes:
        wanted = min(max(length, ahead), max(self._end(offset + length) - offset, 0))
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
    """A stream that is read once, from ``readinto`` (fills a buffer, returns the count, 0 at the end).

    What the current event has consumed stays readable until ``release``; nothing before it does.
    The buffer begins with ``first_room`` bytes, and grows with the largest event, and for rows; of what
    lies before that event, the last bytes are there as well, for :meth:`rows`.  ``ready`` returns whether
    ``readinto`` need not wait.  ``origin`` and ``damage``: see ``schema_io.Input``.
    """

    seekable: Literal[False] = False
    in_place = False
    size: int | None = None
    first_room = 1 << 18

    def __init__(
        self,
        readinto: Callable[[memoryview], int | None],
        origin: int = 0,
        damage: StreamError | None = None,
        ready: Callable[[], bool] = lambda: False,
    ) -> None:
        self._readinto = readinto
        self._ready = ready
        self.origin = origin
        self.damage = damage
        self._buffer = bytearray(self.first_room)
        self._at = 0  # offset of the buffer's first byte
        self._end = 0  # offset after the last byte read
        self._kept = 0  # offset from which bytes are still needed
        self._failure: BlkmigError | None = None
        self.offset = 0

    @property
    def held(self) -> int:
        """See ``schema_io.Input``."""
        return self._end - self.offset

    def peek(self, length: int) -> bytes:
        """See ``schema_io.Input``."""
        return self.peek_at(self.offset, length)

    def peek_at(self, offset: int, length: int) -> bytes:
        """See ``schema_io.Input``; from the first byte held."""
        self._fill(offset + length)
        start = offset - self._at
        return bytes(self._buffer[start : min(start + length, self._end - self._at)])

    def available(self, length: int) -> int:
        """See ``schema_io.Input``; reads the bytes, so that they can be viewed."""
        self._fill(self.offset + length)
        return min(length, self._end - self.offset)

    def advance(self, length: int) -> None:
        """See ``schema_io.Input``."""
        self.offset += length

    def discard(self, length: int) -> int:
        """See ``schema_io.Input``."""
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
        """See ``schema_io.Input``."""
        self._kept = self.offset

    def close(self) -> None:
        """Free the memory of the bytes that are held; nothing can be read any more."""
        self._buffer = bytearray()
        self._at = self._end = self._kept = self.offset

    def view(self, payload: Payload) -> memoryview:
        """See ``schema_io.Input``; a payload of the current event, without a copy."""
        if payload.offset < self._kept:
            raise ValueError("a pipe's payload was requested after its event")
        start = payload.offset - self._at
        return memoryview(self._buffer)[start : start + payload.length]

    def rows(
        self, offset: int, stride: int, pieces: Sequence[tuple[int, int]], most: int
    ) -> NDArray[np.uint8]:
        """See ``scanner.RowInput``: rows without payloads, of which some bytes are held.

        Waits only where not even one row is held: what came is not to wait for more.
        """
        width = sum(length for _, length in pieces)
        first = offset - self._at
        count = 0
        if first >= 0 and width == stride:
            if offset == self.offset:
                self.release()
                self._read_ahead(offset + stride, offset + min(most * stride, _ROOM))
                first = offset - self._at
            count = max(min(most, (self._end - offset) // stride), 0)
        rows = np.frombuffer(self._buffer, np.uint8, count * width, first if count else 0)
        return rows.reshape(count, width)

    def take(self, target: memoryview) -> int:
        """Fill some of ``target`` with the next bytes; returns how many, 0 at the end.

        Bytes that were only looked at (:meth:`peek`) come first; do not use it together with the other
        methods.  Raises FailureError, and StreamError where compressed data are damaged.
        """
        held = self.peek_at(self.offset, min(self._end - self.offset, len(target)))
        if held:
            target[: len(held)] = held
            self.offset += len(held)
            return len(held)
        with _failing(self._end):
            count = self._readinto(target) or 0
        self._end += count
        self.offset = self._end
        return count

    def _fill(self, end: int) -> None:
        """Read up to byte ``end`` at least, or to the input's end."""
        while self._end < end and self._read_some(end):
            pass

    def _read_ahead(self, least: int, most: int) -> None:
        """Read once, if not even byte ``least`` is reached, and on towards ``most`` without waiting.

        Not for less than a half of that, as what is held is moved.
        """
        waits, enough = self._end < least, self.offset + (most - self.offset) // 2
        try:
            while self._failure is None and (waits or (self._end < enough and self._ready())):
                if not self._read_some(least if waits else most):
                    return
                waits = False
        except BlkmigError as error:
            # What is held may still be a shorter record; who needs more gets the error.
            self._failure = error

    def _read_some(self, end: int) -> int:
        """Read once, towards byte ``end``; return how many bytes came, 0 at the input's end."""
        if self._failure is not None:
            raise self._failure
        if end - self._at > len(self._buffer):
            self._make_room(end)
        view = memoryview(self._buffer)[self._end - self._at :]
        with _failing(self._end):
            count = self._readinto(view) or 0
        self._end += count
        return count

    def _make_room(self, end: int) -> None:
        """Make room for some of the missing bytes up to ``end``.

        The buffer grows with the bytes that arrive, not with a length that the stream states.
        """
        needed = end - self._kept
        if needed > limits.PIPE_EVENT_MAX:
            raise LimitError(
                f"an object needs over {limits.PIPE_EVENT_MAX >> 20} MiB of memory from a pipe",
                offset=self._kept,
                hint="save the stream to a file and read that",
            )
        first = max(self._kept - _HISTORY, self._at)
        room, held = len(self._buffer), self._end - first
        grows = end - first > room == held
        if first == self._at and not grows:
            return
        old = memoryview(self._buffer)[first - self._at :][:held]
        if grows:
            # A new buffer, as a caller may hold a view of the old one.
            self._buffer = bytearray(min(2 * room, end - first))
        elif room < _ROOM <= self._end:
            self._buffer = bytearray(_ROOM)
        # From one memoryview to another, as these may overlap.
        memoryview(self._buffer)[:held] = old
        self._at = first
