"""Opening and reading streams according to the options that most commands share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import field, replace

from blkmig_cli.checks.report import Report
from blkmig_cli.checks.survey import Contents, read_contents
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import IncompleteError, UsageError
from blkmig_cli.progress import Progress, ignore, no_progress
from blkmig_cli.system.address import parse_target
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.system.sockets import Say
from blkmig_cli.text import escape
from blkmig_cli.transport.source import Stream, open_stream
from blkmig_cli.wire.decoder import Container, Decoder
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Consumer
from blkmig_cli.wire.schema_io import Input
from blkmig_cli.wire.several import decoder_of


def check_target(stream: str, target: str | None, *bases: str) -> None:
    """Check the TARGET as far as possible before the STREAM and its ``bases`` are read.

    Raises UsageError where it is malformed, or is a file that is read.
    """
    uses = FileUses.of_stream(stream, *bases)
    uses.add_address("the target", parse_target(target), writes=True)


@dataclass(frozen=True, slots=True)
class Reading:
    """The options for reading streams, and for showing messages and progress.

    ``hints``, ``dialect`` and ``container`` are those of the command line; ``number`` is that of
    several streams in the input, None for the only one.  ``folder``: that of relative paths, None for the
    working directory.  ``bases`` are the STREAMs that may lie under
    an increment, in any order.  ``say`` reports that the program waits for a peer, ``log`` what was opened.
    """

    hints: Hints = field(default_factory=Hints)
    dialect: str = "auto"
    container: Container = "auto"
    number: int | None = None
    bases: tuple[str, ...] = ()
    folder: str | None = None
    say: Say = ignore
    log: Say = ignore
    progress: Progress = no_progress

    def decoder(self, source: Input, *, keep_state: bool = False) -> Decoder:
        """Return a decoder of the stream in ``source``; ``keep_state``: see :class:`Decoder`."""
        return self.decoder_for(source, self.hints, keep_state=keep_state)

    def decoder_for(self, source: Input, hints: Hints, *, keep_state: bool = False) -> Decoder:
        """Return a decoder as :meth:`decoder` does, with ``hints`` in place of those of the command line."""
        return decoder_of(
            source,
            self.number,
            dialect=self.dialect,
            container=self.container,
            hints=hints,
            keep_state=keep_state,
        )

    @contextmanager
    def open(self, name: str, *, again: bool = False, by_range: bool = False) -> Iterator[Stream]:
        """Open the STREAM ``name``; for the options and exceptions, see :func:`open_stream`."""
        with open_stream(
            name, self.say, again=again, by_range=by_range, folder=self.folder
        ) as stream:
            self.log(str(stream))
            yield stream

    @contextmanager
    def contents(self, name: str, *others: Consumer, again: bool = False) -> Iterator[Contents]:
        """Open the STREAM ``name`` and read it to its end; ``others`` take its events as well.

        With ``bases``, it is that of the STREAM on top of them.  ``again``: its data will be read, too.
        Raises as :meth:`open` and :func:`read_contents`, and with bases as :meth:`Chain.add`.
        """
        with ExitStack() as stack:
            bases = self.open_bases(stack)
            stream = stack.enter_context(self.open(name, again=again or bool(self.bases)))
            contents = bases.under(self.read(stream, *others))
            bases.check_used(name)
            yield contents

    def open_bases(self, stack: ExitStack) -> "Bases":
        """Read all ``bases``; ``stack`` closes them.  Raises as :meth:`contents`."""
        alone = replace(self, number=None, bases=())
        return Bases(
            [alone.read(stack.enter_context(alone.open(name, again=True))) for name in self.bases]
        )

    def read(self, stream: Stream, *others: Consumer) -> Contents:
        """Read ``stream`` to its end; see :meth:`contents`."""
        try:
            with self.progress("reading", stream.input.size) as tick:
                decoder = self.decoder(stream.input)
                return read_contents(stream, decoder, self.hints, tick, *others)
        except UsageError as error:  # there are several streams, or not so many
            error.stream = stream.name
            raise


class Bases:
    """Streams that may lie under an increment."""

    def __init__(self, contents: list[Contents]) -> None:
        self._contents = contents
        self._used: list[Contents] = []

    def under(self, contents: Contents) -> Contents:
        """Return the content of a stream together with that of the bases under it, if it has any.

        Raises as :meth:`Chain.add`.
        """
        from blkmig_cli.operations.chain import Chain, in_order  # noqa: PLC0415 (only with bases)

        *bases, _ = streams = list(in_order(contents, self._contents))
        if not bases:
            return contents
        self._used += bases
        chain = Chain()
        for one in streams:
            chain.add(one)
        return chain.contents()

    def check_used(self, *names: str) -> None:
        """Raise IncompleteError where one of the bases lies under none of the streams ``names``."""
        for base in self._contents:
            if not any(base is used for used in self._used):
                raise IncompleteError(
                    f"{escape(base.stream.name)} is not a base of {' or '.join(map(escape, names))}",
                    check="wrong-base",
                )


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
