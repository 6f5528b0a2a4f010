"""Runs: many events of a few kinds, as arrays.

Iterating over a run yields its events; a consumer that can use the arrays need not iterate.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cache
from itertools import repeat
from operator import attrgetter
from typing import Any, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.wire.events import BitmapBits, Block, BlockBitmap, Event, Payload, Progress, Ram
from blkmig_cli.wire.schema_io import Input

#: Sectors, percentages or offsets (bytes), one per row.
Numbers = NDArray[np.int64]
#: The sectors up to which the byte numbers of a run fit in 63 bits.
NEAR = limits.DISK_MAX // SECTOR_SIZE - (1 << 32)
#: Raw bytes, one row of the stream per row.
Bytes = NDArray[np.uint8]
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Events of one kind: they differ in their places, and in one or two numbers, only.

    ``event`` is the first one.  ``offsets``, shape (rows,): their places in the stream in bytes,
    ascending.  ``numbers``, shape (rows,): the ``sector`` of a Block or BitmapBits, the percentage of
    a Progress, the ``offset_in_block`` of a Ram page; None for other events.  ``counts``, shape
    (rows,): the ``sectors`` of a BitmapBits; None for other events.  ``bits``: for each bitmap of a
    Block its bits, and those of a BitmapBits that has some, shape (rows, length), in a buffer that the
    decoder's next step overwrites.
    """

    event: Event
    offsets: Numbers
    numbers: Numbers | None = None
    counts: Numbers | None = None
    bits: tuple[Bytes, ...] = ()

    @property
    def rows(self) -> int:
        """The number of events."""
        return len(self.offsets)

    def __iter__(self) -> Iterator[Event]:
        by = (self.offsets - self.event.offset).tolist()
        numbers, counts = map(_values, (self.numbers, self.counts))
        return map(moved, repeat(self.event), by, numbers, counts)

    def part(self, rows: slice) -> "Column":
        """Return some of the rows, at least one, as a column."""
        numbers = None if self.numbers is None else self.numbers[rows]
        counts = None if self.counts is None else self.counts[rows]
        bits = tuple(bits[rows] for bits in self.bits)
        return column_of(self.event, self.offsets[rows], numbers, counts, bits)


def column_of(
    event: Event,
    offsets: Numbers,
    numbers: Numbers | None,
    counts: Numbers | None,
    bits: tuple[Bytes, ...] = (),
) -> Column:
    """Return the column of events like ``event`` with other places and numbers."""
    number, count = (0 if each is None else int(each[0]) for each in (numbers, counts))
    first = moved(event, int(offsets[0]) - event.offset, number, count)
    return Column(first, offsets, numbers, counts, bits)


def _values(numbers: Numbers | None) -> Iterable[int]:
    return repeat(0) if numbers is None else numbers.tolist()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """The events of ``columns`` in the order of their offsets, without gaps.

    ``columns`` are in the order of their first events.  ``end`` is the offset of the first byte after
    the last event.
    """

    columns: tuple[Column, ...]
    end: int

    @property
    def start(self) -> int:
        """The offset of the first event."""
        return int(self.columns[0].offsets[0])

    def __len__(self) -> int:
        return sum(column.rows for column in self.columns)

    def order(self) -> NDArray[np.int64]:
        """Return the number of each event's column, in the order of the stream: shape (events,)."""
        rows = [column.rows for column in self.columns]
        owners = np.repeat(np.arange(len(rows)), rows)
        offsets = np.concatenate([column.offsets for column in self.columns])
        return owners[np.argsort(offsets, kind="stable")]

    def merged(self, items: Sequence[Iterable[_Item]]) -> Iterator[_Item]:
        """Yield ``items``, which are one for each event of each column, in the order of the stream."""
        if len(items) == 1:
            return iter(items[0])
        iterators = [iter(each) for each in items]
        return map(next, map(iterators.__getitem__, self.order().tolist()))

    def first(self, number: int) -> "Run":
        """Return the first ``number`` events, at least one, or all if there are not so many."""
        if number >= len(self):
            return self
        offsets = np.concatenate([column.offsets for column in self.columns])
        found = self.before(int(np.partition(offsets, number)[number]))
        assert found is not None
        return found

    def before(self, offset: int) -> "Run | None":
        """Return the events before byte ``offset``, at which one begins, as a run."""
        return self._between(self.start, offset)

    def since(self, offset: int) -> "Run | None":
        """Return the events from byte ``offset`` on, at which one begins, as a run."""
        return self._between(offset, self.end)

    def without_bits(self) -> "Run":
        """Return the run without the bits of its columns, so that it can be held."""
        return Run(tuple(replace(column, bits=()) for column in self.columns), self.end)

    def _between(self, start: int, end: int) -> "Run | None":
        parts = []
        for column in self.columns:
            low, high = np.searchsorted(column.offsets, (start, end)).tolist()
            if low < high:
                parts.append(column.part(slice(low, high)))
        parts.sort(key=lambda part: part.event.offset)
        return Run(tuple(parts), end) if parts else None

    def __iter__(self) -> Iterator[Event]:
        return self.merged(self.columns)


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
    if isinstance(event, BitmapBits):
        return event.bits is not None
    if isinstance(event, Ram):
        return event.data is not None
    return isinstance(event, Block) and (event.data is not None or bool(event.bitmaps))


def blocks_of(run: Run, *, content: bool = True) -> dict[str, list[Column]]:
    """Return the columns of block records of ``run`` by device, those without ``content`` only without it."""
    found: dict[str, list[Column]] = {}
    for column in run.columns:
        if isinstance(column.event, Block) and (column.event.has_content or not content):
            found.setdefault(column.event.device, []).append(column)
    return found


def is_past(column: Column) -> bool:
    """Return whether ``column`` is of block records past the end of the disk: they cover no sectors."""
    return isinstance(column.event, Block) and not column.event.sectors


def bits_of(run: Run) -> dict[tuple[str, str], Run]:
    """Return the chunks of bits in ``run`` by device and bitmap."""
    found: dict[tuple[str, str], list[Column]] = {}
    for column in run.columns:
        if isinstance(column.event, BitmapBits):
            found.setdefault((column.event.device, column.event.bitmap), []).append(column)
    return {key: Run(tuple(columns), run.end) for key, columns in found.items()}


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


def in_order(columns: Sequence[Column]) -> tuple[Numbers, Numbers]:
    """Return sectors and offsets (bytes) of all records of ``columns``, in the order of the stream.

    Both are int64, shape (records,).
    """
    sectors = [column.numbers for column in columns if column.numbers is not None]
    if len(sectors) == 1:
        return sectors[0], columns[0].offsets
    offsets = np.concatenate([column.offsets for column in columns])
    order = np.argsort(offsets, kind="stable")
    return np.concatenate(sectors)[order], offsets[order]


def last_block(run: Run) -> Block | None:
    """Return the last block record of ``run``, None if it has none."""
    blocks = [column for column in run.columns if isinstance(column.event, Block)]
    if not blocks:
        return None
    last = max(blocks, key=lambda column: int(column.offsets[-1]))
    event = last.part(slice(-1, None)).event
    assert isinstance(event, Block)
    return event


def device_of(piece: Piece) -> str | None:
    """Return the device of a block record in ``piece``, None if it has none."""
    events = [column.event for column in piece.columns] if isinstance(piece, Run) else [piece]
    return next((event.device for event in reversed(events) if isinstance(event, Block)), None)


def laid_out(columns: Sequence[Column], lengths: Sequence[int]) -> Run:
    """Return the events of ``columns``, in the order of their offsets, at new places without gaps.

    Those of equal offsets are in the order of the columns.  ``lengths``: that of the events of each
    column, in bytes.
    """
    rows = [column.rows for column in columns]
    order = np.argsort(np.concatenate([column.offsets for column in columns]), kind="stable")
    sizes = np.repeat(np.array(lengths, np.int64), rows)[order]
    ends = np.cumsum(sizes)
    places = np.empty(len(order), np.int64)
    places[order] = ends - sizes
    found = []
    for column, offsets in zip(columns, np.split(places, np.cumsum(rows)[:-1]), strict=True):
        found.append(column_of(column.event, offsets, column.numbers, column.counts))
    found.sort(key=lambda column: column.event.offset)
    return Run(tuple(found), int(ends[-1]))


@overload
def moved(event: Block, by: int, number: int, count: int = 0) -> Block: ...
@overload
def moved(event: Event, by: int, number: int, count: int = 0) -> Event: ...
def moved(event: Event, by: int, number: int, count: int = 0) -> Event:
    """Return ``event`` at an offset ``by`` bytes higher, with the ``number`` and ``count`` of its row.

    See :class:`Column`; they are ignored where a column of such events does not have them.
    """
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
    if isinstance(event, Ram) and event.is_page:
        data = None if event.data is None else _payload(event.data, by)
        flags, block, head = event.flags, event.block, event.head
        return Ram(event.offset + by, event.length, event.section, flags, block, number, head, data)
    if isinstance(event, BitmapBits):
        return BitmapBits(
            event.offset + by,
            event.length,
            event.section,
            event.device,
            event.bitmap,
            event.flags,
            event.extra_flags,
            number,
            count,
            event.granularity,
            None if event.bits is None else _payload(event.bits, by),
        )
    return type(event)(event.offset + by, *behind_offset(type(event))(event))  # type: ignore[arg-type]


@cache
def behind_offset(kind: type[Event]) -> Callable[[Event], tuple[Any, ...]]:
    """Return a getter of all fields of an event except its offset (five times as fast as ``replace``)."""
    first, *rest = (field.name for field in fields(kind))
    assert first == "offset"
    return attrgetter(*rest)


def _payload(payload: Payload, by: int) -> Payload:
    return Payload(payload.offset + by, payload.length)
