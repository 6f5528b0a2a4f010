"""Capturing disks as they are at one moment, while the guest goes on writing.

A filter is put between the guest's device and its node: before a write overwrites anything, it copies that
to the scratch (QEMU 7.2, block/copy-before-write.c).  A second node shows the disk as it was: what is in the
scratch from there, the rest from the disk.  Where the scratch fails or takes too long, the filter lets the
write go on, and that node fails from then on: the capture is lost, not the guest's write.  What has been sent
is discarded from the node, so that it need not be saved any more.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from blkmig_cli import limits
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.nbd.image import NbdImage
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.live.copies import Captured, Copies
from blkmig_cli.operations.live.disks import Graph, check_unchanged, has_iothread
from blkmig_cli.operations.live.freeze import Freeze
from blkmig_cli.operations.live.guard import Guard
from blkmig_cli.operations.live.increment import Increment
from blkmig_cli.operations.live.pause import Pause
from blkmig_cli.operations.live.remnants import ACCESS, FILTER, SCRATCH, set_drive
from blkmig_cli.operations.live.request import SnapshotOptions, SnapshotReport
from blkmig_cli.operations.live.scratch import Scratch, export_of
from blkmig_cli.operations.live.session import Session
from blkmig_cli.operations.live.watch import Watch
from blkmig_cli.operations.live.writer import Writer
from blkmig_cli.operations.send.stream import SendOptions, send_pieces
from blkmig_cli.progress import Progress
from blkmig_cli.schemas.constants import CHUNK_SIZE, SECTOR_SIZE
from blkmig_cli.system.qmp import CommandError, Monitor
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.identity import Identity
from blkmig_cli.wire.runs.columns import Piece, Run, last_block

_MODE = "use --mode passes"
# What a QEMU must know (7.2 and later): members of the filter's options, and the driver of the other node.
_MEMBERS = {"on-cbw-error", "cbw-timeout"}
_DRIVER = "snapshot-access"
# QEMU 7.2.22 aborts where a node is added above one with an iothread that is at work (block.c:
# bdrv_open_inherit drains it without its lock); 10.0.13 does not.
_IOTHREADS = (10, 0)
# Bytes that are discarded at a time: whole chunks, as QEMU 7.2 aborts for parts of a cluster.
_DISCARDED = 8 * CHUNK_SIZE


class Snapshot:
    """A snapshot of the disks ``captured``; see ``passes.Passes``.

    ``consistency``: that of the disks, for the identity.
    """

    def __init__(
        self,
        session: Session,
        captured: list[Captured],
        snapshot: SnapshotOptions,
        options: SendOptions,
        increment: Increment,
        identify: Callable[[list[Disk], str], Identity | None],
        pause: Pause,
        guard: Guard,
        watch: Watch,
    ) -> None:
        self._session = session
        self._monitor = session.monitor
        self._captured = captured
        self._snapshot = snapshot
        self._options = options
        self._increment = increment
        self._identify = identify
        self._pause = pause
        self._guard = guard
        self._watch = watch
        self._scratch: Scratch | None = None
        self._images: dict[str, NbdImage] = {}
        self._discarded: dict[str, int] = {}
        self._copies = Copies(session, captured)
        self.disks: list[Disk] = []
        self.identity: Identity | None = None
        self.consistency = "crash"
        _check_possible(self._monitor, captured)
        self._adds_paused = self._monitor.version < _IOTHREADS and any(
            has_iothread(self._monitor, each.disk) for each in captured
        )

    def begin(self, warn: Callable[[str], None]) -> None:
        """Take the snapshot.  ``warn``: as of ``Passes.begin``.  Raises FailureError."""
        sizes = [each.disk.size for each in self._captured]
        scratch = Scratch(self._snapshot.scratch, self._snapshot.scratch_limit, sizes)
        # QEMU would wait for a scratch that hangs when its nodes are removed.
        self._session.before_removal(scratch.close)
        self._watch.size = scratch.look
        self._scratch = scratch
        self._session.start_server()
        for number, each in enumerate(self._captured):
            # What the guest has written so far need not be flushed while it waits.
            self._session.open_disk(number, each.device, each.disk).flush()
            self._add_scratch(number, scratch)
            if not self._adds_paused:
                self._add_filter(number, each)
        scratch.hide()
        check_unchanged(
            self._monitor, Graph(self._monitor), {each.device: each.disk for each in self._captured}
        )
        self._cut(warn)
        for number, each in enumerate(self._captured):
            image = self._open(number, each)
            self._images[each.device] = image
            self.disks.append(Disk(each.device, image, self._copies.targets[each.device]))
        self._copies.read()
        self._increment.copies.read()
        bare = self._increment.bulk(self.disks, self._images, self._options, warn)
        for disk, sent in zip(self.disks, bare, strict=True):
            disk.image, disk.partial = sent.image, sent.partial
        self.identity = self._identify(self.disks, self.consistency)
        self._options = replace(self._options, identity=self.identity)

    def run(self, writer: Writer, progress: Progress) -> SnapshotReport:
        """Send the disks; raises FailureError where something fails, or the guest's writes take too long."""
        assert self._scratch is not None
        for disk in self.disks:
            if disk.partial:
                self._images[disk.device].discard(_between(disk))
        with progress("sending", sum(disk.size for disk in self.disks)) as tick:
            writer.write(self._discarding(send_pieces(self.disks, self._options)), tick)
        writer.flush()
        self._scratch.look()
        return SnapshotReport(self._scratch.largest)

    @property
    def paused(self) -> float | None:
        """Seconds for which the guest was paused; None if it was not."""
        return self._pause.seconds

    def check_cause(self) -> None:
        """Raise FailureError where QEMU has ended or the snapshot is lost, as something has failed."""
        if self._monitor.has_ended():
            self._monitor.check()
        if self._scratch is not None and any(map(_is_lost, self._images.values())):
            raise FailureError(
                f"the snapshot is lost: {self._scratch.fault()}; the guest runs on",
                hint="see --scratch and --scratch-limit",
            )

    def _add_scratch(self, number: int, scratch: Scratch) -> None:
        """Add the scratch of a disk, which nothing uses yet."""
        try:
            self._monitor.execute(
                "blockdev-add",
                driver="nbd",
                node_name=self._session.name(SCRATCH, number),
                server={"type": "unix", "path": scratch.path},
                export=export_of(number),
                discard="unmap",
            )
        except CommandError as error:
            raise FailureError(
                f"QEMU cannot use the scratch: {error}",
                hint="specify with --scratch a folder that QEMU can reach, and run as QEMU's user",
            ) from None

    def _add_filter(self, number: int, each: Captured) -> None:
        """Add the filter of a disk, which nothing uses yet."""
        self._monitor.execute(
            "blockdev-add",
            driver="copy-before-write",
            node_name=self._session.name(FILTER, number),
            file=each.disk.root,
            target=self._session.name(SCRATCH, number),
            on_cbw_error="break-snapshot",
            cbw_timeout=1,
            discard="unmap",  # the guest's, which it passes on
        )

    def _add_access(self, number: int) -> None:
        """Add what reads the disk as it was, above its filter in the filter's place."""
        self._monitor.execute(
            "blockdev-add",
            driver=_DRIVER,
            node_name=self._session.name(ACCESS, number),
            file=self._session.name(FILTER, number),
            discard="unmap",
        )

    def _cut(self, warn: Callable[[str], None]) -> None:
        """Put the filters in their places, all at one moment, which is also that of the bitmaps.

        For that, the guest is paused, except for a single disk without bitmaps (but see ``_IOTHREADS``).
        """
        actions = [
            *self._copies.actions(),
            *self._increment.copies.actions(),
            *self._increment.marks(),
        ]
        paused: AbstractContextManager[object] = nullcontext()
        if len(self._captured) > 1 or actions or self._adds_paused:
            paused = self._pause.brief()
        with Freeze(self._snapshot, self._guard, warn) as freeze, paused:
            if self._adds_paused:
                for number, each in enumerate(self._captured):
                    self._add_filter(number, each)
            for number, each in enumerate(self._captured):
                set_drive(self._monitor, each.disk.qdev, self._session.name(FILTER, number))
            if actions:
                self._monitor.transaction(actions)
            if self._adds_paused:
                for number, _ in enumerate(self._captured):
                    self._add_access(number)
        if freeze.held:
            self.consistency = "frozen"

    def _open(self, number: int, each: Captured) -> NbdImage:
        """Return the disk as it was."""
        node = self._session.name(ACCESS, number)
        if not self._adds_paused:
            self._add_access(number)
        name = self._session.name("snapshot", number)
        patience = limits.SNAPSHOT_ANSWER_WAIT
        return self._session.open_node(name, node, each.device, writable=True, patience=patience)

    def _discarding(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Yield ``pieces``, and discard from the snapshot what has been written of them."""
        for piece in pieces:
            yield piece
            last = last_block(piece) if isinstance(piece, Run) else piece
            if isinstance(last, Block):
                self._discard(last.device, last.sector * SECTOR_SIZE)
            if self._watch.is_slow:
                raise FailureError(
                    f"the guest's writes take over {limits.SNAPSHOT_LATENCY_MAX} ms",
                    hint=f"{_MODE}, or a faster --scratch",
                )

    def _discard(self, device: str, end: int) -> None:
        image, start = self._images[device], self._discarded.get(device, 0)
        end = min(end // CHUNK_SIZE * CHUNK_SIZE, _last(image.size))
        if end - start >= _DISCARDED:
            assert self._scratch is not None
            self._scratch.look()  # it is largest before
            image.discard([(start, end - start)])
            self._discarded[device] = end


def _last(size: int) -> int:
    """Return where the part of a disk begins that is never discarded.

    The last chunk may be sent as one that ends with the disk, together with a part of the one before.
    """
    return max(size // CHUNK_SIZE - 1, 0) * CHUNK_SIZE


def _between(disk: Disk) -> Iterator[tuple[int, int]]:
    """Yield the ranges (start, length) of whole chunks that are not a part of an increment."""
    at, end = 0, _last(disk.size)
    for start, length in disk.image.extents():
        if at < min(start, end):
            yield at, min(start, end) - at
        at = start + length
    if at < end:
        yield at, end - at


def _is_lost(image: NbdImage) -> bool:
    """Return whether a disk as it was cannot be read any more; its end is never discarded."""
    try:
        image.read(image.size - SECTOR_SIZE, SECTOR_SIZE)
    except FailureError:
        return True
    return False


def _check_possible(monitor: Monitor, captured: list[Captured]) -> None:
    """Raise FailureError where QEMU cannot take snapshots, or not of one of the disks."""
    version = ".".join(map(str, monitor.version))
    schema = monitor.execute("query-qmp-schema")
    members = {member.get("name") for entry in schema for member in entry.get("members", ())}
    drivers = {value for entry in schema for value in entry.get("values", ())}
    if not (members >= _MEMBERS and _DRIVER in drivers):
        raise FailureError(f"QEMU {version} has no snapshots of this kind (7.2 has)", hint=_MODE)
    for each in captured:
        if not each.disk.qdev:
            raise FailureError("no guest device uses it", device=each.device, hint=_MODE)
