"""Checking that an image holds the base of an increment, before anything is written to it."""

from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.checks.judge import found as finding
from blkmig_cli.checks.manifest import Manifest, check_images
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.image import Beginning, Readable
from blkmig_cli.disks.neighbours import device_kind
from blkmig_cli.disks.record import Holding, fits, read_record
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.progress import no_tick
from blkmig_cli.text import escape, quote
from blkmig_cli.wire.identity import Identity


@dataclass(frozen=True, slots=True)
class BaseCheck:
    """The result of :func:`check_base`.

    ``proven``: after the replay, the image holds the disk of the stream.  ``grows``: the image may be
    smaller than the disk.  ``applied``: it holds that disk already.  ``fault``: why the increment must not
    be applied to it.
    """

    proven: bool = False
    grows: bool = False
    applied: bool = False
    fault: Finding | None = None


def check_base(
    identity: Identity | None,
    device: str,
    found: Destination,
    verify: Manifest | None,
    *,
    unchecked: bool,
) -> BaseCheck:
    """Check the image of ``device``, to which a stream with ``identity`` is to be applied.

    ``verify``: the manifest of the base, with which the image is compared; ``unchecked``: the caller
    knows that the image holds the base.  Raises FailureError where the image or its record fails.
    """
    if identity is None or not identity.has_gaps(device):
        return BaseCheck(proven=identity is not None and identity.is_full(device))
    grows = not found.is_device
    if unchecked:
        return BaseCheck(grows=grows)
    before = found.journal
    if before is not None and before.stream == identity.id:
        return BaseCheck(proven=True, grows=grows)  # checked by the run that began it
    if found.existing_size is None:
        base = "its base" if identity.base is None else f"its base {identity.base}"
        text = f"{escape(found.path)} is a new image, and the stream is an increment"
        return BaseCheck(fault=_fault(device, text, f"replay {base} first"))
    if verify is not None:
        why = _differs(verify, identity, device, found)
    elif found.is_device:
        why = f"of {device_kind(found.path)}, no record is kept that proves it"
    else:
        record, path = read_record(found.neighbours), escape(found.neighbours.identity or "")
        if record is None:
            why = f"{path}, which would state it, does not exist"
        elif not fits(record, found.path):
            why = f"it was written after {path}"
        elif record.holding == Holding(identity.id, device):
            return BaseCheck(proven=True, grows=grows, applied=True)
        elif record.holding != Holding(identity.base or "", device):
            why = f"it holds {quote(record.holding.device)} of {record.holding.id}"
        else:
            why = None
    if why is None:
        return BaseCheck(proven=True, grows=grows)
    if identity.base is None:
        text = f"the stream does not state which base {escape(found.path)} has to hold"
    else:
        text = (
            f"{escape(found.path)} does not hold the base {identity.base} of the increment: {why}"
        )
    hint = "if the image holds it, use --verify-base MANIFEST, or --no-base-check"
    return BaseCheck(fault=_fault(device, text, hint))


def grown_since(device: str, size: int) -> Finding:
    """Return the fault of an increment that lacks a part of what its disk of ``size`` bytes has grown by."""
    text = (
        f"the disk has grown to {size} bytes since its base, and not all of the new part is in the "
        "increment"
    )
    return _fault(device, text, "make it again, with --base STREAM")


def _fault(device: str, text: str, hint: str) -> Finding:
    return finding("wrong-base", f"{text}; {hint}", device=device)


def _differs(verify: Manifest, identity: Identity, device: str, found: Destination) -> str | None:
    """Return why an image does not hold the base according to its manifest; None if it does."""
    path, entry, image = escape(verify.path), verify.disks.get(device), found.image
    if verify.identity is None or verify.identity.id != identity.base:
        return f"{path} is not its manifest"
    if entry is None or entry.sha256 is None:
        return f"{path} has no digest of the disk"
    assert image is not None
    disk: Readable = Beginning(image, entry.size) if found.is_device else image
    only = Manifest(disks={device: entry})
    return next(
        (found.message for found in check_images(only, {device: disk}, None, no_tick)), None
    )
