"""Pipes with room: the fewer bytes fit, the more often both ends wait for each other."""

import contextlib
import fcntl
import os
import stat

_ROOM = 1 << 20  # what an unprivileged user may ask for


def widen(fd: int) -> bool:
    """Is ``fd`` a pipe?  Then it gets more room, where the system grants that."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return False
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _ROOM)
    return True
