"""The benchmarks run on small amounts, and leave no file; their figures are not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import measure
from tests.interop import qemu

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()


def check(target: Path, output: str, growth: int | None) -> None:
    """Check that every figure is in the JSON file, in the table, and on the page."""
    found = json.loads(target.read_text())
    names = {(row["name"], row["peer"]) for row in found["rows"]}
    peers = {"dd bs=1M", "cp", "the slower alone", "bare construct", "validate of the file"}
    if qemu.QEMU_IMG is not None:
        peers.add("qemu-img convert")
    if qemu.has_block_migration():
        peers |= {"QEMU migrate -b", "QEMU's load"}
    assert {peer for _, peer in names if peer} == peers
    assert len(names) == 14 + len(peers) - 1 + 15  # 15 against validate of the file
    for row in found["rows"]:
        assert row["figure"] > 0
        assert row["name"].split(",")[0].removesuffix(" 16 MiB") in PAGE, row["name"]
        assert row["name"] in output or len(row["name"]) > 20
    assert len(found["growth"]) == (0 if growth is None else 6 * (growth + 1))


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    folder = tmp_path / "made"
    folder.mkdir()
    options = ["--rounds", "1", "--size", "16", "--scale", "0.001"]
    return [*options, "--folder", str(folder), "--json", str(tmp_path / "bench.json")]


def test_every_figure_is_taken(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each work runs once: the warm-up is tested below."""
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


def test_rounds_are_in_turn_after_a_warm_up() -> None:
    ran: list[str] = []

    def work(name: str) -> measure.Work:
        def run() -> float:
            ran.append(name)
            return len(ran)

        return run

    assert measure.rounds(2, work("a"), work("b")) == [[3, 5], [4, 6]]
    assert "".join(ran) == "ababab"
