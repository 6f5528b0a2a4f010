"""Reading a stream to its end, event by event: the loop that every command shares."""

from collections.abc import Callable

from blkmig_cli.errors import BlkmigError, FailureError, LimitError, StreamError, TruncatedError
from blkmig_cli.progress import Tick
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Event
from blkmig_cli.wire.runs import Run


def cause(failure: BlkmigError | None, damage: StreamError | None) -> BlkmigError | None:
    """What ended a stream: where its unpacking was cut short by ``damage``, that explains a cut."""
    cut = failure is None or isinstance(failure, TruncatedError)
    return damage if damage is not None and cut else failure


def read_events(
    decoder: Decoder,
    take: Callable[[Event], None],
    tick: Tick,
    take_run: Callable[[Run], None] | None = None,
) -> BlkmigError | None:
    """Give every event to ``take``; returns what ended the reading, None for the proper end.

    That is a StreamError, or a FailureError of the input; or a LimitError of ``take``, of which
    nothing else that it raises is caught.  ``take_run`` is for those who can take runs whole.
    """
    while True:
        try:
            piece = next(decoder) if take_run is None else decoder.piece()
        except StopIteration:
            return None
        except (StreamError, FailureError) as error:
            return error
        first = piece.columns[0].event if isinstance(piece, Run) else piece
        try:
            if isinstance(piece, Run):
                assert take_run is not None
                take_run(piece)
                tick(piece.end)
            else:
                take(piece)
                tick(piece.offset + piece.length)
        except LimitError as error:
            error.offset = first.offset
            return error
