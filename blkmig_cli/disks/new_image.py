"""New images: each is named IMAGE.partial until it is complete, and is then renamed atomically."""

import ctypes
import errno
import os
from functools import cache
from typing import Any

from blkmig_cli.disks.locks import lock
from blkmig_cli.disks.neighbours import exists
from blkmig_cli.disks.raw import RawImage
from blkmig_cli.errors import failing
from blkmig_cli.system.atomic import set_owner_and_mode, sync_folder

# <fcntl.h>, <linux/fs.h>
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


class NewImage(RawImage):
    """A raw image that is created at ``path`` and renamed by :meth:`finish`."""

    def finish(self, name: str, *, replace: bool) -> None:
        """Rename the flushed image to ``name``, on stable storage.

        ``replace``: replace a file of that name.  Otherwise raises FailureError where there is one;
        also where the renaming fails.
        """
        with failing(name):
            if replace:
                os.rename(self.path, name)
            else:
                _rename_new(self.path, name)
            sync_folder(name)
        self.path = name


def create_partial(path: str, like: str | None = None) -> NewImage:
    """Create a new, empty image at ``path``, locked.

    ``like``: the image that it will replace, whose mode, owner and ACL it gets.
    Raises FailureError where the path exists, or the image does not.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    if like is None:
        with failing(path):
            return _locked(path, os.open(path, flags, 0o666))
    with failing(like):
        before = os.stat(like)
    with failing(path):
        fd = os.open(path, flags, 0o600)
        set_owner_and_mode(fd, before, like)
    return _locked(path, fd)


def open_partial(path: str) -> NewImage:
    """Open the unfinished image at ``path``, locked.

    Raises FailureError where it is missing, in use, or not a file of blkmig.
    """
    exists(path)
    with failing(path):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    return _locked(path, fd)


def _locked(path: str, fd: int) -> NewImage:
    """Lock and return the image open at ``path`` as ``fd``, which is closed if this fails."""
    try:
        lock(fd, path, writable=True, shared=False)
        with failing(path):
            # Another process may have renamed or removed it before it was locked.
            if not os.path.samestat(os.fstat(fd), os.lstat(path)):
                raise FileNotFoundError(errno.ENOENT, "it was finished or removed just now")
            return NewImage(path, fd, os.lseek(fd, 0, os.SEEK_END))
    except BaseException:
        os.close(fd)
        raise


@cache
def _renameat2() -> Any:
    """Return renameat2(2) of the C library, which Python lacks; None if it is missing."""
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def _rename_new(path: str, name: str) -> None:
    """Rename ``path`` to ``name``, which must not exist; raises OSError.

    Not by link(2): the image must never have a second name.
    """
    rename = _renameat2()
    if rename is not None:
        old, new = os.fsencode(path), os.fsencode(name)
        if rename(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), name)
    # A C library or file system without it.
    if os.path.lexists(name):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
    os.rename(path, name)
