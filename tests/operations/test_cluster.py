"""A Dask cluster: the same report as from one process, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CAPTURES, Run, fails
from tests.operations.test_many import Waiting, gone
from tests.output.test_ci_formats import WHOLE
from tests.support.dask import dask_cluster
from tests.support.peers import unused_port

BLKMIG = [sys.executable, "-m", "blkmig_cli"]


def test_distributed_is_an_extra(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    (tmp_path / "a").write_bytes(WHOLE)
    fails(run("validate", tmp_path / "a", "--cluster", "tcp://h:1"), 4, "install blkmig[cluster]")


@pytest.mark.parametrize("words", [["--jobs", "2"], ["--image", "x"]])
def test_usage(run: Run, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "a").write_bytes(WHOLE)
    outcome = run("validate", tmp_path / "a", "--cluster", "tcp://h:1", *words)
    fails(outcome, 2, "mutually exclusive")


@pytest.mark.long
def test_no_scheduler(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="distributed is not installed (test-remote)")
    (tmp_path / "a").write_bytes(WHOLE)
    address = f"tcp://127.0.0.1:{unused_port()}"
    done = subprocess.run(
        [*BLKMIG, "validate", tmp_path / "a", "--cluster", address],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr == f"blkmig: --cluster {address}: no scheduler answers\n"


@pytest.mark.long
def test_what_dask_logs_is_not_printed(tmp_path: Path) -> None:
    """Each of its loggers that has a level of its own, and those that have none."""
    pytest.importorskip("distributed", reason="distributed is not installed (test-remote)")
    (tmp_path / "a").write_bytes(WHOLE)
    script = (
        "import atexit, logging\n"
        "def log():\n"
        "    names = logging.root.manager.loggerDict\n"
        "    assert {'distributed.client', 'distributed.core'} <= names.keys()\n"
        "    for name in names:\n"
        "        if name.startswith('distributed'):\n"
        "            logging.getLogger(name).error('heard')\n"
        "    print('said')\n"
        "atexit.register(log)\n"
        "from blkmig_cli.commands import main; main()"
    )
    address = f"tcp://127.0.0.1:{unused_port()}"
    done = subprocess.run(
        [sys.executable, "-c", script, "validate", tmp_path / "a", "--cluster", address],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "said\n"
    assert done.stderr == f"blkmig: --cluster {address}: no scheduler answers\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a scheduler with two workers."""
    pytest.importorskip("distributed", reason="distributed is not installed (test-remote)")
    with dask_cluster(tmp_path) as address:
        yield address


@pytest.mark.long
def test_a_cluster(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real captures, the same report in the same order; another version; Ctrl-C; a worker that dies."""
    folder = tmp_path / "c"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    for path in CAPTURES.glob("*.gz"):
        shutil.copy(path, folder)
    (folder / "cut.bin").write_bytes(WHOLE[:-30])
    for words in (["validate", "-v"], ["validate", "--output", "json"], ["info"]):
        named = [*BLKMIG, *words, "c", "nothing", "exec:cat c/cut.bin"]
        alone, away = (
            subprocess.run([*named, *how], capture_output=True, text=True, check=False)
            for how in (["--jobs", "1"], ["--cluster", cluster])
        )
        assert (away.returncode, away.stdout) == (alone.returncode, alone.stdout)
        assert away.stderr == alone.stderr
    script = (
        "import blkmig_cli; blkmig_cli.__version__ = '9.9'\n"
        "from blkmig_cli.commands import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "validate", "c", "--cluster", cluster],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "has blkmig 0.1.0, this is blkmig 9.9" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    os.mkfifo("fifo")
    run = Waiting(tmp_path / "fifo", "validate", "c/cut.bin", "fifo", "--cluster", cluster)
    try:
        run.reader()
        run.process.send_signal(signal.SIGINT)
        status, _, err = run.end()
        assert (status, err) == (130, b"blkmig: interrupted\n")
    finally:
        run.close()
    # A worker that dies: the other one reads it again.
    named = ["c/classic-none.bin.gz", "fifo", "--cluster", cluster, "--output", "json"]
    run = Waiting(tmp_path / "fifo", "validate", *named)
    try:
        first = run.reader()
        os.kill(first, signal.SIGKILL)
        assert gone(first)
        run.reader()
        run.send(WHOLE)
        status, out, err = run.end()
        assert (status, err) == (0, b"")
        assert [one["verdict"] for one in json.loads(out)["streams"]] == ["whole", "whole"]
    finally:
        run.close()
