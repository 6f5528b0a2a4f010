"""Writing a stream while QEMU runs; and holding what was read until it can be written."""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import field, replace

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import failing
from blkmig_cli.progress import Tick, no_tick
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.system.qmp import Monitor
from blkmig_cli.system.temporary import temporary_folder
from blkmig_cli.transport.payloads import FileRange, ImageRange, Literal
from blkmig_cli.transport.sinks import Sink
from blkmig_cli.transport.target import resolve_content, write_events
from blkmig_cli.wire.events import Block, Event, Payload
from blkmig_cli.wire.runs.columns import Piece, Run, device_of, expand

# Seconds by which the writer may be ahead of the bandwidth.
_AHEAD = 0.01
# Bytes of a batch: so many that it matters little what the NBD client has read ahead of it.
_BATCH = 32 << 20


class Writer:
    """Writes a stream to ``sink``, at most ``bandwidth`` bytes per second; stops when QEMU ends.

    ``watch`` is called often.  ``read``: bytes of the disks that were read for it.
    """

    def __init__(
        self, sink: Sink, monitor: Monitor, bandwidth: int | None, watch: Callable[[], object]
    ) -> None:
        self._sink = sink
        self._monitor = monitor
        self._watch = watch
        self._bandwidth = bandwidth
        self.read = 0

    @property
    def written(self) -> int:
        """Bytes of the stream so far."""
        return self._sink.written

    def write(self, pieces: Iterable[Piece], tick: Tick = no_tick, *, paced: bool = True) -> None:
        """Write ``pieces``; ``tick`` gets the bytes of the disks in them; not ``paced``: without limit.

        Raises FailureError where a disk, the target or QEMU fails.
        """
        write_events(self._watched(pieces, tick, paced), self._sink, resolve_content)

    def flush(self) -> None:
        """Write what is buffered; raises FailureError."""
        self._sink.flush()

    def _watched(self, pieces: Iterable[Piece], tick: Tick, paced: bool) -> Iterator[Piece]:
        began, before, done = time.monotonic(), self._sink.written, 0
        for piece in pieces:
            yield piece
            self._monitor.check()
            self._watch()
            done += size_of(piece)
            tick(done, device_of(piece))
            if isinstance(piece, Block) and isinstance(piece.data, ImageRange):
                self.read += piece.data.length - piece.data.padding
            if self._bandwidth is not None and paced:
                due = (self._sink.written - before) / self._bandwidth
                ahead = due - (time.monotonic() - began)
                if ahead > _AHEAD:
                    self._monitor.sleep(ahead)


@dataclass(slots=True)
class Reading:
    """Reads the data of events before they are written, in batches; measures only the reading.

    ``size``: bytes read so far; ``seconds``: how long that took.
    """

    size: int = 0
    seconds: float = 0.0

    def batches(self, pieces: Iterable[Piece]) -> Iterator[list[Event]]:
        """Yield the events of ``pieces`` in batches, with their data; raises FailureError."""
        coming, more = iter(expand(pieces)), True
        while more:
            batch: list[Event] = []
            began, end = time.monotonic(), self.size + _BATCH
            while self.size < end:
                event = next(coming, None)
                if event is None:
                    more = False
                    break
                batch.append(self.read(event))
            self.seconds += time.monotonic() - began
            yield batch

    def read(self, event: Event) -> Event:
        """Return an event with its data."""
        if not isinstance(event, Block) or not isinstance(event.data, ImageRange):
            return event
        data = event.data
        found = data.image.read(data.offset, data.length - data.padding)
        self.size += len(found)
        return replace(event, data=Literal(0, data.length, None, found + bytes(data.padding)))


@dataclass(slots=True)
class Hold:
    """Holds events with their data, in memory or in a temporary file.  Close it with :meth:`close`."""

    events: list[Event] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)
    _size: int = 0
    _spilled: int = 0
    _fd: int | None = None

    def add(self, events: Iterable[Event]) -> None:
        """Hold ``events``; raises FailureError where there is no room for their data."""
        for event in events:
            if isinstance(event, Block) and isinstance(event.data, Literal):
                self._size += event.data.length
                if self._size > limits.HELD_MAX:
                    self.events.append(replace(event, data=self._spill(event.data.data)))
                    continue
            self.events.append(event)

    def close(self) -> None:
        """Release what is held."""
        self._stack.close()

    def _spill(self, data: bytes) -> Payload:
        """Write ``data`` to a temporary file without a name."""
        with failing("a temporary file for what was read while the guest was paused"):
            if self._fd is None:
                made = tempfile.TemporaryFile(dir=temporary_folder(), buffering=0)  # noqa: SIM115
                file = self._stack.enter_context(made)
                self._fd = file.fileno()
            view = memoryview(data)
            while view:
                view = view[os.pwrite(self._fd, view, self._spilled + len(data) - len(view)) :]
        self._spilled += len(data)
        return FileRange(self._spilled - len(data), len(data), None, f"/proc/self/fd/{self._fd}")


def size_of(piece: Piece) -> int:
    """Return the bytes of disks in the records of a piece."""
    kinds = (
        [(column.event, column.rows) for column in piece.columns]
        if isinstance(piece, Run)
        else [(piece, 1)]
    )
    return sum(
        rows * event.sectors * SECTOR_SIZE for event, rows in kinds if isinstance(event, Block)
    )
