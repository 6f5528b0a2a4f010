"""The lines of a run are those of its events."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.errors import StreamError
from blkmig_cli.operations.dump import first_events
from blkmig_cli.output.events_text import OFFSET_WIDTH, fold_empty, fold_ram, line
from blkmig_cli.output.run_lines import run_lines
from blkmig_cli.spec.records import RecordWriter
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Event
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Piece, Run, expand, has_payload
from tests.conftest import CAPTURES
from tests.conftest import Run as RunCommand
from tests.support import raw
from tests.support.feed import BySchemas, in_file
from tests.support.long import examples
from tests.support.strategies import Repetitive, repetitive


def pieces_of(stream: Repetitive) -> list[Piece]:
    """The pieces up to the stream's end, or damage."""
    decoder, found = Decoder(in_file(stream.data), hints=stream.hints), list[Piece]()
    try:
        while True:
            found.append(decoder.piece())
    except (StopIteration, StreamError):
        return found


@pytest.mark.scaled
@settings(max_examples=examples(20, 400))
@given(repetitive())
def test_lines_of_runs_are_those_of_events(stream: Repetitive) -> None:
    for piece in pieces_of(stream):
        if isinstance(piece, Run):
            assert "\n".join(run_lines(piece, line, OFFSET_WIDTH)) == "\n".join(map(line, piece))
            if not any(has_payload(column.event) for column in piece.columns):
                write = RecordWriter(in_file(stream.data), None)

                def text(event: Event, write: RecordWriter = write) -> str:
                    return json.dumps(write(event))

                assert "\n".join(run_lines(piece, text)) == "\n".join(map(text, piece))


@pytest.mark.scaled
@settings(max_examples=examples(20, 300))
@given(repetitive(), st.data())
def test_the_first_events(stream: Repetitive, data: st.DataObject) -> None:
    pieces = pieces_of(stream)
    events = list(expand(pieces))
    number = data.draw(st.integers(0, len(events) + 1))
    assert list(expand(first_events(pieces, number))) == events[:number]


@pytest.mark.scaled
@settings(max_examples=examples(20, 300))
@given(repetitive())
def test_empty_parts_of_runs_are_those_of_events(stream: Repetitive) -> None:
    pieces = pieces_of(stream)
    folded = list(expand(fold_empty(fold_ram(pieces))))
    assert folded == list(fold_empty(fold_ram(expand(pieces))))


@pytest.mark.parametrize("device", ["100 % full %d", "7193754862019", "x8401735926158", "\x1b%s"])
def test_names_that_are_no_patterns(device: str) -> None:
    data = b"".join(raw.block(2048 * at, 8, device) for at in range(300)) + raw.EOS
    runs = [p for p in pieces_of(Repetitive(Hints(), data, "classic")) if isinstance(p, Run)]
    assert runs
    for run in runs:
        assert "\n".join(run_lines(run, line, OFFSET_WIDTH)) == "\n".join(map(line, run))


@pytest.mark.parametrize("empty", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("blocks", [0, 1, 50])
def test_empty_parts_before_and_behind_others(empty: int, blocks: int) -> None:
    part = raw.part(1, raw.EOS) + raw.footer(1)
    block = raw.part(1, raw.block(0, 8) + raw.EOS) + raw.footer(1)
    parts = [part] * empty + [block] * blocks + [part] * empty + [part, block] * 40
    data = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    data += b"".join(parts) + raw.part(1, raw.progress(100) + raw.EOS, 3) + raw.footer(1) + raw.EOF
    found = Decoder(in_file(data))
    by_schemas = Decoder(in_file(data, BySchemas))
    expected = [line(event) for event in expand(fold_empty(fold_ram(by_schemas)))]
    got: list[str] = []
    pieces: list[Piece] = []
    try:
        while True:
            pieces.append(found.piece())
    except StopIteration:
        pass
    for piece in fold_empty(fold_ram(pieces)):
        got += run_lines(piece, line, OFFSET_WIDTH) if isinstance(piece, Run) else [line(piece)]
    assert "\n".join(got) == "\n".join(expected)


@pytest.mark.parametrize("words", [[], ["--spec"], ["--output", "jsonl"]])
def test_a_compressed_capture_is_dumped_alike(words: list[str], run: RunCommand) -> None:
    path = CAPTURES / "classic-zero-two-drives-pc.bin.gz"
    assert run("dump", path, *words).out == run("dump", f"exec:gunzip <{path}", *words).out
