"""How bytes of an image are copied, and what is done where the system lacks the fastest way."""

import ctypes
import errno
import gzip
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.disks import raw as raw_images
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.raw import RawImage, open_raw
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.send.stream import SendOptions, send_events
from blkmig_cli.schemas.block import join_word
from blkmig_cli.schemas.constants import BlockFlag, RamFlag
from blkmig_cli.system import pipes
from blkmig_cli.transport.sinks import Sink
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import Block, Ram
from tests.conftest import Run, fails
from tests.support import raw
from tests.support.strategies import MemoryImage

MIB = 1 << 20
CONTENT = os.urandom(2 * MIB) + bytes(MIB) + os.urandom(MIB)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[RawImage]:
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENT)
    opened = open_raw(str(path), writable=True)
    yield opened
    opened.close()


def through_a_pipe(copy: Callable[[int], None]) -> bytes:
    """What ``copy`` writes to the pipe that it is given."""
    ours, theirs = os.pipe()
    found: list[bytes] = []

    def read() -> None:
        with open(ours, "rb") as file:
            found.append(file.read())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        copy(theirs)
    finally:
        os.close(theirs)
        reader.join()
    return found[0]


def refuse(*_: object) -> int:
    raise OSError(errno.EINVAL, "Invalid argument")


def a_little(fd: int, source: int, offset: int, length: int) -> int:
    return SENDFILE(fd, source, offset, min(length, 1000))


def a_little_then_no_more(fd: int, source: int, offset: int, length: int) -> int:
    return a_little(fd, source, offset, length) if offset < MIB + 5000 else refuse()


SENDFILE = os.sendfile


@pytest.mark.parametrize("way", [SENDFILE, a_little, a_little_then_no_more, refuse])
@pytest.mark.parametrize("pipe", [True, False])
def test_every_way_gives_the_same(
    image: RawImage, monkeypatch: pytest.MonkeyPatch, way: Callable[..., int], pipe: bool
) -> None:
    """sendfile whole, in bits, giving up in between, or not at all; and without it."""
    calls = []

    def counting(*words: int) -> int:
        calls.append(words)
        return way(*words)

    monkeypatch.setattr(os, "sendfile", counting)
    start, length = MIB + 17, MIB + 4321
    found = through_a_pipe(lambda fd: image.copy_to(fd, start, length, pipe=pipe))
    assert found == CONTENT[start : start + length]
    assert bool(calls) == pipe


def test_short_reads_and_writes(image: RawImage, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv, write = os.preadv, os.write
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: preadv(fd, [into[0][:5000]], at))
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3000]))
    found = through_a_pipe(lambda fd: image.copy_to(fd, 7, 100_000))
    assert found == CONTENT[7:100_007]
    assert image.is_zero(2 * MIB, MIB)
    assert not image.is_zero(2 * MIB, MIB + 1)


@pytest.mark.parametrize("pipe", [True, False])
def test_a_pipe_that_does_not_wait(image: RawImage, pipe: bool) -> None:
    """A non-blocking pipe, as some parents give to their children: blkmig waits."""

    def copy(fd: int) -> None:
        os.set_blocking(fd, False)
        image.copy_to(fd, 3, 3 * MIB, pipe=pipe)
        Sink("x", fd).write(CONTENT)

    assert through_a_pipe(copy) == CONTENT[3 : 3 + 3 * MIB] + CONTENT


@pytest.mark.parametrize("packed", [False, True])
def test_a_stream_that_comes_late(run: Run, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    """The same on the reading side: nothing there yet is no end."""
    waiting = threading.Event()
    wait = pipes._wait

    def watched(fd: int, event: int) -> None:
        waiting.set()
        wait(fd, event)

    monkeypatch.setattr(pipes, "_wait", watched)
    content = raw.qemu(raw.block(0, 0, "d", b"\1" * MIB), raw.block(2048, 8, "d"))
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)

    def write() -> None:
        data = gzip.compress(content) if packed else content
        with suppress(BrokenPipeError), open(theirs, "wb", buffering=0) as file:
            for part in (data[:3], data[3:40], data[40:]):
                waiting.wait(5)
                waiting.clear()
                file.write(part)

    writer = threading.Thread(target=write)
    writer.start()
    outcome = run("validate", f"fd:{ours}", "--device-size", "2M")
    os.close(ours)
    writer.join()
    assert outcome.status == 0, outcome


@pytest.mark.parametrize("pipe", [True, False])
def test_an_image_that_has_become_shorter(image: RawImage, pipe: bool) -> None:
    os.truncate(image.path, MIB)

    def copy(fd: int) -> None:
        with pytest.raises(FailureError, match="became shorter"):
            image.copy_to(fd, MIB - 1000, 2000, pipe=pipe)

    assert through_a_pipe(copy) == CONTENT[MIB - 1000 : MIB]


@pytest.mark.parametrize("way", ["copy_to", "places"])
def test_a_hole_that_is_none(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Where an image is truncated while it is sent, that looks like a hole, but is not sent as one."""
    image, target = tmp_path / "disk.img", tmp_path / "s.bin"
    image.write_bytes(CONTENT + CONTENT)  # as much as is looked at before the first is sent
    with open(image, "r+b") as file:
        file.seek(40 * MIB)
        file.write(CONTENT)
    original = getattr(RawImage, way)

    def cut(self: RawImage, *words: int, **more: bool) -> object:
        found = original(self, *words, **more)
        os.truncate(self.path, 8 * MIB)
        return found

    monkeypatch.setattr(RawImage, way, cut)
    to = target if way == "places" else f"exec:cat > {target}"
    fails(run("send", image, "--to", to, "-q"), 4, "became shorter")
    assert way == "copy_to" or not target.exists()


def test_no_holes_to_be_found(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no SEEK_DATA: the same stream, by reading."""
    image, ours, theirs = tmp_path / "disk.img", tmp_path / "s.bin", tmp_path / "t.bin"
    image.write_bytes(CONTENT)
    os.truncate(image, 9 * MIB)
    assert run("send", image, "--no-identity", "--to", ours).status == 0
    lseek = os.lseek

    def without(fd: int, offset: int, whence: int) -> int:
        return refuse() if whence in (os.SEEK_DATA, os.SEEK_HOLE) else lseek(fd, offset, whence)

    monkeypatch.setattr(os, "lseek", without)
    assert run("send", image, "--no-identity", "--to", theirs).status == 0
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.stat().st_size < 3 * MIB + 1000


class FakeLibrary:
    """A C library whose fallocate fails with ``number``."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = 0

    def fallocate(self, *_: object) -> int:
        self.calls += 1
        ctypes.set_errno(self.number)
        return -1


@pytest.mark.parametrize(
    ("number", "calls"), [(errno.EOPNOTSUPP, 1), (errno.ENOSYS, 1), (errno.EINTR, 2)]
)
def test_no_holes_to_be_made(
    image: RawImage, monkeypatch: pytest.MonkeyPatch, number: int, calls: int
) -> None:
    """Zeros are written; whether to try again depends on why there was no hole."""
    library = FakeLibrary(number)
    monkeypatch.setattr(raw_images, "_libc", lambda: library)
    image.zero(1000, MIB)
    image.zero(3 * MIB, 5000)
    assert library.calls == calls
    expected = bytearray(CONTENT)
    expected[1000 : 1000 + MIB] = bytes(MIB)
    expected[3 * MIB : 3 * MIB + 5000] = bytes(5000)
    assert image.read(0, image.size) == expected


def test_zeros_leave_holes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no holes can be made, those that are there are kept."""
    path = tmp_path / "disk.img"
    path.write_bytes(b"\1" * MIB)
    os.truncate(path, 64 * MIB)
    opened = open_raw(str(path), writable=True)
    monkeypatch.setattr(raw_images, "_libc", lambda: FakeLibrary(errno.EOPNOTSUPP))
    opened.zero(0, 64 * MIB)
    opened.flush()
    assert opened.read(0, 64 * MIB) == bytes(64 * MIB)
    assert os.stat(path).st_blocks * 512 < 2 * MIB
    opened.close()


def test_data_is_looked_at_no_further_than_it_must(
    image: RawImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    preadv = os.preadv

    def watched(fd: int, into: list[memoryview], offset: int) -> int:
        read.append(len(into[0]))
        return preadv(fd, into, offset)

    monkeypatch.setattr(os, "preadv", watched)
    assert not image.is_zero(0, MIB)
    assert sum(read) <= 4096


@given(st.integers(0, 3 * MIB), st.one_of(st.none(), st.integers(0, 3 * MIB - 1)))
def test_is_zero(length: int, place: int | None) -> None:
    data = bytearray(length)
    if place is not None and place < length:
        data[place] = 1
    assert is_zero(memoryview(data)) == (place is None or place >= length)


def test_words_are_plain_numbers() -> None:
    """An IntFlag stores every value that it ever had, so words of a stream must not become IntFlags."""
    assert type(join_word(123, BlockFlag.ZERO_BLOCK)) is int
    held = len(RamFlag._value2member_map_)
    list(encode(Ram(0, 0, "ram", RamFlag.ZERO, "pc.ram", 0x123000, (0,))))
    assert len(RamFlag._value2member_map_) == held


def test_extents_are_asked_for_as_the_disk_is_sent() -> None:
    """However many pieces an image is in, they are not gathered."""
    asked = 0

    class Watched(MemoryImage):
        def extents(self) -> Iterator[tuple[int, int]]:
            nonlocal asked
            for extent in super().extents():
                asked += 1
                yield extent

    image = Watched(b"\1" * 4096 * 256 * 40)
    blocks = 0
    for event in send_events([Disk("d", image)], SendOptions()):
        if isinstance(event, Block):
            blocks += 1
            assert asked <= (blocks + 8) * 256
    assert blocks == 40
    assert asked > 39 * 256


# -- into a new file, by threads


@pytest.fixture
def sent(run: Run, image: RawImage, tmp_path: Path) -> bytes:
    """The stream of the image, written through a pipe."""
    target = tmp_path / "piped.bin"
    assert (
        run(
            "send", image.path, "-f", "raw", "-U", "--no-identity", "--to", f"exec:cat > {target}"
        ).status
        == 0
    )
    return target.read_bytes()


def test_threads_write_the_same(run: Run, image: RawImage, tmp_path: Path, sent: bytes) -> None:
    target = tmp_path / "x.bin"
    assert run("send", image.path, "-f", "raw", "-U", "--no-identity", "--to", target).status == 0
    assert target.read_bytes() == sent
    converted = tmp_path / "y.bin"
    assert run("convert", target, "--dialect", "qemu", "--to", converted).status == 0
    assert converted.read_bytes() == sent


def test_threads_that_read_and_write_little(
    run: Run, image: RawImage, tmp_path: Path, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv, pwrite = os.preadv, os.pwrite
    monkeypatch.setattr(
        os, "preadv", lambda fd, to, at, *how: preadv(fd, [to[0][:70_001]], at, *how)
    )
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:50_003], at))
    target = tmp_path / "x.bin"
    assert run("send", image.path, "-f", "raw", "-U", "--no-identity", "--to", target).status == 0
    assert target.read_bytes() == sent


@pytest.mark.parametrize("fault", ["reading", "writing", "shorter"])
def test_a_failure_in_a_thread(
    run: Run, image: RawImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """One line, and no file is left."""

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def nothing(*_: object) -> int:
        return 0

    name = "pwrite" if fault == "writing" else "preadv"
    monkeypatch.setattr(os, name, nothing if fault == "shorter" else fail)
    # The main thread reads, too, to find zeros.
    monkeypatch.setattr(RawImage, "is_zero", lambda *_: False)
    before = sorted(os.listdir(tmp_path))
    outcome = run(
        "send", image.path, "-f", "raw", "-U", "--no-identity", "--to", tmp_path / "x.bin"
    )
    fails(outcome, 4, "became shorter" if fault == "shorter" else "No space left on device")
    assert sorted(os.listdir(tmp_path)) == before
