"""Copying a stream with the padding of its last chunks zeroed; no other byte changes.

The padding begins at the disk's end, so that every disk's size must be known: from an option, from
the stream, or (in a file, which is read twice) as the only one that its progress records allow.
"""

from blkmig_cli.checks.checker import Checker
from blkmig_cli.checks.names import Names
from blkmig_cli.checks.survey import read_stream
from blkmig_cli.contents.padding import leaked, padding
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.disk import past_end
from blkmig_cli.errors import IncompleteError, UndecidableError
from blkmig_cli.operations.reading import Reading, check_target
from blkmig_cli.progress import no_tick
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import exact_size, quote, size_range
from blkmig_cli.transport.sinks import Sink
from blkmig_cli.transport.source import Stream
from blkmig_cli.transport.target import open_target
from blkmig_cli.wire.events import Block, Event, Payload
from blkmig_cli.wire.runs.columns import EventConsumer, Run
from blkmig_cli.wire.schema_io import Input

_PIECE = 1 << 20


@dataclass(slots=True)
class Scrubbed:
    """The number of chunks with padding, of its bytes, and of those that were not zero."""

    chunks: int = 0
    padding: int = 0
    leaked: int = 0


def scrub(stream: str, target: str | None, reading: Reading) -> Scrubbed:
    """Copy the STREAM to the TARGET with its padding zeroed.

    Raises StreamError where the stream cannot be read to its end or a disk's size is not known,
    IncompleteError where a record lies past a disk's end.  For a file, nothing is written then.
    """
    check_target(stream, target)
    with reading.open(stream) as opened:
        sizes = dict(reading.hints.sizes)
        if opened.seekable:
            sizes |= _sizes(opened, reading)
            opened.input.offset = 0
        decoder = reading.decoder(opened.input, keep_state=True)
        with (
            open_target(target, FileUses.of_stream(stream)) as sink,
            reading.progress("scrubbing", opened.input.size) as tick,
        ):
            copy = _Copy(sink, sizes)
            failure = read_stream(decoder, tick, copy)
            if failure is not None:
                failure.stream = opened.name
                raise failure
            copy.finish(opened.input)
            copy.names.check_hints(reading.hints)
    return copy.result


def _sizes(stream: Stream, reading: Reading) -> dict[str | None, int]:
    """Read the stream; return the size in bytes of every disk with data."""
    decoder, checker = reading.decoder(stream.input), Checker(reading.hints)
    failure = read_stream(decoder, no_tick, checker)
    report = checker.finish(stream.name, decoder, failure)
    report.check_read()
    Names.of(report).check_hints(reading.hints)
    sizes: dict[str | None, int] = {}
    for device in report.devices:
        name, exact = device.disk.name, device.size.exact
        if device.disk.chunks == device.disk.zero_chunks:
            continue
        if exact is None:
            known = size_range(device.size.least, device.size.most)
            raise _unknown(name, device.disk.top_offset, f" ({known})")
        if device.disk.top * SECTOR_SIZE >= exact:
            raise past_end(name, device.disk.top, device.disk.top_offset, exact)
        bounds = checker.state.proven_size(name)
        if not bounds.allows(exact):
            raise IncompleteError(
                f"the disk has {size_range(bounds.least, bounds.most)}, not {exact_size(exact)}",
                device=name,
                hint="check --device-size",
                check="size-mismatch",
            )
        sizes[name] = exact
    return sizes


class _Copy(EventConsumer):
    """Copies a stream into ``sink``; ``sizes`` of disks in bytes.

    From a file, neighbouring events are copied together.
    """

    def __init__(self, sink: Sink, sizes: dict[str | None, int]) -> None:
        self._sink = sink
        self._sizes = sizes
        self._copied = self._end = 0  # the bytes between these are yet to be copied
        self.names = Names()
        self.result = Scrubbed()

    def feed(self, event: Event, source: Input) -> None:
        """Copy the bytes of the next event."""
        self.names.feed(event)
        part = self._padding(event) if isinstance(event, Block) else None
        end = event.offset + event.length
        if part is None:
            self._copy(source, event.offset, end)
            return
        self._copy(source, event.offset, part.offset)
        self.finish(source)
        self._sink.write(bytes(part.length))
        self._copy(source, part.offset + part.length, end)
        self.result.chunks += 1
        self.result.padding += part.length
        self.result.leaked += leaked(part, source)

    def feed_run(self, run: Run, source: Input) -> None:
        """Copy the bytes of a run."""
        events = [column.event for column in run.columns]
        if any(isinstance(event, Block) and event.data is not None for event in events):
            super().feed_run(run, source)
            return
        for event in events:
            self.names.feed(event)
        self._copy(source, run.start, run.end)

    def finish(self, source: Input) -> None:
        """Copy what is yet to be copied."""
        for at in range(self._copied, self._end, _PIECE):
            self._sink.write(source.view(Payload(at, min(_PIECE, self._end - at))))
        self._copied = self._end

    def _padding(self, event: Block) -> Payload | None:
        if event.data is None:
            return None
        size = self._sizes.get(event.device, self._sizes.get(None))
        part = padding(event, size)
        if size is None and part is None:
            raise _unknown(event.device, event.offset)
        if size is not None and event.sector * SECTOR_SIZE >= size:
            raise past_end(event.device, event.sector, event.offset, size)
        return part

    def _copy(self, source: Input, start: int, end: int) -> None:
        """Copy bytes [start, end) of the stream, perhaps later."""
        if start != self._end:
            self.finish(source)
            self._copied = start
        self._end = end
        if end - self._copied >= _PIECE or not source.seekable:
            self.finish(source)


def _unknown(device: str, offset: int, known: str = "") -> UndecidableError:
    return UndecidableError(
        f"size of {quote(device)} is unknown{known}, and padding begins at the disk's end",
        offset=offset,
        device=device,
        hint="specify --device-size",
    )
