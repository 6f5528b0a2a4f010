"""Progress bars on a terminal; the library that draws them is loaded only there."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from blkmig_cli.progress import Tick, no_tick


@contextmanager
def progress(label: str, total: int | None, *, quiet: bool) -> Iterator[Tick]:
    """Show a progress bar on stderr during some work; ``total`` bytes, None if unknown.

    Gives the function to call with the bytes done.  Nothing is shown unless stderr is a terminal.
    """
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield no_tick
        return
    from blkmig_cli.output.human.bars import bar  # noqa: PLC0415 (rich is slow to load)

    with bar(label, total) as tick:
        yield tick
