"""The human output of ``blkmig salvage``: what was lost, and what is intact."""

from rich.console import Console
from rich.text import Text

from blkmig_cli import limits
from blkmig_cli.operations.salvage.result import Salvaged
from blkmig_cli.output.human.console import not_shown
from blkmig_cli.output.human.console import table as new_table
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.text import (
    bitmap_name,
    count,
    device_name,
    escape,
    exact_size,
    few,
    human_size,
    quote,
    ranges_text,
)

_SHOWN = 20


def salvage_text(found: Salvaged, out: Console, *, brief: bool = False) -> None:
    """Print the damage, the disks, what is lost of them, and notes on the result.

    ``brief``: one line on the stream, and the disks and bitmaps that are lost.
    """
    name = "(stdin)" if found.stream == "-" else escape(found.stream)
    if found.intact:
        out.print(Text(f"{name}: intact, nothing is lost", "green"))
    elif found.failure is not None and not found.disks:
        out.print(
            Text(f"{name}: not a migration stream, and it contains no part of one", "bold red")
        )
    else:
        lost = human_size(sum(gap.end - gap.start for gap in found.gaps))
        places = count(len(found.gaps), "place")
        out.print(Text(f"{name}: damaged in {places}, {lost} unreadable", "bold red"))
    if found.disks and not brief:
        _damage(found, out)
        _disks(found, out)
    for warnings in (_lost(found), [] if brief else _known(found)):
        for warning in warnings[: limits.SHOWN_MAX]:
            out.print(Text(warning, "yellow"))
        not_shown(len(warnings), "line", out)
    if found.written is not None and not brief:
        out.print(f"{count(found.written, 'byte')} written")


def _damage(found: Salvaged, out: Console) -> None:
    for gap in found.gaps[:_SHOWN]:
        size = human_size(gap.end - gap.start)
        out.print(Text(f"{ranges_text([(gap.start, gap.end)])}, {size}: {escape(gap.why)}"))
    if len(found.gaps) > _SHOWN:
        out.print(f"and {count(len(found.gaps) - _SHOWN, 'more place')}")


def _disks(found: Salvaged, out: Console) -> None:
    table = new_table("DISK", "SIZE", "MISSING", "BITMAPS", right=("SIZE", "MISSING"))
    for disk in found.disks:
        missing = sum(end - start for start, end in disk.missing())
        size = exact_size(disk.size) if disk.size_known else f"at least {human_size(disk.size)}"
        table.add_row(
            Text(device_name(disk.device)),
            size,
            Text(human_size(missing), "bold red" if missing else ""),
            Text(few(escape(bitmap.name) for bitmap in disk.bitmaps)),
        )
    out.print(table)


def _lost(found: Salvaged) -> list[str]:
    """Return lines on the disks and bitmaps that are lost."""
    lost = [
        f"disk {device_name(disk.device)} is lost"
        + ("" if disk.size is None else f", all {exact_size(disk.size)} of it")
        for disk in found.lost_disks
    ]
    if found.other_missing:
        which = "other disks"
        if not all(disk.size_known for disk in found.disks):
            which = "these disks or of others"
        lost.append(
            f"at least {human_size(found.other_missing)} of {which} is missing, as progress "
            "records show"
        )
    lost += [
        f"bitmap {bitmap_name(bitmap.device, bitmap.name)} is left out: {bitmap.why}"
        for bitmap in found.lost_bitmaps
    ]
    return lost


def _known(found: Salvaged) -> list[str]:
    """Return notes on what is intact."""
    texts = []
    left_out = sum(sectors.total for sectors in found.unconfirmed.values())
    if left_out:
        size = human_size(left_out * SECTOR_SIZE)
        texts.append(f"{size} next to damage is left out, as nothing confirms it")
    if found.outdated:
        texts.append(
            "lost records may have contained newer versions of chunks above, or other disks"
        )
    texts += [
        f"size of {quote(disk.device)} is unknown; specify --device-size "
        f"{escape(disk.device)}=SIZE, here or for replay"
        for disk in found.disks
        if not disk.size_known
    ]
    return texts
