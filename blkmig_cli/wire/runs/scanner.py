"""The vectorised scanner: reads repeated records by the thousand instead of one by one.

It knows no format.  Events that the schemas have parsed are a template: their bytes are compared with
the bytes that follow, except those that may differ from row to row (a record's numbers, the bits of
its bitmaps) and those that are never read (disk data).  Rows that compare equal parse equal, apart from
rules on the numbers themselves, which are checked for every row by the owner of those rules
(:class:`Rules`).  The first row that differs in any way is left to the schemas.  The events are
therefore always those of the schemas, only sooner.

There are two ways: rows of one template at equal distances, and rows of several templates in any order,
which follow each other.  Each of these leads from a state to a state: a section's header, for example,
from between sections to the inside of one.  A record may refer to names that a record before it has.
"""

from array import array
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.wire.events import BitmapBits, Block, Event
from blkmig_cli.wire.runs.columns import Bytes, Column, Numbers, Run, column_of
from blkmig_cli.wire.runs.template import BATCH, LANE, Names, State, Template
from blkmig_cli.wire.schema_io import Input

# The widest row.
_WIDTH_MAX = BATCH >> 4
# Rows of the first read; doubled whenever all of them were taken.
_ROWS_FIRST = 16
# Bytes for each template of the first read for rows in any order; doubled likewise.
_BYTES_FIRST = 1 << 12
_BYTES_MAX = 1 << 24
# The fewest of these rows, and rows of a template on average, that are worth their arrays.
_WORTH = 8
_WORTH_EACH = 16


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


_Ruled_contra = TypeVar("_Ruled_contra", Block, BitmapBits, contravariant=True)


class Rules(Protocol[_Ruled_contra]):
    """The rules on the numbers of records of a kind, and the state that the records change."""

    @property
    def names(self) -> Names:
        """The names to which a record at the current place refers if it has none; () if there are none."""

    def needs(self, event: _Ruled_contra) -> Names:
        """Return which names ``event`` has from the records before it."""

    def leaves(self, event: _Ruled_contra) -> Names | None:
        """Return the names to which a record after ``event`` refers; None if it changes none."""

    def repeatable(self, event: _Ruled_contra) -> bool:
        """Return whether records like ``event``, the last one of its kind, may be taken in rows."""

    def admits(
        self, event: _Ruled_contra, sectors: Numbers, counts: Numbers | None
    ) -> NDArray[np.bool_]:
        """Return which rows give an event equal to ``event`` apart from its place: shape (rows,).

        ``sectors`` and ``counts``: numbers and counts as of a ``Column``, but those that do not fit in
        63 bits are negative.  Only the rows before the first False are valid, except for records
        without bitmaps, whose rows do not depend on each other.
        """

    def took(self, event: _Ruled_contra, top: int) -> None:
        """Note that records like ``event`` have been taken; ``top`` is the highest sector.

        Of those that are taken together, the last one in the stream is noted last.
        """


#: By kind of record, if there are rules for it.
RulesOf = Mapping[type[Event], Rules[Any]]


def _prefix(good: NDArray[np.bool_]) -> int:
    """Return how many are True before the first False."""
    first = int(good.argmin())
    return len(good) if good[first] else first


#: What may come: places in the row, and by the bytes there the templates' numbers; the longest first.
_Shapes = list[tuple[int, int, int, dict[bytes, int]]]


class _Successors:
    """Which of ``templates`` may come in a state with the names there."""

    def __init__(self, templates: Sequence[Template]) -> None:
        self._known: dict[tuple[State, Names], dict[tuple[int, int, int], dict[bytes, int]]] = {}
        self._shapes: dict[tuple[State, Names], _Shapes] = {}
        for number, template in enumerate(templates):
            before, needs, places, found = template.key
            known = self._known.setdefault((before, needs), {})
            known.setdefault(places, {})[found] = number

    def shapes(self, state: State, names: Names) -> _Shapes:
        """Return the templates in ``state``: those that need nothing, and those that need these names."""
        found = self._shapes.get((state, names))
        if found is None:
            found = [
                (*places, numbers)
                for known in {(), names[:1], names}
                for places, numbers in self._known.get((state, known), {}).items()
            ]
            found.sort(key=lambda shape: shape[0] - shape[1] - shape[2])
            self._shapes[state, names] = found
        return found


def _chain(
    data: bytes, templates: Sequence[Template], names: Names
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows from the beginning of ``data`` on: the numbers of their templates, and their places.

    They are those whose ``fixed`` bytes and ``head`` are equal to a template's; the longest decide.
    ``names``: those at the beginning.
    """
    successors = _Successors(templates)
    # Those after a template that changes no names may depend on what came before.
    named = any(template.needs for template in templates)
    following = [
        None
        if named and template.leaves is None
        else successors.shapes(template.after, template.leaves or ())
        for template in templates
    ]
    widths = [template.width for template in templates]
    owners, places = array("q"), array("q")
    at, shapes = 0, successors.shapes(None, names)
    while True:
        for start, stop, head, numbers in shapes:
            number = numbers.get(data[at + start : at + stop] + data[at : at + head], -1)
            if number >= 0:
                break
        else:
            break
        end = at + widths[number]
        if end > len(data):
            break
        owners.append(number)
        places.append(at)
        at, known = end, following[number]
        if known is None:
            shapes = successors.shapes(templates[number].after, names)
        else:
            shapes, names = known, templates[number].leaves or names
    return np.frombuffer(owners, np.int64), np.frombuffer(places, np.int64)


class Scanner:
    """Takes runs from ``source``, and moves it past them."""

    def __init__(self, source: RowInput, rules: RulesOf) -> None:
        self._source = source
        self._rules = rules

    def runs(self, events: Sequence[Event], end: int | None = None) -> Iterator[Run]:
        """Yield the rows that repeat ``events``, which are right before the current place.

        ``end``: no row reaches beyond this byte of the stream.  Raises FailureError.
        """
        source = self._source
        if not self._repeatable(events):
            return
        template = Template(events)
        if not LANE <= template.width <= _WIDTH_MAX:
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
            taken = _prefix(self._good(template, rows)) if len(rows) else 0
            if taken == 0:
                return
            by = offset - start + np.arange(taken, dtype=np.int64) * template.stride
            columns = tuple(self._of_rows(template, rows[:taken], by))
            source.advance(taken * template.stride)
            yield Run(columns, source.offset)
            if taken < len(rows):
                return
            most = min(2 * most, template.batch)

    def template(self, event: Event, before: State, after: State) -> Template | None:
        """Return the template of ``event`` for :meth:`mixed`; None if it cannot be made."""
        rules = self._rules.get(type(event))
        needs, leaves = ((), None) if rules is None else (rules.needs(event), rules.leaves(event))
        template = Template([event], before, after, needs, leaves)
        if template.width != template.stride or template.width > _WIDTH_MAX:
            return None
        rows = self._source.rows(template.start, template.stride, template.pieces, 1)
        if not len(rows) or not template.made(rows[0]):
            return None
        template.learn(rows[0].copy())
        fixed = template.fixed.stop - template.fixed.start
        enough = fixed if template.width >= LANE else fixed == template.width
        return template if enough else None

    def mixed(self, templates: Sequence[Template], end: int | None = None) -> Iterator[Run]:
        """Yield the rows like ``templates``, in any order, from the current place on.

        The state there is None, and so it is after each run.  ``end``: no row reaches beyond this byte
        of the stream.  Raises FailureError.
        """
        source = self._source
        usable = [one for one in templates if all(map(self._orderless, one.events))]
        least = min(_BYTES_FIRST * max(len(usable), 1), _BYTES_MAX)
        widest = max((one.width for one in usable), default=0)
        most = least
        while True:
            start = source.offset
            names = next((rules.names for rules in self._rules.values() if rules.names), ())
            if end is not None:
                most = min(most, max(end - start, 0))
            window = source.rows(start, 1, [(0, 1)], most).reshape(-1)
            owners, places = _chain(window.tobytes(), usable, names)
            columns, size, refused = self._columns(usable, window, owners, places)
            if not columns:
                return
            source.advance(size)
            yield Run(columns, source.offset)
            if refused or int(places[-1]) + 2 * widest < len(window):
                return
            most = max(min(2 * most, BATCH), least)

    def _columns(
        self,
        templates: Sequence[Template],
        window: Bytes,
        owners: NDArray[np.int64],
        places: NDArray[np.int64],
    ) -> tuple[tuple[Column, ...], int, bool]:
        """Return the columns of the rows that may be taken, their bytes, and whether a row is refused.

        The rows are at ``places`` of the ``window``, which begins at the current offset; ``owners`` are
        the numbers of their ``templates``.  Few rows are not worth it: then none are taken.
        """
        start, end, refused = self._source.offset, len(window), False
        equal: dict[Hashable, list[Template]] = {}
        for template in templates:
            equal.setdefault(template.key, []).append(template)
        found = []
        order = np.argsort(owners, kind="stable")
        first = np.flatnonzero(np.diff(owners[order], prepend=-1))
        if len(owners) < max(_WORTH, _WORTH_EACH * len(first)):
            return (), 0, False
        for each in np.split(order, first[1:]):
            ours = places[each]
            # The numbers decide between templates with equal bytes.
            for template in equal[templates[int(owners[each[0]])].key]:
                if not len(ours):
                    break
                rows = window[ours[:, None] + np.arange(template.width)]
                good = self._good(template, rows)
                if len(equal[template.key]) > 1:
                    if good.any():
                        found.append((template, ours[good], rows[good]))
                    ours = ours[~good]
                else:
                    found.append((template, ours, rows))
                    ours = ours[_prefix(good) :]
            if len(ours):
                refused = True
                end = min(end, int(ours[0]))
        closing = np.array([template.after is None for template in templates])
        ends = np.flatnonzero(closing[owners[: np.searchsorted(places, end)]])
        taken = int(ends[-1]) + 1 if len(ends) else 0
        if taken < max(_WORTH, _WORTH_EACH * len(found)):
            return (), 0, False
        end = int(places[taken - 1]) + templates[int(owners[taken - 1])].width
        taken_of = [
            (ours[: int(np.searchsorted(ours, end))], template, rows)
            for template, ours, rows in found
        ]
        columns: list[Column] = []
        # The last row is that which the rules note last.
        for ours, template, rows in sorted(
            (each for each in taken_of if len(each[0])), key=lambda each: int(each[0][-1])
        ):
            by = start + ours - template.start
            columns += self._of_rows(template, rows[: len(ours)], by)
        columns.sort(key=lambda column: column.event.offset)
        return tuple(columns), end, refused

    def _good(self, template: Template, rows: Bytes) -> NDArray[np.bool_]:
        """Return which ``rows`` the template and the rules admit; those before the first False are valid."""
        good = template.equal(rows)
        for event, (sectors, counts) in zip(template.events, template.numbers(rows), strict=True):
            if (rules := self._rules.get(type(event))) and sectors is not None:
                good &= rules.admits(event, sectors, counts)
        return good

    def _of_rows(self, template: Template, rows: Bytes, by: Numbers) -> Iterator[Column]:
        """Yield the columns of ``rows``, ``by`` bytes behind the template, and tell the rules of them."""
        for event, (number, count), bits in zip(
            template.events, template.numbers(rows), template.bits, strict=True
        ):
            if (rules := self._rules.get(type(event))) and number is not None:
                rules.took(event, int(number.max()))
            parts = tuple(rows[:, at : at + length] for at, length in bits)
            yield column_of(event, event.offset + by, number, count, parts)

    def _orderless(self, event: Event) -> bool:
        """Return whether events like ``event`` may be taken in any order."""
        ordered = isinstance(event, Block) and event.sectors_min != event.sectors
        rules = self._rules.get(type(event))
        return not ordered and (rules is None or rules.repeatable(event))

    def _repeatable(self, events: Sequence[Event]) -> bool:
        """Return whether ``events`` end at the current place and may all be taken in rows."""
        seen: set[str] = set()
        for event in events:
            if isinstance(event, Block):
                # Where the sectors that a record covers follow only from increasing sectors, order
                # matters, but the rules see one column at a time.
                if event.sectors_min != event.sectors and event.device in seen:
                    return False
                seen.add(event.device)
            rules = self._rules.get(type(event))
            if rules is not None and not rules.repeatable(event):
                return False
        length = sum(event.length for event in events)
        return events[0].offset + length == self._source.offset


def is_wide(event: Event) -> bool:
    """Return whether a row with ``event`` is never taken; it may have so many bitmaps that it is not held."""
    if event.length <= _WIDTH_MAX or not isinstance(event, Block):
        return False
    return event.length - (0 if event.data is None else event.data.length) > _WIDTH_MAX
