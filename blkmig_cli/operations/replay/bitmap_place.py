"""The places to which a disk's bitmaps are written: a file, or the image itself.

They may already contain others.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, check_room, read_bitmaps, write_bitmaps
from blkmig_cli.disks.image import StoredBitmap
from blkmig_cli.disks.neighbours import exists
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas.constants import BITMAP_NAME_MAX
from blkmig_cli.text import encode_name, escape, quote

if TYPE_CHECKING:
    from blkmig_cli.operations.replay.destination import Destination


class BitmapPlace(Protocol):
    """A place for bitmaps.

    ``path``: the file.  ``in_image``: they are a part of the image, and written before it gets its name.
    """

    path: str
    in_image: bool

    @property
    def granularities(self) -> Mapping[str, int]:
        """The granularities of the bitmaps in the place, in bytes, by name."""

    def check(self, bitmaps: Mapping[str, DirtyBitmap], size: int | None) -> None:
        """Raise FailureError where it is certain that :meth:`write` would."""

    def write(self, bitmaps: Mapping[str, DirtyBitmap], size: int) -> list[str]:
        """Write ``bitmaps`` of a disk of ``size`` bytes; those in the place of other names are preserved.

        Returns the names of those of them that do not record the writes of this replay.  Raises
        FailureError.
        """


class BitmapsFile:
    """A place: the file of bitmaps at ``path``.

    ``image``: the path of the image that the file belongs to, if any.
    """

    in_image = False

    def __init__(self, path: str, image: str | None = None) -> None:
        self.path = path
        self._image = image
        self._bitmaps: dict[str, DirtyBitmap] = {}
        self._size: int | None = None

    @property
    def granularities(self) -> Mapping[str, int]:
        """See ``BitmapPlace``."""
        return {name: bitmap.granularity for name, bitmap in self._bitmaps.items()}

    def read(self) -> None:
        """Read the file if it exists; raises FailureError where it is not a file of bitmaps."""
        if exists(self.path):
            content = read_bitmaps(self.path)
            self._bitmaps, self._size = content.bitmaps, content.size

    def check_size(self, size: int | None) -> None:
        """Raise FailureError where the file is of a disk of another size than ``size`` (None: unknown)."""
        if None not in (size, self._size) and size != self._size:
            raise FailureError(
                f"{escape(self.path)} is of a disk of {self._size} bytes, not {size}",
                hint="remove it, or see --bitmaps-to",
            )

    def check(self, bitmaps: Mapping[str, DirtyBitmap], size: int | None) -> None:
        """See ``BitmapPlace``."""
        # That of an image is of the image's size, and all of it may be replaced when the disk grows.
        if self._image is None or set(self._bitmaps) - set(bitmaps):
            self.check_size(size)
        check_room(BitmapFile(size or 0, {**self._bitmaps, **bitmaps}))

    def write(self, bitmaps: Mapping[str, DirtyBitmap], size: int) -> list[str]:
        """See ``BitmapPlace``."""
        others = [name for name in self._bitmaps if name not in bitmaps]
        exists(self.path)
        write_bitmaps(self.path, BitmapFile(size, {**self._bitmaps, **bitmaps}), self._image)
        return others


class BitmapsInImage:
    """A place: the image of ``destination``, which has the bitmaps ``stored``."""

    in_image = True

    def __init__(self, destination: "Destination", stored: Sequence[StoredBitmap]) -> None:
        self.path = destination.path
        self._destination = destination
        self._stored = stored

    @property
    def granularities(self) -> Mapping[str, int]:
        """See ``BitmapPlace``."""
        known = ((found.name, found.granularity) for found in self._stored)
        return {name: granularity for name, granularity in known if granularity is not None}

    def check(self, bitmaps: Mapping[str, DirtyBitmap], size: int | None) -> None:
        """See ``BitmapPlace``."""
        for name in bitmaps:
            fault = None
            if not name.isprintable() and encode_name(name) != name.encode("utf-8", "replace"):
                fault = "QEMU accepts only UTF-8"
            elif len(encode_name(name)) > BITMAP_NAME_MAX:
                fault = f"it is over {BITMAP_NAME_MAX} bytes"
            if fault is not None:
                raise FailureError(
                    f"bitmap name {quote(name)}: {fault}",
                    hint="specify a file with --bitmaps-to, or use --no-bitmaps",
                )
        for found in self._stored:
            if found.name in bitmaps and found.fault is not None:
                raise FailureError(
                    f"{escape(self.path)}: bitmap {quote(found.name)}: {found.fault}",
                    hint=f"remove it with: qemu-img bitmap --remove {escape(self.path)} {escape(found.name)}",
                )

    def write(self, bitmaps: Mapping[str, DirtyBitmap], size: int) -> list[str]:
        """See ``BitmapPlace``; QEMU has recorded the writes in those that record."""
        self._destination.write_bitmaps(list(bitmaps.values()))
        return [
            found.name
            for found in self._stored
            if found.name not in bitmaps and not found.recording
        ]
