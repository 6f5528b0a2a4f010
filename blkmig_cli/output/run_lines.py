"""The lines of a run: one of each column is rendered, the others are that line with other numbers."""

import re
from collections.abc import Callable, Iterator
from itertools import repeat

from blkmig_cli.wire.events import Event
from blkmig_cli.wire.runs.columns import Column, Run, moved

# What stands for the offset, the number and the count in the line that is rendered.
_OFFSET = 7_193_754_862_019
_NUMBER = 8_401_735_926_158
_COUNT = 6_305_981_247_403


def run_lines(run: Run, render: Callable[[Event], str], width: int = 1) -> Iterator[str]:
    """Return the line of every event of ``run``, as ``render`` gives it.

    What ``render`` shows of an event must depend on nothing but the event, without the bytes of its
    payloads.  ``width``: characters that an offset takes at least, up to 13.
    """
    return run.merged([_lines(column, render, width) for column in run.columns])


def _lines(column: Column, render: Callable[[Event], str], width: int) -> Iterator[str]:
    event, rows = column.event, column.rows
    offsets = column.offsets.tolist()
    numbers, counts = (
        [0] * rows if values is None else values.tolist()
        for values in (column.numbers, column.counts)
    )
    holes = {
        str(_OFFSET): (f"%{width}d", offsets),
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
        return render(moved(event, offsets[row] - event.offset, numbers[row], counts[row]))

    if any(pattern % tuple(each[row] for each in values) != single(row) for row in (0, rows - 1)):
        # A name holds one of the numbers.
        return map(single, range(rows))
    return map(pattern.__mod__, zip(*values, strict=True)) if values else repeat(line, rows)
