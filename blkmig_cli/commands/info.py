"""``blkmig info``: a stream at a glance."""

import json
from typing import TYPE_CHECKING

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import each_report, told
from blkmig_cli.output.progress import progress
from blkmig_cli.transport.source import Stream, open_stream

if TYPE_CHECKING:
    from blkmig_cli.checks.checker import Report


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
    from blkmig_cli.checks.survey import read_contents  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.contents.accounts import Accounts  # noqa: PLC0415
    from blkmig_cli.operations.info import Info, info_of  # noqa: PLC0415
    from blkmig_cli.output.documents import info_json  # noqa: PLC0415

    hints = options.hints_of(granularities, device_sizes)
    make = options.decoder_factory(dialect, container, 1)
    infos: list[Info] = []
    with (
        open_stream(stream, options.saying(quiet)) as opened,
        progress("reading", opened.input.size, quiet=quiet) as tick,
    ):
        options.log(verbose, str(opened))

        def judge(one: Stream) -> "Report":
            accounts = Accounts()
            contents = read_contents(one, make(one.input, hints), hints, tick, accounts)
            infos.append(info_of(contents, accounts))
            return contents.report

        reports = list(each_report(opened, judge))
    if output == "json":
        first, *further = map(info_json, infos)
        click.echo(json.dumps(first | {"further-streams": further}, indent=1))
    else:
        from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)
        from blkmig_cli.output.human.info import info_text  # noqa: PLC0415

        out = console()
        for number, info in enumerate(infos):
            if number:
                out.print()
            info_text(info, out)
    return told(reports[-1].stream, reports[-1].failure)
