"""The data of the inference of v1 layouts: possible layouts, and readings of a record in them."""

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas import block as schema
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE, WORD_BITS, WORD_SIZE
from blkmig_cli.wire.events import Payload
from blkmig_cli.wire.schema_io import Input


class After(Enum):
    """What follows a record that ends the payload, or why a reading ends.

    EDGE: the input ends too early, right after the record.  CUT: the input ends inside the record.
    """

    RECORDS = "records"
    END = "end"
    NONSENSE = "nonsense"
    EDGE = "edge"
    CUT = "cut"


@dataclass(slots=True, eq=False)  # not frozen, which would make them four times as slow to create
class Layout:
    """One possible layout of a stream's bitmaps.

    ``full``: bytes of bits per full chunk by (device, bitmap).  ``tails``: for a device whose disk is
    known to end inside a chunk: (sector, least and most sectors).  ``tops``: the highest sectors of
    the records that are read ahead.  ``key`` is the same for equal layouts.
    """

    full: Mapping[tuple[str, str], int]
    tails: Mapping[str, tuple[int, int, int]]
    tops: Mapping[str, int]
    key: int

    def __hash__(self) -> int:
        return self.key

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Layout)
            and self.key == other.key
            and (self.full is other.full or self.full == other.full)
            and self.tails == other.tails
            and self.tops == other.tops
        )

    def sectors(
        self, device: str, sector: int, top: int, size: int | None
    ) -> tuple[int, int] | None:
        """Return the least and most sectors that a record at ``sector`` covers; None if it is impossible.

        ``top``: the highest sector of an earlier record of the device; ``size``: bytes of the disk.
        """
        if size is not None:
            left = -(-size // SECTOR_SIZE) - sector
            return None if left <= 0 else (min(CHUNK_SECTORS, left),) * 2
        tail = self.tails.get(device)
        if tail is not None and sector >= tail[0]:
            return tail[1:] if sector == tail[0] else None
        if tail is not None or top > sector:
            return (CHUNK_SECTORS, CHUNK_SECTORS)
        return (1, CHUNK_SECTORS)

    def risen(self, device: str, sector: int, top: int) -> "Layout":
        """Return the layout after a record at ``sector``, where ``top`` was the highest sector before."""
        if sector <= top:
            return self
        key = self.key ^ top_key(device, top, sector)
        return Layout(self.full, self.tails, {**self.tops, device: sector}, key)

    def after(
        self, device: str, sector: int, top: int, low: int, high: int, *, sized: bool
    ) -> "Layout | None":
        """Return the layout if the record at ``sector`` has ``low`` to ``high`` sectors; None: contradiction.

        ``top``: the highest sector before it.  ``sized``: the disk's size is known, and need not be
        inferred from a record.
        """
        tail = self.tails.get(device)
        if tail is not None and sector > tail[0]:
            return None
        if high == CHUNK_SECTORS or sized:
            return self
        if top > sector:
            return None
        new = (sector, low, high)
        key = self.key ^ hash((device, tail)) ^ hash((device, new))
        return Layout(self.full, {**self.tails, device: new}, self.tops, key)

    def knowing(self, device: str, bitmap: str, full: int) -> "Layout":
        """Return the layout with ``full`` bytes of bits per full chunk for a further bitmap."""
        key = self.key ^ hash((device, bitmap, full))
        return Layout({**self.full, (device, bitmap): full}, self.tails, self.tops, key)


#: The layout without any assumption.
UNKNOWN = Layout({}, {}, {}, 0)


def top_key(device: str, before: int, after: int) -> int:
    """Return the change of a layout's key if a device's highest sector changes."""
    return hash((device, "top", before)) ^ hash((device, "top", after))


class Reading(NamedTuple):
    """One way to read a record: its end, the layout after it, its bits' lengths, its sectors.

    ``outcome`` is None where records follow.  ``before``: the reading of the preceding record.
    """

    end: int
    layout: Layout
    lengths: tuple[int, ...] = ()
    sectors: tuple[int, int] = (CHUNK_SECTORS, CHUNK_SECTORS)
    outcome: After | None = None
    before: "Reading | None" = None

    def ended(self, outcome: After) -> "Reading":
        """Return this reading with an ``outcome``."""
        return Reading(self.end, self.layout, self.lengths, self.sectors, outcome, self.before)

    def covering(self, sectors: tuple[int, int]) -> "Reading":
        """Return this reading of a record that covers least and most ``sectors``."""
        return Reading(self.end, self.layout, self.lengths, sectors, self.outcome, self.before)

    def complete(self, data: int, layout: Layout) -> "Reading":
        """Return this reading after ``data`` bytes of data, with the layout after the record."""
        return Reading(
            self.end + data, layout, self.lengths, self.sectors, self.outcome, self.before
        )


@lru_cache(1 << 10)
def bits_lengths(full: int, sectors: tuple[int, int]) -> tuple[tuple[int, tuple[int, int]], ...]:
    """Return the possible lengths of a record's bits in bytes, ascending.

    Each comes with the least and most sectors that the record then covers.
    ``full`` is the length for a full chunk.
    """
    granularity = schema.v1_granularity(full)
    low, high = sectors
    if granularity is None:
        return ((WORD_SIZE, sectors),)
    span = WORD_BITS * granularity // SECTOR_SIZE
    return tuple(
        (words * WORD_SIZE, (max(low, (words - 1) * span + 1), min(high, words * span)))
        for words in range(-(-low // span), -(-high // span) + 1)
    )


class Ahead:
    """An input that reads ahead in ``source``, from ``offset`` on, without moving it.

    See ``schema_io.Input``.
    """

    def __init__(self, source: Input, offset: int) -> None:
        self._source = source
        self.offset = offset
        self.size = source.size
        self.seekable = source.seekable
        self.held = source.held
        self.origin = source.origin
        self.damage = source.damage

    def peek(self, length: int) -> bytes:
        """See ``schema_io.Input``."""
        return self._source.peek_at(self.offset, length)

    def peek_at(self, offset: int, length: int) -> bytes:
        """See ``schema_io.Input``."""
        return self._source.peek_at(offset, length)

    def available(self, length: int) -> int:
        """See ``schema_io.Input``."""
        if self.size is not None:
            return min(length, self.size - self.offset)
        there = len(self._source.peek_at(self.offset + length - 1, 1)) if length else 0
        return length if there else 0

    def advance(self, length: int) -> None:
        """See ``schema_io.Input``."""
        self.offset += length

    def discard(self, length: int) -> int:
        """See ``schema_io.Input``."""
        there = self.available(length)
        self.offset += there
        return there

    def release(self) -> None:
        """Do nothing: no bytes are held."""

    def view(self, payload: Payload) -> memoryview:
        """See ``schema_io.Input``."""
        return memoryview(self._source.peek_at(payload.offset, payload.length))
