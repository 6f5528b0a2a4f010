"""The benchmarks run on small amounts, and leave nothing behind; their figures are not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop import qemu

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()


@pytest.mark.parametrize("growth", [None, pytest.param(1, marks=pytest.mark.long)])
def test_every_figure_is_taken(tmp_path: Path, growth: int | None) -> None:
    target = tmp_path / "bench.json"
    folder = tmp_path / "made"
    folder.mkdir()
    words = ["--rounds", "1", "--size", "16", "--scale", "0.001"]
    words += [] if growth is None else ["--growth", str(growth)]
    words += ["--folder", str(folder), "--json", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
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
        assert row["name"] in done.stdout or len(row["name"]) > 20
    assert len(found["growth"]) == (0 if growth is None else 6 * (growth + 1))
