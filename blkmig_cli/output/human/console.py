"""What all output for people shares: the console, tables, names and sizes.

rich is imported in this package and in ``bars.py`` only.
"""

import sys
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blkmig_cli.text import escape, human_size

# Wider than any line: what is piped is for grep and the like, a row is one line.
_PIPED_WIDTH = 1 << 16


class _Console(Console):
    """A console that leaves it to the command line to handle a closed pipe."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(file: IO[str] | None = None) -> Console:
    """A console on ``file`` (default: stdout); plain and not wrapped when piped.

    NO_COLOR and TERM are rich's to heed.
    """
    target = file or sys.stdout
    terminal = target.isatty()
    return _Console(
        file=target,
        width=None if terminal else _PIPED_WIDTH,
        soft_wrap=not terminal,
        highlight=False,
        emoji=False,
        markup=False,
    )


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table with these columns, those of ``right`` aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def device_name(name: str) -> Text:
    """A device's name as it is shown."""
    return Text(escape(name) or "(unnamed)")


def size_range(least: int, most: int | None) -> str:
    """A size in bytes, or its bounds, for people."""
    if least == most:
        return human_size(least)
    return f"{human_size(least)} to {'?' if most is None else human_size(most)}"
