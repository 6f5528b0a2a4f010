"""The benchmarks run on small amounts, and leave no file; their figures are not judged here."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as benchmarks
from benchmarks import measure
from benchmarks.measure import Work
from blkmig_cli.commands import cli
from tests.interop import qemu

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()


def check(target: Path, output: str, growth: int | None) -> None:
    """Check that every figure is in the JSON file, in the table, and on the page."""
    found = json.loads(target.read_text())
    names = {(row["name"], row["peer"]) for row in found["rows"]}
    peers = {
        "dd bs=1M",
        "cp",
        "the slower alone",
        "bare construct",
        "validate of the file",
        "the plain capture",
    }
    peers |= {"copy of its chunks", "two processes", "dd bs=1M, with fsync"}
    if importlib.util.find_spec("distributed") is not None:
        peers.add("two Dask workers")
    if qemu.QEMU_IMG is not None:
        peers.add("qemu-img convert")
    if qemu.has_block_migration():
        peers |= {"QEMU migrate -b", "QEMU's load"}
    assert {peer for _, peer in names if peer} == peers
    # Of images of other formats: two, and six of increments; five more of increments of a raw one.
    formats = 8 * (qemu.QEMU_IMG is not None) + 5
    assert len(names) == 15 + len(peers) - 1 + 2 * 16 + formats  # 16 against validate of the file
    for row in found["rows"]:
        assert row["figure"] > 0
        assert row["name"].split(",")[0].removesuffix(" 16 MiB") in PAGE, row["name"]
        assert row["name"] in output or len(row["name"]) > 20
    assert len(found["growth"]) == (0 if growth is None else 6 * (growth + 1))


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    folder = tmp_path / "made"
    folder.mkdir()
    options = ["--rounds", "1", "--size", "16", "--disk-size", "16", "--scale", "0.001"]
    folders = ["--folder", str(folder), "--disk-folder", str(folder)]
    return [*options, *folders, "--json", str(tmp_path / "bench.json")]


def in_this_process(
    words: list[object],
    *,
    fresh: str | None = None,
    uncached: Path | None = None,
    shell: bool = False,
) -> Work:
    """Stands for ``measure.command``: blkmig runs here, which is as good where no figure counts."""
    if shell or words[: len(measure.BLKMIG)] != measure.BLKMIG:
        return measure.command(words, fresh=fresh, uncached=uncached, shell=shell)

    def work() -> float:
        if fresh is not None:
            Path(fresh).unlink(missing_ok=True)
        start = time.perf_counter()
        done = CliRunner().invoke(cli, [str(word) for word in words[len(measure.BLKMIG) :]])
        assert done.exit_code <= 1, done.output
        return time.perf_counter() - start

    return work


@pytest.mark.long
def test_every_figure_is_taken(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each work runs once, and most of them in this process: see the tests below for the rest."""
    monkeypatch.setattr(benchmarks, "command", in_this_process)
    monkeypatch.setattr(benchmarks, "memory", lambda words: in_this_process(words)())
    monkeypatch.setattr(benchmarks, "rounds", lambda _, *works: [[work()] for work in works])
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    benchmarks.main()
    assert list((tmp_path / "made").iterdir()) == []
    check(tmp_path / "bench.json", capsys.readouterr().out, None)


@pytest.mark.long
@pytest.mark.parametrize("growth", [None, 1])
def test_the_program(words: list[str], tmp_path: Path, growth: int | None) -> None:
    words += [] if growth is None else ["--growth", str(growth)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "made").iterdir()) == []
    check(tmp_path / "bench.json", done.stdout, growth)


def test_a_command_is_measured(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.touch()
    # mkdir fails where the file is not removed before.
    assert measure.command(["mkdir", made], fresh=str(made))() > 0
    assert measure.memory(["false"]) > 0.1
    with pytest.raises(RuntimeError, match="exit status 2"):
        measure.command(["exit 2"], shell=True)()
    with pytest.raises(RuntimeError, match="exit status 2"):
        measure.memory(["sh", "-c", "exit 2"])


def test_rounds_are_in_turn_after_a_warm_up() -> None:
    ran: list[str] = []

    def work(name: str) -> Work:
        def run() -> float:
            ran.append(name)
            return len(ran)

        return run

    assert measure.rounds(2, work("a"), work("b")) == [[3, 5], [4, 6]]
    assert "".join(ran) == "ababab"
