"""Trials: a copy of the tree, and runs of tests against one mutation in it."""

import enum
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from mutate.mutations import Mutation
from mutate.record import HYPOTHESIS_SEED, Record, environment

ROOT = Path(__file__).parents[1]
PACKAGE = "blkmig_cli"
#: Seconds in addition to twice the recorded, after which a mutation counts as caught.
LIMIT = 30.0
#: Seconds that the first tests of a trial take.
FIRST = 5.0
#: Files that are not copied: they are generated, or not read by any test.
_IGNORED = (
    ".git",
    ".venv",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "*.egg-info",
    "build",
    "dist",
)


def modules_named(words: list[str]) -> list[Path]:
    """Return the modules that ``words`` name, as paths in the tree.

    A word is a module such as ``wire/decoder``, or a room such as ``wire`` with all of its modules.
    Raises ValueError for a word that names neither.
    """
    found = []
    for word in words:
        place = (ROOT / PACKAGE / word.removesuffix(".py")).resolve()
        module = place.with_suffix(".py")
        if place.is_dir():
            found += sorted(path for path in place.rglob("*.py") if path.name != "__init__.py")
        elif module.is_file():
            found.append(module)
        else:
            raise ValueError(f"no module or room {word!r} in {PACKAGE}")
    return [path.relative_to(ROOT) for path in dict.fromkeys(found)]


def read_sources() -> dict[Path, str]:
    """Return the texts of all modules, by their paths in the tree."""
    return {
        path.relative_to(ROOT): path.read_text()
        for room in (PACKAGE, "schemas")
        for path in sorted((ROOT / room).rglob("*.py"))
    }


@dataclass(frozen=True, slots=True)
class Step:
    """Tests that run in one process, and how many seconds they take."""

    tests: list[str]
    seconds: float


def _test_folder(module: Path) -> Path:
    """Return the folder with the tests of the room of ``module``."""
    return Path("tests", *module.parent.parts[module.parts[0] == PACKAGE :])


def room_tests(module: Path, record: Record) -> set[str]:
    """Return the tests of the modules in the folder of ``module``."""
    folder = _test_folder(module)
    return {test for test in record.seconds if Path(test.partition("::")[0]).parent == folder}


def steps_of(module: Path, tests: set[str], record: Record, limit: float) -> list[Step]:
    """Return tests as steps, of which a trial takes the next where it has survived the one before.

    The first tests are those of ``module``, then those of its room, of the room around it, and of each the
    quickest.  Those that would make a trial longer than ``limit`` seconds are left out.
    """
    rooms = _test_folder(module)

    def rank(test: str) -> tuple[bool, int, float]:
        path = Path(test.partition("::")[0])
        far = sum(room not in path.parents for room in (rooms, *rooms.parents))
        return path.stem != f"test_{module.stem}", far, record.seconds[test]

    ordered = sorted(tests, key=rank)
    taken = list(accumulate(record.seconds[test] for test in ordered))
    ends = [bisect_right(taken, min(seconds, limit)) for seconds in (FIRST, limit)]
    return [
        Step(ordered[start:end], taken[end - 1] - (taken[start - 1] if start else 0))
        for start, end in pairwise([0, *ends])
        if start < end
    ]


class Verdict(enum.Enum):
    """How a trial ended."""

    CAUGHT = "caught"
    TIMEOUT = "caught by the time limit"
    SURVIVED = "survived"


@dataclass(slots=True)
class Tree:
    """A copy of the tree that trials change, with its own folder for temporary files."""

    folder: Path
    #: How many times a module of it has been written.
    written: int = 0
    #: The tests that run.
    process: "subprocess.Popen[str] | None" = None
    #: Whether each further run ends at once.
    stopped: bool = False

    def run(self, tests: list[str], limit: float, *options: str) -> tuple[int, str]:
        """Run tests in their order up to the first that fails; return the exit status and what was printed.

        Raises subprocess.TimeoutExpired after ``limit`` seconds; then no process of it is left.
        """
        arguments = self.folder / "tests"
        arguments.write_text("\n".join(tests))
        command = [
            sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider",
            "--hypothesis-profile=mutate", f"--hypothesis-seed={HYPOTHESIS_SEED}",
            f"--basetemp={self.folder / 'temporary'}", f"@{arguments}", *options,
        ]  # fmt: skip
        self.process = process = subprocess.Popen(
            command, cwd=self.folder / "tree", env=environment(self.folder / "tree"), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if self.stopped:
            process.kill()
        try:
            text, _ = process.communicate(timeout=limit)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            self.process = None
        return process.returncode, text

    def stop(self) -> None:
        """End the trial that another thread attempts; its verdict means nothing."""
        self.stopped = True
        if process := self.process:
            os.killpg(process.pid, signal.SIGKILL)

    def check(self, tests: list[str]) -> None:
        """Raise RuntimeError unless all of these tests can be collected."""
        status, text = self.run(tests, 10 * LIMIT, "--collect-only")
        if status:
            raise RuntimeError(f"the tests cannot be collected without a mutation:\n{text}")

    def attempt(self, module: Path, mutation: Mutation, steps: list[Step]) -> tuple[Verdict, str]:
        """Try a mutation against steps of tests; return how it ended, and the test that failed.

        The tree is as before afterwards.
        """
        path = self.folder / "tree" / module
        source = path.read_text()
        self._write(path, mutation.apply(source))
        try:
            for step in steps:
                tests, limit = step.tests, LIMIT + 2 * step.seconds
                while tests and (ended := self.run(tests, limit))[0]:
                    failed = _first_failed(tests, ended[1])
                    # Again: it may be a test that fails at times whatever the code.
                    if failed is None or self.run([failed], limit)[0]:
                        return Verdict.CAUGHT, failed or "collection"
                    tests = [test for test in tests if test != failed]
        except subprocess.TimeoutExpired:
            return Verdict.TIMEOUT, ""
        finally:
            self._write(path, source)
        return Verdict.SURVIVED, ""

    def _write(self, path: Path, source: str) -> None:
        path.write_text(source)
        # Python considers a compiled module up to date if its source has the same time and size.
        self.written += 1
        os.utime(path, (self.written, self.written))


def _first_failed(tests: list[str], text: str) -> str | None:
    """Return the test that ended a run, according to what pytest printed; None where it was none."""
    found = [test for test in tests if f"\nFAILED {test}" in text or f"\nERROR {test}" in text]
    return max(found, key=len, default=None)  # of two, one begins as the other does


@contextmanager
def copied_tree() -> Iterator[Tree]:
    """Give a copy of the tree in a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        shutil.copytree(
            ROOT, Path(name) / "tree", symlinks=True, ignore=shutil.ignore_patterns(*_IGNORED)
        )
        yield Tree(Path(name))
