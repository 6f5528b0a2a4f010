"""``blkmig convert``: a stream in another dialect."""

import click

from blkmig_cli.checks.compatibility import Version
from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import reading
from blkmig_cli.commands.sending import warn, write
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.send.requirements import unplaced
from blkmig_cli.operations.send.stream import SendOptions, send_events
from blkmig_cli.output.progress import progress
from blkmig_cli.text import count
from blkmig_cli.transport.target import open_target


@click.command("convert", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.target_option
@click.option("--dialect", type=click.Choice(["qemu", "classic", "v1", "v2"]), default="qemu",
              show_default=True, help="Dialect to write.")  # fmt: skip
@click.option("--container", type=click.Choice(["qemu", "none"]),
              help="What is to hold the block records (default: as in STREAM).")  # fmt: skip
@click.option("--normalize", is_flag=True,
              help="Sorted, each chunk once, zeros found, RAM and devices left out.")  # fmt: skip
@click.option("--machine", help="Machine type to state, with --normalize (default: none).")
@click.option("--from-dialect", type=click.Choice(["auto", "classic", "v1", "v2", "qemu"]),
              default="auto", show_default=True, help="Dialect of STREAM.")  # fmt: skip
@click.option("--device-size", "device_sizes", multiple=True, metavar="[DEVICE=]SIZE",
              help="Size of a disk; k, M, G, T are powers of 1024.")  # fmt: skip
@click.option("--granularity", "granularities", multiple=True, metavar="[DEVICE:]NAME=SIZE",
              help="Granularity of a bitmap in a v1 stream.")  # fmt: skip
@click.option("--bitmaps-from", multiple=True, metavar="[DEVICE=]FILE",
              help="Add the bitmaps of FILE, in place of their namesakes.")  # fmt: skip
@click.option("--no-bitmaps", is_flag=True, help="Leave the stream's bitmaps out.")
@click.option("--incremental", is_flag=True, help="Missing chunks are meant, and stay left out.")
@options.number_option
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
    for_qemu: Version | None,
    quiet: bool,
    verbose: bool,
) -> int:
    """Write a stream in another dialect.

    Records keep their order, and all else is kept as it is; --normalize makes the
    stream anew from what it leaves behind.  That is the way from an old capture to
    a QEMU of today.  A pipe or compressed STREAM is kept in a temporary file (in
    TMPDIR, else /var/tmp), as it is read twice.

    \b
    Examples:
      blkmig convert old.bin --normalize --machine pc --for-qemu 7.2 --to new.bin
      blkmig convert stream.bin --dialect v2 --to v2.bin
      blkmig convert stream.bin --bitmaps-from daily.json --to with-bitmap.bin
    """
    from blkmig_cli.checks.survey import source_of_data  # noqa: PLC0415
    from blkmig_cli.operations.convert import (  # noqa: PLC0415 (numpy is slow to load)
        Translation,
        add_bitmaps,
        disks_of,
    )

    if machine is not None and not normalize:
        raise UsageError("--machine changes what is kept as it is", hint="say --normalize")
    hints = options.hints_of(granularities, device_sizes)
    files = options.device_values("--bitmaps-from", bitmaps_from)
    with reading(
        stream,
        hints,
        from_dialect,
        "auto",
        number=number,
        twice=True,
        quiet=quiet,
        verbose=verbose,
    ) as contents:
        report = contents.report
        if report.failure is not None:
            raise report.failure
        converted = disks_of(contents, bitmaps=not no_bitmaps, incremental=incremental)
        add_bitmaps(converted.disks, files)
        held = report.container or "qemu"
        if not normalize and container not in (None, held):
            raise UsageError("another container needs a stream made anew", hint="say --normalize")
        if unplaced(dialect, container or held, converted.disks):
            what = "classic" if dialect == "classic" else "qemu in --container none"
            raise UsageError(f"dialect {what} has no place for bitmaps", hint="say --no-bitmaps")
        disks = converted.disks
        chosen = SendOptions(
            dialect,
            container or held,
            machine or "none",
            disks=any(device.disk.has_blocks for device in report.devices),
            skip_unallocated=incremental,
        )
        with open_target(target, [stream, *files.values()]) as sink:
            if not quiet:
                for warning in converted.warnings:
                    click.echo(f"blkmig: warning: {warning}", err=True)
                warn(disks, chosen, for_qemu)
            total = sum(disk.size for disk in disks)
            with progress("converting", total, quiet=quiet) as tick:
                if normalize:
                    write(send_events(disks, chosen), disks, sink, tick)
                else:
                    source = source_of_data(contents.stream)
                    source.offset = 0
                    translation = Translation(source, dialect, disks)
                    decoder = options.decoder_factory(from_dialect, "auto", number)(source, hints)
                    events = translation.events(decoder)
                    write(events, disks, sink, tick, translation.resolve)
        options.log(verbose, f"{count(sink.written, 'byte')} written")
    return 0
