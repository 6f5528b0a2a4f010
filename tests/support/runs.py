"""Runs made of any events, however few."""

from collections.abc import Sequence

import numpy as np

from blkmig_cli.wire.events import BitmapBits, Block, Event, Payload, Progress
from blkmig_cli.wire.runs.columns import Column, Run, column_of, moved
from blkmig_cli.wire.schema_io import Input


def _numbers(events: Sequence[Event]) -> list[int]:
    return [
        event.percent if isinstance(event, Progress) else event.sector
        for event in events
        if isinstance(event, Block | BitmapBits | Progress)
    ]


def _bits(event: Event) -> list[Payload]:
    if isinstance(event, BitmapBits):
        return [] if event.bits is None else [event.bits]
    return [part.bits for part in event.bitmaps] if isinstance(event, Block) else []


def _column(events: Sequence[Event], source: Input) -> Column:
    offsets = np.array([event.offset for event in events], np.int64)
    numbers = np.array(_numbers(events), np.int64)
    counts = np.array(
        [event.sectors for event in events if isinstance(event, BitmapBits)], np.int64
    )
    bits = tuple(
        np.stack([np.frombuffer(source.view(payload), np.uint8).copy() for payload in payloads])
        for payloads in zip(*map(_bits, events), strict=True)
    )
    return column_of(
        events[0],
        offsets,
        numbers if len(numbers) else None,
        counts if len(counts) else None,
        bits,
    )


def run_of(events: Sequence[Event], source: Input) -> Run:
    """Return neighbouring events as a run; ``source`` has their bits."""
    columns: dict[Event, list[Event]] = {}
    for event in events:
        columns.setdefault(moved(event, -event.offset, 0), []).append(event)
    return Run(
        tuple(_column(alike, source) for alike in columns.values()),
        events[-1].offset + events[-1].length,
    )
