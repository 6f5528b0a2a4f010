"""``blkmig info``: shows an overview of a stream."""

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.many import captures_of, many_options, readers_of
from blkmig_cli.errors import UsageError


@click.command("info", cls=Command)
@click.argument("streams", nargs=-1, metavar="STREAM...")
@many_options
@options.stream_options
@options.base_option
@options.output_option("human", "json")
@options.quiet_option
@options.verbose_option
def command(
    streams: tuple[str, ...],
    files_from: str | None,
    null: bool,
    jobs: int | None,
    cluster: str | None,
    dialect: str,
    container: str,
    granularities: tuple[str, ...],
    device_sizes: tuple[str, ...],
    bases: tuple[str, ...],
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Show what is in a stream, the verdict on it, and what to do next.

    One screen: machine, bytes by kind, commands for the next steps, disks, bitmaps and
    findings; with -v all of them, and tables of the bytes.  The exit status is 0 also
    for an incomplete stream (use validate to check it); 3 for a damaged one.

    A STREAM may also be a directory or a glob, in which other files are passed over.

    \b
    Examples:
      blkmig info stream.bin
      zcat stream.gz | blkmig info - --output json
      blkmig info captures/ --output json
    """
    hints = options.hints_of(granularities, device_sizes)
    captures = captures_of(streams, files_from, null=null)
    if bases and len(captures) > 1:
        raise UsageError("--base and several streams are mutually exclusive")
    readers = readers_of(captures, jobs, cluster, "blkmig_cli.commands.overview")

    from blkmig_cli.commands.overview import show_captures  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.commands.reading import reading_of  # noqa: PLC0415

    reading = reading_of(hints, dialect, container, bases=bases, quiet=quiet, verbose=verbose)
    return show_captures(captures, reading, readers, output, quiet=quiet, verbose=verbose)
