"""``blkmig validate``: is a stream sound, and is it whole?"""

import json

import click

from blkmig_cli.checks import Report
from blkmig_cli.commands import options
from blkmig_cli.errors import BlkmigError, UsageError
from blkmig_cli.findings import CHECKS, finding_of
from blkmig_cli.jsonout import report_json
from blkmig_cli.manifest import Manifest, read_manifest
from blkmig_cli.progress import progress
from blkmig_cli.qemu import Version
from blkmig_cli.text import escape
from blkmig_cli.transport import Stream, open_stream
from blkmig_cli.validation import ImagesToCompare, validate_stream

# The worst of several streams, in this order.
_WORST = (4, 3, 1, 0)


@click.command("validate")
@click.argument("streams", nargs=-1, metavar="STREAM...")
@options.stream_options
@click.option("--image", "images", multiple=True, metavar="[DEVICE=]IMAGE",
              help="Compare the stream's end state with an image.")  # fmt: skip
@click.option("-f", "image_format", type=click.Choice(["raw"]), help="Format of the images.")
@click.option("--manifest", metavar="FILE",
              help="Hold the stream's end state against the digests that send wrote.")  # fmt: skip
@click.option("--incremental", is_flag=True, help="Missing chunks are meant (shared base).")
@options.force_share_option
@options.for_qemu_option
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("--ignore", multiple=True, metavar="ID", help="Leave out a check.")
@click.option("--list-checks", is_flag=True, help="List and explain all checks.")
@options.output_option("human", "json")
@options.quiet_option
@options.verbose_option
def command(
    streams: tuple[str, ...],
    dialect: str,
    container: str,
    granularities: tuple[str, ...],
    device_sizes: tuple[str, ...],
    images: tuple[str, ...],
    image_format: str | None,
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
    """Check whether streams are sound and whole.

    A stream is whole when every chunk of every disk came, and every bitmap ended.
    The disk's size is not in the stream: give it with --device-size or --image
    where progress records leave it open.

    \b
    Examples:
      blkmig validate stream.bin
      blkmig validate stream.bin --device-size drive0=20G
      blkmig validate stream.bin --image drive0=disk.img
      blkmig validate stream.bin --manifest stream.json
      blkmig validate stream.bin --for-qemu 7.2
    """
    from blkmig_cli.render import report as shown  # noqa: PLC0415 (rich is slow to load)
    from blkmig_cli.render.console import console  # noqa: PLC0415

    out = console()
    if list_checks:
        shown.checks_text(out)
        return 0
    if not streams:
        raise UsageError("no STREAM is named")
    unknown = [check for check in ignore if check not in CHECKS]
    if unknown:
        raise UsageError(f"--ignore {escape(unknown[0])}: no such check", hint="see --list-checks")
    hints = options.hints_of(granularities, device_sizes)
    to_compare = ImagesToCompare(
        options.device_values("--image", images),
        force=image_format == "raw",
        shared=force_share,
    )
    wanted = None if manifest is None else read_manifest(manifest)
    make = options.decoder_factory(dialect, container)
    reports: list[Report] = []
    statuses: list[int] = []
    for name in streams:
        try:
            with (
                open_stream(name, options.saying(quiet)) as stream,
                progress("validating", _total(stream, wanted), quiet=quiet) as tick,
            ):
                options.log(verbose, str(stream))
                report = validate_stream(
                    stream,
                    hints,
                    make,
                    tick,
                    to_compare,
                    incremental=incremental,
                    for_qemu=for_qemu,
                    manifest=wanted,
                )
        except BlkmigError as error:
            if len(streams) == 1 or isinstance(error, UsageError):
                raise
            report = Report(name, failure=error)
            report.findings = [finding_of(error)]
        report.findings = [found for found in report.findings if found.id not in ignore]
        if output == "human":
            shown.report_text(report, out)
        reports.append(report)
        statuses.append(report.exit_status(strict=strict))
    if output == "json":
        document = {"version": 1, "streams": [report_json(report) for report in reports]}
        click.echo(json.dumps(document, indent=1))
    elif len(streams) > 1:
        shown.summary(reports, len(streams), out)
    for report in reports:
        if report.failure is not None:
            click.echo(f"blkmig: {escape(report.stream)}: {report.failure}", err=True)
    return next(status for status in _WORST if status in statuses)


def _total(stream: Stream, manifest: Manifest | None) -> int | None:
    """Bytes to go through: the stream's records, and the disks to be hashed."""
    if stream.input.size is None or manifest is None:
        return stream.input.size
    return stream.input.size + manifest.to_read
