"""Accounts of a stream's bytes, by hand."""

import struct

import pytest

from blkmig_cli.contents.accounts import KINDS, Accounts, Section
from blkmig_cli.contents.padding import leaked, padding
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block, Payload
from tests.support import raw
from tests.support.feed import in_file

MIB = 1 << 20
DATA = b"\1" * MIB


def accounts_of(data: bytes) -> Accounts:
    found, source = Accounts(), in_file(data)
    for event in Decoder(source):
        found.feed(event, source)
    return found


def kinds(**sizes: int) -> dict[str, int]:
    return dict.fromkeys(KINDS, 0) | sizes


#: Header, configuration, head and footer of the start of a section "block", and its end with progress.
START = len(raw.HEADER + raw.configuration() + raw.start(1, "block", 1) + raw.footer(1))
FRAMES = START + 2 * (5 + 5) + 1
#: The ends of three payloads, and progress.
RECORDS = 3 * 8 + 8


def test_nothing_but_its_frames() -> None:
    found = accounts_of(raw.qemu())
    assert found.kinds == kinds(framing=FRAMES, records=RECORDS)
    assert found.total == len(raw.qemu())
    assert found.sections == {
        "": Section(0, 8 + 9 + 1), "block": Section(3, len(raw.qemu()) - 8 - 9 - 1),
    }  # fmt: skip
    assert found.version == 3
    assert found.configuration is not None
    assert found.configuration.machine == "none"
    assert found.overhead is None


def test_blocks() -> None:
    """A head of 10 bytes each."""
    data = raw.qemu(raw.block(0, 8), raw.block(2048, 0, rest=DATA))
    found = accounts_of(data)
    assert found.kinds == kinds(framing=FRAMES, records=RECORDS + 20, data=MIB)
    assert found.overhead == (RECORDS + 20) / MIB
    assert found.total == len(data)


def test_blocks_with_bitmaps() -> None:
    """8 more bytes for a v2 range, and 11 for each bitmap."""
    entries = ("b", 1, 65536, bytes(8)), ("c", 1, 65536, b"")
    data = raw.qemu(raw.block(0, 0x60, rest=raw.v2(2048, *entries)))
    found = accounts_of(data)
    assert found.kinds == kinds(framing=FRAMES, records=RECORDS + 10 + 8 + 2 * 11, bitmaps=8)
    assert found.overhead is None
    assert found.total == len(data)


def test_a_section_of_bitmaps() -> None:
    bits = raw.bitmap_start() + raw.bitmap_bits(0, 128 * 64, bytes(8)) + raw.COMPLETE
    data = raw.qemu(bitmaps=bits)
    found = accounts_of(data)
    start = len(raw.start(2, "dirty-bitmap", 1))
    assert found.kinds["bitmaps"] == 8
    assert found.kinds["records"] == RECORDS + 1 + len(bits) - 8 + 1
    assert found.kinds["framing"] == FRAMES + start + 5 + 5 + 5
    assert found.sections["dirty-bitmap"] == Section(2, start + 1 + 5 + 5 + len(bits) + 1 + 5)


def test_what_else_a_stream_has() -> None:
    """The machine's memory, the state of a device, and bytes behind the stream."""
    size, end = struct.pack(">Q", 4096 | 4), struct.pack(">Q", 0x10)
    ram = size + raw.name("m") + struct.pack(">Q", 4096) + end
    head = raw.HEADER + raw.configuration()
    memory = raw.start(2, "ram", 4, ram) + raw.footer(2)
    state = raw.start(3, "nosuch", 1, b"abc", kind=4) + raw.footer(3)
    found = accounts_of(head + memory + state + raw.EOF)
    assert found.kinds["ram"] == len(ram)
    assert found.kinds["devices"] == 3
    assert found.kinds["framing"] == len(head + memory + state + raw.EOF) - len(ram) - 3
    behind = accounts_of(raw.qemu() + b"\2" * 7)
    assert behind.kinds["undecoded"] == 7


@pytest.mark.parametrize(
    ("size", "cut"),
    [
        (3 * MIB, 0), (3 * MIB + 1, 0), (3 * MIB - 1, 1), (2 * MIB + 512, MIB - 512),
        (2 * MIB + 1, MIB - 1), (2 * MIB, 0), (2 * MIB - 1, 0), (9 * MIB, 0),
    ],
)  # fmt: skip
def test_padding_of_the_last_chunk(size: int, cut: int) -> None:
    """Each time when it was sent, with data; those before the disk's last one have none."""
    one, last = raw.block(0, 0, rest=DATA), raw.block(4096, 0, rest=DATA)
    other = raw.block(8192, 0, "e", DATA)
    found = accounts_of(raw.qemu(one, last, one, last, raw.block(4096, 8), other))
    assert found.kinds["data"] == 5 * MIB
    found.settle({"d": size, "nosuch": 1})
    assert (found.kinds["data"], found.kinds["padding"]) == (5 * MIB - 2 * cut, 2 * cut)


@pytest.mark.parametrize(
    ("sectors", "sector", "size", "behind"),
    [
        (2048, 0, None, 0),
        (2047, 0, None, 512),
        (0, 0, None, MIB),
        (2048, 0, MIB, 0),
        (2048, 0, MIB + 1, 0),
        (2048, 0, MIB - 1, 1),
        (2048, 0, 0, MIB),
        (2048, 2048, MIB + 10, MIB - 10),
        (2048, 2048, MIB, MIB),
        (2048, 2048, MIB - 1, MIB),
        (100, 2048, MIB + 51200, MIB - 51200),
        (100, 2048, MIB + 51199, MIB - 51199),
        (100, 2048, 9 * MIB, MIB - 51200),
    ],
)
def test_padding_of_a_record(sectors: int, sector: int, size: int | None, behind: int) -> None:
    event = Block(
        10, MIB + 10, "block", "d", sector, sectors, sectors, 1, None, Payload(20, MIB), ()
    )
    expected = Payload(20 + MIB - behind, behind) if behind else None
    assert padding(event, size) == expected
    zeros = Block(10, 10, "block", "d", sector, sectors, sectors, 9, None, None, ())
    assert padding(zeros, size) is None


def test_bytes_that_leak() -> None:
    source = in_file(bytes(5) + b"\1\0\2" + bytes(5) + b"\3")
    assert [leaked(Payload(at, 9), source) for at in (0, 5)] == [2, 3]
    assert leaked(Payload(0, 5), source) == 0
