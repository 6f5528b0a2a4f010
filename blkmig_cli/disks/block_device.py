"""Block devices: their identity across boots and names.

Names in /dev change from boot to boot, and one device may have several.
"""

import os
import stat

from blkmig_cli.errors import FailureError

_SYS = "/sys/dev/block"
_BOOT = "/proc/sys/kernel/random/boot_id"
# Attributes that identify a device or its disk, in order of preference; each with its description.
_ATTRIBUTES = (
    ("dm-uuid", "dm/uuid"),
    ("loop", "loop/backing_file"),
    ("md-uuid", "md/uuid"),
    ("wwid", "wwid"),
    ("wwid", "device/wwid"),
    ("serial", "serial"),
    ("serial", "device/serial"),
)


def number_of(path: str) -> int | None:
    """Return the device number of the block device at ``path``; None if it is not one."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_rdev if stat.S_ISBLK(found.st_mode) else None


def identity(number: int) -> str:
    """Return the identity of the block device of this number.

    That is its device-mapper UUID, backing file or serial number; for a partition, that of its disk
    and the place in it.  The identity of a device without any of them is valid until it is removed or
    the next boot.  Raises FailureError where nothing identifies it.
    """
    node = f"{_SYS}/{os.major(number)}:{os.minor(number)}"
    place = ""
    if _read(node, "partition"):
        place = f", partition at {_read(node, 'start')}"
        node = os.path.dirname(os.path.realpath(node))
    for kind, attribute in _ATTRIBUTES:
        value = _read(node, attribute)
        if value:
            offset = _read(node, "loop/offset") if kind == "loop" else ""
            return f"{kind} {value}{f' at {offset}' if offset else ''}{place}"
    boot, sequence = _read("/", _BOOT), _read(node, "diskseq")
    if not (boot and sequence):
        raise FailureError(
            f"nothing identifies the block device {os.major(number)}:{os.minor(number)}"
        )
    return f"device {sequence} of boot {boot}{place}"


def _read(node: str, attribute: str) -> str:
    """Return an attribute of a device in sysfs; empty where it has none."""
    try:
        with open(os.path.join(node, attribute), errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""
