"""``blkmig salvage``: what a damaged stream still gives."""

import json

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.sending import write
from blkmig_cli.operations.send.stream import SendOptions, send_events
from blkmig_cli.output.progress import progress
from blkmig_cli.text import escape
from blkmig_cli.transport.source import open_stream
from blkmig_cli.transport.target import open_target


@click.command("salvage", cls=Command)
@click.argument("stream", metavar="STREAM")
@click.option("--to", "target", metavar="TARGET", help="Write what is intact as a sound stream.")
@options.stream_options
@options.number_option
@options.output_option("human", "json")
@options.quiet_option
@options.verbose_option
def command(
    stream: str,
    target: str | None,
    dialect: str,
    container: str,
    granularities: tuple[str, ...],
    device_sizes: tuple[str, ...],
    number: int | None,
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Find what is intact in a damaged or truncated stream.

    Behind damage, reading goes on where a record stands whose successors are sound.
    With --to, the disks and whole bitmaps become a new stream, without what is lost:
    replay it with --incremental or --allow-incomplete.  Damage within a disk's data
    cannot be seen.  Exit status 0: sound, 1: something is lost, 3: nothing is left.

    \b
    Examples:
      blkmig salvage broken.bin
      blkmig salvage broken.bin --device-size drive0=20G --to salvaged.bin
      blkmig replay salvaged.bin --image disk.img --create --allow-incomplete
    """
    from blkmig_cli.checks.survey import source_of_data  # noqa: PLC0415
    from blkmig_cli.operations.salvage.salvage import Salvage  # noqa: PLC0415 (numpy is slow)
    from blkmig_cli.output.documents import salvage_json  # noqa: PLC0415 (numpy is slow)

    hints = options.hints_of(granularities, device_sizes)
    with open_stream(stream, options.saying(quiet), again=True) as opened:
        options.log(verbose, str(opened))
        source = source_of_data(opened)
        source.complete()
        decoder = options.decoder_factory(dialect, container, number)(source, hints)
        with progress("searching", source.size, quiet=quiet) as tick:
            found = Salvage(stream, source, decoder, hints, dialect).run(tick)
        if output == "json":
            click.echo(json.dumps(salvage_json(found), indent=1))
        else:
            from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)
            from blkmig_cli.output.human.salvage import salvage_text  # noqa: PLC0415

            salvage_text(found, console())
        if found.empty:
            reason = found.gaps[0].why if found.gaps else "it holds neither disks nor bitmaps"
            click.echo(f"blkmig: {escape(stream)}: {reason}", err=True)
            return 3
        if target is not None:
            blocks = any(any(disk.image.extents()) for disk in found.disks)
            chosen = SendOptions("qemu", disks=blocks, skip_unallocated=True)
            total = sum(disk.size for disk in found.disks)
            with (
                open_target(target, [stream]) as sink,
                progress("writing", total, quiet=quiet) as tick,
            ):
                write(send_events(found.disks, chosen), found.disks, sink, tick)
    return int(not found.sound)
