"""IMAGE.bitmaps.json: a disk's dirty bitmaps beside its image."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blkmig_cli import limits
from blkmig_cli.atomic import replacing
from blkmig_cli.bitmap import DirtyBitmap
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas.dirty_bitmap import granularity_fault
from blkmig_cli.text import escape

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
    try:
        if os.path.getsize(path) > limits.BITMAPS_FILE_MAX:
            raise ValueError(f"it is over {limits.BITMAPS_FILE_MAX >> 30} GiB")
        document = json.loads(Path(path).read_text("utf-8"))
        return _parse(document)
    except OSError as error:
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FailureError(f"{escape(path)} is no file of bitmaps: {error}") from None


def bitmaps_text(content: BitmapFile) -> bytes:
    """What such a file holds."""
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
    return json.dumps(document, indent=1).encode() + b"\n"


def write_bitmaps(path: str, content: BitmapFile) -> None:
    """Write ``path`` atomically: it holds the old content or the new, never a part.

    Raises FailureError.
    """
    text = bitmaps_text(content)
    try:
        with replacing(path) as fd, open(fd, "wb", closefd=False) as file:
            file.write(text)
    except OSError as error:
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error


def _parse(document: Any) -> BitmapFile:
    root = _object(document, "the document")
    if root.get("version") != VERSION:
        raise ValueError(f"version {root.get('version')!r}, only {VERSION} is known")
    size = _number(root, "virtual-size", limits.DISK_MAX)
    content = BitmapFile(size)
    for index, entry in enumerate(_list(root, "bitmaps")):
        where = f"bitmaps[{index}]"
        bitmap = _bitmap(_object(entry, where), where, size)
        if bitmap.name in content.bitmaps:
            raise ValueError(f"{where}: a second bitmap {bitmap.name!r}")
        content.bitmaps[bitmap.name] = bitmap
    return content


def _bitmap(entry: dict[str, Any], where: str, size: int) -> DirtyBitmap:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: no name")
    granularity = _number(entry, "granularity", limits.DISK_MAX)
    fault = granularity_fault(granularity)
    if fault is not None:
        raise ValueError(f"{where}: {fault}")
    recording, persistent = entry.get("recording"), entry.get("persistent")
    if not isinstance(recording, bool) or not isinstance(persistent, bool):
        raise ValueError(f"{where}: recording and persistent must be true or false")
    bitmap = DirtyBitmap(name, granularity, recording, persistent)
    end = granules = 0
    for item in _list(entry, "dirty"):
        extent = _object(item, f"{where}.dirty")
        start, length = (_number(extent, key, limits.DISK_MAX) for key in ("start", "length"))
        if start % granularity or length == 0 or start < end or start + length > size:
            raise ValueError(f"{where}: range {start}+{length} is out of order or does not fit")
        end = start + length
        if end % granularity and end != size:
            raise ValueError(f"{where}: range {start}+{length} ends inside a granule")
        granules += -(-length // granularity)
        if granules > limits.GRANULES_MAX:
            raise ValueError(f"{where}: over {limits.GRANULES_MAX} granules are dirty")
        bitmap.set_range(start, length)
    if _number(entry, "count", limits.DISK_MAX) != bitmap.count(size):
        raise ValueError(f"{where}: count is not that of its ranges")
    return bitmap


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no object")
    return value


def _list(entry: dict[str, Any], key: str) -> list[Any]:
    value = entry.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key} is no list")
    return value


def _number(entry: dict[str, Any], key: str, most: int) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{key} is no number from 0 to {most}")
    return value
