"""Writing to a file or a block device past the system's cache (Linux, open(2): O_DIRECT).

What is written through the cache takes memory, which costs more than the writing when there is no free one,
and drops what others have in the cache.
"""

import errno
import mmap
import os
import threading
from contextlib import suppress

import numpy as np

# What file systems and devices demand of offsets, lengths and addresses: usually 512, 4096 at most.
_BLOCK = 4096
# Not supported by this file system, or not for this device's blocks.
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP)


def aligned_buffer(length: int) -> memoryview:
    """Return a writable buffer of ``length`` bytes, from which is written without another copy."""
    return memoryview(mmap.mmap(-1, length))


class DirectWriter:
    """Writes whole blocks to the file that is open as ``fd``; several threads may do so at a time."""

    def __init__(self, fd: int) -> None:
        self._fd = -1
        self._works = True
        self._buffers = threading.local()
        with suppress(OSError):  # a file system without it
            self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)

    def write(self, data: memoryview, offset: int) -> int:
        """Write what can be written so of ``data`` to byte ``offset``; return the number of bytes.

        That may be none.  Raises OSError.
        """
        length = len(data) & -_BLOCK
        if self._fd < 0 or not self._works or offset % _BLOCK or not length:
            return 0
        try:
            return os.pwrite(self._fd, self._aligned(data[:length]), offset)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self._works = False  # the descriptor stays, as another thread may be using it
            return 0

    def close(self) -> None:
        """Close the file; no thread may be writing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _aligned(self, data: memoryview) -> memoryview:
        """Return the bytes of ``data`` at an address that is a multiple of a block."""
        if np.frombuffer(data, np.uint8).ctypes.data % _BLOCK == 0:
            return data
        buffer = getattr(self._buffers, "buffer", None)
        if buffer is None or len(buffer) < len(data):
            buffer = self._buffers.buffer = aligned_buffer(len(data))
        copy = buffer[: len(data)]
        copy[:] = data
        return copy
