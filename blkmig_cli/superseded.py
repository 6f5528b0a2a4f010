"""Records whose chunk comes again later in the stream: they need not be written.

Only a later record at the same sector that reaches as far makes a record superfluous; whatever
overlaps otherwise is written in the stream's order.
"""

from collections.abc import Callable

import numpy as np

from blkmig_cli.events import Block
from blkmig_cli.intervals import IntervalSet
from blkmig_cli.runs import Numbers, Run, moved
from blkmig_cli.schemas.constants import BlockFlag

_ZERO_BLOCK = int(BlockFlag.ZERO_BLOCK)


def has_content(event: Block) -> bool:
    """Does a record say what its chunk holds?  (Others carry bitmaps only.)"""
    return event.data is not None or bool(event.flags & _ZERO_BLOCK)


class Superseded:
    """Fed with all records of a stream once, it knows those that are superseded.

    It holds one entry for each chunk that comes more than once, and none for the others.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], tuple[int, int]] = {}

    def feed(self, event: Block, covered: IntervalSet) -> None:
        """Take the next record; ``covered`` are the sectors of its disk that came before it."""
        if has_content(event) and covered.touches(event.sector, event.sector + 1):
            self._last[event.device, event.sector] = (event.offset, event.sectors)

    def feed_run(self, run: Run, covered: Callable[[str], IntervalSet]) -> None:
        """Take a run of records; ``covered`` gives a device's sectors that came before."""
        for column in run.columns:
            event, sectors = column.event, column.numbers
            if isinstance(event, Block) and sectors is not None and has_content(event):
                for row in self._repeats(sectors, event.sectors, covered(event.device)):
                    again = moved(event, row * run.stride, int(sectors[row]))
                    assert isinstance(again, Block)
                    self._last[event.device, again.sector] = (again.offset, again.sectors)

    @staticmethod
    def _repeats(sectors: Numbers, length: int, before: IntervalSet) -> list[int]:
        """Rows of a run whose chunk came before, in ``before`` or in the run itself."""
        steps = np.diff(sectors)
        if not ((steps >= length).all() or (steps <= -length).all()):
            return list(range(len(sectors)))
        if not before.touches(int(sectors.min()), int(sectors.max()) + 1):
            return []
        return [
            row for row, sector in enumerate(sectors.tolist()) if before.touches(sector, sector + 1)
        ]

    def __contains__(self, event: Block) -> bool:
        """Does a later record say all that ``event`` says of its chunk?"""
        last = self._last.get((event.device, event.sector))
        return last is not None and event.offset < last[0] and event.sectors <= last[1]
