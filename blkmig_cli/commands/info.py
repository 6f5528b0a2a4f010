"""``blkmig info``: shows an overview of a stream."""

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import exit_status, reading_of


@click.command("info", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.stream_options
@options.base_option
@options.output_option("human", "json")
@options.quiet_option
@options.verbose_option
def command(
    stream: str,
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

    One screen: machine, disks, bitmaps, bytes by kind, findings, and commands for the
    next steps.  The exit status is 0 also for an incomplete stream (use validate to
    check it); 3 for a damaged one.

    \b
    Examples:
      blkmig info stream.bin
      zcat stream.gz | blkmig info - --output json
    """
    from blkmig_cli.operations.info import info  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.output.documents import info_json  # noqa: PLC0415

    hints = options.hints_of(granularities, device_sizes)
    found = info(
        stream, reading_of(hints, dialect, container, bases=bases, quiet=quiet, verbose=verbose)
    )
    if output == "json":
        first, *further = map(info_json, found)
        options.echo_json({**first, "further-streams": further})
    else:
        from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)
        from blkmig_cli.output.human.info import info_text  # noqa: PLC0415

        out = console()
        for number, one in enumerate(found):
            if number:
                out.print()
            info_text(one, out)
    return exit_status(found[-1].report.stream, found[-1].report.failure)
