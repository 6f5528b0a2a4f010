"""What is taken in rows, and what is not: events, sections, and how long they may be."""

import random
import struct

import pytest

from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import (
    Block,
    BlockBitmap,
    DeviceState,
    Event,
    Payload,
    Ram,
    SectionHeader,
)
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Run
from blkmig_cli.wire.runs.scanner import is_wide
from blkmig_cli.wire.runs.template import BATCH
from tests.support import raw
from tests.support.feed import BySchemas, events, in_file

HEAD = raw.HEADER + raw.configuration()
START = raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
RAM = raw.start(2, "ram", 4, raw.word(0, 0x10)) + raw.footer(2)
BITMAPS = raw.start(3, "dirty-bitmap", 1, raw.bitmap_start(granularity=512) + b"\1") + raw.footer(3)
#: The widest row.
WIDEST = BATCH >> 4


def block(length: int, data: int | None) -> Block:
    held = None if data is None else Payload(0, data)
    bits = (BlockBitmap("b", None, None, Payload(0, 9)),)
    return Block(0, length, "block", "d", 0, 2048, 2048, 0x21, "v1", held, bits)


@pytest.mark.parametrize(
    ("event", "wide"),
    [
        (block(WIDEST, None), False),
        (block(WIDEST + 1, None), True),
        (block(WIDEST + raw.CHUNK, raw.CHUNK), False),
        (block(WIDEST + raw.CHUNK + 1, raw.CHUNK), True),
        (DeviceState(0, WIDEST + 1, "dev", "footer"), False),
        (Ram(0, WIDEST + 1, "ram", 8, None, 0, (), Payload(0, WIDEST)), False),
    ],
)
def test_wide_rows(event: Event, wide: bool) -> None:
    assert is_wide(event) is wide


def test_long_state_between_parts() -> None:
    parts = raw.part(1, raw.EOS) + raw.footer(1)
    state = raw.start(5, "dev", 1, bytes(WIDEST + 9), kind=4) + raw.footer(5)
    found, error = events(in_file(HEAD + START + parts * 40 + state + parts * 40 + raw.EOF))
    assert error is None
    assert [e.length for e in found if isinstance(e, DeviceState)] == [WIDEST + 9]
    assert sum(isinstance(event, SectionHeader) for event in found) == 82


def rows(data: bytes, hints: Hints | None = None) -> int:
    """How many events come in runs; all are as they are one by one."""
    decoder = Decoder(in_file(data), hints=hints)
    single: list[Event] = []
    pieces = list(decoder.pieces())
    for piece in pieces:
        single += piece if isinstance(piece, Run) else [piece]
    assert single == list(Decoder(in_file(data, BySchemas), hints=hints))
    return sum(len(piece) for piece in pieces if isinstance(piece, Run))


def part(number: int, payload: bytes, kind: int = 2) -> bytes:
    return raw.part(number, payload, kind) + raw.footer(number)


ZERO = raw.block(0, 8)
CLEAR = b"\x4e" + raw.name("d") + raw.name("b") + struct.pack(">QI", 64, 5)
UNITS: dict[str, tuple[list[bytes], bool]] = {
    "empty parts": ([part(1, raw.EOS)], True),
    "empty parts of two": ([part(1, raw.EOS), part(2, raw.word(0, 0x10))], True),
    "a record in each": ([part(1, ZERO + raw.EOS)], True),
    "progress in each": ([part(1, raw.progress(5) + raw.EOS)], True),
    "an end in a record": ([part(1, raw.block(0, 10))], False),
    "an end in progress": ([part(1, raw.word(5, 6))], True),
    "chunks": ([part(3, CLEAR + b"\1")], True),
    "two kinds of chunks": ([part(3, CLEAR + CLEAR.replace(b"\5", b"\4") + b"\1")], True),
    "an end in a chunk": ([part(3, b"\x4f" + CLEAR[1:])], False),
    "32 sections": ([part(1, raw.progress(at) + raw.EOS) for at in range(32)], True),
    "a hook in RAM": ([part(2, raw.word(0, 0x80) + raw.word(0, 0x10))], False),
    "zeros in RAM": ([part(2, raw.word(0, 0x22) + b"\0" + raw.word(0, 0x10))], False),
    "ends": ([part(1, raw.EOS, 3)], False),
}


@pytest.mark.parametrize("name", UNITS)
def test_sections_in_turns(name: str) -> None:
    units, taken = UNITS[name]
    found = rows(HEAD + START + RAM + BITMAPS + b"".join(units) * 60 + raw.EOF)
    assert (found > 60) is taken


def test_commands_are_no_rows() -> None:
    assert rows(HEAD + b"\x08\0\1\0\0" * 200 + raw.EOF) == 0


@pytest.mark.parametrize("period", [1, 2, 5, 31, 32])
def test_records_in_turns(period: int) -> None:
    """Of up to 32 devices in a fixed order."""
    names = [f"d{at:02}" for at in range(period)]
    records = b"".join(raw.block(0, 8, name) for name in names)
    assert rows(records * 40 + raw.EOS) >= 36 * period


ONE, TWO = part(1, raw.EOS), part(2, raw.word(0, 0x10))
DICE = random.Random(7)
ORDERS = {
    "one": [ONE] * 300,
    "in turns": [ONE, TWO] * 150,
    "in no order": [DICE.choice([ONE, TWO]) for _ in range(300)],
    "records in no order": [
        part(1, DICE.choice([ZERO, raw.progress(1)]) + raw.EOS) for _ in range(300)
    ],
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("number", [150, 151, 299, 300])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_no_row_goes_beyond_a_package(name: str, number: int, more: int) -> None:
    parts = ORDERS[name]
    length = len(b"".join(parts[:number])) + more
    package = b"\x08\0\x07\0\x04" + struct.pack(">I", length)
    data = HEAD + START + RAM + package + b"".join(parts) + raw.EOF
    found, error = events(in_file(data))
    assert (found, error) == events(in_file(data, BySchemas))
    # What is behind it stands there as well.
    assert (error is None) == (more == 0)
