"""Reading a pipe, unpacking and packing in a thread of its own, while the stream is decoded, or written.

A thread takes time to start and to talk to: it is worth it for streams of some size, and begins only
after the first bytes of one.
"""

import os
import queue
import select
import stat
import threading
from collections.abc import Callable
from contextlib import suppress

from blkmig_cli.system.process import join

# Bytes of a piece, and how many of these are ahead.
_PIECE = 1 << 20
_AHEAD = 4
# Bytes before the thread begins.
_BEGIN = 1 << 20


class _Stopped(Exception):  # noqa: N818 (not an error: nobody wants the bytes)
    """The thread is to stop."""


class Reading:
    """Reads ahead from ``readinto`` (fills a buffer, returns the count, 0 at the end) in a thread.

    ``readinto`` calls :meth:`wait` before it reads ``fd`` itself, so that the thread can be stopped where
    no byte comes.  What it raises is raised when the bytes before have been taken.
    """

    _threads = True

    def __init__(self, readinto: Callable[[memoryview], int], fd: int) -> None:
        self._readinto = readinto
        self._fd = fd
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._direct = 0
        self._thread: threading.Thread | None = None
        self._empty: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[tuple[bytearray, int] | Exception] = queue.SimpleQueue()
        self._buffer: bytearray | None = None
        self._piece = memoryview(b"")
        self._failure: Exception | None = None
        self._ended = False
        self._wake = -1

    @classmethod
    def use_no_threads(cls) -> None:
        """Read without threads in this process, as others like it use all processors."""
        cls._threads = False

    def readinto(self, target: memoryview) -> int:
        """Fill some of ``target`` with the next bytes; returns how many, 0 at the end."""
        if self._thread is None:
            if not self._threads or self._direct < _BEGIN:
                count = self._readinto(target)
                self._direct += count
                return count
            self._begin()
        if not self._piece and not self._next():
            return 0
        done = self._take(target)
        # What is there already makes longer runs; only the first piece is waited for, and failures wait.
        while done < len(target) and not self._filled.empty() and self._next_piece():
            done += self._take(target[done:])
        return done

    def ready(self) -> bool:
        """Return whether :meth:`readinto` need not wait for ``fd``."""
        if self._thread is None:
            return self._is_file
        return bool(self._piece) or not self._filled.empty()

    def _take(self, target: memoryview) -> int:
        """Move bytes of the piece to ``target``; return how many."""
        count = min(len(target), len(self._piece))
        target[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def wait(self) -> None:
        """Wait for bytes of ``fd``; ends the thread where it is to stop."""
        if self._wake < 0 or threading.current_thread() is not self._thread:
            return
        poll = select.poll()
        for fd in self._fd, self._wake:
            poll.register(fd, select.POLLIN)
        if any(fd == self._wake for fd, _ in poll.poll()):
            raise _Stopped

    def close(self) -> None:
        """Stop the thread, wait for it, and free its memory."""
        if self._thread is None:
            return
        os.eventfd_write(self._wake, 1)
        self._empty.put(None)
        join(self._thread)
        os.close(self._wake)
        self._wake = -1
        self._empty, self._filled = queue.SimpleQueue(), queue.SimpleQueue()
        self._buffer, self._piece = None, memoryview(b"")
        self._failure = ValueError("the stream is closed")

    def _begin(self) -> None:
        for _ in range(_AHEAD):
            self._empty.put(bytearray(_PIECE))
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)
        self._thread.start()

    def _next(self) -> bool:
        """Take the next piece; return False at the end, raise what the thread met."""
        found = self._next_piece()
        if self._failure is not None:
            raise self._failure
        return found

    def _next_piece(self) -> bool:
        """Take the next piece; return False at the end, and where it is a failure, which is noted."""
        if self._failure is not None or self._ended:
            return False
        if self._buffer is not None:
            self._empty.put(self._buffer)
            self._buffer = None
        found = self._filled.get()
        if isinstance(found, Exception):
            self._failure = found
            return False
        self._buffer, count = found
        self._piece = memoryview(self._buffer)[:count]
        self._ended = not count
        return bool(count)

    def _run(self) -> None:
        try:
            while (buffer := self._empty.get()) is not None:
                count = self._readinto(memoryview(buffer))
                self._filled.put((buffer, count))
                if not count:
                    return
        except Exception as error:  # noqa: BLE001 (it is raised where the bytes are wanted)
            self._filled.put(error)


class Writing:
    """Calls ``write`` with pieces, in order, in a thread.

    The error of one is raised by the next call of :meth:`write`, or by :meth:`finish`; further pieces are
    dropped, as are those that wait when it is closed.
    """

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._write = write
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def write(self, data: memoryview) -> None:
        """Pass on a copy of ``data``; waits where several pieces are ahead."""
        if self._thread is None and data:
            self._thread = threading.Thread(target=self._run, name="packing", daemon=True)
            self._thread.start()
        for at in range(0, len(data), _PIECE):
            self._raise()
            self._pieces.put(bytes(data[at : at + _PIECE]))

    def finish(self) -> None:
        """Wait until all has been written."""
        self._end()
        self._raise()

    def close(self, wait: float | None = None) -> None:
        """Wait until the thread has ended, at most ``wait`` seconds; what it has not begun is not written."""
        self._failure = _Stopped()
        self._end(wait)

    def _end(self, wait: float | None = None) -> None:
        if self._thread is not None:
            with suppress(queue.Full):
                self._pieces.put(None, timeout=wait)
                join(self._thread, wait)
            self._thread = None

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while (data := self._pieces.get()) is not None:
            if self._failure is None:
                try:
                    self._write(memoryview(data))
                except BaseException as error:  # noqa: BLE001 (it is raised in the other thread)
                    self._failure = error
