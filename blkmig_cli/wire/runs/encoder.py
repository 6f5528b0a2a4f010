"""Runs to bytes: the same as encoding their events one by one, but by columns."""

import numpy as np

from blkmig_cli.schemas.block import RecordWord
from blkmig_cli.schemas.constants import BLOCK_FLAG_BITS
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import Block, Event, Progress, Ram
from blkmig_cli.wire.runs.columns import Bytes, Column, Run


def encode_run(run: Run) -> memoryview:
    """Return the bytes of ``run``, whose events have no payloads.

    The offsets of its events are those of their bytes, which have no gaps.  Raises ValueError where a
    value does not fit its field.
    """
    found = np.empty(run.end - run.start, np.uint8)
    for column in run.columns:
        rows = _rows(column)
        places = column.offsets - run.start
        step = int(places[1] - places[0]) if column.rows > 1 else rows.shape[1]
        if np.all(np.diff(places) == step):
            at = int(places[0])
            np.ndarray(rows.shape, np.uint8, found, at, (step, 1))[:] = rows
        else:
            found[places[:, None] + np.arange(rows.shape[1])] = rows
    return found.data


def _rows(column: Column) -> Bytes:
    """Return the bytes of each event of ``column``: shape (rows, length)."""
    event, numbers = column.event, column.numbers
    row = np.frombuffer(_bytes(event), np.uint8)
    if numbers is None or not isinstance(event, Block | Progress | Ram):
        return np.broadcast_to(row, (column.rows, len(row)))
    rows = np.tile(row, (column.rows, 1))
    # The word is at the beginning of the record.
    shift = 0 if isinstance(event, Ram) else BLOCK_FLAG_BITS
    word = numbers.astype(np.uint64) << np.uint64(shift) | np.uint64(int(event.flags))
    rows[:, : RecordWord.sizeof()] = word.astype(">u8")[:, None].view(np.uint8)
    return rows


def _bytes(event: Event) -> bytes:
    row = bytearray()
    for piece in encode(event):
        assert isinstance(piece, bytes)
        row += piece
    return bytes(row)
