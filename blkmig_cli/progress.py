"""The callbacks by which operations report their progress."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

#: Called with the bytes done so far.
Tick = Callable[[int], None]

#: Called with a label and the total bytes (None: unknown) for each piece of work; the context lasts
#: as long as the work.
Progress = Callable[[str, int | None], AbstractContextManager[Tick]]


def no_tick(_: int) -> None:
    """Show nothing."""


def no_progress(_: str, __: int | None) -> AbstractContextManager[Tick]:
    """Return a context that shows no progress."""
    return nullcontext(no_tick)


def ignore(_: str) -> None:
    """Ignore a message."""
