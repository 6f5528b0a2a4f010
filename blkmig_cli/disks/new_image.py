"""New images: each is IMAGE.partial until all of it is there, and IMAGE from then on."""

import errno
import os

from blkmig_cli.disks.locks import lock
from blkmig_cli.disks.raw import RawImage
from blkmig_cli.errors import FailureError
from blkmig_cli.system.atomic import sync_folder
from blkmig_cli.text import escape


class NewImage(RawImage):
    """A raw image that gets its name when it is finished, and not before."""

    def __init__(self, path: str, fd: int, size: int) -> None:
        super().__init__(path, fd, size, is_file=True)
        self._named = False

    def finish(self) -> None:
        """See ``base.Image``."""
        self.flush()
        if not self._named:
            try:
                _appear(partial_path(self.path), self.path)
            except OSError as error:
                raise self._failed(error, 0) from error
            self._named = True


def partial_path(path: str) -> str:
    """Where a new image called ``path`` stands until all of it is there."""
    return f"{path}.partial"


def create_raw(path: str, size: int) -> NewImage:
    """Make a new sparse image of ``size`` bytes; an existing file is never touched.

    Raises FailureError.
    """
    partial = partial_path(path)
    if os.path.lexists(path):
        raise FailureError(f"{escape(path)}: File exists")
    try:
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise half_done(path) from error
    except OSError as error:
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error
    image = NewImage(path, fd, 0)
    try:
        lock(fd, path, writable=True, shared=False)
    except FailureError:
        image.close()  # whoever was faster goes on with it
        raise
    try:
        image.resize(size)
    except FailureError:
        image.close()
        os.unlink(partial)
        raise
    return image


def reopen_raw(path: str) -> NewImage:
    """Open what a replay has left of the new image ``path``; raises FailureError."""
    partial = partial_path(path)
    try:
        fd = os.open(partial, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            lock(fd, partial, writable=True, shared=False)
            if not os.path.samestat(os.fstat(fd), os.lstat(partial)):
                raise FileNotFoundError(errno.ENOENT, "it has just been finished, or removed")
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise FailureError(f"{escape(partial)}: {error.strerror or error}") from error
    return NewImage(path, fd, os.lseek(fd, 0, os.SEEK_END))


def half_done(path: str) -> FailureError:
    """What to raise where a replay onto ``path`` has begun, and nobody asked to go on with it."""
    return FailureError(
        f"{escape(path)} is half done: a replay broke off, or another is at work",
        hint="continue it with --resume, or start afresh with --restart",
    )


def _appear(partial: str, path: str) -> None:
    """Give a finished file its name, which nobody else may have taken meanwhile; raises OSError."""
    try:
        os.link(partial, path)
    except PermissionError:  # a file system without links
        if os.path.exists(path):
            raise FileExistsError(errno.EEXIST, "File exists") from None
        os.rename(partial, path)
    else:
        os.unlink(partial)
    sync_folder(path)
