"""The callbacks by which operations report their progress."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Tick(Protocol):
    """Called with the bytes ``done`` so far, and the device whose ``disk`` is at work, if that is known."""

    def __call__(self, done: int, disk: str | None = None) -> None:
        """Take the progress."""


#: Called with a label and the total bytes (None: unknown) for each piece of work; the context lasts
#: as long as the work.
Progress = Callable[[str, int | None], AbstractContextManager[Tick]]


def no_tick(done: int, disk: str | None = None) -> None:
    """Show nothing."""


def no_progress(_: str, __: int | None) -> AbstractContextManager[Tick]:
    """Return a context that shows no progress."""
    return nullcontext(no_tick)


def ignore(_: str) -> None:
    """Ignore a message."""
