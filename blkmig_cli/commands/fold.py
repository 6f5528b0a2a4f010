"""``blkmig fold``: makes one stream of a base and its increments."""

import click

from blkmig_cli.checks.compatibility import Version
from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.reading import reading_of
from blkmig_cli.text import count


@click.command("fold", cls=Command)
@click.argument("streams", nargs=-1, required=True, metavar="STREAM...")
@options.target_option
@options.stream_form_options
@click.option("--granularity", "granularities", multiple=True, metavar="[DEVICE:]NAME=SIZE",
              help="Granularity of a bitmap in a v1 stream.")  # fmt: skip
@click.option("--manifest", "manifests", multiple=True, metavar="FILE",
              help="The manifest of each STREAM, in order, for those without description.")  # fmt: skip
@click.option("--no-bitmaps", is_flag=True, help="Omit the bitmaps of the last stream.")
@options.for_qemu_option
@options.quiet_option
@options.verbose_option
def command(
    streams: tuple[str, ...],
    target: str | None,
    dialect: str,
    container: str,
    machine: str,
    granularities: tuple[str, ...],
    manifests: tuple[str, ...],
    no_bitmaps: bool,
    for_qemu: Version | None,
    quiet: bool,
    verbose: bool,
) -> int:
    """Make one stream of a base and its increments, in order, or of increments alone.

    Each STREAM must be the base of the next one; of several streams in one file, all are
    taken.  The last content of each place counts, and the bitmaps are those of the last
    stream.  The result has the id of the last stream, and the base of the first, so that
    it takes their place in a chain.  Disks are not unpacked; a pipe or compressed STREAM
    is copied to a temporary file (in TMPDIR, else /var/tmp).

    \b
    Examples:
      blkmig fold s0.bin s1.bin s2.bin --to full.bin
      blkmig fold monday.zst tuesday.zst --to week.zst
      blkmig fold a.bin b.bin --manifest a.json --manifest b.json --to full.bin
    """
    from blkmig_cli.operations.convert.convert import ConvertOptions  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.operations.fold import fold  # noqa: PLC0415

    hints = options.hints_of(granularities, ())
    result = fold(
        streams,
        target,
        ConvertOptions(dialect, container, machine=machine, bitmaps=not no_bitmaps),
        reading_of(hints, "auto", "auto", quiet=quiet, verbose=verbose),
        manifests=manifests,
        for_qemu=for_qemu,
        warn=options.warn,
    )
    options.log(verbose, f"{count(result.written, 'byte')} written")
    return 0
