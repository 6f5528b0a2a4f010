"""A qemu-storage-daemon as a child of this process: its QMP monitor, and NBD connections to it.

QMP: docs/interop/qmp-spec.rst of QEMU.  The monitor is on the child's stdin and stdout.
"""

import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from typing import Any

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, failing
from blkmig_cli.system.children import start_child
from blkmig_cli.text import escape

PROGRAM = "qemu-storage-daemon"
#: The packages that have it.
PACKAGE = "qemu-utils (Debian 12: qemu-system-common)"
_WORDS = [PROGRAM, "--chardev", "stdio,id=qmp", "--monitor", "chardev=qmp"]
# It allocates a buffer for each request.  glibc keeps freed memory with this, instead of getting it
# from the system again (mallopt(3)): half of the daemon's time for writing.
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_ARENA_MAX": "1",
}
# The object that has the settings of its threads.
_LOOP = "loop"
_PIECE = 1 << 16
_KILLED = 5  # seconds for the end of a process that was killed
_SHOWN = 400  # characters of its messages
# Its message where another program uses a file (QEMU 7.2, block/file-posix.c: raw_check_lock_bytes).
_LOCKED = re.compile("Failed to (get|lock) .*(lock|byte)")


class StorageDaemon:
    """The daemon that serves the image called ``name`` in messages.  Close it with :meth:`close`.

    The first request waits until it has started.

    ``folder``: where its socket is, None: the system's folder for temporary files.  ``scratch``: its images
    are not needed afterwards, so that it is killed in the end, and not waited for.

    ``path``: that of its socket.  Methods raise FailureError where it fails, ends, or does not answer in
    time.
    """

    def __init__(self, name: str, folder: str | None = None, *, scratch: bool = False) -> None:
        self._name = name
        self._scratch = scratch
        self._buffer = b""
        self._unanswered = 0  # requests
        self._removed: set[str] = set()
        self._has_loop = False
        self._stack = ExitStack()
        try:
            with failing("a temporary file"):
                self._errors = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
                self._folder = self._stack.enter_context(ExitStack())
                folder = self._folder.enter_context(
                    tempfile.TemporaryDirectory(prefix="blkmig-", dir=folder)
                )
            end = signal.SIGKILL if scratch else signal.SIGTERM
            self._process = start_child(_WORDS, PACKAGE, self._errors, _ENVIRONMENT, end)
            self._stack.callback(self._end)
            self.path = os.path.join(folder, "nbd")
            address = {"type": "unix", "data": {"path": self.path}}
            self._send({"execute": "qmp_capabilities"})
            self._send({"execute": "nbd-server-start", "arguments": {"addr": address}})
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a QMP command; return its result.  Names of arguments have ``_`` for ``-``.

        Raises FailureError with the daemon's message where the command fails.
        """
        renamed = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.request({"execute": command, "arguments": renamed})

    def request(self, request: dict[str, Any]) -> Any:
        """Send a QMP request; return its result, as :meth:`execute` does."""
        self._send(request)
        while self._unanswered > 1:
            self._answer()
        return self._answer()

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(
                json.dumps(request).encode("utf-8", "surrogateescape") + b"\n"
            )
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        self._unanswered += 1

    def _answer(self) -> Any:
        """Return the result of the earliest request whose answer has not been received yet."""
        while True:
            answer = self._next()
            if "error" in answer or "return" in answer:
                self._unanswered -= 1
            if "error" in answer:
                raise self._failed(str(answer["error"].get("desc", "it failed"))[:_SHOWN])
            if "return" in answer:
                return answer["return"]

    def remove_export(self, export: str) -> None:
        """Remove an NBD export whose connections have been closed, and wait until it is removed."""
        self.execute("block-export-del", id=export, mode="hard")
        while export not in self._removed:
            self._next()
        self._removed.discard(export)

    def limit_threads(self, number: int) -> None:
        """Have at most ``number`` threads read and write files, if this QEMU can: from version 7.1 on."""
        with suppress(FailureError):
            if self._has_loop:
                loop = {"path": f"/objects/{_LOOP}", "property": "thread-pool-max"}
                self.execute("qom-set", **loop, value=number)
            else:
                self.execute("object-add", qom_type="main-loop", id=_LOOP, thread_pool_max=number)
                self._has_loop = True

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, which it does not by itself."""
        return self._process.poll() is not None

    def connect(self) -> socket.socket:
        """Return a connection to the daemon's NBD server."""
        with failing(f"{self._name}: {PROGRAM}"):
            peer = socket.socket(socket.AF_UNIX)
            try:
                peer.connect(self.path)
            except BaseException:
                peer.close()
                raise
        return peer

    def remove_socket(self) -> None:
        """Remove the socket, as nobody will connect any more."""
        self._folder.close()

    def close(self) -> None:
        """End the daemon, which closes its images in order."""
        self._stack.close()

    def _end(self) -> None:
        process = self._process
        if self._scratch:
            process.kill()
        elif process.poll() is None:
            process.terminate()
        assert process.stdin is not None
        assert process.stdout is not None
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what was not written is for a process that has ended
                pipe.close()
        if self._scratch:
            with suppress(subprocess.TimeoutExpired):  # it hangs in the system
                process.wait(_KILLED)
            return
        try:
            process.wait(limits.PEER_SILENT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _next(self) -> dict[str, Any]:
        """Return the next message of the daemon."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        deadline = time.monotonic() + limits.PEER_SILENT
        while b"\n" not in self._buffer:
            left = max(deadline - time.monotonic(), 0)
            if not select.select([pipe], [], [], left)[0]:
                raise FailureError(
                    f"{escape(self._name)}: no answer of {PROGRAM} in {limits.PEER_SILENT} seconds"
                )
            piece = os.read(pipe, _PIECE)
            if not piece or len(self._buffer) > limits.QMP_MESSAGE_MAX:
                raise self._ended()
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise FailureError(f"{escape(self._name)}: {PROGRAM} answered something else than QMP")
        if message.get("event") == "BLOCK_EXPORT_DELETED":
            self._removed.add(message["data"]["id"])
        return message

    def _failed(self, text: str) -> FailureError:
        """Return the error for a command that failed; ``text`` is the daemon's message."""
        name = escape(self._name)
        if _LOCKED.match(text):
            hint = "end the other program first, or use -U to read it all the same"
            return FailureError(f"{name} is in use: {escape(text)}", hint=hint)
        return FailureError(f"{name}: {escape(text)}")

    def _ended(self) -> FailureError:
        """Return the error for a daemon that has ended, with the last line of its stderr."""
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.seek(0)
        lines = self._errors.read(_PIECE).decode("utf-8", "replace").strip().splitlines()
        last = f": {escape(lines[-1][:_SHOWN])}" if lines else ""
        return FailureError(f"{escape(self._name)}: {PROGRAM} ended{last}")
