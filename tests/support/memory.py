"""How much memory something takes that runs in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_SELF = Path("/proc/self")


def _status(key: str) -> int:
    """Bytes that the system says of this process under ``key``."""
    lines = (_SELF / "status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


def memory_taken(work: Callable[[], T]) -> tuple[int, T]:
    """The most bytes that ``work`` takes at any time, and what it returns."""
    (_SELF / "clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    found = work()
    return _status("VmHWM") - before, found
