"""docs/remote.md: its commands are run, with a real ssh and an sshd of the test's own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from tests.interop import disks
from tests.interop.disks import MIB
from tests.support import qcow2
from tests.support.peers import PATIENCE, wait_until
from tests.support.qcow2 import needs_qemu_utils, qemu_img

PAGE = (Path(__file__).parents[2] / "docs" / "remote.md").read_text()
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
#: The stream of this disk has data in every chunk.
SIZE = 7 * MIB + 3 * 512

pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="no ssh and sshd (package openssh-server)"
)


def blocks(heading: str) -> list[str]:
    """Return the commands under a heading."""
    _, found, rest = PAGE.partition(f"\n## {heading}\n")
    assert found
    return re.findall(r"^```sh\n(.*?)^```$", rest.partition("\n## ")[0], re.M | re.S)


@dataclass(frozen=True)
class Hosts:
    """Two folders, ``here`` and ``there``; in ``here``, the host ``backup`` is ``there``."""

    here: Path
    there: Path

    def sh(self, commands: str, *, cut: int | None = None) -> int:
        """Run commands; ``cut``: each ssh gets only so many bytes from its stdin."""
        path = f"{self.here.parent}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "CUT": "" if cut is None else str(cut)}
        commands = commands.replace("/run/", f"{self.there}/")
        words = ["bash", "-uc", commands]
        return subprocess.run(
            words, cwd=self.here, env=env, timeout=PATIENCE, check=False
        ).returncode


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("here", "there", "bin"):
        (folder / name).mkdir()
    for key in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(words, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    python, path = Path(sys.executable).parent, os.environ["PATH"]
    (folder / "forced").write_text(
        f'cd {folder}/there && export PATH={python}:{path} && eval "$SSH_ORIGINAL_COMMAND"\n'
    )
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"StrictModes no\nAuthorizedKeysFile {folder}/user.pub\nPermitRootLogin yes\n"
        f"ForceCommand /bin/sh {folder}/forced\n"
    )
    (folder / "config").write_text(
        f"Host backup\nHostName 127.0.0.1\nPort {port}\nIdentityFile {folder}/user\n"
        "IdentitiesOnly yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
    )
    ssh = shutil.which("ssh")
    (folder / "bin" / "ssh").write_text(
        f'#!/bin/sh\nssh="{ssh} -F {folder}/config"\n[ -n "$CUT" ] || exec $ssh "$@"\n'
        'head -c "$CUT" | exec $ssh "$@"\n'
    )
    (folder / "bin" / "ssh").chmod(0o755)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    assert SSHD is not None
    log = folder / "log"
    words = [SSHD, "-D", "-E", str(log), "-f", str(folder / "sshd_config")]
    found = Hosts(folder / "here", folder / "there")
    with subprocess.Popen(words) as server:
        try:
            wait_until(lambda: log.exists() and "listening" in log.read_text())
            assert found.sh("ssh backup true") == 0, log.read_text()
            yield found
        finally:
            server.terminate()
            end_all(folder)


def end_all(folder: Path) -> None:
    """End the processes that have files of the test on their command lines."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in words and int(entry.name) != os.getpid():
            os.kill(int(entry.name), signal.SIGKILL)


@pytest.fixture
def pair(hosts: Hosts) -> Hosts:
    """Both hosts, with a disk and a bitmap here and nothing there."""
    for folder in (hosts.here, hosts.there):
        for path in folder.iterdir():
            path.unlink()
    (hosts.here / "disk.img").write_bytes(disks.noisy(SIZE))
    bitmap = DirtyBitmap("daily", 65536, True, True)
    bitmap.set_range(3 * MIB, MIB)
    write_bitmaps(str(hosts.here / "disk.img.bitmaps.json"), BitmapFile(SIZE, {"daily": bitmap}))
    return hosts


def check(path: Path, disk: Path) -> None:
    """The disk has arrived, with its bitmap."""
    assert path.read_bytes() == disk.read_bytes()
    ours, theirs = (read_bitmaps(f"{one}.bitmaps.json").bitmaps["daily"] for one in (path, disk))
    assert ours.same(theirs, SIZE)
    assert not Path(f"{path}.partial").exists()


@pytest.mark.long
def test_sending_a_disk(pair: Hosts) -> None:
    plain, packed, onto_qcow2 = blocks("Sending a disk")
    for commands in (plain, packed):
        assert pair.sh(commands) == 0
        check(pair.there / "disk.img", pair.here / "disk.img")
        for path in pair.there.iterdir():
            path.unlink()
    if not qcow2.MISSING:
        assert (
            pair.sh(f"truncate -s 8M disk.img; rm *.json; {onto_qcow2.replace('--bitmaps', '')}")
            == 0
        )
        qcow2.same(pair.there / "disk.qcow2", "qcow2", pair.here / "disk.img", "raw")


@pytest.mark.long
def test_continuing_where_the_line_broke(pair: Hosts) -> None:
    first = blocks("Sending a disk")[0]
    once, _ = blocks("Continuing where the line broke")
    assert pair.sh(first, cut=3 * MIB + 70_000) == 3
    assert (pair.there / "disk.img.partial").stat().st_size == 3 * MIB
    assert pair.sh(once) == 0
    check(pair.there / "disk.img", pair.here / "disk.img")


@pytest.mark.long
def test_continuing_until_it_is_through(pair: Hosts) -> None:
    """Each of the streams breaks again, until one of them is short enough."""
    _, loop = blocks("Continuing where the line broke")
    assert pair.sh(loop.replace("sleep 1", "sleep 0"), cut=3 * MIB) == 0
    check(pair.there / "disk.img", pair.here / "disk.img")


@pytest.mark.long
def test_fetching_a_disk(pair: Hosts) -> None:
    whole, rest = blocks("Fetching a disk")
    (pair.here / "disk.img").rename(pair.there / "disk.img")
    assert pair.sh(whole.replace("| blk", "| head -c 3000000 | blk")) == 3
    assert not (pair.here / "fetched.img").exists()
    assert pair.sh(rest) == 0
    assert (pair.here / "fetched.img").read_bytes() == (pair.there / "disk.img").read_bytes()


@pytest.mark.long
@needs_qemu_utils
def test_a_host_without_blkmig(pair: Hosts) -> None:
    reading, writing = blocks("A host without blkmig")
    disk = pair.there / "disk.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", pair.here / "disk.img", disk)
    qemu_img("bitmap", "--add", disk, "daily")
    qcow2.write(disk, "write -P 7 1M 64k")
    with open(pair.there / "new.img", "wb") as file:
        file.truncate(SIZE)
    assert pair.sh(reading) == 0
    assert pair.sh(writing) == 0
    qcow2.same(pair.there / "new.img", "raw", disk, "qcow2")
    found = read_bitmaps(str(pair.here / "daily.json")).bitmaps["daily"]
    assert list(found.ranges(SIZE)) == [(MIB, 65536)]
