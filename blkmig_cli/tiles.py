"""Ranges of one length that follow each other, forwards or backwards: found without a loop over them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def tiles(starts: NDArray[np.int64], length: int) -> Iterator[slice]:
    """Stretches of ``starts`` in which each is ``length`` more (or each ``length`` less) than the last."""
    steps = np.diff(starts)
    way = (steps == length).astype(np.int8) - (steps == -length)
    turns = (way[1:] != way[:-1]) & (way[:-1] != 0)
    breaks = np.flatnonzero((way == 0) | np.append(False, turns)) + 1
    begin = 0
    for end in [*breaks.tolist(), len(starts)]:
        yield slice(begin, end)
        begin = end
