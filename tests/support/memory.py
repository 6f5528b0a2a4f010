"""Measuring the memory that a call takes in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_SELF = Path("/proc/self")


def _status(key: str) -> int:
    """Return the number of bytes under ``key`` in this process's status."""
    lines = (_SELF / "status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


def memory_taken(work: Callable[[], T]) -> tuple[int, T]:
    """Return the most bytes that ``work`` takes at any time, and its result."""
    (_SELF / "clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    found = work()
    return _status("VmHWM") - before, found
