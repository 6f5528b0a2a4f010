"""The disks of a running QEMU: which there are, which are captured, and their names in a stream."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.system.qmp import CommandError, Monitor
from blkmig_cli.text import names_text, quote

#: Names of what blkmig makes in a QEMU begin with this.
OURS = "blkmig-"
# Nodes that pass all requests on to their child "file" (QEMU 7.2, block.c: bdrv_primary_child).
_FILTERS = {"throttle", "copy-on-read", "preallocate", "compress", "blkdebug"}
# A device by its id, or a part of it that has no id of its own.
_WITH_ID = re.compile(r"/machine/peripheral/([^/]+)(?:/virtio-backend)?")
_FIRMWARE = "cfi.pflash"
# Devices whose requests are those of the guest (QEMU 7.2, hw/scsi/scsi-disk.c, scsi-generic.c).
_PASSED_THROUGH = {"scsi-block", "scsi-generic"}


@dataclass(frozen=True, slots=True)
class QemuBitmap:
    """A dirty bitmap of the node ``node`` in QEMU; ``granularity`` and ``count`` in bytes."""

    node: str
    name: str
    granularity: int
    count: int
    recording: bool
    persistent: bool
    busy: bool
    inconsistent: bool


@dataclass(frozen=True, slots=True)
class QemuDisk:
    """A disk of QEMU's, of ``size`` bytes.

    ``drive``: the id of the drive; ``qdev``: the guest device, by its id or its QOM path; ``root``: the
    node that it uses; ``node``: the first node that is no filter, which is read.  Empty where there is
    none.  ``reason``: why it is not captured unless it is named; ``obstacle``: why it cannot be.
    ``bitmaps``: those of ``root``, ``node`` and the nodes between.
    """

    drive: str
    qdev: str
    root: str
    node: str
    size: int
    image_format: str = ""
    bitmaps: tuple[QemuBitmap, ...] = ()
    reason: str | None = None
    obstacle: str | None = None

    @property
    def device_id(self) -> str:
        """The id of the guest device; empty if it has none."""
        found = _WITH_ID.fullmatch(self.qdev)
        if found is not None:
            return found[1]
        return "" if self.qdev.startswith("/") else self.qdev

    @property
    def device(self) -> str:
        """The name in a stream, as in a migration: that of the drive, the device, or the node.

        Node names that QEMU has generated, which begin with #, change with each start.
        """
        node = "" if self.root.startswith("#") else self.root
        return self.drive or self.device_id or node or self.qdev or self.root

    @property
    def ids(self) -> set[str]:
        """What specifies the disk."""
        paths = {self.qdev, self.qdev.removesuffix("/virtio-backend")}
        return {self.drive, self.device_id, self.root, self.node, *paths} - {""}


class Graph:
    """QEMU's block nodes at a moment, with their bitmaps."""

    def __init__(self, monitor: Monitor) -> None:
        found = monitor.execute("query-named-block-nodes", flat=True)
        self.nodes: dict[str, dict[str, Any]] = {node["node-name"]: node for node in found}
        self._monitor = monitor
        self._files: dict[str, str] | None = None

    def bitmaps(self, node: str) -> list[QemuBitmap]:
        """Return the bitmaps of a node that have a name."""
        return [
            QemuBitmap(
                node,
                bitmap["name"],
                bitmap["granularity"],
                bitmap["count"],
                bitmap["recording"],
                bitmap["persistent"],
                bitmap["busy"],
                bitmap.get("inconsistent", False),
            )
            for bitmap in self.nodes[node].get("dirty-bitmaps", [])
            if bitmap.get("name")
        ]

    def files(self) -> list[str]:
        """Return the files and devices that QEMU has opened, as it sees them."""
        return [
            node["file"] for node in self.nodes.values() if node["drv"] in ("file", "host_device")
        ]

    def counts(self, name: str) -> dict[str, int]:
        """Return how many bytes are dirty in the bitmaps of this name, by node."""
        return {
            node: bitmap.count
            for node in self.nodes
            for bitmap in self.bitmaps(node)
            if bitmap.name == name
        }

    def chain(self, root: str) -> list[str]:
        """Return ``root``, the nodes below it that are reached through filters, and the first other one."""
        found = [root]
        while self.nodes[found[-1]]["drv"] in _FILTERS:
            below = self._below(found[-1])
            if below is None:
                break
            found.append(below)
        return found

    def _below(self, node: str) -> str | None:
        """Return the child "file" of a node."""
        found = self.files_below().get(node)
        return found if found in self.nodes else None

    def files_below(self) -> dict[str, str]:
        """Return the child "file" of each node that has one."""
        if self._files is None:
            # Since QEMU 3.1; query-named-block-nodes has no children before QEMU 10.1.
            graph = self._monitor.execute("x-debug-query-block-graph")
            names = {node["id"]: node["name"] for node in graph["nodes"]}
            self._files = {
                names[edge["parent"]]: names[edge["child"]]
                for edge in graph["edges"]
                if edge["name"] == "file"
            }
        return self._files


def find_disks(monitor: Monitor, graph: Graph) -> list[QemuDisk]:
    """Return QEMU's disks, those without guest device last; raises FailureError."""
    found = [_disk(monitor, graph, block) for block in monitor.execute("query-block")]
    return sorted(found, key=lambda disk: not disk.qdev)


def _disk(monitor: Monitor, graph: Graph, block: dict[str, Any]) -> QemuDisk:
    drive, qdev, inserted = block["device"], block.get("qdev", ""), block.get("inserted")
    if inserted is None:
        return QemuDisk(drive, qdev, "", "", 0, obstacle="no medium")
    root = inserted["node-name"]
    kind, shared = _properties(monitor, qdev)
    reason = obstacle = None
    if kind in _PASSED_THROUGH:
        obstacle = f"passed through to the guest ({kind})"
    elif not qdev:
        reason = "no guest device"
    elif kind.startswith(_FIRMWARE):
        reason = "firmware"
    elif block["removable"]:
        reason = "removable"
    elif inserted["ro"]:
        reason = "read-only"
    elif shared:
        reason = "shared (share-rw)"
    return node_disk(graph, root, drive, qdev, reason, obstacle)


def node_disk(
    graph: Graph,
    root: str,
    drive: str = "",
    qdev: str = "",
    reason: str | None = None,
    obstacle: str | None = None,
) -> QemuDisk:
    """Return the disk with the node ``root``; see :class:`QemuDisk`."""
    chain = graph.chain(root)
    bitmaps = [bitmap for node in chain for bitmap in graph.bitmaps(node)]
    size = graph.nodes[chain[-1]]["image"]["virtual-size"]
    if not size:
        obstacle = obstacle or "empty"
    return QemuDisk(
        drive,
        qdev,
        root,
        chain[-1],
        size,
        graph.nodes[chain[-1]]["drv"],
        tuple(bitmap for bitmap in bitmaps if not bitmap.name.startswith(OURS)),
        reason,
        obstacle,
    )


def _properties(monitor: Monitor, qdev: str) -> tuple[str, bool]:
    """Return the type of a guest device, and whether it shares its disk with other writers."""
    if not qdev:
        return "", False
    kind = _property(monitor, qdev, "type")
    return str(kind or ""), bool(_property(monitor, qdev, "share-rw"))


def has_iothread(monitor: Monitor, disk: QemuDisk) -> bool:
    """Return whether the requests of a disk may be those of an iothread."""
    if not monitor.execute("query-iothreads"):
        return False
    # That of a SCSI disk is its controller's.
    kind = str(_property(monitor, disk.qdev, "type"))
    own = ("iothread", "iothread-vq-mapping")
    return kind.startswith("scsi-") or any(_property(monitor, disk.qdev, name) for name in own)


def qom_path(qdev: str) -> str:
    """Return the QOM path of a guest device that is specified by its id or its path."""
    return qdev if qdev.startswith("/") else f"/machine/peripheral/{qdev}"


def _property(monitor: Monitor, qdev: str, name: str) -> Any:
    """Return a property of a guest device; None if it has no such property."""
    try:
        return monitor.execute("qom-get", path=qom_path(qdev), property=name)
    except CommandError:
        return None


def check_unchanged(monitor: Monitor, graph: Graph, disks: Mapping[str, QemuDisk]) -> None:
    """Raise FailureError where a disk (by device) was removed, resized or given another node."""
    blocks = {
        (block["device"], block.get("qdev", "")): block.get("inserted")
        for block in monitor.execute("query-block")
    }
    for device, disk in disks.items():
        what = None
        if disk.drive or disk.qdev:
            if (disk.drive, disk.qdev) not in blocks:
                what = "it was removed"
            else:
                inserted = blocks[disk.drive, disk.qdev]
                if inserted is None or inserted["node-name"] != disk.root:
                    what = "its medium or its node was exchanged"
        if what is None and disk.node not in graph.nodes:
            what = "it was removed"
        if what is None and graph.nodes[disk.node]["image"]["virtual-size"] != disk.size:
            what = "it was resized"
        if what is not None:
            raise FailureError(f"{what} while it was captured", device=device)


def choose(
    graph: Graph,
    disks: list[QemuDisk],
    wanted: Iterable[tuple[str | None, str]],
    excluded: Iterable[str],
) -> dict[str, QemuDisk]:
    """Return the disks to capture by their names in the stream.

    ``wanted``: ids (see ``QemuDisk.ids``) or names of nodes, each with a name for the stream or None;
    empty: all disks for which there is no reason against.  ``excluded``: ids of disks to leave out.

    Raises UsageError for an id that no disk has, or a name that two disks have; FailureError where a disk
    cannot be captured, or none is left.
    """
    left_out = [_find("--exclude", graph, disks, text) for text in excluded]
    named = [(name, _find("--disk", graph, disks, text)) for name, text in wanted]
    if not named:
        named = [(None, disk) for disk in disks if disk.reason is None and disk.obstacle is None]
    found: dict[str, QemuDisk] = {}
    for name, disk in named:
        if disk in left_out:
            continue
        device = disk.device if name is None else name
        if device in found or disk.node in {other.node for other in found.values()}:
            raise UsageError(
                f"two disks are called {quote(device)}, or one is specified twice",
                hint="name them with --disk DEVICE=ID",
            )
        if disk.obstacle is not None:
            raise FailureError(f"it cannot be captured: {disk.obstacle}", device=device)
        found[device] = disk
    if not found:
        raise FailureError(
            "QEMU has no disk to capture", hint="see --list, and specify one with --disk"
        )
    return found


def _find(option: str, graph: Graph, disks: list[QemuDisk], text: str) -> QemuDisk:
    """Return the disk that ``text`` in ``option`` specifies; raises UsageError."""
    found = [disk for disk in disks if text in disk.ids]
    # A drive, a device and a node may have the same name: that of the drive counts, as in QEMU.
    if len(found) > 1:
        found = [disk for disk in found if text == disk.drive] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{option} {quote(text)}: there are {len(found)} such disks")
    if text in graph.nodes:
        return node_disk(graph, text)
    known = names_text(sorted(_shown(disks)))
    raise UsageError(f"{option} {quote(text)}: no such disk; the disks are {known}")


def _shown(disks: Iterable[QemuDisk]) -> Iterator[str]:
    for disk in disks:
        if disk.obstacle is None:
            yield disk.device
