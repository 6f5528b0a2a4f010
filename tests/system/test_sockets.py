"""Sockets: listening and connecting, and peers that hang up, send garbage or stay silent."""

import os
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, fails
from tests.support import raw
from tests.support.peers import PATIENCE, Listening, connect, deaf_port, send, wait_until

STREAM = raw.qemu(raw.block(0, 0, rest=b"\7" * raw.CHUNK), raw.block(2048, 8))
SIZE = 2 * raw.CHUNK


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "d.img"
    path.write_bytes(os.urandom(3 * raw.CHUNK))
    return path


def test_replay_finds_a_port(image: Path, tmp_path: Path) -> None:
    replay = Listening("tcp:127.0.0.1:0", tmp_path / "out")
    assert not replay.uri.endswith(":0")
    done = send(image, replay.uri, "--dialect", "v2")
    assert (done.returncode, done.stderr) == (0, "")
    assert replay.end()[0] == 0
    assert (tmp_path / "out").read_bytes() == image.read_bytes()


def call(path: Path, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.sendall(data)


def test_only_the_owner_may_call_and_only_one_does(tmp_path: Path) -> None:
    path = tmp_path / "s"
    replay = Listening(f"unix:{path}", tmp_path / "out", "--device-size", str(SIZE))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.sendall(STREAM[:100])
        wait_until(lambda: not path.exists())  # it goes as soon as the peer has been taken
        with pytest.raises(FileNotFoundError):
            call(path, STREAM)
        peer.sendall(STREAM[100:])
    assert replay.end()[0] == 0
    assert (tmp_path / "out").read_bytes() == b"\7" * raw.CHUNK + bytes(raw.CHUNK)


@pytest.mark.parametrize(
    ("cut", "got"),
    [
        (100, "nothing was"),
        (STREAM.index(raw.block(2048, 8)) + 4, "d: 1 MiB"),
        (len(STREAM) - 30, "d: 2 MiB"),
    ],
)
def test_a_peer_that_hangs_up(tmp_path: Path, cut: int, got: str) -> None:
    replay = Listening(f"unix:{tmp_path}/s", tmp_path / "out", "--device-size", str(SIZE))
    call(tmp_path / "s", STREAM[:cut])
    status, out, err = replay.end()
    assert status == 3
    assert len(err.splitlines()) == 1
    assert f"{got} written" in out


def test_killed(tmp_path: Path) -> None:
    """What was written until then does not look finished."""
    replay = Listening(f"unix:{tmp_path}/s", tmp_path / "out", "--device-size", str(SIZE))
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(f"{tmp_path}/s")
        peer.sendall(STREAM[: raw.CHUNK + 100])
        wait_until((tmp_path / "out.partial").exists)
        replay.process.kill()
        replay.end()
    assert not (tmp_path / "out").exists()


def test_a_peer_that_breaks_off(tmp_path: Path) -> None:
    """A reset connection is an I/O error, not a truncated stream; the error says what was written."""
    replay = Listening("tcp:127.0.0.1:0", tmp_path / "out", "--device-size", str(SIZE))
    host, port = replay.uri.removeprefix("tcp:").split(":")
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall(STREAM[: STREAM.index(raw.block(2048, 8)) + 4])
        wait_until((tmp_path / "out.partial").exists)
        # Closed with a linger of 0 seconds: a reset.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    status, out, err = replay.end()
    assert status == 4
    assert "reset" in err
    assert len(err.splitlines()) == 1
    assert "d: 1 MiB written" in out


def test_a_peer_that_sends_garbage(tmp_path: Path) -> None:
    replay = Listening(f"unix:{tmp_path}/s", tmp_path / "out")
    call(tmp_path / "s", b"GET / HTTP/1.1\r\n\r\n")
    status, _, err = replay.end()
    assert status == 3
    assert "not a migration stream" in err
    assert not (tmp_path / "out").exists()


def impatient(limit: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run blkmig with one second in place of the wait that ``limit`` names."""
    script = (
        f"from blkmig_cli import limits; limits.{limit} = 1; "
        "from blkmig_cli.commands import main; main()"
    )
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_no_peer_connects(tmp_path: Path) -> None:
    done = impatient("PEER_WAIT", "validate", f"unix:{tmp_path}/s")
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].endswith("no connection within 1 second")
    assert not (tmp_path / "s").exists()


def serving(behaviour: Callable[[socket.socket], object], path: Path) -> threading.Thread:
    """A peer at ``path`` that takes one call and does as ``behaviour`` says."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            behaviour(peer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def drain(peer: socket.socket) -> None:
    while peer.recv(1 << 20):
        pass


@pytest.mark.long
def test_a_silent_writer(tmp_path: Path) -> None:
    def dial() -> None:
        with connect(tmp_path / "s") as peer:
            peer.sendall(STREAM[:50])
            peer.settimeout(PATIENCE)
            assert not peer.recv(1)

    thread = threading.Thread(target=dial)
    thread.start()
    done = impatient("PEER_SILENT", "validate", f"unix:{tmp_path}/s")
    thread.join()
    assert done.returncode == 4
    assert "no data from the peer for 1 second" in done.stderr


@pytest.mark.long
def test_a_reader_that_takes_nothing(image: Path, tmp_path: Path) -> None:
    over = threading.Event()
    thread = serving(lambda _: over.wait(PATIENCE), tmp_path / "s")
    done = impatient("PEER_SILENT", "send", image, "--to", f"unix:{tmp_path}/s")
    over.set()
    thread.join()
    assert done.returncode == 4
    assert "does not take any more data" in done.stderr


@pytest.mark.long
def test_a_reader_that_never_closes(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(bytes(raw.CHUNK))
    over = threading.Event()
    thread = serving(lambda _: over.wait(PATIENCE), tmp_path / "s")
    done = impatient("PEER_SILENT", "send", small, "--to", f"unix:{tmp_path}/s")
    over.set()
    thread.join()
    assert done.returncode == 4
    assert "has not closed the connection" in done.stderr


def test_a_reader_that_hangs_up(image: Path, tmp_path: Path) -> None:
    thread = serving(lambda peer: peer.recv(1000), tmp_path / "s")
    done = send(image, f"unix:{tmp_path}/s")
    thread.join()
    assert done.returncode == 4
    assert "closed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 4),
        (struct.pack(">HHI", 1, 4, 0), 0),
        (struct.pack(">HHI", 2, 4, 9) + struct.pack(">HHI", 1, 4, 0), 0),
        (struct.pack(">HHI", 1, 4, 5), 4),
        (b"\0\1\0", 4),
        (b"\0\2\xff\xff" * 2000, 4),
    ],
)
def test_a_destination_is_asked(
    image: Path, tmp_path: Path, run: Run, answer: bytes, status: int
) -> None:
    def behave(peer: socket.socket) -> None:
        drain(peer)
        peer.sendall(answer)

    thread = serving(behave, tmp_path / "s")
    outcome = run(
        "send", image, "--machine", "pc", "--for-qemu", "7.2", "--to", f"unix:{tmp_path}/s"
    )
    thread.join()
    if status:
        fails(outcome, status, "has not loaded the stream")
    else:
        assert (outcome.status, outcome.err) == (0, "")


def test_nobody_listens(image: Path, tmp_path: Path) -> None:
    with deaf_port() as port:
        for uri in (f"unix:{tmp_path}/nobody", f"tcp:127.0.0.1:{port}"):
            done = send(image, uri)
            assert done.returncode == 4
            assert "start the reader first" in done.stderr
            assert len(done.stderr.splitlines()) == 1


def test_what_is_there_stays(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("mine")
    fails(run("validate", f"unix:{path}", "-q"), 4, "in use")
    assert path.read_text() == "mine"
    fails(run("validate", f"unix:{tmp_path}/no/s", "-q"), 4, "No such file")


def test_no_address_to_listen_at(run: Run) -> None:
    fails(run("validate", "tcp::4"), 2, "tcp::4: no address to listen at is specified")
