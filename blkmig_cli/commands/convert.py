"""``blkmig convert``: writes a stream in another dialect."""

import click

from blkmig_cli.checks.compatibility import Version
from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import reading_of
from blkmig_cli.text import count


@click.command("convert", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.target_option
@click.option("--dialect", type=click.Choice(["qemu", "classic", "v1", "v2"]), default="qemu",
              show_default=True, help="Dialect to write.")  # fmt: skip
@click.option("--container", type=click.Choice(["qemu", "none"]),
              help="Container of the block records (default: as in STREAM).")  # fmt: skip
@click.option("--normalize", is_flag=True,
              help="Write chunks sorted, once each, zeros detected; no RAM and devices.")  # fmt: skip
@click.option("--machine", help="Machine type to state, with --normalize (default: none).")
@click.option("--from-dialect", type=click.Choice(["auto", "classic", "v1", "v2", "qemu"]),
              default="auto", show_default=True, help="Dialect of STREAM.")  # fmt: skip
@click.option("--device-size", "device_sizes", multiple=True, metavar="[DEVICE=]SIZE",
              help=options.DEVICE_SIZE_HELP)  # fmt: skip
@click.option("--granularity", "granularities", multiple=True, metavar="[DEVICE:]NAME=SIZE",
              help="Granularity of a bitmap in a v1 stream.")  # fmt: skip
@click.option("--bitmaps-from", multiple=True, metavar="[DEVICE=]FILE",
              help="Add the bitmaps of FILE, replacing those of the same name.")  # fmt: skip
@click.option("--no-bitmaps", is_flag=True, help="Omit the stream's bitmaps.")
@click.option(
    "--incremental", is_flag=True, help="Missing chunks are intentional, and remain missing."
)
@options.number_option
@options.base_option
@options.for_qemu_option
@options.quiet_option
@options.verbose_option
def command(
    stream: str,
    target: str | None,
    dialect: str,
    container: str | None,
    normalize: bool,
    machine: str | None,
    from_dialect: str,
    device_sizes: tuple[str, ...],
    granularities: tuple[str, ...],
    bitmaps_from: tuple[str, ...],
    no_bitmaps: bool,
    incremental: bool,
    number: int | None,
    bases: tuple[str, ...],
    for_qemu: Version | None,
    quiet: bool,
    verbose: bool,
) -> int:
    """Write a stream in another dialect.

    Records remain in order, and everything else is copied unchanged; --normalize writes
    a new stream from the disks and bitmaps.  Use that to load an old capture with
    another QEMU.  A pipe or compressed STREAM is copied to a temporary file (in TMPDIR,
    else /var/tmp), as it is read twice.

    \b
    Examples:
      blkmig convert old.bin --normalize --machine pc --for-qemu 7.2 --to new.bin
      blkmig convert stream.bin --dialect v2 --to v2.bin
      blkmig convert stream.bin --bitmaps-from daily.json --to with-bitmap.bin
    """
    from blkmig_cli.operations.convert.convert import (  # noqa: PLC0415 (numpy is slow to load)
        ConvertOptions,
        convert,
    )

    hints = options.hints_of(granularities, device_sizes)
    result = convert(
        stream,
        target,
        ConvertOptions(
            dialect,
            container,
            normalize,
            machine,
            bitmaps=not no_bitmaps,
            incremental=incremental,
        ),
        reading=reading_of(
            hints, from_dialect, "auto", number=number, bases=bases, quiet=quiet, verbose=verbose
        ),
        bitmaps_from=options.device_values("--bitmaps-from", bitmaps_from),
        for_qemu=for_qemu,
        warn=options.warn,
    )
    options.log(verbose, f"{count(result.written, 'byte')} written")
    return 0
