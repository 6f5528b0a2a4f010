"""``blkmig salvage`` for people: what was lost, and what there is."""

from rich.console import Console
from rich.text import Text

from blkmig_cli.operations.salvage.salvage import Salvaged
from blkmig_cli.output.human.console import device_name
from blkmig_cli.output.human.console import table as new_table
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.text import count, escape, human_size

_SHOWN = 20


def salvage_text(found: Salvaged, out: Console) -> None:
    """Gaps, disks, bitmaps, and what to mind."""
    if found.sound:
        out.print(Text(f"{escape(found.stream)}: sound, nothing is lost", "green"))
    else:
        lost = human_size(sum(gap.end - gap.start for gap in found.gaps))
        gaps = count(len(found.gaps), "place")
        out.print(Text(f"{escape(found.stream)}: damaged in {gaps}, {lost} are lost", "bold red"))
        for gap in found.gaps[:_SHOWN]:
            size = human_size(gap.end - gap.start)
            out.print(f"bytes {gap.start}-{gap.end} ({size}): {gap.why}")
        if len(found.gaps) > _SHOWN:
            out.print(f"and {count(len(found.gaps) - _SHOWN, 'place')} more")
    if found.disks:
        table = new_table("DISK", "SIZE", "MISSING", "BITMAPS", right=("SIZE", "MISSING"))
        for disk in found.disks:
            missing = sum(end - start for start, end in found.missing(disk))
            table.add_row(
                device_name(disk.device),
                human_size(disk.size),
                Text(human_size(missing), "bold red" if missing else ""),
                ", ".join(escape(bitmap.name) for bitmap in disk.bitmaps),
            )
        out.print(table)
    for bitmap in found.lost_bitmaps:
        name = f"{escape(bitmap.device)}/{escape(bitmap.name)}"
        out.print(Text(f"bitmap {name} is left out: {bitmap.why}", "yellow"))
    left = sum(end - start for sectors in found.doubtful.values() for start, end in sectors)
    if left:
        size = human_size(left * SECTOR_SIZE)
        text = f"{size} beside damage left out: hit by it perhaps, or not what it seems to be"
        out.print(Text(text, "yellow"))
    if found.stale:
        out.print(
            Text("what was lost may have held newer versions of chunks that are there", "yellow")
        )
    if found.empty:
        out.print("there is nothing to be had")
