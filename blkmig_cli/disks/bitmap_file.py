"""IMAGE.bitmaps.json: a disk's dirty bitmaps beside its image."""

import os
from dataclasses import dataclass, field
from typing import Any

from blkmig_cli import limits
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_words import Room
from blkmig_cli.errors import LimitError
from blkmig_cli.schemas.dirty_bitmap import granularity_fault
from blkmig_cli.system.documents import Entry, encoded, read_document, write_document
from blkmig_cli.text import quote

VERSION = 1


@dataclass(slots=True)
class BitmapFile:
    """The bitmaps of a disk of ``size`` bytes, by name."""

    size: int
    bitmaps: dict[str, DirtyBitmap] = field(default_factory=dict)


def default_path(image: str) -> str:
    """Where the bitmaps of ``image`` are kept."""
    return f"{image}.bitmaps.json"


def read_bitmaps(path: str | os.PathLike[str]) -> BitmapFile:
    """Read and check ``path``.

    Raises FailureError where it is missing, damaged, or no such file.
    """
    return read_document(os.fspath(path), limits.BITMAPS_FILE_MAX, "file of bitmaps", _parse)


def write_bitmaps(path: str | os.PathLike[str], content: BitmapFile) -> None:
    """Write ``path`` atomically: it holds the old content or the new, never a part.

    Raises FailureError.
    """
    write_document(os.fspath(path), _document(content))


def bitmaps_text(content: BitmapFile) -> bytes:
    """What such a file holds."""
    return encoded(_document(content))


def _document(content: BitmapFile) -> dict[str, Any]:
    bitmaps = [
        {
            "name": bitmap.name,
            "granularity": bitmap.granularity,
            "recording": bitmap.recording,
            "persistent": bitmap.persistent,
            "count": bitmap.count(content.size),
            "dirty": [
                {"start": start, "length": length} for start, length in bitmap.ranges(content.size)
            ],
        }
        for bitmap in content.bitmaps.values()
    ]
    return {"version": VERSION, "virtual-size": content.size, "bitmaps": bitmaps}


def _parse(root: Entry) -> BitmapFile:
    root.check_version(VERSION)
    size = root.number("virtual-size", limits.DISK_MAX)
    content, room = BitmapFile(size), Room()
    for entry in root.entries("bitmaps"):
        bitmap = _bitmap(entry, size, room)
        if bitmap.name in content.bitmaps:
            raise entry.fault(f"a second bitmap {quote(bitmap.name)}")
        content.bitmaps[bitmap.name] = bitmap
    return content


def _bitmap(entry: Entry, size: int, room: Room) -> DirtyBitmap:
    name = entry.text("name")
    if not name:
        raise entry.fault("no name")
    granularity = entry.number("granularity", limits.DISK_MAX)
    fault = granularity_fault(granularity)
    if fault is not None:
        raise entry.fault(fault)
    bitmap = DirtyBitmap(name, granularity, entry.flag("recording"), entry.flag("persistent"), room)
    end = 0
    for extent in entry.entries("dirty"):
        start, length = (extent.number(key, limits.DISK_MAX) for key in ("start", "length"))
        if start % granularity or length == 0 or start < end or start + length > size:
            raise extent.fault(f"range {start}+{length} is out of order or does not fit")
        end = start + length
        if end % granularity and end != size:
            raise extent.fault(f"range {start}+{length} ends inside a granule")
        try:
            bitmap.set_range(start, length)
        except LimitError as error:
            raise extent.fault(error.message) from None
    if entry.number("count", limits.DISK_MAX) != bitmap.count(size):
        raise entry.fault("count is not that of its ranges")
    return bitmap
