"""The identity of files and block devices, and what a block device lies on, from sysfs."""

import os
import stat
from collections.abc import Hashable, Iterator
from contextlib import suppress

_SYS = "/sys/dev/block"
_DEVICE = "block device"


def identity(found: os.stat_result) -> Hashable:
    """Return the identity of a file or block device: all nodes of one device are the same."""
    if stat.S_ISBLK(found.st_mode):
        return (_DEVICE, found.st_rdev)
    return ("file", found.st_dev, found.st_ino)


def layers(of: Hashable) -> set[Hashable]:
    """Return the identities of all that a block device of this identity lies on; of a file, none.

    That is the disk of a partition, the file of a loop device, the devices of a device-mapper or MD
    device, and what these lie on.
    """
    found: set[Hashable] = set()
    waiting = [of]
    while waiting:
        match waiting.pop():
            case (str(kind), int(number)) if kind == _DEVICE:
                below = set(_below(number)) - found
                found |= below
                waiting += below
    return found


def _below(number: int) -> Iterator[Hashable]:
    """Yield what the device of this number lies on directly, as far as it can be examined."""
    node = os.path.realpath(f"{_SYS}/{os.major(number)}:{os.minor(number)}")
    backing = _text(f"{node}/loop/backing_file")
    if backing:
        with suppress(OSError):  # it was removed
            yield identity(os.stat(backing))
    nodes = [os.path.dirname(node)] if os.path.exists(f"{node}/partition") else []
    with suppress(OSError):
        nodes += [entry.path for entry in os.scandir(f"{node}/slaves")]
    for device in nodes:
        major, _, minor = _text(f"{device}/dev").partition(":")
        if major.isdecimal() and minor.isdecimal():
            yield (_DEVICE, os.makedev(int(major), int(minor)))


def _text(path: str) -> str:
    """Return the content of a file of sysfs; empty where there is none."""
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""
