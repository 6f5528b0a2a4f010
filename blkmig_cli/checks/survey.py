"""Reading a stream to its end: the loop that passes its events to consumers."""

from dataclasses import replace

from blkmig_cli.checks.checker import Checker
from blkmig_cli.checks.report import Report, Transfer
from blkmig_cli.contents.final_layout import EndState, EndStates
from blkmig_cli.contents.layers import LayeredInput
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.dataclass import dataclass
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
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Consumer, Run, device_of


def read_stream(decoder: Decoder, tick: Tick, *consumers: Consumer) -> BlkmigError | None:
    """Pass every event to the ``consumers``, in their order; ``tick`` gets the bytes read so far.

    Returns the error that ended the reading, None for the proper end: a StreamError, a FailureError
    of the input, or a LimitError of a consumer.  Other errors of a consumer are raised.
    """
    source = decoder.source
    while True:
        try:
            piece = decoder.piece()
        except StopIteration:
            return None
        except (StreamError, FailureError) as error:
            return error
        try:
            if isinstance(piece, Run):
                for consumer in consumers:
                    consumer.feed_run(piece, source)
                tick(piece.end, device_of(piece))
            else:
                for consumer in consumers:
                    consumer.feed(piece, source)
                tick(piece.offset + piece.length, device_of(piece))
        except LimitError as error:
            error.offset = piece.start if isinstance(piece, Run) else piece.offset
            return error


@dataclass(slots=True)
class Contents:
    """The content of a stream: its report, and the final layout of each disk.

    ``layers``: the inputs of several streams on top of each other, if it is their content.
    """

    stream: Stream
    checker: Checker
    report: Report
    states: EndStates
    layers: LayeredInput | None = None

    def disk(self, device: str, size: int | None = None) -> StreamDisk:
        """Return the disk of ``device``, of ``size`` bytes.

        Without ``size``: that which is known, at least up to its last chunk.  Raises UsageError for a
        pipe, as its data cannot be read a second time.
        """
        source = self.layers or source_of_data(self.stream)
        state = self.states.disks.get(device, EndState())
        if size is None:
            bounds = self.checker.size(device)
            size = bounds.exact
            if size is None:
                size = max(state.end * SECTOR_SIZE, bounds.least)
        return StreamDisk(self.stream.name, source, state, size)


def with_transfer(report: Report, stream: Stream) -> Report:
    """Return the report on ``stream`` with what was moved, if it is at a URL.

    Raises FailureError where the object has changed since it was opened.
    """
    remote = stream.remote
    if remote is None or isinstance(report.failure, FailureError):
        return report
    remote.check_unchanged()
    transfer = Transfer(remote.moved, remote.requests, remote.size, remote.version)
    return replace(report, transfer=transfer)


def source_of_data(stream: Stream) -> FileInput:
    """Return the stream's input, if its data can be read a second time; raises UsageError."""
    if not stream.input.seekable:
        raise UsageError(
            f"{escape(stream.name)} can be read only once, and its data is needed twice",
            hint="save the stream to a file, uncompressed",
        )
    return stream.input


def read_contents(
    stream: Stream, decoder: Decoder, hints: Hints, tick: Tick, *others: Consumer
) -> Contents:
    """Read all records of ``stream``, but none of its data; ``others`` take its events as well.

    Damage is in the report's ``failure``.  Raises FailureError where the input fails.
    """
    checker, states = Checker(hints), EndStates()
    failure = read_stream(decoder, tick, states, *others, checker)
    report = checker.finish(stream.name, decoder, failure)
    if isinstance(failure, FailureError):
        raise failure
    report = with_transfer(report, stream)
    return Contents(stream, checker, report, states)
