"""How long work tells that it goes on."""

from collections.abc import Callable

#: Told how far the work has come, in bytes.
Tick = Callable[[int], None]


def no_tick(_: int) -> None:
    """For those who show no progress."""
