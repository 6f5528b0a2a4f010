"""Can disks be sent as they are to be?  Asked before the first byte is written."""

from typing import TYPE_CHECKING

from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.schemas.dirty_bitmap import granularity_fault
from blkmig_cli.text import encode_name, escape, quote

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap

_NAME_MAX = 255  # what its length byte can say


def check_disks(disks: list[Disk], options: SendOptions) -> None:
    """Can ``disks`` be sent so?  Raises UsageError, or FailureError where an image is not fit for it."""
    if len({disk.device for disk in disks}) < len(disks):
        raise UsageError("two disks have the same device")
    if unplaced(options.dialect, options.container, disks):
        what = "classic" if options.dialect == "classic" else "qemu in container none"
        raise UsageError(f"dialect {what} has no place for bitmaps")
    for disk in disks:
        for name in (disk.device, *(bitmap.name for bitmap in disk.bitmaps)):
            if len(encode_name(name)) > _NAME_MAX:
                raise UsageError(f"{quote(name)}: a name has at most {_NAME_MAX} bytes on the wire")
        if disk.bitmaps and not disk.device:
            raise UsageError("bitmaps need a device with a name")
        if disk.size % SECTOR_SIZE:
            whole = -(-disk.size // SECTOR_SIZE) * SECTOR_SIZE
            raise FailureError(
                f"{escape(disk.image.path)} has {disk.size} bytes, no multiple of {SECTOR_SIZE}",
                hint=f"make it whole with: truncate -s {whole} IMAGE",
            )
        if disk.bitmaps and not disk.size and options.dialect in ("v1", "v2"):
            raise FailureError(
                f"a disk of 0 bytes has no record for its bitmaps in {options.dialect}"
            )
        for bitmap in disk.bitmaps:
            _check_bitmap(bitmap, disk)


def _check_bitmap(bitmap: "DirtyBitmap", disk: Disk) -> None:
    fault = granularity_fault(bitmap.granularity)
    if fault is None and bitmap.end() > -(-disk.size // bitmap.granularity) * bitmap.granularity:
        fault = f"dirty up to byte {bitmap.end()} of a disk of {disk.size} bytes"
    if fault is not None:
        raise UsageError(f"bitmap {quote(bitmap.name)}: {fault}", device=disk.device)


def unplaced(dialect: str, container: str, disks: list[Disk]) -> bool:
    """Have the bitmaps of ``disks`` no place in this dialect and container?"""
    nowhere = dialect == "classic" or (dialect == "qemu" and container == "none")
    return nowhere and any(disk.bitmaps for disk in disks)
