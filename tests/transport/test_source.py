"""Opening a STREAM: its name, its input, and what the first bytes decide."""

import gzip
import io
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.errors import FailureError, StreamError, UsageError
from blkmig_cli.text import count
from blkmig_cli.transport.source import Stream, adopt_stream, open_stream, stream_name
from tests.support.replays import folder
from tests.transport.test_save_images import save

__all__ = ["folder"]

DATA = b"no stream: " + random.Random(3).randbytes(90_000)


@pytest.fixture(autouse=True)
def written() -> None:
    Path("s").write_bytes(DATA)
    Path("s.gz").write_bytes(gzip.compress(DATA))
    Path("s.save").write_bytes(save(DATA))
    Path("s.save.gz").write_bytes(save(gzip.compress(DATA), 1))
    Path("s.part").write_bytes(save(DATA, magic=b"LibvirtQemudPart"))


def read(stream: Stream) -> bytes:
    """All of a stream, whatever its input is."""
    found, source = [], stream.input
    while piece := source.peek(70_001):
        found.append(piece)
        source.advance(len(piece))
        source.release()
    return b"".join(found)


@contextmanager
def piped(data: bytes) -> Iterator[str]:
    """Give a pipe with ``data``, as a STREAM."""
    ours, theirs = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, ours)
        child = os.fork()
        if not child:
            os.close(ours)
            with open(theirs, "wb") as file:
                file.write(data)
            os._exit(0)
        os.close(theirs)
        yield f"fd:{ours}"
    os.waitpid(child, 0)


BEHIND = 692  # the header of a save image


@pytest.mark.parametrize(
    ("name", "origin", "seekable", "in_place"),
    [
        ("s", 0, True, True),
        ("file:s,offset=0", 0, True, True),
        ("file:s,offset=5", 5, True, True),
        ("s.gz", 0, False, False),
        ("s.save", BEHIND, True, True),
        ("s.save.gz", 0, False, False),
        ("s.part", BEHIND, True, True),
        ("exec:cat s", 0, False, False),
        ("exec:cat s.gz", 0, False, False),
        ("exec:cat s.save", BEHIND, False, False),
        ("exec:cat s.save.gz", 0, False, False),
        ("exec:gzip -c s.save", BEHIND, False, False),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_inputs(name: str, origin: int, seekable: bool, in_place: bool, again: bool) -> None:
    """The same bytes; ``origin``: where they begin in what was read."""
    with open_stream(name, again=again) as stream:
        source = stream.input
        assert (source.origin, source.in_place) == (origin, in_place)
        assert (source.seekable, stream.seekable) == (seekable or again,) * 2
        assert (source.damage is not None) == ("part" in name)
        start = 5 if "offset=5" in name else 0
        assert read(stream) == DATA[start:]
        assert (stream.name, stream.number) == (name, 1)
        size = source.size
        kind = "a pipe" if size is None else f"a file of {count(size, 'byte')}"
        assert str(stream) == f"{name}: {kind}"


@pytest.mark.parametrize(
    ("name", "file", "path"),
    [
        ("s", "s", "s"),
        ("file:s,offset=0", "s", "s"),
        ("file:s,offset=5", "s", None),
        ("s.gz", "s.gz", None),
        ("s.save", "s.save", None),
        ("exec:cat s", None, None),
    ],
)
def test_the_file_to_which_offsets_refer(name: str, file: str | None, path: str | None) -> None:
    with open_stream(name) as stream:
        assert stream.path == path
        assert stream.file == file


def test_a_folder_for_relative_paths() -> None:
    os.mkdir("f")
    Path("f/t").write_bytes(b"in the folder")
    with open_stream("t", folder="f") as stream:
        assert read(stream) == b"in the folder"
    with open_stream(str(Path("s").absolute()), folder="f") as stream:
        assert read(stream) == DATA
    with pytest.raises(FailureError, match="t: No such file"), open_stream("t"):
        pass


def test_a_descriptor() -> None:
    """A file is read from its position."""
    fd = os.open("s", os.O_RDONLY)
    os.lseek(fd, 7, os.SEEK_SET)
    with open_stream(f"fd:{fd}") as stream:
        assert (stream.file, stream.path, stream.input.origin) == (fd, None, 7)
        assert read(stream) == DATA[7:]
    os.close(fd)
    with piped(DATA) as name, open_stream(name) as stream:
        assert read(stream) == DATA
        assert str(stream) == f"{name}: a pipe"


@pytest.mark.parametrize("length", [0, 1, 5, 15, 16, 17, 91, 92, 93])
def test_short_inputs(length: int) -> None:
    """Shorter than what the first bytes are looked at for."""
    data = DATA[:length]
    Path("t").write_bytes(data)
    for name in ("t", "exec:cat t"):
        with open_stream(name) as stream:
            assert read(stream) == data
    packed = gzip.compress(data)
    Path("t").write_bytes(packed)
    for name in ("t", "exec:cat t"):
        with open_stream(name) as stream:
            assert read(stream) == data


def test_what_is_packed_twice_is_unpacked_once() -> None:
    Path("t").write_bytes(gzip.compress(gzip.compress(DATA)))
    with open_stream("t") as stream:
        assert gzip.decompress(read(stream)) == DATA


def test_a_save_image_that_was_packed() -> None:
    """Its header decides what is unpacked then."""
    for content in (save(DATA), save(gzip.compress(DATA), 1)):
        Path("t").write_bytes(gzip.compress(content))
        with open_stream("t") as stream:
            assert read(stream) == DATA


@pytest.mark.parametrize("length", [0, 4, 9, 12, 100])
def test_damage_behind_the_first_bytes(length: int) -> None:
    """It is raised when the bytes before it have been taken."""
    packed = gzip.compress(DATA[:50], 0)
    Path("t").write_bytes(packed[: 15 + min(length, 50)] if length < 100 else packed[:-1])
    kept = min(length, 50)
    with open_stream("exec:cat t") as stream:
        assert stream.input.available(kept) == kept
        assert stream.input.peek(kept) == DATA[:kept]
        with pytest.raises(StreamError, match="the gzip data is truncated"):
            stream.input.available(kept + 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "none: No such file or directory"),
        (".", ".: is a directory"),
        ("fd:987", "fd:987: Bad file descriptor"),
    ],
)
def test_what_cannot_be_opened(name: str, said: str) -> None:
    with pytest.raises(FailureError) as error, open_stream(name):
        pass
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cat s; exit 5", "exec:cat s; exit 5 ended with status 5"),
        ("cat s; kill -9 $$", "exec:cat s; kill -9 $$ ended with status -9"),
        ("cat s; exit 141", None),
        ("cat s; kill -13 $$", None),
        ("cat s", None),
    ],
)
def test_the_end_of_a_command(command: str, said: str | None) -> None:
    """One that ends as nobody reads its output any more has not failed."""

    def take() -> None:
        with open_stream(f"exec:{command}") as stream:
            assert read(stream) == DATA

    if said is None:
        take()
        return
    with pytest.raises(FailureError) as error:
        take()
    assert str(error.value) == said


def test_a_command_of_a_stream_with_an_error() -> None:
    """It is ended, and its own status is of no interest."""

    def take() -> None:
        with open_stream("exec:cat s; exec cat /dev/zero"):
            raise UsageError("broken off")

    with pytest.raises(UsageError, match="broken off"):
        take()


def test_names() -> None:
    assert (stream_name("s", 1), stream_name("s", 2)) == ("s", "s (stream 2)")
    stream = Stream("https://user:secret@h/s\n", None)  # type: ignore[arg-type]
    assert "secret" not in stream.name
    following = stream.following()
    assert (following.number, following.argument) == (2, stream.argument)
    assert following.name == f"{stream.name} (stream 2)"


# -- what the caller has opened


def test_bytes_in_memory() -> None:
    with adopt_stream(DATA) as stream:
        assert (stream.name, stream.file, stream.seekable) == ("(bytes)", None, True)
        assert read(stream) == DATA
    with adopt_stream(gzip.compress(DATA)) as stream:
        assert read(stream) == DATA


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_file_that_the_caller_has_opened(buffering: int) -> None:
    with open("s", "rb", buffering) as file:
        file.read(3)
        with adopt_stream(file) as stream:
            assert (stream.name, stream.file) == ("s", file.fileno())
            assert read(stream) == DATA[3:]
        assert not file.closed


def test_other_files_are_read_once() -> None:
    file: Any = io.BytesIO(DATA)
    file.read(3)
    with adopt_stream(file) as stream:
        assert (stream.name, stream.file, stream.seekable) == ("(file)", None, False)
        assert read(stream) == DATA[3:]
    with (
        piped(DATA) as name,
        open(int(name[3:]), "rb", closefd=False) as pipe,
        adopt_stream(pipe) as stream,
    ):
        assert not stream.seekable
        assert read(stream) == DATA


def test_files_of_text() -> None:
    with pytest.raises(TypeError) as error, adopt_stream(io.StringIO("x")):  # type: ignore[arg-type]
        pass
    assert str(error.value) == "a stream is bytes, or a file that is open in binary mode"


# -- objects at URLs


@pytest.mark.parametrize("by_range", [True, False])
@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize(
    ("name", "ranged"),
    [("s", True), ("s.gz", False), ("s.save", False), ("s.save.gz", False), ("empty", True)],
)
def test_objects(name: str, ranged: bool, by_range: bool, again: bool) -> None:
    """By ranges only if that was asked for, and the stream is plain."""
    store = pytest.importorskip("fsspec").filesystem("memory")
    Path("empty").touch()
    store.pipe(f"/objects/{name}", Path(name).read_bytes())
    try:
        with open_stream(f"memory://objects/{name}", by_range=by_range, again=again) as stream:
            assert stream.input.seekable is (again or (ranged and by_range))
            assert stream.input.in_place is False
            assert stream.remote is not None
            assert (stream.file, stream.path) == (None, None)
            assert read(stream) == (b"" if name == "empty" else DATA)
    finally:
        store.rm("/objects", recursive=True)


def test_no_object() -> None:
    pytest.importorskip("fsspec")
    with (
        pytest.raises(FailureError) as error,
        open_stream("memory://objects/none"),
    ):
        pass
    assert str(error.value) == "memory://objects/none: No such file or object"


def test_the_environment_of_a_command() -> None:
    """That of the user, without what the program sets for itself."""
    os.putenv("BLKMIG_OF_ITS_OWN", "1")
    try:
        with open_stream('exec:printf "[$BLKMIG_OF_ITS_OWN]"') as stream:
            assert read(stream) == b"[]"
    finally:
        os.unsetenv("BLKMIG_OF_ITS_OWN")
