"""Selecting records of a stream, in order."""

from collections.abc import Iterable, Iterator

from blkmig_cli.checks.names import Names
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import StreamError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import BitmapBits, Block, Event
from blkmig_cli.wire.runs.columns import Column, Piece, Run


class Dump:
    """The pieces of the stream that ``decoder`` reads, for a single iteration.

    ``names`` are those of its devices and bitmaps; ``failure``: the error that ended the pieces too
    early, if any.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.names = Names(partly_read=True)
        self.failure: StreamError | None = None

    def __iter__(self) -> Iterator[Piece]:
        try:
            for piece in self._decoder.pieces():
                if isinstance(piece, Run):
                    for column in piece.columns:
                        self.names.feed(column.event)
                else:
                    self.names.feed(piece)
                yield piece
        except StreamError as error:
            self.failure = error
        else:
            self.names.partly_read = False


def first_events(pieces: Iterable[Piece], number: int) -> Iterator[Piece]:
    """Yield the first ``number`` events of ``pieces``; nothing behind them is read."""
    if number == 0:
        return
    for piece in pieces:
        found = piece.first(number) if isinstance(piece, Run) else piece
        yield found
        number -= len(found) if isinstance(found, Run) else 1
        if number == 0:
            return


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter of events; empty and None accept all of them.  ``sectors``: those touched."""

    devices: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    sectors: range | None = None

    def __bool__(self) -> bool:
        return bool(self.devices or self.types or self.sectors is not None)

    def of(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Yield the selected events of ``pieces``."""
        for piece in pieces:
            if not isinstance(piece, Run):
                if self._takes(piece):
                    yield piece
            elif any(self._may_take(column) for column in piece.columns):
                yield from filter(self._takes, piece)

    def _takes(self, event: Event) -> bool:
        if not self._takes_kind(event):
            return False
        if self.sectors is None:
            return True
        if not isinstance(event, Block | BitmapBits):
            return False
        end = event.sector + event.sectors
        return event.sector < self.sectors.stop and self.sectors.start < end

    def _may_take(self, column: Column) -> bool:
        if not self._takes_kind(column.event):
            return False
        if self.sectors is None:
            return True
        event = column.event
        if not isinstance(event, Block | BitmapBits) or column.numbers is None:
            return False
        sectors = event.sectors if column.counts is None else int(column.counts.max())
        low, high = int(column.numbers.min()), int(column.numbers.max()) + sectors
        return low < self.sectors.stop and self.sectors.start < high

    def _takes_kind(self, event: Event) -> bool:
        if self.types and event.type not in self.types:
            return False
        return not self.devices or getattr(event, "device", None) in self.devices
