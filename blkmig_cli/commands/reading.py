"""What commands share that read a whole stream first, and show what is in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import click

from blkmig_cli.commands import options
from blkmig_cli.errors import BlkmigError
from blkmig_cli.output.progress import progress
from blkmig_cli.text import escape
from blkmig_cli.wire.hints import Hints

if TYPE_CHECKING:
    from blkmig_cli.checks.survey import Contents
    from blkmig_cli.operations.reading import Reading
    from blkmig_cli.wire.decoder import Container
    from blkmig_cli.wire.runs import Consumer


def reading_of(
    hints: Hints, dialect: str, container: str, *, quiet: bool, verbose: bool
) -> "Reading":
    """Return how streams are to be read by the options that commands share."""
    from blkmig_cli.operations.reading import Reading  # noqa: PLC0415 (numpy is slow to load)

    return Reading(
        hints,
        dialect,
        cast("Container", container),
        say=options.saying(quiet),
        log=lambda message: options.log(verbose, message),
        progress=lambda label, total: progress(label, total, quiet=quiet),
    )


@contextmanager
def reading(
    stream: str,
    hints: Hints,
    dialect: str,
    container: str,
    *others: "Consumer",
    twice: bool = False,
    quiet: bool,
    verbose: bool,
) -> Iterator["Contents"]:
    """Everything in the STREAM called ``stream``, while it is open; ``others`` take its events too.

    ``twice``: data will be read, too.  Raises as :meth:`Reading.contents`.
    """
    how = reading_of(hints, dialect, container, quiet=quiet, verbose=verbose)
    with how.contents(stream, *others, again=twice) as contents:
        yield contents


def told(stream: str, failure: BlkmigError | None) -> int:
    """Say what ended the reading of a stream, if anything did; returns the exit status."""
    if failure is None:
        return 0
    click.echo(f"blkmig: {escape(stream)}: {failure}", err=True)
    return failure.exit_status
