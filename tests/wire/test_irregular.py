"""Records and headers in no regular order take time each, and are limited."""

import random
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import LimitError, StreamError
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.transport.spool import spool
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Event
from blkmig_cli.wire.runs.columns import Piece
from blkmig_cli.wire.runs.columns import Run as Rows
from tests.conftest import Run, fails
from tests.support import raw
from tests.support.feed import BySchemas, in_file, piped

#: What the tests allow.
MOST = 500
DICE = random.Random(7)
#: More sections than kinds of events are known at a time.
NUMBERS = range(2, 2402)
HEAD = raw.HEADER + raw.configuration()
STARTS = [raw.start(at, "dirty-bitmap", 1, b"\1") + raw.footer(at) for at in NUMBERS]
PARTS = [raw.part(at, b"\1") + raw.footer(at) for at in (DICE.choice(NUMBERS) for _ in range(4000))]
IRREGULAR = b"".join([HEAD, *STARTS, *PARTS, raw.EOF])


@pytest.fixture(autouse=True)
def _limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IRREGULAR_MAX", MOST)


def end_of(decoder: Decoder, found: list[Piece] | None = None) -> StreamError | None:
    """Return the error that ends the reading; ``found`` gets the pieces before it."""
    try:
        for piece in decoder.pieces():
            if found is not None:
                found.append(piece)
    except StreamError as error:
        return error
    return None


def first_over(found: list[Event]) -> tuple[int, int]:
    """Return how many events are allowed where there are more, and the offset of the first of those."""
    for number, event in enumerate(found, 1):
        allowed = MOST + (event.offset + event.length) // 64
        if number > allowed:
            return allowed, event.offset
    raise AssertionError


def test_each_event_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IRREGULAR_MAX", 1 << 30)
    found = list(Decoder(in_file(IRREGULAR, BySchemas)))
    monkeypatch.setattr(limits, "IRREGULAR_MAX", MOST)
    error = end_of(Decoder(in_file(IRREGULAR, BySchemas)))
    assert error is not None
    allowed, offset = first_over(found)
    assert error.check == "limit"
    assert error.message == f"over {allowed} records and headers in no regular order"
    assert error.offset == offset


def spooled(data: bytes) -> FileInput:
    """Return ``data`` as a pipe that is copied to a temporary file."""
    stack = ExitStack()
    source = spool(piped(data), stack)
    weakref.finalize(source, stack.close)
    return source


@pytest.mark.parametrize("source", [in_file, piped, spooled])
def test_files_and_pipes(source: Callable[[bytes], FileInput]) -> None:
    error = end_of(Decoder(source(IRREGULAR)))
    assert isinstance(error, LimitError)


def test_salvage_does_not_go_on_behind_them(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.bin"
    path.write_bytes(IRREGULAR)
    fails(run("salvage", path), 3, "records and headers in no regular order")


def test_a_stream_behind_other_bytes() -> None:
    """What precedes a stream allows for nothing."""
    before = 1 << 16
    source = in_file(bytes(before) + IRREGULAR, BySchemas)
    source.offset = before
    found, expected = end_of(Decoder(source)), end_of(Decoder(in_file(IRREGULAR, BySchemas)))
    assert found is not None
    assert expected is not None
    assert (found.message, found.offset) == (expected.message, before + (expected.offset or 0))


def test_kinds_of_a_run_count() -> None:
    """Runs of some rows each, broken up by a command."""
    command = b"\x08\0\x05\0\0"
    part = raw.part(2, b"\1") + raw.footer(2)
    data = HEAD + STARTS[0] + (part * 14 + command) * 400 + raw.EOF
    source = in_file(data)
    found: list[Piece] = []
    error = end_of(Decoder(source), found)
    counted = sum(len(piece.columns) if isinstance(piece, Rows) else 1 for piece in found)
    allowed = MOST + source.offset // 64
    assert error is not None
    assert error.message.startswith(f"over {allowed} records")
    assert counted <= allowed < counted + 4


def test_regular_streams_are_not_limited() -> None:
    zeros = b"".join(raw.block(at * 2048, 9) for at in range(50_000))
    for data in (raw.qemu(zeros), HEAD + STARTS[0] + raw.EOF):
        assert end_of(Decoder(in_file(data))) is None
        assert end_of(Decoder(piped(data))) is None


def test_chunks_with_data_are_not_limited() -> None:
    """Each has bytes enough, whatever its order; a pipe gives them one by one."""
    blocks = b"".join(raw.block(at * 2048, 1, rest=bytes(raw.CHUNK)) for at in range(20))
    assert end_of(Decoder(piped(raw.qemu(blocks)))) is None


def test_a_slow_peer_is_not_limited() -> None:
    """Of what comes bit by bit no runs can be taken, as of a regular stream."""
    reads = [14] * (len(IRREGULAR) // 14)
    assert end_of(Decoder(piped(IRREGULAR, reads))) is None


def test_what_is_read_again_counts_once() -> None:
    """A decoder that goes on behind damage has the count of the one before."""
    decoder = Decoder(in_file(IRREGULAR, BySchemas))
    for _ in range(300):
        decoder.piece()
    assert decoder.context.copy().irregular == decoder.context.irregular == 300
