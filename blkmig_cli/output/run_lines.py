"""The lines of a run: one of each column is rendered, the others are that line with other numbers."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np

from blkmig_cli.wire.events import Event
from blkmig_cli.wire.runs.columns import Column, Numbers, Run, moved

# The most lines, and about as many characters of them, that are made at once.
_LINES, _CHARACTERS = 1 << 8, 1 << 16


class Lines(NamedTuple):
    """The lines of a column: a pattern for ``%``, and the numbers in it, each int64 of shape (rows,)."""

    pattern: str
    values: Sequence[Numbers]


# What stands for the offset, the number and the count in the line that is rendered.
_OFFSET = 7_193_754_862_019
_NUMBER = 8_401_735_926_158
_COUNT = 6_305_981_247_403


def run_lines(run: Run, render: Callable[[Event], str], width: int = 1) -> Iterator[str]:
    """Yield the lines of the events of ``run``, as ``render`` gives them, some joined by newlines.

    What ``render`` shows of an event must depend on nothing but the event, without the bytes of its
    payloads.  ``width``: characters that an offset takes at least, up to 13.
    """
    return joined_lines(run, [_lines(column, render, width) for column in run.columns])


def joined_lines(
    run: Run, columns: Sequence[Lines | Iterable[str]], between: str = "\n"
) -> Iterator[str]:
    """Yield the lines of the events of ``run``, some joined by ``between``.

    ``columns``: for each of its columns the lines, or how they are made.
    """
    if len(columns) == 1 and isinstance(columns[0], Lines):
        return _together(*columns[0], run.columns[0].rows, between)
    return run.merged(
        [
            _each(*lines, column.rows) if isinstance(lines, Lines) else lines
            for lines, column in zip(columns, run.columns, strict=True)
        ]
    )


def _together(pattern: str, values: Sequence[Numbers], rows: int, between: str) -> Iterator[str]:
    """Yield the lines of ``rows`` events, many joined, which is faster than one by one."""
    numbers = np.stack(values, axis=1) if values else np.empty((rows, 0), np.int64)
    most = max(min(_LINES, _CHARACTERS // max(len(pattern), 1)), 1)
    many = between.join([pattern] * most)
    for first in range(0, rows, most):
        part = numbers[first : first + most]
        if len(part) < most:
            many = between.join([pattern] * len(part))
        yield many % tuple(part.ravel().tolist())


def _each(pattern: str, values: Sequence[Numbers], rows: int) -> Iterator[str]:
    if not values:
        return repeat(pattern % (), rows)
    return map(pattern.__mod__, zip(*(each.tolist() for each in values), strict=True))


def _lines(column: Column, render: Callable[[Event], str], width: int) -> Lines | Iterable[str]:
    event, rows = column.event, column.rows
    nothing = np.zeros(rows, np.int64)
    numbers, counts = (
        nothing if values is None else values for values in (column.numbers, column.counts)
    )
    holes = {
        str(_OFFSET): (f"%{width}d", column.offsets),
        str(_NUMBER): ("%d", numbers),
        str(_COUNT): ("%d", counts),
    }
    line = render(moved(event, _OFFSET - event.offset, _NUMBER, _COUNT))
    parts = re.split(f"({'|'.join(holes)})", line)
    pattern = "".join(
        holes[part][0] if part in holes else part.replace("%", "%%") for part in parts
    )
    values = [holes[part][1] for part in parts if part in holes]

    def single(row: int) -> str:
        by = int(column.offsets[row]) - event.offset
        return render(moved(event, by, int(numbers[row]), int(counts[row])))

    if any(
        pattern % tuple(int(each[row]) for each in values) != single(row) for row in (0, rows - 1)
    ):
        # A name holds one of the numbers.
        return map(single, range(rows))
    return Lines(pattern, values)
