"""Files beside an image that have the names of our files: ours are used, all others are refused."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from blkmig_cli.disks import new_image
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from tests.conftest import Run, fails
from tests.support import raw

MIB = 1 << 20
BITMAP = raw.bitmap_start() + raw.bitmap_bits(0, 4096, b"\3".ljust(8, b"\0")) + raw.COMPLETE
STREAM = raw.qemu(
    raw.block(0, 0, rest=b"\1" * MIB), raw.block(2048, 0, rest=b"\2" * MIB), bitmaps=BITMAP
)
DISK = b"\1" * MIB + b"\2" * MIB
SUFFIXES = [".bitmaps.json", ".replay.json", ".partial", ".replay.json.new", ".blkmig.json"]


def symlink(path: Path) -> None:
    """To a file of somebody else."""
    path.symlink_to(path.parent / "other")


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "none")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    """The one of /dev/zero, under another name."""
    if os.getuid():
        pytest.skip("only root makes devices")
    os.mknod(path, 0o20666, os.makedev(1, 5))


def socket(path: Path) -> None:
    os.mknod(path, 0o140666)


def hard_link(path: Path) -> None:
    path.hardlink_to(path.parent / "other")


STRANGE: dict[Callable[[Path], None], str] = {
    symlink: "is a symbolic link",
    dangling: "is a symbolic link",
    fifo: "is a FIFO",
    folder: "is a directory",
    device: "is a device",
    socket: "is a socket",
    hard_link: "is a file with other hard links",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("s.bin").write_bytes(STREAM)
    Path("other").write_bytes(b"somebody else's")
    return tmp_path


def names(path: Path) -> dict[str, int]:
    return {found.name: found.lstat().st_ino for found in path.iterdir()}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("make", STRANGE)
@pytest.mark.parametrize("source", ["s.bin", "exec:cat s.bin"])
def test_what_is_not_ours_is_refused(
    run: Run, here: Path, source: str, make: Callable[[Path], None], suffix: str
) -> None:
    """It is never followed, waited for or removed, whatever the options."""
    make(here / f"x{suffix}")
    for image in (False, True):
        if image:
            Path("x").write_bytes(bytes(2 * MIB))
        before = names(here)
        for words in ([], ["--resume"], ["--restart"], ["--overwrite"], ["--dry-run"]):
            create = [] if image or "--overwrite" in words else ["--create"]
            outcome = run("replay", source, "--image", "x", *create, *words)
            fails(outcome, 4, f"x{suffix} {STRANGE[make]}")
            assert names(here) == before
            assert Path("other").read_bytes() == b"somebody else's"
    accepted = run("replay", "--image", "x", "--resume", "--allow-incomplete")
    fails(accepted, 4, f"x{suffix} {STRANGE[make]}")


@pytest.mark.parametrize("make", STRANGE)
def test_files_of_bitmaps_that_are_named(
    run: Run, here: Path, make: Callable[[Path], None]
) -> None:
    make(here / "b")
    before = names(here)
    outcome = run("replay", "s.bin", "--image", "x", "--create", "--bitmaps-to", "b")
    fails(outcome, 4, f"b {STRANGE[make]}")
    assert names(here) == before


def test_an_unfinished_image_behind_its_own_name(run: Run, here: Path) -> None:
    """A link from the image to its partial: nothing is removed, whatever the options."""
    Path("x.partial").write_bytes(b"half done")
    Path("x").symlink_to("x.partial")
    before = names(here)
    for words in ([], ["--create"], ["--overwrite"]):
        for more in ([], ["--resume"], ["--restart"]):
            assert run("replay", "s.bin", "--image", "x", *words, *more).status == 4
            assert names(here) == before
            assert Path("x.partial").read_bytes() == b"half done"


def test_no_second_link_for_a_moment(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise AssertionError("link")

    monkeypatch.setattr(os, "link", link)
    assert run("replay", "s.bin", "--image", "x", "--create").status == 0


# -- stale and edited


def journal(**changed: object) -> str:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    document: dict[str, object] = {
        "version": 1, "state": "writing", "new": True, "size": None, "position": 0, "records": 0,
        "data-records": 0, "digest": empty,
    }  # fmt: skip
    return json.dumps(document | changed)


STOPPED = {"state": "incomplete", "least": 0, "most": None, "end": 0, "damaged": False,
           "findings": [], "bitmaps": []}  # fmt: skip
EDITED = {
    "position without records": journal(position=1 << 60),
    "records without position": journal(records=5, digest="0" * 64),
    "records without digest": journal(position=1000, records=5),
    "digest without records": journal(digest="0" * 64),
    "more records than bytes": journal(position=10, records=11, digest="0" * 64),
    "more data than records": journal(
        position=1000, records=5, digest="0" * 64, **{"data-records": 6}
    ),
    "negative": journal(position=-1, records=1),
    "a fraction": journal(size=1.5),
    "true": journal(size=True),
    "too large": journal(size=1 << 64),
    "4,000 digits": journal().replace("null", "9" * 4000),
    "no digest": journal(digest="x" * 64),
    "another state": journal(state="done"),
    "another version": journal(version=2),
    "finished without a size": journal(state="finished"),
    "stopped without why": journal(state="incomplete"),
    "stopped with another end": journal(**STOPPED | {"end": "0"}),
    "stopped by what does not exist": journal(
        **STOPPED | {"findings": [{"id": "nothing", "message": ""}]}
    ),
    "not an object": "[]",
    "no JSON": "{",
    "no text": "\udcff",
    "deep": "[" * 10000,
    "large": " " * (1 << 17),
    "a number": "1",
}


@pytest.mark.parametrize("name", EDITED)
@pytest.mark.parametrize("partial", [True, pytest.param(False, marks=pytest.mark.long)])
def test_edited_journals(run: Run, here: Path, name: str, partial: bool) -> None:
    path = Path("x.partial" if partial else "x")
    path.write_bytes(bytes(2 * MIB))
    Path("x.replay.json").write_bytes(EDITED[name].encode(errors="surrogateescape"))
    before = names(here)
    for words in (["--resume"], ["--resume", "--allow-incomplete"]):
        for stream in (["s.bin"], ["exec:cat s.bin"], []):
            if not stream and len(words) == 1:
                continue
            outcome = run("replay", *stream, "--image", "x", *words)
            fails(outcome, 4, "is not a journal of a replay")
            assert "--restart" in outcome.err
            assert names(here) == before
            assert path.read_bytes() == bytes(2 * MIB)
    if not partial:
        fails(run("replay", "s.bin", "--image", "x"), 4, "is not a journal of a replay")
    assert run("replay", "s.bin", "--image", "x", "--restart").status == 0
    assert Path("x").read_bytes() == DISK


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position": 5, "records": 1, "digest": "0" * 64}, "of another stream"),
        ({"position": 1 << 62, "records": 2, "digest": "1" * 64}, "of another stream"),
        ({"position": 1 << 62, "records": 1 << 61, "digest": "1" * 64}, "of another stream"),
        ({"new": False}, "of another image"),
        ({"size": 512}, "of a disk of 512 bytes"),
    ],
)
def test_journals_with_false_statements(
    run: Run, here: Path, changes: dict[str, object], words: str
) -> None:
    for source in ("s.bin", "exec:cat s.bin"):
        Path("x.partial").write_bytes(bytes(2 * MIB))
        Path("x.replay.json").write_text(journal(**changes))
        before = Path("x.replay.json").read_text()
        outcome = run("replay", source, "--image", "x", "--resume", "--device-size", "2M")
        fails(outcome, 4, words)
        assert Path("x.replay.json").read_text() == before
    assert not Path("x").exists()


@pytest.mark.parametrize("source", ["s.bin", "exec:cat s.bin"])
def test_a_stale_journal_of_an_image_that_is_gone(run: Run, here: Path, source: str) -> None:
    words = ["replay", source, "--image", "x"]
    assert run(*words, "--create").status == 0
    Path("x").unlink()
    finished = Path("x.replay.json").read_bytes()
    fails(run(*words, "--resume"), 4, "use --create to make it")
    fails(run(*words, "--restart"), 4, "use --create to make it")
    for more in (["--create", "--resume"], ["--create", "--restart"], ["--overwrite"]):
        Path("x").unlink(missing_ok=True)
        Path("x.replay.json").write_bytes(finished)
        assert run(*words, *more).status == 0
        assert Path("x").read_bytes() == DISK
        assert set(read_bitmaps("x.bitmaps.json").bitmaps) == {"b"}
    # An unfinished image beside it: that one was made later.
    Path("x").rename("x.partial")
    Path("x.partial").write_bytes(b"\xee" * MIB)
    fails(run(*words, "--create"), 4, "is incomplete")
    assert run(*words, "--create", "--resume").status == 0
    assert Path("x").read_bytes() == DISK


@pytest.mark.parametrize("source", ["s.bin", "exec:cat s.bin"])
def test_a_stale_journal_of_an_image_that_has_changed(run: Run, here: Path, source: str) -> None:
    Path("x").write_bytes(bytes(2 * MIB))
    words = ["replay", source, "--image", "x"]
    assert run(*words).status == 0
    Path("x").write_bytes(bytes(2 * MIB))
    outcome = run(*words, "--resume")
    fails(outcome, 4, "is not as the replay left it")
    assert "--restart" in outcome.err
    assert Path("x").read_bytes() == bytes(2 * MIB)
    assert run(*words, "--restart").status == 0
    assert Path("x").read_bytes() == DISK


def test_stale_bitmaps_and_partials(run: Run, here: Path) -> None:
    write_bitmaps("x.bitmaps.json", BitmapFile(4 * MIB, {"old": DirtyBitmap("old", 512)}))
    Path("x").write_bytes(bytes(2 * MIB))
    fails(run("replay", "s.bin", "--image", "x"), 4, f"of a disk of {4 * MIB} bytes, not {2 * MIB}")
    Path("x.bitmaps.json").unlink()
    Path("x.partial").write_bytes(b"left")
    fails(run("replay", "s.bin", "--image", "x"), 4, "x is incomplete")
    for words in (["--resume"], ["--restart"]):
        fails(run("replay", "s.bin", "--image", "x", *words), 4, "both x and x.partial exist")
    assert Path("x.partial").read_bytes() == b"left"
    Path("x.replay.json.new").write_text("killed while it was written")
    Path("x.partial").unlink()
    assert run("replay", "s.bin", "--image", "x").status == 0
    assert not Path("x.replay.json.new").exists()


# -- two at once


def test_two_resumes_of_one_partial(run: Run, here: Path) -> None:
    """The second finds it in use; the first goes on."""
    command = [sys.executable, "-m", "blkmig_cli", "replay", "-", "--image", "x", "--create"]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert first.stdin is not None
    first.stdin.write(STREAM[: MIB + 5000])
    first.stdin.flush()
    while not Path("x.replay.json").exists():
        assert first.poll() is None
    before = names(here)
    for words in (["--resume"], ["--restart"]):
        fails(run("replay", "s.bin", "--image", "x", "--create", *words), 4, "in use")
        assert names(here) == before
    fails(run("replay", "s.bin", "--image", "x", "--create"), 4, "is incomplete")
    first.communicate(STREAM[MIB + 5000 :], timeout=60)
    assert first.returncode == 0
    assert Path("x").read_bytes() == DISK


def test_of_two_that_make_one_image_one_is_refused(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have checked the path before either makes the image."""
    from blkmig_cli.operations.replay import destination

    original, both = new_image.create_partial, threading.Event()

    def create(path: str, like: object, *_: object) -> object:
        if not both.is_set():
            both.set()
            other = run("replay", "s.bin", "--image", "x", "--create", "-q")
            assert other.status == 0
            Path("x").rename("x.partial")  # as if it were still at work
        return original(path, None)

    monkeypatch.setattr(destination, "create_partial", create)
    fails(run("replay", "s.bin", "--image", "x", "--create", "-q"), 4, "is incomplete")


def test_an_image_that_appears_meanwhile(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its name; what was made stays beside it."""
    from blkmig_cli.operations.replay import destination

    original = new_image.create_partial

    def create(path: str, like: object, *_: object) -> object:
        Path("x").write_bytes(b"mine")
        return original(path, None)

    monkeypatch.setattr(destination, "create_partial", create)
    outcome = run("replay", "s.bin", "--image", "x", "--create", "-q")
    fails(outcome, 4, "x: File exists; x.partial is incomplete")
    assert Path("x").read_bytes() == b"mine"
    assert Path("x.partial").read_bytes() == DISK
