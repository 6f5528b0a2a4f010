"""``blkmig compare``: do two streams, or a stream and an image, leave the same behind?"""

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.disks.raw import RawImage, open_raw
from blkmig_cli.errors import NotAStreamError, UsageError
from blkmig_cli.output.progress import progress
from blkmig_cli.progress import Tick
from blkmig_cli.text import escape, quote
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.hints import Hints

if TYPE_CHECKING:
    from blkmig_cli.checks.survey import Contents
    from blkmig_cli.wire.decoder import Decoder
    from blkmig_cli.wire.schema_io import Input


@click.command("compare", cls=Command)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@options.stream_options
@click.option("--stream", "numbers", type=click.IntRange(min=1), multiple=True, metavar="N",
              help="Which stream of a file that holds several; twice: of A, and of B.")  # fmt: skip
@click.option("-f", "image_format", type=click.Choice(["raw"]),
              help="B is an image of this format, whatever it looks like.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Sizes count, too.")
@click.option("--incremental", is_flag=True, help="What never came does not count.")
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
    image_format: str | None,
    strict: bool,
    incremental: bool,
    force_share: bool,
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Compare the disks and bitmaps that two streams leave behind, or a stream and an image.

    A and B are streams; one may be a disk image, [DEVICE=]IMAGE: what is no stream is
    taken for one.  What the smaller disk does not have counts as zeros, as
    in qemu-img compare, unless --strict.  What never came is no zeros.  An image's
    bitmaps are those of IMAGE.bitmaps.json; with an image, the stream's other devices
    do not count.  Exit status 0: same, 1: different.

    \b
    Examples:
      blkmig compare stream.bin disk.img
      blkmig compare stream.bin drive0=disk.img --output json
      blkmig compare old.bin new.bin
    """
    from blkmig_cli.operations.compare import (  # noqa: PLC0415 (numpy is slow to load)
        compare_sides,
        image_side,
        stream_side,
    )
    from blkmig_cli.output.documents import comparison_json  # noqa: PLC0415

    if len(numbers) > 2:
        raise UsageError("--stream is given once, or for A and for B")
    hints = options.hints_of(granularities, device_sizes)
    make = partial(options.decoder_factory, dialect, container)
    with ExitStack() as stack:
        opened: list[Contents | tuple[str | None, RawImage]] = []
        for words, number in zip((first, second), _of_each(numbers), strict=True):
            contents = None
            if not (words == second and image_format == "raw"):
                contents = _stream(words, make(number), hints, stack, quiet=quiet)
            if contents is None:
                device, path = options.split_device(words)
                raw = open_raw(
                    path, writable=False, force=image_format == "raw", shared=force_share
                )
                opened.append((device, stack.enter_context(closing(raw))))
            else:
                opened.append(contents)
            kind = "an image" if contents is None else "a stream"
            options.log(verbose, f"{escape(words)}: {kind}")
        streams = [found for found in opened if not isinstance(found, tuple)]
        if not streams:
            raise UsageError(
                f"neither {escape(first)} nor {escape(second)} is a stream",
                hint="images are compared by qemu-img compare",
            )
        image = next((found for found in opened if isinstance(found, tuple)), None)
        only = None if image is None else _device(image[0], streams[0])
        ours, theirs = (
            image_side(only or "", found[1])
            if isinstance(found, tuple)
            else stream_side(found, only)
            for found in opened
        )
        total = sum(disk.size for disk in ours.disks.values())
        with progress("comparing", total, quiet=quiet) as tick:
            comparison = compare_sides(ours, theirs, tick)
    if output == "json":
        document = comparison_json(comparison, strict=strict, incremental=incremental)
        click.echo(json.dumps(document, indent=1))
    elif not quiet:
        from blkmig_cli.output.human.comparison import comparison_text  # noqa: PLC0415
        from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)

        comparison_text(comparison, console(), strict=strict, incremental=incremental)
    return int(not comparison.same(strict=strict, incremental=incremental))


def _of_each(numbers: tuple[int, ...]) -> tuple[int | None, int | None]:
    """Which stream of A, and of B, the values of --stream mean."""
    if not numbers:
        return None, None
    return numbers[0], numbers[-1]


def _stream(
    name: str,
    make: "Callable[[Input, Hints], Decoder]",
    hints: Hints,
    stack: ExitStack,
    *,
    quiet: bool,
) -> "Contents | None":
    """What is in the stream called ``name``; None where it is no stream."""
    from blkmig_cli.checks.survey import read_contents  # noqa: PLC0415 (numpy is slow to load)

    device, path = options.split_device(name)
    if device is not None and path:
        return None  # DEVICE=IMAGE
    opened = stack.enter_context(open_stream(name, options.saying(quiet), again=True))
    decoder = make(opened.input, hints)
    tick: Tick
    with progress("reading", opened.input.size, quiet=quiet) as tick:
        contents = read_contents(opened, decoder, hints, tick)
    if isinstance(contents.report.failure, NotAStreamError):
        return None
    if contents.report.failure is not None:
        raise contents.report.failure
    return contents


def _device(named: str | None, contents: "Contents") -> str:
    """Which of a stream's devices an image is compared with."""
    devices = [found.disk.name for found in contents.report.devices if found.disk.has_blocks]
    if named is None and len(devices) == 1:
        return devices[0]
    if named is None or named not in devices:
        names = ", ".join(map(quote, devices)) or "no disks"
        raise UsageError(f"the stream has {names}", hint="say DEVICE=IMAGE")
    return named
