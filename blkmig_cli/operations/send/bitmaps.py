"""Selecting the bitmaps of a stream's disks: from specified files, or from those of the images."""

import os
from collections.abc import Mapping

from blkmig_cli.checks.names import Key, find_bitmaps, find_device, split_bitmap
from blkmig_cli.disks.bitmap_file import read_bitmaps
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.neighbours import bitmaps_path
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.send.changes import Files
from blkmig_cli.text import escape, quote


def add_bitmaps(disks: list[Disk], files: Files) -> None:
    """Add all bitmaps of ``files`` to ``disks``, replacing those of the same name.

    Raises UsageError where a device is unknown or not specified, FailureError where a file is missing,
    damaged, or of a disk of another size.
    """
    by_name = {disk.device: disk for disk in disks}
    if None in files and len(disks) != 1:
        names = ", ".join(map(quote, by_name)) or "none"
        raise UsageError(f"--bitmaps-from without DEVICE, and the devices are {names}")
    for device, path in files.items():
        if device is not None:
            find_device("--bitmaps-from", device, by_name)
        disk = disks[0] if device is None else by_name[device]
        content = read_bitmaps(path)
        if content.size != disk.size:
            raise FailureError(
                f"{escape(path)} is of a disk of {content.size} bytes, not {disk.size}",
                device=disk.device,
            )
        others = [bitmap for bitmap in disk.bitmaps if bitmap.name not in content.bitmaps]
        disk.bitmaps = [*others, *content.bitmaps.values()]


def attach_bitmaps(
    disks: list[Disk], images: Mapping[str, Image], files: Files, names: tuple[str, ...]
) -> list[str]:
    """Add the bitmaps ``names`` (empty: all) of ``files`` to ``disks``, else those of their images.

    ``images``: by device.  Those of an image are stored in it, or in its file IMAGE.bitmaps.json.
    Returns the files that were read.  Raises UsageError for a name that no disk has, FailureError
    where no disk has any bitmap, or a bitmap has a fault; and as :func:`add_bitmaps`.
    """
    beside: dict[str | None, str] = {}
    stored: list[Key] = []
    for device, image in images.items():
        if device in files or None in files:
            continue
        found = image.bitmaps()
        if found is not None:
            stored += [(device, bitmap.name) for bitmap in found]
        elif image.is_file and os.path.exists(path := bitmaps_path(image.path)):
            beside[device] = path
    read = {**beside, **files}
    add_bitmaps(disks, read)
    known = [(disk.device, bitmap.name) for disk in disks for bitmap in disk.bitmaps] + stored
    if not known and not names:
        raise FailureError("no image has any bitmap", hint="specify a file with --bitmaps-from")
    wanted = {key for name in names for key in find_bitmaps("--bitmap", split_bitmap(name), known)}
    wanted = wanted or set(known)
    for disk in disks:
        disk.bitmaps = [bitmap for bitmap in disk.bitmaps if (disk.device, bitmap.name) in wanted]
        disk.bitmaps += [
            images[device].read_bitmap(name)
            for device, name in stored
            if device == disk.device and (device, name) in wanted
        ]
    return list(read.values())
