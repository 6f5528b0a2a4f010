"""Every example runs, and shows what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
CAPTURES = Path(__file__).parent / "captures"
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def call(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def test_demo(tmp_path: Path) -> None:
    done = call(tmp_path, "sh", EXAMPLES / "demo.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("identical; the incomplete stream was found out.\n")


@pytest.mark.parametrize(
    ("name", "status"), [("classic-none", 0), ("classic-incomplete", 1), ("v1-no-bitmaps", 0)]
)
def test_check_capture(tmp_path: Path, name: str, status: int) -> None:
    done = call(tmp_path, "sh", EXAMPLES / "check_capture.sh", CAPTURES / f"{name}.bin.gz")
    assert done.returncode == status
    assert f"exit status {status}" in done.stdout


def test_list_chunks(tmp_path: Path) -> None:
    stream = CAPTURES / "classic-live-writes.bin.gz"
    done = call(tmp_path, sys.executable, EXAMPLES / "list_chunks.py", stream)
    assert done.stdout == "drive0: 18 chunks\n"


def test_broken_spec_builds_a_broken_stream(tmp_path: Path) -> None:
    built = call(tmp_path, "blkmig", "build", EXAMPLES / "broken.yaml", "--to", "broken.bin")
    assert built.returncode == 0
    done = call(tmp_path, "blkmig", "validate", "broken.bin")
    assert done.returncode == 3
    assert "footer of section 7, expected 1" in done.stderr


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text() + (EXAMPLES / "demo.sh").read_text()
    for path in EXAMPLES.iterdir():
        assert path.name in tested
