"""What a capture is asked for, and what it reports."""

from typing import Literal

from blkmig_cli.checks.manifest import Manifest
from blkmig_cli.dataclass import dataclass
from blkmig_cli.operations.send.changes import ALL, SendChanges
from blkmig_cli.operations.send.identity import RANDOM, SendIdentity


@dataclass(frozen=True, slots=True)
class PassesOptions:
    """The disks as they are at the end, in passes.

    ``downtime``: seconds for which the guest may be paused.  ``max_passes``: the most passes before that.
    ``on_no_converge``: what to do where ``max_passes`` are not enough: fail, or pause all the same.
    ``then``: whether the guest runs on, or is left paused.
    """

    downtime: float = 0.3
    max_passes: int = 30
    on_no_converge: Literal["fail", "pause"] = "fail"
    then: Literal["resume", "leave-paused"] = "resume"


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """The disks as they are at the beginning, at one point in time.

    ``scratch``: the folder for a temporary file with what the guest overwrites meanwhile, None: TMPDIR or
    /var/tmp; ``scratch_limit``: the most bytes of it, None: what the file system has to spare.
    ``freeze``: whether the guest's file systems are frozen at that moment, through the socket of its agent
    at the path ``agent``: if it does so (auto, nothing without ``agent``), in any case (require), or not.
    """

    scratch: str | None = None
    scratch_limit: int | None = None
    freeze: Literal["auto", "require", "no"] = "auto"
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """What to capture.

    ``disks``: ids, each with a name in the stream or None, empty for the default; ``excluded``: ids.
    ``bitmaps``: names as ``[DEVICE:]NAME``, empty: all; None: no bitmaps.  ``mode``: how the disks are
    captured.  ``max_bandwidth``: bytes per second of the stream, except for what is read while the guest is
    paused.  ``socket``: the path of QEMU's NBD socket, None: one of ours.  ``identity``: None for none.
    ``changes``: what an increment has.
    """

    disks: tuple[tuple[str | None, str], ...] = ()
    excluded: tuple[str, ...] = ()
    bitmaps: tuple[str, ...] | None = None
    mode: PassesOptions | SnapshotOptions = PassesOptions()
    max_bandwidth: int | None = None
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


@dataclass(frozen=True, slots=True)
class PassesReport:
    """How the passes went: each of ``passes``.

    ``times_sent``: how often the disks were sent, by the bytes of all passes.  ``predicted``: seconds that
    the guest was expected to be paused; None: it was not running.  ``converged``: whether that was within
    the downtime.  ``left_paused``: the guest is still paused.
    """

    passes: tuple[PassReport, ...]
    times_sent: float
    predicted: float | None
    converged: bool
    left_paused: bool


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """How the snapshot went: ``scratch``: the largest size of the temporary file in bytes."""

    scratch: int


@dataclass(frozen=True, slots=True)
class LiveReport:
    """What was captured.

    ``sizes``: of the disks in bytes, by device; ``bitmaps``: (device, name).  ``consistency``: as in
    identities: ``paused``, ``frozen`` or ``crash``.  ``pause``: seconds that the guest was paused, None if
    it was not.  ``latency``: seconds that its writes took: the highest mean of any interval of a second
    or more, None without writes.  ``written``: bytes of the stream.  ``mode``: what is particular to it.
    ``manifest``: that which was written, if any.
    """

    sizes: dict[str, int]
    bitmaps: list[tuple[str, str]]
    consistency: str
    pause: float | None
    latency: float | None
    written: int
    mode: PassesReport | SnapshotReport
    manifest: Manifest | None = None
