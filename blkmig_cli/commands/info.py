"""``blkmig info``: a stream at a glance."""

import json

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.progress import progress
from blkmig_cli.text import escape
from blkmig_cli.transport import open_stream


@click.command("info", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.stream_options
@options.output_option("human", "json")
@options.quiet_option
@options.verbose_option
def command(
    stream: str,
    dialect: str,
    container: str,
    granularities: tuple[str, ...],
    device_sizes: tuple[str, ...],
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Show what is in a stream, whether it is whole, and what to do next.

    One screen: machine, disks, bitmaps, where the bytes went, what was found, and
    commands to go on with.  The exit status is 0 also where something is missing, as
    validate judges and this informs; 3 for a stream that is damaged.

    \b
    Examples:
      blkmig info stream.bin
      zcat stream.gz | blkmig info - --output json
    """
    from blkmig_cli.info import examine, info_json  # noqa: PLC0415 (numpy is slow to load)

    hints = options.hints_of(granularities, device_sizes)
    with (
        open_stream(stream, options.saying(quiet)) as opened,
        progress("reading", opened.input.size, quiet=quiet) as tick,
    ):
        options.log(verbose, str(opened))
        decoder = options.decoder_factory(dialect, container)(opened.input, hints)
        info = examine(opened, decoder, hints, tick)
    if output == "json":
        click.echo(json.dumps(info_json(info), indent=1))
    else:
        from blkmig_cli.render.console import console  # noqa: PLC0415 (rich is slow to load)
        from blkmig_cli.render.info import info_text  # noqa: PLC0415

        info_text(info, console())
    failure = info.report.failure
    if failure is None:
        return 0
    click.echo(f"blkmig: {escape(stream)}: {failure}", err=True)
    return failure.exit_status
