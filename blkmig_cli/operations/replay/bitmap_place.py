"""The file to which a disk's bitmaps are written; it may already contain others."""

from collections.abc import Mapping

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, check_room, read_bitmaps, write_bitmaps
from blkmig_cli.disks.neighbours import exists
from blkmig_cli.errors import FailureError
from blkmig_cli.text import escape


class BitmapPlace:
    """The file of bitmaps at ``path``; ``bitmaps`` are those in it, by name.

    ``image``: the path of the image that the file belongs to, if any.
    """

    def __init__(self, path: str, image: str | None = None) -> None:
        self.path = path
        self._image = image
        self.bitmaps: dict[str, DirtyBitmap] = {}
        self._size: int | None = None

    def read(self) -> None:
        """Read the file if it exists; raises FailureError where it is not a file of bitmaps."""
        if exists(self.path):
            content = read_bitmaps(self.path)
            self.bitmaps, self._size = content.bitmaps, content.size

    def check_size(self, size: int | None) -> None:
        """Raise FailureError where the file is of a disk of another size than ``size`` (None: unknown)."""
        if None not in (size, self._size) and size != self._size:
            raise FailureError(
                f"{escape(self.path)} is of a disk of {self._size} bytes, not {size}",
                hint="remove it, or see --bitmaps-to",
            )

    def check(self, bitmaps: Mapping[str, DirtyBitmap], size: int | None) -> None:
        """Raise FailureError where it is certain that :meth:`write` would."""
        self.check_size(size)
        check_room(BitmapFile(size or 0, {**self.bitmaps, **bitmaps}))

    def write(self, bitmaps: Mapping[str, DirtyBitmap], size: int) -> list[str]:
        """Write ``bitmaps`` of a disk of ``size`` bytes; those in the file of other names are preserved.

        Returns the names of these.  Raises FailureError.
        """
        others = [name for name in self.bitmaps if name not in bitmaps]
        exists(self.path)
        write_bitmaps(self.path, BitmapFile(size, {**self.bitmaps, **bitmaps}), self._image)
        return others
