"""Writing records to images: in the order of the stream, each byte once where the stream was read before.

From a file, copies run in threads (``overlap.py``), and superseded records are left out; from a pipe,
each record is written as it comes.  Neighbouring chunks of zeros become one hole.  What an earlier
run has applied (``history.py``) is compared with the image instead, in samples.
"""

import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from blkmig_cli.disks.disk import image_too_small
from blkmig_cli.disks.raw import RawImage
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.operations.replay.overlap import Overlap
from blkmig_cli.operations.replay.place import Place
from blkmig_cli.operations.replay.superseded import Superseded
from blkmig_cli.operations.replay.verify import Verifier
from blkmig_cli.ranges import IntervalSet, joined
from blkmig_cli.schemas.constants import CHUNK_SIZE, SECTOR_SIZE
from blkmig_cli.text import escape
from blkmig_cli.transport.inputs import FileInput, PipeInput
from blkmig_cli.wire.events import Block, Payload
from blkmig_cli.wire.runs import Numbers

# After so many bytes, what has been written is put on stable storage, and noted.  To make a hole
# again costs little.
_CHECKPOINT = 256 << 20
_HOLE_COST = 4 << 10


@dataclass(frozen=True, slots=True)
class _Hole:
    """Zeros for bytes [start, end) of an image, not made yet."""

    place: Place
    image: RawImage
    start: int
    end: int
    written: IntervalSet


class Writer:
    """Writes the records of ``source``, except those that are ``superseded``.

    ``verify``: what has been written is read back at each :meth:`drain`.  Leaving it gives up what
    :meth:`drain` has not waited for.
    """

    def __init__(
        self, source: FileInput | PipeInput, superseded: Superseded, *, verify: bool = False
    ) -> None:
        self._source = source
        self._superseded = superseded
        self._verifier = Verifier() if verify else None
        self._since = 0
        self._written: dict[str, tuple[Destination, IntervalSet]] = {}
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

        Final when the work is over: while threads write, they count as they go.
        """
        return {
            device: sum(max(min(end, destination.size or end) - start, 0) for start, end in ranges)
            for device, (destination, ranges) in self._written.items()
        }

    @property
    def due(self) -> bool:
        """Whether so much has been written that it should be put on stable storage."""
        return self._since >= _CHECKPOINT

    def write(self, event: Block, destination: Destination) -> None:
        """Write the content of a record, as far as it lies within the disk.

        Raises FailureError: also for an earlier record.
        """
        start = event.sector * SECTOR_SIZE
        end = start + event.sectors * SECTOR_SIZE
        limit = destination.limit
        if limit is not None:
            if end > limit:
                _check_image(event, destination, end)
            end = min(end, limit)
        written = self._written_to(event.device, destination)
        applied = destination.history.add(event, self._source)
        if start >= end or event in self._superseded:
            return
        if applied:
            assert destination.image is not None
            destination.history.compare(event, self._source, destination.image, start, end)
            return
        place = Place.of(event)
        image = self._image_for(place, destination, start, end)
        if event.data is None:
            self._zero(_Hole(place, image, start, end, written))
            return
        if self._hole is not None and self._hole.start < end and start < self._hole.end:
            self._make_hole()
        self._since += end - start
        self._copy(place, Payload(event.data.offset, end - start), image, start, written)

    def write_zeros(
        self, event: Block, offsets: Numbers, sectors: Numbers, destination: Destination
    ) -> None:
        """Write records of zeros like ``event`` at ``offsets`` (ascending) and ``sectors``.

        Raises as :meth:`write`.
        """
        written = self._written_to(event.device, destination)
        applied = destination.history.add_zeros(event, offsets, sectors)
        starts = sectors * SECTOR_SIZE
        length = event.sectors * SECTOR_SIZE
        limit = destination.limit
        if limit is not None and int(starts.max()) + length > limit:
            row = int(starts.argmax())
            at, sector = int(offsets[row]), int(sectors[row])
            last = replace(event, offset=at, sector=sector)
            _check_image(last, destination, int(starts[row]) + length)
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
        firsts = order[np.searchsorted(starts[order], holes[:, 0])]
        if limit is not None:
            np.minimum(holes, limit, out=holes)
        for row, (start, end) in zip(firsts.tolist(), holes.tolist(), strict=True):
            place = Place(event.device, start // SECTOR_SIZE, int(offsets[row]))
            image = self._image_for(place, destination, start, end)
            self._zero(_Hole(place, image, start, end, written))

    def drain(self) -> None:
        """Wait until everything has been written; raises FailureError."""
        self._make_hole()
        if self._overlap is not None:
            self._overlap.drain()
        if self._verifier is not None:
            self._verifier.check()
        self._since = 0

    def _written_to(self, device: str, destination: Destination) -> IntervalSet:
        return self._written.setdefault(device, (destination, IntervalSet()))[1]

    def _image_for(self, place: Place, destination: Destination, start: int, end: int) -> RawImage:
        """Return the image, whose bytes [start, end) are written next."""
        destination.history.wrote(start, end)
        with place.named():
            if destination.limit is None:
                destination.check_growth(end)
            image = destination.image_for(end)
        if self._verifier is not None and self._verifier.touches(image, start, end):
            self.drain()
        return image

    def _zero(self, hole: _Hole) -> None:
        """Make a hole, later together with the next one if they are neighbours."""
        self._since += _HOLE_COST
        before = self._hole
        if (
            before is not None
            and before.image is hole.image
            and (hole.start == before.end or hole.end == before.start)
        ):
            start, end = min(hole.start, before.start), max(hole.end, before.end)
            self._hole = replace(before, start=start, end=end)
            return
        self._make_hole()
        self._hole = hole

    def _make_hole(self) -> None:
        hole, self._hole = self._hole, None
        if hole is None:
            return
        if self._overlap is not None:
            self._overlap.wait(hole.image, hole.start, hole.end)
        with hole.place.named():
            hole.image.zero(hole.start, hole.end - hole.start)
        if self._verifier is not None:
            self._verifier.wrote(hole.place, hole.image, hole.start, hole.end, None)
        self._count(hole.written, hole.start, hole.end)

    def _count(self, written: IntervalSet, start: int, end: int) -> None:
        with self._counting:
            written.add(start, end)

    def _copy(
        self, place: Place, data: Payload, image: RawImage, start: int, written: IntervalSet
    ) -> None:
        """Copy data of the stream to the image, at its byte ``start``, now or in a thread."""

        def job() -> None:
            view = self._data(data)
            with place.named():
                if is_zero(view):
                    image.zero(start, len(view))
                else:
                    image.write(start, view)
            if self._verifier is not None:
                self._verifier.wrote(place, image, start, start + len(view), view)
            self._count(written, start, start + len(view))

        if self._overlap is None:
            job()
        else:
            self._overlap.submit(image, start, start + data.length, job)

    def _data(self, data: Payload) -> memoryview:
        if not self._source.seekable:
            return self._source.view(data)
        # In a thread, which has a buffer of its own.
        buffer = getattr(self._buffers, "chunk", None)
        if buffer is None:
            buffer = self._buffers.chunk = bytearray(CHUNK_SIZE)
        view = memoryview(buffer)[: data.length]
        self._source.read_into(view, data.offset)
        return view


def _check_image(event: Block, destination: Destination, end: int) -> None:
    """Refuse a record that shows the image to be smaller than the disk, where nothing else says so.

    Where an option or the stream says how large the disk is, such a record is a finding instead.
    ``end``: the byte at which the record ends, which counts only where that is its own statement.
    """
    limit = destination.existing_size
    if destination.size is not None or limit is None:
        return
    if event.sector * SECTOR_SIZE >= limit:
        raise image_too_small(event.device, event.sector, event.offset, limit)
    if event.sectors_min == event.sectors and event.bitmaps and event.dialect == "v2":
        message = f"the disk reaches byte {end}, {escape(destination.path)} has {limit}"
        raise Place.of(event).failed(message, hint="enlarge the image")
