"""The vectorised scanner: reads repeated records by the thousand instead of one by one.

It knows no format.  The events that the schemas have parsed last are the template: their bytes are
compared with the bytes that follow, except those that may differ from row to row (a record's upper
bits, the bits of its bitmaps) and those that are never read (disk data).  Rows that compare equal
parse equal, apart from rules on the numbers themselves, which are checked for every row by the owner
of those rules (:class:`Rules`).  The first row that differs in any way is left to the schemas.  The
events are therefore always those of the schemas, only sooner.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.schemas.block import RecordWord, join_word
from blkmig_cli.schemas.constants import BLOCK_FLAG_BITS, BLOCK_FLAG_MASK, RamFlag, SectionType
from blkmig_cli.wire.events import (
    BitmapEos,
    Block,
    Eos,
    Event,
    Footer,
    Progress,
    Ram,
    SectionHeader,
)
from blkmig_cli.wire.runs import Bytes, Column, Numbers, Piece, Run, moved
from blkmig_cli.wire.schema_io import Input

# The longest period, in records (or sections), that is recognised.
_PERIOD_MAX = 32
# The most events in a section that is repeated as a unit.
_SECTION_EVENTS_MAX = 16

_WORD = RecordWord.sizeof()
# Bytes of rows that are compared at once (few enough for the processor's cache), and the widest row.
_BATCH = 1 << 20
_WIDTH_MAX = _BATCH >> 4
# Rows of the first read; doubled whenever all of them were taken.
_ROWS_FIRST = 16
# Rows per read where each row needs its own read, as each is then held as an object.
_ROWS_APART = 1 << 13
# The least rows of a run that was worth the attempt.
_WORTH = 8
_PATIENCE_MAX = 1 << 10


@runtime_checkable
class RowInput(Input, Protocol):
    """An input that can be read at many places without moving."""

    def rows(
        self, offset: int, stride: int, pieces: Sequence[tuple[int, int]], most: int
    ) -> NDArray[np.uint8]:
        """Return rows at ``offset``, ``offset + stride``, ...: the ``pieces`` of each, joined.

        ``pieces`` are (start in the row, length), all in bytes.  Those rows that lie wholly in the
        input and can be had at once, ``most`` at most, perhaps none: uint8, shape (rows, joined
        length), C-contiguous, and valid until the next call.
        """


class Rules(Protocol):
    """The rules on the numbers of block records, and the state that the records change."""

    def repeatable(self, event: Block) -> bool:
        """Return whether records like ``event``, the last one of its kind, may be taken in rows."""

    def admits(self, event: Block, sectors: Numbers) -> NDArray[np.bool_]:
        """Return which of ``sectors`` give an event equal to ``event`` apart from its place: shape (rows,).

        Only the rows before the first False are valid.
        """

    def took(self, event: Block, top: int) -> None:
        """Note that records like ``event`` have been taken; ``top`` is the highest sector."""


class _Template:
    """The layout of a row: the bytes that must be equal, and the places of its numbers and bits.

    It is derived from the events parsed from the row: their places, and those of their payloads.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.start = events[0].offset
        self.stride = sum(event.length for event in events)
        self.pieces: list[tuple[int, int]] = []
        self.words: list[int | None] = []
        self.bits: list[list[tuple[int, int]]] = []
        self.width = 0
        for event in events:
            data = event.data if isinstance(event, Block) else None
            head = event.length - (0 if data is None else data.length)
            parts = event.bitmaps if isinstance(event, Block) else ()
            self.words.append(self.width if isinstance(event, Block | Progress) else None)
            self.bits.append(
                [(self.width + part.bits.offset - event.offset, part.bits.length) for part in parts]
            )
            self._piece(event.offset - self.start, head)
            self.width += head

    def _piece(self, start: int, length: int) -> None:
        if self.pieces and sum(self.pieces[-1]) == start:
            start, length = self.pieces[-1][0], self.pieces[-1][1] + length
            self.pieces.pop()
        self.pieces.append((start, length))

    @property
    def batch(self) -> int:
        """The most rows to read at once."""
        return min(_BATCH // self.width, _BATCH if self.stride == self.width else _ROWS_APART)

    def made(self, row: Bytes) -> bool:
        """Return whether the events have the words of ``row``; not if the file has changed meanwhile."""
        return all(
            int.from_bytes(row[word : word + _WORD].tobytes(), "big") == _word_of(event)
            for event, word in zip(self.events, self.words, strict=True)
            if word is not None
        )

    def learn(self, row: Bytes) -> None:
        """Set the template's bytes: uint8, shape (width,)."""
        mask = np.full(self.width, 0xFF, np.uint8)
        flags = np.frombuffer(BLOCK_FLAG_MASK.to_bytes(_WORD, "big"), np.uint8)
        for word, bits in zip(self.words, self.bits, strict=True):
            if word is not None:
                mask[word : word + _WORD] = flags
            for start, length in bits:
                mask[start : start + length] = 0
        # Eight bytes are compared at once; the last eight may overlap those before.
        self._lanes = []
        for start in {*range(0, self.width - 7, 8), self.width - 8}:
            lane = slice(start, start + 8)
            if mask[lane].any():
                keep = mask[lane].copy().view(np.uint64)[0]
                self._lanes.append((start, keep, row[lane].copy().view(np.uint64)[0] & keep))

    def equal(self, rows: Bytes) -> int:
        """Return how many of the first ``rows``, shape (rows, width), match the template."""
        differ = np.zeros(len(rows), np.bool_)
        for start, keep, expected in self._lanes:
            lane: NDArray[np.uint64] = np.ndarray(len(rows), np.uint64, rows, start, (self.width,))
            differ |= (lane & keep) != expected
        return _prefix(~differ)

    def numbers(self, rows: Bytes, number: int) -> list[Numbers | None]:
        """Return for each event the upper bits of its word in the first ``number`` rows."""
        return [
            None
            if word is None
            else (
                np.ndarray(number, ">u8", rows, word, (self.width,)).astype(np.uint64)
                >> np.uint64(BLOCK_FLAG_BITS)
            ).astype(np.int64)
            for word in self.words
        ]


def _word_of(event: Event) -> int:
    """Return the word that a record begins with."""
    assert isinstance(event, Block | Progress)
    return join_word(event.sector if isinstance(event, Block) else event.percent, event.flags)


def _prefix(good: NDArray[np.bool_]) -> int:
    """Return how many are True before the first False."""
    first = int(good.argmin())
    return len(good) if good[first] else first


class Scanner:
    """Takes runs from ``source``, and moves it past them."""

    def __init__(self, source: RowInput, rules: Rules) -> None:
        self._source = source
        self._rules = rules

    def runs(self, events: Sequence[Event], end: int | None = None) -> Iterator[Run]:
        """Yield the rows that repeat ``events``, which are right before the current place.

        ``end``: no row reaches beyond this byte of the stream.  Raises FailureError.
        """
        source = self._source
        if not self._repeatable(events):
            return
        template = _Template(events)
        if not _WORD <= template.width <= _WIDTH_MAX:
            return
        most = _ROWS_FIRST
        start = template.start
        row = source.rows(start, template.stride, template.pieces, 1)
        if not len(row) or not template.made(row[0]):
            return
        template.learn(row[0].copy())
        while True:
            offset = source.offset
            if end is not None:
                most = min(most, max(end - offset, 0) // template.stride)
            rows = source.rows(offset, template.stride, template.pieces, most)
            taken = template.equal(rows) if len(rows) else 0
            if taken == 0:
                return
            numbers = template.numbers(rows, taken)
            for event, sectors in zip(events, numbers, strict=True):
                if isinstance(event, Block) and sectors is not None:
                    taken = min(taken, _prefix(self._rules.admits(event, sectors)))
            if taken == 0:
                return
            columns = []
            for event, number, bits in zip(events, numbers, template.bits, strict=True):
                kept = None if number is None else number[:taken]
                if isinstance(event, Block) and kept is not None:
                    self._rules.took(event, int(kept.max()))
                columns.append(
                    Column(
                        moved(event, offset - start, 0 if kept is None else int(kept[0])),
                        kept,
                        tuple(rows[:taken, at : at + length] for at, length in bits),
                    )
                )
            source.advance(taken * template.stride)
            yield Run(tuple(columns), template.stride, taken)
            if taken < len(rows):
                return
            most = min(2 * most, template.batch)

    def _repeatable(self, events: Sequence[Event]) -> bool:
        """Return whether ``events`` end at the current place and may all be taken in rows."""
        seen: set[str] = set()
        for event in events:
            if isinstance(event, Block):
                # Where the sectors that a record covers follow only from increasing sectors, order
                # matters, but the rules see one column at a time.
                ordered = event.sectors_min != event.sectors and event.device in seen
                if ordered or not self._rules.repeatable(event):
                    return False
                seen.add(event.device)
        length = sum(event.length for event in events)
        return events[0].offset + length == self._source.offset


class Repeats:
    """Detects repetition in what the schemas parse, and takes the runs that continue it.

    The detection is a cheap guess, O(1) per item.  ``scanner``: None for inputs that cannot be
    scanned, of which no runs are taken.
    """

    def __init__(self, scanner: Scanner | None) -> None:
        self._scanner = scanner
        self._patience = 1
        self.clear()

    def clear(self) -> None:
        """Forget all previous items."""
        self._last: dict[Hashable, int] = {}
        self._recent: deque[Sequence[Event]] = deque(maxlen=_PERIOD_MAX)
        self._number = 0
        self._period = 0
        self._matched = 0

    def record(self, event: Event) -> Iterable[Run]:
        """Return the runs after ``event``, the record parsed last.  Raises FailureError."""
        if not isinstance(event, Block):
            return self._behind(event.type, [event], None)
        if _is_wide(event):
            self.clear()
            return ()
        return self._behind((event.length, event.device, event.flags), [event], None)

    def section(self, pieces: Iterator[Piece], end: int | None) -> Iterator[Piece]:
        """Yield ``pieces``, a section from its header to its footer, and the runs after it.

        ``end``: no run reaches beyond this byte of the stream.  Raises FailureError.
        """
        events: list[Event] = []
        for piece in pieces:
            yield piece
            if isinstance(piece, Run) or _is_wide(piece):
                events.clear()  # without its header, this is not a section
            elif len(events) <= _SECTION_EVENTS_MAX:
                events.append(piece)
        key = _section_key(events) if events else None
        if key is None:
            self.clear()
        else:
            yield from self._behind(key, events, end)

    def _behind(self, key: Hashable, events: Sequence[Event], end: int | None) -> Iterable[Run]:
        """Return the runs after ``events``, which are like earlier ones of the same ``key``."""
        if self._scanner is None or not self._repeated(key, events):
            return ()
        return self._runs(self._scanner, end)

    def _runs(self, scanner: Scanner, end: int | None) -> Iterator[Run]:
        """Yield the runs that continue the last period."""
        rows = 0
        for run in scanner.runs(list(chain(*list(self._recent)[-self._period :])), end):
            rows += run.rows
            yield run
        # Where this fails often, try less often.
        self._patience = 1 if rows >= _WORTH else min(2 * self._patience, _PATIENCE_MAX)
        self.clear()

    def _repeated(self, key: Hashable, events: Sequence[Event]) -> bool:
        """Record ``events``; return whether the last period is like the one before it."""
        if len(self._last) > _PERIOD_MAX:
            self.clear()
        period = self._number - self._last.get(key, self._number)
        self._last[key] = self._number
        self._number += 1
        self._recent.append(events)
        self._matched = self._matched + 1 if period == self._period else 1
        self._period = period
        return 0 < period <= _PERIOD_MAX and self._matched >= max(period, self._patience)


def _is_wide(event: Event) -> bool:
    """Return whether a row with ``event`` is never taken; it may have so many bitmaps that it is not held."""
    if event.length <= _WIDTH_MAX or not isinstance(event, Block):
        return False
    return event.length - (0 if event.data is None else event.data.length) > _WIDTH_MAX


def _section_key(events: Sequence[Event]) -> Hashable | None:
    """Return a key that equal sections share; None for one that must not be taken in rows.

    ``events`` is a section from its header to its footer.  Accepted are parts that change no state
    except that of block records: parts with block records, and empty parts of other sections.
    """
    head = events[0]
    if not isinstance(head, SectionHeader) or head.kind != SectionType.PART:
        return None
    if not isinstance(events[-1], Footer) or len(events) > _SECTION_EVENTS_MAX:
        return None
    inner = events[1:-1]
    for event in inner:
        bare = isinstance(event, Ram) and event.flags == RamFlag.EOS and len(inner) == 1
        if not (bare or isinstance(event, Block | Progress | Eos | BitmapEos)):
            return None
    return (head.id, *(event.length for event in inner))
