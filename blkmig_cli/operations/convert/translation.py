"""Translating a stream to another dialect, with its records in their order.

Everything except block records and bitmaps is copied unchanged.  Bitmaps are moved to their place in
the dialect.  Records at sectors that the dialect does not allow are replaced by chunks on the grid:
they are omitted, and after the last record of their device, the chunks that they touched last are
written with their final content.
"""

from collections.abc import Iterable, Iterator
from dataclasses import field
from itertools import chain

import numpy as np

from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.disk import Disk
from blkmig_cli.operations.send import dialects as sending
from blkmig_cli.operations.send.stream import bitmap_sections, chunk_data, last_chunk, section
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import (
    CHUNK_SECTORS,
    CHUNK_SIZE,
    DIRTY_BITMAP_SECTION,
    SECTOR_SIZE,
    BlockFlag,
    SectionType,
)
from blkmig_cli.wire.encoder import encoded_length
from blkmig_cli.wire.events import Block, Eof, Eos, Event, Payload, Raw, SectionHeader, Undecoded
from blkmig_cli.wire.runs.columns import Column, Piece, Run, laid_out
from blkmig_cli.wire.schema_io import Input


@dataclass(slots=True)
class LastRecords:
    """A consumer that records the offset of the last block record of each device."""

    offsets: dict[str, int] = field(default_factory=dict)

    def feed(self, event: Event, _: Input) -> None:
        """Take the next event."""
        if isinstance(event, Block):
            self.offsets[event.device] = event.offset

    def feed_run(self, run: Run, source: Input) -> None:
        """Take a run of events."""
        for column in run.columns:
            if isinstance(column.event, Block):
                offset = int(column.offsets[-1])
                before = self.offsets.get(column.event.device, offset)
                self.offsets[column.event.device] = max(before, offset)


class Translation:
    """The events of a stream with its block records in ``dialect``.

    ``disks``: the devices to write, with their bitmaps and their final content, of which the dialect
    must be able to place every chunk.  ``last``: the offset of each device's last block record.
    """

    def __init__(self, dialect: str, disks: list[Disk], last: LastRecords) -> None:
        self._name = dialect
        self._dialect = sending.DIALECTS[dialect]
        self._disks = {disk.device: disk for disk in disks}
        self._last = last.offsets
        with_bitmaps = {disk.device for disk in disks if disk.bitmaps}
        self._own_section = dialect == "qemu" and bool(with_bitmaps)
        # Devices whose bitmaps are in block records, and have not been written yet.
        self._waiting = set() if self._own_section else with_bitmaps
        # Chunks to be written anew, by number, of each device.
        self._uncut: dict[str, IntervalSet] = {}
        self._copied = 0  # up to this byte of the stream, all has been written

    def pieces(self, decoded: Iterable[Piece]) -> Iterator[Piece]:
        """Return what to write; ``decoded`` are the pieces of the stream from its start.

        Payloads are in the stream, or created here.  Raises StreamError where the stream cannot be read,
        FailureError where it fails.
        """
        end, highest = -1, 0
        for event in chain.from_iterable(map(self._in_parts, decoded)):
            if isinstance(event, Run):
                yield from self._run(event)
                end = event.end
                continue
            if end < 0:
                self._copied = event.offset
            end = event.offset + event.length
            if isinstance(event, SectionHeader):
                highest = max(highest, event.id)
            if isinstance(event, Block):
                yield from self._copy(event.offset, end)
                yield from self._block(event)
            elif _is_converted(event) or _is_behind(event):
                yield from self._copy(event.offset, end)
            elif isinstance(event, Eof) and self._own_section:
                yield from self._copy(event.offset, event.offset)
                yield from self._bitmaps(highest + 1)
        yield from self._copy(end, end)

    def _copy(self, end: int, then: int) -> Iterator[Event]:
        """Copy the stream up to byte ``end``, and continue from byte ``then``."""
        if self._copied < end:
            yield Raw(0, 0, None, Payload(self._copied, end - self._copied))
        self._copied = then

    def _bitmaps(self, number: int) -> Iterator[Event]:
        """Return all bitmaps in their own section, which may be anywhere before the end."""
        disks = list(self._disks.values())
        starts = sending.bitmap_starts(disks)
        yield from section(SectionType.START, DIRTY_BITMAP_SECTION, number, starts)
        yield from bitmap_sections(disks, number)

    def _block(self, event: Block) -> Iterator[Event]:
        disk = self._disks.get(event.device)
        if disk is not None:
            if event.device in self._waiting:
                self._waiting.discard(event.device)
                yield from self._dialect.before(disk)
                if self._dialect.bits_in_chunks:
                    yield from self._never_sent(disk)
            if event.has_content:
                yield from self._content(event, disk)
            if event.offset == self._last[event.device]:
                yield from self._cut_anew(disk)
        if event.flags & BlockFlag.EOS:
            yield Eos(0, 0, event.section, BlockFlag.EOS)

    def _in_parts(self, piece: Piece) -> Iterable[Piece]:
        """Return ``piece``, as events where it is a run that :meth:`_run` does not take."""
        if isinstance(piece, Run) and not all(map(self._takes, piece.columns)):
            return piece
        return (piece,)

    def _takes(self, column: Column) -> bool:
        """Return whether the rows of a column become records that differ in their sectors only."""
        event, sectors = column.event, column.numbers
        disk = self._disks.get(event.device) if isinstance(event, Block) else None
        if disk is None or sectors is None:
            return True
        assert isinstance(event, Block)
        if disk.device in self._waiting or (self._dialect.bits_in_chunks and disk.bitmaps):
            return False
        if not event.has_content:
            return True
        inside = int(sectors.max()) + CHUNK_SECTORS <= disk.size // SECTOR_SIZE
        placed = not self._dialect.on_grid or not np.any(sectors % CHUNK_SECTORS)
        return event.data is None and inside and placed and not self._uncut.get(disk.device)

    def _run(self, run: Run) -> Iterator[Piece]:
        """Return a run of which all columns are taken."""
        events = [column.event for column in run.columns]
        if not any(_is_converted(event) for event in events):
            return  # it is copied with what follows
        yield from self._copy(run.start, run.end)
        columns: list[Column] = []
        for column in run.columns:
            event, disk = column.event, None
            if isinstance(event, Block):
                disk = self._disks.get(event.device)
            elif event.section != DIRTY_BITMAP_SECTION:
                columns.append(column)
            if disk is not None and isinstance(event, Block) and event.has_content:
                zero = bool(event.flags & BlockFlag.ZERO_BLOCK)
                records = self._dialect.records(disk, event.sector, CHUNK_SECTORS, None, zero)
                columns += [Column(record, column.offsets, column.numbers) for record in records]
        if columns:
            yield laid_out(columns, [encoded_length(column.event) for column in columns])

    def _content(self, event: Block, disk: Disk) -> Iterator[Block]:
        sector, data = event.sector, event.data
        chunk, inside = divmod(sector, CHUNK_SECTORS)
        uncut = self._uncut.setdefault(disk.device, IntervalSet())
        sectors = min(CHUNK_SECTORS, disk.size // SECTOR_SIZE - sector)
        if self._dialect.on_grid:
            if inside:
                uncut.add(chunk, (sector + sectors - 1) // CHUNK_SECTORS + 1)
                return
            uncut.remove(chunk, chunk + 1)
        if data is not None and sectors < CHUNK_SECTORS:
            # Bytes after the disk's end are never copied.
            moved = last_chunk(disk) if self._name == "qemu" else None
            if moved is not None and _came(disk, moved, sector):
                sector, sectors = moved, CHUNK_SECTORS
            data = chunk_data(disk.image, sector)
        zero = bool(event.flags & BlockFlag.ZERO_BLOCK)
        yield from self._dialect.records(disk, sector, sectors, data, zero)

    def _cut_anew(self, disk: Disk) -> Iterator[Block]:
        """Return the chunks that records off the grid touched last."""
        assert isinstance(disk.image, StreamDisk)
        for first, end in self._uncut.pop(disk.device, IntervalSet()):
            for chunk in range(first, end):
                pieces = disk.image.pieces(chunk * CHUNK_SIZE, CHUNK_SIZE)
                zero = all(piece.kind == "zero" for piece in pieces)
                yield from self._whole_chunk(disk, chunk * CHUNK_SECTORS, zero=zero)

    def _whole_chunk(self, disk: Disk, sector: int, *, zero: bool) -> Iterator[Block]:
        sectors = min(CHUNK_SECTORS, disk.size // SECTOR_SIZE - sector)
        data = None if zero else chunk_data(disk.image, sector)
        yield from self._dialect.records(disk, sector, sectors, data, zero)

    def _never_sent(self, disk: Disk) -> Iterator[Block]:
        """Return records with the bits of chunks that are not sent, for v1."""
        assert isinstance(disk.image, StreamDisk)
        for piece in disk.image.pieces():
            if piece.kind == "missing":
                first = piece.start // CHUNK_SIZE * CHUNK_SECTORS
                for sector in range(first, piece.end // SECTOR_SIZE, CHUNK_SECTORS):
                    sectors = min(CHUNK_SECTORS, disk.size // SECTOR_SIZE - sector)
                    yield from self._dialect.records(disk, sector, sectors, None, False)


def _is_converted(event: Event) -> bool:
    """Return whether ``event`` is not copied as it is: a block record, or of bitmaps."""
    return isinstance(event, Block) or event.section == DIRTY_BITMAP_SECTION


def _is_behind(event: Event) -> bool:
    """Return whether ``event`` is not part of the stream, but after its end."""
    return isinstance(event, Undecoded) and event.behind


def _came(disk: Disk, start: int, end: int) -> bool:
    """Return whether the stream has all of the sectors [start, end) of a disk."""
    assert isinstance(disk.image, StreamDisk)
    pieces = disk.image.pieces(start * SECTOR_SIZE, (end - start) * SECTOR_SIZE)
    return all(piece.kind != "missing" for piece in pieces)
