"""What a capture is asked for, and what it reports."""

from dataclasses import field
from typing import Literal

from blkmig_cli.dataclass import dataclass
from blkmig_cli.operations.send.changes import ALL, SendChanges
from blkmig_cli.operations.send.identity import RANDOM, SendIdentity


@dataclass(frozen=True, slots=True)
class PassesOptions:
    """How the passes go on.

    ``downtime``: seconds for which the guest may be paused.  ``max_passes``: the most passes before that.
    ``max_bandwidth``: bytes per second of the stream, except for what is read during the pause.
    ``on_no_converge``: what to do where ``max_passes`` are not enough: fail, or pause all the same.
    ``then``: whether the guest runs on, or is left paused.
    """

    downtime: float = 0.3
    max_passes: int = 30
    max_bandwidth: int | None = None
    on_no_converge: Literal["fail", "pause"] = "fail"
    then: Literal["resume", "leave-paused"] = "resume"


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """What to capture.

    ``disks``: ids, each with a name in the stream or None, empty for the default; ``excluded``: ids.
    ``bitmaps``: names as ``[DEVICE:]NAME``, empty: all; None: no bitmaps.  ``socket``: the path of QEMU's
    NBD socket, None: one of ours.  ``identity``: None for none.  ``changes``: what an increment has.
    """

    disks: tuple[tuple[str | None, str], ...] = ()
    excluded: tuple[str, ...] = ()
    bitmaps: tuple[str, ...] | None = None
    passes: PassesOptions = PassesOptions()
    socket: str | None = None
    identity: SendIdentity | None = RANDOM
    changes: SendChanges = ALL


@dataclass(frozen=True, slots=True)
class PassReport:
    """A pass: ``bulk``, ``dirty`` or ``paused``.

    ``size``: bytes of the disks that it sent; ``read``: those of them that were no known zeros;
    ``seconds``: how long it took; ``left``: bytes that were dirty after it.
    """

    kind: Literal["bulk", "dirty", "paused"]
    size: int
    read: int
    seconds: float
    left: int

    @property
    def rate(self) -> float | None:
        """Bytes read per second; None where it took no time."""
        return self.read / self.seconds if self.seconds else None


@dataclass(slots=True)
class LiveReport:
    """What was captured.

    ``sizes``: of the disks in bytes, by device; ``bitmaps``: (device, name); ``predicted`` and ``pause``:
    seconds that the guest was expected to be paused, and was; None: it was not running.  ``converged``:
    whether the prediction was within the downtime.  ``left_paused``: the guest is still paused.
    ``written``: bytes of the stream.
    """

    sizes: dict[str, int]
    bitmaps: list[tuple[str, str]]
    passes: list[PassReport] = field(default_factory=list)
    predicted: float | None = None
    pause: float | None = None
    converged: bool = True
    left_paused: bool = False
    written: int = 0

    @property
    def times_sent(self) -> float:
        """How often the disks were sent, by the bytes of all passes."""
        return sum(done.size for done in self.passes) / sum(self.sizes.values())
