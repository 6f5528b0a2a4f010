"""The state of one dirty bitmap in a stream: its bits, the ranges that they cover, and its end."""

from collections.abc import Iterator
from dataclasses import field
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.contents.v1_granularity import Observations
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.bitmap import DirtyBitmap, ascending, last_of_each
from blkmig_cli.disks.bitmap_words import Room
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.block import first_word
from blkmig_cli.schemas.constants import (
    CHUNK_SECTORS,
    CHUNK_SIZE,
    SECTOR_SIZE,
    WORD_BITS,
    WORD_SIZE,
    BitmapAttribute,
)
from blkmig_cli.schemas.dirty_bitmap import bits_length
from blkmig_cli.wire.events import BitmapBits, Block, BlockBitmap
from blkmig_cli.wire.runs.columns import Bytes, Column, Numbers, Run

# As plain numbers: operations on enums are slow.
_ENABLED = int(BitmapAttribute.ENABLED)
_PERSISTENT = int(BitmapAttribute.PERSISTENT)


@dataclass(slots=True)
class BitmapState:
    """The state of one bitmap.

    ``granularity`` is in bytes, None while it is unknown (coarse v1); ``open`` then holds the records
    until :meth:`settle`.  ``covered`` is in sectors.  ``origin``: ``v1``, ``v2`` or ``dirty-bitmap``.
    """

    device: str
    name: str
    granularity: int | None
    recording: bool = True
    persistent: bool = False
    ended: bool = False
    covered: IntervalSet = field(default_factory=IntervalSet)
    content: DirtyBitmap | None = None
    open: Observations | None = None
    candidates: list[int] = field(default_factory=list)
    origin: str = "v1"

    def set_flags(self, attributes: int) -> None:
        """Set the flags from a record or chunk; v1 has none."""
        self.recording = bool(attributes & _ENABLED)
        self.persistent = bool(attributes & _PERSISTENT)

    def know_granularity(self, granularity: int, room: Room) -> DirtyBitmap:
        """Set the granularity in bytes; returns the bitmap, with the records held until now."""
        self.granularity = granularity
        content = self.content = DirtyBitmap(self.name, granularity, room=room)
        if self.open is not None:
            for sectors, rows in self.open.rows():
                words = first_word(sectors, granularity)  # type: ignore[arg-type]
                content.write_rows(np.asarray(words), rows)
        return content

    def settle(self, possible: list[int], size: int | None, room: Room) -> None:
        """Set the unknown granularity of a v1 bitmap, if only one of ``possible`` (bytes) remains.

        ``size``: the most bytes that the disk can have, None if unknown.
        """
        if self.open is None:
            return
        self.candidates = self.open.narrow(possible, size)
        if len(self.candidates) == 1:
            self._close(self.candidates[0], room)

    def _close(self, granularity: int, room: Room) -> None:
        """Set the granularity that was unknown; the records held until now are applied."""
        self.know_granularity(granularity, room)
        if self.open is not None:
            self.covered = self._reached(granularity, self.open)
            self.candidates, self.open = [granularity], None

    def _reached(self, granularity: int, records: Observations) -> IntervalSet:
        """Return the part of ``covered`` for which the v1 ``records`` have words at ``granularity``."""
        span = WORD_BITS * granularity // SECTOR_SIZE
        if span % CHUNK_SECTORS == 0 and not (records.numbers() % CHUNK_SECTORS).any():
            return self.covered
        reached = IntervalSet()
        for sectors, rows in records.rows():
            ends = _words_end(sectors, rows.shape[1], granularity)
            for start, end in zip(sectors.tolist(), ends.tolist(), strict=True):
                for low, high in self.covered.between(start, min(end, start + CHUNK_SECTORS)):
                    reached.add(low, high)
        return reached

    def add_record(self, event: Block, part: BlockBitmap, bits: memoryview) -> None:
        """Take the bits of a block record; raises LimitError."""
        end = event.sector + event.sectors
        if part.attributes is None and self.granularity is not None:
            # The words of a record off the chunk grid may end before its range does.
            end = min(end, int(_words_end(event.sector, len(bits), self.granularity)))
        self.covered.add(event.sector, end)
        if self.content is None:
            assert self.open is not None
            self.open.add(event.sector, bits)
        elif part.attributes is None:
            self.content.write_words(first_word(event.sector, self.content.granularity), bits)
        else:
            self.content.write_granules(
                *_granules(event.sector, event.sector + event.sectors, self.content.granularity),
                bits,
            )

    def cover_rows(self, part: BlockBitmap, sectors: Numbers, length: int, size: int) -> None:
        """Note that records of ``length`` sectors at ``sectors`` each had ``size`` bytes of bits."""
        known = None if self.content is None else self.content.granularity
        if part.attributes is None and known is not None and (sectors % CHUNK_SECTORS).any():
            ends = _words_end(sectors, size, known)
            for start, end in zip(sectors.tolist(), ends.tolist(), strict=True):
                self.covered.add(start, min(end, start + length))
        else:
            self.covered.add_each(sectors, length)

    def add_rows(self, part: BlockBitmap, sectors: Numbers, length: int, bits: Bytes) -> None:
        """Take the bits of records of ``length`` sectors at neighbouring ``sectors``.

        ``sectors``: int64, shape (rows,), only increasing or only decreasing; ``bits``: uint8, shape (rows,
        bytes).  :meth:`cover_rows` notes what they cover.  Raises LimitError.
        """
        content = self.content
        if content is None:
            assert self.open is not None
            self.open.add_rows(sectors, bits)
        elif part.attributes is None:
            words = first_word(sectors, content.granularity)  # type: ignore[arg-type]
            content.write_rows(np.asarray(words), bits)
        elif len(sectors) > 1 and (length == CHUNK_SECTORS or not bits.shape[1]):
            data = _chunk_granules(sectors, content.granularity, bits) if bits.shape[1] else b""
            low, high = sorted((int(sectors[0]), int(sectors[-1])))
            high += length
            content.write_granules(*_granules(low, high, content.granularity), data)
        else:
            for sector, row in zip(sectors.tolist(), bits, strict=True):
                content.write_granules(
                    *_granules(sector, sector + length, content.granularity), row.tobytes()
                )

    def add_section_bits(self, event: BitmapBits, bits: memoryview | None, room: Room) -> None:
        """Take a chunk of the ``dirty-bitmap`` section; ``bits`` None: all clean.

        Raises LimitError.
        """
        content = self.content
        if content is None:
            content = self.know_granularity(event.granularity, room)
        self.covered.add(event.sector, event.sector + event.sectors)
        first = event.sector * SECTOR_SIZE // event.granularity
        if bits is None:
            granules = -(-event.sectors * SECTOR_SIZE // event.granularity)
            content.write_granules(first, granules, b"")
        else:
            exact = bits_length(event.sectors, event.granularity)
            content.write_words(first // WORD_BITS, bits[:exact])

    def add_section_run(self, run: Run) -> None:
        """Take chunks of the ``dirty-bitmap`` section as :meth:`add_section_bits`; raises LimitError."""
        content = self.content
        assert content is not None
        for column in run.columns:
            assert column.numbers is not None
            assert column.counts is not None
            ends = column.numbers + column.counts
            self.covered.add_all(np.stack((column.numbers, ends), axis=1))
        rows = [_section_rows(column, content.granularity) for column in run.columns]
        for first, granules, bits in run.merged(rows):
            if bits is None:
                content.write_granules(first, granules, b"")
            else:
                content.write_words(first // WORD_BITS, bits)


def _section_rows(column: Column, granularity: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Return of each chunk in ``column`` the first granule, their number, and the words, None if clean."""
    assert column.numbers is not None
    assert column.counts is not None
    firsts = (column.numbers * SECTOR_SIZE // granularity).tolist()
    granules = (-(-column.counts * SECTOR_SIZE // granularity)).tolist()
    if not column.bits:
        return zip(firsts, granules, repeat(None, column.rows), strict=True)
    size, rows = column.bits[0].shape[1], column.bits[0].tobytes()
    ends = np.arange(0, len(rows), size) + bits_length(column.counts, granularity)
    bits = map(rows.__getitem__, map(slice, range(0, len(rows), size), ends.tolist()))
    return zip(firsts, granules, bits, strict=True)


def _words_end(sectors: Any, size: int, granularity: int) -> Any:
    """Return the sectors at which the ``size`` bytes of bits of v1 records at ``sectors`` end."""
    span = WORD_BITS * granularity // SECTOR_SIZE
    return (sectors // span + size // WORD_SIZE) * span


def _granules(start: int, end: int, granularity: int) -> tuple[int, int]:
    """Return the granules that overlap the sectors [start, end): first, count."""
    first = start * SECTOR_SIZE // granularity
    return first, (end * SECTOR_SIZE - 1) // granularity - first + 1


def _chunk_granules(sectors: Numbers, granularity: int, bits: Bytes) -> bytes:
    """Return the bits of whole chunks (v2) as :meth:`DirtyBitmap.write_granules` takes them.

    From 32 KiB on, a word also contains granules of other chunks, which are ignored; from 2 MiB on, a
    granule is in several records, of which the last one is used.
    """
    if granularity * WORD_BITS <= CHUNK_SIZE:
        return ascending(sectors, bits).tobytes()
    granules = sectors * SECTOR_SIZE // granularity
    if granularity > CHUNK_SIZE:
        last = last_of_each(granules)
        granules, bits = granules[last], bits[last]
    each = max(CHUNK_SIZE // granularity, 1)
    # A chunk's granules are in one word.
    words: NDArray[Any] = np.ascontiguousarray(bits).view("<u8")[:, 0]
    own = ascending(granules, words >> (granules % WORD_BITS).view(np.uint64))
    lead = int(granules.min()) % WORD_BITS
    if each >= 8:
        packed = bytes(lead // 8) + own.astype(f"<u{each // 8}").tobytes()
        return packed + bytes(-len(packed) % WORD_SIZE)
    flat = (own[:, None] >> np.arange(each, dtype=np.uint64) & np.uint64(1)).reshape(-1)
    padded = np.zeros(-(-(lead + len(flat)) // WORD_BITS) * WORD_BITS, np.uint8)
    padded[lead : lead + len(flat)] = flat
    return np.packbits(padded, bitorder="little").tobytes()
