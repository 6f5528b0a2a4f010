"""Putting records onto images: each byte once where the stream can be read twice, in order always.

From a file, copies overlap (``overlap.py``) and superseded records are left out; from a pipe, each
record is written as it comes.  Neighbouring zero chunks become one hole.  What an earlier run has
applied (``journal.py``) is passed over.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from blkmig_cli.disks.disk import past_end
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay.overlap import Overlap
from blkmig_cli.operations.replay.superseded import Superseded
from blkmig_cli.operations.replay.target import Target
from blkmig_cli.operations.replay.verify import Verifier
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import BLOCK_SECTION, CHUNK_SIZE, SECTOR_SIZE
from blkmig_cli.text import escape
from blkmig_cli.transport.inputs import FileInput, PipeInput
from blkmig_cli.wire.events import Block, Payload

# After so many bytes, what has been written is put on stable storage, and noted.  A hole costs
# little to make again.
_CHECKPOINT = 256 << 20
_HOLE_COST = 4 << 10


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
        self._written: dict[str, tuple[Target, IntervalSet]] = {}
        self._counting = threading.Lock()
        self._zeros: tuple[Block, Image, int, int] | None = None
        self._buffers = threading.local()
        self._stack = ExitStack()
        self._overlap = None
        if source.seekable:
            self._overlap = self._stack.enter_context(Overlap())

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def written(self) -> dict[str, int]:
        """Bytes of each device's disk that have been written, each counted once.

        Final when the work is over: while threads write, they count as they go.
        """
        return {
            device: sum(max(min(end, target.size or 0) - start, 0) for start, end in ranges)
            for device, (target, ranges) in self._written.items()
        }

    @property
    def due(self) -> bool:
        """Has so much been written that it should be confirmed?"""
        return self._since >= _CHECKPOINT

    def write(self, event: Block, target: Target) -> None:
        """Write what a record says of its chunk, as far as that lies within the disk.

        Raises FailureError: also for an earlier record.
        """
        start = event.sector * SECTOR_SIZE
        end = self._end(event, target, start)
        self._written.setdefault(event.device, (target, IntervalSet()))
        course = target.course
        done = course is not None and course.follow(event, self._source, target.image)
        if event in self._superseded:
            return
        if course is not None and done:
            course.sample(event, self._source, start, end)
            return
        if course is not None:
            course.forget(start, end)
        with _placed(event):
            image = target.reach(end)
        if self._verifier is not None and self._verifier.touches(image, start, end):
            self.drain()
        self._since += end - start if event.data is not None else _HOLE_COST
        if event.data is None:
            self._zero(event, image, start, end)
            return
        if self._zeros is not None and self._zeros[2] < end and start < self._zeros[3]:
            self._flush_zeros()
        data = Payload(event.data.offset, end - start)
        self._run(event, image, start, end, lambda: self._copy(event, data, image, start))

    def drain(self) -> None:
        """Wait until all has been written; raises FailureError."""
        self._flush_zeros()
        if self._overlap is not None:
            self._overlap.drain()
        if self._verifier is not None:
            self._verifier.check()
        self._since = 0

    def _end(self, event: Block, target: Target, start: int) -> int:
        """The byte at which writing ends; raises FailureError where the disk ends before the record."""
        limit, end = target.limit, start + event.sectors * SECTOR_SIZE
        if limit is not None and start >= limit:
            raise past_end(event.device, event.sector, event.offset, limit)
        if limit is None or end <= limit:
            return end
        if event.sectors_min == event.sectors and event.bitmaps and event.dialect == "v2":
            with _placed(event):
                raise FailureError(
                    f"the disk reaches byte {end}, {escape(target.path)} has {limit}",
                    hint="enlarge the image",
                )
        return limit

    def _zero(self, event: Block, image: Image, start: int, end: int) -> None:
        """Make zeros, together with those of the chunk before if they are neighbours."""
        if self._zeros is not None:
            first, other, low, high = self._zeros
            same = other is image and first.device == event.device
            if same and (start == high or end == low):
                self._zeros = (first, image, min(start, low), max(end, high))
                return
            self._flush_zeros()
        self._zeros = (event, image, start, end)

    def _flush_zeros(self) -> None:
        if self._zeros is None:
            return
        event, image, start, end = self._zeros
        self._zeros = None

        def job() -> None:
            with _placed(event):
                image.zero(start, end - start)
            if self._verifier is not None:
                self._verifier.wrote(event, image, start, end, None)

        self._run(event, image, start, end, job)

    def _run(
        self, event: Block, image: Image, start: int, end: int, job: Callable[[], None]
    ) -> None:
        """Do ``job``, now or soon, and count what it has written when it has."""
        ranges = self._written[event.device][1]

        def counted() -> None:
            job()
            with self._counting:
                ranges.add(start, end)

        if self._overlap is None:
            counted()
        else:
            self._overlap.submit(image, start, end, counted)

    def _copy(self, event: Block, data: Payload, image: Image, start: int) -> None:
        """One chunk from the stream to the image."""
        if self._source.seekable:
            # In a thread, which has a buffer of its own.
            buffer = getattr(self._buffers, "chunk", None)
            if buffer is None:
                buffer = self._buffers.chunk = bytearray(CHUNK_SIZE)
            view = memoryview(buffer)[: data.length]
            self._source.read_into(view, data.offset)
        else:
            view = self._source.view(data)
        with _placed(event):
            if is_zero(view):
                image.zero(start, len(view))
            else:
                image.write(start, view)
        if self._verifier is not None:
            self._verifier.wrote(event, image, start, start + len(view), view)


def _placed(event: Block) -> AbstractContextManager[None]:
    return placed(event.device, event.sector, event.offset)


@contextmanager
def placed(device: str, sector: int, offset: int) -> Iterator[None]:
    """A failure of an image is said with the record that it happened at."""
    try:
        yield
    except FailureError as error:
        raise FailureError(
            error.message,
            offset=offset,
            section=BLOCK_SECTION,
            device=device,
            sector=sector,
            hint=error.hint,
        ) from error
