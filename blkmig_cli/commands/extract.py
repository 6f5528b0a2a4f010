"""``blkmig extract``: one disk, or one bitmap, out of a stream."""

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import reading, told
from blkmig_cli.errors import UsageError
from blkmig_cli.output.progress import progress
from blkmig_cli.text import count
from blkmig_cli.transport.target import open_target


@click.command("extract", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.target_option
@options.stream_options
@options.number_option
@click.option("--device", metavar="DEVICE", help="Whose disk (default: the only one).")
@click.option("--bitmap", "name", metavar="[DEVICE:]NAME", help="A bitmap instead, as JSON.")
@click.option("--allow-incomplete", is_flag=True, help="Chunks that never came become zeros.")
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
    device: str | None,
    name: str | None,
    allow_incomplete: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Write one disk of a stream as a raw image, or one bitmap as IMAGE.bitmaps.json.

    A new file has holes where the disk has zeros.  Nothing is written where chunks
    never came (exit status 1) or the stream is damaged (3), unless with
    --allow-incomplete.  For a disk, a pipe or compressed STREAM is kept in a temporary
    file (in TMPDIR, else /var/tmp), as it is read out of order.

    \b
    Examples:
      blkmig extract stream.bin --to disk.img
      blkmig extract stream.bin --device drive0 | sha256sum
      blkmig extract stream.bin --bitmap drive0:daily --to daily.json
    """
    from blkmig_cli.disks.bitmap_file import bitmaps_text  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.operations.extract import copy_disk, find_bitmap, find_disk  # noqa: PLC0415

    if name is not None and device is not None:
        raise UsageError("--device is for disks", hint="say --bitmap DEVICE:NAME")
    hints = options.hints_of(granularities, device_sizes)
    with reading(
        stream,
        hints,
        dialect,
        container,
        number=number,
        twice=name is None,
        quiet=quiet,
        verbose=verbose,
    ) as contents:
        if name is not None:
            bitmap = find_bitmap(contents, name, allow_incomplete=allow_incomplete)
            with open_target(target, [stream]) as sink:
                _warn(bitmap.warnings, quiet=quiet)
                sink.write(bitmaps_text(bitmap.file))
        else:
            found = find_disk(contents, device, allow_incomplete=allow_incomplete)
            with open_target(target, [stream]) as sink:
                _warn(found.warnings, quiet=quiet)
                with progress("extracting", found.disk.size, quiet=quiet) as tick:
                    copy_disk(found.disk, sink, tick)
        options.log(verbose, f"{count(sink.written, 'byte')} written")
    return told(stream, contents.report.failure)


def _warn(warnings: list[str], *, quiet: bool) -> None:
    for warning in warnings if not quiet else []:
        click.echo(f"blkmig: warning: {warning}", err=True)
