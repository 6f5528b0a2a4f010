"""Detecting repetition in what the schemas parse, after which the scanner reads on.

Items (records, or whole sections) that come in a fixed order are rows of one template; those of a few
kinds that come in any order are rows of one template for each kind.  See ``scanner.py``.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain

from blkmig_cli import limits
from blkmig_cli.schemas.constants import RamFlag, SectionType
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
from blkmig_cli.wire.runs import Piece, Run, moved
from blkmig_cli.wire.scanner import RowInput, RulesOf, Scanner, Template, is_wide
from blkmig_cli.wire.schema_io import Input

# The longest period, in records (or sections), that is recognised.
_PERIOD_MAX = 32
# The most kinds of items that come in any order: all devices, and what is between their records.
_KINDS_MAX = limits.DEVICES_MAX + _PERIOD_MAX
# The most events in a section that is repeated as a unit.
_SECTION_EVENTS_MAX = 16
# The least rows of a run that was worth the attempt.
_WORTH = 8
_PATIENCE_MAX = 1 << 10
# Items of known kinds in a row before any order is tried: a fixed order is found sooner.
_MIXED_FIRST = 2 * _PERIOD_MAX


class Repeats:
    """Detects repetition in what the schemas parse, and takes the runs that continue it.

    The detection is a cheap guess, O(1) per item.  Of a ``source`` that is no ``RowInput``, no runs are
    taken.  ``rules``: those of the records.
    """

    def __init__(self, source: Input, rules: RulesOf) -> None:
        self._scanner = Scanner(source, rules) if isinstance(source, RowInput) else None
        self._patience = 1
        # The last items of each kind, those parsed longest ago first, with their templates, if any.
        self._kinds: dict[Hashable, tuple[Sequence[Event], Template | None]] = {}
        self._known = 0
        self._patience_mixed = _MIXED_FIRST
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
        if is_wide(event):
            self.clear()
            return ()
        return self._behind(_key(event), [event], None)

    def section(self, pieces: Iterator[Piece], end: int | None) -> Iterator[Piece]:
        """Yield ``pieces``, a section from its header to its footer, and the runs after it.

        ``end``: no run reaches beyond this byte of the stream.  Raises FailureError.
        """
        events: list[Event] = []
        for piece in pieces:
            yield piece
            if isinstance(piece, Run) or is_wide(piece):
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
        if self._scanner is None:
            return ()
        known = self._is_known(key, events)
        if self._repeated(key, events):
            return self._runs(self._scanner, end)
        if known and self._known >= self._patience_mixed:
            return self._mixed(self._scanner, end)
        return ()

    def _runs(self, scanner: Scanner, end: int | None) -> Iterator[Run]:
        """Yield the runs that continue the last period."""
        rows = 0
        for run in scanner.runs(list(chain(*list(self._recent)[-self._period :])), end):
            rows += run.columns[0].rows
            yield run
        # Where this fails often, try less often.
        self._patience = 1 if rows >= _WORTH else min(2 * self._patience, _PATIENCE_MAX)
        self.clear()

    def _mixed(self, scanner: Scanner, end: int | None) -> Iterator[Run]:
        """Yield the runs of known kinds in any order."""
        for key, (events, template) in self._kinds.items():
            if template is None:
                self._kinds[key] = events, scanner.template(events)
        templates = [template for _, template in self._kinds.values() if template is not None]
        rows = 0
        for run in scanner.mixed(templates, end):
            rows += len(run)
            yield run
        self._known = 0
        patience = min(max(2 * self._patience_mixed, _MIXED_FIRST), _PATIENCE_MAX)
        # The attempt takes time with each template.
        self._patience_mixed = 1 if rows >= max(_WORTH, len(templates)) else patience
        self.clear()

    def _is_known(self, key: Hashable, events: Sequence[Event]) -> bool:
        """Record ``events``; return whether there were some of the same ``key`` lately."""
        before = self._kinds.pop(key, None)
        if before is None:
            self._kinds[key] = events, None
            self._known = 0
            if len(self._kinds) > _KINDS_MAX:
                del self._kinds[next(iter(self._kinds))]
            return False
        template = before[1]
        if template is not None and not all(map(_alike, template.events, events)):
            template = None
        self._kinds[key] = events, template
        self._known += 1
        return True

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
    """Return a key that equal records share."""
    if isinstance(event, Block):
        return event.length, event.device, event.flags
    if isinstance(event, BitmapBits):
        return event.length, event.device, event.flags, event.bitmap
    return event.type, event.length


def _alike(event: Event, other: Event) -> bool:
    """Return whether two events differ in nothing but their places and numbers."""
    number = count = 0
    if isinstance(other, Block):
        number = other.sector
    elif isinstance(other, Progress):
        number = other.percent
    elif isinstance(other, BitmapBits):
        number, count = other.sector, other.sectors
    return moved(event, other.offset - event.offset, number, count) == other


def _section_key(events: Sequence[Event]) -> Hashable | None:
    """Return a key that equal sections share; None for one that must not be taken in rows.

    ``events`` is a section from its header to its footer.  Accepted are parts that change no state
    except that of records for which there are rules: parts with block records or bits of bitmaps, and
    empty parts of other sections.
    """
    head = events[0]
    if not isinstance(head, SectionHeader) or head.kind != SectionType.PART:
        return None
    if not isinstance(events[-1], Footer) or len(events) > _SECTION_EVENTS_MAX:
        return None
    inner = events[1:-1]
    for event in inner:
        bare = isinstance(event, Ram) and event.flags == RamFlag.EOS and len(inner) == 1
        if not (bare or isinstance(event, Block | Progress | Eos | BitmapBits | BitmapEos)):
            return None
    return (head.id, *map(_key, inner))
