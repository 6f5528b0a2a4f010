"""Captures cut and with a bit flipped: validate and dump end with one of their statuses, and a line.

They take no more memory than with the captures as they are.  BLKMIG_MUTATIONS sets how many of each
there are for each capture; each number gives mutations of its own.
"""

import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NAMES, Capture, Run, get_capture
from tests.memory import memory_taken

NUMBER = int(os.environ.get("BLKMIG_MUTATIONS", "15"))
#: Over 6 MB: the same code would take too long.
LARGE = {"bitmaps-7.2-with-blocks", "classic-incomplete", "classic-live-writes"}
#: Beside what the interpreter and its modules take: a command stays below 200 MB with them.
MEMORY = 120 << 20


def ends_well(run: Run, *words: object) -> None:
    """A traceback fails in ``run`` already."""
    taken, outcome = memory_taken(lambda: run(*words))
    held = 4 * len(outcome.out)  # by the runner, as bytes and as text
    assert taken <= MEMORY + held, f"{taken >> 20} MiB were taken"
    assert outcome.status in (0, 1, 3)
    assert len(outcome.err.splitlines()) == (1 if outcome.status == 3 else 0), outcome.err


@pytest.fixture(params=sorted(set(NAMES) - LARGE))
def small(request: pytest.FixtureRequest, unpacked: Path) -> Capture:
    return get_capture(request.param, unpacked)


def places(capture: Capture, length: int) -> Iterator[int]:
    """Numbers from 0 to ``length``, always the same; each is shown where a test fails."""
    chosen = random.Random(f"{capture.name} {NUMBER}")
    for _ in range(NUMBER):
        place = chosen.randrange(length)
        print(capture.name, place)
        yield place
        gc.collect()  # a result's traceback holds all output, until somebody looks for cycles


def test_cut(run: Run, small: Capture, tmp_path: Path) -> None:
    content, path = small.data, tmp_path / "cut.bin"
    for place in places(small, len(content)):
        path.write_bytes(content[:place])
        for told in ([], small.told()):
            ends_well(run, "validate", path, *told)


def test_flipped(run: Run, small: Capture, tmp_path: Path) -> None:
    content, path = bytearray(small.data), tmp_path / "flipped.bin"
    for place in places(small, len(content) * 8):
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        content[place // 8] ^= 1 << place % 8
        for told in ([], small.told()):
            ends_well(run, "validate", path, *told)
        ends_well(run, "dump", path, "--output", "jsonl")
