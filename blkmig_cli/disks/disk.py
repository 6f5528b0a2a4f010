"""A disk with its device name, image and bitmaps; and the errors for records past a disk's end."""

from dataclasses import field
from typing import TYPE_CHECKING

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.image import Readable
from blkmig_cli.errors import FailureError, IncompleteError
from blkmig_cli.schemas.constants import BLOCK_SECTION

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap


@dataclass(slots=True)
class Disk:
    """A disk to send: its device name, image and bitmaps.  ``size`` in bytes, a multiple of 512.

    ``partial``: only the extents of the image are known; the rest is never sent.
    ``open_ended``: its size is not known, and may be larger than that of the image: of a partial disk,
    nothing behind the image is sent either.
    """

    device: str
    image: Readable
    bitmaps: "list[DirtyBitmap]" = field(default_factory=list)
    partial: bool = False
    open_ended: bool = False

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self.image.size


def past_end(device: str, sector: int, offset: int, size: int) -> IncompleteError:
    """Return the error for a record at ``sector`` of a disk of ``size`` bytes.

    ``offset``: that of the record, in bytes of the stream.
    """
    return IncompleteError(
        f"a record lies past the disk's end at byte {size}",
        offset=offset,
        section=BLOCK_SECTION,
        device=device,
        sector=sector,
        hint="check --device-size",
        check="sector-past-end",
    )


def image_too_small(device: str, sector: int, offset: int, size: int) -> FailureError:
    """Return the error for a record at ``sector``, past the end of an image of ``size`` bytes."""
    return FailureError(
        f"a record lies past the disk's end at byte {size}",
        offset=offset,
        section=BLOCK_SECTION,
        device=device,
        sector=sector,
        hint="use a larger image, or check --device-size",
    )
