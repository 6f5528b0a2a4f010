"""The same stream with the padding of its last chunks zeroed: not a byte else is different.

The padding begins at the disk's end, so that every disk's size must be known: told, stated by the
stream, or (in a file, which is read twice) left no room by its progress.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blkmig_cli.checks.checker import Checker
from blkmig_cli.checks.survey import read_stream
from blkmig_cli.contents.padding import leaked, padding
from blkmig_cli.errors import FailureError, UndecidableError
from blkmig_cli.progress import Tick, no_tick
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.text import human_size
from blkmig_cli.transport.source import Stream
from blkmig_cli.transport.target import Sink
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block, Event, Payload
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import EventConsumer
from blkmig_cli.wire.schema_io import Input

_PIECE = 1 << 20


@dataclass(slots=True)
class Scrubbed:
    """Chunks with padding, its bytes, and how many of these were not zero."""

    chunks: int = 0
    padding: int = 0
    leaked: int = 0


def scrub(
    stream: Stream,
    sink: Sink,
    hints: Hints,
    decoder: Callable[[Input, Hints], Decoder],
    tick: Tick,
) -> Scrubbed:
    """Copy ``stream`` into ``sink``, its padding zeroed.

    ``decoder`` must keep device state.  Raises StreamError where the stream cannot be read to its
    end or a disk's size is not known, FailureError where a record lies past a disk's end.
    """
    source, found = stream.input, Scrubbed()
    sizes = dict(hints.sizes)
    if stream.seekable:
        sizes.update(_sizes(stream, hints, decoder))
        source.offset = 0
    events = decoder(source, hints)

    class Copy(EventConsumer):
        def feed(self, event: Event, source: Input) -> None:
            part = None
            if isinstance(event, Block):
                size = sizes.get(event.device, sizes.get(None))
                if event.data is not None and size is None and padding(event, None) is None:
                    raise _unknown(event.device, event.offset)
                part = padding(event, size)
                if (
                    size is not None
                    and event.data is not None
                    and event.sector * SECTOR_SIZE >= size
                ):
                    raise FailureError(
                        f"a record lies past the disk's end at byte {size}",
                        offset=event.offset,
                        section=event.section,
                        device=event.device,
                        sector=event.sector,
                        hint="check --device-size",
                    )
            end = event.offset + event.length
            if part is None:
                _write(source, sink, event.offset, end)
                return
            _write(source, sink, event.offset, part.offset)
            sink.write(bytes(part.length))
            _write(source, sink, part.offset + part.length, end)
            found.chunks += 1
            found.padding += part.length
            found.leaked += leaked(part, source)

    failure = read_stream(events, tick, Copy())
    if failure is not None:
        raise failure
    return found


def _sizes(
    stream: Stream, hints: Hints, decoder: Callable[[Input, Hints], Decoder]
) -> Iterator[tuple[str, int]]:
    """The size in bytes of every disk that has data, from a first reading."""
    events, checker = decoder(stream.input, hints), Checker(hints)
    failure = read_stream(events, no_tick, checker)
    report = checker.finish(stream.name, events, failure)
    if failure is not None:
        raise failure
    for device in report.devices:
        if device.disk.chunks == device.disk.zero_chunks:
            continue
        if device.size.exact is None:
            raise _unknown(device.disk.name, device.disk.top_offset, device.size.least)
        bounds = checker.state.proven_size(device.disk.name)
        if not bounds.least <= device.size.exact <= (bounds.most or device.size.exact):
            raise FailureError(
                f"the disk has {bounds.least} to {bounds.most} bytes, not {device.size.exact}",
                device=device.disk.name,
                hint="check --device-size",
            )
        yield device.disk.name, device.size.exact


def _unknown(device: str, offset: int, least: int = 0) -> UndecidableError:
    known = f" (at least {human_size(least)})" if least else ""
    return UndecidableError(
        f"where the padding begins depends on the disk's size, which is not known{known}",
        offset=offset,
        device=device,
        hint="say --device-size",
    )


def _write(source: Input, sink: Sink, start: int, end: int) -> None:
    for at in range(start, end, _PIECE):
        sink.write(source.view(Payload(at, min(_PIECE, end - at))))
