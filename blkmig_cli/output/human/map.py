"""The human output of ``blkmig map``: a row of cells for each disk, and for each of its bitmaps."""

from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blkmig_cli.operations.map import KINDS, SHADES, DiskMap, bitmap_cells, first_rows, rows_of
from blkmig_cli.output.human.console import not_shown, table
from blkmig_cli.text import bitmap_name, device_name, escape, human_size, size_range

# A symbol for each kind, so that no colours are needed; the second one for ASCII encodings.
_SIGNS = {
    "missing": ("?", "?", "bold red"),
    "repeated": ("▒", "+", "yellow"),
    "data": ("█", "#", "green"),
    "zero": ("░", "0", "cyan"),
    "dirty": ("█", "#", "magenta"),
    "partly": ("▄", "=", "magenta"),
    "clean": ("·", ".", "dim"),
}
_LABEL_MAX = 20
_CELLS_MAX = 200
_PIPED = 80


def map_text(maps: list[DiskMap], out: Console) -> None:
    """Print the disks, each with an axis, and a legend; ``limits.SHOWN_MAX`` rows at most."""
    plain = not _has_signs(out)
    for disk in first_rows(maps):
        names = ["disk"] if disk.extents else []
        names += [_label(verdict.bitmap.name) for verdict in disk.bitmaps]
        indent = max([len(name) for name in names], default=0) + 4
        room = out.width if out.is_terminal else min(out.width, _PIPED)
        width = min(max(room - indent - 1, 8), _CELLS_MAX)
        size = disk.verdict.size
        name, shown = device_name(disk.verdict.disk.name), size_range(size.least, size.most)
        out.print(Text.assemble((name, "bold"), f", {shown}"))
        if disk.extents:
            _row("disk", disk.cells(width), indent, plain, out)
        for verdict in disk.bitmaps:
            content = verdict.bitmap.content
            if content is None:
                text = "granularity unknown; specify --granularity"
                out.print(f"  {_label(verdict.bitmap.name):{indent - 4}}  {text}")
            else:
                cells = bitmap_cells(content, disk.size, width)
                _row(_label(verdict.bitmap.name), cells, indent, plain, out)
        cells_drawn = min(width, max(-(-disk.size // 512), 1))
        out.print(" " * indent + _axis(disk.size, cells_drawn))
        if disk.extents:
            _legend(KINDS, disk.amounts(), plain, out)
        if disk.continues:
            end = human_size(disk.size)
            out.print(f"  the size of the disk is unknown: it may continue after {end}")
    if any(disk.bitmaps for disk in maps):
        _legend(SHADES, None, plain, out)
    not_shown(rows_of(maps), "row", out)


def totals_text(maps: list[DiskMap], out: Console) -> None:
    """Print how much of each disk is of which kind, and is dirty in each bitmap, as :func:`map_text`."""
    shown = table("DISK", "KIND", "SIZE", "BYTES", "SHARE", right=("SIZE", "BYTES", "SHARE"))
    for disk in first_rows(maps):
        amounts = disk.amounts() if disk.extents else {}
        for kind, amount in amounts.items():
            if amount:
                _total(device_name(disk.verdict.disk.name), kind, amount, disk.size, shown)
        if disk.continues:
            most = disk.verdict.size.most
            more = "" if most is None else f"up to {human_size(most - disk.size)}"
            shown.add_row(Text(device_name(disk.verdict.disk.name)), "unknown", more)
        for verdict in disk.bitmaps:
            bitmap = verdict.bitmap
            name = bitmap_name(bitmap.device, bitmap.name)
            if bitmap.content is None:
                shown.add_row(Text(name), "unknown")
            else:
                _total(name, "dirty", bitmap.content.count(disk.size), disk.size, shown)
    out.print(shown)
    not_shown(rows_of(maps), "row", out)


def _total(name: str, kind: str, amount: int, size: int, shown: Table) -> None:
    share = f"{100 * amount / size:.2f} %" if size else ""
    shown.add_row(Text(name), Text(kind, _SIGNS[kind][2]), human_size(amount), f"{amount}", share)


def _row(label: str, cells: list[str], indent: int, plain: bool, out: Console) -> None:
    row = Text(f"  {label:{indent - 4}}  ")
    for cell, equal in groupby(cells):
        row.append(_SIGNS[cell][plain] * len(list(equal)), _SIGNS[cell][2])
    out.print(row, soft_wrap=True)


def _label(name: str) -> str:
    shown = escape(name)
    return shown if len(shown) <= _LABEL_MAX else shown[: _LABEL_MAX - 3] + "..."


def _axis(size: int, width: int) -> str:
    """Return an axis with sizes at the quarters of ``width`` cells, as many as fit."""
    axis = "0"
    end = human_size(size)
    for quarter in (1, 2, 3):
        label = human_size(size * quarter // 4)
        at = width * quarter // 4
        if at > len(axis) and at + len(label) < width - len(end):
            axis = axis.ljust(at) + label
    return axis.ljust(max(width - len(end), len(axis) + 1)) + end


def _legend(
    meanings: dict[str, str], amounts: dict[str, int] | None, plain: bool, out: Console
) -> None:
    parts = Text("  ")
    for kind, meaning in meanings.items():
        amount = "" if amounts is None else f" {human_size(amounts[kind])}"
        if amounts is None or amounts[kind]:
            parts.append(_SIGNS[kind][plain], _SIGNS[kind][2])
            parts.append(f" {meaning}{amount}   ")
    parts.rstrip()
    out.print(parts)


def _has_signs(out: Console) -> bool:
    try:
        "".join(sign for sign, _, _ in _SIGNS.values()).encode(out.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
