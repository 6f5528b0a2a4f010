"""blkmig at one end of a socket, and waiting for a condition."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BLKMIG = [sys.executable, "-m", "blkmig_cli"]


#: Seconds that a test waits for something that is sure to come, on the busiest machine.
PATIENCE = 120.0


def address(kind: str, folder: Path) -> str:
    """Return a URI to listen at; for TCP the system chooses the port."""
    return f"unix:{folder}/s.sock" if kind == "unix" else "tcp:127.0.0.1:0"


@contextmanager
def deaf_port() -> Iterator[int]:
    """Reserve a port of this machine at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a change made by another process or thread; raises TimeoutError after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.002)


def connect(path: Path) -> socket.socket:
    """Return a connection to the socket at ``path``, once somebody listens there."""
    peer = socket.socket(socket.AF_UNIX)

    def listened() -> bool:
        try:
            peer.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):  # it has its name before it listens
            return False
        return True

    wait_until(listened)
    return peer


def send(image: Path, uri: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``blkmig send`` to a peer."""
    command = [*BLKMIG, "send", str(image), "--to", uri, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


class Listening:
    """``blkmig replay`` that waits for a peer at ``uri``."""

    def __init__(self, uri: str, image: Path, *options: str) -> None:
        words = ["replay", uri, "--image", str(image), "--create", *options]
        self.process = subprocess.Popen(
            [*BLKMIG, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        assert "waiting for a stream at" in self.said
        self.uri = self.said.rsplit(" ", 1)[1].strip()

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return exit status, stdout and stderr."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


def unused_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
