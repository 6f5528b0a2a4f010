"""Increments of a running QEMU: the bitmaps that select what is sent, and those that are created.

The content of a bitmap since which changes are sent is copied in the transaction from which on writes are
tracked.  The new bitmap records from the moment of the capture on, under a name of the run; it gets its own
name when the stream is stored.
"""

from collections.abc import Callable, Iterator
from typing import Any

from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.granularity import GRANULARITY
from blkmig_cli.disks.nbd.image import NbdImage
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.live.copies import Captured, Copies, add_bitmap, merge
from blkmig_cli.operations.live.disks import QemuBitmap
from blkmig_cli.operations.live.session import Session
from blkmig_cli.operations.send.changes import (
    Dirty,
    SendChanges,
    UnusableError,
    check_named,
    select_changes,
)
from blkmig_cli.operations.send.identity import Base
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.system.qmp import CommandError, action
from blkmig_cli.text import quote

# The format of images that store bitmaps.
_STORES = "qcow2"


class Increment:
    """What ``changes`` ask for of the disks ``captured``, onto ``base``.

    Raises UsageError and FailureError where a disk has no such bitmap, or one that is in the way.
    """

    def __init__(
        self,
        session: Session,
        captured: list[Captured],
        changes: SendChanges,
        base: Base | None,
    ) -> None:
        self._session = session
        self._captured = captured
        self._changes = changes
        self._base = base
        self.selected: dict[str, str] | None = None
        check_named(changes, [each.device for each in captured])
        if changes.files:
            raise UsageError("bitmaps of a running QEMU are not in files")
        usable: list[Captured] = []
        for each in captured if changes.since else ():
            source = _find(each, changes.since.get(each.device, changes.since.get(None, "")))
            if source is not None and _fault(source) is None:
                usable.append(Captured(each.device, each.disk, (source,)))
        #: The copies to make in the transaction from which on writes are tracked.
        self.copies = Copies(session, usable, "since")
        self._check_names()

    def bulk(
        self,
        disks: list[Disk],
        images: dict[str, NbdImage],
        options: SendOptions,
        warn: Callable[[str], None],
    ) -> list[Disk]:
        """Return what is sent first of ``disks`` (whose ``images`` are open), now that the copies are read.

        Raises as :func:`select_changes`.
        """
        first = [Disk(disk.device, disk.image) for disk in disks]
        self.selected = select_changes(
            first, images, self._changes, options, self._base, self._dirty, warn
        )
        return first

    def marks(self) -> Iterator[dict[str, Any]]:
        """Yield the actions of the transaction that is the moment of the capture."""
        if self._changes.mark is not None:
            for number, each in enumerate(self._captured):
                name = self._session.name("mark", number)
                yield add_bitmap(each.disk.node, name, GRANULARITY, enabled=True)

    def finish(self) -> None:
        """Give new bitmaps their names, and remove those to drop, now that the stream is stored.

        Raises FailureError.
        """
        actions: list[dict[str, Any]] = []
        for number, each in enumerate(self._captured):
            node, ours = each.disk.node, self._session.name("mark", number)
            if self._changes.mark is not None:
                mark = self._changes.mark
                persistent = each.disk.image_format == _STORES
                actions += [
                    add_bitmap(node, mark, GRANULARITY, enabled=True, persistent=persistent),
                    merge(node, mark, ours),
                    action("block-dirty-bitmap-remove", node=node, name=ours),
                ]
            for name in self._changes.drop:
                found = _find(each, name)
                if found is not None:
                    actions.append(action("block-dirty-bitmap-remove", node=found.node, name=name))
        if not actions:
            return
        try:
            self._session.monitor.transaction(actions)
        except CommandError as error:
            raise FailureError(
                f"the stream is complete, but its bitmap was not created, or one not removed: {error}"
            ) from None

    def _dirty(self, device: str, name: str) -> Dirty:
        """Return what is dirty in a bitmap of a device as it was copied; raises UnusableError."""
        (each,) = (each for each in self._captured if each.device == device)
        for found in self.copies.targets.get(device, ()):
            size = each.disk.size
            parts = found.range_parts(size)
            return ((start, length) for part in parts for start, length in part.tolist()), size
        source = _find(each, name)
        fault = "there is no such bitmap" if source is None else _fault(source)
        raise UnusableError(fault)

    def _check_names(self) -> None:
        known = {bitmap.name for each in self._captured for bitmap in each.disk.bitmaps}
        if self._changes.mark in known:
            raise FailureError(f"there is a bitmap {quote(self._changes.mark or '')} already")
        for name in self._changes.drop:
            if name not in known:
                raise UsageError(f"--drop: no disk has a bitmap {quote(name)}")


def _find(captured: Captured, name: str) -> QemuBitmap | None:
    return next((found for found in captured.disk.bitmaps if found.name == name), None)


def _fault(bitmap: QemuBitmap) -> str | None:
    if bitmap.inconsistent:
        return "it is inconsistent"
    if bitmap.busy:
        return "it is in use"
    return None if bitmap.recording else "it is not recording, so that it does not tell all changes"
