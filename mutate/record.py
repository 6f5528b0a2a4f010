"""The record of a run of the tests: how long each takes, and which lines of the package it executes.

It is kept in build/mutate, and made anew where the code or what the tests share has changed; where only
modules of tests have, these run again.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from coverage import Coverage, CoverageData
from coverage.exceptions import CoverageWarning

from mutate.reach import Lines
from mutate.recorder import FOLDER

#: The same examples whenever a test runs, so that one that passed fails for a mutation's sake only.
HYPOTHESIS_SEED = 1
#: Tests of the project's files and not of its code, which take long.
_IGNORED = "tests/project"
_CONFIG = """\
[run]
data_file = {data}
parallel = true
include =
  {tree}/blkmig_cli/*
  {tree}/schemas/*
patch =
  _exit
  fork
context = ${{MUTATE_TEST-}}
disable_warnings =
  already-imported
  module-not-measured
  no-data-collected
"""


@dataclass(frozen=True, slots=True)
class Record:
    """What a run recorded: ``seconds`` of each test that passed."""

    seconds: dict[str, float]
    data: CoverageData

    def tests(self, reached: Lines) -> set[str]:
        """Return the tests that execute any of these lines."""
        found: set[str] = set()
        for name in self.data.measured_files():
            path = Path(name)
            for module, lines in reached.items():
                if path.parts[-len(module.parts) :] == module.parts:
                    executed = self.data.contexts_by_lineno(name)
                    found.update(test for line in lines for test in executed.get(line, ()))
        return found & self.seconds.keys()


def get_record(tree: Path, folder: Path, jobs: int, *, anew: bool) -> Record:
    """Return the record of the tests in ``tree``, a copy; ``folder`` has or gets it.

    ``jobs``: how many tests run at a time.  ``anew``: nothing that was recorded earlier is used.
    """
    index, data = folder / "tests.json", folder / "lines"
    known = json.loads(index.read_text()) if index.is_file() and not anew else {}
    modules = {str(path.relative_to(tree)): path for path in (tree / "tests").rglob("test_*.py")}
    others = (
        path
        for room in ("blkmig_cli", "schemas", "tests")
        for path in (tree / room).rglob("*.py")
        if str(path.relative_to(tree)) not in modules
    )
    now = {name: _digest([path]) for name, path in modules.items() if _IGNORED not in name}
    now[""] = _digest(others)
    if known.get("digests", {}).get("") != now[""]:
        known = {"digests": {}, "seconds": {}}
        shutil.rmtree(folder, ignore_errors=True)
    changed = {name for name in now if known["digests"].get(name) != now[name]} - {""}
    seconds = {
        test: taken
        for test, taken in known["seconds"].items()
        if (name := test.partition("::")[0]) in now and name not in changed
    }
    if changed:
        folder.mkdir(parents=True, exist_ok=True)
        seconds |= _run(tree, folder, sorted(changed), jobs)
        index.write_text(json.dumps({"digests": now, "seconds": seconds}))
    recorded = CoverageData(str(data))
    recorded.read()
    return Record(seconds, recorded)


def environment(tree: Path) -> dict[str, str]:
    """Return the environment of tests in ``tree``, a copy.

    What they start must import the copy, too, not the installed package, and is compiled once.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(tree)}


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _run(tree: Path, folder: Path, modules: list[str], jobs: int) -> dict[str, float]:
    """Run modules of tests; record the lines in ``folder``, return the seconds of each test."""
    config = folder / "coveragerc"
    config.write_text(_CONFIG.format(data=folder / "lines", tree=tree))
    command = [
        sys.executable, "-m", "pytest", "-p", "mutate.recorder", "-p", "no:cacheprovider",
        f"--numprocesses={jobs}", "--dist=worksteal", "--hypothesis-profile=mutate",
        f"--hypothesis-seed={HYPOTHESIS_SEED}", *modules,
    ]  # fmt: skip
    variables = {**environment(tree), "COVERAGE_PROCESS_START": str(config), FOLDER: str(folder)}
    done = subprocess.run(
        command, cwd=tree, env=variables, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
    )
    if done.returncode not in (0, 1, 5):  # 1: tests failed, and are left out; 5: none was collected
        raise RuntimeError(f"the tests ended with status {done.returncode}")
    coverage = Coverage(data_file=str(folder / "lines"), config_file=False)
    coverage.load()  # what was recorded before stays
    with warnings.catch_warnings(action="ignore", category=CoverageWarning):
        coverage.combine([str(folder)])
    for path in folder.glob("lines.*"):  # of processes that were killed
        path.unlink()
    seconds: dict[str, float] = {}
    for path in folder.glob("seconds-*.json"):
        seconds |= json.loads(path.read_text())
        path.unlink()
    return seconds
