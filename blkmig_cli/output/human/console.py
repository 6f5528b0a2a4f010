"""The console and the tables of all human output."""

import io
import sys
from collections.abc import Callable, Iterator
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.text import count

# Wider than any line: piped output is for grep and similar tools, so a row is one line.
_PIPED_WIDTH = 1 << 16


class _Console(Console):
    """A console without trailing blanks, which raises the error of a closed pipe to the command line."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Return the segments of ``renderable``, as ``Console`` does."""
        line: list[Segment] = []
        for segment in super().render(renderable, options):
            if segment.control or "\n" not in segment.text:
                line.append(segment)
                continue
            *ended, rest = segment.text.split("\n")
            for part in ended:
                line.append(Segment(part, segment.style))
                yield from _trimmed(line)
                yield Segment.line()
                line = []
            if rest:
                line.append(Segment(rest, segment.style))
        yield from line


def _trimmed(line: list[Segment]) -> list[Segment]:
    """Return the segments of a line without blanks at its end."""
    while line and not line[-1].control:
        rest = line[-1].text.rstrip(" ")
        if rest:
            return [*line[:-1], Segment(rest, line[-1].style)]
        line = line[:-1]
    return line


def console(file: IO[str] | None = None) -> Console:
    """Return a console on ``file`` (default: stdout); plain and not wrapped when piped.

    NO_COLOR and TERM are handled by rich.
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


@dataclass(frozen=True, slots=True)
class Form:
    """What determines how a console prints text, so that another process can render it."""

    terminal: bool
    width: int
    colors: str | None
    plain: bool

    @classmethod
    def of(cls, out: Console) -> "Form":
        """Return the form of the console ``out``."""
        return cls(out.is_terminal, out.width, out.color_system, out.no_color)

    def render(self, show: Callable[[Console], None]) -> str:
        """Return the text that ``show`` prints on a console of this form."""
        text = io.StringIO()
        out = _Console(
            file=text,
            width=self.width,
            force_terminal=self.terminal,
            color_system=self.colors,  # type: ignore[arg-type]
            no_color=self.plain,
            soft_wrap=not self.terminal,
            highlight=False,
            emoji=False,
            markup=False,
        )
        show(out)
        return text.getvalue()


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table with these columns, those of ``right`` aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def not_shown(number: int, what: str, out: Console, most: int | None = None) -> None:
    """Print how many of ``number`` things are not shown: those after ``most``, None for the limit."""
    shown, where = (limits.SHOWN_MAX, "--output json has all") if most is None else (most, "see -v")
    if number > shown:
        out.print(f"and {count(number - shown, what)} more ({where})")
