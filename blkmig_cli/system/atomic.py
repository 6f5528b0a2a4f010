"""Files that hold their old content or the new, never a part."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def replacing(path: str, temporary: str | None = None) -> Iterator[int]:
    """A descriptor to write the new content of ``path`` to.

    Leaving without an exception puts it in place, on stable storage; with one, nothing is left.
    Who is killed meanwhile leaves a temporary file: where nobody else writes ``path``, it can have a
    name, so that the next one takes its place.  Raises OSError, also where no file stands there.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "is no file", path)
    if temporary is None:
        fd, temporary = tempfile.mkstemp(prefix=".blkmig-", dir=os.path.dirname(path) or ".")
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
    try:
        yield fd
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(fd, 0o666 & ~umask)
        os.fsync(fd)
        os.replace(temporary, path)
        sync_folder(path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def sync_folder(path: str) -> None:
    """Put the names in the folder of ``path`` on stable storage; raises OSError."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
