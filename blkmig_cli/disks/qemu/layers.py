"""The layers of an image file: it, its backing file, the backing file of that, and so on.

QEMU would guess the format of a backing file whose format is not stated from its content, which a guest
may have written.  So each layer is examined alone, and opened with a stated format.
"""

import os
import stat
from collections.abc import Iterator
from typing import Any

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.formats import RAW, check_format
from blkmig_cli.disks.qemu.daemon import StorageDaemon
from blkmig_cli.errors import FailureError, UsageError, failing
from blkmig_cli.text import escape

#: The node of the image itself, and the one of its file.
DISK = "disk"
FILE = "file"
_DATA = "data"
_FILES = ("file", "host_device")


@dataclass(frozen=True, slots=True)
class Layer:
    """The file at ``path``, of ``format``.

    ``info``: what QEMU tells about it (QAPI: ImageInfo).  ``files``: other files that it consists of.
    """

    path: str
    format: str
    info: dict[str, Any]
    files: tuple[str, ...] = ()

    @property
    def details(self) -> dict[str, Any]:
        """What QEMU tells about the format (QAPI: ImageInfoSpecific)."""
        found: dict[str, Any] = self.info.get("format-specific", {}).get("data", {})
        return found


def examine(daemon: StorageDaemon, path: str, image_format: str) -> list[Layer]:
    """Return the layers of an image, the image itself first; nothing is locked or changed.

    Raises FailureError where one is missing or damaged, a backing file has no stated format, or is not
    a file or block device.
    """
    found = [_examine(daemon, path, image_format)]
    while True:
        last = found[-1]
        if last.info.get("backing-filename") is None:
            return found
        if len(found) > limits.BACKING_FILES_MAX:
            raise FailureError(
                f"{escape(path)}: over {limits.BACKING_FILES_MAX} backing files, one on the other"
            )
        backing = last.info.get("full-backing-filename") or last.info["backing-filename"]
        name = escape(backing)
        stated = last.info.get("backing-filename-format")
        if stated is None:
            raise FailureError(
                f"{escape(last.path)}: the format of its backing file {name} is not stated",
                hint=f"state it with: qemu-img rebase -u -F FORMAT -b {name} {escape(last.path)}",
            )
        if not os.path.isabs(backing):
            raise FailureError(f"{escape(last.path)}: its backing file {name} is not a file")
        try:
            check_format(stated)
        except UsageError as error:
            raise FailureError(f"{escape(last.path)}: its backing file: {error.message}") from None
        found.append(_examine(daemon, backing, stated))


def add_layers(
    daemon: StorageDaemon, layers: list[Layer], *, writable: bool, shared: bool
) -> dict[str, Any]:
    """Open all ``layers`` in the daemon as the node ``DISK``, and return the options of that node.

    It is read-only; if ``writable``, it can be reopened for writing.  ``shared``: also if another
    program writes the image.  Raises FailureError where one is in use.
    """
    options: dict[str, Any] = {}
    below = None
    for number, layer in reversed(list(enumerate(layers))):
        node, file = (DISK, FILE) if number == 0 else (f"{DISK}{number}", f"{FILE}{number}")
        access = {"read-only": True, "discard": "unmap"}
        if shared:
            access["force-share"] = True
        below_it = access | {"read-only": number > 0 or not writable, "auto-read-only": True}
        daemon.execute("blockdev-add", **_file(layer.path, file), **below_it)
        options = {"driver": layer.format, "node-name": node, "file": file, **access}
        if "backing-filename" in layer.info:
            options["backing"] = below
        if "data-file" in layer.details:
            (data,) = layer.files
            options["data-file"] = f"{_DATA}{number}"
            daemon.execute("blockdev-add", **_file(data, f"{_DATA}{number}"), **below_it)
        daemon.execute("blockdev-add", **options)
        below = node
    return options


def described(layer: Layer) -> dict[str, Any]:
    """Return the description of an image of one layer, without a backing file, for qemu-img."""
    file = _file(layer.path, FILE)
    del file["node-name"]
    return {"driver": layer.format, "file": file}


def _examine(daemon: StorageDaemon, path: str, image_format: str) -> Layer:
    access = {"read-only": True, "force-share": True}
    file = _file(path, FILE) | access
    daemon.execute("blockdev-add", **file)
    node = {"driver": image_format, "node-name": DISK, "file": FILE, **access}
    if image_format != RAW:
        node |= {"backing": None} if _may_have_backing(image_format) else {}
    daemon.execute("blockdev-add", **node)
    nodes = daemon.execute("query-named-block-nodes")
    info = next(found["image"] for found in nodes if found["node-name"] == DISK)
    files = tuple(_other_files(nodes))
    for name in (DISK, FILE):
        daemon.execute("blockdev-del", node_name=name)
    return Layer(path, image_format, info, files)


def _may_have_backing(image_format: str) -> bool:
    return image_format in ("qcow", "qcow2", "qed", "vmdk")


def _other_files(nodes: list[dict[str, Any]]) -> Iterator[str]:
    for node in nodes:
        if node["drv"] in _FILES and node["node-name"] != FILE:
            yield node["file"]


def _file(path: str, node: str) -> dict[str, Any]:
    """Return the options of a node for the file or block device at ``path``."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise FailureError(f"{escape(path)}: QEMU opens no file whose name is not UTF-8") from None
    with failing(path):
        is_block = stat.S_ISBLK(os.stat(path).st_mode)
    driver = "host_device" if is_block else "file"
    return {"driver": driver, "node-name": node, "filename": os.path.abspath(path)}
