"""Which bitmaps go with which disk to be sent: those beside its image, or in a file that is named."""

import os

from blkmig_cli.disks.bitmap_file import default_path, read_bitmaps
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.text import escape, quote


def attach_bitmaps(
    disks: list[Disk],
    paths: dict[str, str],
    files: dict[str | None, str],
    names: tuple[str, ...],
) -> list[str]:
    """Give ``disks`` the bitmaps called ``names`` (none: all) of their files; return the files read.

    ``paths`` are the images by device, ``files`` those that were named (None: for the only disk).
    Raises UsageError; FailureError where a bitmap is missing, or is of another disk.
    """
    if None in files and len(disks) > 1:
        raise UsageError("--bitmaps-from without DEVICE, and several images")
    for device in files:
        if device is not None and device not in paths:
            raise UsageError(f"--bitmaps-from: no image is called {quote(device)}")
    read = []
    found: set[str] = set()
    for disk in disks:
        file = files.get(disk.device, files.get(None))
        if file is None:
            file = default_path(paths[disk.device])
            if not os.path.exists(file):
                continue
        read.append(file)
        content = read_bitmaps(file)
        if content.size != disk.size:
            raise FailureError(
                f"{escape(file)} is of a disk of {content.size} bytes, "
                f"{escape(paths[disk.device])} has {disk.size}"
            )
        wanted = [bitmap for name, bitmap in content.bitmaps.items() if not names or name in names]
        disk.bitmaps = wanted
        found.update(bitmap.name for bitmap in wanted)
    missing = [name for name in names if name not in found]
    if missing:
        raise FailureError(f"no image has a bitmap {quote(missing[0])}")
    if not found:
        raise FailureError("no image has any bitmap", hint="say where with --bitmaps-from")
    return read
