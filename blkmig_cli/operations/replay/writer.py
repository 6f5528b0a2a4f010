"""Writing records to images in the order of the stream; each byte once if the stream was read before.

From a file, copies run in threads (``overlap.py``), and superseded records are skipped; from a pipe,
each record is written as it is received.  Neighbouring chunks of zeros become one hole.  What an earlier
run has applied (``history.py``) is compared with the image instead, in samples.
"""

import threading
from contextlib import ExitStack
from dataclasses import field, replace

import numpy as np

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.direct import aligned_buffer
from blkmig_cli.disks.disk import image_too_small
from blkmig_cli.disks.image import FilePart, Image
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.operations.replay.place import Place
from blkmig_cli.operations.replay.superseded import Superseded
from blkmig_cli.operations.replay.verify import Verifier
from blkmig_cli.ranges import IntervalSet, joined
from blkmig_cli.schemas.constants import CHUNK_SIZE, SECTOR_SIZE
from blkmig_cli.system.overlap import Overlap
from blkmig_cli.text import escape
from blkmig_cli.transport.inputs import FileInput, PipeInput
from blkmig_cli.wire.events import Block, Payload
from blkmig_cli.wire.runs.columns import Numbers

# After so many bytes, what has been written is put on stable storage, and noted.  To make a hole
# again costs little.
_CHECKPOINT = 256 << 20
_HOLE_COST = 4 << 10
# If there are only holes, so many are not punched one by one.
_FEW = 16


@dataclass(slots=True)
class _Disk:
    """A device's disk: its destination, its end in bytes, and its written ranges."""

    device: str
    destination: Destination
    limit: int | None
    written: IntervalSet = field(default_factory=IntervalSet)


@dataclass(slots=True)
class _Hole:
    """Zeros for bytes [start, end) of a disk, not written yet; their first record is at ``offset``."""

    disk: _Disk
    offset: int
    start: int
    end: int

    @property
    def place(self) -> Place:
        return Place(self.disk.device, self.start // SECTOR_SIZE, self.offset)


class Writer:
    """Writes the records of ``source``, except those that are ``superseded``.

    ``verify``: written data is read back at each :meth:`drain`.  On exit, nothing is written any more.
    """

    def __init__(
        self, source: FileInput | PipeInput, superseded: Superseded, *, verify: bool = False
    ) -> None:
        self._source = source
        self._superseded = superseded
        self._verifier = Verifier() if verify else None
        self._since = 0
        self._disks: dict[str, _Disk] = {}
        self._counting = threading.Lock()
        self._hole: _Hole | None = None
        self._buffers = threading.local()
        self._stack = ExitStack()
        self._overlap = None
        if source.seekable:
            self._overlap = self._stack.enter_context(Overlap())

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def written(self) -> dict[str, int]:
        """Return the bytes of each device's disk that have been written, each counted once.

        Final only at the end, as threads count while they write.
        """
        found = {}
        for device, disk in self._disks.items():
            size = disk.destination.size
            ranges = disk.written if size is None else disk.written.between(0, size)
            found[device] = sum(end - start for start, end in ranges)
        return found

    @property
    def due(self) -> bool:
        """Whether so much has been written that it should be flushed to stable storage."""
        return self._since >= _CHECKPOINT

    def write(self, event: Block, destination: Destination) -> None:
        """Write the content of a record, as far as it lies within the disk.

        Raises FailureError: also for an earlier record.
        """
        disk = self._disks.get(event.device) or self._add_disk(event.device, destination)
        start = event.sector * SECTOR_SIZE
        end = start + event.sectors * SECTOR_SIZE
        limit = disk.limit
        if limit is None:
            if end > limits.GROWTH_MAX:
                self._check_growth(event.device, event.sector, event.offset, destination)
        elif end > limit:
            _check_image(event, destination, end)
            end = limit
        history = destination.history
        applied = history.add(event, self._source)
        if start >= end or event in self._superseded:
            return
        if applied:
            assert destination.image is not None
            history.compare(event, self._source, destination.image, start, end)
            return
        history.wrote(start, end)
        if event.data is None:
            self._zero(disk, event.offset, start, end)
        else:
            hole = self._hole
            if hole is not None and hole.disk is disk and hole.start < end and start < hole.end:
                self._make_hole()
            self._since += end - start
            self._copy(disk, Place.of(event), Payload(event.data.offset, end - start), start)

    def write_zeros(
        self, event: Block, offsets: Numbers, sectors: Numbers, destination: Destination
    ) -> None:
        """Write records of zeros like ``event`` at ``offsets`` (ascending) and ``sectors``.

        Raises as :meth:`write`.
        """
        disk = self._disks.get(event.device) or self._add_disk(event.device, destination)
        starts = sectors * SECTOR_SIZE
        length = event.sectors * SECTOR_SIZE
        limit, highest = disk.limit, int(starts.argmax())
        top = int(starts[highest]) + length
        if limit is None:
            if top > limits.GROWTH_MAX:
                place = int(sectors[highest]), int(offsets[highest])
                self._check_growth(event.device, *place, destination)
        elif top > limit:
            at, sector = int(offsets[highest]), int(sectors[highest])
            _check_image(replace(event, offset=at, sector=sector), destination, top)
        applied = destination.history.add_zeros(event, offsets, sectors)
        live = ~self._superseded.rows(event, offsets, sectors)
        if limit is not None:
            live &= starts < limit
        if applied and destination.image is not None:
            done = starts[:applied][live[:applied]]
            ends = done + length if limit is None else np.minimum(done + length, limit)
            destination.history.compare_zeros(destination.image, done, ends)
            live[:applied] = False
        # In the order of the disk, so that neighbours become one hole; the first record of each names it.
        order = np.flatnonzero(live)
        order = order[np.argsort(starts[order], kind="stable")]
        holes = joined(starts[order], length)
        if limit is not None:
            np.minimum(holes, limit, out=holes)
        if len(holes) > _FEW and self._is_empty(disk, int(holes[0, 0]), int(holes[-1, 1])):
            self._since += _HOLE_COST * len(holes)
            with self._counting:
                disk.written.add_all(holes)
            return
        firsts = order[np.searchsorted(starts[order], holes[:, 0])]
        for row, (start, end) in zip(firsts.tolist(), holes.tolist(), strict=True):
            destination.history.wrote(start, end)
            self._zero(disk, int(offsets[row]), start, end)

    def drain(self) -> None:
        """Wait until everything has been written; raises FailureError."""
        self._make_hole()
        if self._overlap is not None:
            self._overlap.drain()
        if self._verifier is not None:
            self._verifier.check()
        for disk in self._disks.values():
            disk.destination.reception.add(disk.written)
        self._since = 0

    def _add_disk(self, device: str, destination: Destination) -> _Disk:
        return self._disks.setdefault(device, _Disk(device, destination, destination.limit))

    def _check_growth(
        self, device: str, sector: int, offset: int, destination: Destination
    ) -> None:
        with Place(device, sector, offset).named():
            destination.check_growth(sector * SECTOR_SIZE + CHUNK_SIZE)

    def _image_for(self, disk: _Disk, place: Place, start: int, end: int) -> Image:
        """Return the image, whose bytes [start, end) are written next."""
        with place.named():
            image = disk.destination.image_for(end)
        if self._verifier is not None and self._verifier.touches(image, start, end):
            self.drain()
        return image

    def _is_empty(self, disk: _Disk, start: int, end: int) -> bool:
        """Return whether bytes [start, end) of the image are a hole already."""
        if self._verifier is not None or disk.destination.history.differing:
            return False
        self._make_hole()
        image = self._image_for(disk, Place(disk.device, start // SECTOR_SIZE, 0), start, end)
        if self._overlap is not None:
            self._overlap.wait(image, start, end)
        return not any(True for _ in image.data_in(start, end - start))

    def _zero(self, disk: _Disk, offset: int, start: int, end: int) -> None:
        """Punch a hole, later and together with the next one if they are adjacent."""
        self._since += _HOLE_COST
        before = self._hole
        if before is not None and before.disk is disk:
            if start == before.end:
                before.end = end
                return
            if end == before.start:
                before.start, before.offset = start, offset
                return
        self._make_hole()
        self._hole = _Hole(disk, offset, start, end)

    def _make_hole(self) -> None:
        hole, self._hole = self._hole, None
        if hole is None:
            return
        place, start, end = hole.place, hole.start, hole.end
        image = self._image_for(hole.disk, place, start, end)
        if self._overlap is not None:
            self._overlap.wait(image, start, end)
        with place.named():
            image.zero(start, end - start)
        if self._verifier is not None:
            self._verifier.wrote(place, image, start, end, None)
        self._count(hole.disk, start, end)

    def _count(self, disk: _Disk, start: int, end: int) -> None:
        with self._counting:
            disk.written.add(start, end)

    def _copy(self, disk: _Disk, place: Place, data: Payload, start: int) -> None:
        """Copy data of the stream to the image, at its byte ``start``, now or in a thread."""
        end = start + data.length
        image = self._image_for(disk, place, start, end)

        def job() -> None:
            if not self._has_taken(image, place, data, start):
                view = self._data(data)
                with place.named():
                    if is_zero(view):
                        image.zero(start, len(view))
                    else:
                        image.write(start, view)
                if self._verifier is not None:
                    self._verifier.wrote(place, image, start, end, view)
            self._count(disk, start, end)

        if self._overlap is None:
            job()
        else:
            self._overlap.submit(image, start, end, job)

    def _has_taken(self, image: Image, place: Place, data: Payload, start: int) -> bool:
        """Return whether the image has taken data of the stream from its file."""
        if not self._source.seekable or self._verifier is not None:
            return False
        part = FilePart(*self._source.place_of(data.offset), data.length)
        with place.named():
            return image.write_part(start, part)

    def _data(self, data: Payload) -> memoryview:
        if not self._source.seekable:
            return self._source.view(data)
        # In a thread, which has its own buffer.
        buffer = getattr(self._buffers, "chunk", None)
        if buffer is None:
            buffer = self._buffers.chunk = aligned_buffer(CHUNK_SIZE)
        view: memoryview = buffer[: data.length]
        self._source.read_into(view, data.offset)
        return view


def _check_image(event: Block, destination: Destination, end: int) -> None:
    """Refuse a record that proves that the image is smaller than a disk of unknown size.

    If an option or the stream states the disk's size, such a record is a finding instead.  ``end``:
    that of the record in bytes, which is used only if the record states it.
    """
    limit = destination.existing_size
    if destination.size is not None or limit is None:
        return
    if event.sector * SECTOR_SIZE >= limit:
        raise image_too_small(event.device, event.sector, event.offset, limit)
    if event.sectors_min == event.sectors and event.bitmaps and event.dialect == "v2":
        message = f"the disk reaches byte {end}, {escape(destination.path)} has {limit}"
        raise Place.of(event).failed(message, hint="enlarge the image")
