"""Increments: which disks are sent only as far as they changed, and the bitmaps that record from now on.

A bitmap tells what changed since it was created or cleared.  None of the user's is cleared or removed
here, except by --drop.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field

from blkmig_cli.checks.names import find_device
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.granularity import GRANULARITY
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.neighbours import bitmaps_path
from blkmig_cli.errors import BlkmigError, FailureError, LimitError, UsageError, failing
from blkmig_cli.operations.send.identity import Base, SendIdentity, read_base
from blkmig_cli.operations.send.requirements import name_fault
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.system.address import parse_target
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import escape, quote

#: Files of bitmaps by device; None stands for the only disk.
Files = Mapping[str | None, str]


@dataclass(frozen=True, slots=True)
class SendChanges:
    """What an increment has, and what happens to bitmaps in the images when it is stored.

    ``since``: the bitmap that selects the chunks of a disk, by device (None: of those not named); empty:
    disks are sent whole.  It is read from one of ``files`` (by device; None: the only one), else from the
    image or IMAGE.bitmaps.json.  ``or_full``: send a disk whole if its bitmap is missing or has a fault.

    ``mark``: the name of a bitmap to create in every image; ``drop``: the names of bitmaps to remove.
    """

    since: Mapping[str | None, str] = field(default_factory=dict)
    files: Files = field(default_factory=dict)
    or_full: bool = False
    mark: str | None = None
    drop: tuple[str, ...] = ()


#: Disks are sent whole, and no bitmap is created.
ALL = SendChanges()


def check_changes(changes: SendChanges, images: Mapping[str, Image]) -> None:
    """Check that bitmaps can be created in ``images`` (by device), and removed.

    Raises UsageError for an image that records nothing while nobody uses it, and for a bitmap to remove
    that no image has; FailureError where the new one exists, or the image cannot be written.
    """
    if not writes_images(changes):
        return
    option = "--drop" if changes.mark is None else "--mark"
    names: set[str] = set()
    for image in images.values():
        path, stored = escape(image.path), image.bitmaps()
        if stored is None or not image.is_file:
            raise UsageError(
                f"{option}: {path} is not a qcow2 image, so that nothing would record its changes"
            )
        names |= {found.name for found in stored}
        if changes.mark in names:
            raise FailureError(f"{path} has a bitmap {quote(changes.mark or '')} already")
        if not os.access(image.path, os.W_OK):
            raise FailureError(f"{path} cannot be written, so that its bitmaps cannot be changed")
    for name in changes.drop:
        if name not in names:
            raise UsageError(f"--drop: no image has a bitmap {quote(name)}")
    if changes.mark is not None:
        fault = name_fault(changes.mark)
        if fault is not None:
            raise UsageError(f"--mark: {quote(changes.mark)}: {fault}")


def writes_images(changes: SendChanges) -> bool:
    """Return whether the images are written."""
    return changes.mark is not None or bool(changes.drop)


def check_options(
    changes: SendChanges, options: SendOptions, target: str | None, *, shared: bool
) -> None:
    """Raise UsageError for options that contradict each other."""
    if changes.since and options.skip_unallocated:
        raise UsageError("--since and --skip-unallocated exclude each other")
    if changes.since and not options.disks:
        raise UsageError("--since and --bitmaps-only exclude each other")
    if changes.or_full and not changes.since:
        raise UsageError("--else is for --since")
    if writes_images(changes) and shared:
        raise UsageError("--mark, --drop and -U: the image may change after it was sent")
    if changes.mark == "":
        raise UsageError("--mark: the name is empty")
    if changes.drop and parse_target(target).scheme not in ("file", "url"):
        raise UsageError(
            "--drop is only for a stream that is stored in a file or at a URL", hint="see --to FILE"
        )


def base_of(
    identity: SendIdentity | None, options: SendOptions, changes: SendChanges, uses: FileUses
) -> Base | None:
    """Return the base of a stream, if it has one; raises UsageError, and as :func:`read_base`."""
    if identity is None or identity.base is None:
        return None
    if not (options.skip_unallocated or changes.since):
        raise UsageError(
            "--base is for a stream of changes", hint="see --since and --skip-unallocated"
        )
    return read_base(identity.base, uses)


#: Ranges that are dirty in a bitmap, (start, length) in bytes; and the size in bytes of the disk of which it
#: tells.
Dirty = tuple[Iterable[tuple[int, int]], int]
#: Returns what is dirty in the bitmap of a device, by name.
Find = Callable[[str, str], Dirty]


def select_changes(
    disks: list[Disk],
    images: Mapping[str, Image],
    changes: SendChanges,
    options: SendOptions,
    base: Base | None,
    find: Find,
    warn: Callable[[str], None],
) -> dict[str, str] | None:
    """Reduce ``disks`` to what changed since the bitmaps of ``changes`` began to record.

    Returns these bitmaps by device (disks that are sent whole have none); None if there are none in
    ``changes``.  ``images``: those of the disks.  ``base``: the stream before; ``find`` raises UnusableError
    for a bitmap that is missing or has a fault; ``warn`` is called with each warning.

    Raises UsageError where a disk has no bitmap in ``changes``; FailureError where the bitmap is missing
    or has a fault, unless ``changes.or_full``, or is not the one that belongs to the base.
    """
    if not changes.since:
        return None
    check_named(changes, images)
    if base is None:
        warn("the increment names no base, so that nothing shows what it belongs to; see --base")
    elif base.identity is None:
        warn(
            "the id of a base does not tell the sizes of its disks, and an increment of a disk that has "
            "grown since will be refused; specify the stream or its manifest with --base"
        )
    from blkmig_cli.disks.changed import Changed  # noqa: PLC0415 (not always needed)

    selected: dict[str, str] = {}
    for disk in disks:
        name = changes.since.get(disk.device, changes.since.get(None))
        assert name is not None
        before = None
        if base is not None and base.identity is not None:
            if not base.has_disk(disk.device):
                warn(f"the base does not have all of {quote(disk.device)}, which is sent whole")
                continue
            before = base.identity.disks[disk.device]
            if before.mark is None:
                warn(
                    f"the base does not state a bitmap of {quote(disk.device)}: "
                    f"{quote(name)} must have recorded since it was made"
                )
            elif before.mark != name:
                raise FailureError(
                    f"bitmap {quote(name)} is not the one that was created with the base, which is "
                    f"{quote(before.mark)}",
                    device=disk.device,
                )
        try:
            dirty, size = find(disk.device, name)
        except UnusableError as error:
            if not changes.or_full:
                raise FailureError(
                    f"bitmap {quote(name)}: {error}",
                    device=disk.device,
                    hint="use --else full to send the disk whole",
                ) from error
            warn(f"bitmap {quote(name)} of {quote(disk.device)}: {error}; the disk is sent whole")
            continue
        grown = min(disk.size if before is None else before.size, size)
        at_end = options.dialect == "qemu"
        try:
            disk.image = Changed(images[disk.device], dirty, grown, at_end=at_end)
        except LimitError as error:
            raise FailureError(f"bitmap {quote(name)}: {error}", device=disk.device) from error
        disk.partial = True
        selected[disk.device] = name
    return selected


def finish_changes(changes: SendChanges, images: Mapping[str, Image]) -> None:
    """Create and remove bitmaps in ``images``, now that the stream is stored; raises FailureError."""
    try:
        if changes.mark is not None:
            for image in images.values():
                image.add_bitmap(changes.mark, GRANULARITY)
        for image in images.values():
            held = {found.name for found in image.bitmaps() or ()}
            for name in changes.drop:
                if name in held:
                    image.remove_bitmap(name)
    except BlkmigError as error:
        error.add_note("the stream is complete; not all bitmaps were created or removed")
        raise


class UnusableError(Exception):
    """A bitmap is missing, or does not tell all changes; its text says why."""

    @classmethod
    def if_disabled(cls, recording: bool) -> None:
        """Raise it for a bitmap that is not recording."""
        if not recording:
            raise cls("it is not recording, so that it does not tell all changes")


def find_dirty(
    device: str, name: str, *, images: Mapping[str, Image], files: Files, uses: FileUses
) -> Dirty:
    """Return what is dirty in a bitmap of one of ``images``, or from one of ``files``, as ``Find`` does.

    ``uses``: the files in use.  Raises UnusableError; FailureError for a malformed file.
    """
    image = images[device]
    path = files.get(device, files.get(None))
    stored = image.bitmaps() if path is None else None
    if stored is not None:
        found = next((found for found in stored if found.name == name), None)
        if found is None:
            raise UnusableError(f"{escape(image.path)} has no such bitmap")
        if found.fault is not None:
            raise UnusableError(found.fault)
        UnusableError.if_disabled(found.recording)
        return image.dirty_ranges(name), image.size
    from blkmig_cli.disks.bitmap_file import read_ranges  # noqa: PLC0415 (not always needed)

    if path is None:
        path = bitmaps_path(image.path)
        if not image.is_file or not os.path.exists(path):
            raise UnusableError(f"{escape(image.path)} has no bitmaps")
        with failing(path):
            older = os.stat(path).st_mtime_ns < os.stat(image.path).st_mtime_ns
        if older:
            raise UnusableError(
                f"{escape(image.path)} was written after {escape(path)}; if that is complete "
                "nevertheless, specify it with --bitmaps-from"
            )
    uses.add("the bitmaps file", path, writes=False)
    size, bitmaps = read_ranges(path)
    bitmap = next((bitmap for bitmap in bitmaps if bitmap.name == name), None)
    if bitmap is None:
        raise UnusableError(f"{escape(path)} has no such bitmap")
    UnusableError.if_disabled(bitmap.recording)
    if size > image.size:
        raise FailureError(
            f"{escape(path)} is of a disk of {size} bytes, not {image.size}", device=device
        )
    return bitmap.ranges, size


def check_named(changes: SendChanges, devices: Collection[str]) -> None:
    """Raise UsageError for a disk without a bitmap, and for a bitmap of a device without a disk."""
    for option, named in (("--since", changes.since), ("--bitmaps-from", changes.files)):
        for device in named:
            if device is not None:
                find_device(option, device, devices)
    for device in devices if changes.since else ():
        if None not in changes.since and device not in changes.since:
            raise UsageError(
                f"--since names no bitmap of {quote(device)}", hint="use --since DEVICE:NAME"
            )
    if None in changes.files and len(devices) != 1:
        raise UsageError("--bitmaps-from without DEVICE, and there are several disks")
