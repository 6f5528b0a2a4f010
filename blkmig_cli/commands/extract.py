"""``blkmig extract``: one disk, or one bitmap, out of a stream."""

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.whole import reading, told
from blkmig_cli.errors import UsageError
from blkmig_cli.progress import progress
from blkmig_cli.sinks import open_target
from blkmig_cli.text import human_size, quote


@click.command("extract", cls=Command)
@click.argument("stream", metavar="STREAM")
@options.target_option
@options.stream_options
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
    device: str | None,
    name: str | None,
    allow_incomplete: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Write one disk of a stream as a raw image, or one bitmap as IMAGE.bitmaps.json.

    A new file has holes where the disk has zeros.  Nothing is written where chunks
    never came (exit status 1) or the stream is damaged (3), unless with
    --allow-incomplete.  For a disk, STREAM is a file, as it is read out of order.

    \b
    Examples:
      blkmig extract stream.bin --to disk.img
      blkmig extract stream.bin --device drive0 | sha256sum
      blkmig extract stream.bin --bitmap drive0:daily --to daily.json
    """
    from blkmig_cli.extract import (  # noqa: PLC0415 (numpy is slow to load)
        bitmap_document,
        choose_bitmap,
        choose_disk,
        extract_disk,
    )

    if name is not None and device is not None:
        raise UsageError("--device is for disks", hint="say --bitmap DEVICE:NAME")
    hints = options.hints_of(granularities, device_sizes)
    with reading(stream, hints, dialect, container, quiet=quiet, verbose=verbose) as contents:
        report = contents.report
        failure = report.failure
        if failure is not None and not allow_incomplete:
            raise failure
        if name is not None:
            document = bitmap_document(contents, choose_bitmap(report, name))
            with open_target(target, [stream]) as sink:
                sink.write(document)
        else:
            verdict = choose_disk(report, device)
            disk = contents.disk(verdict.disk.name)
            missing = sum(piece.end - piece.start for piece in disk.pieces()
                          if piece.kind == "missing")  # fmt: skip
            if missing and not allow_incomplete:
                click.echo(
                    f"blkmig: {human_size(missing)} of {quote(verdict.disk.name)} never came; nothing "
                    "was written; say --allow-incomplete for zeros in their place",
                    err=True,
                )
                return 1
            _warn(verdict.size.exact, disk.size, missing, quiet=quiet)
            with (
                open_target(target, [stream]) as sink,
                progress("extracting", disk.size, quiet=quiet) as tick,
            ):
                extract_disk(disk, sink, tick)
    return told(stream, failure)


def _warn(exact: int | None, size: int, missing: int, *, quiet: bool) -> None:
    warnings = []
    if missing:
        warnings.append(f"{human_size(missing)} never came, and are zeros")
    if exact is None:
        warnings.append(
            f"the disk's size is not in the stream; took {size} bytes; see --device-size"
        )
    for warning in warnings if not quiet else []:
        click.echo(f"blkmig: warning: {warning}", err=True)
