"""What commands share that read a whole stream first, and show what is in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from blkmig_cli.commands import options
from blkmig_cli.errors import BlkmigError
from blkmig_cli.output.progress import progress
from blkmig_cli.text import escape
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.hints import Hints

if TYPE_CHECKING:
    from blkmig_cli.checks.checker import Report
    from blkmig_cli.checks.survey import Contents
    from blkmig_cli.transport.source import Stream
    from blkmig_cli.wire.runs import Consumer


@contextmanager
def reading(
    stream: str,
    hints: Hints,
    dialect: str,
    container: str,
    *others: "Consumer",
    number: int | None,
    twice: bool = False,
    quiet: bool,
    verbose: bool,
) -> Iterator["Contents"]:
    """Everything in the STREAM called ``stream``, while it is open; ``others`` take its events too.

    ``twice``: data will be read, too.  Raises as ``open_stream`` and ``read_contents``.
    """
    from blkmig_cli.checks.survey import read_contents  # noqa: PLC0415 (numpy is slow to load)

    with open_stream(stream, options.saying(quiet), again=twice) as opened:
        options.log(verbose, str(opened))
        decoder = options.decoder_factory(dialect, container, number)(opened.input, hints)
        with progress("reading", opened.input.size, quiet=quiet) as tick:
            contents = read_contents(opened, decoder, hints, tick, *others)
        yield contents


def each_report(stream: "Stream", judge: "Callable[[Stream], Report]") -> Iterator["Report"]:
    """The report that ``judge`` makes of each stream in the input of ``stream``, in order.

    It reads the stream to its end, with a decoder of the stream 1 from where the input is.
    """
    while True:
        report = judge(stream)
        yield report
        if report.next_stream is None:
            return
        stream = stream.following()


def told(stream: str, failure: BlkmigError | None) -> int:
    """Say what ended the reading of a stream, if anything did; returns the exit status."""
    if failure is None:
        return 0
    click.echo(f"blkmig: {escape(stream)}: {failure}", err=True)
    return failure.exit_status
