"""``blkmig extract``: writes one disk, or one bitmap, of a stream."""

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import exit_status, reading_of
from blkmig_cli.disks.formats import check_format
from blkmig_cli.errors import UsageError
from blkmig_cli.text import count


@click.command("extract", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.target_option
@click.option("-f", "stated_format", metavar="FORMAT",
              help="Format of the image: raw, qcow2, vmdk, ... (default: by the suffix).")  # fmt: skip
@options.stream_options
@options.number_option
@options.base_option
@click.option("--device", metavar="DEVICE", help="Device of the disk (default: the only one).")
@click.option("--bitmap", metavar="[DEVICE:]NAME", help="Extract a bitmap instead, as JSON.")
@click.option("--allow-incomplete", is_flag=True, help="Write zeros for chunks that were not sent.")
@options.quiet_option
@options.verbose_option
def command(
    stream: str,
    target: str | None,
    stated_format: str | None,
    dialect: str,
    container: str,
    granularities: tuple[str, ...],
    device_sizes: tuple[str, ...],
    number: int | None,
    bases: tuple[str, ...],
    device: str | None,
    bitmap: str | None,
    allow_incomplete: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Write one disk of a stream as an image, or one bitmap as IMAGE.bitmaps.json.

    The image is raw, or has the format of -f or of its suffix, and then it must not
    exist; an NBD export is overwritten.  A raw file has holes where the disk has zeros.
    Nothing is written if chunks were not sent (exit status 1) or the stream is damaged
    (3), unless --allow-incomplete is used.  For a disk, a pipe or compressed STREAM is
    copied to a temporary file (in TMPDIR, else /var/tmp), as it is read out of order.

    \b
    Examples:
      blkmig extract stream.bin --to disk.img
      blkmig extract stream.bin --device drive0 | sha256sum
      blkmig extract stream.bin --to disk.qcow2
      blkmig extract stream.bin --bitmap drive0:daily --to daily.json
    """
    from blkmig_cli.operations.extract import extract  # noqa: PLC0415 (numpy is slow to load)

    if bitmap is not None and device is not None:
        raise UsageError("--device is only for disks", hint="specify --bitmap DEVICE:NAME")
    hints = options.hints_of(granularities, device_sizes)
    extracted = extract(
        stream,
        target,
        reading_of(
            hints, dialect, container, number=number, bases=bases, quiet=quiet, verbose=verbose
        ),
        device=device,
        bitmap=bitmap,
        stated_format=None if stated_format is None else check_format(stated_format),
        allow_incomplete=allow_incomplete,
    )
    for warning in extracted.warnings:
        options.warn(warning)
    options.log(verbose, f"{count(extracted.written, 'byte')} written")
    return exit_status(stream, extracted.failure)
