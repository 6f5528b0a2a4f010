"""Pipes with room, as small ones make both ends wait for each other; and pipes that do not wait.

Whoever started us may have made our pipes non-blocking (ssh, node and others do): we wait ourselves.
"""

import contextlib
import fcntl
import io
import os
import select
import stat

_ROOM = 1 << 20  # what an unprivileged user may ask for


def widen(fd: int) -> bool:
    """Is ``fd`` a pipe?  Then it gets more room, where the system grants that."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return False
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _ROOM)
    return True


def write_all(fd: int, data: memoryview) -> None:
    """Write all of ``data``; raises OSError.

    BlockingIOError comes of a blocking socket only: its peer took nothing for too long.
    """
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            if os.get_blocking(fd):
                raise
            _wait(fd, select.POLLOUT)


def give_pages(pipe: int, fd: int, offset: int, length: int) -> int:
    """Give a pipe the pages of the file ``fd`` themselves; returns how many bytes it took.

    What it did not take, whoever reads and writes will find out why.  Raises BrokenPipeError.
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
    """Read into ``target`` what there is, once there is anything; 0 at the end.  Raises OSError."""
    while (count := raw.readinto(target)) is None:
        _wait(raw.fileno(), select.POLLIN)
    return count


def _wait(fd: int, event: int) -> None:
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()
