"""Checking that a file that is written has no other use in the same run."""

import os
import stat
from collections.abc import Hashable

from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import UsageError
from blkmig_cli.system.address import Address, parse_address, shown_address
from blkmig_cli.system.devices import identity, layers
from blkmig_cli.system.nbd_uri import is_nbd, parse_nbd_uri
from blkmig_cli.text import escape

_STANDARD = {0: "stdin", 1: "stdout", 2: "stderr"}


@dataclass(frozen=True, slots=True)
class _Use:
    text: str
    writes: bool


class FileUses:
    """The files that a command reads and writes, each with its use.

    A file is identified by its inode, not by its name: a hard link, a symbolic link, another path
    and a descriptor of a file are the same file; all nodes of a block device are the same device.
    Its place (folder and name) identifies it too, so that a file that does not exist yet is known.
    A block device and what it lies on (the disk of a partition, the file of a loop device) are the
    same; two partitions of a disk are not.  Pipes, sockets and character devices (terminals,
    /dev/null) may be used more than once.  An object is identified by its URL.

    A command adds all that it reads and writes before it opens anything for writing.
    """

    def __init__(self) -> None:
        self._uses: dict[Hashable, _Use] = {}
        # Those of the devices and files that a device that is used lies on.
        self._under: dict[Hashable, _Use] = {}

    @classmethod
    def of_stream(cls, stream: str, *bases: str) -> "FileUses":
        """Return the uses of a command that reads the STREAM called ``stream``, and its ``bases``.

        Raises UsageError for a malformed address.
        """
        uses = cls()
        uses.add_address("the stream", parse_address(stream), writes=False)
        for base in bases:
            uses.add_address("the base", parse_address(base), writes=False)
        return uses

    def add_address(self, use: str, address: Address, *, writes: bool) -> None:
        """Register the file or the object that ``address`` names, if it names one; see :meth:`add`."""
        file = address.file(writes=writes)
        if file is not None:
            self.add(use, file, writes=writes)
        elif address.scheme == "url":
            self._add([("URL", shown_address(address.text))], str(address), use, writes=writes)

    def add(self, use: str, file: str | int, *, writes: bool) -> None:
        """Register ``file``: a path, an NBD URI or a descriptor.

        ``use`` is its description, such as "the stream".

        Raises UsageError where the file has another use, and one of the two writes.  A file that
        cannot be examined is not an error here; opening it will fail.
        """
        name = _STANDARD.get(file, f"fd:{file}") if isinstance(file, int) else escape(file)
        self._add(_identities(file), name, use, writes=writes)

    def _add(self, keys: list[Hashable], name: str, use: str, *, writes: bool) -> None:
        """Register what has the identities ``keys``, and ``name`` in messages."""
        added = _Use(f"{use} ({name})", writes)
        under = {layer for key in keys for layer in layers(key)}
        known = [(uses, key) for key in keys for uses in (self._uses, self._under)]
        known += [(self._uses, key) for key in under]
        for uses, key in known:
            found = uses.get(key)
            if found and (found.writes or writes):
                raise UsageError(f"{found.text} and {added.text} are the same file")
        for key in keys:
            self._uses.setdefault(key, added)
        for key in under:
            self._under.setdefault(key, added)


def _identities(file: str | int) -> list[Hashable]:
    """Return the identities of ``file``; none where it may be used more than once."""
    if isinstance(file, str) and is_nbd(file):
        return [("NBD export", parse_nbd_uri(file).identity)]
    place = [] if isinstance(file, int) else [_place(file)]
    try:
        found = os.stat(file)
    except OSError:
        return place
    mode = found.st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode):
        return []
    return [*place, identity(found)]


def _place(path: str) -> Hashable:
    """Return the folder and the name of ``path`` with all symbolic links resolved."""
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    try:
        found = os.stat(folder)
    except OSError:
        return real
    return ("place", found.st_dev, found.st_ino, name)
