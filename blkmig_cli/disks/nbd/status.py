"""The state of an export's blocks: what is allocated, zero or dirty, from contexts of block status.

It is asked for piece by piece while it is consumed, so that a disk in very many pieces takes no memory.
"""

from collections.abc import Callable, Iterator

from blkmig_cli.disks.nbd.connection import Connection
from blkmig_cli.disks.nbd.replies import Request
from blkmig_cli.schemas import nbd as schema
from blkmig_cli.schemas.nbd import Command
from blkmig_cli.wire.schema_io import parse_rows

#: The flags of some contexts, in their order.
Flags = tuple[int, ...]

_PIECE = 1 << 31


def ranges(
    connection: Connection,
    contexts: tuple[int, ...],
    start: int,
    end: int,
    wanted: Callable[[Flags], bool],
) -> Iterator[tuple[int, int]]:
    """Yield the ranges (start, length) of [start, end) whose flags are ``wanted``, ascending.

    Adjacent ones are joined.  ``contexts``: the ids of those whose flags are given.  Raises FailureError.
    """
    low = high = start
    at = start - start % connection.export.minimum
    while at < end:
        for length, flags in _piece(connection, contexts, at, end):
            if wanted(flags) and at + length > start:
                if max(at, start) > high:
                    if low < high:
                        yield low, high - low
                    low = at
                high = min(at + length, end)
            at += length
    if low < high:
        yield low, high - low


def _piece(
    connection: Connection, contexts: tuple[int, ...], at: int, end: int
) -> Iterator[tuple[int, Flags]]:
    """Yield the lengths of the first blocks of [at, end), with their flags; one at least."""
    minimum = connection.export.minimum
    until = min(-(-end // minimum) * minimum, connection.export.size)
    request = Request(Command.BLOCK_STATUS, at, min(until - at, _PIECE), contexts=contexts)
    connection.ask(request)
    size = connection.export.size
    for length, flags in _joined([_rows(request.status[context]) for context in contexts]):
        if not 0 < length <= size - at:
            raise connection.fail(
                request, f"the server sent the state of {length} bytes at byte {at}"
            )
        yield length, flags
        at += length


def _rows(data: bytes) -> Iterator[tuple[int, int]]:
    yield from parse_rows(schema.Extent, data)


def _joined(contexts: list[Iterator[tuple[int, int]]]) -> Iterator[tuple[int, Flags]]:
    """Yield the lengths over which no flags change, with the flags of each context, in their order.

    Ends with the context of which the least is known.  Lengths are not negative.
    """
    if len(contexts) == 1:
        for length, flags in contexts[0]:
            yield length, (flags,)
        return
    current = [next(rows) for rows in contexts]
    while True:
        step = min(length for length, _ in current)
        yield step, tuple(flags for _, flags in current)
        for number, (length, flags) in enumerate(current):
            if length > step:
                current[number] = length - step, flags
                continue
            following = next(contexts[number], None)
            if following is None:
                return
            current[number] = following
