"""``blkmig replay``: applies a stream to disk images."""

from contextlib import ExitStack
from functools import partial

import click

from blkmig_cli.checks.manifest import read_manifest
from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.replay.received import resume_token
from blkmig_cli.operations.replay.replay import replay
from blkmig_cli.operations.replay.request import Dialect, ReplayRequest
from blkmig_cli.output.documents import replay_json
from blkmig_cli.output.progress import progress
from blkmig_cli.text import escape
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.decoder import Container


@click.command("replay", cls=Command)
@click.argument("stream", metavar="STREAM", required=False)
@click.option("--image", "images", multiple=True, metavar="[DEVICE=]IMAGE",
              help="The image of a device; repeatable.  With --create or --overwrite, "
              "{device} in it is replaced by the name of each device.")  # fmt: skip
@click.option("--device", "devices", multiple=True, metavar="NAME",
              help="Apply only this device; repeatable.")  # fmt: skip
@options.format_option
@click.option("-o", "format_options", multiple=True, metavar="OPTIONS",
              help="Options of new images of another format than raw, as for qemu-img create.")  # fmt: skip
@click.option("--create", is_flag=True, help="Create the images; they must not exist.")
@click.option("--overwrite", is_flag=True,
              help="Create the images; each replaces an existing one when it is complete.")  # fmt: skip
@options.stream_options
@options.number_option
@click.option("--bitmaps-to", multiple=True, metavar="[DEVICE=]FILE",
              help="Write bitmaps to FILE instead of into or beside the image.")  # fmt: skip
@click.option("--no-bitmaps", is_flag=True, help="Do not write bitmaps.")
@click.option("--bitmaps-only", is_flag=True, help="Do not write disks.")
@click.option("--incremental", is_flag=True, help="Missing chunks are intentional (shared base).")
@click.option("--allow-incomplete", is_flag=True,
              help="Apply the intact part of an incomplete or damaged stream.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
@click.option("--resume", is_flag=True, help="Continue a replay that was interrupted.")
@click.option("--print-token", is_flag=True,
              help="Print what the images have received, for send --from-token; no STREAM.")  # fmt: skip
@click.option("--restart", is_flag=True, help="Start over a replay that was interrupted.")
@click.option("--verify", is_flag=True, help="Read back what was written, and compare.")
@click.option("--manifest", metavar="FILE",
              help="Compare disks and bitmaps with a manifest of send.")  # fmt: skip
@click.option("--verify-base", metavar="MANIFEST",
              help="Compare the images with the manifest of an increment's base first.")  # fmt: skip
@click.option("--no-base-check", is_flag=True,
              help="Do not check that the images hold the base of an increment.")  # fmt: skip
@click.option("--force", is_flag=True, help="Write a block device even if it is mounted.")
@options.output_option("human", "json")
@options.quiet_option
@options.verbose_option
def command(
    stream: str | None,
    images: tuple[str, ...],
    devices: tuple[str, ...],
    formats: tuple[str, ...],
    format_options: tuple[str, ...],
    create: bool,
    overwrite: bool,
    dialect: Dialect,
    container: Container,
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
    print_token: bool,
    restart: bool,
    verify: bool,
    manifest: str | None,
    verify_base: str | None,
    no_base_check: bool,
    force: bool,
    output: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Apply a stream to disk images.

    Existing images are written in place; --create makes new ones, and --overwrite
    replaces existing ones.  A stream in a file is checked to its end before anything
    is written, and nothing is written if it has errors; missing chunks are accepted
    with --incremental or --allow-incomplete.  A new image is IMAGE.partial until it is
    complete.  Zero chunks become holes.

    An image is a file in any format that QEMU knows, a block device, or an NBD URI.
    Bitmaps are written into qcow2 images, and for other files to IMAGE.bitmaps.json.

    IMAGE.replay.json records the progress of a replay.  An interrupted replay is
    continued with --resume.  Where the stream ended but was incomplete or damaged, the
    image is accepted as it is by --resume --allow-incomplete without STREAM.

    A transfer from another host is continued without sending again what has arrived:
    --print-token prints a token, and with --resume the stream of send --from-token is
    applied.

    IMAGE.blkmig.json records which stream an image holds.  An increment is applied only
    to images that hold its base and were not written since.

    \b
    Examples:
      blkmig replay stream.bin --image disk.img --create
      blkmig replay stream.bin --image drive0=a.img --image drive1=/dev/vg/b
      blkmig replay stream.bin --image '{device}.qcow2' --create
      blkmig replay stream.bin --image disk.img --create --resume
      blkmig replay --print-token --image disk.img
      zcat stream.gz | blkmig replay - --image disk.img --create --device-size 20G
    """
    from blkmig_cli.output.human.console import console  # noqa: PLC0415 (rich is slow to load)
    from blkmig_cli.output.human.report import replay_text  # noqa: PLC0415

    request = ReplayRequest(
        images=options.device_values("--image", images),
        bitmap_files=options.device_values("--bitmaps-to", bitmaps_to),
        devices=frozenset(devices) if devices else None,
        create=create,
        overwrite=overwrite,
        formats=options.formats_of(formats),
        format_options=format_options,
        mounted=force,
        disks=not bitmaps_only,
        bitmaps=not no_bitmaps,
        incremental=incremental,
        allow_incomplete=allow_incomplete,
        dry_run=dry_run,
        resume=resume,
        restart=restart,
        verify=verify,
        manifest=None if manifest is None else read_manifest(manifest),
        verify_base=None if verify_base is None else read_manifest(verify_base),
        base_check=not no_base_check,
        hints=options.hints_of(granularities, device_sizes),
        number=number,
        dialect=dialect,
        container=container,
    )
    if print_token:
        if stream is not None:
            raise UsageError("--print-token takes no STREAM")
        click.echo(resume_token(request, partial(progress, quiet=quiet)))
        return 0
    request.check(with_stream=stream is not None)
    with ExitStack() as stack:
        opened = None
        if stream is not None:
            opened = stack.enter_context(open_stream(stream, options.saying(quiet)))
            options.log(verbose, str(opened))
        size = None if opened is None else opened.input.size
        tick = stack.enter_context(progress("replaying", size, quiet=quiet))
        result = replay(opened, request, tick)
    if output == "json":
        options.echo_json(replay_json(result))
    else:
        replay_text(result, console(), dry=dry_run, verified=verify and not dry_run, brief=quiet)
    for warning in result.warnings:
        options.warn(warning)
    if result.problem is not None and not (dry_run and result.report.failure is None):
        options.echo_line(f"{escape(stream or '-')}: {result.problem}")
    return result.exit_status
