"""Opening and reading streams according to the options that most commands share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from blkmig_cli.checks.report import Report
from blkmig_cli.checks.survey import Contents, read_contents
from blkmig_cli.progress import Progress, ignore, no_progress
from blkmig_cli.system.address import parse_target
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.system.sockets import Say
from blkmig_cli.transport.source import Stream, open_stream
from blkmig_cli.wire.decoder import Container, Decoder
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import Consumer
from blkmig_cli.wire.schema_io import Input
from blkmig_cli.wire.several import decoder_of


def check_target(stream: str, target: str | None) -> None:
    """Check the TARGET as far as possible before the STREAM is read.

    Raises UsageError where it is malformed, or is the file that is read.
    """
    uses = FileUses.of_stream(stream)
    uses.add_address("the target", parse_target(target), writes=True)


@dataclass(frozen=True, slots=True)
class Reading:
    """The options for reading streams, and for showing messages and progress.

    ``hints``, ``dialect`` and ``container`` are those of the command line; ``number`` is that of
    several streams in the input, None for the only one.  ``say`` reports that the program waits for
    a peer, ``log`` what was opened.
    """

    hints: Hints = field(default_factory=Hints)
    dialect: str = "auto"
    container: Container = "auto"
    number: int | None = None
    say: Say = ignore
    log: Say = ignore
    progress: Progress = no_progress

    def decoder(self, source: Input, *, keep_state: bool = False) -> Decoder:
        """Return a decoder of the stream in ``source``; ``keep_state``: see :class:`Decoder`."""
        return decoder_of(
            source,
            self.number,
            dialect=self.dialect,
            container=self.container,
            hints=self.hints,
            keep_state=keep_state,
        )

    @contextmanager
    def open(self, name: str, *, again: bool = False) -> Iterator[Stream]:
        """Open the STREAM ``name``; for ``again`` and exceptions, see :func:`open_stream`."""
        with open_stream(name, self.say, again=again) as stream:
            self.log(str(stream))
            yield stream

    @contextmanager
    def contents(self, name: str, *others: Consumer, again: bool = False) -> Iterator[Contents]:
        """Open the STREAM ``name`` and read it to its end; ``others`` take its events as well.

        ``again``: its data will be read, too.  Raises as :meth:`open` and :func:`read_contents`.
        """
        with self.open(name, again=again) as stream:
            yield self.read(stream, *others)

    def read(self, stream: Stream, *others: Consumer) -> Contents:
        """Read ``stream`` to its end; see :meth:`contents`."""
        with self.progress("reading", stream.input.size) as tick:
            decoder = self.decoder(stream.input)
            return read_contents(stream, decoder, self.hints, tick, *others)


def each_report(stream: Stream, judge: Callable[[Stream], Report]) -> Iterator[Report]:
    """Yield the report that ``judge`` makes of each stream in the input of ``stream``, in order.

    ``judge`` reads a stream to its end, with a decoder for stream 1 from the input's position.
    """
    while True:
        report = judge(stream)
        yield report
        if report.next_stream is None:
            return
        stream = stream.following()
