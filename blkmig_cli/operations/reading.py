"""Opening streams and reading all that is in them, as the options that most commands share say."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from blkmig_cli.checks.names import Names
from blkmig_cli.checks.survey import Contents, read_contents
from blkmig_cli.progress import Progress, ignore, no_progress
from blkmig_cli.system.sockets import Say
from blkmig_cli.transport.source import Stream, open_stream
from blkmig_cli.wire.decoder import Container, Decoder
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import Consumer
from blkmig_cli.wire.schema_io import Input


@dataclass(frozen=True, slots=True)
class Reading:
    """How streams are read, and who is told what happens meanwhile.

    ``hints``, ``dialect`` and ``container`` are those of the command line.  ``say`` is told where the
    program waits for a peer, ``log`` what was opened.
    """

    hints: Hints = field(default_factory=Hints)
    dialect: str = "auto"
    container: Container = "auto"
    say: Say = ignore
    log: Say = ignore
    progress: Progress = no_progress

    def decoder(self, source: Input, *, keep_state: bool = False) -> Decoder:
        """Return a decoder of the stream in ``source``; ``keep_state``: see :class:`Decoder`."""
        return Decoder(
            source,
            dialect=self.dialect,
            container=self.container,
            hints=self.hints,
            keep_state=keep_state,
        )

    @contextmanager
    def open(self, name: str, *, again: bool = False) -> Iterator[Stream]:
        """Open the STREAM called ``name``; ``again`` and what is raised: see :func:`open_stream`."""
        with open_stream(name, self.say, again=again) as stream:
            self.log(str(stream))
            yield stream

    @contextmanager
    def contents(
        self, name: str, *others: Consumer, again: bool = False, check_names: bool = True
    ) -> Iterator[Contents]:
        """Open the STREAM called ``name`` and read it to its end; ``others`` take its events as well.

        ``again``: its data will be read, too.  ``check_names``: what the hints name must be in it.
        Raises as :meth:`open` and :func:`read_contents`, and UsageError for a name that is not there.
        """
        with self.open(name, again=again) as stream:
            with self.progress("reading", stream.input.size) as tick:
                contents = read_contents(
                    stream, self.decoder(stream.input), self.hints, tick, *others
                )
            if check_names:
                Names.of(contents.report).check_hints(self.hints)
            yield contents
