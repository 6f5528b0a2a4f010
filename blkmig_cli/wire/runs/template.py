"""The layout of rows: which bytes of a repeated record are equal in all rows, and where its numbers are.

It knows no format: a template is made of events that the schemas have parsed, and their bytes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.schemas import dirty_bitmap as bitmap_schema
from blkmig_cli.schemas.block import RecordWord
from blkmig_cli.schemas.constants import BLOCK_FLAG_BITS, PAGE_SIZE_DEFAULT
from blkmig_cli.schemas.ram import RamWord
from blkmig_cli.wire.events import BitmapBits, Block, Event, Payload, Progress, Ram
from blkmig_cli.wire.runs.columns import Bytes, Numbers

_WORD = RecordWord.sizeof()
_RAM_WORD, _RAM_FLAG_BITS = RamWord.sizeof(), PAGE_SIZE_DEFAULT.bit_length() - 1
#: Bytes of a row that are compared at once.
LANE = 8
#: Bytes of rows that are compared at once (few enough for the processor's cache).
BATCH = 1 << 20
# Rows per read where each row needs its own read, as each is then held as an object.
_ROWS_APART = 1 << 13

#: A place in the order of events; None is that at which rows may begin and end.
State = tuple[int, bool] | None
#: The names that a record without names of its own refers to: a device, a bitmap of it; or fewer of them.
Names = tuple[str, ...]


class _Field(NamedTuple):
    """A number of an event: its first byte and its size in the row, and its value.

    The lower ``shift`` bits of the bytes are ``flags``, which are equal in all rows; the others are the
    value in units of ``unit``.
    """

    start: int
    size: int
    value: int
    shift: int = 0
    flags: int = 0
    unit: int = 1


def _fields(event: Event, start: int) -> list[_Field]:
    """Return the numbers of ``event``, the head of which begins at byte ``start`` of the row.

    They are those of a column of such events: its numbers, then its counts.
    """
    if isinstance(event, Block | Progress):
        value = event.sector if isinstance(event, Block) else event.percent
        return [_Field(start, _WORD, value, BLOCK_FLAG_BITS, event.flags)]
    if isinstance(event, Ram) and event.is_page:
        value, flags = event.offset_in_block, event.flags
        return [_Field(start, _RAM_WORD, value, _RAM_FLAG_BITS, flags, PAGE_SIZE_DEFAULT)]
    if isinstance(event, BitmapBits):
        bits = 0 if event.bits is None else bitmap_schema.BitsLength.sizeof() + event.bits.length
        start += event.length - bits - bitmap_schema.Range.sizeof()
        sector = _Field(start, bitmap_schema.Range.sector.sizeof(), event.sector)
        start += sector.size
        return [sector, _Field(start, bitmap_schema.Range.sectors.sizeof(), event.sectors)]
    return []


def _bits(event: Event) -> list[Payload]:
    """Return the places of the bits in ``event``."""
    if isinstance(event, Block):
        return [part.bits for part in event.bitmaps]
    return [event.bits] if isinstance(event, BitmapBits) and event.bits is not None else []


class Template:
    """The layout of a row: the bytes that must be equal, and the places of its numbers and bits.

    It is derived from the events parsed from the row: their places, and those of their payloads.
    ``before`` and ``after``: the states before and after a row.  ``needs``: the names that must be
    current before it; ``leaves``: those after it, None if it changes none.
    """

    def __init__(
        self,
        events: Sequence[Event],
        before: State = None,
        after: State = None,
        needs: Names = (),
        leaves: Names | None = None,
    ) -> None:
        self.events = events
        self.before = before
        self.after = after
        self.needs = needs
        self.leaves = leaves
        self.start = events[0].offset
        self.stride = sum(event.length for event in events)
        self.pieces: list[tuple[int, int]] = []
        self.fields: list[list[_Field]] = []
        self.bits: list[list[tuple[int, int]]] = []
        self.width = 0
        self.row: Bytes | None = None
        self.fixed = slice(0, 0)
        self.head = 0
        for event in events:
            data = event.data if isinstance(event, Block | Ram) else None
            head = event.length - (0 if data is None else data.length)
            self.fields.append(_fields(event, self.width))
            self.bits.append(
                [(self.width + bits.offset - event.offset, bits.length) for bits in _bits(event)]
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
        return min(BATCH // self.width, BATCH if self.stride == self.width else _ROWS_APART)

    def made(self, row: Bytes) -> bool:
        """Return whether the events have the numbers of ``row``; not if the file has changed meanwhile."""
        return all(
            int.from_bytes(row[one.start : one.start + one.size].tobytes(), "big")
            == one.value // one.unit << one.shift | one.flags
            for fields in self.fields
            for one in fields
        )

    def learn(self, row: Bytes) -> None:
        """Set the template's bytes: uint8, shape (width,).

        Of those that are equal in every row, ``fixed`` are the most that are adjacent; ``head`` are as
        many at the beginning, if names are there.
        """
        self.row = row
        mask = np.full(self.width, 0xFF, np.uint8)
        for fields, bits in zip(self.fields, self.bits, strict=True):
            for one in fields:
                flags = ((1 << one.shift) - 1).to_bytes(one.size, "big")
                mask[one.start : one.start + one.size] = np.frombuffer(flags, np.uint8)
            for start, length in bits:
                mask[start : start + length] = 0
        edges = np.flatnonzero(np.diff(mask == 0xFF, prepend=False, append=False)).reshape(-1, 2)
        self.fixed = slice(*edges[np.diff(edges).argmax()].tolist()) if len(edges) else slice(0, 0)
        if self.leaves is not None and len(edges) and not edges[0, 0]:
            self.head = int(edges[0, 1])
        # ``LANE`` bytes are compared at once; the last ones may overlap those before.  Of fewer, all are
        # fixed, and so have been compared.
        self._lanes = []
        if self.width < LANE:
            return
        for start in {*range(0, self.width - LANE + 1, LANE), self.width - LANE}:
            lane = slice(start, start + LANE)
            if mask[lane].any():
                keep = mask[lane].copy().view(np.uint64)[0]
                self._lanes.append((start, keep, row[lane].copy().view(np.uint64)[0] & keep))

    @property
    def key(self) -> tuple[State, Names, tuple[int, int, int], bytes]:
        """What decides whether a row may be of this template before its numbers are read.

        It is a state, the names there, and the bytes of ``fixed`` and ``head``, after their places.
        """
        assert self.row is not None
        places = self.fixed.start, self.fixed.stop, self.head
        found = self.row[self.fixed].tobytes() + self.row[: self.head].tobytes()
        return self.before, self.needs, places, found

    def equal(self, rows: Bytes) -> NDArray[np.bool_]:
        """Return which of ``rows``, shape (rows, width) and C-contiguous, match the template."""
        differ = np.zeros(len(rows), np.bool_)
        for start, keep, expected in self._lanes:
            lane: NDArray[np.uint64] = np.ndarray(len(rows), np.uint64, rows, start, (self.width,))
            differ |= (lane & keep) != expected
        return ~differ

    def numbers(self, rows: Bytes) -> list[tuple[Numbers | None, Numbers | None]]:
        """Return for each event the numbers and the counts of its column."""
        found = []
        for fields in self.fields:
            values: list[Numbers | None] = [
                (
                    np.ndarray(len(rows), f">u{one.size}", rows, one.start, (self.width,)).astype(
                        np.uint64
                    )
                    >> np.uint64(one.shift)
                ).astype(np.int64)
                * one.unit
                for one in fields
            ]
            number, count = (*values, None, None)[:2]
            found.append((number, count))
        return found
