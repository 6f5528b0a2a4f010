"""The QEMU guest agent in a guest, through the socket at which QEMU connects it with the host.

Its protocol (QEMU, qga/qapi-schema.json) is that of QMP without a greeting: JSON, line by line.  The byte
0xFF makes it forget what it has of a command; it is in front of the answer to guest-sync-delimited, too.
"""

import itertools
import json
import os
import socket
import time
from typing import Any

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, failing
from blkmig_cli.text import count, escape

_FLUSH = b"\xff"
_PIECE = 1 << 16
_SHOWN = 400  # characters of its messages


class Agent:
    """A connection to the agent whose socket is at ``path``.  Close it with :meth:`close`.

    ``peer``: an open connection to it.  Methods raise FailureError where it does not answer in time, or
    refuses.
    """

    def __init__(self, path: str, peer: socket.socket | None = None) -> None:
        self._name = f"the guest agent at {escape(path)}"
        self._buffer = b""
        self._ids = itertools.count(os.getpid() << 8)
        self._socket = peer or socket.socket(socket.AF_UNIX)
        if peer is None:
            self._socket.settimeout(limits.AGENT_WAIT)
            try:
                with failing(path):
                    self._socket.connect(path)
            except BaseException:
                self._socket.close()
                raise

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        return self._socket.fileno()

    def freeze(self) -> int:
        """Freeze the guest's file systems; return how many."""
        self._sync()
        return int(self._execute("guest-fsfreeze-freeze"))

    def thaw(self) -> int:
        """Thaw the guest's file systems; return how many of them were frozen."""
        self._sync()
        return int(self._execute("guest-fsfreeze-thaw"))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _sync(self) -> None:
        """Have it forget a command that it has in part, and skip the answers to earlier ones."""
        number, deadline = next(self._ids), time.monotonic() + limits.AGENT_WAIT
        arguments = {"id": number}
        self._send({"execute": "guest-sync-delimited", "arguments": arguments}, deadline, _FLUSH)
        while self._receive(deadline).get("return") != number:
            pass

    def _execute(self, command: str) -> Any:
        deadline = time.monotonic() + limits.AGENT_WAIT
        self._send({"execute": command}, deadline)
        answer = self._receive(deadline)
        found = answer.get("return")
        if not isinstance(found, int):
            error = answer.get("error")
            text = error.get("desc") if isinstance(error, dict) else None
            raise self._failed(f"{command}: {escape(str(text)[:_SHOWN])}")
        return found

    def _send(self, command: dict[str, Any], deadline: float, before: bytes = b"") -> None:
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            self._socket.sendall(before + json.dumps(command).encode() + b"\n")
        except TimeoutError:
            raise self._late() from None
        except OSError as error:
            raise self._failed(str(error.strerror)) from error

    def _receive(self, deadline: float) -> dict[str, Any]:
        """Return the next answer."""
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late()
            try:
                self._socket.settimeout(left)
                found = self._socket.recv(_PIECE)
            except TimeoutError:
                raise self._late() from None
            except OSError as error:
                raise self._failed(str(error.strerror)) from error
            if not found:
                raise self._failed("it closed the connection")
            self._buffer += found
            if len(self._buffer) > limits.AGENT_MESSAGE_MAX:
                raise self._failed("it sends something else than answers")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            answer = json.loads(line.rpartition(_FLUSH)[2])
        except (ValueError, RecursionError):
            return {}
        return answer if isinstance(answer, dict) else {}

    def _late(self) -> FailureError:
        return self._failed(f"no answer within {count(limits.AGENT_WAIT, 'second')}")

    def _failed(self, what: str) -> FailureError:
        return FailureError(f"{self._name}: {what}")
