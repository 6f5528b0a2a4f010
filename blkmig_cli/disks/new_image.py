"""New images: each is named IMAGE.partial until it is complete, and is then renamed atomically."""

import ctypes
import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from blkmig_cli.disks.formats import RAW
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.locks import lock
from blkmig_cli.disks.neighbours import exists
from blkmig_cli.disks.open import open_image
from blkmig_cli.disks.raw import RawImage
from blkmig_cli.errors import FailureError, failing
from blkmig_cli.system.atomic import set_owner_and_mode, sync_folder
from blkmig_cli.text import escape

# <fcntl.h>, <linux/fs.h>
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


def create_partial(
    path: str,
    like: str | None = None,
    image_format: str = RAW,
    size: int = 0,
    options: Sequence[str] = (),
) -> Image:
    """Create a new image at ``path``, locked; a raw one is empty, any other has ``size`` bytes.

    ``like``: the image that it will replace, whose mode, owner and ACL it gets.  ``options``: those
    of its format, as for ``qemu-img create -o``.  Raises FailureError where the path exists, the image
    does not, or it cannot be created with these options.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    if like is None:
        with failing(path):
            fd = os.open(path, flags, 0o666)
    else:
        with failing(like):
            before = os.stat(like)
        with failing(path):
            fd = os.open(path, flags, 0o600)
            set_owner_and_mode(fd, before, like)
    image = _locked(path, fd)
    if image_format == RAW:
        return image
    try:
        return create_over(image, image_format, size, options)
    except BaseException:
        with suppress(FileNotFoundError):  # qemu-img removes it, too
            os.unlink(path)
        raise


def open_partial(path: str) -> RawImage:
    """Open the unfinished image at ``path`` as a raw one, locked.

    Raises FailureError where it is missing, in use, or not a file of blkmig.
    """
    exists(path)
    with failing(path):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    return _locked(path, fd)


def create_over(image: RawImage, image_format: str, size: int, options: Sequence[str]) -> Image:
    """Create an image of another format in the file of ``image``, which is closed.

    Raises FailureError where that fails, or the format has no disks of this size.
    """
    path = image.path
    image.close()
    from blkmig_cli.disks.qemu.create import create  # noqa: PLC0415 (only for these images)
    from blkmig_cli.disks.qemu.daemon import StorageDaemon  # noqa: PLC0415

    daemon = StorageDaemon(path)
    try:
        # It starts while the image is created.
        create(path, image_format, size, options)
        from blkmig_cli.disks.qemu.image import open_qemu  # noqa: PLC0415

        made = open_qemu(daemon, path, image_format, writable=True)
    except BaseException:
        daemon.close()
        raise
    if made.size != size:
        made.close()
        raise FailureError(
            f"{escape(path)}: an image of format {image_format} has {made.size} bytes, not {size}",
            hint="use another format",
        )
    return made


def open_in_format(path: str, image_format: str) -> Image:
    """Open the unfinished image at ``path`` in its format, for writing; raises FailureError."""
    return open_image(path, writable=True, image_format=image_format)


def finish(image: Image, name: str, *, replace: bool) -> None:
    """Rename the flushed ``image`` to ``name``, on stable storage.

    ``replace``: replace a file of that name.  Otherwise raises FailureError where there is one;
    also where the renaming fails.
    """
    with failing(name):
        if replace:
            os.rename(image.path, name)
        else:
            _rename_new(image.path, name)
        sync_folder(name)
    image.path = name


def _locked(path: str, fd: int) -> RawImage:
    """Lock and return the image open at ``path`` as ``fd``, which is closed if this fails."""
    try:
        lock(fd, path, writable=True, shared=False)
        with failing(path):
            # Another process may have renamed or removed it before it was locked.
            if not os.path.samestat(os.fstat(fd), os.lstat(path)):
                raise FileNotFoundError(errno.ENOENT, "it was finished or removed just now")
            return RawImage(path, fd, os.lseek(fd, 0, os.SEEK_END))
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
