"""Runs: many events in rows of equal stride, as arrays.

Iterating over a run yields its events; a consumer that can use the arrays need not iterate.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.wire.events import Block, BlockBitmap, Event, Payload, Progress
from blkmig_cli.wire.schema_io import Input

#: Sectors or percentages, one per row.
Numbers = NDArray[np.int64]
#: The sectors up to which the byte numbers of a run fit in 63 bits.
NEAR = limits.DISK_MAX // SECTOR_SIZE - (1 << 32)
#: Raw bytes, one row of the stream per row.
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Column:
    """One event of every row.

    ``event`` is that of the first row.  ``numbers``, shape (rows,): the sectors of a Block, the
    percentages of a Progress; None for an event that is the same in every row.  ``bits``: for each
    bitmap of a Block its bits, shape (rows, length), in a buffer that the decoder's next step
    overwrites.
    """

    event: Event
    numbers: Numbers | None = None
    bits: tuple[Bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """``rows`` times the events of ``columns``, each row ``stride`` bytes after the preceding one."""

    columns: tuple[Column, ...]
    stride: int
    rows: int

    @property
    def end(self) -> int:
        """The offset of the first byte after the last row."""
        return self.columns[0].event.offset + self.rows * self.stride

    def head(self, rows: int) -> "Run":
        """Return the first ``rows`` rows, as a run."""
        columns = tuple(
            column if column.numbers is None else replace(column, numbers=column.numbers[:rows])
            for column in self.columns
        )
        return Run(columns, self.stride, min(rows, self.rows))

    def last(self) -> list[Event]:
        """Return the events of the last row."""
        by = (self.rows - 1) * self.stride
        return [
            moved(column.event, by, 0 if column.numbers is None else int(column.numbers[-1]))
            for column in self.columns
        ]

    def __iter__(self) -> Iterator[Event]:
        numbers = [
            [0] * self.rows if column.numbers is None else column.numbers.tolist()
            for column in self.columns
        ]
        events = [column.event for column in self.columns]
        for row, upper in enumerate(zip(*numbers, strict=True)):
            by = row * self.stride
            for event, number in zip(events, upper, strict=True):
                yield moved(event, by, number)


Piece = Event | Run


class Consumer(Protocol):
    """Takes the events of a stream in order, one by one or in runs."""

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event; ``source`` has the bytes of its payloads, valid until this returns."""

    def feed_run(self, run: Run, source: Input) -> None:
        """Take the next events as a run."""


class EventConsumer:
    """A consumer that takes the events of a run one by one."""

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event."""
        raise NotImplementedError

    def feed_run(self, run: Run, source: Input) -> None:
        """Take the events of a run."""
        for event in run:
            self.feed(event, source)


def expand(pieces: Iterable[Piece]) -> Iterator[Event]:
    """Yield the events of ``pieces``, one by one."""
    for piece in pieces:
        if isinstance(piece, Run):
            yield from piece
        else:
            yield piece


def has_payload(event: Event) -> bool:
    """Return whether bytes of an event that a run may have are payload: bits, or a disk's data."""
    return isinstance(event, Block) and (event.data is not None or bool(event.bitmaps))


def alike(columns: Sequence[Column]) -> bool:
    """Return whether ``columns`` of block records differ in nothing but their sectors and places."""
    if len(columns) == 1:
        return True
    events = [column.event for column in columns if isinstance(column.event, Block)]
    first = events[0]
    return all(
        not has_payload(event)
        and (event.device, event.flags, event.sectors, event.sectors_min, event.dialect)
        == (first.device, first.flags, first.sectors, first.sectors_min, first.dialect)
        for event in events
    )


def is_near(columns: Iterable[Column]) -> bool:
    """Return whether the byte numbers of all records of ``columns`` fit in 63 bits."""
    return all(
        column.numbers is None or int(column.numbers.max()) <= NEAR
        for column in columns
        if isinstance(column.event, Block)
    )


def in_order(columns: Sequence[Column], stride: int) -> tuple[Numbers, Numbers]:
    """Return sectors and offsets (bytes) of all records of ``columns``, in the order of the stream.

    Both are int64, shape (rows * columns,).  ``stride`` is that of the run.
    """
    numbers = [column.numbers for column in columns if column.numbers is not None]
    steps = np.arange(len(numbers[0]), dtype=np.int64) * stride
    offsets = [column.event.offset + steps for column in columns]
    return np.stack(numbers, axis=1).reshape(-1), np.stack(offsets, axis=1).reshape(-1)


def moved(event: Event, by: int, number: int) -> Event:
    """Return ``event`` at an offset ``by`` bytes higher, with ``number`` as sector or percentage."""
    if isinstance(event, Block):
        return Block(
            event.offset + by,
            event.length,
            event.section,
            event.device,
            number,
            event.sectors,
            event.sectors_min,
            event.flags,
            event.dialect,
            None if event.data is None else _payload(event.data, by),
            tuple(
                BlockBitmap(part.name, part.granularity, part.attributes, _payload(part.bits, by))
                for part in event.bitmaps
            ),
        )
    if isinstance(event, Progress):
        return Progress(event.offset + by, event.length, event.section, number, event.flags)
    return type(event)(event.offset + by, *_behind_offset(type(event))(event))  # type: ignore[arg-type]


@cache
def _behind_offset(kind: type[Event]) -> Callable[[Event], tuple[Any, ...]]:
    """Return a getter of all fields of an event except its offset (five times as fast as ``replace``)."""
    first, *rest = (field.name for field in fields(kind))
    assert first == "offset"
    return attrgetter(*rest)


def _payload(payload: Payload, by: int) -> Payload:
    return Payload(payload.offset + by, payload.length)
