"""Copies of named bitmaps, made at one moment with everything else, and read afterwards."""

from typing import Any

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.operations.live.disks import QemuBitmap, QemuDisk
from blkmig_cli.operations.live.session import Session
from blkmig_cli.system.qmp import action


@dataclass(frozen=True, slots=True)
class Captured:
    """A disk that is captured: its name in the stream, and the bitmaps that are sent with it."""

    device: str
    disk: QemuDisk
    bitmaps: tuple[QemuBitmap, ...] = ()


@dataclass(frozen=True, slots=True)
class _Copy:
    """The copy ``name`` of a named bitmap, whose content goes to ``target``."""

    name: str
    device: str
    source: QemuBitmap
    target: DirtyBitmap


class Copies:
    """The copies of the bitmaps of ``captured`` in a run, under names with ``kind``.

    ``targets``: the bitmaps to send, by device, which are clean until :meth:`read`.
    """

    def __init__(self, session: Session, captured: list[Captured], kind: str = "copy") -> None:
        self._session = session
        self.targets = {
            each.device: [
                DirtyBitmap(bitmap.name, bitmap.granularity, bitmap.recording, bitmap.persistent)
                for bitmap in each.bitmaps
            ]
            for each in captured
        }
        self._copies = [
            _Copy(session.name(f"{kind}{number}", index), each.device, source, target)
            for number, each in enumerate(captured)
            for index, (source, target) in enumerate(
                zip(each.bitmaps, self.targets[each.device], strict=True)
            )
        ]

    def actions(self) -> list[dict[str, Any]]:
        """Return the actions of a transaction that make the copies."""
        return [
            made
            for copy in self._copies
            for made in (
                add_bitmap(copy.source.node, copy.name, copy.source.granularity, enabled=False),
                merge(copy.source.node, copy.name, copy.source.name),
            )
        ]

    def read(self) -> None:
        """Read the copies, which do not change any more; raises FailureError."""
        for number, node in enumerate(dict.fromkeys(copy.source.node for copy in self._copies)):
            mine = [copy for copy in self._copies if copy.source.node == node]
            names = tuple(copy.name for copy in mine)
            name = self._session.name("bitmaps", number)
            self._session.export(name, node, names)
            image = self._session.connect(name, mine[0].device, names)
            for copy in mine:
                for start, length in image.dirty_ranges(copy.name):
                    copy.target.set_range(start, length)
            self._session.remove_export(name)


def add_bitmap(
    node: str, name: str, granularity: int, *, enabled: bool, persistent: bool = False
) -> dict[str, Any]:
    """Return the action that adds a bitmap to a node; ``granularity`` in bytes."""
    return action(
        "block-dirty-bitmap-add",
        node=node,
        name=name,
        granularity=granularity,
        persistent=persistent,
        disabled=not enabled,
    )


def merge(node: str, target: str, source: str) -> dict[str, Any]:
    """Return the action that adds what is dirty in a bitmap to another one of the node."""
    return action("block-dirty-bitmap-merge", node=node, target=target, bitmaps=[source])
