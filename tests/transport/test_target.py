"""TARGET: what stands there, what it may be, and that it is none of the input files."""

import errno
import gzip
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

import blkmig_cli
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.transport.sinks import Sink
from tests.conftest import Run, fails
from tests.support import raw

BLKMIG = [sys.executable, "-m", "blkmig_cli"]
STREAM = raw.qemu(raw.block(0, 8), raw.block(2048, 0, rest=b"\5" * raw.CHUNK))
SCRUB = ("scrub", "--device-size", "2M", "-q")


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "s.bin"
    path.write_bytes(STREAM)
    return path


# -- what stands there


@pytest.mark.parametrize("able", [True, False])
def test_a_new_stream_is_written_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    """All of its data, while it is made; that is a hint, which a file system need not take."""
    asked: list[tuple[int, int]] = []

    def advise(fd: int, offset: int, length: int, advice: int) -> None:
        asked.append((offset, offset + length))
        if not able:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    disk, made = tmp_path / "d.img", tmp_path / "new.bin"
    disk.write_bytes(b"x" * (5 << 20))
    assert run("send", disk, "--to", made).status == 0
    asked.sort()
    assert all(start == before for (_, before), (start, _) in pairwise(asked))
    assert asked[-1][1] - asked[0][0] >= 5 << 20
    assert run("validate", made, "--image", f"drive0={disk}").status == 0


def test_an_existing_file_keeps_its_mode(run: Run, stream: Path, tmp_path: Path) -> None:
    target = tmp_path / "t"
    target.write_bytes(b"old")
    target.chmod(0o600)
    assert run(*SCRUB, stream, "--to", target).status == 0
    assert target.read_bytes() == STREAM
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("there", [True, False])
def test_a_symlink_is_followed(run: Run, stream: Path, tmp_path: Path, there: bool) -> None:
    folder, link = tmp_path / "folder", tmp_path / "t"
    folder.mkdir()
    link.symlink_to("folder/real")
    if there:
        (folder / "real").write_bytes(b"old")
    assert run(*SCRUB, stream, "--to", link).status == 0
    assert link.is_symlink()
    assert (folder / "real").read_bytes() == STREAM
    assert [path.name for path in folder.iterdir()] == ["real"]


def reading(path: Path) -> tuple[threading.Thread, list[bytes]]:
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(path.read_bytes()))
    thread.start()
    return thread, found


@pytest.mark.parametrize("name", ["fifo", "fifo.gz"])
def test_a_fifo(run: Run, stream: Path, tmp_path: Path, name: str) -> None:
    fifo = tmp_path / name
    os.mkfifo(fifo)
    thread, found = reading(fifo)
    assert run(*SCRUB, stream, "--to", fifo).status == 0
    thread.join()
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    (content,) = found
    assert (gzip.decompress(content) if name.endswith(".gz") else content) == STREAM


def test_devices_stay_devices(run: Run, stream: Path) -> None:
    assert run(*SCRUB, stream, "--to", "/dev/null").status == 0
    fails(run(*SCRUB, stream, "--to", "/dev/full"), 4, "/dev/full: No space left on device")
    for name in ("/dev/null", "/dev/full"):
        assert Path(name).is_char_device()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".", "Is a directory"),
        ("folder", "Is a directory"),
        ("no/t", "No such file or directory"),
        ("s.bin/t", "Not a directory"),
    ],
)
def test_places_that_take_no_stream(
    run: Run, stream: Path, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "folder").mkdir()
    fails(run(*SCRUB, stream, "--to", f"{tmp_path}/{name}"), 4, words)
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "s.bin"}


def test_a_descriptor(run: Run, stream: Path, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "t", os.O_WRONLY | os.O_CREAT)
    try:
        assert run(*SCRUB, stream, "--to", f"fd:{fd}").status == 0
    finally:
        os.close(fd)
    assert (tmp_path / "t").read_bytes() == STREAM
    fails(run(*SCRUB, stream, "--to", "fd:987"), 4, "fd:987: Bad file descriptor")
    fd = os.open(tmp_path / "t", os.O_RDONLY)
    try:
        fails(run(*SCRUB, stream, "--to", f"fd:{fd}"), 4, f"fd:{fd}: Bad file descriptor")
    finally:
        os.close(fd)


def test_stdout(stream: Path) -> None:
    for more in ([], ["--to", "-"], ["--to", "fd:1"]):
        words: list[str] = [*BLKMIG, *SCRUB, str(stream), *more]
        done = subprocess.run(words, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, STREAM, b"")


def test_stdout_that_is_a_socket_whose_peer_has_gone(stream: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        words = [*BLKMIG, *SCRUB, str(stream)]
        done = subprocess.run(words, stdout=theirs.fileno(), stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_failure_while_it_is_written_leaves_what_was_there(
    run: Run, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "t"
    target.write_bytes(b"old")

    def full(_: Sink) -> None:
        raise blkmig_cli.FailureError("full")

    monkeypatch.setattr(Sink, "flush", full)
    fails(run(*SCRUB, stream, "--to", target), 4, "full")
    assert target.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"s.bin", "t"}


# -- no file that is read


def same(path: Path) -> str:
    return str(path)


def dotted(path: Path) -> str:
    return f"{path.parent}/./{path.name}"


def uri(path: Path) -> str:
    return f"file:{path}"


def hard_link(path: Path) -> str:
    path.with_name("hard").hardlink_to(path)
    return str(path.with_name("hard"))


def symlink(path: Path) -> str:
    path.with_name("soft").symlink_to(path.name)
    return str(path.with_name("soft"))


def descriptor(path: Path) -> str:
    return f"fd:{os.open(path, os.O_RDWR)}"


def device_of_descriptor(path: Path) -> str:
    return f"/dev/fd/{os.open(path, os.O_RDWR)}"


ALIASES: list[Callable[[Path], str]] = [
    same,
    dotted,
    uri,
    hard_link,
    symlink,
    descriptor,
    device_of_descriptor,
]
COMMANDS: dict[str, tuple[str, ...]] = {
    "extract": ("extract", "{}", "--device-size", "2M", "--to"),
    "salvage": ("salvage", "{}", "--device-size", "2M", "--to"),
    "scrub": (*SCRUB, "{}", "--to"),
    "convert": ("convert", "{}", "--device-size", "2M", "--to"),
    "map": ("map", "{}", "--svg"),
}


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("swapped", [False, True])
def test_the_stream_is_not_the_target(
    run: Run, stream: Path, command: str, alias: Callable[[Path], str], swapped: bool
) -> None:
    names = (str(stream), alias(stream))
    source, target = reversed(names) if swapped else names
    words = [word.format(source) for word in COMMANDS[command]]
    outcome = run(*words, target)
    assert outcome.status == 2, outcome
    assert "the stream (" in outcome.err
    assert "and the target (" in outcome.err
    assert "are the same file" in outcome.err
    assert stream.read_bytes() == STREAM


@pytest.mark.parametrize(
    "redirection", ["< s.bin >> s.bin", "< s.bin 1<> s.bin", "- < hard 1<> s.bin"]
)
def test_stdin_is_not_stdout(stream: Path, redirection: str) -> None:
    hard_link(stream)
    words = redirection if redirection.startswith("-") else f"- {redirection}"
    command = f"{' '.join(BLKMIG)} {' '.join(SCRUB)} {words}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, cwd=stream.parent
    )
    assert done.returncode == 2
    expected = "the stream (stdin) and the target (stdout) are the same file"
    assert done.stderr == f"blkmig: {expected}\n"
    assert stream.read_bytes() == STREAM


def test_stdin_is_not_the_target(stream: Path) -> None:
    for target in ("s.bin", hard_link(stream)):
        with open(stream, "rb") as file:
            done = subprocess.run(
                [*BLKMIG, *SCRUB, "-", "--to", target],
                stdin=file,
                capture_output=True,
                check=False,
                cwd=stream.parent,
            )
        assert done.returncode == 2
        assert stream.read_bytes() == STREAM


@pytest.mark.parametrize("alias", ALIASES)
def test_nothing_that_send_reads_is_the_target(
    run: Run, tmp_path: Path, alias: Callable[[Path], str]
) -> None:
    """Images, bitmaps (those beside the image, too), and the manifest that it writes."""
    image, bitmaps, other = tmp_path / "a.img", tmp_path / "a.img.bitmaps.json", tmp_path / "b"
    image.write_bytes(bytes(raw.CHUNK))
    content = BitmapFile(raw.CHUNK)
    content.bitmaps["x"] = DirtyBitmap("x", 65536, True, False)
    write_bitmaps(bitmaps, content)
    write_bitmaps(other, content)
    words = ["send", str(image), "-q", "--bitmaps"]
    read: dict[Path, list[str]] = {image: [], bitmaps: [], other: ["--bitmaps-from", str(other)]}
    for path, options in read.items():
        before = path.read_bytes()
        name = alias(path)
        fails(run(*words, *options, "--to", name), 2, "are the same file")
        target = tmp_path / "t"
        if not name.startswith(("fd:", "file:")):
            outcome = run(*words, *options, "--to", target, "--manifest", name)
            fails(outcome, 2, "are the same file")
        assert not target.exists()
        assert path.read_bytes() == before
        for link in ("hard", "soft"):
            path.with_name(link).unlink(missing_ok=True)
    outcome = run(*words, "--to", tmp_path / "t", "--manifest", f"{tmp_path}/./t")
    fails(outcome, 2, "the manifest (")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("alias", ALIASES)
def test_no_file_of_a_spec_is_the_target(
    run: Run, tmp_path: Path, alias: Callable[[Path], str]
) -> None:
    spec, data = tmp_path / "spec.json", tmp_path / "data"
    data.write_bytes(b"\7" * raw.CHUNK)
    block = {"type": "block", "device": "d", "sector": 0, "flags": ["device-block"]}
    payload = {"file": "data", "offset": 0, "length": raw.CHUNK}
    spec.write_text(json.dumps({"blkmig-spec": 1, "records": [block | {"data": payload}]}))
    assert run("build", spec, "--to", tmp_path / "t").status == 0
    for path, what in ((spec, "the spec ("), (data, "a file of the spec (")):
        before = path.read_bytes()
        fails(run("build", spec, "--to", alias(path)), 2, what)
        assert path.read_bytes() == before
        for link in ("hard", "soft"):
            path.with_name(link).unlink(missing_ok=True)


def test_no_bitmaps_file_of_convert_is_the_target(run: Run, stream: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    content = BitmapFile(2 * raw.CHUNK)
    content.bitmaps["x"] = DirtyBitmap("x", 65536, True, False)
    write_bitmaps(path, content)
    before = path.read_bytes()
    words = ("convert", stream, "--device-size", "2M", "--bitmaps-from", path)
    fails(run(*words, "--to", f"{tmp_path}/./b.json"), 2, "the bitmaps file (")
    assert path.read_bytes() == before


@pytest.mark.parametrize("alias", ALIASES)
def test_the_library_does_not_write_the_stream_that_it_reads(
    stream: Path, alias: Callable[[Path], str]
) -> None:
    target = alias(stream)
    with open(stream, "r+b") as file:
        for source in (str(stream), stream, file):
            with blkmig_cli.open(source) as opened:
                for name in (target, file):
                    with pytest.raises(blkmig_cli.UsageError, match="are the same file"):
                        blkmig_cli.write(opened.events(), name, source=opened)
    assert stream.read_bytes() == STREAM
