"""The interface of disk images.  All offsets, lengths and sizes are in bytes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas.constants import CHUNK_SIZE

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap

# Ranges that are announced before they are read, of each at most a chunk.
_ANNOUNCED = 8


@dataclass(frozen=True, slots=True)
class FilePart:
    """``length`` bytes from ``offset`` on of the file that is open as ``fd``."""

    fd: int
    offset: int
    length: int

    def will_need(self) -> None:
        """Have the system read it into its cache without waiting, as it is read next (posix_fadvise(2))."""
        if self.length and not self._is_cached():
            with suppress(OSError):  # it is advice
                os.posix_fadvise(self.fd, self.offset, self.length, os.POSIX_FADV_WILLNEED)

    def _is_cached(self) -> bool:
        """Return whether the first and the last byte are in the cache, which is faster than advice."""
        try:
            for at in (self.offset, self.offset + self.length - 1):
                os.preadv(self.fd, [bytearray(1)], at, os.RWF_NOWAIT)
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class StoredBitmap:
    """A bitmap that is stored in an image.

    ``granularity`` in bytes; None where it is not known.  ``recording``: QEMU's "enabled".  ``fault``:
    why it cannot be read.
    """

    name: str
    granularity: int | None
    recording: bool = True
    fault: str | None = None


def announced(
    ranges: Iterable[tuple[int, int]], places: Callable[[int, int], Iterable[FilePart]]
) -> Iterator[tuple[int, int]]:
    """Yield ``ranges`` (start, length) of a disk; the system is told before to read those that come next.

    Of each, that is the first chunk.  ``places`` returns where a range is in open files, as far as that is
    known.
    """
    coming: deque[tuple[int, int]] = deque()
    for start, length in ranges:
        for part in places(start, min(length, CHUNK_SIZE)):
            part.will_need()
        coming.append((start, length))
        if len(coming) > _ANNOUNCED:
            yield coming.popleft()
    yield from coming


class Readable(Protocol):
    """A disk of ``size`` bytes that can be read.  Failures of the medium are FailureErrors."""

    path: str

    @property
    def size(self) -> int:
        """The virtual size."""

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``; unallocated ranges read as zeros."""

    def is_zero(self, offset: int, length: int) -> bool:
        """Return whether every byte of a range is zero; reads no more than necessary."""

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """Write ``length`` bytes at ``offset`` to the descriptor ``target``; ``pipe``: it is a pipe.

        Raises the OSErrors of ``target``.
        """

    def places(self, offset: int, length: int) -> "Sequence[FilePart]":
        """Return where the bytes of a range are in open files, in order; empty where that is not known.

        They can be read there by several threads.
        """

    def extents(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, length) that may contain non-zero bytes, ascending."""

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, length) within extents known to be zero unread, ascending."""


class Image(Readable, Protocol):
    """A disk that can also be written, and may have a place for bitmaps."""

    @property
    def is_file(self) -> bool:
        """Whether its size is the disk's.  A block device or an NBD export may be larger."""

    @property
    def has_backing(self) -> bool:
        """Whether its unallocated ranges are those of a backing file."""

    @property
    def is_single_file(self) -> bool:
        """Whether its content depends on the file at its path alone."""

    def bitmaps(self) -> Sequence[StoredBitmap] | None:
        """Return the bitmaps stored in the image; None where it has no place for any."""

    def read_bitmap(self, name: str) -> "DirtyBitmap":
        """Return the bitmap ``name`` of the image; raises FailureError where it has a fault."""

    def dirty_ranges(self, name: str) -> Iterator[tuple[int, int]]:
        """Return the ranges (start, length) that are dirty in the bitmap ``name``, ascending.

        Raises as :meth:`read_bitmap`.
        """

    def add_bitmap(self, name: str, granularity: int) -> None:
        """Store a new bitmap without dirty granules, which records from now on; see :meth:`write_bitmaps`."""

    def write_bitmaps(self, bitmaps: "Sequence[DirtyBitmap]") -> None:
        """Store ``bitmaps`` in the image, in place of those of the same names.

        The disk has been written before, and is not written afterwards.
        """

    def remove_bitmap(self, name: str) -> None:
        """Remove the bitmap ``name`` from the image; raises FailureError where there is none."""

    def begin_writing(self) -> None:
        """Prepare for writes; called once before the first one.  Until then, the image does not change."""

    def end_writing(self) -> None:
        """Finish after the last write; from then on, its file does not change."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data`` at ``offset``; it must lie within the disk."""

    def write_part(self, offset: int, part: FilePart) -> bool:
        """Write bytes of a file at ``offset``, uncopied; return whether that was done.

        It is not where the image cannot, or the bytes may all be zeros.
        """

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, and deallocate it if the file system can."""

    def data_in(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield the parts (start, length) of a range that may contain non-zero bytes, ascending."""

    def planned(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield ``ranges`` (start, length), ascending, of which it is told that they are read next."""

    def resize(self, size: int) -> None:
        """Make the disk larger (with zeros) or smaller."""

    def flush(self) -> None:
        """Write everything to stable storage."""

    def uncache(self) -> None:
        """Drop the system's cache of a flushed image, so that the next reads are from the medium.

        The system may drop only a part of it.
        """

    def close(self) -> None:
        """Close the image and release its locks."""


class Beginning:
    """The first ``size`` bytes of an image, as a disk of that size.

    Anything after the disk's end (a block device may be larger) is ignored.
    """

    def __init__(self, image: Readable, size: int) -> None:
        self.path = image.path
        self._image = image
        self._size = min(size, image.size)

    @property
    def size(self) -> int:
        """The virtual size."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """See :class:`Readable`."""
        return self._image.read(offset, length)

    def is_zero(self, offset: int, length: int) -> bool:
        """See :class:`Readable`."""
        return self._image.is_zero(offset, length)

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """See :class:`Readable`."""
        self._image.copy_to(target, offset, length, pipe=pipe)

    def places(self, offset: int, length: int) -> Sequence[FilePart]:
        """See :class:`Readable`."""
        return self._image.places(offset, length)

    def extents(self) -> Iterator[tuple[int, int]]:
        """See :class:`Readable`."""
        for start, length in self._image.extents():
            if start >= self._size:
                return
            yield start, min(length, self._size - start)

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :class:`Readable`."""
        return self._image.known_zeros(offset, length)
