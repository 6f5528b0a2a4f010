"""A pytest plugin that records how long each test takes and which lines it executes.

Every process of the run, also those that tests start, measures itself as ``COVERAGE_PROCESS_START``
says: see ``mutate.record``, which starts the run.
"""

import json
import os
import time
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

#: Variables with the folder of the record, and with the test that runs, for the processes it starts.
FOLDER, TEST = "MUTATE_RECORD", "MUTATE_TEST"

#: Tests that passed, with their seconds.
_seconds: dict[str, float] = {}
_failed: set[str] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Record a test under its name."""
    os.environ[TEST] = item.nodeid
    measured = coverage.Coverage.current()
    assert measured is not None
    measured.switch_context(item.nodeid)
    measured.set_option("run:context", item.nodeid)  # for processes that are forked
    start = time.monotonic()
    try:
        return (yield)
    finally:
        _seconds[item.nodeid] = time.monotonic() - start
        measured.switch_context("")
        os.environ[TEST] = ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the tests that fail, or are skipped."""
    report = yield
    if not report.passed:
        _failed.add(item.nodeid)
    return report


def pytest_sessionfinish() -> None:
    """Save what was recorded in this process."""
    for test in _failed:
        _seconds.pop(test, None)
    path = Path(os.environ[FOLDER], f"seconds-{os.getpid()}.json")
    path.write_text(json.dumps(_seconds))
