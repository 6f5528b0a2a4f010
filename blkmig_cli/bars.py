"""Progress bars on a terminal: rate, and time left."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from blkmig_cli.render.console import console
from blkmig_cli.text import human_size
from blkmig_cli.ticks import Tick


class _Speed(ProgressColumn):
    """Bytes a second, in the units of all other sizes."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{human_size(int(speed))}/s")


@contextmanager
def bar(label: str, total: int | None) -> Iterator[Tick]:
    """A progress bar on stderr; see ``progress.py``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(binary_units=True),
        _Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(sys.stderr), transient=True) as shown_bar:
        task = shown_bar.add_task(label, total=total)
        shown = 0

        def tick(done: int) -> None:
            # Drawing costs more than reading a record does.
            nonlocal shown
            if done - shown >= 1 << 20:
                shown = done
                shown_bar.update(task, completed=done)

        yield tick
