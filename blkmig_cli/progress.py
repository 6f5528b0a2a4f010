"""How work tells its caller how far it has come."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

#: Called with the bytes done so far.
Tick = Callable[[int], None]

#: Called with a label and the bytes in all (None: unknown) for each piece of work, and entered while
#: it goes on.
Progress = Callable[[str, int | None], AbstractContextManager[Tick]]


def no_tick(_: int) -> None:
    """Show nothing."""


def no_progress(_: str, __: int | None) -> AbstractContextManager[Tick]:
    """Show nothing of any piece of work."""
    return nullcontext(no_tick)


def ignore(_: str) -> None:
    """Take a message, and show it nowhere."""
