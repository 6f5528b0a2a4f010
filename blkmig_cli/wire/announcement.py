"""The announcement of an increment at its start: a progress record in the START part of ``block``.

The identity is at the stream's end, too late for a reader that gets the stream from a pipe.  QEMU prints
the percentage and ignores it (QEMU 7.2, migration/block.c: block_load), and writes none there itself.
"""

from collections.abc import Iterable

from blkmig_cli.schemas.constants import BLOCK_SECTION, BlockFlag, SectionType
from blkmig_cli.wire.events import Event, Footer, Progress, SectionHeader


def announcement() -> Progress:
    """Return the record that announces an increment."""
    return Progress(0, 0, BLOCK_SECTION, 0, BlockFlag.PROGRESS)


def is_announced(events: Iterable[Event]) -> bool:
    """Return whether ``events``, from a stream's start, announce an increment; raises as they do."""
    inside = False
    for event in events:
        if isinstance(event, SectionHeader):
            if event.kind != SectionType.START:
                return False
            inside = event.section == BLOCK_SECTION
        elif inside and isinstance(event, Progress):
            return True
        elif inside and isinstance(event, Footer):
            return False
    return False
