"""Writing a stream of disks, with progress in bytes of the disks."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from blkmig_cli.disks.disk import Disk
from blkmig_cli.progress import Tick
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.transport.sinks import Sink
from blkmig_cli.transport.target import Resolve, resolve_content, write_events
from blkmig_cli.wire.events import Block, Event

if TYPE_CHECKING:
    from blkmig_cli.wire.runs.columns import Piece


def write_disks(
    pieces: "Iterable[Piece]",
    disks: list[Disk],
    sink: Sink,
    tick: Tick,
    resolve: Resolve = resolve_content,
) -> None:
    """Write ``pieces`` of ``disks`` to ``sink``; ``tick`` gets the bytes of the disks done.

    ``resolve`` yields the bytes of payloads.  Raises FailureError where an image or the target fails.
    """
    write_events(_ticking(pieces, disks, tick), sink, resolve)


def _ticking(pieces: "Iterable[Piece]", disks: list[Disk], tick: Tick) -> "Iterator[Piece]":
    before = 0
    begins = {}
    for disk in disks:
        begins[disk.device] = before
        before += disk.size
    for piece in pieces:
        yield piece
        last: Event | None
        if isinstance(piece, Event):
            last = piece
        else:
            from blkmig_cli.wire.runs.columns import last_block  # noqa: PLC0415 (numpy is slow to load)

            last = last_block(piece)
        if isinstance(last, Block):
            tick(begins[last.device] + last.sector * SECTOR_SIZE, last.device)
