"""The human output of ``blkmig compare``: a line of differences for each disk and bitmap."""

from rich.console import Console
from rich.text import Text

from blkmig_cli.operations.compare import Comparison, DiskDifference
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.text import bitmap_name, device_name, escape, exact_size, human_size, ranges_text


def comparison_text(comparison: Comparison, out: Console) -> None:
    """Print the disks, then the bitmaps, then the verdict."""
    for disk in comparison.disks:
        name = device_name(disk.device)
        for line in _lines(comparison, disk):
            out.print(Text(f"{name}: {line}", "red"))
        if disk.is_same(comparison.options):
            size = max(filter(None, disk.sizes), default=0)
            out.print(Text(f"{name}: same, {exact_size(size)}"))
    for bitmap in comparison.bitmaps or ():
        name = bitmap_name(bitmap.device, bitmap.name)
        if bitmap.differences:
            out.print(Text(f"{name}: {escape(', '.join(bitmap.differences))}", "red"))
        else:
            out.print(Text(f"{name}: same"))
    if comparison.bitmaps is None and any(side.bitmaps for side in comparison.sides):
        out.print("bitmaps: not compared, as the image has no file of bitmaps")
    out.print(Text("same", "bold green") if comparison.same else Text("different", "bold red"))


def _lines(comparison: Comparison, disk: DiskDifference) -> list[str]:
    sizes, lines = disk.sizes, []
    for side, size in zip(comparison.sides, sizes, strict=True):
        if size is None:
            lines.append(f"not in {escape(side.name)}")
    if None not in sizes and sizes[0] != sizes[1]:
        lines.append(f"{sizes[0]} and {sizes[1]} bytes; the smaller one is continued with zeros")
    for side, missing in zip(comparison.sides, disk.missing, strict=True):
        if missing and not comparison.options.incremental:
            lines.append(
                f"{_amount(missing)} not sent in {escape(side.name)}: {ranges_text(missing)}"
            )
    if disk.differing:
        lines.append(f"{_amount(disk.differing)} differ: {ranges_text(disk.differing)}")
    return lines


def _amount(ranges: IntervalSet) -> str:
    return human_size(sum(end - start for start, end in ranges))
