"""The human output of ``live``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from blkmig_cli.operations.live.request import SnapshotReport
from blkmig_cli.output.human.console import table as new_table
from blkmig_cli.text import escape, exact_size, human_size, names_text

if TYPE_CHECKING:
    from blkmig_cli.operations.live.disks import QemuDisk
    from blkmig_cli.operations.live.request import LiveReport


def disks_text(disks: list["QemuDisk"], out: Console) -> None:
    """Print a row for each disk."""
    if not disks:
        out.print("QEMU has no disks")
        return
    table = new_table("DEVICE", "SIZE", "FORMAT", "NODE", "BITMAPS", "CAPTURED", right=("SIZE",))
    for disk in disks:
        captured = "yes"
        if disk.obstacle is not None:
            captured = f"impossible: {disk.obstacle}"
        elif disk.reason is not None:
            captured = f"only with --disk: {disk.reason}"
        table.add_row(
            Text(escape(disk.device)),
            exact_size(disk.size) if disk.node else "",
            disk.image_format,
            Text(escape(disk.node)),
            Text(", ".join(escape(bitmap.name) for bitmap in disk.bitmaps)),
            captured,
        )
    out.print(table)


def report_lines(report: "LiveReport") -> Iterator[str]:
    """Yield the lines that report a capture."""
    captured = f"captured {names_text(report.sizes)}: {human_size(report.written)} written"
    pause = "the guest was not paused"
    if report.pause is not None:
        pause = f"the guest was paused for {report.pause * 1000:.0f} ms"
    if isinstance(report.mode, SnapshotReport):
        yield f"{captured}, at most {human_size(report.mode.scratch)} of scratch"
        frozen = ", its file systems were frozen" if report.consistency == "frozen" else ""
        yield f"{pause}{frozen}"
    else:
        dirty = sum(done.kind == "dirty" for done in report.mode.passes)
        sent = f"disks sent {report.mode.times_sent:.2f} times"
        yield f"{captured}, {_passes(dirty)} over changes, {sent}"
        if report.mode.predicted is None:
            yield "the guest was not running"
        else:
            then = ", and is left paused" if report.mode.left_paused else ""
            yield f"{pause} ({report.mode.predicted * 1000:.0f} ms predicted){then}"
    if report.latency is not None:
        yield f"the guest's writes took at most {report.latency * 1000:.1f} ms (mean of a second)"


def _passes(number: int) -> str:
    return "1 pass" if number == 1 else f"{number} passes"
