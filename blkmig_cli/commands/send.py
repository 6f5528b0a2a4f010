"""``blkmig send``: disk images to a stream."""

from contextlib import ExitStack, closing

import click

from blkmig_cli.checks.compatibility import Version, answers
from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.commands.sending import warn, write
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.raw import open_raw
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.send.requirements import check_disks
from blkmig_cli.operations.send.stream import SendOptions, send_events
from blkmig_cli.output.progress import progress
from blkmig_cli.system.address import parse_target
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import count, escape, quote
from blkmig_cli.transport.target import open_target


@click.command("send", cls=Command)
@click.argument("images", nargs=-1, required=True, metavar="[DEVICE=]IMAGE...")
@options.target_option
@click.option("-f", "image_format", type=click.Choice(["raw"]), help="Format of the images.")
@click.option("--dialect", type=click.Choice(["qemu", "classic", "v1", "v2"]), default="qemu",
              show_default=True, help="Dialect to send.")  # fmt: skip
@click.option("--container", type=click.Choice(["qemu", "none"]), default="qemu",
              show_default=True, help="What holds the block records.")  # fmt: skip
@click.option("--machine", default="none", show_default=True, help="Machine type to state.")
@click.option("--bitmaps", "all_bitmaps", is_flag=True, help="Send all bitmaps of the images.")
@click.option("--bitmap", "names", multiple=True, metavar="NAME", help="Send this bitmap.")
@click.option("--bitmaps-from", multiple=True, metavar="[DEVICE=]FILE",
              help="Take bitmaps from FILE, not IMAGE.bitmaps.json.")  # fmt: skip
@click.option("--bitmaps-only", is_flag=True, help="Send bitmaps, no disk content.")
@click.option("--no-zero-blocks", is_flag=True, help="Send zeros as data.")
@click.option("--skip-unallocated", is_flag=True,
              help="Leave out holes: the destination has the same base.")  # fmt: skip
@click.option("--manifest", metavar="FILE",
              help="Write SHA-256 digests of the disks and bitmaps to FILE, when all is sent.")  # fmt: skip
@options.force_share_option
@options.for_qemu_option
@options.quiet_option
@options.verbose_option
def command(
    images: tuple[str, ...],
    target: str | None,
    image_format: str | None,
    dialect: str,
    container: str,
    machine: str,
    all_bitmaps: bool,
    names: tuple[str, ...],
    bitmaps_from: tuple[str, ...],
    bitmaps_only: bool,
    no_zero_blocks: bool,
    skip_unallocated: bool,
    manifest: str | None,
    force_share: bool,
    for_qemu: Version | None,
    quiet: bool,
    verbose: bool,
) -> int:
    """Make a stream of disk images and their bitmaps.

    Without DEVICE, images are drive0, drive1, ... in order.  The default is what
    a real QEMU loads (2.12 to 9.0; later ones only with --bitmaps-only).

    \b
    Examples:
      blkmig send disk.img --bitmaps --to stream.bin
      blkmig send drive0=a.img drive1=b.img | blkmig validate -
      blkmig send disk.img --for-qemu 7.2 --machine pc --to unix:/run/in.sock
      blkmig send disk.img --dialect v2 --bitmap daily --bitmaps-only --to x.zst
      blkmig send disk.img --bitmaps --to stream.bin --manifest stream.json
    """
    files = options.device_values("--bitmaps-from", bitmaps_from)
    with_bitmaps = bool(all_bitmaps or names or files or bitmaps_only)
    if with_bitmaps and (dialect == "classic" or (dialect == "qemu" and container == "none")):
        what = "dialect classic" if dialect == "classic" else "dialect qemu in --container none"
        raise UsageError(f"{what} has no place for bitmaps", hint="say --dialect v1 or v2")
    paths = _named(images)
    if manifest is not None and force_share:
        raise UsageError("--manifest cannot tell what an image held that others write (-U)")
    uses = FileUses()
    for device, path in paths.items():
        uses.add(f"the image of {quote(device)}", path, writes=False)
    for path in files.values():
        uses.add("the bitmaps file", path, writes=False)
    if manifest is not None:
        uses.add("the manifest", manifest, writes=True)
    with ExitStack() as stack:
        disks = []
        for device, path in paths.items():
            image = stack.enter_context(
                closing(
                    open_raw(path, writable=False, force=image_format == "raw", shared=force_share)
                )
            )
            disks.append(Disk(device, image))
        if with_bitmaps:
            from blkmig_cli.operations.send.bitmaps import attach_bitmaps  # noqa: PLC0415 (numpy is slow to load)

            for path in attach_bitmaps(disks, paths, files, names):
                uses.add("the bitmaps file", path, writes=False)
        # A QEMU at the other end of a socket can be asked for its word.
        confirmed = for_qemu is not None and answers(for_qemu) and parse_target(target).is_socket
        chosen = SendOptions(
            dialect,
            container,
            machine,
            zero_blocks=not no_zero_blocks,
            disks=not bitmaps_only,
            skip_unallocated=skip_unallocated,
            return_path=confirmed and container == "qemu",
        )
        check_disks(disks, chosen)
        total = sum(disk.size for disk in disks)
        with open_target(target, uses, confirmed=chosen.return_path) as sink:
            if not quiet:
                warn(disks, chosen, for_qemu)
            with progress("sending", total, quiet=quiet) as tick:
                write(send_events(disks, chosen), disks, sink, tick)
        options.log(verbose, f"{count(sink.written, 'byte')} written")
        if manifest is not None:
            from blkmig_cli.checks.manifest import manifest_of, write_manifest  # noqa: PLC0415 (numpy)

            with progress("hashing", total, quiet=quiet) as tick:
                made = manifest_of(
                    disks,
                    tick,
                    content=chosen.disks and not chosen.skip_unallocated,
                    flags=chosen.dialect != "v1",
                )
            write_manifest(manifest, made)
    return 0


def _named(images: tuple[str, ...]) -> dict[str, str]:
    paths: dict[str, str] = {}
    for number, text in enumerate(images):
        device, path = options.split_device(text)
        name = f"drive{number}" if device is None else device
        if name in paths:
            raise UsageError(f"device {quote(name)} is named twice")
        if not path:
            raise UsageError(f"{escape(text)}: no image is named")
        paths[name] = path
    return paths
