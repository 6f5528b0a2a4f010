"""``blkmig salvage``: finds what is intact in a damaged stream."""

import sys

import click

from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import reading_of
from blkmig_cli.errors import UsageError
from blkmig_cli.text import escape


@click.command("salvage", cls=Command)
@click.argument("stream", metavar="STREAM")
@click.option("--to", "target", metavar="TARGET", help="Write what is intact as a stream.")
@options.stream_options
@options.number_option
@options.output_option("human", "json")
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
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Find what is intact in a damaged or truncated stream.

    After damage, reading continues at a record that is followed by intact ones.  With
    --to, the intact disks and bitmaps are written as a new stream, which states the
    known sizes of disks: replay it with --allow-incomplete, or with --incremental onto
    an older image.  Damage within a disk's data cannot be detected.  Exit status 0:
    intact, 1: something is lost, 3: nothing is intact.

    \b
    Examples:
      blkmig salvage broken.bin
      blkmig salvage broken.bin --device-size drive0=20G --to salvaged.bin
      blkmig replay salvaged.bin --image disk.img --create --allow-incomplete
    """
    from blkmig_cli.operations.salvage.salvage import salvage  # noqa: PLC0415 (numpy is slow)
    from blkmig_cli.output.documents import salvage_json  # noqa: PLC0415

    to_stdout = target == "-"
    if to_stdout and output == "json":
        raise UsageError("--output json and --to - both write to stdout")
    hints = options.hints_of(granularities, device_sizes)
    reading = reading_of(hints, dialect, container, number=number, quiet=quiet, verbose=verbose)
    found = salvage(stream, target, reading)
    if output == "json":
        options.echo_json(salvage_json(found))
    else:
        from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)
        from blkmig_cli.output.human.salvage import salvage_text  # noqa: PLC0415

        salvage_text(found, console(sys.stderr if to_stdout else None), brief=quiet)
    if not found.disks:
        reason = found.gaps[0].why if found.gaps else "it has no disks and no bitmaps"
        options.echo_line(f"{escape(stream)}: {reason}")
    return found.exit_status
