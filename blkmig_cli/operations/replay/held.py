"""Holding the records of a stream, so that they need not be decoded a second time to be written."""

from blkmig_cli.progress import Tick
from blkmig_cli.wire.events import BitmapChunk, Block, Event
from blkmig_cli.wire.runs.columns import Consumer, Piece, Run, device_of
from blkmig_cli.wire.schema_io import Input

# Bytes of memory for what is held, and those that an event takes at most.
_ROOM = 16 << 20
_EVENT = 1 << 9


class HeldRecords:
    """A consumer that holds the records of disks and bitmaps, without their bits, as long as they are few."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._left = _ROOM

    @property
    def complete(self) -> bool:
        """Whether all records that came are held."""
        return self._left >= 0

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event."""
        if isinstance(event, Block | BitmapChunk):
            self._hold(event, _EVENT * (1 + len(event.bitmaps) if isinstance(event, Block) else 1))

    def feed_run(self, run: Run, source: Input) -> None:
        """Take a run of events."""
        size = sum(_EVENT + 3 * column.offsets.nbytes for column in run.columns)
        self._hold(run.without_bits(), size)

    def pass_on(self, source: Input, tick: Tick, consumer: Consumer) -> None:
        """Pass what is held to ``consumer``; ``tick`` gets the bytes of the stream so far."""
        for piece in self._pieces:
            if isinstance(piece, Run):
                consumer.feed_run(piece, source)
                tick(piece.end, device_of(piece))
            else:
                consumer.feed(piece, source)
                tick(piece.offset + piece.length, device_of(piece))

    def _hold(self, piece: Piece, size: int) -> None:
        self._left -= size
        if self._left >= 0:
            self._pieces.append(piece)
        else:
            self._pieces.clear()
