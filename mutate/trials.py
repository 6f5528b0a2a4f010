"""Trials: a copy of the tree, the tests for a module, and their run against one mutation."""

import enum
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mutate.mutations import Mutation

ROOT = Path(__file__).parents[1]
PACKAGE = "blkmig_cli"
#: The command that runs pytest.
Step = tuple[str, ...]
#: Seconds in addition to five times the usual, after which a mutation counts as caught.
LIMIT = 60.0
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
#: Tests for the modules of a room (or for one module) in addition to those in the folder of its name:
#: properties that hold across rooms, and captures.
MEANT: dict[str, tuple[str, ...]] = {
    "schemas": ("tests/wire", "tests/commands/test_captures.py", "tests/commands/test_dump.py"),
    "wire": (
        "tests/contents", "tests/commands/test_captures.py", "tests/operations/test_properties.py",
        "tests/operations/test_salvage.py", "tests/commands/test_cli.py", "tests/test_limits.py",
    ),
    "system": ("tests/transport", "tests/operations/test_journal.py", "tests/commands/test_cli.py"),
    "disks": (
        "tests/operations/test_writing.py", "tests/operations/test_replay.py",
        "tests/operations/test_properties.py", "tests/operations/test_journal.py",
        "tests/operations/test_any_image.py", "tests/operations/test_nbd_images.py",
        "tests/operations/test_replay_devices.py", "tests/operations/test_increments.py",
    ),
    "transport": (
        "tests/system", "tests/commands/test_cli.py", "tests/operations/send",
        "tests/operations/test_replay.py",
    ),
    "contents": (
        "tests/checks", "tests/wire/runs", "tests/operations/test_increments.py",
        "tests/operations/test_incremental_images.py", "tests/operations/test_map.py",
        "tests/operations/test_compare.py", "tests/operations/test_info.py",
        "tests/operations/test_validate.py", "tests/operations/convert",
        "tests/commands/test_captures.py",
    ),
    "checks": (
        "tests/operations/test_validate.py", "tests/operations/test_replay.py",
        "tests/commands", "tests/interop/test_defects.py",
    ),
    "spec": ("tests/commands/test_dump.py", "tests/commands/test_captures.py"),
    "operations": ("tests/commands", "tests/test_api.py", "tests/interop"),
    "output": ("tests/commands", "tests/operations"),
    "commands": ("tests/operations", "tests/project/test_examples.py"),
    "": ("tests/wire", "tests/contents", "tests/operations", "tests/commands"),
}  # fmt: skip


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


def meant_tests(module: Path, *, every: bool) -> list[Step]:
    """Return the tests for a module, in steps.

    The first that fails ends a trial, so the most specific tests are first.  ``every``: all other tests
    are the last step.
    """
    parts = module.with_suffix("").parts
    rooms = parts[:-1] if parts[0] == "schemas" else parts[1:-1]
    own = Path("tests", *rooms, f"test_{module.stem}.py")
    steps: list[Step] = [(str(own),)] if (ROOT / own).is_file() else []
    room = rooms[0] if rooms else ""
    if not room:
        steps.append(tuple(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/test_*.py")))
    elif (ROOT / "tests" / room).is_dir():
        steps.append((f"tests/{room}",))
    if MEANT[room]:
        steps.append(MEANT[room])
    if every:
        steps.append(("tests", "--ignore=tests/project/test_mutate.py"))
    return steps


class Verdict(enum.Enum):
    """How a trial ended."""

    CAUGHT = "caught"
    TIMEOUT = "caught by the time limit"
    SURVIVED = "survived"


@dataclass(slots=True)
class Tree:
    """A copy of the tree that trials change, with its own folder for temporary files."""

    folder: Path
    seed: int
    #: How many times a module of it has been written.
    written: int = 0
    #: The tests that run.
    process: "subprocess.Popen[str] | None" = None
    #: Whether each further run ends at once.
    stopped: bool = False

    def run(self, step: Step, limit: float | None = None) -> tuple[int, str]:
        """Run tests; return the exit status and what was printed.

        Raises subprocess.TimeoutExpired after ``limit`` seconds; then no process of it is left.
        """
        command = [
            sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
            "--hypothesis-profile=mutate", f"--hypothesis-seed={self.seed}",
            f"--basetemp={self.folder / 'temporary'}", *step,
        ]  # fmt: skip
        self.process = process = subprocess.Popen(
            command, cwd=self.folder / "tree", env=self._environment(), start_new_session=True,
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

    def _environment(self) -> dict[str, str]:
        # Child processes of the tests must import the copy, too, not the installed package.
        return {**os.environ, "PYTHONPATH": str(self.folder / "tree")}

    def measure(self, step: Step) -> float:
        """Run tests on the unchanged code; return how many seconds they take.

        Raises RuntimeError where they fail.
        """
        start = time.monotonic()
        status, text = self.run(step)
        if status:
            raise RuntimeError(f"{' '.join(step)} fails without a mutation:\n{text}")
        return time.monotonic() - start

    def attempt(self, module: Path, mutation: Mutation, steps: dict[Step, float]) -> Verdict:
        """Try a mutation against steps of tests that usually take so many seconds.

        The tree is as before afterwards.
        """
        path = self.folder / "tree" / module
        source = path.read_text()
        self._write(path, mutation.apply(source))
        try:
            for step, seconds in steps.items():
                if self.run(step, LIMIT + 5 * seconds)[0]:
                    return Verdict.CAUGHT
        except subprocess.TimeoutExpired:
            return Verdict.TIMEOUT
        finally:
            self._write(path, source)
        return Verdict.SURVIVED

    def _write(self, path: Path, source: str) -> None:
        path.write_text(source)
        # Python considers a compiled module up to date if its source has the same time and size.
        self.written += 1
        os.utime(path, (self.written, self.written))


@contextmanager
def copied_tree(seed: int) -> Iterator[Tree]:
    """Give a copy of the tree in a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        shutil.copytree(
            ROOT, Path(name) / "tree", symlinks=True, ignore=shutil.ignore_patterns(*_IGNORED)
        )
        yield Tree(Path(name), seed)
