"""IMAGE.bitmaps.json: the file with a disk's dirty bitmaps, in the folder of its image.

A bitmap is also read from the JSON output of libnbd's ``nbdinfo --map=qemu:dirty-bitmap:NAME``.
"""

import os
from collections.abc import Iterator
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.granularity import granularity_of
from blkmig_cli.errors import FailureError, LimitError
from blkmig_cli.schemas.constants import BITMAP_NAME_MAX
from blkmig_cli.schemas.dirty_bitmap import granularity_fault
from blkmig_cli.system.documents import Entry, encoded, read_document, write_pieces
from blkmig_cli.text import encode_name, escape, quote

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap

VERSION = 1
# The bit of a dirty extent (QEMU, docs/interop/nbd.txt: qemu:dirty-bitmap).
_DIRTY = 1
# A range as json writes it with an indent of 1, and the bytes of the longest one.
_RANGE = b'\n    {\n     "start": %d,\n     "length": %d\n    }'
_RANGE_LENGTH_MAX = len(_RANGE % (limits.DISK_MAX, limits.DISK_MAX)) + 1


class StatedBitmap(NamedTuple):
    """A bitmap as a file states it, checked.

    ``granularity`` in bytes; ``ranges``: those that are dirty, (start, length) in bytes, of whole granules
    clipped at the disk's end, ascending and disjoint.
    """

    name: str
    granularity: int
    recording: bool
    persistent: bool
    ranges: list[tuple[int, int]]


@dataclass(slots=True)
class BitmapFile:
    """The bitmaps of a disk of ``size`` bytes, by name."""

    size: int
    bitmaps: "dict[str, DirtyBitmap]" = field(default_factory=dict)


def read_ranges(path: str | os.PathLike[str]) -> tuple[int, list[StatedBitmap]]:
    """Return the size in bytes of the disk that ``path`` is of, and its bitmaps; see :func:`read_bitmaps`."""
    name = os.path.splitext(os.path.basename(os.fspath(path)))[0]
    parse = partial(_parse, map_name=name)
    return read_document(os.fspath(path), limits.BITMAPS_FILE_MAX, "file of bitmaps", parse)


def read_bitmaps(path: str | os.PathLike[str]) -> BitmapFile:
    """Read and check ``path``.

    The output of nbdinfo does not tell the bitmap's name: it is that of the file, without suffix.
    Raises FailureError where it is missing, damaged, or not such a file.
    """
    from blkmig_cli.disks.bitmap import DirtyBitmap  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.disks.bitmap_words import Room  # noqa: PLC0415

    size, stated = read_ranges(path)
    content, room = BitmapFile(size), Room()
    for found in stated:
        flags = {"recording": found.recording, "persistent": found.persistent}
        bitmap = DirtyBitmap(found.name, found.granularity, **flags, room=room)
        content.bitmaps[found.name] = bitmap
        try:
            for start, length in found.ranges:
                bitmap.set_range(start, length)
        except LimitError as error:
            raise FailureError(
                f"{escape(os.fspath(path))}: bitmap {quote(bitmap.name)}: {error.message}"
            ) from None
    return content


def write_bitmaps(
    path: str | os.PathLike[str], content: BitmapFile, image: str | None = None
) -> None:
    """Write ``path`` atomically: it holds the old content or the new, never a part.

    It gets the mode and owner of ``image``, the path of its image, if that is given and exists.
    Raises FailureError, also where :func:`check_room` does.
    """
    check_room(content)
    write_pieces(os.fspath(path), bitmaps_text(content), like=image)


def check_room(content: BitmapFile) -> None:
    """Raise FailureError where a file with ``content`` might be over ``limits.BITMAPS_FILE_MAX`` bytes."""
    most = limits.BITMAPS_FILE_MAX // _RANGE_LENGTH_MAX
    number = 0
    for bitmap in content.bitmaps.values():
        for part in bitmap.range_parts(content.size):
            number += len(part)
            if number > most:
                raise FailureError(
                    f"the dirty ranges are over {most}, as many as a file of bitmaps may have"
                )


def bitmaps_text(content: BitmapFile) -> Iterator[bytes]:
    """Yield the text of such a file in pieces of bounded length."""
    bitmaps = [
        {
            "name": bitmap.name,
            "granularity": bitmap.granularity,
            "recording": bitmap.recording,
            "persistent": bitmap.persistent,
            "count": bitmap.count(content.size),
            "dirty": [],
        }
        for bitmap in content.bitmaps.values()
    ]
    document = {"version": VERSION, "virtual-size": content.size, "bitmaps": bitmaps}
    # Within a name, quotes are escaped: this occurs in the text once for each bitmap.
    first, *others = encoded(document).split(b'"dirty": []')
    yield first
    for bitmap, rest in zip(content.bitmaps.values(), others, strict=True):
        before = b'"dirty": ['
        for part in bitmap.range_parts(content.size):
            yield before + b",".join([_RANGE % tuple(pair) for pair in part.tolist()])
            before = b","
        yield (b"\n   ]" if before == b"," else b'"dirty": []') + rest


def _parse(root: Entry, map_name: str) -> tuple[int, list[StatedBitmap]]:
    if root.is_list:
        return _parse_map(root, map_name)
    root.check_version(VERSION)
    size = root.number("virtual-size", limits.DISK_MAX)
    found: dict[str, StatedBitmap] = {}
    for entry in root.entries("bitmaps"):
        bitmap = _bitmap(entry, size)
        if bitmap.name in found:
            raise entry.fault(f"a second bitmap {quote(bitmap.name)}")
        found[bitmap.name] = bitmap
    return size, list(found.values())


def _parse_map(root: Entry, name: str) -> tuple[int, list[StatedBitmap]]:
    """Return the bitmap in the output of nbdinfo: extents, in order, each with its type as a number."""
    _check_name(root, name)
    dirty: list[tuple[int, int]] = []
    end = 0
    for start, length, kind in root.rows("", ("offset", "length", "type"), limits.DISK_MAX):
        if start != end or length == 0:
            raise root.fault(f"extent {start}+{length} does not follow byte {end}")
        end = start + length
        if kind & _DIRTY:
            dirty.append((start, length))
    if not end:
        raise root.fault("no extents")
    return end, [StatedBitmap(name, granularity_of(dirty, end), True, False, dirty)]


def _check_name(entry: Entry, name: str) -> None:
    if not name:
        raise entry.fault("no name")
    if len(encode_name(name)) > BITMAP_NAME_MAX:
        raise entry.fault(f"its name is over {BITMAP_NAME_MAX} bytes")


def _bitmap(entry: Entry, size: int) -> StatedBitmap:
    name = entry.text("name")
    _check_name(entry, name)
    if entry.flag("inconsistent", default=False):
        raise entry.fault("the bitmap is inconsistent")
    granularity = entry.number("granularity", limits.DISK_MAX)
    fault = granularity_fault(granularity)
    if fault is not None:
        raise entry.fault(fault)
    recording, persistent = entry.flag("recording"), entry.flag("persistent")
    rows = entry.rows("dirty", ("start", "length"), limits.DISK_MAX)
    ranges = cast("list[tuple[int, int]]", rows)
    end, count = -1, 0
    for index, (start, length) in enumerate(ranges):
        if start % granularity or length == 0 or start <= end or start + length > size:
            raise entry.fault(
                f"dirty[{index}]: range {start}+{length} is out of order, touches another, or does "
                "not fit"
            )
        end = start + length
        if end % granularity and end != size:
            raise entry.fault(f"dirty[{index}]: range {start}+{length} ends inside a granule")
        count += length
    if entry.number("count", limits.DISK_MAX) != count:
        raise entry.fault("count is not that of its ranges")
    return StatedBitmap(name, granularity, recording, persistent, ranges)
