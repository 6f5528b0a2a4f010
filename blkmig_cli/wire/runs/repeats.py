"""Detecting repetition in what the schemas parse, after which the scanner reads on.

Items (records, or whole sections) that come in a fixed order are rows of one template; records of a few
kinds that come in any order, also in sections, are rows of one template for each kind.  See
``scanner.py``.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain

from blkmig_cli import limits
from blkmig_cli.schemas.constants import BitmapFlag, BlockFlag, RamFlag, SectionType
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapEos,
    Block,
    Eos,
    Event,
    Footer,
    Progress,
    Ram,
    SectionHeader,
)
from blkmig_cli.wire.runs.columns import Piece, Run, behind_offset
from blkmig_cli.wire.runs.scanner import RowInput, RulesOf, Scanner, is_wide
from blkmig_cli.wire.runs.template import State, Template
from blkmig_cli.wire.schema_io import Input

# The longest period, in records (or sections), that is recognised.
_PERIOD_MAX = 32
# As plain numbers: operations on enums are slow.
_BITMAP_EOS = int(BitmapFlag.EOS)
_BLOCK_EOS = int(BlockFlag.EOS)
# The most kinds of events that come in any order: all devices, and what is between their records.
_KINDS_MAX = limits.DEVICES_MAX + _PERIOD_MAX
# The state after an event that is not taken in rows.
_OTHER: State = (-1, False)
# The most events in a section that is repeated as a unit.
_SECTION_EVENTS_MAX = 16
# The most events in a section that may come in any order: in a longer one, its records are taken in rows.
_PART_EVENTS_MAX = 2 * _PERIOD_MAX
# The least rows of a run that was worth the attempt.
_WORTH = 8
# The most items between attempts that fail; of any order, more if there are many templates.
_PATIENCE_MAX = 1 << 10
_PATIENCE_EACH = 4
# Items of known kinds in a row before any order is tried: a fixed order is found sooner.
_MIXED_FIRST = 2 * _PERIOD_MAX
# After so many items without a run worth the attempt, only the first ones of each _CYCLE are examined.
_IDLE_MAX = 1 << 14
_CYCLE, _EXAMINED = 1 << 14, 1 << 11


class Repeats:
    """Detects repetition in what the schemas parse, and takes the runs that continue it.

    The detection is a cheap guess, O(1) per event.  Of a ``source`` that is no ``RowInput``, no runs are
    taken.  ``rules``: those of the records.
    """

    def __init__(self, source: Input, rules: RulesOf) -> None:
        self._scanner = Scanner(source, rules) if isinstance(source, RowInput) else None
        self._patience = 1
        # The last event of each kind, those parsed longest ago first, with the states before and after
        # it, and its template, if it has one.
        self._kinds: dict[Hashable, tuple[Event, State, State, Template | None]] = {}
        self._known = 0
        self._patience_mixed = _MIXED_FIRST
        self._idle = 0
        self.clear()

    def clear(self) -> None:
        """Forget the order of all previous items."""
        self._last: dict[Hashable, int] = {}
        self._recent: deque[Sequence[Event]] = deque(maxlen=_PERIOD_MAX)
        self._number = 0
        self._period = 0
        self._matched = 0

    def record(self, event: Event) -> Iterable[Run]:
        """Return the runs after ``event``, the record parsed last.  Raises FailureError."""
        if self._is_paused():
            return ()
        if is_wide(event):
            self.clear()
            return ()
        key = _key(event)
        return self._behind(key, [event], None, known=self._is_known(key, event, None, None))

    def section(self, pieces: Iterator[Piece], end: int | None) -> Iterator[Piece]:
        """Yield ``pieces``, a section from its header to its footer, and the runs after it.

        ``end``: no run reaches beyond this byte of the stream.  Raises FailureError.
        """
        if self._is_paused():
            yield from pieces
            return
        events: list[Event] = []
        known, state, number = True, None, 0
        for piece in pieces:
            yield piece
            number += 1
            if isinstance(piece, Run) or is_wide(piece):
                events.clear()  # without its header, this is not a section
                known = False
                continue
            if number > _PART_EVENTS_MAX:
                known = False  # runs are taken of its records
                continue
            if len(events) <= _SECTION_EVENTS_MAX:
                events.append(piece)
            before, state = state, _state_after(piece, state)
            if state == _OTHER or not self._is_known((before, _key(piece)), piece, before, state):
                known = False
        key = _section_key(events) if events else None
        if key is None:
            self.clear()
        yield from self._behind(key, events, end, known=known and state is None)

    def _is_paused(self) -> bool:
        """Count an item; return whether it is not examined, as runs have been rare."""
        self._idle += 1
        if self._idle <= _IDLE_MAX:
            return False
        at = self._idle % _CYCLE
        if at == _EXAMINED:
            self._known = 0
            self.clear()
        return at >= _EXAMINED

    def _behind(
        self, key: Hashable | None, events: Sequence[Event], end: int | None, *, known: bool
    ) -> Iterable[Run]:
        """Return the runs after the item ``events``, which is like earlier ones of the same ``key``.

        None: not one that may be taken in turns.  ``known``: all its events are of known kinds.
        """
        if self._scanner is None:
            return ()
        self._known = self._known + 1 if known else 0
        if key is not None and self._repeated(key, events):
            return self._runs(self._scanner, end)
        patience = self._patience_mixed
        if self._idle > _IDLE_MAX:  # the items that are examined are enough for an attempt
            patience = min(patience, _EXAMINED // 2)
        if self._known >= patience:
            return self._mixed(self._scanner, end)
        return ()

    def _runs(self, scanner: Scanner, end: int | None) -> Iterator[Run]:
        """Yield the runs that continue the last period."""
        rows = 0
        for run in scanner.runs(list(chain(*list(self._recent)[-self._period :])), end):
            rows += run.columns[0].rows
            yield run
        # Where this fails often, try less often.
        worth = rows >= _WORTH
        self._idle = 0 if worth else self._idle
        self._patience = 1 if worth else min(2 * self._patience, _PATIENCE_MAX)
        self.clear()

    def _mixed(self, scanner: Scanner, end: int | None) -> Iterator[Run]:
        """Yield the runs of known kinds in any order."""
        for key, (event, before, after, template) in self._kinds.items():
            if template is None:
                self._kinds[key] = event, before, after, scanner.template(event, before, after)
        templates = [each[-1] for each in self._kinds.values() if each[-1] is not None]
        rows = 0
        for run in scanner.mixed(templates, end):
            rows += len(run)
            yield run
        self._known = 0
        # The attempt takes time with each template.
        most = max(_PATIENCE_MAX, _PATIENCE_EACH * len(templates))
        patience = min(max(2 * self._patience_mixed, _MIXED_FIRST), most)
        worth = rows >= max(_WORTH, len(templates))
        self._idle = 0 if worth else self._idle
        self._patience_mixed = 1 if worth else patience
        self.clear()

    def _is_known(self, key: Hashable, event: Event, before: State, after: State) -> bool:
        """Record ``event``; return whether there was one of the same ``key`` lately."""
        known = self._kinds.pop(key, None)
        self._kinds[key] = event, before, after, None if known is None else known[-1]
        if len(self._kinds) > _KINDS_MAX:
            del self._kinds[next(iter(self._kinds))]
        elif known is None:
            self._idle = 0  # runs may begin when all kinds are known
        return known is not None

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


def _key(event: Event) -> Hashable:
    """Return a key that events share which differ in nothing but their places and numbers."""
    if isinstance(event, Block):
        bitmaps = tuple(
            (part.name, part.granularity, part.attributes, part.bits.length)
            for part in event.bitmaps
        )
        shape = event.sectors, event.sectors_min, event.dialect, bitmaps
        return event.length, event.device, event.flags, shape
    if isinstance(event, BitmapBits):
        names = event.device, event.bitmap, event.extra_flags
        return event.length, event.flags, event.granularity, names
    if isinstance(event, Progress):
        return event.length, event.flags
    if isinstance(event, Ram) and event.is_page:
        return event.length, event.flags, event.block, event.head
    return event.type, *behind_offset(type(event))(event)  # type: ignore[arg-type]


def _state_after(event: Event, state: State) -> State:
    """Return the state after an event of a section: where the next one is.

    None is between sections, (id, False) inside of one, (id, True) before its footer.  ``_OTHER``: after
    what must not be taken in rows.  Accepted are parts that change no state except that of records for
    which there are rules: block records, bits of bitmaps, and what ends a part.
    """
    if isinstance(event, SectionHeader):
        return (event.id, False) if event.kind == SectionType.PART and state is None else _OTHER
    if state is None or state == _OTHER:
        return _OTHER
    number, ended = state
    if isinstance(event, Footer):
        return None if ended else _OTHER
    if isinstance(event, Eos | BitmapEos):
        return number, True
    if isinstance(event, Ram):
        return (number, True) if event.flags == RamFlag.EOS else _OTHER
    if isinstance(event, Block | Progress):
        return number, bool(event.flags & _BLOCK_EOS)
    if isinstance(event, BitmapBits):
        return number, bool(event.flags & _BITMAP_EOS)
    return _OTHER


def _section_key(events: Sequence[Event]) -> Hashable | None:
    """Return a key that equal sections share; None for one that must not be taken in rows.

    ``events`` is a section from its header to its footer.
    """
    state: State = None
    for event in events:
        state = _state_after(event, state)
    if state is not None or len(events) > _SECTION_EVENTS_MAX:
        return None
    return tuple(map(_key, events))
