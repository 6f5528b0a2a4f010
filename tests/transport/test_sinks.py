"""What takes the bytes of a stream: in order and at their places, whatever is gathered in between."""

import errno
import gzip
import io
import os
import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.image import FilePart
from blkmig_cli.errors import FailureError
from blkmig_cli.transport import compression, sinks
from blkmig_cli.transport.packed_sinks import NewPackedFile, PackedSink, UrlSink
from blkmig_cli.transport.sinks import FileObjectSink, NewFile, Sink
from tests.support.replays import folder
from tests.support.strategies import MemoryImage

__all__ = ["folder"]

CONTENT = random.Random(1).randbytes(1000)


class Placed(MemoryImage):
    """An image whose bytes are in a file, in parts of ``step`` bytes; ``step`` 0: it is not known."""

    def __init__(self, content: bytes, step: int = 0) -> None:
        super().__init__(content)
        self.path = "image"
        self._step = step
        self.fd = os.memfd_create("image")
        weakref.finalize(self, os.close, self.fd)
        os.write(self.fd, b"before" + content)

    def places(self, offset: int, length: int) -> Sequence[FilePart]:  # type: ignore[override]
        if not self._step:
            return ()
        return [
            FilePart(self.fd, len(b"before") + at, min(self._step, offset + length - at))
            for at in range(offset, offset + length, self._step)
        ]


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.open("target", os.O_RDWR | os.O_CREAT)
    yield made
    os.close(made)


def target() -> bytes:
    return Path("target").read_bytes()


def packed(kind: str = "gzip") -> Any:
    return compression.packer(kind)


KINDS: dict[str, Callable[[int], Sink]] = {
    "sink": lambda fd: Sink("t", fd),
    "packed": lambda fd: PackedSink("t", fd, packed()),
    "new": lambda fd: NewFile("t", fd),
    "new packed": lambda fd: NewPackedFile("t", fd, packed()),
    "object": lambda fd: FileObjectSink(io.FileIO(fd, "wb", closefd=False)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [0, 7, 100, 5000])
@pytest.mark.parametrize("buffer", [1, 10, 50, 1 << 18])
def test_everything_in_order(
    monkeypatch: pytest.MonkeyPatch, fd: int, kind: str, step: int, buffer: int
) -> None:
    """Small pieces, large ones, pieces of an image, and zeros, one after the other."""
    monkeypatch.setattr(sinks, "_BUFFER", buffer)
    monkeypatch.setattr(sinks, "_PIECE", 30)
    monkeypatch.setattr(sinks, "_ZEROS", bytes(30))
    monkeypatch.setattr(sinks, "_COPIED", 40)
    image = Placed(CONTENT, step)
    sink = KINDS[kind](fd)
    expected = b""
    for number, length in enumerate([3, 0, 9, 1, 49, 200, 2, 50, 8]):
        sink.write(CONTENT[number : number + length])
        expected += CONTENT[number : number + length]
        if number % 2:
            sink.copy(image, 10 * number, 99 + number)
            expected += CONTENT[10 * number :][: 99 + number]
        if number % 3 == 2:
            sink.zeros(25 * number)
            expected += bytes(25 * number)
        if number == 4:
            sink.flush()
        assert sink.written == len(expected)
    sink.zeros(10)
    sink.finish()
    sink.close()
    assert sink.written == len(expected) + 10
    found = target()
    assert (gzip.decompress(found) if "packed" in kind else found) == expected + bytes(10)


@pytest.mark.parametrize(
    ("kind", "sparse"), [("sink", False), ("packed", False), ("new", True), ("object", False)]
)
def test_zeros_become_holes_in_new_files(fd: int, kind: str, sparse: bool) -> None:
    sink = KINDS[kind](fd)
    assert sink.sparse is sparse
    sink.write(b"x")
    sink.zeros(8 << 20)
    sink.write(b"y")
    sink.finish()
    sink.close()
    assert (os.stat("target").st_blocks * 512 < 1 << 20) == (kind in ("new", "packed"))
    if kind != "packed":
        assert target() == b"x" + bytes(8 << 20) + b"y"


def test_what_was_there_is_cut_off(fd: int) -> None:
    os.write(fd, b"old content")
    sink = NewFile("t", fd)
    sink.write(b"new")
    sink.finish()
    assert target() == b"new"


@pytest.mark.parametrize(("gathered", "length", "calls"), [
    (0, 9, []), (0, 10, [10]), (4, 5, []), (4, 6, [4, 6]), (9, 1, [9, 1]), (9, 0, []),
])  # fmt: skip
def test_small_pieces_are_gathered(
    monkeypatch: pytest.MonkeyPatch, fd: int, gathered: int, length: int, calls: list[int]
) -> None:
    monkeypatch.setattr(sinks, "_BUFFER", 10)
    original, seen = os.write, []

    def write(to: int, data: Any) -> int:
        seen.append(len(data))
        return original(to, data)

    monkeypatch.setattr(os, "write", write)
    sink = Sink("t", fd)
    sink.write(CONTENT[:gathered])
    sink.write(CONTENT[gathered : gathered + length])
    assert [number for number in seen if number] == calls
    sink.finish()
    assert target() == CONTENT[: gathered + length]


@pytest.mark.parametrize(
    ("error", "name", "said"),
    [
        (BrokenPipeError(errno.EPIPE, "no"), "t\n", "t\\x0a: the reader closed its end (after 5 bytes)"),
        (ConnectionResetError(errno.ECONNRESET, "no"), "t",
         "t: the reader closed its end (after 5 bytes)"),
        (BlockingIOError(errno.EAGAIN, "no"), "t",
         "t: the reader does not take any more data (after 5 bytes)"),
        (OSError(errno.ENOSPC, "No space left"), "t", "t: No space left (after 5 bytes)"),
        (BrokenPipeError(errno.EPIPE, "no"), "-", None),
        (ConnectionResetError(errno.ECONNRESET, "no"), "-", None),
        (OSError(errno.ENOSPC, "No space left"), "-", "-: No space left (after 5 bytes)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["write", "copy", "flush"])
def test_a_target_that_fails(
    monkeypatch: pytest.MonkeyPatch, fd: int, error: OSError, name: str, said: str | None, way: str
) -> None:
    """A closed stdout ends the program, any other target is named."""
    sink = Sink(name, fd)
    sink.write(b"12345")
    if way != "flush":
        sink.flush()

    def fail(*_: object) -> int:
        raise error

    class Broken(MemoryImage):
        def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
            raise error

    monkeypatch.setattr(os, "write", fail)

    def go_on() -> None:
        if way == "copy":
            sink.copy(Broken(CONTENT), 0, 9)
        elif way == "write":
            sink.write(bytes(1 << 18))
        else:
            sink.flush()

    if way == "copy":
        monkeypatch.setattr(sinks, "write_all", lambda *_: None)
    if said is None:
        with pytest.raises(BrokenPipeError) as broken:
            go_on()
        assert broken.value.errno == error.errno
        return
    with pytest.raises(FailureError) as raised:
        go_on()
    assert str(raised.value) == said


@pytest.mark.parametrize("pipe", [True, False])
def test_an_image_is_told_whether_it_is_a_pipe(fd: int, pipe: bool) -> None:
    class Asked(MemoryImage):
        asked: bool | None = None

        def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
            self.asked = pipe

    image = Asked(CONTENT)
    ours, theirs = os.pipe()
    Sink("t", theirs if pipe else fd).copy(image, 0, 9)
    assert image.asked is pipe
    os.close(ours)
    os.close(theirs)


def copied(sink: Sink, image: Placed, offset: int, length: int) -> None:
    """Copy a part of an image, and wait for it."""
    sink.copy(image, offset, length)
    sink.finish()


def test_a_part_of_an_image_that_is_gone(fd: int) -> None:
    image = Placed(CONTENT, 100)
    os.ftruncate(image.fd, 200)
    sink = NewFile("t", fd)
    with pytest.raises(FailureError) as error:
        copied(sink, image, 0, 1000)
    assert str(error.value) == "image became shorter while it was read"
    sink.close()


def test_a_part_of_an_image_that_fails(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    sink = NewFile("t", fd)
    with pytest.raises(FailureError) as error:
        copied(sink, Placed(CONTENT, 100), 50, 100)
    assert str(error.value) == "image: reading it at its byte 56: Input/output error"
    sink.close()


def test_parts_are_written_out(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    """What was gathered goes along with the first one."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(sinks, "write_back", lambda _, start, length: asked.append((start, length)))
    sink = NewFile("t", fd)
    sink.write(b"12345")
    sink.copy(Placed(CONTENT, 100), 0, 250)
    sink.finish()
    sink.close()
    assert sorted(asked) == [(0, 105), (105, 100), (205, 50)]


# -- objects of other programs


class Short(io.RawIOBase):
    """A file that takes a few bytes at a time."""

    def __init__(self) -> None:
        self.found = b""

    def write(self, data: Any) -> int:
        self.found += bytes(data[:7])
        return min(len(data), 7)


def test_a_file_that_takes_a_part() -> None:
    file: Any = Short()
    sink = FileObjectSink(file)
    sink.write(CONTENT)
    sink.finish()
    assert file.found == CONTENT


class Full(io.RawIOBase):
    """A file that takes nothing, with a name or without."""

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left")


@pytest.mark.parametrize("name", ["x\n", None])
def test_a_file_that_fails(name: str | None) -> None:
    file: Any = Full()
    if name is not None:
        file.name = name
    sink = FileObjectSink(file)
    sink.write(CONTENT)
    with pytest.raises(FailureError) as error:
        sink.finish()
    shown = "(file)" if name is None else "x\\x0a"
    assert str(error.value) == f"{shown}: No space left (after 1000 bytes)"


class Uploaded:
    """An object, and what is done to it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.found = b""
        self.completed = False
        self.error = error

    def write(self, data: Any) -> None:
        if self.error is not None:
            raise self.error
        self.found += bytes(data)

    def complete(self) -> None:
        self.completed = True


@pytest.mark.parametrize("kind", [None, "gzip"])
def test_an_object_at_a_url(kind: str | None) -> None:
    upload: Any = Uploaded()
    sink = UrlSink("https://h/x", upload, None if kind is None else packed(kind))
    sink.write(CONTENT[:300])
    sink.copy(MemoryImage(CONTENT), 300, 600)
    sink.zeros(100)
    assert not upload.completed
    sink.finish()
    sink.close()
    assert sink.written == 1000
    expected = CONTENT[:900] + bytes(100)
    assert (upload.found if kind is None else gzip.decompress(upload.found)) == expected
    assert upload.completed


def test_an_object_that_is_not_finished() -> None:
    upload: Any = Uploaded()
    sink = UrlSink("https://h/x", upload, None)
    sink.write(CONTENT)
    sink.close()
    assert not upload.completed


def test_an_object_that_fails() -> None:
    upload: Any = Uploaded(FailureError("full"))
    sink = UrlSink("https://h/x", upload, None)
    sink.write(CONTENT)
    with pytest.raises(FailureError, match="full"):
        sink.finish()
    sink.close()
    assert not upload.completed
