"""QEMU's own locks on an image, so that blkmig, qemu-img and a running guest refuse each other.

QEMU's file driver takes open-file-description locks on single bytes: 100 + b says that permission b is
in use, 200 + b that it is not shared with others.  Whoever opens the image takes its own bytes first,
and then looks for conflicts; so no two can both see none.
"""

import errno
import fcntl
import struct
from enum import IntEnum

from blkmig_cli.errors import FailureError
from blkmig_cli.text import escape

_USED = 100
_UNSHARED = 200
# struct flock: type, whence, start, length, pid (0 for this kind of lock).
_FLOCK = struct.Struct("@hhqqi0q")
_ABSENT = (errno.EINVAL, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)


class Permission(IntEnum):
    """Bits of QEMU's block permissions; the values are those of its locks' bytes."""

    CONSISTENT_READ = 0
    WRITE = 1
    RESIZE = 3


def lock(fd: int, path: str, *, writable: bool, shared: bool) -> None:
    """Lock the image open as ``fd``, for as long as it is open.

    A reader lets nobody write, a writer neither; ``shared`` (qemu-img's -U): a reader lets them.
    Raises FailureError where another program uses the image in a way that excludes this.  File
    systems without such locks have none.
    """
    used = [Permission.CONSISTENT_READ]
    if writable:
        used += [Permission.WRITE, Permission.RESIZE]
    unshared = [] if shared else [Permission.WRITE, Permission.RESIZE]
    try:
        for base, permissions in ((_USED, used), (_UNSHARED, unshared)):
            for permission in permissions:
                _set(fd, base + permission)
        taken = [p for p in used if _is_locked(fd, _UNSHARED + p)]
        taken += [p for p in unshared if _is_locked(fd, _USED + p)]
    except OSError as error:
        if error.errno in _ABSENT:
            return
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error
    if taken:
        name = taken[0].name.lower().replace("_", "-")
        raise FailureError(
            f"{escape(path)} is in use: another program does not share '{name}', or uses it",
            hint="end it first" if writable else "end it first, or read it all the same with -U",
        )


def _set(fd: int, byte: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, byte, 1, 0))


def _is_locked(fd: int, byte: int) -> bool:
    """Has somebody else locked ``byte``?"""
    question = _FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
