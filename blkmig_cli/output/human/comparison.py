"""``blkmig compare`` for people: what differs, a line for each disk and bitmap."""

from rich.console import Console
from rich.text import Text

from blkmig_cli.operations.compare import Comparison, DiskDifference
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.text import count, escape, human_size

_SHOWN = 5


def comparison_text(
    comparison: Comparison, out: Console, *, strict: bool, incremental: bool
) -> None:
    """Devices and sizes first, then content, then bitmaps, then the verdict."""
    for disk in comparison.disks:
        name = escape(disk.device) or "(unnamed)"
        for line in _lines(comparison, disk, incremental):
            out.print(Text(f"{name}: {line}", "red"))
        if disk.same(strict=strict, incremental=incremental):
            out.print(Text(f"{name}: same, {human_size(max(filter(None, disk.sizes), default=0))}"))
    for bitmap in comparison.bitmaps or ():
        name = f"{escape(bitmap.device)}/{escape(bitmap.name)}"
        if bitmap.differences:
            out.print(Text(f"{name}: {escape(', '.join(bitmap.differences))}", "red"))
        else:
            out.print(f"{name}: same")
    if comparison.bitmaps is None and any(side.bitmaps for side in comparison.sides):
        out.print("bitmaps: not compared, as the image has no file of them")
    same = comparison.same(strict=strict, incremental=incremental)
    out.print(Text("same", "bold green") if same else Text("different", "bold red"))


def _lines(comparison: Comparison, disk: DiskDifference, incremental: bool) -> list[str]:
    sizes, lines = disk.sizes, []
    for side, size in zip(comparison.sides, sizes, strict=True):
        if size is None:
            lines.append(f"not in {escape(side.name)}")
    if None not in sizes and sizes[0] != sizes[1]:
        lines.append(f"{sizes[0]} and {sizes[1]} bytes; behind the smaller one's end are zeros")
    for side, missing in zip(comparison.sides, disk.missing, strict=True):
        if missing and not incremental:
            lines.append(f"{_amount(missing)} never came in {escape(side.name)}")
    if disk.differing:
        lines.append(f"{_amount(disk.differing)} differ")
    return lines


def _amount(ranges: IntervalSet) -> str:
    held = list(ranges)
    shown = ", ".join(f"{start}-{end}" for start, end in held[:_SHOWN])
    more = f" and {count(len(held) - _SHOWN, 'range')} more" if len(held) > _SHOWN else ""
    return f"{human_size(sum(end - start for start, end in held))} (bytes {shown}{more})"
