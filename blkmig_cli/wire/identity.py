"""The key ``blkmig`` in a stream's JSON description: what a stream of ours says of itself.

QEMU reads the description without looking into it (migration/savevm.c, qemu_loadvm_state), and keys
that its tools do not know are ignored.  Sizes of disks are what is written and read here:

    {"devices": [], "blkmig": {"version": 1, "disks": {"drive0": {"size": 1048576}}}}
"""

import json
from collections.abc import Mapping
from typing import Any

from blkmig_cli import limits
from blkmig_cli.schemas.constants import SECTOR_SIZE

KEY = "blkmig"
VERSION = 1


def description(sizes: Mapping[str, int]) -> bytes:
    """Return a description without devices that states the ``sizes`` of disks in bytes, by device."""
    root: dict[str, Any] = {"devices": []}
    if sizes:
        disks = {name: {"size": size} for name, size in sizes.items()}
        root[KEY] = {"version": VERSION, "disks": disks}
    return json.dumps(root).encode("ascii")


def stated_sizes(text: bytes | memoryview) -> dict[str, int]:
    """Return the sizes of disks in bytes that a description states, by device.

    Nothing where it has none, or is longer than ``limits.IDENTITY_MAX``; what makes no sense is left
    out.
    """
    data = bytes(text) if len(text) <= limits.IDENTITY_MAX else b""
    if f'"{KEY}"'.encode() not in data:
        return {}
    try:
        identity = json.loads(data)[KEY]
        if identity["version"] != VERSION:
            return {}
        disks = list(identity["disks"].items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    if len(disks) > limits.DEVICES_MAX:
        return {}
    found: dict[str, Any] = {
        name: entry.get("size") for name, entry in disks if isinstance(entry, dict)
    }
    return {name: size for name, size in found.items() if _is_size(size)}


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= limits.DISK_MAX and value % SECTOR_SIZE == 0
