"""The scratch of a snapshot: a temporary file with what the guest has overwritten since.

QEMU writes to it through NBD, so that it does not wait for the file itself: a write that fails, or takes
more than a second, ends the snapshot instead of failing or delaying the guest's.  The file is a qcow2 image
for all disks in a part of a file that has ``limit`` bytes; it has no name, and its server is a child of ours.
"""

import os
import tempfile
from contextlib import ExitStack, suppress

from blkmig_cli import limits
from blkmig_cli.disks.qemu.create import create
from blkmig_cli.disks.qemu.daemon import StorageDaemon
from blkmig_cli.errors import FailureError, UsageError, failing
from blkmig_cli.system.temporary import temporary_folder
from blkmig_cli.text import escape, human_size

_POOL = "pool"
# Each disk begins at a multiple of this, which is one of every cluster size.
_ALIGNED = 2 << 20
# The least that an empty image needs, and bytes that are of no use at its end.
_LEAST = 1 << 20


class Scratch:
    """The scratch for disks of these ``sizes`` in bytes, see :func:`export_of`.  Close it with :meth:`close`.

    ``folder``: None: TMPDIR, or /var/tmp.  ``limit``: bytes, None: what the file system has to spare.
    ``largest``: the most bytes that it had.  Raises UsageError for a limit that is too small; FailureError
    where it cannot be created.
    """

    def __init__(self, folder: str | None, limit: int | None, sizes: list[int]) -> None:
        self.folder = temporary_folder() if folder is None else folder
        self.largest = 0
        self._stack = ExitStack()
        with ExitStack() as stack:
            with failing(f"a temporary file in {self.folder}"):
                self._fd, path = tempfile.mkstemp(dir=self.folder, prefix="blkmig-")
                stack.callback(os.close, self._fd)
                name = stack.enter_context(ExitStack())
                name.callback(_unlink, path)
                room = os.fstatvfs(self._fd)
            spare = (room.f_bavail - room.f_blocks // limits.ROOM_LEFT) * room.f_frsize
            self._limit = (spare if limit is None else limit) // _ALIGNED * _ALIGNED
            if self._limit < _LEAST:
                if limit is not None:
                    raise UsageError(f"--scratch-limit: {limit} bytes are too few: at least 2M")
                raise FailureError(
                    f"a temporary file in {escape(self.folder)} would leave less than "
                    f"1/{limits.ROOM_LEFT} of its file system free",
                    hint="see --scratch and --scratch-limit",
                )
            starts, total = [], 0
            for size in sizes:
                starts.append(total)
                total += -(-size // _ALIGNED) * _ALIGNED
            create(path, "qcow2", total, ())
            with failing(path):
                os.ftruncate(self._fd, self._limit)
            self._daemon = StorageDaemon("the scratch", self.folder, scratch=True)
            stack.callback(self._daemon.close)
            self._open(path)
            name.close()
            for number, (start, size) in enumerate(zip(starts, sizes, strict=True)):
                self._export(export_of(number), start, size)
            self._stack = stack.pop_all()

    @property
    def path(self) -> str:
        """The path of the server's socket."""
        return self._daemon.path

    def hide(self) -> None:
        """Remove the socket: from now on, nothing is left of it where all processes are killed."""
        self._daemon.remove_socket()

    def look(self) -> int:
        """Return how many bytes it has."""
        found = os.fstat(self._fd).st_blocks * 512
        self.largest = max(self.largest, found)
        return found

    def fault(self) -> str:
        """Return why a snapshot was lost, as far as can be told."""
        room = os.fstatvfs(self._fd)
        if self._daemon.has_ended:
            return "the process that serves the scratch ended"
        self.look()
        if self.largest + _LEAST >= self._limit:
            return f"the scratch is full ({human_size(self._limit)})"
        if room.f_bavail * room.f_frsize < _LEAST:
            return f"the file system of the scratch is full ({escape(self.folder)})"
        return "the scratch was too slow, or failed"

    def close(self) -> None:
        """Kill the server, and release the file: whatever QEMU still asks for fails at once."""
        self._stack.close()

    def _open(self, path: str) -> None:
        file = {"driver": "file", "filename": path, "discard": "unmap"}
        part = {"driver": "raw", "size": self._limit, "discard": "unmap", "file": file}
        self._daemon.execute(
            "blockdev-add",
            driver="qcow2",
            node_name=_POOL,
            discard="unmap",
            cache={"no-flush": True},
            file=part,
        )

    def _export(self, name: str, start: int, size: int) -> None:
        self._daemon.execute(
            "blockdev-add",
            driver="raw",
            node_name=name,
            discard="unmap",
            offset=start,
            size=size,
            file=_POOL,
        )
        self._daemon.execute(
            "block-export-add",
            type="nbd",
            id=name,
            name=name,
            node_name=name,
            writable=True,
        )


def export_of(number: int) -> str:
    """Return the name of the export for a disk, by its number."""
    return f"disk{number}"


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
