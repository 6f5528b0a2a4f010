"""``blkmig compare``: compares the disks and bitmaps of two streams, or of a stream and an image."""

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import reading_of
from blkmig_cli.disks.formats import check_format
from blkmig_cli.errors import UsageError


@click.command("compare", cls=Command)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@options.stream_options
@click.option("--stream", "numbers", type=click.IntRange(min=1), multiple=True, metavar="N",
              help="Number of the stream in a file with several; twice: in A, and in B.")  # fmt: skip
@options.base_option
@click.option("-f", "image_format", metavar="FORMAT",
              help="B is an image of this format, regardless of its content.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Sizes must be equal, too.")
@click.option("--incremental", is_flag=True, help="Ignore chunks that were not sent.")
@options.force_share_option
@options.output_option("human", "json")
@options.quiet_option
@options.verbose_option
def command(
    first: str,
    second: str,
    dialect: str,
    container: str,
    granularities: tuple[str, ...],
    device_sizes: tuple[str, ...],
    numbers: tuple[int, ...],
    bases: tuple[str, ...],
    image_format: str | None,
    strict: bool,
    incremental: bool,
    force_share: bool,
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Compare the disks and bitmaps of two streams, or of a stream and a disk image.

    A and B are streams.  One of them may be a disk image: [DEVICE=]IMAGE, or a file that
    is not a stream.  The smaller disk is extended with zeros, as by qemu-img compare,
    unless --strict is used; the rest of a larger block device is ignored.  Chunks that
    were not sent are not treated as zeros.  The bitmaps of an image are those in it, or
    in IMAGE.bitmaps.json; with an image, the stream's other devices are ignored.  Exit
    status 0: same, 1: different.

    \b
    Examples:
      blkmig compare stream.bin disk.img
      blkmig compare stream.bin drive0=disk.img --output json
      blkmig compare old.bin new.bin
    """
    from blkmig_cli.operations.compare import CompareOptions, compare  # noqa: PLC0415 (numpy is slow)
    from blkmig_cli.output.documents import comparison_json  # noqa: PLC0415

    if len(numbers) > 2:
        raise UsageError("--stream can be specified at most twice, for A and for B")
    stated = None if image_format is None else check_format(image_format)
    number, *more = numbers or (None,)
    hints = options.hints_of(granularities, device_sizes)
    comparison = compare(
        options.split_device(first),
        options.split_device(second),
        reading_of(
            hints, dialect, container, number=number, bases=bases, quiet=quiet, verbose=verbose
        ),
        CompareOptions(strict, incremental, stated, shared=force_share),
        *more,
    )
    if output == "json":
        options.echo_json(comparison_json(comparison))
    elif not quiet:
        from blkmig_cli.output.human.comparison import comparison_text  # noqa: PLC0415 (rich is slow)
        from blkmig_cli.output.human.console import console  # noqa: PLC0415

        comparison_text(comparison, console())
    return int(not comparison.same)
