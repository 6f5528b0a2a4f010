"""A disk of QEMU's that is captured, and the QMP actions that add and copy bitmaps."""

from dataclasses import dataclass
from typing import Any

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.operations.live.disks import QemuBitmap, QemuDisk
from blkmig_cli.system.qmp import action


@dataclass(frozen=True, slots=True)
class Captured:
    """A disk that is captured: its name in the stream, and the bitmaps that are sent with it."""

    device: str
    disk: QemuDisk
    bitmaps: tuple[QemuBitmap, ...] = ()


@dataclass(frozen=True, slots=True)
class BitmapCopy:
    """The copy ``name`` in QEMU of the bitmap ``source``, whose content goes to ``target``."""

    name: str
    device: str
    source: QemuBitmap
    target: DirtyBitmap

    def actions(self) -> list[dict[str, Any]]:
        """Return the actions that make it, on the node of its source."""
        node = self.source.node
        return [
            add_bitmap(node, self.name, self.source.granularity, enabled=False),
            merge_bitmap(node, self.name, self.source.name),
        ]


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


def merge_bitmap(node: str, target: str, source: str) -> dict[str, Any]:
    """Return the action that merges the bitmap ``source`` into ``target`` of the same node."""
    return action("block-dirty-bitmap-merge", node=node, target=target, bitmaps=[source])
