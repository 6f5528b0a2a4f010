"""How large a disk is, by order of belief: an option, the stream, an image file; or else its last chunk."""

from dataclasses import dataclass

from blkmig_cli import limits
from blkmig_cli.checks.catalogue import CHECKS, Finding
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas.constants import BLOCK_SECTION, SECTOR_SIZE
from blkmig_cli.text import escape, human_size, quote


@dataclass(frozen=True, slots=True)
class Evidence:
    """What decides the size of the disk of ``device``; all sizes in bytes.

    ``stream``: what the stream states or allows.  ``top``, ``end``: where its last chunk begins and
    ends; ``offset``: its record's place in the stream.  ``option``: --device-size; ``largest``: that
    is ``max``.  ``path``: the image; ``image``: its size if it is written in place, None where it is
    made; ``is_device``: it is a block device, which may be larger.  ``gaps``: missing chunks are
    accepted, so that the last one may be missing, too.
    """

    device: str
    path: str
    stream: SizeBounds
    top: int
    end: int
    offset: int | None = None
    option: int | None = None
    largest: bool = False
    image: int | None = None
    is_device: bool = False
    gaps: bool = False

    @property
    def most(self) -> int | None:
        """The most that stream and block device allow; None: nothing bounds it."""
        bounds = [self.stream.most, self.image if self.is_device else None]
        return min((bound for bound in bounds if bound is not None), default=None)

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        if self.most is None:
            return f"at least {self.stream.least} bytes"
        return f"{self.stream.least} to {self.most} bytes"


@dataclass(frozen=True, slots=True)
class Decision:
    """The disk's ``size`` in bytes; ``finding``: what is wrong with it, or why it is unknown (None).

    ``assumed``: nothing but the end of the last chunk says so.
    """

    size: int | None
    finding: Finding | None = None
    assumed: bool = False


def decide_size(found: Evidence) -> Decision:
    """Decide the size of a disk.

    Raises FailureError where the image is smaller than the disk, or would become too large.
    """
    decision = _by_option(found) or _by_stream(found) or _by_image(found) or _by_last_chunk(found)
    size = decision.size
    least = found.stream.least if size is None else size
    if found.image is not None and found.image < least and decision.finding is None:
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
    option, stream = found.option, found.stream
    if found.largest:
        if found.most is not None:
            return Decision(found.most)
        return Decision(None, _unknown(found, "nothing in the stream bounds it"))
    if option is None:
        return None
    # Of a record behind the disk's end, there is a finding of its own.
    outside = found.top < option and (
        option < stream.least
        or (stream.exact is not None and option != stream.exact)
        or (stream.most is not None and option > stream.most and not found.gaps)
    )
    what = f"--device-size says {option}"
    return Decision(option, _mismatch(found, what) if outside else None)


def _by_stream(found: Evidence) -> Decision | None:
    exact = found.stream.exact
    if exact is None:
        return None
    if found.image is not None and found.image > exact and not found.is_device:
        return Decision(exact, _mismatch(found, f"{escape(found.path)} has {found.image}"))
    return Decision(exact)


def _by_image(found: Evidence) -> Decision | None:
    """Decide by the size of an image file that is there, unless it is too small."""
    image, most = found.image, found.stream.most
    if image is None or found.is_device:
        return None
    if image < found.stream.least:
        return Decision(None)
    if most is not None and image > most and not found.gaps:
        return Decision(image, _mismatch(found, f"{escape(found.path)} has {image}"))
    return Decision(image)


def _by_last_chunk(found: Evidence) -> Decision:
    if found.most is not None and found.most < found.stream.least:
        return Decision(None)  # the device is too small
    if found.stream.least <= found.end and (found.most is None or found.end <= found.most):
        return Decision(found.end, assumed=True)
    return Decision(None, _unknown(found, found.bounds))


def _mismatch(found: Evidence, what: str) -> Finding:
    exact = found.stream.exact
    disk = found.bounds if exact is None else f"{exact} bytes"
    hint = (
        f"; use --device-size {exact} to write only these" if found.option is None and exact else ""
    )
    return _finding("size-mismatch", f"the disk has {disk}, {what}{hint}", found)


def _unknown(found: Evidence, why: str) -> Finding:
    device = f"{escape(found.device)}=" if found.device else ""
    size = f"specify --device-size {device}SIZE"
    most = "" if found.most is None else f" or --device-size {device}max"
    text = f"size of {quote(found.device)} is unknown ({why}); {size}{most}"
    return _finding("size-unknown", text, found)


def _finding(check: str, message: str, found: Evidence) -> Finding:
    return Finding(check, CHECKS[check][0], message, None, found.device)
