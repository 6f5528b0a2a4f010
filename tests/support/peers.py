"""blkmig at one end of a socket."""

import socket
import subprocess
import sys
from pathlib import Path

BLKMIG = [sys.executable, "-m", "blkmig_cli"]


def address(kind: str, folder: Path) -> str:
    """A URI that is free."""
    if kind == "unix":
        return f"unix:{folder}/s.sock"
    with socket.create_server(("127.0.0.1", 0)) as trial:
        return f"tcp:127.0.0.1:{trial.getsockname()[1]}"


def send(image: Path, uri: str, *options: str) -> subprocess.CompletedProcess[str]:
    """``blkmig send`` to a peer."""
    command = [*BLKMIG, "send", str(image), "--to", uri, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


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
        """Exit status, stdout, stderr."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err
