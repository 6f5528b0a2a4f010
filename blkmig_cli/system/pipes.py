"""Pipes: larger buffers, so that the two ends wait less for each other, and non-blocking pipes.

The parent process may have made its pipes non-blocking (ssh, node and others do).
"""

import contextlib
import fcntl
import io
import os
import select
import stat

_SIZE = 1 << 20  # bytes; the most that a user may request (fs.pipe-max-size)


def widen(fd: int) -> bool:
    """Enlarge the buffer of ``fd`` if it is a pipe and the system permits; return whether it is one."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return False
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _SIZE)
    return True


def write_all(fd: int, data: memoryview) -> None:
    """Write all of ``data``; raises OSError.

    BlockingIOError is raised for a blocking socket only, whose peer did not read in time.
    """
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            if os.get_blocking(fd):
                raise
            _wait(fd, select.POLLOUT)


def give_pages(pipe: int, fd: int, offset: int, length: int) -> int:
    """Move ``length`` bytes of the file ``fd`` to a pipe without a copy; returns the number moved.

    It may be fewer for any reason: reading and writing the rest shows which.  Raises
    BrokenPipeError.
    """
    sent = 0
    try:
        while sent < length:
            more = os.sendfile(pipe, fd, offset + sent, length - sent)
            if not more:
                break
            sent += more
    except BrokenPipeError:
        raise
    except OSError:
        pass
    return sent


def read_some(raw: io.RawIOBase, target: memoryview) -> int:
    """Read available bytes into ``target``, waiting for the first; returns the count, 0 at the end.

    Raises OSError.
    """
    while (count := raw.readinto(target)) is None:
        _wait(raw.fileno(), select.POLLIN)
    return count


def _wait(fd: int, event: int) -> None:
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()
