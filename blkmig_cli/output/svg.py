"""``blkmig map --svg``: the map of a stream as an SVG image."""

from itertools import groupby
from xml.sax.saxutils import escape as escape_xml

from blkmig_cli import limits
from blkmig_cli.operations.map import (
    KINDS,
    SHADES,
    DiskMap,
    bitmap_cells,
    cell_edges,
    first_rows,
    rows_of,
)
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.text import count, device_name, escape, human_size, size_range

_CELLS = 720
_LEFT, _RIGHT, _ROW, _BAR = 170, 20, 26, 18
_WIDTH = _LEFT + _CELLS + _RIGHT
# They also differ in lightness, and are visible on white and on black.
_COLOURS = {
    "missing": "#d62728",
    "repeated": "#e8a33d",
    "data": "#2b7bba",
    "zero": "#c9d3dc",
    "dirty": "#8e44ad",
    "partly": "#c39bd3",
    "clean": "#dde3e8",
}


def map_svg(stream: str, maps: list[DiskMap]) -> str:
    """Return the document: a bar for each disk and for each of its bitmaps, an axis, a legend.

    It has ``limits.SHOWN_MAX`` bars at most.
    """
    parts: list[str] = []
    y, more = 44, rows_of(maps) - limits.SHOWN_MAX
    for disk in first_rows(maps):
        size = disk.verdict.size
        heading = f"{device_name(disk.verdict.disk.name)}, {size_range(size.least, size.most)}"
        parts.append(_text(10, y, heading, bold=True))
        y += 10
        if disk.extents:
            parts += _bar(y, "disk", disk.cells(_CELLS), KINDS, disk.size)
            y += _ROW
        for verdict in disk.bitmaps:
            if verdict.bitmap.content is not None:
                cells = bitmap_cells(verdict.bitmap.content, disk.size, _CELLS)
                parts += _bar(y, escape(verdict.bitmap.name), cells, SHADES, disk.size)
                y += _ROW
        for quarter in range(5):
            anchor = ("start", "middle", "middle", "middle", "end")[quarter]
            x = _LEFT + _CELLS * quarter // 4
            label = human_size(disk.size * quarter // 4)
            parts.append(_text(x, y + 8, label, anchor=anchor, small=True))
        y += 44
    if more > 0:
        parts.append(_text(10, y, f"and {count(more, 'row')} more (--output json has all)"))
        y += 44
    x = _LEFT
    meanings = KINDS | (SHADES if any(disk.bitmaps for disk in maps) else {})
    for kind, meaning in meanings.items():
        if kind == "dirty":
            x, y = _LEFT, y + 22
        parts.append(f'<rect x="{x}" y="{y - 11}" width="12" height="12" fill="{_COLOURS[kind]}"/>')
        parts.append(_text(x + 18, y, meaning, small=True))
        x += 60 + 7 * len(meaning)
    title = f"Map of {escape(stream)}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 20}" '
            f'width="{_WIDTH}" height="{y + 20}" role="img" font-family="sans-serif" '
            'font-size="13">',
            f"<title>{escape_xml(title)}</title>",
            "<style>text { fill: #24292f } rect.page { fill: #ffffff } "
            "@media (prefers-color-scheme: dark) "
            "{ text { fill: #e6edf3 } rect.page { fill: #0d1117 } }</style>",
            f'<rect class="page" width="{_WIDTH}" height="{y + 20}"/>',
            _text(10, 20, title, bold=True),
            *parts,
            "</svg>\n",
        ]
    )


def _bar(y: int, label: str, cells: list[str], meanings: dict[str, str], size: int) -> list[str]:
    """Return a bar, with equal adjacent cells joined, each with its kind as title."""
    edges = [edge * SECTOR_SIZE for edge in cell_edges(size, _CELLS).tolist()]
    unit = _CELLS / len(cells)
    short = label if len(label) <= 20 else label[:17] + "..."
    found, at = [_text(10, y + 13, short)], 0
    for kind, group in groupby(cells):
        width = len(list(group))
        low, high = human_size(edges[at]), human_size(min(edges[at + width], size))
        found.append(
            f'<rect x="{_LEFT + at * unit:.2f}" y="{y}" width="{width * unit:.2f}" '
            f'height="{_BAR}" fill="{_COLOURS[kind]}">'
            f"<title>{meanings[kind]}: {low} to {high}</title></rect>"
        )
        at += width
    return found


def _text(
    x: int, y: int, text: str, *, bold: bool = False, small: bool = False, anchor: str = "start"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    size = ' font-size="11"' if small else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{weight}{size}>{escape_xml(text)}</text>'
