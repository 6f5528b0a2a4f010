"""``blkmig map``: shows where data, zeros and gaps are on the disks of a stream."""

from itertools import islice

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import exit_status, reading_of
from blkmig_cli.errors import UsageError
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import bitmap_name, quote
from blkmig_cli.transport.target import open_target

_LINES = 1 << 10


@click.command("map", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.stream_options
@options.number_option
@options.base_option
@click.option("--device", metavar="DEVICE", help="Show this device only.")
@click.option("--ranges", is_flag=True,
              help="List the ranges, one a line, in bytes.")  # fmt: skip
@click.option("--totals", is_flag=True, help="Show how much there is of each kind.")
@click.option("--svg", metavar="FILE", help="Write the map as SVG, too.")
@options.output_option("human", "json")
@options.quiet_option
@options.verbose_option
def command(
    stream: str,
    dialect: str,
    container: str,
    granularities: tuple[str, ...],
    device_sizes: tuple[str, ...],
    number: int | None,
    bases: tuple[str, ...],
    device: str | None,
    ranges: bool,
    totals: bool,
    svg: str | None,
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Show where data, zeros, repeated chunks and gaps are, and what is dirty in bitmaps.

    The map fits the terminal.  A cell with several kinds shows the first of: not sent,
    sent more than once, data, zeros; in an increment, not sent comes last.  The JSON
    has the keys of qemu-img map; data begins at byte "offset" of the stream, and each
    further MiB of it "stride" bytes later.

    \b
    Examples:
      blkmig map stream.bin
      blkmig map stream.bin --device drive0 --svg map.svg
      blkmig map stream.bin --ranges | grep missing
      blkmig map stream.bin --output json
    """
    if ranges + totals + (output == "json") > 1:
        raise UsageError("--ranges, --totals and --output json exclude each other")
    from blkmig_cli.operations.map import map_stream  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.output.documents import map_json  # noqa: PLC0415
    from blkmig_cli.output.range_lines import range_lines  # noqa: PLC0415
    from blkmig_cli.output.svg import map_svg  # noqa: PLC0415

    hints = options.hints_of(granularities, device_sizes)
    reading = reading_of(
        hints, dialect, container, number=number, bases=bases, quiet=quiet, verbose=verbose
    )
    found = map_stream(stream, reading, device)
    if svg is not None:
        with open_target(svg, FileUses.of_stream(stream, *bases)) as sink:
            sink.write(map_svg(stream, found.disks).encode())
    if output == "json":
        options.echo_json(map_json(stream, found.disks))
    elif ranges:
        for bitmap in (verdict.bitmap for disk in found.disks for verdict in disk.bitmaps):
            if bitmap.content is None:
                name = bitmap_name(bitmap.device, bitmap.name)
                options.warn(f"{name} is left out: granularity unknown; specify --granularity")
        for disk in found.disks:
            if disk.continues:
                name, end = quote(disk.verdict.disk.name), disk.size
                options.warn(f"size of {name} is unknown: it may continue after byte {end}")
        lines = range_lines(found.disks)
        while part := list(islice(lines, _LINES)):
            click.echo("\n".join(part))
    else:
        from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)
        from blkmig_cli.output.human.map import map_text, totals_text  # noqa: PLC0415

        (totals_text if totals else map_text)(found.disks, console())
    return exit_status(stream, found.failure)
