"""``blkmig validate``: checks whether streams are valid and complete."""

from difflib import get_close_matches

import click

from blkmig_cli.checks.catalogue import CHECKS
from blkmig_cli.checks.compatibility import Version
from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command, one_of
from blkmig_cli.commands.many import captures_of, check_written, many_options, readers_of
from blkmig_cli.errors import UsageError
from blkmig_cli.text import escape, quote


@click.command("validate", cls=Command)
@click.argument("streams", nargs=-1, metavar="STREAM...")
@many_options
@options.stream_options
@click.option("--image", "images", multiple=True, metavar="[DEVICE=]IMAGE",
              help="Compare the stream's disk with an image.")  # fmt: skip
@options.format_option
@click.option("--manifest", metavar="FILE",
              help="Compare disks and bitmaps with a manifest of send.")  # fmt: skip
@click.option("--incremental", is_flag=True, help="Missing chunks are intentional (shared base).")
@options.force_share_option
@options.for_qemu_option
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("--ignore", multiple=True, metavar="ID", help="Ignore a check.",
              shell_complete=one_of({check: text for check, (_, text) in CHECKS.items()}))  # fmt: skip
@click.option("--list-checks", is_flag=True, help="List and explain all checks.")
@click.option("--explain", "explained", multiple=True, metavar="ID",
              help="Explain a check, and what to do about its findings.",
              shell_complete=one_of({check: text for check, (_, text) in CHECKS.items()}))  # fmt: skip
@options.output_option("human", "json", "junit", "sarif", "github")
@click.option("--summary", is_flag=True, help="Print only the summary, not the reports.")
@click.option("--catalogue", metavar="FILE",
              help="Keep what is found in a database; do not read unchanged files again.")  # fmt: skip
@click.option("--junit", metavar="FILE", help="Write JUnit XML to a file as well.")
@click.option("--sarif", metavar="FILE", help="Write SARIF to a file as well.")
@options.quiet_option
@options.verbose_option
def command(
    streams: tuple[str, ...],
    files_from: str | None,
    null: bool,
    jobs: int | None,
    cluster: str | None,
    dialect: str,
    container: str,
    granularities: tuple[str, ...],
    device_sizes: tuple[str, ...],
    images: tuple[str, ...],
    formats: tuple[str, ...],
    manifest: str | None,
    incremental: bool,
    force_share: bool,
    for_qemu: Version | None,
    strict: bool,
    ignore: tuple[str, ...],
    list_checks: bool,
    explained: tuple[str, ...],
    output: str,
    summary: bool,
    catalogue: str | None,
    junit: str | None,
    sarif: str | None,
    quiet: bool,
    verbose: bool,
) -> int:
    """Check whether streams are valid and complete.

    A stream is complete if every chunk of every disk was sent, and every bitmap ended.
    The disk's size is not in the stream: where progress records do not determine
    it, specify it with --device-size or --image.

    A STREAM may also be a directory or a glob, in which other files are passed over.

    \b
    Examples:
      blkmig validate stream.bin
      blkmig validate stream.bin --device-size drive0=20G
      blkmig validate stream.bin --image drive0=disk.img
      blkmig validate stream.bin --manifest stream.json
      blkmig validate stream.bin --for-qemu 7.2
      blkmig validate --explain missing-chunks
      blkmig validate captures/ --jobs 4 --summary
      find captures -name '*.bin' -print0 | blkmig validate --files-from - -0
      blkmig validate captures/ --catalogue captures.db --summary
      blkmig validate captures/*.bin --strict --output github --junit captures.xml
    """
    if list_checks or explained:
        from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)
    if list_checks:
        from blkmig_cli.output.human.checks import checks_text  # noqa: PLC0415

        checks_text(console())
        return 0
    for option, checks in (("--ignore", ignore), ("--explain", explained)):
        for check in checks:
            _check_known(option, check)
    if explained:
        from blkmig_cli.output.human.checks import explanations_text  # noqa: PLC0415

        explanations_text(explained, console())
        return 0
    if summary and output != "human":
        raise UsageError(f"--summary and --output {output} are mutually exclusive")
    hints = options.hints_of(granularities, device_sizes)
    compared = options.device_values("--image", images)
    captures = captures_of(streams, files_from, null=null)
    if catalogue is not None and (compared or manifest is not None):
        raise UsageError("--catalogue cannot be combined with --image and --manifest")
    if cluster is not None and compared:
        raise UsageError("--cluster and --image are mutually exclusive")
    check_written(captures, {"--junit": junit, "--sarif": sarif, "--catalogue": catalogue})
    # The workers load it at the same time.
    readers = readers_of(captures, jobs, cluster, "blkmig_cli.commands.validation")

    from blkmig_cli.checks.manifest import read_manifest  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.commands.reading import reading_of  # noqa: PLC0415
    from blkmig_cli.commands.validation import Outputs, validate_captures  # noqa: PLC0415
    from blkmig_cli.operations.validate import ValidateOptions  # noqa: PLC0415

    chosen = ValidateOptions(
        compared,
        options.formats_of(formats),
        shared=force_share,
        incremental=incremental,
        for_qemu=for_qemu,
        manifest=None if manifest is None else read_manifest(manifest),
    )
    return validate_captures(
        captures,
        reading_of(hints, dialect, container, quiet=quiet, verbose=verbose),
        chosen,
        readers,
        Outputs(output, summary, junit, sarif, strict, frozenset(ignore), quiet, verbose),
        catalogue,
    )


def _check_known(option: str, check: str) -> None:
    """Raise UsageError where ``check``, in ``option``, is no id of a check."""
    if check not in CHECKS:
        close = " or ".join(map(quote, get_close_matches(check, CHECKS)))
        hint = f"did you mean {close}?" if close else "see --list-checks"
        raise UsageError(f"{option} {escape(check)}: no such check", hint=hint)
