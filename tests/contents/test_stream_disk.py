"""A disk in a stream as an image: every range that is asked for, against its bytes."""

import os
from collections.abc import Iterator

import pytest

from blkmig_cli.contents.final_layout import EndState, Stretch
from blkmig_cli.contents.stream_disk import Piece, StreamDisk
from blkmig_cli.disks.image import FilePart
from tests.support.feed import in_file

CHUNK, SECTOR = 2048, 512
MIB = 1 << 20
#: Chunks of the disk: data 1 and 2 (backwards in the stream, 3,000 bytes between them), a gap, zeros,
#: part of a gap, one sector of zeros and two of data in it; then the disk's end cuts data of chunk 5.
SIZE = 5 * MIB + 700
PAYLOADS = {0: bytes([1]) * MIB, 1: bytes([2]) * MIB, 5: bytes([5]) * MIB}
PLACES = {1: 5000, 0: 5000 + MIB + 3000, 5: 5000 + 3 * MIB, 4: 5000 + 4 * MIB + 2000}
SHORT = bytes(MIB - 100) + b"\7" * 100


def in_stream() -> bytes:
    data = bytearray(PLACES[4] + MIB)  # it ends with data
    for chunk, content in (PAYLOADS | {4: SHORT}).items():
        data[PLACES[chunk] : PLACES[chunk] + MIB] = content
    return bytes(data)


FIRST, LAST = 4 * CHUNK + 1, 4 * CHUNK + 3


@pytest.fixture
def disk() -> StreamDisk:
    state = EndState()
    state.put(Stretch(0, 2 * CHUNK, PLACES[0], 0, PLACES[1] - PLACES[0]))
    state.put(Stretch(3 * CHUNK, 4 * CHUNK))
    state.put(Stretch(4 * CHUNK, 5 * CHUNK, PLACES[4], 4 * CHUNK))
    state.remove(4 * CHUNK, FIRST)
    state.remove(LAST, 5 * CHUNK - 1)
    state.put(Stretch(FIRST, FIRST + 1))
    state.put(Stretch(5 * CHUNK, 6 * CHUNK, PLACES[5], 5 * CHUNK))
    return StreamDisk("s", in_file(in_stream()), state, SIZE)


CONTENT = (
    PAYLOADS[0] + PAYLOADS[1] + bytes(2 * MIB) + bytes((CHUNK - 1) * SECTOR) + SHORT[-SECTOR:]
    + PAYLOADS[5][:700]
)  # fmt: skip
EDGES = [
    0, 1, 511, 512, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 5, 3 * MIB - 1, 3 * MIB, 4 * MIB,
    FIRST * SECTOR, FIRST * SECTOR + 1, (FIRST + 1) * SECTOR, LAST * SECTOR, 5 * MIB - SECTOR,
    5 * MIB - 1, 5 * MIB, 5 * MIB + 512, SIZE - 1, SIZE,
]  # fmt: skip
RANGES = [(start, end - start) for start in EDGES for end in EDGES if start < end]
SMALL = [(start, length) for start, length in RANGES if length <= MIB + 1]


def test_its_pieces(disk: StreamDisk) -> None:
    assert list(disk.pieces()) == [
        Piece(0, MIB, "data", PLACES[0]),
        Piece(MIB, 2 * MIB, "data", PLACES[1]),
        Piece(2 * MIB, 3 * MIB, "missing"),
        Piece(3 * MIB, 4 * MIB, "zero"),
        Piece(4 * MIB, FIRST * SECTOR, "missing"),
        Piece(FIRST * SECTOR, FIRST * SECTOR + 512, "zero"),
        Piece(FIRST * SECTOR + 512, LAST * SECTOR, "data", PLACES[4] + 1024),
        Piece(LAST * SECTOR, 5 * MIB - 512, "missing"),
        Piece(5 * MIB - 512, 5 * MIB, "data", PLACES[4] + MIB - 512),
        Piece(5 * MIB, SIZE, "data", PLACES[5]),
    ]


def test_pieces_of_ranges(disk: StreamDisk) -> None:
    """Each is the part in the range of a piece of the whole disk; past its end, there is none."""
    whole = list(disk.pieces())
    for start, length in [*RANGES, (SIZE - 1, 99), (SIZE, 1), (0, SIZE + 1)]:
        end = start + length
        assert list(disk.pieces(start, length)) == [
            Piece(low, min(end, piece.end), piece.kind,
                  None if piece.offset is None else piece.offset + low - piece.start)
            for piece in whole
            if piece.start < end and piece.end > start
            for low in [max(start, piece.start)]
        ]  # fmt: skip


def test_a_gap_at_the_end(disk: StreamDisk) -> None:
    longer = disk.resized(7 * MIB + 1)
    assert longer.size == 7 * MIB + 1
    assert list(longer.pieces(5 * MIB)) == [
        Piece(5 * MIB, 6 * MIB, "data", PLACES[5]), Piece(6 * MIB, 7 * MIB + 1, "missing"),
    ]  # fmt: skip
    assert longer.path == "s"
    assert list(disk.resized(0).pieces()) == []


def test_reading(disk: StreamDisk) -> None:
    for start, length in [*SMALL, (0, SIZE)]:
        assert disk.read(start, length) == CONTENT[start : start + length], (start, length)
    target = bytearray(b"\xff" * 4)
    disk.read_into(memoryview(target)[1:3], 2 * MIB - 1)
    assert target == b"\xff\2\0\xff"


def test_what_is_zero(disk: StreamDisk) -> None:
    for start, length in SMALL:
        expected = not CONTENT[start : start + length].strip(b"\0")
        assert disk.is_zero(start, length) == expected, (start, length)


@pytest.mark.parametrize("at", [0, 4095, 4096, 4097, (4 << 10) + (256 << 10), MIB - 1])
def test_one_byte_in_a_chunk_of_zeros(at: int) -> None:
    data = bytearray(MIB + 10)
    data[10 + at] = 1
    state = EndState()
    state.put(Stretch(0, CHUNK, 10, 0))
    disk = StreamDisk("s", in_file(bytes(data)), state, MIB)
    assert not disk.is_zero(0, MIB)
    assert disk.is_zero(0, at)
    assert disk.is_zero(at + 1, MIB - at - 1)


@pytest.mark.parametrize("pipe", [False, True])
def test_copying(disk: StreamDisk, pipe: bool) -> None:
    """Small parts, which fit in a pipe."""
    reader, writer = os.pipe()
    try:
        for start, length in ((start, length) for start, length in RANGES if length <= 30000):
            disk.copy_to(writer, start, length, pipe=pipe)
            assert os.read(reader, 1 << 16) == CONTENT[start : start + length], (start, length)
    finally:
        os.close(reader)
        os.close(writer)


def test_copying_all(disk: StreamDisk) -> None:
    fd = os.memfd_create("copy")
    try:
        disk.copy_to(fd, 0, SIZE)
        assert os.pread(fd, SIZE + 1, 0) == CONTENT
    finally:
        os.close(fd)


def test_its_layout(disk: StreamDisk) -> None:
    assert disk.every(1).tolist() == [0, 3 * CHUNK, FIRST, FIRST + 1, 5 * CHUNK - 1]
    assert disk.every(2).tolist() == [0, FIRST, 5 * CHUNK - 1]
    sent, data = disk.ranges(CHUNK, 4 * CHUNK)
    assert sent.tolist() == [[CHUNK, 2 * CHUNK], [3 * CHUNK, 4 * CHUNK]]
    assert data.tolist() == [[CHUNK, 2 * CHUNK]]


def test_places(disk: StreamDisk) -> None:
    """Only ranges that are all data have some."""
    for start, length in RANGES:
        found = disk.places(start, length)
        pieces = list(disk.pieces(start, length))
        if any(piece.offset is None for piece in pieces):
            assert found == ()
            continue
        assert [part.length for part in found] == [piece.end - piece.start for piece in pieces]
        assert [part.offset for part in found] == [piece.offset for piece in pieces]
        assert all(isinstance(part, FilePart) and os.fstat(part.fd).st_size for part in found)


def test_extents_are_data(disk: StreamDisk) -> None:
    assert list(disk.extents()) == [
        (0, 2 * MIB), ((FIRST + 1) * SECTOR, SECTOR), (5 * MIB - SECTOR, SECTOR + 700),
    ]  # fmt: skip
    assert list(disk.known_zeros(0, SIZE)) == []
    assert list(disk.resized(MIB + 5).extents()) == [(0, MIB + 5)]


def test_extents_of_an_increment(disk: StreamDisk) -> None:
    """What was sent, also as zeros."""
    increment = disk.incremental()
    assert (increment.path, increment.size) == ("s", SIZE)
    assert list(increment.extents()) == [
        (0, 2 * MIB), (3 * MIB, MIB), (FIRST * SECTOR, SECTOR), ((FIRST + 1) * SECTOR, SECTOR),
        (5 * MIB - SECTOR, SECTOR + 700),
    ]  # fmt: skip
    assert increment.read(0, SIZE) == CONTENT


def clipped(start: int, length: int) -> Iterator[tuple[int, int]]:
    for first, last in ((3 * MIB, 4 * MIB), (FIRST * SECTOR, (FIRST + 1) * SECTOR)):
        low, high = max(first, start), min(last, start + length, SIZE)
        if low < high:
            yield low, high - low


def test_zeros_of_an_increment(disk: StreamDisk) -> None:
    increment = disk.incremental()
    for start, length in RANGES:
        assert list(increment.known_zeros(start, length)) == [*clipped(start, length)]


def test_zeros_from_the_first_sector_on() -> None:
    state = EndState()
    state.put(Stretch(0, 1))
    found = StreamDisk("s", in_file(b"-"), state, MIB).incremental()
    assert list(found.known_zeros(0, MIB)) == [(0, SECTOR)]


def test_zeros_of_an_increment_end_with_the_disk(disk: StreamDisk) -> None:
    shorter = disk.resized(4 * MIB - 100).incremental()
    assert list(shorter.known_zeros(0, 9 * MIB)) == [(3 * MIB, MIB - 100)]
    assert list(shorter.extents()) == [(0, 2 * MIB), (3 * MIB, MIB - 100)]
