"""Encoding is the inverse of decoding, to the byte: every object of the formats, alone and in runs."""

import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.schemas.constants import BlockFlag, SectionType
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.encoder import encode, encoded_length
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapEos,
    BitmapStart,
    Block,
    BlockBitmap,
    CommandEvent,
    Configuration,
    DeviceState,
    Eos,
    Event,
    Footer,
    Header,
    Payload,
    Progress,
    Ram,
    RamBlock,
    RamStretch,
    Raw,
    SectionHeader,
    Subsection,
    Undecoded,
    VmDescription,
)
from blkmig_cli.wire.runs.columns import Column, Numbers, Run, laid_out
from blkmig_cli.wire.runs.encoder import encode_run
from blkmig_cli.wire.schema_io import Input
from tests.support import raw
from tests.support.feed import in_file
from tests.wire.test_decoder import GOOD, RAM, mem_size, ram


def subsection(name: str, body: bytes) -> bytes:
    return b"\5" + raw.name(f"configuration/{name}") + struct.pack(">I", 1) + body


PAGE_BITS = subsection("target-page-bits", struct.pack(">I", 14))
NAMES = subsection(
    "capabilities", struct.pack(">I", 2) + raw.name("x-ignore-shared") + raw.name("a")
)
UUID = subsection("uuid", bytes(range(16)))
CONFIGURATIONS = {
    "no-subsections": b"",
    "page-bits": PAGE_BITS,
    "capabilities": NAMES,
    "no-capabilities": subsection("capabilities", struct.pack(">I", 0)),
    "uuid": UUID,
    "all": PAGE_BITS + NAMES + UUID,
}


def mapped() -> bytes:
    header = struct.pack(">IQQQ", 1, 4096, 0, 500)
    prefix = ram(mem_size(("a", 4096, header)), capabilities=("mapped-ram",))
    cut = prefix.rindex(header) + len(header)
    return prefix[:cut].ljust(500, b"\xbb").ljust(500 + 4096, b"\xaa") + prefix[cut:]


STREAMS = {
    **GOOD,
    **{f"ram-{name}": data for name, data in RAM.items()},
    **{
        f"configuration-{name}": raw.HEADER + raw.configuration("pc") + body + raw.EOF
        for name, body in CONFIGURATIONS.items()
    },
    "mapped-ram": mapped(),
    "ram-page-of-a-block": ram(struct.pack(">Q", 0x7008) + raw.name("a") + b"\x77" * 4096),
    "ram-fill": ram(struct.pack(">Q", 0x22) + b"\xfe"),
}


def encoded(events: Iterable[Event], source: Input) -> bytes:
    return b"".join(
        piece if isinstance(piece, bytes) else bytes(source.view(piece))
        for event in events
        for piece in encode(event)
    )


@pytest.mark.parametrize("name", STREAMS)
def test_round_trip(name: str) -> None:
    source = in_file(STREAMS[name])
    events = list(Decoder(source, keep_state=True))
    assert encoded(events, source) == STREAMS[name]
    assert [encoded_length(event) for event in events] == [event.length for event in events]


@given(
    st.lists(st.sampled_from(["block", "progress", "page", "plain"]), min_size=1, max_size=6),
    st.integers(1, 40),
    st.data(),
)
def test_runs(kinds: list[str], rows: int, data: st.DataObject) -> None:
    """The bytes of a run are those of its events, one by one; sectors up to all 55 bits."""
    columns = []
    order = st.lists(st.integers(0, 3 * rows), min_size=rows, max_size=rows).map(sorted)
    in_rows = data.draw(st.booleans())

    def places() -> Numbers:
        """Return what the events of a column are sorted by: row by row, or in any order."""
        return np.array(range(rows) if in_rows else data.draw(order), np.int64)

    for kind in kinds:
        most = (1 << 55) - 1 if kind == "block" else 100
        drawn = data.draw(st.lists(st.integers(0, most), min_size=rows, max_size=rows))
        numbers = np.array(drawn, np.int64)
        if kind == "block":
            name = data.draw(st.sampled_from(["", "d", "drive0", "\udcff"]))
            flags = data.draw(st.sampled_from([0x09, 0x0B, 0x29]))
            block = Block(0, 0, "block", name, drawn[0], 2048, 2048, flags, "v1", None, ())
            columns.append(Column(block, places(), numbers))
        elif kind == "progress":
            progress = Progress(0, 0, "block", drawn[0], BlockFlag.PROGRESS)
            columns.append(Column(progress, places(), numbers))
        elif kind == "page":
            page = Ram(0, 0, "ram", 0x22, None, drawn[0] * 4096, (0,))
            columns.append(Column(page, places(), numbers * 4096))
        else:
            header = SectionHeader(0, 0, "block", SectionType.PART, 1, 0, 1)
            columns += [
                Column(header, places()),
                Column(Eos(0, 0, "block", 2), places()),
                Column(Footer(0, 0, "block", 1), places()),
            ]
    run = laid_out(columns, [encoded_length(column.event) for column in columns])
    one_by_one = b"".join(
        piece for event in run for piece in encode(event) if isinstance(piece, bytes)
    )
    assert bytes(encode_run(run)) == one_by_one
    assert run.start == 0
    assert len(one_by_one) == run.end


def test_runs_have_no_payloads() -> None:
    data = Block(0, 0, "block", "d", 0, 2048, 2048, 1, "classic", Payload(0, raw.CHUNK), ())
    page = Ram(0, 0, "ram", 8, "a", 0, (), Payload(0, 4096))
    for event in (data, page):
        with pytest.raises(AssertionError):
            encode_run(Run((Column(event, np.zeros(1, np.int64)),), encoded_length(event)))


BITS = Payload(50, 8)
WRONG = Payload(50, 8, 99)
HEAD = (0, 0, None)
PIECES: dict[str, tuple[Event, list[bytes | Payload]]] = {
    "a header": (Header(*HEAD, 4), [b"QEVM\0\0\0\4"]),
    "a section without a name": (
        SectionHeader(*HEAD, SectionType.START, 7, 8, 9),
        [b"\1" + struct.pack(">I", 7) + b"\0" + struct.pack(">II", 8, 9)]),
    "a part": (
        SectionHeader(0, 0, "ram", SectionType.PART, 7, 8, 9), [b"\2" + struct.pack(">I", 7)]),
    "a full section": (
        SectionHeader(0, 0, "x", SectionType.FULL, 7, 8, 9),
        [b"\4" + struct.pack(">I", 7) + b"\1x" + struct.pack(">II", 8, 9)]),
    "a footer": (Footer(*HEAD, 7), [raw.footer(7)]),
    "a command": (CommandEvent(*HEAD, 2, b"abc"), [b"\x08\0\2\0\3", b"abc"]),
    "a description": (
        VmDescription(*HEAD, WRONG), [b"\6" + struct.pack(">I", 99), WRONG]),
    "state": (DeviceState(9, 5, "x", "footer"), [Payload(9, 5)]),
    "undecoded bytes": (Undecoded(9, 5, "x", "why"), [Payload(9, 5)]),
    "raw bytes": (Raw(*HEAD, WRONG), [WRONG]),
    "v1": (
        Block(0, 0, None, "d", 5, 2048, 1, 0x31, "v1", BITS, (BlockBitmap("b", None, None, WRONG),)),
        [raw.word(5, 0x31), b"\1d", struct.pack(">I", 1), b"\1b", WRONG, BITS]),
    "v2": (
        Block(0, 0, None, "d", 5, 100, 1, 0x61, "v2", None, (BlockBitmap("b", 512, 3, WRONG),)),
        [raw.word(5, 0x61), b"\1d", struct.pack(">II", 100, 1),
         b"\1b\3" + struct.pack(">II", 512, 99), WRONG]),
    "v2 of unknown values": (
        Block(0, 0, None, "d", 5, 100, 1, 0x61, "v2", None, (BlockBitmap("b", None, None, BITS),)),
        [raw.word(5, 0x61), b"\1d", struct.pack(">II", 100, 1),
         b"\1b\0" + struct.pack(">II", 0, 8), BITS]),
    "bitmaps without their flag": (
        Block(0, 0, None, "d", 5, 100, 1, 1, "v2", None, (BlockBitmap("b", 512, 3, BITS),)),
        [raw.word(5, 1), b"\1d"]),
    "no dialect": (
        Block(0, 0, None, "d", 5, 100, 1, 0x21, None, None, ()),
        [raw.word(5, 0x21), b"\1d", bytes(4)]),
    "bits": (
        BitmapBits(0, 0, None, "d", "b", 0x48, b"\x80", 5, 6, 512, WRONG),
        [b"\x80\x48", b"\1d", struct.pack(">QI", 5, 6), struct.pack(">Q", 99), WRONG]),
    "clean bits": (
        BitmapBits(0, 0, None, "d", "b", 0x46, b"", 5, 6, 512, None),
        [b"\x46", b"\1b", struct.pack(">QI", 5, 6)]),
    "a start": (
        BitmapStart(0, 0, None, "d", "b", 0x1C, b"", 512, 3),
        [b"\x1c", b"\1d", b"\1b", struct.pack(">IB", 512, 3)]),
    "an end": (BitmapEos(*HEAD, 1, b"\x80"), [b"\x80\1"]),
    "an end with names": (BitmapEos(*HEAD, 0x0D), [b"\x0d", b"\0", b"\0"]),
}  # fmt: skip


@pytest.mark.parametrize("name", PIECES)
def test_pieces(name: str) -> None:
    event, pieces = PIECES[name]
    assert list(encode(event)) == pieces
    assert encoded_length(event) == sum(
        len(piece) if isinstance(piece, bytes) else piece.length for piece in pieces
    )


def test_what_has_no_bytes() -> None:
    with pytest.raises(TypeError, match="ram has no bytes of its own"):
        list(encode(RamStretch(*HEAD, 7)))


@pytest.mark.parametrize("offsets", [[100], [100, 110], [100, 120, 140], [100, 110, 140]])
def test_a_run_that_begins_later(offsets: list[int]) -> None:
    """Records with others between them, at equal distances and at others."""
    block = Block(offsets[0], 10, None, "d", 5, 2048, 2048, 9, "v1", None, ())
    sectors = np.arange(5, 5 + len(offsets), dtype=np.int64)
    end = offsets[-1] + 10
    between = [at for at in range(100, end, 10) if at not in offsets]
    columns = [Column(block, np.array(offsets, np.int64), sectors)]
    if between:
        hello = CommandEvent(between[0], 10, None, 2, b"hello")
        columns.append(Column(hello, np.array(between, np.int64)))
    found = bytes(encode_run(Run(tuple(columns), end)))
    assert len(found) == end - 100
    for at, sector in zip(offsets, sectors.tolist(), strict=True):
        assert found[at - 100 : at - 90] == raw.block(sector, 8)
    for at in between:
        assert found[at - 100 : at - 90] == b"\x08\0\2\0\5hello"


FAR, NAME = 1 << 32, "x" * 256


def block_of(sector: int = 0, device: str = "d", dialect: str = "v2", **more: Any) -> Block:
    bitmap = replace(BlockBitmap("b", 512, 1, BITS), **more)
    return Block(0, 0, None, device, sector, 64, 64, 0x21, dialect, None, (bitmap,))


def section_of(kind: SectionType, **more: Any) -> SectionHeader:
    return replace(SectionHeader(0, 0, "x", kind, 1, 2, 3), **more)


def configuration_of(name: str, value: Any, version: int = 1) -> Configuration:
    subsection = Subsection(f"configuration/{name}", version, value)
    return Configuration(*HEAD, "none", (subsection,))


def ram_of(flags: int = 4, head: tuple[int, ...] = (), **more: Any) -> Ram:
    entry = replace(RamBlock("a", 1), **more)
    return Ram(*HEAD, flags, None, 0, head, None, (entry,) if flags == 4 else ())


def bits_of(sector: int = 0, sectors: int = 1, flags: int = 0x40, stated: int = 8) -> BitmapBits:
    bits = Payload(0, 8, stated)
    return BitmapBits(0, 0, None, NAME, NAME, flags, b"", sector, sectors, 512, bits)


MISFITS: list[tuple[Event, str]] = [
    (block_of(1 << 55), f"word: {1 << 64 | 0x21} "),
    (block_of(device=NAME), "device: 256 bytes "),
    (block_of(dialect="v1", name=NAME), "name: 256 bytes "),
    (Block(0, 0, None, "d", 0, FAR, 1, 0x21, "v2", None, ()), f"sectors: {FAR} "),
    (block_of(name=NAME), "name: 256 bytes "),
    (block_of(attributes=256), "flags: 256 "),
    (block_of(granularity=FAR), f"granularity: {FAR} "),
    (block_of(bits=Payload(0, 8, FAR)), f"length: {FAR} "),
    (Progress(*HEAD, -1, 4), "word: -508 "),
    (Eos(*HEAD, 1 << 64), f"word: {1 << 64} "),
    (Header(*HEAD, FAR), f"version: {FAR} "),
    *(
        (section_of(kind, **{field: FAR}), f"{field}: {FAR} ")
        for kind in (SectionType.START, SectionType.FULL)
        for field in ("id", "instance", "version")
    ),
    (section_of(SectionType.START, section=NAME), "name: 256 bytes "),
    (section_of(SectionType.PART, id=FAR), f"id: {FAR} "),
    (Footer(*HEAD, FAR), f"id: {FAR} "),
    (configuration_of("uuid", bytes(16), FAR), f"version: {FAR} "),
    (configuration_of("uuid", bytes(15)), "uuid: 15 bytes "),
    (configuration_of("target-page-bits", FAR), f"bits: {FAR} "),
    (configuration_of("capabilities", (NAME,)), "names: 1 bytes "),
    (CommandEvent(*HEAD, 1 << 16, b""), "command: 65536 "),
    (CommandEvent(*HEAD, 1, bytes(1 << 16)), "length: 65536 "),
    (VmDescription(*HEAD, Payload(0, 8, FAR)), f"length: {FAR} "),
    (BitmapEos(*HEAD, 256), "flags: 256 "),
    (bits_of(flags=0x48), "name: 256 bytes "),
    (bits_of(flags=0x44), "name: 256 bytes "),
    (bits_of(sector=1 << 64), f"sector: {1 << 64} "),
    (bits_of(sectors=FAR), f"sectors: {FAR} "),
    (bits_of(stated=1 << 64), f"length: {1 << 64} "),
    (BitmapStart(0, 0, None, "d", "b", 0x10, b"", FAR, 1), f"granularity: {FAR} "),
    (BitmapStart(0, 0, None, "d", "b", 0x10, b"", 512, 256), "flags: 256 "),
    (Ram(*HEAD, 8, None, 1 << 64), f"word: {1 << 64 | 8} "),
    (Ram(*HEAD, 8, NAME, 0), "block: 256 bytes "),
    (ram_of(name=NAME), "block: 256 bytes "),
    (ram_of(length=1 << 64), f"length: {1 << 64} "),
    (ram_of(page_size=1 << 64), f"page_size: {1 << 64} "),
    (ram_of(address=1 << 64), f"address: {1 << 64} "),
    (ram_of(mapped=(FAR, 0, 0, 0)), f"version: {FAR} "),
    (ram_of(mapped=(0, 1 << 64, 0, 0)), f"page_size: {1 << 64} "),
    (ram_of(mapped=(0, 0, 1 << 64, 0)), f"bitmap_offset: {1 << 64} "),
    (ram_of(mapped=(0, 0, 0, 1 << 64)), f"pages_offset: {1 << 64} "),
    (ram_of(0x22, (256,)), "fill: 256 "),
    (ram_of(0x60, (256, 0)), "encoding: 256 "),
    (ram_of(0x60, (1, 1 << 16)), "length: 65536 "),
    (ram_of(0x120, (FAR,)), f"length: {FAR} "),
]


@pytest.mark.parametrize("case", range(len(MISFITS)))
def test_values_that_do_not_fit(case: int) -> None:
    """The error names the field."""
    event, message = MISFITS[case]
    with pytest.raises(ValueError, match=f"^{message}does not fit the format$"):
        list(encode(event))
