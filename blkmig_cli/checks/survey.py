"""Reading a stream to its end, event by event: the loop that every command shares."""

from collections.abc import Callable
from dataclasses import dataclass

from blkmig_cli.checks.checker import Checker, Report
from blkmig_cli.contents.final_layout import EndState, EndStates
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.errors import (
    BlkmigError,
    FailureError,
    LimitError,
    StreamError,
    UsageError,
)
from blkmig_cli.progress import Tick
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.text import escape
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.transport.source import Stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Event
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import Consumer, Run


def read_events(
    decoder: Decoder,
    take: Callable[[Event], None],
    tick: Tick,
    take_run: Callable[[Run], None] | None = None,
) -> BlkmigError | None:
    """Give every event to ``take``; returns what ended the reading, None for the proper end.

    That is a StreamError, or a FailureError of the input; or a LimitError of ``take``, of which
    nothing else that it raises is caught.  ``take_run`` is for those who can take runs whole.
    """
    while True:
        try:
            piece = next(decoder) if take_run is None else decoder.piece()
        except StopIteration:
            return None
        except (StreamError, FailureError) as error:
            return error
        first = piece.columns[0].event if isinstance(piece, Run) else piece
        try:
            if isinstance(piece, Run):
                assert take_run is not None
                take_run(piece)
                tick(piece.end)
            else:
                take(piece)
                tick(piece.offset + piece.length)
        except LimitError as error:
            error.offset = first.offset
            return error


@dataclass(slots=True)
class Contents:
    """What is in a stream: its report, and where each disk's content stands."""

    stream: Stream
    checker: Checker
    report: Report
    states: EndStates

    def disk(self, device: str, size: int | None = None) -> StreamDisk:
        """The disk of ``device``, of ``size`` bytes.

        Without ``size``: what is told or proven of it, at least up to its last chunk.  Raises UsageError
        where the stream is a pipe, as its data cannot be read a second time.
        """
        source = source_of_data(self.stream)
        state = self.states.disks.get(device, EndState())
        if size is None:
            bounds = self.checker.size(device)
            size = bounds.exact
            if size is None:
                size = max(state.end * SECTOR_SIZE, bounds.least)
        return StreamDisk(self.stream.name, source, state, size)


def source_of_data(stream: Stream) -> FileInput:
    """The stream's input, if its data can be read a second time; raises UsageError."""
    if not stream.input.seekable:
        raise UsageError(
            f"{escape(stream.name)} is read once, and its data are needed twice",
            hint="save the stream, unpacked, to a file",
        )
    return stream.input


def read_contents(
    stream: Stream, decoder: Decoder, hints: Hints, tick: Tick, *others: Consumer
) -> Contents:
    """Read all records of ``stream``, but none of its data; ``others`` are given them as well.

    A stream that is damaged is told in the report's ``failure``.  Raises FailureError where the
    input fails.
    """
    checker, states, source = Checker(decoder, hints), EndStates(), stream.input
    consumers: tuple[Consumer, ...] = (states, *others)

    def feed(event: Event) -> None:
        for consumer in consumers:
            consumer.feed(event)
        checker.feed(event, source)

    def feed_run(run: Run) -> None:
        for consumer in consumers:
            consumer.feed_run(run)
        checker.feed_run(run, source)

    failure = read_events(decoder, feed, tick, feed_run)
    report = checker.finish(stream.name, source, failure)
    if isinstance(failure, FailureError):
        raise failure
    return Contents(stream, checker, report, states)
