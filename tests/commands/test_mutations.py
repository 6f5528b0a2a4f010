"""Captures cut and with a bit flipped: validate and dump end with one of their statuses, and a line.

They take no more memory than with the captures as they are.  NUMBER is how many of each there are for
each capture; each number gives mutations of its own.
"""

import io
import os
import random
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from blkmig_cli.commands import cli
from tests.conftest import MORE, NAMES, Capture, get_capture
from tests.support.long import examples
from tests.support.memory import memory_taken

NUMBER = examples(5, 150)
#: Over 6 MB: the same code would take too long.
LARGE = {"bitmaps-7.2-with-blocks", "classic-incomplete", "classic-live-writes"}
#: Beside what the interpreter and its modules take: a command stays below 200 MB with them.
MEMORY = 120 << 20


def ends_well(*words: object) -> None:
    """Run a command, and drop its output; a traceback fails the test."""
    err = io.StringIO()
    with open(os.devnull, "w") as out, redirect_stdout(out), redirect_stderr(err):
        taken, status = memory_taken(lambda: _status(*words))
    assert taken <= MEMORY, f"{taken >> 20} MiB were taken"
    assert status in (0, 1, 3)
    assert len(err.getvalue().splitlines()) == (1 if status == 3 else 0), err.getvalue()


def _status(*words: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli([str(word) for word in words])
    return int(str(exit_.value.code))


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.long if name in MORE else [])
        for name in sorted(set(NAMES) - LARGE)
    ]
)
def small(request: pytest.FixtureRequest, unpacked: Path) -> Capture:
    return get_capture(request.param, unpacked)


def places(capture: Capture, length: int) -> Iterator[int]:
    """Numbers from 0 to ``length``, always the same; each is shown where a test fails."""
    chosen = random.Random(f"{capture.name} {NUMBER}")
    for _ in range(NUMBER):
        place = chosen.randrange(length)
        print(capture.name, place)
        yield place


@pytest.mark.scaled
def test_cut(small: Capture, tmp_path: Path) -> None:
    content, path = small.data, tmp_path / "cut.bin"
    for place in places(small, len(content)):
        path.write_bytes(content[:place])
        for hints in ([], small.hints()):
            ends_well("validate", path, *hints)


@pytest.mark.scaled
def test_flipped(small: Capture, tmp_path: Path) -> None:
    content, path = bytearray(small.data), tmp_path / "flipped.bin"
    for place in places(small, len(content) * 8):
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        content[place // 8] ^= 1 << place % 8
        for hints in ([], small.hints()):
            ends_well("validate", path, *hints)
        ends_well("dump", path, "--output", "jsonl")
