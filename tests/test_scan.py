"""The scanner gives what the schemas give: events, errors, totals, lines; and it does take runs."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blkmig_cli.checks import Checker
from blkmig_cli.decode import Decoder, Hints
from blkmig_cli.errors import FailureError, StreamError
from blkmig_cli.events import Block, Event
from blkmig_cli.inputs import FileInput
from blkmig_cli.jsonout import EventJson, report_json
from blkmig_cli.jsonrows import run_texts
from blkmig_cli.reading import no_tick, read_events
from blkmig_cli.runs import Piece, Run, expand
from tests import raw
from tests.conftest import CAPTURES, Capture
from tests.feed import BySchemas, events, in_file, piped
from tests.strategies import Repetitive, repetitive, streams

SETTINGS = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def pieces(decoder: Decoder) -> Iterator[Piece]:
    """What ``decoder`` gives, runs whole, up to an error."""
    try:
        while True:
            yield decoder.piece()
    except (StopIteration, StreamError):
        return


def verdict(source: FileInput, hints: Hints, *, runs: bool) -> object:
    """The report, with every bitmap's content."""
    decoder = Decoder(source, hints=hints)
    checker = Checker(decoder, hints)
    failure = read_events(
        decoder,
        lambda event: checker.feed(event, source),
        no_tick,
        (lambda run: checker.feed_run(run, source)) if runs else None,
    )
    report = checker.finish("s", failure)
    contents = [
        verdict.bitmap.content.ranges(None)
        for verdict in report.bitmaps
        if verdict.bitmap.content is not None
    ]
    tops = [(disk.top, disk.top_offset) for disk in checker.state.disks.values()]
    covered = [list(bitmap.covered) for bitmap in checker.state.bitmaps.values()]
    return report_json(report), contents, tops, covered, checker.state.end


def same(data: bytes, hints: Hints) -> None:
    by_schemas = in_file(data, BySchemas)
    expected = events(by_schemas, hints=hints)
    assert events(in_file(data), hints=hints) == expected
    assert verdict(in_file(data), hints, runs=True) == verdict(
        in_file(data, BySchemas), hints, runs=False
    )
    source = in_file(data)
    as_json = EventJson(source)
    lines: list[str] = []
    for piece in pieces(Decoder(source, hints=hints)):
        if isinstance(piece, Run):
            lines += run_texts(piece, as_json)
        else:
            lines.append(json.dumps(as_json(piece)))
    assert lines == [json.dumps(EventJson(by_schemas)(event)) for event in expected[0]]


@SETTINGS
@given(repetitive())
def test_repetitions(stream: Repetitive) -> None:
    same(stream.data, stream.hints)


@settings(SETTINGS, max_examples=30)
@given(streams(), st.integers(0), st.integers(0, 7))
def test_what_send_makes_with_a_bit_flipped(sent: object, place: int, bit: int) -> None:
    data = bytearray(sent.data)  # type: ignore[attr-defined]
    data[place % len(data)] ^= 1 << bit
    same(bytes(data), Hints())
