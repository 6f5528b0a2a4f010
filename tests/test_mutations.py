"""Captures cut and with a bit flipped: validate and dump end with one of their statuses, and a line.

They take no more memory than with the captures as they are.

BLKMIG_MUTATIONS sets how many of each there are for each capture.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import NAMES, Capture, Run, get_capture
from tests.memory import memory_taken

NUMBER = int(os.environ.get("BLKMIG_MUTATIONS", "15"))
#: Over 6 MB: the same code would take too long.
LARGE = {"bitmaps-7.2-with-blocks", "classic-incomplete", "classic-live-writes"}
#: Beside what the interpreter and its modules take: a command stays below 200 MB with them.
MEMORY = 120 << 20
SETTINGS = settings(
    max_examples=NUMBER,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def ends_well(run: Run, *words: object) -> None:
    """A traceback fails in ``run`` already."""
    taken, outcome = memory_taken(lambda: run(*words))
    held = 4 * len(outcome.out)  # by the runner, as bytes and as text
    assert taken <= MEMORY + held, f"{taken >> 20} MiB were taken"
    assert outcome.status in (0, 1, 3)
    assert len(outcome.err.splitlines()) == (1 if outcome.status == 3 else 0), outcome.err


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations", numbered=True)


@pytest.fixture(params=sorted(set(NAMES) - LARGE))
def small(request: pytest.FixtureRequest, unpacked: Path) -> Capture:
    return get_capture(request.param, unpacked)


@SETTINGS
@given(data=st.data())
def test_cut(run: Run, small: Capture, folder: Path, data: st.DataObject) -> None:
    content = small.data
    path = folder / "cut.bin"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    for told in ([], small.told()):
        ends_well(run, "validate", path, *told)


@SETTINGS
@given(data=st.data())
def test_flipped(run: Run, small: Capture, folder: Path, data: st.DataObject) -> None:
    content = bytearray(small.data)
    place = data.draw(st.integers(0, len(content) * 8 - 1))
    content[place // 8] ^= 1 << place % 8
    path = folder / "flipped.bin"
    path.write_bytes(content)
    for told in ([], small.told()):
        ends_well(run, "validate", path, *told)
    ends_well(run, "dump", path, "--output", "jsonl")
