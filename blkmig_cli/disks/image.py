"""What a disk image must be able to do.  All offsets, lengths and sizes are in bytes."""

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
        """Is every byte of a range zero?  Reads no further than it must."""

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """Write ``length`` bytes at ``offset`` to the descriptor ``target``, a ``pipe`` or not.

        The OSErrors of ``target`` are raised as they are.
        """

    def extents(self) -> Iterator[tuple[int, int]]:
        """Ranges (start, length) that may hold something else than zeros, ascending."""


class Image(Readable, Protocol):
    """A disk that can be written, too."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write ``data`` at ``offset``; it must lie within the disk."""

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, without using space where that can be had."""

    def resize(self, size: int) -> None:
        """Make the disk larger (with zeros) or smaller."""

    def flush(self) -> None:
        """Return when everything written is on stable storage."""

    def uncache(self) -> None:
        """Forget what is cached of a flushed image: the next reads are from the medium, if possible."""

    def finish(self) -> None:
        """As :meth:`flush`; an image that was made now stands under its name."""

    def close(self) -> None:
        """Let go of the image."""
