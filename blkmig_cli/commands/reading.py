"""Reading a stream by the options that commands share, and reporting the error that ended it."""

from typing import TYPE_CHECKING, cast

from blkmig_cli.commands import options
from blkmig_cli.errors import BlkmigError
from blkmig_cli.output.progress import progress
from blkmig_cli.text import escape
from blkmig_cli.wire.hints import Hints

if TYPE_CHECKING:
    from blkmig_cli.operations.reading import Reading
    from blkmig_cli.wire.decoder import Container


def reading_of(
    hints: Hints,
    dialect: str,
    container: str,
    *,
    number: int | None = None,
    bases: tuple[str, ...] = (),
    quiet: bool,
    verbose: bool,
) -> "Reading":
    """Return how to read streams according to the options that commands share."""
    from blkmig_cli.operations.reading import Reading  # noqa: PLC0415 (numpy is slow to load)

    return Reading(
        hints,
        dialect,
        cast("Container", container),
        number,
        bases,
        say=options.saying(quiet),
        log=lambda message: options.log(verbose, message),
        progress=lambda label, total: progress(label, total, quiet=quiet),
    )


def exit_status(stream: str, failure: BlkmigError | None) -> int:
    """Print the error that ended the reading of ``stream`` on stderr; return its exit status."""
    if failure is None:
        return 0
    options.echo_line(f"{escape(stream)}: {failure}")
    return failure.exit_status
