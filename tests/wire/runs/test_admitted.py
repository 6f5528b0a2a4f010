"""What the rules admit in rows is what the schemas read: at the bounds of each rule, alone and in pairs."""

import struct
from itertools import product

import numpy as np
import pytest

from blkmig_cli import limits
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import BitmapBits, Block, Event
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import NEAR, moved
from tests.support import raw
from tests.support.feed import BySchemas, events, in_file

MOST = limits.DISK_MAX // 512
Z = raw.block(0, 8)
V1 = raw.block(0, 0x28, rest=raw.v1(("b", bytes(8))))
FINE = raw.block(0, 0x28, rest=raw.v1(("b", bytes(256))))
V2 = raw.block(0, 0x68, rest=raw.v2(2048, ("b", 1, 65536, bytes(8))))
WIDE = raw.block(0, 0x60, rest=raw.v2(4096, ("b", 1, 65536, bytes(8))))
CLEAN = raw.block(0, 0x60, rest=raw.v2(2048, ("b", 1, 65536, b"")))
END = raw.block(8192, 0x60, rest=raw.v2(100, ("b", 1, 65536, b"")))


def at(record: bytes, sector: int) -> bytes:
    (word,) = struct.unpack(">Q", record[:8])
    return raw.word(sector, word & 0x1FF) + record[8:]


def known(granularity: int, size: int | None = None) -> Hints:
    return Hints({} if size is None else {"d": size}, {(None, "b"): granularity})


SECTORS = [0, 1, 2047, 2048, 4095, 4096, 4097, 6144, 6145, 8191, 8192, 8193, 10240]
FAR = [NEAR - 2048, NEAR, NEAR + 2048, MOST - 2048, MOST, (1 << 55) - 2048]
#: What comes before, the last of which is like those that follow; hints; their sectors.
BLOCKS: dict[str, tuple[list[bytes], Hints, list[int]]] = {
    "zeros": ([Z], Hints(), [*SECTORS, *FAR]),
    "zeros of a disk": ([Z], Hints({"d": 8192 * 512}), SECTORS),
    "zeros of a disk with a part of a chunk": ([Z], Hints({"d": 8192 * 512 - 1}), SECTORS),
    "zeros of a disk with a part of a sector": ([Z], Hints({"d": 8191 * 512 + 1}), SECTORS),
    "zeros past the end": ([at(Z, 8192)], Hints({"d": 8192 * 512}), SECTORS),
    "v1": ([at(V1, 4096)], known(65536), SECTORS),
    "v1 below the top": ([at(Z, 8192), at(V1, 4096)], known(65536), SECTORS),
    "v1 of a disk": ([at(V1, 4096)], known(65536, 8192 * 512), SECTORS),
    "v1 of a disk with a part of a chunk": ([at(V1, 4096)], known(65536, 8191 * 512), SECTORS),
    "v1 of full chunks": ([at(Z, 8192), at(FINE, 4096)], known(512), SECTORS),
    "v1, fine": ([at(FINE, 4096)], known(512), SECTORS),
    "v1 before the end": (
        [at(FINE, 0), raw.block(8192, 0x28, rest=raw.v1(("b", bytes(8)))), at(FINE, 2048)],
        known(512), SECTORS),
    "v1, zeros before the end": (
        [at(FINE, 0), raw.block(8192, 0x28, rest=raw.v1(("b", bytes(8)))), at(Z, 2048)],
        known(512), SECTORS),
    "v1, far": ([at(V1, 4096)], known(65536), FAR),
    "v2": ([V2], Hints(), [*SECTORS, *FAR]),
    "v2, two chunks": ([WIDE], Hints(), SECTORS),
    "v2, clean": ([CLEAN], Hints(), SECTORS),
    "v2 before the end": ([END, V2], Hints(), SECTORS),
    "v2, two chunks before the end": ([END, WIDE], Hints(), SECTORS),
    "v2, zeros before the end": ([END, Z], Hints(), SECTORS),
    "v2, zeros of a disk": ([V2, Z], Hints({"d": 8192 * 512}), SECTORS),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_block_records(name: str) -> None:
    before, hints, sectors = BLOCKS[name]
    prefix = b"".join(before)
    decoder = Decoder(in_file(prefix + raw.EOS), hints=hints, container="none")
    event = [found for found in decoder if isinstance(found, Block)][-1]
    assert decoder.block.repeatable(event)
    admitted = 0
    for pair in product(sectors, repeat=2):
        good = decoder.block.admits(event, np.array(pair, np.int64)).tolist()
        number = good.index(False) if False in good else 2
        admitted += number
        rows = b"".join(at(before[-1], sector) for sector in pair[:number])
        found, error = events(
            in_file(prefix + rows + raw.EOS, BySchemas), hints=hints, container="none"
        )
        assert error is None
        places = [event.offset + event.length * (1 + row) for row in range(number)]
        expected = [
            moved(event, place - event.offset, sector)
            for place, sector in zip(places, pair, strict=False)
        ]
        assert found[len(before) : -1] == expected
    assert (admitted > 0) == (name != "v1, fine")  # each may be the last, of fewer bits


CHUNKS = {
    "clean": (b"\x42", 64, 1, b""),
    "bits": (b"\x40", 64, 64, bytes(8)),
    "more bits": (b"\x40", 64, 65, bytes(16)),
    "padded bits": (b"\x40", 64, 65, bytes(32)),
}
RANGES = [
    (sector, sectors)
    for sector in (0, 63, 64, 65, 128, MOST - 64, MOST, (1 << 63) - 64, 1 << 63)
    for sectors in (0, 1, 63, 64, 65, 128, 129, 256, 257, (1 << 32) - 1)
]


def chunk(name: str, sector: int, sectors: int) -> bytes:
    flags, _, _, bits = CHUNKS[name]
    length = struct.pack(">Q", len(bits)) if bits else b""
    return flags + struct.pack(">QI", sector, sectors) + length + bits


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_of_bits(name: str) -> None:
    _, first, number, _ = CHUNKS[name]
    head = raw.HEADER + raw.start(1, "dirty-bitmap", 1, raw.bitmap_start(granularity=512))
    prefix = head + chunk(name, first, number)

    def read(data: bytes) -> tuple[Decoder, list[Event]]:
        decoder = Decoder(in_file(data + b"\1" + raw.EOF, BySchemas))
        return decoder, [event for event in decoder if isinstance(event, BitmapBits)]

    decoder, (event,) = read(prefix)
    assert isinstance(event, BitmapBits)
    sectors = np.array([sector for sector, _ in RANGES], np.uint64).astype(np.int64)
    counts = np.array([count for _, count in RANGES], np.int64)
    good = decoder.bitmaps.admits(event, sectors, counts).tolist()
    assert any(good)
    for (sector, count), admitted in zip(RANGES, good, strict=True):
        if admitted:
            _, found = read(prefix + chunk(name, sector, count))
            assert found == [event, moved(event, event.length, sector, count)]
