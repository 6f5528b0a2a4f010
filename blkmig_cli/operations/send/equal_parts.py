"""Equal parts of a stream as runs, which are encoded in one step."""

from collections.abc import Iterator

import numpy as np

from blkmig_cli.wire.encoder import encoded_length
from blkmig_cli.wire.events import Block, Event
from blkmig_cli.wire.runs.columns import Column, Numbers, Run, laid_out

# Bytes of a run.
_RUN_SIZE = 1 << 20


def repeated(events: list[Event], sectors: range | Numbers, chunks: int) -> Iterator[Run]:
    """Return the ``events`` of a part of ``chunks`` chunks, repeated for all ``sectors`` of chunks."""
    rows = len(sectors) // chunks
    lengths = list(map(encoded_length, events))
    most = max(_RUN_SIZE // sum(lengths), 1)
    for first in range(0, rows, most):
        part = sectors[first * chunks : (first + most) * chunks]
        if isinstance(part, range):
            part = np.arange(part.start, part.stop, part.step, dtype=np.int64)
        numbers = iter(part.reshape(-1, chunks).T)
        steps = np.arange(len(part) // chunks)
        columns = [
            Column(event, steps, next(numbers) if isinstance(event, Block) else None)
            for event in events
        ]
        yield laid_out(columns, lengths)
