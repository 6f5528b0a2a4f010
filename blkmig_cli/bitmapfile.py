"""IMAGE.bitmaps.json: a disk's dirty bitmaps beside its image."""

from dataclasses import dataclass, field
from typing import Any

from blkmig_cli import jsonfile, limits
from blkmig_cli.bitmap import DirtyBitmap, Room
from blkmig_cli.errors import LimitError
from blkmig_cli.schemas.dirty_bitmap import granularity_fault

VERSION = 1


@dataclass(slots=True)
class BitmapFile:
    """The bitmaps of a disk of ``size`` bytes, by name."""

    size: int
    bitmaps: dict[str, DirtyBitmap] = field(default_factory=dict)


def default_path(image: str) -> str:
    """Where the bitmaps of ``image`` are kept."""
    return f"{image}.bitmaps.json"


def read_bitmaps(path: str) -> BitmapFile:
    """Read and check ``path``.

    Raises FailureError where it is missing, damaged, or no such file.
    """
    return jsonfile.read_document(path, limits.BITMAPS_FILE_MAX, "file of bitmaps", _parse)


def write_bitmaps(path: str, content: BitmapFile) -> None:
    """Write ``path`` atomically: it holds the old content or the new, never a part.

    Raises FailureError.
    """
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
    document = {"version": VERSION, "virtual-size": content.size, "bitmaps": bitmaps}
    jsonfile.write_document(path, document)


def _parse(root: dict[str, Any]) -> BitmapFile:
    jsonfile.check_version(root, VERSION)
    size = jsonfile.number(root, "virtual-size", limits.DISK_MAX)
    content, room = BitmapFile(size), Room()
    for where, entry in jsonfile.objects(root, "bitmaps"):
        bitmap = _bitmap(entry, where, size, room)
        if bitmap.name in content.bitmaps:
            raise ValueError(f"{where}: a second bitmap {bitmap.name!r}")
        content.bitmaps[bitmap.name] = bitmap
    return content


def _bitmap(entry: dict[str, Any], where: str, size: int, room: Room) -> DirtyBitmap:
    name = jsonfile.text(entry, "name")
    if not name:
        raise ValueError(f"{where}: no name")
    granularity = jsonfile.number(entry, "granularity", limits.DISK_MAX)
    fault = granularity_fault(granularity)
    if fault is not None:
        raise ValueError(f"{where}: {fault}")
    bitmap = DirtyBitmap(
        name,
        granularity,
        jsonfile.flag(entry, "recording"),
        jsonfile.flag(entry, "persistent"),
        room,
    )
    end = 0
    for place, extent in jsonfile.objects(entry, "dirty", f"{where}."):
        start, length = (
            jsonfile.number(extent, key, limits.DISK_MAX) for key in ("start", "length")
        )
        if start % granularity or length == 0 or start < end or start + length > size:
            raise ValueError(f"{place}: {start}+{length} is out of order or does not fit")
        end = start + length
        if end % granularity and end != size:
            raise ValueError(f"{place}: {start}+{length} ends inside a granule")
        try:
            bitmap.set_range(start, length)
        except LimitError as error:
            raise ValueError(f"{place}: {error.message}") from None
    if jsonfile.number(entry, "count", limits.DISK_MAX) != bitmap.count(size):
        raise ValueError(f"{where}: count is not that of its ranges")
    return bitmap
