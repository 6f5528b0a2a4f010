"""Raw images: files or block devices whose bytes are those of the disk.  Zeros become holes."""

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NoReturn

from blkmig_cli.disks.image import FilePart, announced
from blkmig_cli.disks.locks import lock
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.errors import FailureError, failing, reason
from blkmig_cli.system.atomic import write_back
from blkmig_cli.system.pipes import give_pages, write_all
from blkmig_cli.text import escape, quote

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap
    from blkmig_cli.disks.direct import DirectWriter

# <linux/falloc.h>: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
# Bytes per read: few enough for the processor's cache.
_PIECE = 256 << 10
_PROBE = 4 << 10
_ZEROS = bytes(_PIECE)
# Bytes that are written through the system's cache, so that a small disk is in it; of a large one, the rest
# is written past it.
_CACHED = 512 << 20


@cache
def _libc() -> ctypes.CDLL:
    """Return the C library, for fallocate: that of Python cannot punch holes."""
    return ctypes.CDLL(None, use_errno=True)


class RawImage:
    """See ``image.Image``.  Created by :func:`open_raw`; ``is_file``: it is not a block device."""

    def __init__(self, path: str, fd: int, size: int, *, is_file: bool = True) -> None:
        self.path = path
        self._is_file = is_file
        self._fd = fd
        self._size = size
        self._can_punch = True
        self._scratch = bytearray(0)
        self._written = 0
        self._direct: DirectWriter | None = None
        self._opening = threading.Lock()

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._size

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, whose size is the disk's, and not a device."""
        return self._is_file

    @property
    def has_backing(self) -> bool:
        """Return False."""
        return False

    @property
    def is_single_file(self) -> bool:
        """Whether it is a file."""
        return self._is_file

    def bitmaps(self) -> None:
        """See ``image.Image``: it has no place for bitmaps."""
        return

    def read_bitmap(self, name: str) -> NoReturn:
        """See ``image.Image``."""
        raise FailureError(f"{escape(self.path)} has no bitmap {quote(name)}")

    def dirty_ranges(self, name: str) -> NoReturn:
        """See ``image.Image``."""
        self.read_bitmap(name)

    def add_bitmap(self, name: str, granularity: int) -> NoReturn:
        """See ``image.Image``."""
        self.write_bitmaps([])

    def write_bitmaps(self, bitmaps: "Sequence[DirtyBitmap]") -> NoReturn:
        """See ``image.Image``."""
        raise FailureError(f"{escape(self.path)} has no place for bitmaps")

    def remove_bitmap(self, name: str) -> NoReturn:
        """See ``image.Image``."""
        raise FailureError(f"{escape(self.path)} has no bitmap {quote(name)}")

    def read(self, offset: int, length: int) -> bytes:
        """See ``image.Image``; raises FailureError where the file ends before its size."""
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
        """See ``image.Image``; examines few bytes first, as those of most data are not all zero."""
        piece = min(length, _PROBE)
        while length:
            found = self._fill(offset, piece)
            if not is_zero(memoryview(self._scratch)[:found]):
                return False
            offset += found
            length -= found
            piece = min(length, _PIECE)
        return True

    def data_in(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``image.Image``."""
        for start, end in self._data(offset, min(offset + length, self._size)):
            yield start, end - start

    def planned(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """See ``image.Image``."""
        return announced(ranges, self._data_places)

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """See ``image.Image``; raises FailureError where the image fails or ends."""
        if pipe:
            # The pipe takes the pages of the file without a copy.  (Into a file, two copies of a
            # small buffer are faster than sendfile, which uses a pipe of its own.)
            sent = give_pages(target, self._fd, offset, length)
            offset, length = offset + sent, length - sent
        while length:
            found = self._fill(offset, min(length, _PIECE))
            write_all(target, memoryview(self._scratch)[:found])
            offset += found
            length -= found

    def _fill(self, offset: int, length: int) -> int:
        """Read up to ``length`` bytes, at most _PIECE, into the buffer, which is reused."""
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

    def begin_writing(self) -> None:
        """See ``image.Image``."""

    def end_writing(self) -> None:
        """See ``image.Image``."""

    def write(self, offset: int, data: memoryview) -> None:
        """See ``image.Image``."""
        if offset < 0 or offset + len(data) > self._size:
            raise ValueError("a write past the disk's end")
        start, length = offset, len(data)
        self._written += length
        try:
            if self._written > _CACHED:
                written = self._direct_writer().write(data, offset)
                data, offset = data[written:], offset + written
            while data:
                written = os.pwrite(self._fd, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise self._failed(error, offset) from error
        if length >= _PIECE:
            write_back(self._fd, start, length)

    def write_part(self, offset: int, part: FilePart) -> bool:
        """See ``image.Image``: never, as two copies of a small buffer are faster than sendfile."""
        return False

    def _direct_writer(self) -> "DirectWriter":
        from blkmig_cli.disks.direct import DirectWriter  # noqa: PLC0415 (numpy is slow to load)

        with self._opening:
            if self._direct is None:
                self._direct = DirectWriter(self._fd)
            return self._direct

    def zero(self, offset: int, length: int) -> None:
        """See ``image.Image``; punches holes where there is data, or writes zeros if that fails."""
        if offset < 0 or offset + length > self._size:
            raise ValueError("a write past the disk's end")
        for start, end in self._data(offset, offset + length):
            if self._punch(start, end - start):
                continue
            for at in range(start, end, _PIECE):
                self.write(at, memoryview(_ZEROS)[: end - at])

    def resize(self, size: int) -> None:
        """See ``image.Image``; raises FailureError for a block device."""
        if not self._is_file:
            raise FailureError(f"{escape(self.path)} is a device of {self._size} bytes")
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise self._failed(error, size) from error
        self._size = size

    def places(self, offset: int, length: int) -> Sequence[FilePart]:
        """See ``image.Image``."""
        return [FilePart(self._fd, offset, length)]

    def _data_places(self, offset: int, length: int) -> Iterator[FilePart]:
        """Yield what of a range is data: to read a hole ahead would take memory."""
        for start, part in self.data_in(offset, length):
            yield FilePart(self._fd, start, part)

    def extents(self) -> Iterator[tuple[int, int]]:
        """See ``image.Image``; raises FailureError where the file ends before its size."""
        for start, end in self._data(0, self._size):
            yield start, end - start
        # After the end of a file that became shorter, the system reports a hole.
        if os.lseek(self._fd, 0, os.SEEK_END) < self._size:
            raise self._shrunk()

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``image.Image``: none, as a file's holes are in no extent."""
        yield from ()

    def flush(self) -> None:
        """See ``image.Image``."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failed(error, 0) from error

    def uncache(self) -> None:
        """See ``image.Image``."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """See ``image.Image``."""
        if self._direct is not None:
            self._direct.close()
        os.close(self._fd)

    def _data(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, end) of the bytes [offset, end) that are not holes, ascending."""
        while offset < end:
            start = self._seek(offset, os.SEEK_DATA)
            if start is None or start >= end:
                return
            offset = min(self._seek(start, os.SEEK_HOLE) or end, end)
            yield start, offset

    def _seek(self, offset: int, whence: int) -> int | None:
        """Return the next offset of data or a hole from ``offset`` on; None after the last data."""
        try:
            return os.lseek(self._fd, offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            # The file system does not support the call: treat all of the file as data.
            return offset if whence == os.SEEK_DATA else self._size

    def _punch(self, offset: int, length: int) -> bool:
        """Punch a hole; return whether the file system supports it."""
        if not self._can_punch:
            return False
        result = _libc().fallocate(
            self._fd, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)
        )
        if result and ctypes.get_errno() in (errno.EOPNOTSUPP, errno.ENOSYS):
            self._can_punch = False
        return bool(result == 0)

    def _failed(self, error: OSError, offset: int) -> FailureError:
        return FailureError(f"{escape(self.path)}: {reason(error)} at its byte {offset}")


def open_unlocked(path: str) -> RawImage:
    """Open the file at ``path``, which is locked otherwise, for reading; raises FailureError."""
    with failing(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return RawImage(path, fd, os.lseek(fd, 0, os.SEEK_END))


def open_raw(path: str, *, writable: bool, shared: bool = False, claimed: bool = False) -> RawImage:
    """Open the file or block device at ``path`` as a raw image, and lock it as QEMU does.

    ``shared``: read it even if others write it (-U).  ``claimed``: write a block device even if it is
    mounted (--force).

    Raises FailureError where it is missing, is neither a file nor a block device, or is in use.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise FailureError(f"{escape(path)} is neither a file nor a block device")
        if writable and not claimed and stat.S_ISBLK(mode):
            flags |= os.O_EXCL  # Linux: EBUSY where it is mounted, swapped to, or part of another
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise FailureError(
                f"{escape(path)} is mounted, or in use otherwise",
                hint="end that first, or use --force to write it all the same",
            ) from error
        missing = isinstance(error, FileNotFoundError) and writable
        hint = "use --create to make it" if missing else None
        raise FailureError(f"{escape(path)}: {reason(error)}", hint=hint) from error
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        lock(fd, path, writable=writable, shared=shared)
    except OSError as error:
        os.close(fd)
        raise FailureError(f"{escape(path)}: {reason(error)}") from error
    except FailureError:
        os.close(fd)
        raise
    return RawImage(path, fd, size, is_file=stat.S_ISREG(mode))
