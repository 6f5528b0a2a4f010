"""The key ``blkmig`` in a stream's JSON description, in which blkmig states the sizes of disks.

QEMU skips the description without parsing it (QEMU 7.2, migration/savevm.c: qemu_loadvm_state), and
its tools ignore unknown keys.  The format:

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

    Empty where there are none, or the description is longer than ``limits.IDENTITY_MAX``; invalid
    entries are ignored.
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
