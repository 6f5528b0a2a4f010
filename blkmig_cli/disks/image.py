"""What a disk image can do.  All offsets, lengths and sizes are in bytes."""

from collections.abc import Iterator
from typing import Protocol


class Readable(Protocol):
    """A disk of ``size`` bytes that can be read.  Failures of the medium are FailureErrors."""

    path: str

    @property
    def size(self) -> int:
        """The virtual size."""

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``; what was never written reads as zeros."""

    def is_zero(self, offset: int, length: int) -> bool:
        """Return whether every byte of a range is zero; reads no further than it must."""

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """Write ``length`` bytes at ``offset`` to the descriptor ``target``, a ``pipe`` or not.

        Raises the OSErrors of ``target``.
        """

    def extents(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, length) that may hold other bytes than zeros, ascending."""

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, length) within extents known to be zero unread, ascending."""


class Image(Readable, Protocol):
    """A disk that can be written, too."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data`` at ``offset``; it must lie within the disk."""

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros; where the file system can, it takes no space then."""

    def has_data(self, offset: int, length: int) -> bool:
        """Return whether any of a range may take space, and so hold other bytes than zeros."""

    def resize(self, size: int) -> None:
        """Make the disk larger (with zeros) or smaller."""

    def flush(self) -> None:
        """Put everything written on stable storage."""

    def uncache(self) -> None:
        """Drop what the system caches of a flushed image: the next reads are from the medium.

        The system may keep some of it.
        """

    def close(self) -> None:
        """Close the image; its locks go with it."""


class Beginning:
    """The first ``size`` bytes of an image, as a disk of that size.

    What an image holds behind its disk (a block device may be larger) counts for nothing.
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

    def extents(self) -> Iterator[tuple[int, int]]:
        """See :class:`Readable`."""
        for start, length in self._image.extents():
            if start >= self._size:
                return
            yield start, min(length, self._size - start)

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :class:`Readable`."""
        return self._image.known_zeros(offset, length)
