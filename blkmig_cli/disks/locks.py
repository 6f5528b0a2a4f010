"""Locks on images, compatible with QEMU, so that blkmig, qemu-img and QEMU exclude each other.

QEMU's file driver (block/file-posix.c, raw_apply_lock_bytes and raw_check_lock_bytes, since 2.10) takes
open-file-description locks on single bytes: 100 + b for a permission b that is used, 200 + b for one that
is not shared with others.  A process locks its own bytes first, and then tests for those of others; so
of two processes, at least one detects the other.
"""

import errno
import fcntl
import struct
from enum import IntEnum

from blkmig_cli.errors import FailureError, reason
from blkmig_cli.text import escape

_USED = 100
_UNSHARED = 200
# struct flock: type, whence, start, length, pid (0 for this kind of lock).
_FLOCK = struct.Struct("@hhqqi0q")
_ABSENT = (errno.EINVAL, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)


class Permission(IntEnum):
    """Numbers of QEMU's block permissions (include/block/block-common.h, BLK_PERM_*: 1 << number)."""

    CONSISTENT_READ = 0
    WRITE = 1
    RESIZE = 3


def lock(fd: int, path: str, *, writable: bool, shared: bool) -> None:
    """Lock the image open as ``fd``, for as long as it is open.

    Readers and writers exclude other writers; with ``shared`` (qemu-img's -U), readers do not.  On a
    file system without such locks nothing is locked.  Raises FailureError where another program uses
    the image in a conflicting way.
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
        raise FailureError(f"{escape(path)}: {reason(error)}") from error
    if taken:
        name = taken[0].name.lower().replace("_", "-")
        raise FailureError(
            f"{escape(path)} is in use: another program does not share '{name}', or uses it",
            hint="end it first" if writable else "end it first, or use -U to read it all the same",
        )


def _set(fd: int, byte: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, byte, 1, 0))


def _is_locked(fd: int, byte: int) -> bool:
    """Return whether another open file has locked ``byte``."""
    question = _FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
