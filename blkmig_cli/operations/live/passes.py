"""Capturing the final state of disks while the guest runs, as a migration does.

All of the disks is sent first, then, pass by pass, what was written meanwhile, and the rest while the
guest is paused.  Writes are recorded in the bitmap ``track`` of each disk, by chunks of 1 MiB.  A pass
moves its content to the bitmap ``pass`` in one transaction for all disks, reads that through an export of
its own, and reads the chunks through the export of the disk, which stays.  The last transaction copies the
named bitmaps, too, so that they are of the same moment as the disks.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, Literal

from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.nbd.image import NbdImage
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.live.copies import Captured, Copies, add_bitmap, merge
from blkmig_cli.operations.live.disks import Graph, check_unchanged
from blkmig_cli.operations.live.estimate import Estimate
from blkmig_cli.operations.live.increment import Increment
from blkmig_cli.operations.live.pause import Pause
from blkmig_cli.operations.live.request import PassesOptions, PassesReport, PassReport
from blkmig_cli.operations.live.session import Session
from blkmig_cli.operations.live.writer import Hold, Reading, Writer, size_of
from blkmig_cli.operations.send.stream import (
    SendOptions,
    disk_parts,
    progress_part,
    stream_end,
    stream_start,
)
from blkmig_cli.progress import Progress, Tick
from blkmig_cli.schemas.constants import CHUNK_SIZE
from blkmig_cli.system.qmp import CommandError, action
from blkmig_cli.text import human_size, quote
from blkmig_cli.wire.identity import Identity
from blkmig_cli.wire.runs.columns import Piece

#: Ranges (start, length) in bytes, by device.
Changes = dict[str, list[tuple[int, int]]]


class Passes:
    """A capture of the disks ``captured`` in passes.

    ``options``: how to send; ``increment``: what an increment has; ``identify`` returns the identity of the
    stream of some disks, with a consistency, at the moment at which it is called: first when their sizes
    are known, then when the guest is paused.
    """

    consistency = "paused"

    def __init__(
        self,
        session: Session,
        captured: list[Captured],
        passes: PassesOptions,
        options: SendOptions,
        increment: Increment,
        identify: Callable[[list[Disk], str], Identity | None],
        pause: Pause,
    ) -> None:
        self._session = session
        self._monitor = session.monitor
        self._captured = captured
        self._passes = passes
        self._options = options
        self._increment = increment
        self._identify = identify
        self._pause = pause
        self._estimate = Estimate()
        self._track, self._pass = session.name("track", 0), session.name("pass", 0)
        self._images: dict[str, NbdImage] = {}
        self._exports: list[str] = []
        self._first: list[Disk] = []  # what is sent first of the disks
        self._copies = Copies(session, captured)
        self.disks: list[Disk] = []
        self.identity: Identity | None = None
        #: Seconds for which the guest was paused; None if it was not.
        self.paused: float | None = None
        self._done: list[PassReport] = []
        self._predicted: float | None = None
        self._converged = True

    def begin(self, warn: Callable[[str], None]) -> None:
        """Make what the passes need in QEMU; from now on, writes are recorded.

        ``warn`` is called with each warning about an increment.
        """
        began = time.monotonic()
        self._session.start_server()
        for number, each in enumerate(self._captured):
            image = self._session.open_disk(number, each.device, each.disk)
            self._images[each.device] = image
            self.disks.append(Disk(each.device, image, self._copies.targets[each.device]))
        since = self._increment.copies
        self._monitor.transaction(
            [
                add_bitmap(each.disk.node, name, CHUNK_SIZE, enabled=enabled)
                for each in self._captured
                for name, enabled in ((self._track, True), (self._pass, False))
            ]
            + since.actions()
        )
        self._estimate.add_fixed(time.monotonic() - began)
        self._check()
        since.read()
        self._first = self._increment.bulk(self.disks, self._images, self._options, warn)
        self._state_identity()

    def run(self, writer: Writer, progress: Progress) -> PassesReport:
        """Send everything; the guest is paused for the last pass.

        Raises FailureError where something fails, changes or does not converge.
        """
        # The records of data carry no bitmaps: these are sent when they are final.
        bare = [Disk(disk.device, disk.image) for disk in self.disks]
        writer.write(stream_start(self.disks, self._options))
        bits = replace(self._options, disks=False)
        if self._options.dialect == "v2":  # its first records name the bitmaps
            writer.write(disk_parts(self.disks, bits, counts=False))
        self._bulk(writer, progress)
        number = 0
        while not self._is_enough(number):
            number += 1
            self._dirty_pass(number, bare, writer, progress)
        self._last_pass(bare, writer, progress)
        if self._options.dialect != "qemu":
            writer.write(disk_parts(self.disks, bits, counts=False), paced=False)
        writer.write(stream_end(self.disks, self._options), paced=False)
        writer.flush()
        sent = sum(done.size for done in self._done) / sum(disk.size for disk in self.disks)
        return PassesReport(
            tuple(self._done), sent, self._predicted, self._converged, self._pause.is_paused
        )

    def check_cause(self) -> None:
        """Raise FailureError where QEMU has ended or its disks have changed, as something has failed."""
        if self._monitor.has_ended():
            self._monitor.check()
        self._check()

    def _bulk(self, writer: Writer, progress: Progress) -> None:
        began = time.monotonic()
        size = sum(
            sum(length for _, length in disk.image.extents()) if disk.partial else disk.size
            for disk in self._first
        )
        with progress("sending", size) as tick:
            writer.write(disk_parts(self._first, self._options), tick)
            writer.write(progress_part(100, self._options))
        seconds = time.monotonic() - began
        self._estimate.add_reading(writer.read, seconds)
        self._add("bulk", size, writer.read, seconds)

    def _is_enough(self, number: int) -> bool:
        """Return whether the guest is to be paused now, after ``number`` passes."""
        self._check()
        for image in self._images.values():
            image.flush()  # QEMU does so when it pauses the guest, which takes longer then
        left = sum(self._left().values())
        predicted = self._predicted = self._estimate.pause(left)
        self._converged = predicted <= self._passes.downtime
        if self._converged or number < self._passes.max_passes:
            return self._converged
        if self._passes.on_no_converge == "fail":
            raise FailureError(
                f"the guest writes too fast: after {number} passes, {human_size(left)} are "
                f"left, for which it would be paused for {predicted * 1000:.0f} ms",
                hint="raise --downtime or --max-passes, or use --on-no-converge pause",
            )
        return True

    def _dirty_pass(
        self, number: int, bare: list[Disk], writer: Writer, progress: Progress
    ) -> None:
        began, reading = time.monotonic(), Reading()
        changes = self._take_changes([])
        self._release()
        self._check()
        with progress(f"pass {number}", _total(changes)) as tick:
            done = 0
            for batch in reading.batches(self._parts(bare, changes)):
                writer.write(batch, _after(done, tick))
                done += sum(map(size_of, batch))
        self._estimate.add_reading(reading.size, reading.seconds)
        self._add("dirty", _total(changes), reading.size, time.monotonic() - began)

    def _last_pass(self, bare: list[Disk], writer: Writer, progress: Progress) -> None:
        """Send the rest.

        The guest does not wait for the target: what was read while it was paused is written afterwards.
        """
        reading, pause = Reading(), self._pause
        with closing(Hold()) as hold:
            began = time.monotonic()
            pause.begin()
            changes = self._take_changes([*self._copies.actions(), *self._increment.marks()])
            for batch in reading.batches(self._parts(bare, changes)):
                hold.add(batch)
            self._check()
            self._check_idle()
            self._state_identity()
            if not pause.is_paused:
                self._predicted = None
            if self._passes.then == "resume":
                pause.end()
            self.paused = pause.elapsed()
            self._add("paused", _total(changes), reading.size, time.monotonic() - began)
            with progress("last pass", _total(changes)) as tick:
                writer.write(hold.events, tick, paced=False)
        self._release()
        self._copies.read()

    def _state_identity(self) -> None:
        self.identity = self._identify(self.disks, self.consistency)
        self._options = replace(self._options, identity=self.identity)

    def _take_changes(self, more: list[dict[str, Any]]) -> Changes:
        """Return what was written since the last pass; ``more``: actions of the same moment.

        What it exports is to be released before it is called again.
        """
        began = time.monotonic()
        actions: list[dict[str, Any]] = []
        for each in self._captured:
            node = each.disk.node
            actions.append(action("block-dirty-bitmap-clear", node=node, name=self._pass))
            actions.append(merge(node, self._pass, self._track))
            actions.append(action("block-dirty-bitmap-clear", node=node, name=self._track))
        actions += more
        try:
            self._monitor.transaction(actions)
        except CommandError as error:
            raise FailureError(
                f"a bitmap or a disk was removed or changed while it was captured: {error}"
            ) from None
        counts = Graph(self._monitor).counts(self._pass)
        changes: Changes = {}
        for number, each in enumerate(self._captured):
            ranges: list[tuple[int, int]] = []
            if counts.get(each.disk.node):
                name = self._session.name("changes", number)
                self._exports.append(name)
                self._session.export(name, each.disk.node, [self._pass])
                image = self._session.connect(name, each.device, (self._pass,))
                ranges = list(image.dirty_ranges(self._pass))
            changes[each.device] = ranges
        self._estimate.add_fixed(time.monotonic() - began)
        return changes

    def _release(self) -> None:
        """Remove the exports of a pass, which keep its bitmaps in use."""
        while self._exports:
            self._session.remove_export(self._exports.pop())

    def _parts(self, bare: list[Disk], changes: Changes) -> Iterator[Piece]:
        """Return the parts with changed chunks."""
        changed = [disk for disk in bare if changes[disk.device]]
        planned = {
            disk.device: self._images[disk.device].planned(changes[disk.device]) for disk in changed
        }
        return disk_parts(changed, self._options, planned, counts=False)

    def _left(self) -> dict[str, int]:
        """Return how many bytes were written since the last pass, by node."""
        return Graph(self._monitor).counts(self._track)

    def _check(self) -> None:
        """Raise FailureError where QEMU's disks or its jobs have changed, or the guest was resumed."""
        resumed = False
        for event in self._monitor.events():
            if event.name == "JOB_STATUS_CHANGE" and event.data.get("status") == "created":
                raise FailureError(f"a block job was started meanwhile: {quote(event.data['id'])}")
            if event.name in ("STOP", "RESUME"):
                resumed = event.name == "RESUME"
        if resumed and self._pause.is_paused:
            raise FailureError("another client of QEMU has resumed the guest meanwhile")
        disks = {each.device: each.disk for each in self._captured}
        check_unchanged(self._monitor, Graph(self._monitor), disks)

    def _check_idle(self) -> None:
        """Raise FailureError where a disk was written in the last pass."""
        left = self._left()
        for each in self._captured:
            if left.get(each.disk.node):
                raise FailureError(
                    "it was written while the guest was paused, by something else",
                    device=each.device,
                )

    def _add(
        self, kind: Literal["bulk", "dirty", "paused"], size: int, read: int, seconds: float
    ) -> None:
        left = 0 if kind == "paused" else sum(self._left().values())
        self._done.append(PassReport(kind, size, read, seconds, left))


def _after(done: int, tick: Tick) -> Tick:
    """Return a function that ticks ``done`` bytes later."""
    return lambda more, disk=None: tick(done + more, disk)


def _total(changes: Changes) -> int:
    return sum(length for ranges in changes.values() for _, length in ranges)
