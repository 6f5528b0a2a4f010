"""Decoded and encoded again: the same bytes, of everything that a stream may hold."""

import gzip
import struct
from pathlib import Path

import pytest

from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import BitmapChunk, BitmapEos, Configuration, Ram
from tests.support import raw
from tests.support.feed import in_file, piped
from tests.wire.test_decoder import ADVICE, GOOD, HEAD, RAM, describe, mem_size, ram, state_stream
from tests.wire.test_file_and_pipe import SMALL, stream

CASES = Path(__file__).parents[1] / "cases"


def again(data: bytes) -> bytes:
    """The bytes of the events of ``data``."""
    pieces = []
    for event in Decoder(in_file(data)):
        for piece in encode(event):
            if isinstance(piece, bytes):
                pieces.append(piece)
            else:
                pieces.append(data[piece.offset : piece.offset + piece.length])
    return b"".join(pieces)


def subsection(name: str, body: bytes, version: int = 1) -> bytes:
    return b"\5" + raw.name(f"configuration/{name}") + struct.pack(">I", version) + body


BITS = subsection("target-page-bits", struct.pack(">I", 14))
NAMES = b"".join(raw.name(name) for name in ("mapped-ram", "x-ignore-shared", "", b"\xff\xfe"))
CAPABILITIES = subsection("capabilities", struct.pack(">I", 4) + NAMES, version=3)
UUID = subsection("uuid", bytes(range(16)), version=2)

CONFIGURATIONS = {
    "plain": b"",
    "bits": BITS,
    "capabilities": CAPABILITIES,
    "no capabilities": subsection("capabilities", bytes(4)),
    "uuid": UUID,
    "all": BITS + CAPABILITIES + UUID,
    "in another order": UUID + BITS + CAPABILITIES,
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("machine", ["", "none", "pc-i440fx-7.2", "x" * 4096])
def test_configurations(name: str, machine: str) -> None:
    data = raw.HEADER + raw.configuration(machine) + CONFIGURATIONS[name] + raw.EOF
    assert again(data) == data
    found = list(Decoder(piped(data)))[1]
    assert isinstance(found, Configuration)
    assert found.machine == machine
    if name in ("all", "in another order"):
        assert found.target_page_bits == 14
        assert found.capabilities == ("mapped-ram", "x-ignore-shared", "", "\udcff\udcfe")
        assert found.uuid == bytes(range(16))


RAMS = RAM | {
    "all kinds": ram(
        mem_size(("a", 1 << 21, struct.pack(">Q", 1 << 21)), ("b", 4096, b""))
        + struct.pack(">Q", 0x1008) + raw.name("a") + bytes(4096)
        + struct.pack(">Q", 0x2028) + b"\x11" * 4096
        + struct.pack(">Q", 0x3002) + raw.name("b") + b"\x55"
        + struct.pack(">Q", 0x4022) + b"\0"
        + struct.pack(">Q", 0x5040) + raw.name("a") + b"\1\0\3abc"
        + struct.pack(">Q", 0x6060) + b"\1\0\0"
        + struct.pack(">Q", 0x7100) + raw.name("b") + struct.pack(">I", 2) + b"xy"
        + struct.pack(">Q", 0x8120) + struct.pack(">I", 0)
        + struct.pack(">QQ", 0x80, 0x200),
        before=ADVICE,
    ),
    "addresses and mapped": ram(
        mem_size(
            ("a", 4096, struct.pack(">QIQQQ", 77, 1, 4096, 200, 0)),
        ),
        capabilities=("x-ignore-shared", "mapped-ram"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in RAMS if name != "addresses and mapped"])
def test_ram(name: str) -> None:
    assert again(RAMS[name]) == RAMS[name]


def test_ram_with_addresses_and_mapped_pages() -> None:
    data = RAMS["addresses and mapped"]
    end = data.index(struct.pack(">IQ", 1, 4096)) + 28
    pages = end + 100
    data = data[: end - 8] + struct.pack(">Q", pages) + bytes(100) + b"\x22" * 4096 + data[end:]
    assert again(data) == data
    (block,) = next(e for e in Decoder(in_file(data)) if isinstance(e, Ram)).blocks
    assert (block.address, block.mapped) == (77, (1, 4096, 200, pages))
    assert block.pages is not None
    assert block.pages.length == 100 + 4096


@pytest.mark.parametrize("name", GOOD)
def test_all_that_is_accepted(name: str) -> None:
    assert again(GOOD[name]) == GOOD[name]


@pytest.mark.parametrize("extra", [b"", b"\x80", b"\x80\x80\0", b"\x80\xff\0"])
@pytest.mark.parametrize("last", [b"\x20", b"\x21", b"\x01"])
def test_flag_bytes_that_qemu_never_writes(extra: bytes, last: bytes) -> None:
    """0x80 announces another byte, and 0x80 there two more; the last one counts."""
    end = b"" if last == b"\x21" else b"\x01"
    section = raw.bitmap_start() + extra + last + end if last != b"\x01" else extra + last
    data = HEAD + raw.start(3, "dirty-bitmap", 1, section) + raw.footer(3) + raw.EOF
    assert again(data) == data
    found = [e for e in Decoder(in_file(data)) if isinstance(e, BitmapChunk | BitmapEos)]
    event = found[1 if last != b"\x01" else 0]
    assert (event.extra_flags, event.flags) == (extra, last[0])


def test_more_flags_than_eight() -> None:
    """The byte before the last must be 0, as nobody knows what it would mean."""
    section = b"\x80\x80\x01\x20"
    data = HEAD + raw.start(3, "dirty-bitmap", 1, section)
    with pytest.raises(Exception, match="0x100"):
        list(Decoder(in_file(data)))


def test_sections_and_commands() -> None:
    data = HEAD + b"".join(
        b"\x08" + struct.pack(">HH", number, len(body)) + body
        for number, body in [
            (1, b""),
            (2, b"\0\0\0\7"),
            (3, b""),
            (8, b""),
            (10, b"\1a"),
            (11, b""),
        ]
    )
    data += b"\x01" + struct.pack(">I", 7) + raw.name("block") + struct.pack(">II", 5, 1)
    data += raw.EOS + raw.footer(7) + raw.part(7, raw.word(33, 6)) + raw.footer(7)
    data += raw.part(7, raw.word(77, 2), kind=3) + raw.footer(7) + raw.EOF
    assert again(data) == data


@pytest.mark.parametrize("size", [20, 40])
def test_descriptions(size: int) -> None:
    data = state_stream(max(size, 20), describe(size))
    assert again(data) == data


@pytest.mark.parametrize("name", SMALL)
def test_captures(name: str) -> None:
    data, _ = stream(name)
    assert again(data) == data


def test_other_bytes_behind() -> None:
    for tail in (b"text", bytes(9)):
        data = GOOD["qemu"] + tail
        assert again(data) == data


def test_cases() -> None:
    data = gzip.decompress((CASES / "libvirt.save.gz").read_bytes())[688:]
    assert again(data) == data
