"""``blkmig send``: writes disk images as a stream."""

from functools import partial

import click

from blkmig_cli.checks.compatibility import Version
from blkmig_cli.commands import options
from blkmig_cli.commands.help import Command
from blkmig_cli.errors import UsageError
from blkmig_cli.output.progress import progress
from blkmig_cli.text import count, escape, human_size, quote


@click.command("send", cls=Command)
@click.argument("images", nargs=-1, required=True, metavar="[DEVICE=]IMAGE...")
@options.target_option
@options.format_option
@options.stream_form_options
@click.option("--bitmaps", "all_bitmaps", is_flag=True, help="Send all bitmaps of the images.")
@click.option("--bitmap", "names", multiple=True, metavar="[DEVICE:]NAME",
              help="Send this bitmap; repeatable.")  # fmt: skip
@click.option("--bitmaps-from", multiple=True, metavar="[DEVICE=]FILE",
              help="Read bitmaps from FILE (IMAGE.bitmaps.json, or of nbdinfo --map --json) "
              "instead of from the image.")  # fmt: skip
@click.option("--bitmaps-only", is_flag=True, help="Send bitmaps without disk content.")
@click.option("--no-zero-blocks", is_flag=True, help="Send zeros as data.")
@click.option("--skip-unallocated", is_flag=True,
              help="Omit holes and backing files: the destination has the same base.")  # fmt: skip
@click.option("--manifest", metavar="FILE",
              help="Write SHA-256 digests of the disks and bitmaps to FILE at the end.")  # fmt: skip
@options.increment_options
@click.option(
    "--id", "own_id", metavar="UUID", help="The id of the stream (default: a random one)."
)
@click.option("--no-identity", is_flag=True, help="Do not state an id in the stream.")
@click.option("--from-token", "token_text", metavar="TOKEN",
              help="Send only what an interrupted replay has not received "
              "(see replay --print-token).")  # fmt: skip
@click.option("--estimate", is_flag=True,
              help="Print how many bytes the stream has at most; write nothing.")  # fmt: skip
@options.force_share_option
@options.for_qemu_option
@options.quiet_option
@options.verbose_option
def command(
    images: tuple[str, ...],
    target: str | None,
    formats: tuple[str, ...],
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
    since: tuple[str, ...],
    otherwise: str | None,
    mark: str | None,
    drop: tuple[str, ...],
    base: str | None,
    own_id: str | None,
    no_identity: bool,
    token_text: str | None,
    estimate: bool,
    force_share: bool,
    for_qemu: Version | None,
    quiet: bool,
    verbose: bool,
) -> int:
    """Make a stream of disk images and their bitmaps.

    An image is a file in any format that QEMU knows, a block device, or an NBD URI.
    Without DEVICE, images are drive0, drive1, ... in order.  By default the stream is
    one that QEMU 2.12 to 9.0 loads; later versions load bitmaps only (--bitmaps-only).

    \b
    Examples:
      blkmig send disk.img --bitmaps --to stream.bin
      blkmig send drive0=a.img drive1=b.qcow2 | blkmig validate -
      blkmig send nbd://localhost/vda --bitmaps --to stream.bin
      blkmig send disk.img --for-qemu 7.2 --machine pc --to unix:/run/in.sock
      blkmig send disk.img --dialect v2 --bitmap daily --bitmaps-only --to x.zst
      blkmig send disk.img --bitmaps --to stream.bin --manifest stream.json
      blkmig send disk.qcow2 --mark b0 --to s0.bin
      blkmig send disk.qcow2 --since b0 --mark b1 --base s0.bin --to s1.bin
      blkmig send disk.qcow2 --since b0 --estimate
      blkmig send disk.img --from-token "$token" --to rest.bin
      blkmig send overlay.qcow2 --skip-unallocated --base s0.bin --to s1.bin
    """
    from blkmig_cli.operations.send.changes import SendChanges  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.operations.send.identity import SendIdentity  # noqa: PLC0415
    from blkmig_cli.operations.send.send import SendBitmaps, send  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.operations.send.stream import SendOptions  # noqa: PLC0415

    if no_identity and (base is not None or own_id is not None):
        raise UsageError("--no-identity excludes --id and --base")
    for option, given in (("--to", target), ("--manifest", manifest)):
        if estimate and given is not None:
            raise UsageError(f"--estimate and {option} exclude each other: nothing is written")
    token = None
    if token_text is not None:
        from blkmig_cli.operations.resume_token import parse_token  # noqa: PLC0415 (not always needed)

        token = parse_token("--from-token", token_text)
    files = options.device_values("--bitmaps-from", bitmaps_from)
    with_bitmaps = bool(all_bitmaps or names or bitmaps_only or (files and not since))
    result = send(
        _named(images),
        target,
        SendOptions(
            dialect,
            container,
            machine,
            zero_blocks=not no_zero_blocks,
            disks=not bitmaps_only,
            skip_unallocated=skip_unallocated,
        ),
        bitmaps=SendBitmaps(names, files) if with_bitmaps else None,
        identity=None if no_identity else SendIdentity(own_id, base),
        changes=SendChanges(options.since_values(since), files, otherwise is not None, mark, drop),
        token=token,
        manifest=manifest,
        formats=options.formats_of(formats),
        shared=force_share,
        for_qemu=for_qemu,
        only_estimate=estimate,
        progress=partial(progress, quiet=quiet),
        warn=options.warn,
    )
    if estimate:
        click.echo(f"at most {count(result.written, 'byte')} ({human_size(result.written)})")
        return 0
    options.log(verbose, f"{count(result.written, 'byte')} written")
    return 0


def _named(images: tuple[str, ...]) -> dict[str, str]:
    paths: dict[str, str] = {}
    for number, text in enumerate(images):
        device, path = options.split_device(text)
        name = f"drive{number}" if device is None else device
        if name in paths:
            raise UsageError(f"device {quote(name)} is specified twice")
        if not path:
            raise UsageError(f"{escape(text)}: no image is specified")
        paths[name] = path
    return paths
