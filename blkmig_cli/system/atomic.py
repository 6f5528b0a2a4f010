"""Replacing files atomically: they have the old content or the new, never a part."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from blkmig_cli.errors import FailureError, failing
from blkmig_cli.text import escape

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# The attribute of a POSIX access control list (Linux, xattr(7)).
_ACL = "system.posix_acl_access"

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


@contextmanager
def replacing(path: str, temporary: str | None = None, like: str | None = None) -> Iterator[int]:
    """Open a descriptor for writing the new content of the file at ``path``.

    Leaving without an exception puts the content in place, on stable storage; with one, which may be
    an interruption, nothing changes and nothing is left.  The content is written to a new file in
    the same folder, which then replaces the old one atomically.  A symbolic link is followed, not
    replaced.  The mode of an existing file is preserved, and its owner, group and ACL where permitted; a
    new one gets its mode from the umask.  ``like``: a file, if it exists, whose mode and owner the
    new one gets instead.

    A killed program leaves the new file under a random name.  ``temporary`` gives it a name in the
    same folder instead, so that the next run removes it.  That is for blkmig's own files in the
    folder of an image, which only one program writes at a time: links are not followed then, and
    existing files at ``path`` and ``temporary`` must pass :func:`check_neighbour`.

    Raises FailureError, also where ``path`` is not a regular file.
    """
    with failing(path):
        if temporary is None:
            real = os.path.realpath(path)
            before = _regular(path, real)
            temporary = os.path.join(os.path.dirname(real), f".blkmig-{os.urandom(8).hex()}")
        else:
            real = path
            before = check_neighbour(path)
            if check_neighbour(temporary) is not None:
                os.unlink(temporary)
        source = real
        if like is not None and os.path.isfile(like):
            before, source = os.stat(like), like
    fd = -1
    try:
        with failing(path):
            # The replacement of a file that only its owner may read must not be readable by others.
            fd = os.open(temporary, _CREATE, 0o666 if before is None else 0o600)
        yield fd
        with failing(path):
            if before is not None:
                set_owner_and_mode(fd, before, source)
            os.fsync(fd)
            os.replace(temporary, real)
            sync_folder(real)
    except BaseException as error:
        # An interruption may occur between the creation of the file and the assignment to fd.
        if fd >= 0 or not isinstance(error, FailureError):
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise
    finally:
        if fd >= 0:
            os.close(fd)


def check_neighbour(path: str) -> os.stat_result | None:
    """Return the status of blkmig's own file at ``path``; None if it does not exist.

    Raises FailureError where it is a symbolic link, a FIFO, a device, or anything else that is not
    a regular file with one name: blkmig did not create it, and must not change it.
    """
    with failing(path):
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return None
    kind = _KINDS.get(stat.S_IFMT(found.st_mode))
    if kind is None and found.st_nlink > 1:
        kind = "a file with other hard links"
    if kind is not None:
        raise FailureError(f"{escape(path)} is {kind}", hint="remove or rename it")
    return found


def write_back(fd: int, offset: int, length: int) -> None:
    """Have the system start to write bytes of a file, so that a later fsync has less to wait for."""
    # Without waiting (Linux, mm/fadvise.c: generic_fadvise).  Where it cannot, fsync does all of it.
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def sync_folder(path: str) -> None:
    """Write the names in the folder of ``path`` to stable storage; raises OSError."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _regular(path: str, real: str) -> os.stat_result | None:
    """Return the status of the regular file at ``path``; None if it does not exist."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if not os.path.basename(path):
            raise  # the path is that of a folder
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if not os.path.samestat(found, os.stat(real)):
        # A file that has been removed, reached through its descriptor in /proc.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return found


def set_owner_and_mode(fd: int, before: os.stat_result, path: str) -> None:
    """Set the owner, group, mode and ACL of a file to those of the one that it replaces, where permitted.

    ``before``: the status of that file, which is at ``path``.  A group that cannot be set is not
    replaced by another with the same permissions.
    """
    mode, acl = stat.S_IMODE(before.st_mode), _acl(path)
    made = os.fstat(fd)
    if made.st_gid != before.st_gid:
        try:
            os.fchown(fd, -1, before.st_gid)
        except OSError:
            mode, acl = mode & 0o707, b""  # these permissions were for another group
    if made.st_uid != before.st_uid:
        try:
            os.fchown(fd, before.st_uid, -1)
        except OSError:
            mode &= 0o777  # setuid was for another user
    if acl:
        try:
            os.setxattr(fd, _ACL, acl)
        except OSError:
            mode &= 0o707  # with an ACL, those of the group are the most that it gives anybody
    with contextlib.suppress(OSError):
        os.fchmod(fd, mode)


def _acl(path: str) -> bytes:
    """Return the access control list of the file at ``path``; empty where there is none."""
    try:
        return os.getxattr(path, _ACL)
    except OSError:
        return b""
