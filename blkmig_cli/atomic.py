"""Files that hold their old content or the new, never a part."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def replacing(path: str) -> Iterator[int]:
    """A descriptor to write the new content of ``path`` to.

    Leaving without an exception puts it in place, on stable storage; with one, nothing is left.
    Raises OSError, also where something stands there that is no file.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "is no file", path)
    fd, temporary = tempfile.mkstemp(prefix=".blkmig-", dir=os.path.dirname(path) or ".")
    try:
        yield fd
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(fd, 0o666 & ~umask)
        os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)
