"""A scripted guest agent on a socket: it answers as qemu-ga does, and freezes nothing."""

import json
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class Agent:
    """Answers on a socket at ``path``, as a context manager; ``said``: the commands that it got.

    ``frozen``: the file systems that it says it has frozen, and thaws; ``mute``: commands without answer;
    ``refused``: those that it refuses.
    """

    def __init__(
        self, path: Path, frozen: int = 2, mute: tuple[str, ...] = (), refused: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.said: list[str] = []
        self._frozen, self._mute, self._refused = frozen, mute, refused
        self._listener = socket.socket(socket.AF_UNIX)
        self._peers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Agent":
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in (self._listener, *self._peers):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        """Serve one client after the other, as the guest's end of a socket chardev."""
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self._peers.append(peer)
                with peer, peer.makefile("rb") as lines, suppress(OSError):
                    for line in lines:
                        peer.sendall(self._answer(line))

    def _answer(self, line: bytes) -> bytes:
        flush, _, text = line.rpartition(b"\xff")
        command = json.loads(text)
        name = command["execute"]
        if name == "guest-sync-delimited":
            return (
                b'{"error": {"class": "GenericError", "desc": "Invalid JSON syntax"}}\n'
                * bool(flush)
                + b"\xff"
                + self._return(command["arguments"]["id"])
            )
        self.said.append(name.removeprefix("guest-fsfreeze-"))
        if self.said[-1] in self._mute:
            return b""
        if self.said[-1] in self._refused:
            return b'{"error": {"class": "GenericError", "desc": "not now"}}\n'
        return self._return(self._frozen)

    @staticmethod
    def _return(value: int) -> bytes:
        return json.dumps({"return": value}).encode() + b"\n"
