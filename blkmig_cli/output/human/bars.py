"""Progress bars on a terminal: bytes done, speed, and remaining time."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from blkmig_cli.output.human.console import console
from blkmig_cli.progress import Tick
from blkmig_cli.text import escape, human_size

# The most characters of a device's name that are shown.
_NAME = 16


class _Figure(ProgressColumn):
    """A column that is never wrapped."""

    def get_table_column(self) -> Column:
        return Column(no_wrap=True)


class _Done(_Figure):
    """The bytes done and the total, in the units of all other sizes."""

    def render(self, task: Task) -> Text:
        done = human_size(int(task.completed))
        return Text(done if task.total is None else f"{done} of {human_size(int(task.total))}")


class _Speed(_Figure):
    """Bytes per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{human_size(int(task.speed))}/s")


class _Left(_Figure):
    """The remaining time; if the total is unknown, the elapsed time."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        seconds, what = (
            (task.elapsed, "so far") if task.total is None else (task.time_remaining, "left")
        )
        return Text("" if seconds is None else f"{timedelta(seconds=math.ceil(seconds))} {what}")


class _Noted(Progress):
    """Bars with a text below."""

    def __init__(self, *columns: ProgressColumn, note: Callable[[], str], **options: Any) -> None:
        self._note = note
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if text := self._note():
            yield Text(text, no_wrap=True, overflow="ellipsis")


@contextmanager
def bar(label: str, total: int | None, note: Callable[[], str]) -> Iterator[Tick]:
    """Show a progress bar on stderr; see ``progress.py``.  ``note`` returns what is shown below it."""
    # Half the width of a small terminal, so that the figures do not move while they grow.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        _Done(),
        _Speed(),
        _Left(),
    )
    with _Noted(*columns, note=note, console=console(sys.stderr), transient=True) as shown_bar:
        task = shown_bar.add_task(label, total=total)
        shown, name = 0, ""

        def tick(done: int, disk: str | None = None) -> None:
            # Drawing takes longer than reading a record.
            nonlocal shown, name
            name = disk or name
            if done - shown >= 1 << 20:
                shown = done
                shown_bar.update(task, completed=done, description=_described(label, name))

        yield tick


@contextmanager
def count_bar(label: str, total: int) -> Iterator[Tick]:
    """Show a progress bar of ``total`` things on stderr; see ``progress.py``."""
    columns = (TextColumn(label), BarColumn(bar_width=24), MofNCompleteColumn(), _Left())
    # What is printed on stdout meanwhile stays there.
    shown_bar = Progress(
        *columns, console=console(sys.stderr), transient=True, redirect_stdout=False
    )
    with shown_bar:
        task = shown_bar.add_task(label, total=total)
        yield lambda done, disk=None: shown_bar.update(task, completed=done)


def _described(label: str, device: str) -> str:
    """Return the label of a bar with the device whose disk is at work, as far as there is room."""
    name = escape(device)
    return f"{label} {name if len(name) <= _NAME else f'{name[: _NAME - 1]}…'}".rstrip()
