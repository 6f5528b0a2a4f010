"""``blkmig info``: a stream at a glance."""

import json

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import reading, told


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
    from blkmig_cli.contents.accounts import Accounts  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.operations.info import info_of  # noqa: PLC0415
    from blkmig_cli.output.documents import info_json  # noqa: PLC0415

    hints = options.hints_of(granularities, device_sizes)
    accounts = Accounts()
    with reading(
        stream, hints, dialect, container, accounts, quiet=quiet, verbose=verbose
    ) as contents:
        info = info_of(contents, accounts)
    if output == "json":
        click.echo(json.dumps(info_json(info), indent=1))
    else:
        from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)
        from blkmig_cli.output.human.info import info_text  # noqa: PLC0415

        info_text(info, console())
    return told(stream, info.report.failure)
