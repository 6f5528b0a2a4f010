"""Runs to bytes: the same as encoding their events one by one, but by columns."""

import numpy as np

from blkmig_cli.schemas.block import RecordWord
from blkmig_cli.schemas.constants import BLOCK_FLAG_BITS
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import Block, Progress
from blkmig_cli.wire.runs import Run


def encode_run(run: Run) -> memoryview:
    """Return the bytes of all rows of ``run``, whose events have no payloads.

    Raises ValueError where a value does not fit its field.
    """
    row, words = bytearray(), []
    for column in run.columns:
        if isinstance(column.event, Block | Progress) and column.numbers is not None:
            words.append((len(row), column.numbers.astype(np.uint64), int(column.event.flags)))
        for piece in encode(column.event):
            assert isinstance(piece, bytes)
            row += piece
    rows = np.tile(np.frombuffer(row, np.uint8), (run.rows, 1))
    for at, numbers, flags in words:
        # The word is at the beginning of its record.
        word = numbers << np.uint64(BLOCK_FLAG_BITS) | np.uint64(flags)
        rows[:, at : at + RecordWord.sizeof()] = word.astype(">u8")[:, None].view(np.uint8)
    return rows.reshape(-1).data
