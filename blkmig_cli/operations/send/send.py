"""Sending disk images and their bitmaps as a stream; everything is checked before the first byte."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING

from blkmig_cli.checks.compatibility import Version, answers
from blkmig_cli.checks.names import find_device
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.formats import RAW
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.neighbours import exists, neighbours_of
from blkmig_cli.disks.open import open_image
from blkmig_cli.disks.raw import RawImage
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.send.changes import (
    ALL,
    Files,
    SendChanges,
    base_of,
    check_changes,
    check_options,
    find_dirty,
    finish_changes,
    select_changes,
    writes_images,
)
from blkmig_cli.operations.send.estimate import estimate
from blkmig_cli.operations.send.identity import RANDOM, SendIdentity, identity_of
from blkmig_cli.operations.send.requirements import (
    check_bitmaps_fit,
    check_disks,
    check_images,
    warnings_for,
)
from blkmig_cli.operations.send.rest import check_received, check_rest_options, rest_options
from blkmig_cli.operations.send.stream import SendOptions, send_pieces
from blkmig_cli.operations.send.writing import write_disks
from blkmig_cli.progress import Progress, ignore, no_progress
from blkmig_cli.system.address import parse_target
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.system.nbd_uri import is_nbd
from blkmig_cli.text import escape, quote
from blkmig_cli.transport.target import open_target

if TYPE_CHECKING:
    from blkmig_cli.checks.manifest import Manifest
    from blkmig_cli.operations.resume_token import ResumeToken


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
    manifest: "Manifest | None" = None


def send(
    images: Mapping[str, str],
    target: str | None = None,
    options: SendOptions | None = None,
    *,
    bitmaps: SendBitmaps | None = None,
    identity: SendIdentity | None = RANDOM,
    changes: SendChanges = ALL,
    token: "ResumeToken | None" = None,
    manifest: str | None = None,
    formats: Mapping[str | None, str] | None = None,
    shared: bool = False,
    for_qemu: Version | None = None,
    only_estimate: bool = False,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = ignore,
) -> SendResult:
    """Send the ``images``, paths or NBD URIs by device, to ``target`` (TARGET; None: stdout).

    ``bitmaps``: None for none.  ``identity``: how the stream is identified; None: not at all.
    ``changes``: what an increment has.  ``token``: what an interrupted replay has received, which is
    compared and not sent.  ``manifest``: the file for the digests of the disks.
    ``formats``: those of the images by device, None for all others (-f); ``shared``: as -U.
    ``for_qemu``: request a confirmation from a QEMU of this version at the other end of a socket, and
    warn of what it cannot load; ``only_estimate``: check everything and estimate the size, but read no
    data and write nothing; ``warn`` is called with each warning before the first byte is written.

    Raises UsageError for options that contradict each other, or a missing bitmap;
    FailureError where an image, a bitmap or the target fails or does not fit.
    """
    chosen = options or SendOptions()
    if chosen.container == "qemu" and for_qemu is not None and parse_target(target).is_socket:
        chosen = replace(chosen, return_path=answers(for_qemu))
    if bitmaps is not None:
        check_bitmaps_fit(chosen.dialect, chosen.container, "use --dialect v1 or v2")
    if manifest is not None and shared:
        raise UsageError("--manifest and -U: the image may change after it was sent")
    check_options(changes, chosen, target, shared=shared)
    check_rest_options(token, chosen, changes, identity=identity is not None)
    writable = writes_images(changes) and not only_estimate
    uses = FileUses()
    for device, path in images.items():
        uses.add(f"the image of {quote(device)}", path, writes=writable)
    if manifest is not None:
        uses.add("the manifest", manifest, writes=True)
    base = base_of(identity, chosen, changes, uses)
    warnings = [text for path in images.values() for text in _unfinished(path)]
    with ExitStack() as stack:
        opened = _open_images(
            images,
            formats or {},
            uses,
            stack,
            writable=writable,
            shared=shared,
            own_layer=chosen.skip_unallocated,
            bitmaps=bitmaps is not None or bool(changes.since),
        )
        disks = [Disk(device, image) for device, image in opened.items()]
        if bitmaps is not None:
            _add_bitmaps(disks, opened, bitmaps, uses)
        check_changes(changes, opened)
        whole = [replace(disk) for disk in disks]
        selected = select_changes(
            disks,
            opened,
            changes,
            chosen,
            base,
            partial(find_dirty, images=opened, files=changes.files, uses=uses),
            warnings.append,
        )
        chosen = rest_options(token, chosen, disks)
        check_disks(disks, chosen)
        if identity is not None:
            if base is not None and selected is None:
                _check_backing(opened)
            identity = replace(identity, base=None if base is None else base.id)
            stated = identity_of(disks, chosen, identity, selected, changes.mark)
            chosen = replace(chosen, identity=stated)
        content = chosen.disks and not chosen.skip_unallocated
        if manifest is not None:
            _check_work(whole, content=content)
        elif selected is not None and (identity is None or chosen.container == "none"):
            warnings.append(
                "nothing in the stream states that it is an increment; its readers need --incremental"
            )
        warnings += warnings_for(disks, chosen, for_qemu)
        if only_estimate:
            for warning in warnings:
                warn(warning)
            return SendResult(estimate(disks, chosen), tuple(warnings))
        check_received(token, opened, progress)
        total = sum(disk.size for disk in disks)
        with (
            open_target(target, uses, confirmed=chosen.return_path) as sink,
            progress("sending", total) as tick,
        ):
            for warning in warnings:
                warn(warning)
            write_disks(send_pieces(disks, chosen), disks, sink, tick)
        digests = None
        if manifest is not None:
            digests = _write_manifest(manifest, whole, chosen, progress, content=content)
        finish_changes(changes, opened)
    return SendResult(sink.written, tuple(warnings), digests)


def _unfinished(path: str) -> Iterator[str]:
    """Yield the warning that an image has only a part of what a replay was to write, if it is so."""
    neighbours = neighbours_of(path)
    with suppress(FailureError):  # a damaged journal says nothing
        if not exists(neighbours.journal):
            return
        from blkmig_cli.operations.replay.journal import read_journal  # noqa: PLC0415 (not always needed)

        found = read_journal(neighbours)
        if found is not None and found.state != "finished" and not found.new:
            yield (
                f"{escape(path)}: a replay onto it did not finish, as {escape(neighbours.journal)} says; "
                "see blkmig replay --resume"
            )


def _check_work(disks: list[Disk], *, content: bool) -> None:
    """Check that :func:`_write_manifest` has not too much to hash; raises FailureError."""
    from blkmig_cli.checks.manifest import check_work  # noqa: PLC0415 (not always needed)

    check_work(disks, content=content)


def _write_manifest(
    path: str, disks: list[Disk], options: SendOptions, progress: Progress, *, content: bool
) -> "Manifest":
    """Write the manifest of ``disks``, and return it; ``content``: see :func:`manifest_of`."""
    from blkmig_cli.checks.manifest import manifest_of, write_manifest  # noqa: PLC0415 (not always needed)

    with progress("hashing", sum(disk.size for disk in disks)) as tick:
        digests = manifest_of(disks, tick, content=content, flags=options.dialect != "v1")
    digests.identity = options.identity
    write_manifest(path, digests)
    return digests


def _open_images(
    images: Mapping[str, str],
    formats: Mapping[str | None, str],
    uses: FileUses,
    stack: ExitStack,
    *,
    writable: bool,
    shared: bool,
    own_layer: bool,
    bitmaps: bool,
) -> dict[str, Image]:
    """Open the ``images``, which must be disks; for the rest, see :func:`open_image` and :func:`send`."""
    for device in formats:
        if device is not None:
            find_device("-f", device, images)
    opened: dict[str, Image] = {}
    stated = {device: formats.get(device, formats.get(None)) for device in images}
    for device, path in images.items():
        image = open_image(
            path,
            image_format=stated[device],
            writable=writable and not is_nbd(path),
            shared=shared,
            own_layer=own_layer,
            bitmaps=bitmaps,
            register=partial(_register, uses, device),
        )
        opened[device] = stack.enter_context(closing(image))
    known = {
        device
        for device, image in opened.items()
        if stated[device] == RAW or not (isinstance(image, RawImage) or is_nbd(image.path))
    }
    check_images(opened, known)
    return opened


def _add_bitmaps(
    disks: list[Disk], images: Mapping[str, Image], bitmaps: SendBitmaps, uses: FileUses
) -> None:
    """Add the bitmaps that are asked for to ``disks``; raises UsageError and FailureError."""
    from blkmig_cli.operations.send.bitmaps import attach_bitmaps  # noqa: PLC0415 (numpy is slow to load)

    for path in attach_bitmaps(disks, images, bitmaps.files, bitmaps.names):
        uses.add("the bitmaps file", path, writes=False)


def _check_backing(images: Mapping[str, Image]) -> None:
    """Raise FailureError where unallocated ranges of an image are not those of a backing file."""
    for image in images.values():
        if not image.has_backing:
            raise FailureError(
                f"{escape(image.path)} has no backing file, so that it has no changes to a base",
                hint="leave out --base",
            )


def _register(uses: FileUses, device: str, file: str, _: bool) -> None:
    uses.add(f"a layer of the image of {quote(device)}", file, writes=False)
