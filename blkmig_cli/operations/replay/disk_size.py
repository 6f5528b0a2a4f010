"""Deciding the size of a disk, by precedence: an option, the stream, a manifest, an image file.

If none of them states it, the disk ends with its last chunk, if the bounds from the stream allow it.
"""

from blkmig_cli import limits
from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.checks.judge import found as finding
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas.constants import BLOCK_SECTION, SECTOR_SIZE
from blkmig_cli.text import escape, human_size, quote


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence for the size of the disk of ``device``; all sizes in bytes.

    ``stream``: the size or bounds from the stream.  ``top``, ``end``: start and end of its last chunk;
    ``offset``: that of the chunk's record in the stream.  ``option``: --device-size; ``largest``: it is
    ``max``.  ``manifest``: the size in a manifest.  ``path``: the image; ``image``: its size if it is
    written in place, None for a new one; ``is_device``: it is a block device, which may be larger.
    ``gaps``: missing chunks are accepted, so that the last one may be missing, too.  ``grows``: the image
    is extended to the size of the disk.
    """

    device: str
    path: str
    stream: SizeBounds
    top: int
    end: int
    offset: int | None = None
    option: int | None = None
    largest: bool = False
    manifest: int | None = None
    image: int | None = None
    is_device: bool = False
    gaps: bool = False
    grows: bool = False

    @property
    def most(self) -> int | None:
        """The most that stream and block device allow; None without a bound."""
        bounds = [self.stream.most, self.image if self.is_device else None]
        return min((bound for bound in bounds if bound is not None), default=None)

    @property
    def bounds(self) -> str:
        """The bounds as text."""
        if self.most is None:
            return f"at least {self.stream.least} bytes"
        return f"{self.stream.least} to {self.most} bytes"

    def exceeds(self, size: int) -> bool:
        """Return whether ``size`` is more than the stream allows.

        Where chunks may be missing, its bounds are ignored: progress includes those chunks.
        """
        stream = self.stream
        return (
            stream.most is not None and size > stream.most and not (self.gaps and not stream.exact)
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """The disk's ``size`` in bytes; ``finding``: its fault, or why it is unknown (None).

    ``assumed``: it is only derived from the end of the last chunk.
    """

    size: int | None
    finding: Finding | None = None
    assumed: bool = False


def decide_size(found: Evidence) -> Decision:
    """Decide the size of a disk.

    Raises FailureError where the image is smaller than the disk, or would become too large.
    """
    decision = (
        _by_option(found) or _by_statement(found) or _by_image(found) or _by_last_chunk(found)
    )
    size = decision.size
    least = found.stream.least if size is None else size
    short = found.image is not None and found.image < least and not found.grows
    if short and decision.finding is None:
        at_least = "at least " if size is None else ""
        raise FailureError(
            f"{escape(found.path)} has {found.image} bytes, the disk {at_least}{least}",
            device=found.device,
            hint="enlarge the image",
        )
    if found.image is None and found.option is None and least > limits.GROWTH_MAX:
        raise FailureError(
            f"{escape(found.path)} would grow to {human_size(least)}",
            offset=found.offset,
            section=BLOCK_SECTION,
            device=found.device,
            sector=found.top // SECTOR_SIZE,
            hint="if this is intended, specify --device-size",
        )
    return decision


def _by_option(found: Evidence) -> Decision | None:
    """Decide by an option; those that are too small have been found by judging the stream."""
    if found.largest:
        if found.most is not None:
            return Decision(found.most)
        return Decision(None, _unknown(found, "nothing in the stream bounds it"))
    if found.option is None:
        return None
    if found.stream.exact is None and found.exceeds(found.option):
        return Decision(found.option, _mismatch(found, f"--device-size says {found.option}"))
    return Decision(found.option)


def _by_statement(found: Evidence) -> Decision | None:
    """Decide by the size stated in the stream, or else in the manifest."""
    size = found.stream.exact
    if size is None:
        size = found.manifest
        if size is None:
            return None
        if size < found.stream.least or found.exceeds(size):
            return Decision(size, _mismatch(found, f"the manifest says {size}"))
    if found.image is not None and found.image > size and not found.is_device:
        what = f"{escape(found.path)} has {found.image}"
        return Decision(
            size, _mismatch(found, what, f"use --device-size {size} to write only these")
        )
    return Decision(size)


def _by_image(found: Evidence) -> Decision | None:
    """Decide by the size of an existing image file, unless it is too small."""
    image = found.image
    if image is None or found.is_device:
        return None
    if image < found.stream.least:
        return Decision(None)
    if found.exceeds(image):
        return Decision(image, _mismatch(found, f"{escape(found.path)} has {image}"))
    return Decision(image)


def _by_last_chunk(found: Evidence) -> Decision:
    if found.most is not None and found.most < found.stream.least:
        return Decision(None)  # the device is too small
    if found.stream.least <= found.end and (found.most is None or found.end <= found.most):
        return Decision(found.end, assumed=True)
    return Decision(None, _unknown(found, found.bounds))


def _mismatch(found: Evidence, what: str, hint: str = "") -> Finding:
    exact = found.stream.exact or found.manifest
    disk = found.bounds if exact is None else f"{exact} bytes"
    text = f"the disk has {disk}, {what}{f'; {hint}' if hint else ''}"
    return finding("size-mismatch", text, device=found.device)


def _unknown(found: Evidence, why: str) -> Finding:
    device = f"{escape(found.device)}=" if found.device else ""
    most = "" if found.most is None else f" or --device-size {device}max"
    text = (
        f"size of {quote(found.device)} is unknown ({why}); "
        f"specify --device-size {device}SIZE{most}"
    )
    return finding("size-unknown", text, device=found.device)
