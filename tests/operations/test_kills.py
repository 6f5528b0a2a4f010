"""A replay that is killed at any system call from its first open for writing on, and resumed.

It ends bit-exact, and never counts as finished before.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blkmig_cli.commands import cli
from blkmig_cli.operations.replay import writer
from tests.conftest import Run
from tests.support import raw, strace
from tests.support.long import LONG

MIB = 1 << 20
#: In an ordinary run, so many calls of each replay are tried that change something; in a long one, all
#: calls of any kind.
SAMPLE = 4
CHANGES = (
    "openat",
    "write",
    "pwrite64",
    "ftruncate",
    "fallocate",
    "fsync",
    "rename",
    "renameat2",
    "unlink",
)
BITMAP = raw.bitmap_start() + raw.bitmap_bits(0, 8192, b"\x15".ljust(8, b"\0")) + raw.COMPLETE
STREAM = raw.qemu(
    raw.block(0, 0, rest=b"\1" * MIB),
    raw.block(2048, 8),
    raw.block(4096, 0, rest=b"\2" * MIB),
    raw.block(0, 0, rest=b"\3" * MIB),
    raw.block(6144, 0, rest=b"\4" * MIB),
    bitmaps=BITMAP,
)
DISK = b"\3" * MIB + bytes(MIB) + b"\2" * MIB + b"\4" * MIB
OLD = b"\xee" * (4 * MIB)


def finished(image: Path) -> bool:
    path = Path(f"{image}.replay.json")
    return path.exists() and json.loads(path.read_text())["state"] == "finished"


def existing(image: Path, _: Run, __: Path) -> list[str]:
    image.write_bytes(OLD)
    return []


def new(_: Path, __: Run, ___: Path) -> list[str]:
    return ["--create"]


def overwrite(image: Path, _: Run, __: Path) -> list[str]:
    image.write_bytes(OLD)
    Path(f"{image}.bitmaps.json").write_text(
        '{"version": 1, "virtual-size": 4194304, "bitmaps": []}'
    )
    return ["--overwrite"]


def stale(image: Path, run: Run, stream: Path) -> list[str]:
    """The journal of a finished replay, whose image and bitmaps are gone."""
    assert run("replay", stream, "--image", image, "--create").status == 0
    image.unlink()
    Path(f"{image}.bitmaps.json").unlink()
    return ["--create"]


def restart(image: Path, _: Run, __: Path) -> list[str]:
    """An unfinished image full of other bytes."""
    Path(f"{image}.partial").write_bytes(OLD)
    return ["--create", "--restart"]


Start = Callable[[Path, Run, Path], list[str]]
STARTS: list[Start] = [new, existing, overwrite, stale, restart]


@pytest.fixture(scope="module")
def tracing() -> None:
    reason = strace.why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("start", "source"),
    [
        pytest.param(start, source, marks=pytest.mark.long if long else [])
        for start in STARTS
        for source in ("file", "pipe")
        for long in [(start, source) not in ((new, "file"), (existing, "pipe"))]
    ],
)
@pytest.mark.scaled
@pytest.mark.usefixtures("tracing")
def test_killed_at_any_call(
    start: Start, source: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_CHECKPOINT", 2 * MIB)
    stream, folder = tmp_path / "s.bin", tmp_path / "images"
    stream.write_bytes(STREAM)
    folder.mkdir()
    run("replay", stream, "--dry-run", "-q")  # everything is loaded

    def words(image: Path, more: list[str], *others: str) -> list[str]:
        name = str(stream) if source == "file" else f"exec:cat {stream}" if others else "-"
        return ["replay", name, "--image", str(image), "-q", *more, *others]

    @contextmanager
    def work(image: Path, more: list[str]) -> Iterator[Callable[[], object]]:
        """Yield what runs blkmig; a pipe is made before tracing starts."""
        with subprocess.Popen(["cat", stream], stdout=subprocess.PIPE) as feeder:
            assert feeder.stdout is not None
            end = feeder.stdout.fileno()

            def replay() -> None:
                if source == "pipe":
                    os.dup2(end, 0)
                cli(words(image, more), standalone_mode=False)

            yield replay
            feeder.kill()

    image = folder / "first"
    more = start(image, run, stream)
    with work(image, more) as replay:
        calls = strace.calls_after_first_write(replay, folder, tmp_path / "log")
    assert image.read_bytes() == DISK
    wanted = Path(f"{image}.bitmaps.json").read_bytes()
    assert len(calls) > 40
    tried = calls if LONG else [call for call in calls if call[0] in CHANGES]
    tried = tried if LONG else tried[:: len(tried) // SAMPLE]
    killed = 0
    for number, call in enumerate(tried):
        image = folder / f"disk{number}"
        more = start(image, run, stream)
        with work(image, more) as replay:
            killed += strace.kill_at(replay, call)
        if finished(image) and start is not stale:
            assert image.read_bytes() == DISK, call
            assert Path(f"{image}.bitmaps.json").read_bytes() == wanted
        if start is not existing and image.exists() and image.read_bytes() != OLD:
            assert image.read_bytes() == DISK, call
        left = [word for word in more if word != "--restart"]
        outcome = run(*words(image, left, "--resume"))
        assert outcome.status == 0, (call, outcome)
        assert image.read_bytes() == DISK, call
        assert Path(f"{image}.bitmaps.json").read_bytes() == wanted, call
        assert finished(image)
        names = {path.name for path in folder.glob(f"{image.name}.*")}
        assert names <= {
            f"{image.name}.{end}" for end in ("replay.json", "bitmaps.json", "replay.json.new")
        }
        for path in folder.glob(f"{image.name}*"):
            path.unlink()
    assert killed > len(tried) // 2
