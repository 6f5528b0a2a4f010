"""Templates of rows: which bytes count, where the numbers are, which rows are equal."""

import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import BitmapBits, Block, Event, Footer, Progress, SectionHeader
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.template import BATCH, Template
from tests.support import raw
from tests.support.feed import in_file

DATA = bytes(raw.CHUNK)
V1 = raw.block(3 << 40, 0x28, "dev", raw.v1(("b", b"\1" * 8), ("c", b"\2" * 16)))
HELD = raw.block(5, 0x30, rest=raw.v1(("b", b"\1" * 8)) + DATA)
ZERO = raw.block(7, 8, "drive0")
PROGRESS = raw.progress(50)
BITS = raw.bitmap_bits(64, 65, b"\3" * 16)
CLEAR = b"\x4e" + raw.name("d") + raw.name("b") + struct.pack(">QI", 128, 5)


def rows(*data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(data), np.uint8).reshape(len(data), -1)


def parsed(*records: bytes, bitmaps: bool = False) -> list[Event]:
    """The events of ``records`` as they are parsed, one behind the other."""
    if bitmaps:
        data = raw.qemu(bitmaps=raw.bitmap_start(granularity=512) + b"".join(records))
        return [event for event in Decoder(in_file(data)) if isinstance(event, BitmapBits)]
    hints = Hints({}, {(None, "b"): 65536, (None, "c"): 8192})
    data = b"".join(records) + raw.EOS
    found = list(Decoder(in_file(data), hints=hints, container="none"))
    return [event for event in found if isinstance(event, Block | Progress)]


def learned(*records: bytes, bitmaps: bool = False) -> Template:
    found = Template(parsed(*records, bitmaps=bitmaps))
    found.learn(rows(b"".join(records))[0])
    return found


def with_sector(record: bytes, sector: int) -> bytes:
    (word,) = struct.unpack(">Q", record[:8])
    return raw.word(sector, word & 0x1FF) + record[8:]


def test_the_layout_of_a_record() -> None:
    template = Template(parsed(V1))
    assert (template.start, template.stride, template.width) == (0, len(V1), len(V1))
    assert template.pieces == [(0, len(V1))]
    assert template.bits == [[(18, 8), (28, 16)]]
    assert template.batch == BATCH // len(V1)


def test_the_layout_around_data() -> None:
    """Those are not read."""
    events = parsed(ZERO, HELD, PROGRESS)
    template = Template(events[1:])
    head = len(HELD) - len(DATA)
    assert template.start == len(ZERO)
    assert template.stride == len(HELD + PROGRESS)
    assert template.pieces == [(0, head), (len(HELD), 8)]
    assert template.width == head + 8
    assert template.bits == [[(16, 8)], []]
    assert template.batch == 1 << 13
    assert Template(events).pieces == [(0, len(ZERO) + head), (len(ZERO + HELD), 8)]


def test_the_layout_of_chunks() -> None:
    bits, clear = parsed(BITS, CLEAR, bitmaps=True)
    template = Template([bits, clear])
    assert template.bits == [[(21, 16)], []]
    assert template.stride == template.width == len(BITS + CLEAR)


@pytest.mark.parametrize(
    ("records", "bitmaps", "numbers"),
    [
        ([ZERO], False, [([7], None)]),
        ([PROGRESS], False, [([50], None)]),
        ([V1], False, [([3 << 40], None)]),
        ([ZERO, PROGRESS, V1], False, [([7], None), ([50], None), ([3 << 40], None)]),
        ([BITS], True, [([64], [65])]),
        ([CLEAR, BITS], True, [([128], [5]), ([64], [65])]),
    ],
)
def test_numbers(
    records: list[bytes], bitmaps: bool, numbers: list[tuple[list[int], list[int] | None]]
) -> None:
    template = learned(*records, bitmaps=bitmaps)
    row = rows(b"".join(records))
    assert template.made(row[0])
    found = [
        tuple(None if values is None else values.tolist() for values in pair)
        for pair in template.numbers(row)
    ]
    assert found == numbers


def test_numbers_of_63_bits_and_more() -> None:
    """The highest sector of a word, and ranges that are negative then."""
    template = learned(ZERO)
    (pair,) = template.numbers(rows(with_sector(ZERO, (1 << 55) - 1), ZERO))
    assert pair[0] is not None
    assert pair[0].tolist() == [(1 << 55) - 1, 7]
    template = learned(CLEAR, bitmaps=True)
    far = CLEAR[:-12] + struct.pack(">QI", 1 << 63, (1 << 32) - 1)
    ((sectors, counts),) = template.numbers(rows(far, CLEAR))
    assert sectors is not None
    assert counts is not None
    assert (sectors.tolist(), counts.tolist()) == ([-(1 << 63), 128], [(1 << 32) - 1, 5])


def test_rows_of_other_events_are_not_made() -> None:
    template = Template(parsed(ZERO))
    for record, made in (
        (ZERO, True),
        (with_sector(ZERO, 8), False),
        (with_sector(ZERO, 7 | 1 << 54), False),
        (raw.block(7, 0x18, "drive0"), False),
        (ZERO[:8] + b"\5" + ZERO[9:], True),
    ):
        assert template.made(rows(record)[0]) is made
    chunk = Template(parsed(CLEAR, bitmaps=True))
    for place in (-1, -4, -5, -12):
        changed = bytearray(CLEAR)
        changed[place] ^= 1
        assert not chunk.made(rows(bytes(changed))[0])
    assert chunk.made(rows(CLEAR)[0])


RECORDS: dict[str, tuple[bytes, list[slice], bool]] = {
    "zeros": (ZERO, [slice(7)], False),
    "short": (raw.block(7, 8, "d"), [slice(7)], False),
    "progress": (PROGRESS, [slice(7)], False),
    "v1": (V1, [slice(7), slice(18, 26), slice(28, 44)], False),
    "clear": (CLEAR, [slice(5, 17)], True),
    "bits": (BITS, [slice(1, 13), slice(21, 37)], True),
}


@pytest.mark.parametrize("name", RECORDS)
def test_every_byte_counts_but_for_numbers_and_bits(name: str) -> None:
    """A bit changed anywhere; the lowest bit of the sector shares its byte with a flag."""
    record, free, bitmaps = RECORDS[name]
    template = learned(record, bitmaps=bitmaps)
    changed = []
    for at in range(len(record)):
        for bit in range(8):
            row = bytearray(record)
            row[at] ^= 1 << bit
            changed.append(bytes(row))
    ignored = [
        any(at in range(*one.indices(len(record))) for one in free)
        and not (not bitmaps and at == 6 and bit == 0)
        for at in range(len(record))
        for bit in range(8)
    ]
    assert template.equal(rows(*changed)).tolist() == ignored
    assert template.equal(rows(record, record)).tolist() == [True, True]


def test_the_longest_fixed_bytes() -> None:
    assert (learned(ZERO).fixed, learned(ZERO).head) == (slice(7, 15), 0)
    assert learned(V1).fixed == slice(7, 18)
    assert learned(BITS, bitmaps=True).fixed == slice(13, 21)


@pytest.mark.parametrize("leaves", [None, (), ("d", "b")])
def test_the_first_bytes_of_a_chunk(leaves: tuple[str, ...] | None) -> None:
    """Where names are there, they decide, too."""
    template = Template(parsed(BITS, bitmaps=True), needs=("d", "b"), leaves=leaves)
    template.learn(rows(BITS)[0])
    assert template.head == (0 if leaves is None else 1)
    found = BITS[13:21] + BITS[: template.head]
    assert template.key == (None, ("d", "b"), (13, 21, template.head), found)


def test_events_without_numbers() -> None:
    """All of their bytes are fixed."""
    data = raw.qemu(raw.block(0, 8))
    part, footer = (
        next(event for event in Decoder(in_file(data)) if isinstance(event, kind))
        for kind in (SectionHeader, Footer)
    )
    for event in (part, footer):
        template = Template([event], (1, True), None)
        template.learn(rows(data[event.offset : event.offset + event.length])[0])
        assert template.fixed == slice(0, event.length)
        assert template.numbers(rows(b"x" * event.length)) == [(None, None)]
        assert template.key[0] == (1, True)
        assert template.after is None
