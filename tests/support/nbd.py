"""Real NBD servers, each started for one test and ended with it, and the programs that judge us."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from blkmig_cli.disks.nbd.handshake import Bitmaps
from blkmig_cli.disks.nbd.image import NbdImage, open_nbd
from blkmig_cli.system.nbd_uri import parse_nbd_uri
from tests.support.peers import PATIENCE

_PACKAGES = {
    "qemu-nbd": "qemu-utils",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
    "nbdkit": "nbdkit",
    "nbdinfo": "libnbd-bin",
    "nbdcopy": "libnbd-bin",
    "openssl": "openssl",
}
#: Gives a program the listening socket as systemd does (sd_listen_fds(3)), so that it need not be waited for.
_ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def tool(name: str) -> str:
    """Return the path of a program; skip the test where it is missing, or fail if it is required."""
    found = shutil.which(name)
    if found is None:
        reason = f"no {name}; install {_PACKAGES[name]}"
        if "BLKMIG_REQUIRE_QEMU" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def run(name: str, *words: object) -> str:
    """Run a program to its end and return its stdout."""
    command = [tool(name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done
    return done.stdout


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process at the end, whatever happens."""
    try:
        yield
    finally:
        process.terminate()  # nbdkit removes its temporary files, but waits for its clients before
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def served(name: str, *words: object, on: socket.socket | None = None) -> Iterator[str]:
    """Run a server that takes a listening socket as systemd gives it; gives the path of a Unix socket."""
    program = tool(name)
    with tempfile.TemporaryDirectory(prefix="nbd") as folder:
        path = os.path.join(folder, "s")
        bound = on or socket.socket(socket.AF_UNIX)
        if on is None:
            bound.bind(path)
            bound.listen(16)
        start = [sys.executable, "-ISc", _ACTIVATE, str(bound.fileno())]
        command = [*start, program, *map(str, words)]
        with ended(subprocess.Popen(command, pass_fds=[bound.fileno()])):
            bound.close()  # where the server ends, connections are refused
            yield path


@contextmanager
def qemu_nbd(image: Path, *words: object, format: str = "raw") -> Iterator[str]:  # noqa: A002
    """Serve an image with qemu-nbd, to several clients."""
    with served("qemu-nbd", "-t", "-e", 8, "-f", format, *words, image) as path:
        yield path


@contextmanager
def nbdkit(*words: object) -> Iterator[str]:
    """Run nbdkit with a plugin and its words."""
    with served("nbdkit", "-f", *words) as path:
        yield path


def uri(path: str, export: str = "", scheme: str = "nbd+unix") -> str:
    """Return the URI of an export on a Unix socket."""
    return f"{scheme}:///{quote(export)}?socket={quote(path)}"


@contextmanager
def opened(
    path: str,
    export: str = "",
    *,
    writable: bool = False,
    own_layer: bool = False,
    bitmaps: Bitmaps = (),
) -> Iterator[NbdImage]:
    """Open an export on a Unix socket."""
    place = parse_nbd_uri(uri(path, export))
    image = open_nbd(place, writable=writable, own_layer=own_layer, bitmaps=bitmaps)
    try:
        yield image
    finally:
        image.close()


def mapped(path: str, context: str = "base:allocation", export: str = "") -> list[dict[str, Any]]:
    """Return what nbdinfo says about the blocks of an export."""
    found = json.loads(run("nbdinfo", f"--map={context}", "--json", uri(path, export)))
    extents: list[dict[str, Any]] = found
    return extents


def joined(extents: Iterator[tuple[int, int]] | list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges (start, length) with adjacent ones joined."""
    found: list[tuple[int, int]] = []
    for start, length in extents:
        if found and sum(found[-1]) == start:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((start, length))
    return found


def qcow2(path: Path, size: int, *lines: str, backing: Path | None = None) -> Path:
    """Make a qcow2 image with the lines of qemu-io done to it."""
    over = ("-b", backing, "-F", "qcow2") if backing else ()
    run("qemu-img", "create", "-q", "-f", "qcow2", *over, path, size)
    if lines:
        commands = [word for line in lines for word in ("-c", line)]
        run("qemu-io", *commands, path)
    return path
