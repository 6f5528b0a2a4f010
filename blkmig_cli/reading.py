"""Reading a stream to its end, event by event: the loop that every command shares."""

from collections.abc import Callable

from blkmig_cli.decode import Decoder
from blkmig_cli.errors import BlkmigError, FailureError, StreamError
from blkmig_cli.events import Event

#: Told the offset reached, in bytes, after every event.
Tick = Callable[[int], None]


def no_tick(_: int) -> None:
    """For those who show no progress."""


def read_events(decoder: Decoder, take: Callable[[Event], None], tick: Tick) -> BlkmigError | None:
    """Give every event to ``take``; returns what ended the reading, None for the proper end.

    That is a StreamError, or a FailureError of the input.  What ``take`` raises is not caught.
    """
    while True:
        try:
            event = next(decoder)
        except StopIteration:
            return None
        except (StreamError, FailureError) as error:
            return error
        take(event)
        tick(event.offset + event.length)
