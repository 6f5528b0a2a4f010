"""What runs of blkmig make in a QEMU: exports, bitmaps, nodes and an NBD server; finding and removing them.

Every name begins with ``blkmig-RUN-``, where RUN is a random number of a run.  While a run works, its
bitmaps and nodes exist only as long as its exports of the disks do, and it is connected to each of these:
so QEMU itself tells, by refusing to remove an export that is in use, which runs are at work.
"""

import re
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import field

from blkmig_cli.dataclass import dataclass
from blkmig_cli.operations.live.disks import OURS, Graph, qom_path
from blkmig_cli.system.qmp import CommandError, Monitor

#: What an export of a disk's data has in its name.
DATA = "data"
#: What the nodes of a snapshot have in their names: that which shows it, that which saves what the guest
#: overwrites, and the scratch; in the order in which they are removed.
ACCESS, FILTER, SCRATCH = NODES = ("access", "filter", "scratch")
_NAME = re.compile(re.escape(OURS) + r"([0-9a-f]{8})-(.+)")


@dataclass(slots=True)
class Remnants:
    """What a run has made: the ids of its exports, its bitmaps as (node, name), and its nodes."""

    exports: list[str] = field(default_factory=list)
    bitmaps: list[tuple[str, str]] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)

    @property
    def data(self) -> list[str]:
        """The exports of the disks' data."""
        return [name for name in self.exports if run_of(name)[1].startswith(DATA)]


def new_run() -> str:
    """Return the name of a new run."""
    return uuid.uuid4().hex[:8]


def prefix_of(run: str) -> str:
    """Return what the names of a run begin with."""
    return f"{OURS}{run}-"


def run_of(name: str) -> tuple[str, str]:
    """Return the run in a name, and the rest of the name; both are empty if it is not one of ours."""
    found = _NAME.fullmatch(name)
    return ("", "") if found is None else (found[1], found[2])


def find_remnants(monitor: Monitor) -> dict[str, Remnants]:
    """Return what there is in QEMU, by run; raises FailureError."""
    found: dict[str, Remnants] = {}
    for export in monitor.execute("query-block-exports"):
        run, _ = run_of(export["id"])
        if run:
            found.setdefault(run, Remnants()).exports.append(export["id"])
    graph = Graph(monitor)
    for node in graph.nodes:
        run, rest = run_of(node)
        if rest.partition("-")[0] in NODES:
            found.setdefault(run, Remnants()).nodes.append(node)
        for bitmap in graph.bitmaps(node):
            run, _ = run_of(bitmap.name)
            if run:
                found.setdefault(run, Remnants()).bitmaps.append((node, bitmap.name))
    return found


def remove_exports(monitor: Monitor, exports: Iterable[str], mode: str = "hard") -> None:
    """Remove NBD exports, and wait until they are gone.

    Raises CommandError, in the mode ``safe`` for one that is in use.
    """
    for export in exports:
        monitor.execute("block-export-del", id=export, mode=mode)
        monitor.wait_for("BLOCK_EXPORT_DELETED", id=export)


def remove_bitmaps(monitor: Monitor, bitmaps: Iterable[tuple[str, str]]) -> None:
    """Remove bitmaps (node, name); raises CommandError."""
    for node, name in bitmaps:
        monitor.execute("block-dirty-bitmap-remove", node=node, name=name)


def remove_nodes(monitor: Monitor, nodes: Collection[str]) -> None:
    """Remove the nodes of a snapshot, and give the guest's devices their own nodes back.

    Raises CommandError, also for a node that something else uses, which is left as it is.
    """
    files = Graph(monitor).files_below() if nodes else {}
    for node in sorted(nodes, key=lambda name: NODES.index(run_of(name)[1].partition("-")[0])):
        for block in monitor.execute("query-block"):
            used = block.get("inserted", {}).get("node-name") == node
            if used and "qdev" in block and node in files:
                set_drive(monitor, block["qdev"], files[node])
        monitor.execute("blockdev-del", node_name=node)


def set_drive(monitor: Monitor, qdev: str, node: str) -> None:
    """Have a guest device use a node, from one request to the next; raises CommandError."""
    monitor.execute("qom-set", path=qom_path(qdev), property="drive", value=node)


def remove_all(monitor: Monitor, left: Remnants) -> None:
    """Remove what a run has made, as much as can be; raises FailureError, at the end CommandError.

    No export stays because of something else that does: its client may hang up, which QEMU 7.2.22 does
    not survive if the disk has an iothread (see ``guard.py``).
    """
    others = [name for name in left.exports if name not in left.data]
    refused: list[CommandError] = []
    # Those of the data are last: bitmaps without them are taken for those of a run that was killed.
    steps: list[Callable[[], None]] = [
        lambda: remove_exports(monitor, others),
        lambda: remove_nodes(monitor, left.nodes),
        lambda: remove_bitmaps(monitor, left.bitmaps),
        lambda: remove_exports(monitor, left.data),
    ]
    for remove in steps:
        try:
            remove()
        except CommandError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def stop_server(monitor: Monitor) -> bool:
    """Stop the NBD server of a run whose exports are removed, unless others are served; return whether."""
    if monitor.execute("query-block-exports"):
        return False
    monitor.execute("nbd-server-stop")
    return True


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """The result: names of the ``exports``, ``bitmaps`` and ``nodes`` removed, and of runs at ``work``."""

    exports: tuple[str, ...]
    bitmaps: tuple[str, ...]
    nodes: tuple[str, ...]
    work: tuple[str, ...]
    server: bool


def clean_up(monitor: Monitor) -> CleanedUp:
    """Remove what runs that have ended left in QEMU; raises FailureError."""
    exports: list[str] = []
    bitmaps: list[str] = []
    nodes: list[str] = []
    work: list[str] = []
    for run, left in find_remnants(monitor).items():
        try:
            remove_exports(monitor, left.data, "safe")
        except CommandError:  # a client is connected
            work.append(prefix_of(run).removesuffix("-"))
            continue
        others = [name for name in left.exports if name not in left.data]
        remove_all(monitor, Remnants(others, left.bitmaps, left.nodes))
        exports += left.exports
        bitmaps += [name for _, name in left.bitmaps]
        nodes += left.nodes
    server = bool(exports) and stop_server(monitor)
    return CleanedUp(tuple(exports), tuple(bitmaps), tuple(nodes), tuple(work), server)
