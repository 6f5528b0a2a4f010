"""Progress bars on a terminal; the library that draws them is loaded only there."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from blkmig_cli.progress import Tick, no_tick


class Note:
    """A text that is shown below progress bars; call it with a new one."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, text: str) -> None:
        """Show ``text`` from now on."""
        self.text = text


@contextmanager
def progress(
    label: str, total: int | None, *, quiet: bool, note: Note | None = None
) -> Iterator[Tick]:
    """Show a progress bar on stderr during some work; ``total`` bytes, None if unknown.

    Gives the function to call with the bytes done.  Nothing is shown unless stderr is a terminal.
    """
    if quiet or not _shown():
        yield no_tick
        return
    from blkmig_cli.output.human.bars import bar  # noqa: PLC0415 (rich is slow to load)

    shown = note or Note()
    with bar(label, total, lambda: shown.text) as tick:
        yield tick


@contextmanager
def count_progress(label: str, total: int, *, quiet: bool) -> Iterator[Tick]:
    """Show a progress bar as :func:`progress` does, for ``total`` things.

    Gives the function to call with their number done.
    """
    if quiet or not _shown():
        yield no_tick
        return
    from blkmig_cli.output.human.bars import count_bar  # noqa: PLC0415 (rich is slow to load)

    with count_bar(label, total) as tick:
        yield tick


def _shown() -> bool:
    """Return whether stderr is a terminal on which bars are drawn."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
