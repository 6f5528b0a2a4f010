"""Each kind of TARGET: what it gets, what fails, and that nothing is left of one that is not finished."""

import gzip
import io
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.send.stream import SendOptions, send_events, send_pieces
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.transport.payloads import FileRange, Fill, ImageRange, Literal
from blkmig_cli.transport.target import (
    adopt_target,
    open_target,
    resolve_content,
    resolving,
    write_events,
)
from blkmig_cli.wire.events import Eof, Payload, VmDescription
from blkmig_cli.wire.runs.columns import Run
from tests.support.feed import encoded, in_file, piped
from tests.support.replays import folder, here
from tests.support.strategies import MemoryImage

__all__ = ["folder"]

DATA = bytes(range(256)) * 20


def send(name: str | None, data: bytes = DATA, *, confirmed: bool = False) -> None:
    with open_target(name, FileUses(), confirmed=confirmed) as sink:
        sink.write(data)
        assert sink.written == len(data)


class Peer:
    """A program that listens at a socket, and answers when it has got everything."""

    def __init__(self, kind: str, answer: bytes = b"") -> None:
        self._listener = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        self._listener.bind("socket" if kind == "unix" else ("127.0.0.1", 0))
        self._listener.listen()
        self._answer = answer
        self.found = b""
        port = self._listener.getsockname()[1] if kind == "tcp" else ""
        self.uri = "unix:socket" if kind == "unix" else f"tcp:127.0.0.1:{port}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            while data := peer.recv(4096):
                self.found += data
            peer.sendall(self._answer)

    def end(self) -> bytes:
        self._thread.join()
        self._listener.close()
        return self.found


#: Messages on QEMU's return path: type, length, and a status.
LOADED, NOT_LOADED = (b"\0\1\0\4" + status.to_bytes(4, "big") for status in (0, 1))


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize(
    ("answer", "confirmed", "fits"),
    [
        (b"", False, True),
        (NOT_LOADED, False, True),
        (LOADED, True, True),
        (NOT_LOADED, True, False),
        (b"", True, False),
    ],
)
def test_a_socket(kind: str, answer: bytes, confirmed: bool, fits: bool) -> None:
    peer = Peer(kind, answer)
    if fits:
        send(peer.uri, confirmed=confirmed)
    else:
        with pytest.raises(FailureError) as error:
            send(peer.uri, confirmed=confirmed)
        assert str(error.value) == (
            f"{peer.uri}: QEMU has not loaded the stream, though it took all of its "
            f"{len(DATA)} bytes; see the stderr of QEMU for the reason"
        )
    assert peer.end() == DATA


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cat > made", None),
        ("cat > made; exit 3", "exec:cat > made; exit 3 ended with status 3"),
    ],
)
def test_a_command(command: str, said: str | None) -> None:
    if said is None:
        send(f"exec:{command}")
    else:
        with pytest.raises(FailureError) as error:
            send(f"exec:{command}")
        assert str(error.value) == said
    assert here() == {"made": DATA}


def test_a_command_for_what_breaks_off() -> None:
    """It is ended, and waited for."""

    def go_on() -> None:
        with open_target("exec:trap '' PIPE; cat > made; exec sleep 1000", FileUses()) as sink:
            sink.write(DATA)
            sink.flush()
            raise UsageError("broken off")

    with pytest.raises(UsageError, match="broken off"):
        go_on()


@pytest.mark.parametrize("name", ["made", "made.gz"])
@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_breaks_off(name: str, there: bool) -> None:
    if there:
        Path(name).write_bytes(b"old")
    before, threads = here(), threading.active_count()

    def go_on() -> None:
        with open_target(name, FileUses()) as sink:
            sink.write(bytes(3 << 20))
            raise UsageError("broken off")

    with pytest.raises(UsageError, match="broken off"):
        go_on()
    assert here() == before
    assert threading.active_count() == threads


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_object_that_breaks_off(suffix: str) -> None:
    """What is sent by a thread is not sent any more.  (The store in memory keeps what it has.)"""
    fsspec = pytest.importorskip("fsspec")
    threads = threading.active_count()

    def go_on() -> None:
        with open_target(f"memory://breaks/off{suffix}", FileUses()) as sink:
            sink.write(DATA)
            sink.flush()
            raise UsageError("broken off")

    with pytest.raises(UsageError, match="broken off"):
        go_on()
    fsspec.filesystem("memory").rm("/breaks", recursive=True)
    assert threading.active_count() == threads


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".xz"])
def test_an_object(suffix: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    send(f"memory://whole/object{suffix}")
    store = fsspec.filesystem("memory")
    found = store.cat(f"/whole/object{suffix}")
    magic = {"": DATA[:2], ".gz": b"\x1f\x8b", ".zst": b"\x28\xb5", ".xz": b"\xfd7"}
    assert found[:2] == magic[suffix]
    assert suffix != ".gz" or gzip.decompress(found) == DATA
    store.rm("/whole", recursive=True)


class Stdout:
    """Stands for stdout: a file, or a terminal."""

    def __init__(self, fd: int, *, terminal: bool) -> None:
        self._fd = fd
        self._terminal = terminal
        self.flushed = False

    def isatty(self) -> bool:
        return self._terminal

    def flush(self) -> None:
        self.flushed = True

    def fileno(self) -> int:
        return self._fd


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.open("out", os.O_RDWR | os.O_CREAT)
    yield made
    os.close(made)


@pytest.mark.parametrize("name", [None, "-"])
def test_stdout(monkeypatch: pytest.MonkeyPatch, fd: int, name: str | None) -> None:
    """What was printed before comes first."""
    stdout = Stdout(fd, terminal=False)
    monkeypatch.setattr(sys, "stdout", stdout)
    send(name)
    assert stdout.flushed
    assert Path("out").read_bytes() == DATA
    monkeypatch.setattr(sys, "stdout", Stdout(fd, terminal=True))
    with pytest.raises(UsageError) as error:
        send(name)
    assert str(error.value) == (
        "refusing to write binary data to a terminal; use --to FILE, or redirect stdout"
    )
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(FailureError) as closed:
        send(name)
    assert str(closed.value) == "stdout is closed"


def test_the_caller_s_file() -> None:
    """It is not closed, and no file that is read."""
    with open("made", "wb") as file:
        with adopt_target(file, FileUses()) as sink:
            sink.write(DATA)
        assert not file.closed
    assert Path("made").read_bytes() == DATA
    other = io.BytesIO()
    with adopt_target(other, FileUses()) as sink:
        sink.write(DATA)
    assert other.getvalue() == DATA
    uses = FileUses()
    uses.add("the stream", "made", writes=False)
    with open("made", "ab") as file, pytest.raises(UsageError) as error, adopt_target(file, uses):
        pass
    assert "the target" in str(error.value)


def test_the_target_is_one_of_the_files() -> None:
    Path("made").touch()
    uses = FileUses()
    with open_target("made", uses) as sink:
        sink.write(b"x")
    with pytest.raises(UsageError) as error:
        uses.add("another", "made", writes=False)
    assert "the target (made)" in str(error.value)


# -- the bytes of payloads


def content(payload: Payload) -> list[bytes]:
    return [bytes(piece) for piece in resolve_content(payload)]


MIB = 1 << 20


def test_payloads() -> None:
    assert content(Literal(0, 3, None, b"abc")) == [b"abc"]
    assert content(Fill(0, 0, None, 7)) == []
    assert content(Fill(0, 3, None, 7)) == [b"\7" * 3]
    assert list(map(len, content(Fill(0, 2 * MIB + 5, None, 7)))) == [MIB, MIB, 5]
    assert b"".join(content(Fill(0, 2 * MIB + 5, None, 7))) == b"\7" * (2 * MIB + 5)
    with pytest.raises(TypeError) as error:
        content(Payload(0, 5))
    assert str(error.value) == "a payload of a stream that is not being read"


def test_a_range_of_a_file() -> None:
    Path("f").write_bytes(b"x" * 5 + bytes(2 * MIB) + b"y")
    assert list(map(len, content(FileRange(4, 2 * MIB + 2, None, "f")))) == [MIB, MIB, 2]
    assert content(FileRange(2 * MIB + 4, 2, None, "f")) == [b"\0y"]
    with pytest.raises(FailureError) as error:
        content(FileRange(2 * MIB + 4, 3, None, "f"))
    assert str(error.value) == f"f ends before byte {2 * MIB + 7}"
    with pytest.raises(FailureError) as missing:
        content(FileRange(0, 3, None, "g"))
    assert str(missing.value) == "g: No such file or directory"


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_payloads_of_a_stream(kind: str) -> None:
    data = b"ab" * MIB + b"c"
    source = in_file(data) if kind == "file" else piped(data)
    source.available(len(data))
    resolve = resolving(source)
    assert [bytes(piece) for piece in resolve(Payload(3, 4))] == [b"baba"]
    pieces = [bytes(piece) for piece in resolve(Payload(1, 2 * MIB))]
    assert list(map(len, pieces)) == [MIB, MIB]
    assert b"".join(pieces) == data[1:]
    assert list(map(bytes, resolve(Literal(0, 1, None, b"x")))) == [b"x"]
    assert list(resolve(Payload(5, 0))) == []


def test_events_are_written() -> None:
    """The padding of an image's chunk is zeros."""
    file = io.BytesIO()
    image: Any = MemoryImage(DATA)
    payload = ImageRange(100, 50, None, 20, image=image)
    events = [Eof(0, 0, None), VmDescription(0, 0, None, payload)]
    with adopt_target(file, FileUses()) as sink:
        write_events(events, sink, resolve_content)
    assert file.getvalue() == b"\0\6" + (50).to_bytes(4, "big") + DATA[100:130] + bytes(20)


class Empty(MemoryImage):
    """A disk of 4000 MiB, of which nothing is allocated."""

    size = 4000 * MIB

    def extents(self) -> Iterator[tuple[int, int]]:
        return iter(())


def test_runs_are_written() -> None:
    disk = Disk("d", Empty(b""))
    file = io.BytesIO()
    pieces = list(send_pieces([disk], SendOptions()))
    assert any(isinstance(piece, Run) for piece in pieces)
    with adopt_target(file, FileUses()) as sink:
        write_events(pieces, sink, resolve_content)
    assert file.getvalue() == encoded(send_events([disk], SendOptions()))


@pytest.mark.parametrize("device", [True, False])
def test_a_device_is_put_on_stable_storage(monkeypatch: pytest.MonkeyPatch, device: bool) -> None:
    """A block device, not a terminal or the like."""
    synced: list[int] = []
    with open_target("/dev/null", FileUses()) as sink:
        sink.write(DATA)
        monkeypatch.setattr(stat, "S_ISBLK", lambda _: device)
        monkeypatch.setattr(os, "fsync", synced.append)
    assert bool(synced) is device


def test_a_device_that_cannot_be_put_on_stable_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    def go_on() -> None:
        with open_target("/dev/null", FileUses()) as sink:
            sink.write(DATA)
            monkeypatch.setattr(stat, "S_ISBLK", lambda _: True)
            monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(FailureError) as error:
        go_on()
    assert str(error.value) == "/dev/null: Input/output error"


@pytest.mark.parametrize("name", ["f", "f.gz"])
def test_a_fifo(name: str) -> None:
    os.mkfifo(name)
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(Path(name).read_bytes()))
    thread.start()
    send(name)
    thread.join()
    (content_,) = found
    assert (gzip.decompress(content_) if name.endswith("gz") else content_) == DATA
    assert stat.S_ISFIFO(os.stat(name).st_mode)


@pytest.mark.parametrize("name", ["f", "f.gz", "f.xz", "f.zst"])
def test_a_file(name: str) -> None:
    send(name)
    found = Path(name).read_bytes()
    magic = {"": DATA[:2], ".gz": b"\x1f\x8b", ".zst": b"\x28\xb5", ".xz": b"\xfd7"}
    assert found[:2] == magic[os.path.splitext(name)[1]]
    assert name != "f.gz" or gzip.decompress(found) == DATA
    assert set(here()) == {name}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("folder", "folder: Is a directory"),
        ("no/f", "no/f: No such file or directory"),
        ("fd:987", "fd:987: Bad file descriptor"),
        ("f/f", "f/f: Not a directory"),
    ],
)
def test_what_cannot_be_opened(name: str, said: str) -> None:
    os.mkdir("folder")
    Path("f").touch()
    with pytest.raises(FailureError) as error:
        send(name)
    assert str(error.value) == said


def test_the_environment_of_a_command() -> None:
    """That of the user, without what the program sets for itself."""
    os.putenv("BLKMIG_OF_ITS_OWN", "1")
    try:
        send('exec:cat > made; printf "[$BLKMIG_OF_ITS_OWN]" > environment')
    finally:
        os.unsetenv("BLKMIG_OF_ITS_OWN")
    assert Path("environment").read_bytes() == b"[]"
