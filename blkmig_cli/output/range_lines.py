"""The lines of ``blkmig map --ranges``: one for each range of a disk, and each dirty one of a bitmap."""

from collections.abc import Iterator

from blkmig_cli.operations.map import DiskMap, Extents
from blkmig_cli.text import bitmap_name, device_name

_KINDS = len("data,repeated")


def range_lines(maps: list[DiskMap]) -> Iterator[str]:
    """Yield the heading and the lines; a range is its first byte, its length in bytes, and its kind.

    Bitmaps whose granularity is unknown are left out.
    """
    width = max([len("LENGTH"), *(len(str(disk.size)) for disk in maps)])
    yield f"{'START':>{width}}  {'LENGTH':>{width}}  {'KIND':{_KINDS}}  DISK"
    for disk in maps:
        name = device_name(disk.verdict.disk.name)
        for start, length, kind in _ranges(disk.extents):
            yield f"{start:{width}}  {length:{width}}  {kind:{_KINDS}}  {name}"
        for verdict in disk.bitmaps:
            bitmap = verdict.bitmap
            if bitmap.content is None:
                continue
            end = f"{'dirty':{_KINDS}}  {bitmap_name(bitmap.device, bitmap.name)}"
            for part in bitmap.content.range_parts(disk.size):
                for start, length in part.tolist():
                    yield f"{start:{width}}  {length:{width}}  {end}"


def _ranges(extents: Extents) -> Iterator[tuple[int, int, str]]:
    """Yield the start, length and kind of ranges, wherever their data is in the stream."""
    start, end, kind = 0, 0, ""
    for extent in extents:
        found = f"{extent.kind},repeated" if extent.repeated else extent.kind
        if found != kind:
            if kind:
                yield start, end - start, kind
            start, kind = extent.start, found
        end = extent.end
    if kind:
        yield start, end - start, kind
