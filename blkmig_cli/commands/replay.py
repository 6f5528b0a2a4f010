"""``blkmig replay``: a stream onto disk images."""

import json
from contextlib import closing

import click

from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.checks.manifest import read_manifest
from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.replay.replay import Replay, ReplayOptions, ReplayResult
from blkmig_cli.operations.replay.target import Opening
from blkmig_cli.operations.replay.targets import Targets
from blkmig_cli.output.documents import replay_json
from blkmig_cli.output.progress import progress
from blkmig_cli.text import escape, quote
from blkmig_cli.transport.source import open_stream


@click.command("replay", cls=Command)
@click.argument("stream", metavar="STREAM")
@click.option("--image", "images", multiple=True, metavar="[DEVICE=]IMAGE",
              help="Where a device's disk goes; repeatable.")  # fmt: skip
@click.option("-f", "image_format", type=click.Choice(["raw"]), help="Format of the images.")
@click.option("--create", is_flag=True, help="Make images that are missing.")
@options.stream_options
@options.number_option
@click.option("--bitmaps-to", multiple=True, metavar="[DEVICE=]FILE",
              help="Where bitmaps go, instead of IMAGE.bitmaps.json.")  # fmt: skip
@click.option("--no-bitmaps", is_flag=True, help="Leave the bitmaps out.")
@click.option("--bitmaps-only", is_flag=True, help="Leave the disks out.")
@click.option("--incremental", is_flag=True, help="Missing chunks are meant (shared base).")
@click.option("--allow-incomplete", is_flag=True, help="Missing chunks are no error.")
@click.option("--dry-run", is_flag=True, help="Do all but write.")
@click.option("--resume", is_flag=True, help="Go on with a replay that broke off.")
@click.option("--restart", is_flag=True, help="Start afresh a replay that broke off.")
@click.option("--verify", is_flag=True, help="Read back what was written, and compare.")
@click.option("--manifest", metavar="FILE",
              help="Hold disks and bitmaps against what send --manifest wrote.")  # fmt: skip
@click.option("--force", is_flag=True, help="Write a block device even while it is mounted.")
@options.output_option("human", "json")
@options.quiet_option
@options.verbose_option
def command(
    stream: str,
    images: tuple[str, ...],
    image_format: str | None,
    create: bool,
    dialect: str,
    container: str,
    granularities: tuple[str, ...],
    device_sizes: tuple[str, ...],
    number: int | None,
    bitmaps_to: tuple[str, ...],
    no_bitmaps: bool,
    bitmaps_only: bool,
    incremental: bool,
    allow_incomplete: bool,
    dry_run: bool,
    resume: bool,
    restart: bool,
    verify: bool,
    manifest: str | None,
    force: bool,
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Apply a stream to disk images.

    Zero chunks become holes; nothing is written past a disk's end.  Bitmaps go to
    IMAGE.bitmaps.json.  A stream in a file is checked to its end before the first
    byte is written.  A new image is IMAGE.partial until all of it is there.
    IMAGE.replay.json says how far a replay has come; one that broke off, for
    whatever reason, goes on with --resume.

    \b
    Examples:
      blkmig replay stream.bin --image disk.img --create
      blkmig replay stream.bin --image drive0=a.img --image drive1=b.img
      blkmig replay stream.bin --image disk.img --create --resume
      zcat stream.gz | blkmig replay - --image disk.img --create --device-size 20G
    """
    from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)
    from blkmig_cli.output.human.report import replay_text  # noqa: PLC0415

    if no_bitmaps and bitmaps_only:
        raise UsageError("--no-bitmaps and --bitmaps-only leave nothing to do")
    if resume and restart:
        raise UsageError("--resume goes on, --restart starts afresh; say which")
    if (resume or restart) and (dry_run or bitmaps_only):
        raise UsageError("--resume and --restart are of writing disks")
    if manifest is not None and dry_run:
        raise UsageError("--manifest is held against what was written", hint="see blkmig validate")
    wanted = None if manifest is None else read_manifest(manifest)
    hints = options.hints_of(granularities, device_sizes)
    if wanted is not None:
        hints = wanted.completing(hints)
    targets = Targets(
        options.device_values("--image", images),
        options.device_values("--bitmaps-to", bitmaps_to),
        hints,
    )
    chosen = ReplayOptions(
        disks=not bitmaps_only,
        bitmaps=not no_bitmaps,
        incremental=incremental,
        allow_incomplete=allow_incomplete,
        dry_run=dry_run or not targets.any,
        verify=verify,
        manifest=wanted,
    )
    with closing(targets), open_stream(stream, options.saying(quiet)) as opened:
        targets.open(
            Opening(
                create=create or dry_run,
                writable=not dry_run,
                force=image_format == "raw",
                claimed=force,
                disks=not bitmaps_only,
                resume=resume,
                restart=restart,
            )
        )
        known = targets.hints(hints)
        for device, size in known.sizes.items():
            options.log(verbose, f"{escape(device or 'the device')}: {size} bytes")
        make = options.decoder_factory(dialect, container, number)
        with progress("replaying", opened.input.size, quiet=quiet) as tick:
            result = Replay(opened, targets, chosen, hints, make).run(tick)
    if not targets.any and not dry_run:
        names = ", ".join(quote(device.disk.name) for device in result.report.devices)
        raise UsageError(
            f"no --image: the stream has the devices {names or 'none'}",
            hint="say --image DEVICE=IMAGE for each, or --dry-run",
        )
    _weigh(result, chosen)
    if output == "json":
        click.echo(json.dumps(replay_json(result), indent=1))
    else:
        replay_text(result, console(), dry=dry_run)
    if not quiet:
        for warning in result.warnings:
            click.echo(f"blkmig: warning: {warning}", err=True)
    if result.report.failure is not None:
        click.echo(f"blkmig: {escape(stream)}: {result.report.failure}", err=True)
    return result.report.exit_status()


def _weigh(result: ReplayResult, chosen: ReplayOptions) -> None:
    """What counts differently when a stream is applied: an open bitmap could not be had."""
    weighed = []
    for found in result.report.findings:
        severity = found.severity
        forgiven = {
            "missing-chunks": chosen.allow_incomplete or not chosen.disks,
            "bulk-unfinished": chosen.allow_incomplete or not chosen.disks,
            "bitmap-incomplete": not chosen.bitmaps,
        }
        if found.id == "bitmap-open" and chosen.bitmaps:
            severity = "error"
        elif forgiven.get(found.id):
            severity = "warning"
        weighed.append(Finding(found.id, severity, found.message, found.offset, found.device))
    result.report.findings = weighed
