"""``blkmig scrub``: a stream without what leaked into its padding."""

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.operations.scrub import scrub
from blkmig_cli.output.progress import progress
from blkmig_cli.text import count
from blkmig_cli.transport.source import open_stream
from blkmig_cli.transport.target import open_target


@click.command("scrub", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.target_option
@options.stream_options
@options.number_option
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
    quiet: bool,
    verbose: bool,
) -> int:
    """Zero the padding of last chunks, and copy all else as it is.

    QEMU sends a last chunk that the disk's end cuts as a whole MiB, and does not clear
    the rest: up to 1 MiB of other data of the disk, or of QEMU's memory, is in the
    stream.  Where the disk's size is not in the stream, say it with --device-size.

    \b
    Examples:
      blkmig scrub stream.bin --device-size 5126K --to clean.bin
      zcat stream.gz | blkmig scrub - --device-size drive0=5126K | gzip > clean.gz
    """
    hints = options.hints_of(granularities, device_sizes)
    make = options.decoder_factory(dialect, container, number, keep_state=True)
    with open_stream(stream, options.saying(quiet)) as opened:
        options.log(verbose, str(opened))
        with (
            open_target(target, [stream]) as sink,
            progress("scrubbing", opened.input.size, quiet=quiet) as tick,
        ):
            found = scrub(opened, sink, hints, make, tick)
    if not quiet:
        click.echo(
            f"blkmig: {count(found.chunks, 'chunk')} with padding, {count(found.padding, 'byte')} "
            f"of it, {found.leaked:,} were not zero",
            err=True,
        )
    return 0
