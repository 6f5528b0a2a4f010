"""``blkmig validate``: checks whether streams are valid and complete."""

from difflib import get_close_matches
from functools import partial

import click

from blkmig_cli.checks.catalogue import CHECKS
from blkmig_cli.checks.compatibility import Version
from blkmig_cli.checks.manifest import Manifest, read_manifest
from blkmig_cli.checks.names import Names
from blkmig_cli.checks.report import Report
from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command, one_of
from blkmig_cli.errors import BlkmigError, UsageError
from blkmig_cli.operations.reading import each_report
from blkmig_cli.operations.validate import (
    ValidateOptions,
    failed_report,
    validate_stream,
    worst_status,
)
from blkmig_cli.output.documents import report_json
from blkmig_cli.output.progress import progress
from blkmig_cli.text import escape, quote
from blkmig_cli.transport.source import Stream, open_stream


@click.command("validate", cls=Command)
@click.argument("streams", nargs=-1, metavar="STREAM...")
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
@options.output_option("human", "json", "junit", "sarif")
@options.quiet_option
@options.verbose_option
def command(
    streams: tuple[str, ...],
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
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Check whether streams are valid and complete.

    A stream is complete if every chunk of every disk was sent, and every bitmap ended.
    The disk's size is not in the stream: where progress records do not determine
    it, specify it with --device-size or --image.

    \b
    Examples:
      blkmig validate stream.bin
      blkmig validate stream.bin --device-size drive0=20G
      blkmig validate stream.bin --image drive0=disk.img
      blkmig validate stream.bin --manifest stream.json
      blkmig validate stream.bin --for-qemu 7.2
      blkmig validate captures/* --strict --output junit > captures.xml
    """
    from blkmig_cli.output.human import report as shown  # noqa: PLC0415 (rich is slow to load)
    from blkmig_cli.output.human.console import console  # noqa: PLC0415

    out = console()
    if list_checks:
        shown.checks_text(out)
        return 0
    if not streams:
        raise UsageError("no STREAM is specified")
    for check in ignore:
        if check not in CHECKS:
            close = " or ".join(map(quote, get_close_matches(check, CHECKS)))
            hint = f"did you mean {close}?" if close else "see --list-checks"
            raise UsageError(f"--ignore {escape(check)}: no such check", hint=hint)
    hints = options.hints_of(granularities, device_sizes)
    wanted = None if manifest is None else read_manifest(manifest)
    chosen = ValidateOptions(
        options.device_values("--image", images),
        options.formats_of(formats),
        shared=force_share,
        incremental=incremental,
        for_qemu=for_qemu,
        manifest=wanted,
    )
    make = options.decoder_factory(dialect, container, 1)
    reports: list[Report] = []
    for number, name in enumerate(streams, 1):
        which = f" {number} of {len(streams)}" if len(streams) > 1 else ""
        found: list[Report] = []
        try:
            with (
                open_stream(name, options.saying(quiet), again=chosen.reads_data) as stream,
                progress(f"validating{which}", _total(stream, wanted), quiet=quiet) as tick,
            ):
                options.log(verbose, str(stream))
                judge = partial(
                    validate_stream, hints=hints, make_decoder=make, tick=tick, options=chosen
                )
                for report in each_report(stream, judge):
                    found.append(report)  # noqa: PERF402 (kept where the next one fails)
        except BlkmigError as error:
            if isinstance(error, UsageError) or (output == "human" and len(streams) == 1):
                raise
            found.append(failed_report(name, error))
        found = [report.ignoring(ignore) for report in found]
        for report in found:
            if output == "human":
                shown.report_text(report, out)
                if len(streams) > 1 or len(found) > 1:
                    out.print()
        reports += found
    names = Names.of(*reports)
    names.check_hints(hints)
    names.check_devices("-f", chosen.formats)
    if output != "human":
        _write_document(output, reports, strict=strict)
    elif len(reports) > 1:
        shown.summary(reports, out)
    for report in reports:
        if report.failure is not None:
            name, failure = escape(report.stream), str(report.failure)
            named = failure if failure.startswith(name) else f"{name}: {failure}"
            options.echo_line(named)
    return worst_status(reports, strict=strict)


def _write_document(output: str, reports: list[Report], *, strict: bool) -> None:
    if output == "junit":
        from blkmig_cli.output.junit import junit  # noqa: PLC0415 (as the next: only where it is asked for)

        click.echo(junit(reports, strict=strict))
    elif output == "sarif":
        from blkmig_cli.output.sarif import sarif  # noqa: PLC0415

        click.echo(sarif(reports))
    else:
        streams = [report_json(report) for report in reports]
        options.echo_json({"version": 1, "streams": streams})


def _total(stream: Stream, manifest: Manifest | None) -> int | None:
    """Return the bytes to read: the stream's records, and the disks to be hashed; None if unknown."""
    if stream.input.size is None or manifest is None:
        return stream.input.size
    return stream.input.size + manifest.to_read
