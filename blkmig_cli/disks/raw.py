"""Raw images: a file or block device whose bytes are the disk's.  Zeros become holes."""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from functools import cache

from blkmig_cli.disks.locks import lock
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.errors import FailureError
from blkmig_cli.system.pipes import give_pages, write_all
from blkmig_cli.text import escape

# A raw image that starts so is another format's file, unless its owner says otherwise (-f raw).
_OTHER_FORMATS = {
    b"QFI\xfb": "qcow2",
    b"QED\0": "qed",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vpc",
    b"<<< ": "vdi",
    b"WithoutFreeSpace": "parallels",
    b"WithouFreSpacExt": "parallels",
    b"LUKS\xba\xbe": "luks",
}
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
# What is read at once: it stays in the processor's cache until it has been looked at, or written.
_PIECE = 256 << 10
_PROBE = 4 << 10
_ZEROS = bytes(_PIECE)


@cache
def _libc() -> ctypes.CDLL:
    """The C library: Python has no fallocate that punches holes."""
    return ctypes.CDLL(None, use_errno=True)


class RawImage:
    """See ``base.Image``.  Made by :func:`open_raw`."""

    def __init__(self, path: str, fd: int, size: int, *, is_file: bool) -> None:
        self.path = path
        self._fd = fd
        self._size = size
        self._is_file = is_file
        self._can_punch = True
        self._scratch = bytearray(0)

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._size

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, whose size is the disk's; not a device."""
        return self._is_file

    def read(self, offset: int, length: int) -> bytes:
        """See ``base.Image``; raises FailureError where the file ends before its size."""
        pieces = []
        while length:
            try:
                piece = os.pread(self._fd, length, offset)
            except OSError as error:
                raise self._failed(error, offset) from error
            if not piece:
                raise self._shrunk()
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def is_zero(self, offset: int, length: int) -> bool:
        """See ``base.Image``; most data shows itself in the first bytes of a range."""
        piece = min(length, _PROBE)
        while length:
            found = self._fill(offset, piece)
            if not is_zero(memoryview(self._scratch)[:found]):
                return False
            offset += found
            length -= found
            piece = min(length, _PIECE)
        return True

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """See ``base.Image``; raises FailureError where the image fails or ends."""
        if pipe:
            # The pipe is given the file's own pages.  (Into a file, two copies of a small buffer
            # are faster than sendfile's way through a pipe of its own.)
            sent = give_pages(target, self._fd, offset, length)
            offset, length = offset + sent, length - sent
        while length:
            found = self._fill(offset, min(length, _PIECE))
            write_all(target, memoryview(self._scratch)[:found])
            offset += found
            length -= found

    def _fill(self, offset: int, length: int) -> int:
        """Read up to ``length`` bytes, at most a piece, into the buffer that is used again."""
        if not self._scratch:
            self._scratch = bytearray(_PIECE)
        try:
            found = os.preadv(self._fd, [memoryview(self._scratch)[:length]], offset)
        except OSError as error:
            raise self._failed(error, offset) from error
        if not found:
            raise self._shrunk()
        return found

    def _shrunk(self) -> FailureError:
        return FailureError(f"{escape(self.path)} became shorter while it was read")

    def write(self, offset: int, data: memoryview) -> None:
        """See ``base.Image``."""
        if offset < 0 or offset + len(data) > self._size:
            raise ValueError("a write past the disk's end")
        try:
            while data:
                written = os.pwrite(self._fd, data, offset)
                data = data[written:]
                offset += written
        except OSError as error:
            raise self._failed(error, offset) from error

    def zero(self, offset: int, length: int) -> None:
        """See ``base.Image``; punches holes where something lies, else writes zeros there."""
        if offset < 0 or offset + length > self._size:
            raise ValueError("a write past the disk's end")
        for start, end in self._data(offset, offset + length):
            if self._punch(start, end - start):
                continue
            for at in range(start, end, _PIECE):
                self.write(at, memoryview(_ZEROS)[: end - at])

    def resize(self, size: int) -> None:
        """See ``base.Image``; raises FailureError for a block device."""
        if not self._is_file:
            raise FailureError(f"{escape(self.path)} is a device of {self._size} bytes")
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise self._failed(error, size) from error
        self._size = size

    def extents(self) -> Iterator[tuple[int, int]]:
        """See ``base.Image``; raises FailureError where the file ends before its size."""
        for start, end in self._data(0, self._size):
            yield start, end - start
        # What has been cut off looks like a hole.
        if os.lseek(self._fd, 0, os.SEEK_END) < self._size:
            raise self._shrunk()

    def flush(self) -> None:
        """See ``base.Image``."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failed(error, 0) from error

    def finish(self) -> None:
        """See ``base.Image``."""
        self.flush()

    def uncache(self) -> None:
        """See ``base.Image``."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """See ``base.Image``."""
        os.close(self._fd)

    def _data(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """What of the bytes [offset, end) is no hole, as (start, end), ascending."""
        while offset < end:
            start = self._seek(offset, os.SEEK_DATA)
            if start is None or start >= end:
                return
            offset = min(self._seek(start, os.SEEK_HOLE) or end, end)
            yield start, offset

    def _seek(self, offset: int, whence: int) -> int | None:
        """Where data or a hole begins from ``offset`` on; None behind the last data."""
        try:
            return os.lseek(self._fd, offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            # No such call here: all of it is data.
            return offset if whence == os.SEEK_DATA else self._size

    def _punch(self, offset: int, length: int) -> bool:
        """Make a hole, or say that this cannot be had."""
        if not self._can_punch:
            return False
        result = _libc().fallocate(
            self._fd, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)
        )
        if result and ctypes.get_errno() in (errno.EOPNOTSUPP, errno.ENOSYS):
            self._can_punch = False  # here, or anywhere on this file system
        return bool(result == 0)

    def _failed(self, error: OSError, offset: int) -> FailureError:
        return FailureError(f"{escape(self.path)}: {error.strerror or error} at its byte {offset}")


def other_format(head: bytes) -> str | None:
    """The format whose magic ``head``, an image's first bytes, begins with; None: perhaps raw."""
    return next((name for magic, name in _OTHER_FORMATS.items() if head.startswith(magic)), None)


def open_raw(
    path: str, *, writable: bool, force: bool = False, shared: bool = False, claimed: bool = False
) -> RawImage:
    """Open the image at ``path``, and lock it as QEMU does.

    ``force`` takes it as raw whatever it starts with (-f raw); ``shared`` reads it even while others
    write (-U); ``claimed`` writes a block device even while it is mounted (--force).  Raises
    FailureError where it is missing, is no file or device, looks like another format, or is in use.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
    try:
        if writable and not claimed and stat.S_ISBLK(os.stat(path).st_mode):
            flags |= os.O_EXCL  # Linux: busy where it is mounted, swapped to, or part of another
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise FailureError(
                f"{escape(path)} is mounted, or in use otherwise",
                hint="end that first, or write it all the same with --force",
            ) from error
        hint = (
            "create it with --create" if isinstance(error, FileNotFoundError) and writable else None
        )
        raise FailureError(f"{escape(path)}: {error.strerror or error}", hint=hint) from error
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise FailureError(f"{escape(path)} is neither a file nor a block device")
        size = os.lseek(fd, 0, os.SEEK_END)
        kind = other_format(os.pread(fd, 32, 0))
        if kind is not None and not force:
            raise FailureError(
                f"{escape(path)} looks like {kind}, which is not supported",
                hint="convert it with qemu-img, or say -f raw if it is raw",
            )
        lock(fd, path, writable=writable, shared=shared)
    except OSError as error:
        os.close(fd)
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error
    except FailureError:
        os.close(fd)
        raise
    return RawImage(path, fd, size, is_file=stat.S_ISREG(mode))
