"""A stream of 10 GiB is handled in little memory, and records are found without reading payloads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import raw

LIMIT_KIB = 150 << 10
SEND_LIMIT_KIB = 60 << 10

# Runs blkmig in a child of its own, and prints the child's peak of resident memory in KiB.
MEASURE = """
import resource, subprocess, sys
status = subprocess.run([sys.executable, "-m", "blkmig_cli", *sys.argv[1:]],
                        stdout=subprocess.DEVNULL).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def make_huge(path: Path, chunks: int) -> None:
    """Write a classic stream of ``chunks`` MiB of data, all holes but for the records."""
    with open(path, "wb") as file:
        file.write(raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS))
        file.write(raw.footer(1) + raw.part(1, b""))
        for chunk in range(chunks):
            file.write(raw.block(chunk * 2048, 0))
            file.seek(raw.CHUNK, 1)
        file.write(raw.EOS + raw.footer(1))
        file.write(raw.part(1, raw.progress(100) + raw.EOS, kind=3) + raw.footer(1) + raw.EOF)


# Replay reads and looks at every byte: much less than 10 GiB would also show what is held.
@pytest.mark.parametrize(
    ("words", "gib"),
    [
        pytest.param(["dump", "STREAM", "--output", "jsonl"], 10, marks=pytest.mark.long),
        (["validate", "STREAM", "--device-size", "10G"], 10),
        (["replay", "STREAM", "--image", "IMAGE", "--create", "--device-size", "1G"], 1),
        pytest.param(
            ["replay", "STREAM", "--image", "IMAGE", "--create", "--device-size", "10G"],
            10,
            marks=pytest.mark.long,
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else f"{value} GiB",
)
def test_memory_stays_flat(tmp_path: Path, words: list[str], gib: int) -> None:
    huge, image = tmp_path / "huge.bin", tmp_path / "disk.img"
    make_huge(huge, gib << 10)
    named = [word.replace("STREAM", str(huge)).replace("IMAGE", str(image)) for word in words]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *named], capture_output=True, text=True, check=True
    )
    status, peak = map(int, done.stdout.split())
    assert status == 0, done.stderr
    assert peak < LIMIT_KIB
    if image.exists():
        assert image.stat().st_size == gib << 30
        assert image.stat().st_blocks == 0


def test_chunks_that_come_again(tmp_path: Path) -> None:
    """1 TiB of zero blocks, twice: replay holds few bytes for each repeated chunk."""
    path = tmp_path / "twice.bin"
    rows = np.tile(np.frombuffer(raw.block(0, 8, "d"), np.uint8), (1 << 20, 1))
    words = np.arange(1 << 20, dtype=np.uint64) << np.uint64(20) | np.uint64(9)
    rows[:, :8] = words.astype(">u8").view(np.uint8).reshape(-1, 8)
    path.write_bytes(raw.qemu(rows.tobytes(), rows.tobytes()))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "replay", str(path), "--dry-run"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    status, peak = map(int, done.stdout.split())
    assert status == 0, done.stderr
    assert peak < LIMIT_KIB


def test_sending_a_large_disk(tmp_path: Path) -> None:
    """128 GiB of holes: send holds nothing for each record."""
    disk = tmp_path / "disk.img"
    with open(disk, "wb") as file:
        file.truncate(128 << 30)
    words = ["send", str(disk), "--to", "exec:cat >/dev/null", "-q"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True
    )
    status, peak = map(int, done.stdout.split())
    assert status == 0, done.stderr
    assert peak < SEND_LIMIT_KIB
