"""Measuring: the compared works run in turn, for several rounds; the medians are used."""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

BLKMIG = [sys.executable, "-m", "blkmig_cli"]
#: As after an installation: Python caches compiled modules.
ENVIRONMENT = {key: text for key, text in os.environ.items() if not key.startswith("PYTHON")}

#: Runs something once; returns the measured seconds.
Work = Callable[[], float]


@dataclass(slots=True)
class Row:
    """One line of the table: ``ours`` in ``unit``; ``must`` and ``aim`` are for ``figure``.

    ``figure`` is the ratio to ``peer`` where there is one; larger is better where ``more`` is set.
    """

    name: str
    unit: str
    must: float | None = None
    aim: float | None = None
    more: bool = False
    peer: str | None = None
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def figure(self) -> float:
        """Return the median, or the ratio of the medians."""
        ours = statistics.median(self.ours)
        return ours / statistics.median(self.theirs) if self.theirs else ours

    @property
    def spread(self) -> float:
        """Return the range of our values as a fraction of the median."""
        return (max(self.ours) - min(self.ours)) / statistics.median(self.ours)

    def meets(self, limit: float | None) -> bool | None:
        """Return whether the figure is on the right side of ``limit``; None without a limit."""
        if limit is None:
            return None
        return self.figure >= limit if self.more else self.figure <= limit


def command(
    words: list[object],
    *,
    fresh: str | None = None,
    uncached: Path | None = None,
    shell: bool = False,
) -> Work:
    """Return work that runs a command.

    Before, which is not measured, the file ``fresh`` is removed, and ``uncached`` is dropped from the
    system's cache (a file in memory is not).
    """

    def work() -> float:
        if fresh is not None and os.path.exists(fresh):
            os.unlink(fresh)
        if uncached is not None:
            with uncached.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        line = " ".join(map(str, words)) if shell else [str(word) for word in words]
        start = time.perf_counter()
        done = subprocess.run(
            line, shell=shell, env=ENVIRONMENT, check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        if done.returncode > 1:
            raise RuntimeError(f"{line}: exit status {done.returncode}")
        return seconds

    return work


def memory(words: list[object]) -> float:
    """Return the peak resident memory of a command, in MB."""
    script = (
        "import resource, subprocess, sys; "
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.returncode)"
    )
    line = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    kilobytes, status = map(int, done.stdout.split())
    if status > 1:
        raise RuntimeError(f"{words}: exit status {status}")
    return kilobytes * 1024 / 1e6


def rounds(number: int, *works: Work) -> list[list[float]]:
    """Run all ``works`` in turn, ``number`` times after a warm-up run."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(number + 1):
        for place, work in enumerate(works):
            seconds = work()
            if turn:
                taken[place].append(seconds)
    return taken


def machine() -> dict[str, object]:
    """Return a description of this machine."""
    with open("/proc/cpuinfo") as file:
        names = {line.split(":", 1)[1].strip() for line in file if line.startswith("model name")}
    return {
        "processors": os.cpu_count(),
        "model": ", ".join(sorted(names)),
        "memory-gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "date": time.strftime("%Y-%m-%d"),
        "page-size": resource.getpagesize(),
    }
