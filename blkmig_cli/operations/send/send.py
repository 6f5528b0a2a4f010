"""Sending disk images and their bitmaps as a stream; everything is checked before the first byte."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial

from blkmig_cli.checks.compatibility import Version, answers
from blkmig_cli.checks.manifest import Manifest, check_work, manifest_of, write_manifest
from blkmig_cli.checks.names import find_device
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.formats import RAW
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.open import open_image
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.send.bitmaps import Files, attach_bitmaps
from blkmig_cli.operations.send.identity import RANDOM, SendIdentity, base_id, identity_of
from blkmig_cli.operations.send.requirements import (
    check_bitmaps_fit,
    check_disks,
    check_images,
    warnings_for,
)
from blkmig_cli.operations.send.stream import SendOptions, send_pieces
from blkmig_cli.operations.send.writing import write_disks
from blkmig_cli.progress import Progress, ignore, no_progress
from blkmig_cli.system.address import parse_target
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import escape, quote
from blkmig_cli.transport.target import open_target


@dataclass(frozen=True, slots=True)
class SendBitmaps:
    """The bitmaps to send: those of ``names`` (empty: all), as ``[DEVICE:]NAME``.

    They are read from ``files`` by device (None: the only one), else from IMAGE.bitmaps.json.
    """

    names: tuple[str, ...] = ()
    files: Files = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SendResult:
    """The result: bytes ``written``, the warnings given before, and the manifest, if any."""

    written: int
    warnings: tuple[str, ...]
    manifest: Manifest | None = None


def send(
    images: Mapping[str, str],
    target: str | None = None,
    options: SendOptions | None = None,
    *,
    bitmaps: SendBitmaps | None = None,
    identity: SendIdentity | None = RANDOM,
    manifest: str | None = None,
    formats: Mapping[str | None, str] | None = None,
    shared: bool = False,
    for_qemu: Version | None = None,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = ignore,
) -> SendResult:
    """Send the ``images``, paths or NBD URIs by device, to ``target`` (TARGET; None: stdout).

    ``bitmaps``: None for none.  ``identity``: how the stream is identified; None: not at all.
    ``manifest``: the file for the digests of what was sent.
    ``formats``: those of the images by device, None for all others (-f); ``shared``: as -U.
    ``for_qemu``: request a confirmation from a QEMU of this version at the other end of a socket, and
    warn of what it cannot load; ``warn`` is called with each warning before the first byte is written.

    Raises UsageError for options that contradict each other, or a missing bitmap;
    FailureError where an image, a bitmap or the target fails or does not fit.
    """
    chosen = options or SendOptions()
    if chosen.container == "qemu" and for_qemu is not None and parse_target(target).is_socket:
        chosen = replace(chosen, return_path=answers(for_qemu))
    files = {} if bitmaps is None else bitmaps.files
    if bitmaps is not None:
        check_bitmaps_fit(chosen.dialect, chosen.container, "use --dialect v1 or v2")
    if manifest is not None and shared:
        raise UsageError("--manifest and -U: the image may change after it was sent")
    for device in formats or ():
        if device is not None:
            find_device("-f", device, images)
    uses = FileUses()
    for device, path in images.items():
        uses.add(f"the image of {quote(device)}", path, writes=False)
    if manifest is not None:
        uses.add("the manifest", manifest, writes=True)
    identity = _resolved(identity, chosen, uses)
    with ExitStack() as stack:
        disks, opened = [], dict[str, Image]()
        stated = formats or {}
        for device, path in images.items():
            image = open_image(
                path,
                image_format=stated.get(device, stated.get(None)),
                shared=shared,
                own_layer=chosen.skip_unallocated,
                bitmaps=bitmaps is not None,
                register=partial(_register, uses, device),
            )
            opened[device] = stack.enter_context(closing(image))
            disks.append(Disk(device, image))
        check_images(
            disks, {device for device in images if stated.get(device, stated.get(None)) == RAW}
        )
        if bitmaps is not None:
            for path in attach_bitmaps(disks, opened, files, bitmaps.names):
                uses.add("the bitmaps file", path, writes=False)
        check_disks(disks, chosen)
        if identity is not None:
            _check_backing(identity, opened)
            chosen = replace(chosen, identity=identity_of(disks, chosen, identity))
        content = chosen.disks and not chosen.skip_unallocated
        if manifest is not None:
            check_work(disks, content=content)
        warnings = tuple(warnings_for(disks, chosen, for_qemu))
        total = sum(disk.size for disk in disks)
        with (
            open_target(target, uses, confirmed=chosen.return_path) as sink,
            progress("sending", total) as tick,
        ):
            for warning in warnings:
                warn(warning)
            write_disks(send_pieces(disks, chosen), disks, sink, tick)
        made = None
        if manifest is not None:
            with progress("hashing", total) as tick:
                made = manifest_of(disks, tick, content=content, flags=chosen.dialect != "v1")
            made.identity = chosen.identity
            write_manifest(manifest, made)
    return SendResult(sink.written, warnings, made)


def _resolved(
    identity: SendIdentity | None, options: SendOptions, uses: FileUses
) -> SendIdentity | None:
    """Return ``identity`` with the id of its base; raises UsageError, and as :func:`base_id`."""
    if identity is None or identity.base is None:
        return identity
    if not options.skip_unallocated:
        raise UsageError("--base is for a stream of changes", hint="see --skip-unallocated")
    return replace(identity, base=base_id(identity.base, uses))


def _check_backing(identity: SendIdentity, images: Mapping[str, Image]) -> None:
    """Raise FailureError where there is a base, and unallocated ranges of an image are not its own."""
    for image in images.values():
        if identity.base is not None and not image.has_backing:
            raise FailureError(
                f"{escape(image.path)} has no backing file, so that it has no changes to a base",
                hint="leave out --base",
            )


def _register(uses: FileUses, device: str, file: str, _: bool) -> None:
    uses.add(f"a layer of the image of {quote(device)}", file, writes=False)
