"""``blkmig scrub``: zeroes the data that leaked into a stream's padding."""

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import reading_of
from blkmig_cli.text import count


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
    """Zero the padding of last chunks, and copy everything else unchanged.

    QEMU sends a last chunk that the disk's end cuts as a full MiB, and does not clear
    the rest: up to 1 MiB of other data of the disk, or of QEMU's memory, is in the
    stream.  Where the disk's size is not in the stream, specify --device-size.

    \b
    Examples:
      blkmig scrub stream.bin --device-size 5126K --to clean.bin
      zcat stream.gz | blkmig scrub - --device-size drive0=5126K | gzip > clean.gz
    """
    from blkmig_cli.operations.scrub import scrub  # noqa: PLC0415 (numpy is slow to load)

    hints = options.hints_of(granularities, device_sizes)
    found = scrub(
        stream,
        target,
        reading_of(hints, dialect, container, number=number, quiet=quiet, verbose=verbose),
    )
    if not quiet:
        options.echo_line(
            f"{count(found.chunks, 'chunk')} with {count(found.padding, 'byte')} of padding, "
            f"{found.leaked:,} of them not zero"
        )
    return 0
