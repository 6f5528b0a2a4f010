"""A replay that is interrupted anywhere is known as incomplete, and can be resumed to the same result."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from blkmig_cli.commands import cli
from blkmig_cli.disks.raw import RawImage
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay import writer
from tests.conftest import Outcome, Run, fails
from tests.support import raw
from tests.support.long import examples
from tests.support.replays import InOrder

MIB = 1 << 20
#: How many times a replay is killed in a run of the tests.
KILLS = examples(8, 200)
CALLS = ["pwrite", "fsync", "ftruncate", "replace", "rename", "unlink", "write", "open"]
BITMAPS = raw.bitmap_start() + raw.bitmap_bits(0, 24576, b"\x15".ljust(24, b"\0")) + raw.COMPLETE


def records(count: int = 12, seed: int = 1) -> bytes:
    """Chunks of all kinds: data, zeros, some of them twice, and not in order."""
    numbers = random.Random(seed)
    sectors = [2048 * at for at in range(count)]
    out = b""
    for sector in [*sectors, *numbers.sample(sectors, count // 3)]:
        if numbers.random() < 0.25:
            out += raw.block(sector, 8)
        else:
            out += raw.block(sector, 0, "d", numbers.randbytes(64) * (MIB // 64))
    return out


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confirm what is written after every few chunks."""
    monkeypatch.setattr(writer, "_CHECKPOINT", 3 * MIB)


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "s.bin"
    path.write_bytes(raw.qemu(records(), bitmaps=BITMAPS))
    return path


def journal(image: Path) -> Any:
    return json.loads(Path(f"{image}.replay.json").read_text())


def in_child(work: Callable[[], object]) -> int:
    """Does ``work`` in a process of its own; returns what waitpid says of it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def killed(words: list[object], after: int) -> bool:
    """Runs blkmig in a child that is killed before its ``after``-th call that changes something."""
    left = iter(range(after))

    def die_at(name: str) -> None:
        original = getattr(os, name)

        def call(*given: Any, **named: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **named)

        setattr(os, name, call)

    def work() -> None:
        for name in CALLS:
            die_at(name)
        CliRunner().invoke(cli, [str(word) for word in words])

    return os.WIFSIGNALED(in_child(work))


@pytest.fixture
def wanted(run: Run, stream: Path, tmp_path: Path) -> tuple[bytes, bytes]:
    """The image and its bitmaps, as an undisturbed replay makes them."""
    image = tmp_path / "wanted"
    assert run("replay", stream, "--image", image, "--create", "-q").status == 0
    return image.read_bytes(), Path(f"{image}.bitmaps.json").read_bytes()


def is_incomplete(run: Run, words: list[object], image: Path) -> None:
    """A plain replay touches nothing, and names both ways to continue."""
    partial = Path(f"{image}.partial")
    there = [path for path in (image, partial) if path.exists()]
    before = [path.read_bytes() for path in there]
    outcome = run(*words)
    fails(outcome, 4, "is incomplete")
    assert "--resume" in outcome.err
    assert "--restart" in outcome.err
    assert [path.read_bytes() for path in there] == before


@pytest.mark.scaled
@pytest.mark.parametrize(
    ("existing", "source"),
    [
        (False, "file"),
        (True, "pipe"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in ((True, "file"), (False, "pipe"))
        ),
    ],
)
def test_killed_anywhere_it_resumes_to_the_same_result(
    existing: bool, source: str, run: Run, stream: Path, wanted: tuple[bytes, bytes], tmp_path: Path
) -> None:
    numbers = random.Random(f"{existing}{source}")
    name = str(stream) if source == "file" else f"exec:cat {stream}"
    interrupted = 0
    for number in count():
        image = tmp_path / f"disk{number}"
        if existing:
            image.write_bytes(numbers.randbytes(64) * (12 * MIB // 64))
        words: list[object] = ["replay", name, "--image", image, "-q"]
        words += [] if existing else ["--create"]
        more: list[object] = []
        while killed([*words, *more], numbers.randrange(120)):
            interrupted += 1
            if not existing and image.exists():
                assert image.read_bytes() == wanted[0]
            if Path(f"{image}.replay.json").exists() and journal(image)["state"] != "finished":
                is_incomplete(run, words, image)
            more = ["--resume"]
        outcome = run(*words, "--resume")
        assert outcome.status == 0, outcome
        assert image.read_bytes() == wanted[0]
        assert Path(f"{image}.bitmaps.json").read_bytes() == wanted[1]
        assert journal(image)["state"] == "finished"
        assert not Path(f"{image}.partial").exists()
        image.unlink()
        if interrupted >= KILLS // 4:
            break


def broken_off(run: Run, stream: Path, image: Path, *words: object) -> Outcome:
    """A replay that fails at its fifth chunk of data, two after what it has confirmed."""
    left = iter(range(4))
    original = RawImage.write

    def write(self: RawImage, offset: int, data: memoryview) -> None:
        if next(left, None) is None:
            raise FailureError(f"{self.path}: No space left on device")
        original(self, offset, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RawImage, "write", write)
        making = [] if image.exists() else ["--create"]
        outcome = run("replay", stream, "--image", image, "-q", *dict.fromkeys([*making, *words]))
    fails(outcome, 4, "No space left")
    return outcome


def test_what_is_confirmed_is_not_written_again(run: Run, stream: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    outcome = broken_off(run, stream, image)
    assert f"{image}.partial is incomplete; use --resume to continue" in outcome.out
    position = journal(image)["position"]
    assert position > 3 * MIB
    done = run("replay", stream, "--image", image, "--resume", "--output", "json")
    (device,) = done.report["devices"]
    assert device["resumed"]
    assert 0 < device["bytes-written"] <= 12 * MIB - position // MIB * MIB + MIB
    again = run("replay", stream, "--image", image, "--resume")
    assert again.status == 0
    assert "finished already" in again.out
    assert "written" not in again.out


@pytest.mark.parametrize(
    ("made", "source"),
    [
        (True, "file"),
        (False, "pipe"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in ((False, "file"), (True, "pipe"))
        ),
    ],
)
def test_a_finished_replay_is_checked_and_not_repeated(
    made: bool, source: str, run: Run, stream: Path, wanted: tuple[bytes, bytes], tmp_path: Path
) -> None:
    """Nothing is written, bitmaps neither; an image that is not as it was left is refused."""
    image, bitmaps = tmp_path / "disk", tmp_path / "disk.bitmaps.json"
    name = stream if source == "file" else f"exec:cat {stream}"
    if not made:
        image.write_bytes(bytes(12 * MIB))
    words = ["replay", name, "--image", image, *(["--create"] if made else [])]
    assert run(*words).status == 0
    bitmaps.unlink()
    before = (image.stat().st_mtime_ns, journal(image))
    for more in ([], ["--verify"], ["--create"], ["--create", "--verify"]):
        outcome = run(*words, "--resume", *more)
        assert outcome.status == 0, outcome
        assert ("finished already, verified" in outcome.out) is ("--verify" in more)
        assert "finished already" in outcome.out
    assert (image.stat().st_mtime_ns, journal(image)) == before
    assert not bitmaps.exists()
    last = max(at for at, byte in enumerate(wanted[0]) if byte)
    for changed in (bytes(12 * MIB), wanted[0][:last] + b"\0" + wanted[0][last + 1 :]):
        image.write_bytes(changed)
        outcome = run(*words, "--resume", "--verify")
        fails(outcome, 4, "--restart")
        assert image.read_bytes() == changed
    image.write_bytes(bytes(12 * MIB))
    fails(run(*words, "--resume"), 4, "not as the replay left it")
    image.unlink()
    if not made:
        fails(run(*words, "--resume"), 4, "--create")
    assert run("replay", name, "--image", image, "--create", "--resume").status == 0
    assert image.read_bytes() == wanted[0]
    image.write_bytes(bytes(12 * MIB))
    # From the start, as there is no --resume.
    assert run("replay", name, "--image", image).status == 0
    assert image.read_bytes() == wanted[0]


def test_one_changed_byte_is_found_by_verify(
    run: Run, stream: Path, wanted: tuple[bytes, bytes], tmp_path: Path
) -> None:
    image = tmp_path / "disk"
    assert run("replay", stream, "--image", image, "--create").status == 0
    for at in (0, 5 * MIB + 4321, 12 * MIB - 1):
        content = bytearray(wanted[0])
        content[at] ^= 1
        image.write_bytes(content)
        fails(
            run("replay", stream, "--image", image, "--resume", "--verify"), 4, "not as the replay"
        )


def test_a_finished_image_that_was_resized(run: Run, stream: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    assert run("replay", stream, "--image", image, "--create").status == 0
    for size in (11 * MIB, 13 * MIB):
        os.truncate(image, size)
        outcome = run("replay", stream, "--image", image, "--resume")
        fails(outcome, 4, f"has {size} bytes, the replay left {12 * MIB}")


def test_without_a_journal_it_starts_afresh(
    run: Run, stream: Path, wanted: tuple[bytes, bytes], tmp_path: Path
) -> None:
    image, partial = tmp_path / "disk", tmp_path / "disk.partial"
    fails(run("replay", stream, "--image", image, "--resume"), 4, "No such file")
    partial.write_bytes(b"killed before its journal" * MIB)
    fails(run("replay", stream, "--image", image, "--create"), 4, "is incomplete")
    assert run("replay", stream, "--image", image, "--create", "--resume").status == 0
    assert image.read_bytes() == wanted[0]
    assert not partial.exists()


@pytest.mark.parametrize("existing", [False, True])
def test_restart_starts_afresh(
    existing: bool, run: Run, stream: Path, wanted: tuple[bytes, bytes], tmp_path: Path
) -> None:
    image = tmp_path / "disk"
    more = [] if existing else ["--create"]
    if existing:
        image.write_bytes(b"\xdd" * (12 * MIB))
    broken_off(run, stream, image, *more)
    left = image if existing else Path(f"{image}.partial")
    left.write_bytes(b"\xee" * left.stat().st_size)
    for content in ("damaged", "{}", "[]", "null"):
        Path(f"{image}.replay.json").write_text(content)
        outcome = run("replay", stream, "--image", image, *more, "--resume")
        fails(outcome, 4, "is not a journal")
        assert "--restart" in outcome.err
    done = run("replay", stream, "--image", image, *more, "--restart", "-q")
    assert (done.status, image.read_bytes()) == (0, wanted[0])


def test_restart_keeps_no_byte_of_the_unfinished_image(run: Run, tmp_path: Path) -> None:
    """Where the stream has no chunk, an image made afresh has zeros."""
    stream, image, partial = tmp_path / "s.bin", tmp_path / "disk", tmp_path / "disk.partial"
    stream.write_bytes(raw.qemu(raw.block(2048, 0, rest=b"\1" * MIB)))
    for options in (["--restart"], ["--resume"]):  # there is no journal: nothing to continue
        partial.write_bytes(b"\xee" * (3 * MIB))
        words = ["replay", stream, "--image", image, "--create", "--incremental", *options]
        assert run(*words, "--device-size", "3M").status == 0
        assert image.read_bytes() == bytes(MIB) + b"\1" * MIB + bytes(MIB)
        image.unlink()
        Path(f"{image}.replay.json").unlink()


def test_restart_of_what_cannot_be_written_changes_nothing(
    run: Run, stream: Path, tmp_path: Path
) -> None:
    """The unfinished image and its journal stay until the first write."""
    image, bad = tmp_path / "disk", tmp_path / "bad.bin"
    broken_off(run, stream, image)
    bad.write_bytes(stream.read_bytes()[:-5])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run("replay", bad, "--image", image, "--create", "--restart").status == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert run("replay", stream, "--image", image, "--resume").status == 0


@pytest.mark.parametrize("source", ["file", pytest.param("pipe", marks=pytest.mark.long)])
@pytest.mark.parametrize("how", ["other records", "other data", "one byte", "shorter"])
def test_another_stream_is_refused(
    how: str, source: str, run: Run, stream: Path, wanted: tuple[bytes, bytes], tmp_path: Path
) -> None:
    image, other = tmp_path / "disk", tmp_path / "other.bin"
    broken_off(run, stream, image)
    content = bytearray(stream.read_bytes())
    start = content.index(raw.word(6144, 1)) + 8 + 2  # the first chunk that comes once
    if how == "other records":
        content[content.index(raw.word(2048, 1)) + 6] ^= 0x10  # sector 0 again, or so
    elif how == "other data":
        content[start : start + MIB] = bytes(MIB)
    elif how == "one byte":
        content[start + MIB // 2] ^= 1
    else:
        content = bytearray(raw.qemu(records(2), bitmaps=BITMAPS))
    other.write_bytes(content)
    before = Path(f"{image}.partial").read_bytes()
    name = other if source == "file" else f"exec:cat {other}"
    outcome = run("replay", name, "--image", image, "--allow-incomplete", "--resume", "-q")
    fails(outcome, 4, f"{image}.replay.json is of another")
    if source == "file":
        assert Path(f"{image}.partial").read_bytes() == before
    assert run("replay", stream, "--image", image, "--resume", "-q").status == 0
    assert image.read_bytes() == wanted[0]


def test_another_image_is_refused(run: Run, stream: Path, tmp_path: Path) -> None:
    image, partial = tmp_path / "disk", tmp_path / "disk.partial"
    broken_off(run, stream, image)
    good = partial.read_bytes()
    partial.write_bytes(bytes(len(good)))
    fails(run("replay", stream, "--image", image, "--resume", "-q"), 4, "of another image")
    partial.write_bytes(good[:MIB])
    fails(run("replay", stream, "--image", image, "--resume", "-q"), 4, "of another image")
    partial.rename(image)
    fails(run("replay", stream, "--image", image, "--resume", "-q"), 4, "of another image")
    partial.write_bytes(good)
    fails(run("replay", stream, "--image", image, "--resume", "-q"), 4, "both")
    image.unlink()
    assert run("replay", stream, "--image", image, "--resume", "-q").status == 0


def test_a_disk_of_another_size_is_refused(run: Run, stream: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    broken_off(run, stream, image, "--device-size=12M")
    words = ["replay", stream, "--image", image, "--resume", "-q"]
    fails(run(*words, "--device-size=16M"), 4, f"of a disk of {12 * MIB} bytes, not {16 * MIB}")
    assert run(*words, "--device-size=12M").status == 0


def test_a_cut_stream_goes_on_with_the_whole_one(
    run: Run, stream: Path, wanted: tuple[bytes, bytes], tmp_path: Path
) -> None:
    image, cut = tmp_path / "disk", tmp_path / "cut.bin"
    cut.write_bytes(stream.read_bytes()[: 7 * MIB])
    words = ["--image", image, "--create", "-q"]
    assert run("replay", f"exec:cat {cut}", *words).status == 3
    assert not image.exists()
    assert run("replay", f"exec:cat {stream}", *words, "--resume").status == 0
    assert image.read_bytes() == wanted[0]


def test_a_full_disk(run: Run, stream: Path, wanted: tuple[bytes, bytes], tmp_path: Path) -> None:
    """No file may grow beyond 8 MiB, in a child; and then it may."""
    image = tmp_path / "disk"
    words = ["replay", str(stream), "--image", str(image), "--create", "-q"]
    printed = tmp_path / "printed"

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 * MIB, resource.RLIM_INFINITY))
        result = CliRunner().invoke(cli, words)
        printed.write_text(f"{result.exit_code} {result.stderr}")

    in_child(work)
    assert printed.read_text().startswith("4 blkmig: ")
    assert "File too large" in printed.read_text()
    assert not image.exists()
    is_incomplete(run, list(words), image)
    assert run(*words, "--resume").status == 0
    assert image.read_bytes() == wanted[0]


def test_a_failing_read(
    run: Run,
    stream: Path,
    wanted: tuple[bytes, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, original, size = tmp_path / "disk", os.preadv, stream.stat().st_size

    def preadv(fd: int, buffers: list[memoryview], offset: int, *flags: int) -> int:
        if offset > size * 3 // 4 and len(buffers[0]) > MIB // 2:
            raise OSError(5, "Input/output error")
        return original(fd, buffers, offset, *flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        outcome = run("replay", stream, "--image", image, "--create", "-q")
    fails(outcome, 4, "Input/output error (at byte ")
    assert journal(image)["position"] > 0
    assert run("replay", stream, "--image", image, "--resume", "-q").status == 0
    assert image.read_bytes() == wanted[0]


def test_interrupted(run: Run, stream: Path, wanted: tuple[bytes, bytes], tmp_path: Path) -> None:
    image, left, original = tmp_path / "disk", iter(range(4)), os.pwrite

    def pwrite(*given: Any) -> int:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        patch.setattr(writer, "Overlap", InOrder)
        outcome = run("replay", stream, "--image", image, "--create", "-q")
    assert outcome.status == 130
    assert run("replay", stream, "--image", image, "--resume", "-q").status == 0
    assert image.read_bytes() == wanted[0]


def test_several_disks_go_on_each_from_its_place(run: Run, tmp_path: Path) -> None:
    stream = tmp_path / "s.bin"
    parts = [
        raw.block(2048 * at, 0, name, bytes([at + 1]) * MIB) for at in range(6) for name in "de"
    ]
    stream.write_bytes(raw.qemu(*parts))
    images = {name: tmp_path / name for name in "de"}
    words = [f"--image={name}={image}" for name, image in images.items()]
    left, original = iter(range(9)), RawImage.write

    def write(self: RawImage, offset: int, data: memoryview) -> None:
        if next(left, None) is None:
            raise FailureError("broken")
        original(self, offset, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RawImage, "write", write)
        assert run("replay", stream, *words, "--create").status == 4
    # One of them may have been finished alone, or be half done without a journal.
    Path(f"{images['e']}.replay.json").unlink()
    outcome = run("replay", stream, *words, "--create", "--resume", "--output", "json")
    assert outcome.status == 0
    by_name = {device["name"]: device for device in outcome.report["devices"]}
    assert by_name["d"]["resumed"]
    assert not by_name["e"]["resumed"]
    assert by_name["e"]["bytes-written"] == 6 * MIB > by_name["d"]["bytes-written"]
    expected = b"".join(bytes([at + 1]) * MIB for at in range(6))
    assert [image.read_bytes() for image in images.values()] == [expected] * 2


def test_options_that_contradict(run: Run, stream: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    for words in (
        ["--resume", "--restart"],
        ["--resume", "--dry-run"],
        ["--restart", "--bitmaps-only"],
    ):
        assert run("replay", stream, "--image", image, "--create", *words).status == 2


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A medium that returns another byte than was written, at the offsets in the list."""
    wrong: list[int] = []
    original = RawImage.read

    def read(self: RawImage, offset: int, length: int) -> bytes:
        found = bytearray(original(self, offset, length))
        for at in wrong:
            if offset <= at < offset + length:
                found[at - offset] ^= 1
        return bytes(found)

    monkeypatch.setattr(RawImage, "read", read)
    return wrong


@pytest.mark.parametrize("source", ["file", pytest.param("pipe", marks=pytest.mark.long)])
def test_verify(
    source: str,
    run: Run,
    stream: Path,
    wanted: tuple[bytes, bytes],
    lying: list[int],
    tmp_path: Path,
) -> None:
    image = tmp_path / "disk"
    name = stream if source == "file" else f"exec:cat {stream}"
    words = ["replay", name, "--image", image, "--create", "--verify", "-q"]
    lying.append(next(at for at, byte in enumerate(wanted[0]) if byte and at > 5 * MIB))
    outcome = run(*words)
    fails(outcome, 4, "reads back other than it was written")
    assert f"sector {lying[0] // MIB * 2048}" in outcome.err
    assert not image.exists()
    lying.clear()
    assert run(*words, "--restart").status == 0
    assert image.read_bytes() == wanted[0]


def test_of_two_at_once_one_makes_a_new_image(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    data = raw.qemu(
        *[raw.block(2048 * (at % 4), 8) for at in range(4000)]
    )  # more than is read ahead
    command = [sys.executable, "-m", "blkmig_cli", "replay", "-", "--image", str(image), "--create"]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0)
        for _ in range(2)
    ]
    for process in both:  # neither can come to its end
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(data[:-1])
    while all(process.poll() is None for process in both):
        with contextlib.suppress(subprocess.TimeoutExpired):
            both[0].wait(0.05)
    for process in both:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(data[-1:])
        process.stdin.close()
    assert sorted(process.wait() for process in both) == [0, 4]
    assert image.read_bytes() == bytes(4 * MIB)
