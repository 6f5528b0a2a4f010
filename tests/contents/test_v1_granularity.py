"""Granularities that the records of a coarse v1 bitmap leave possible."""

import numpy as np
import pytest

from blkmig_cli.contents.v1_granularity import Observations

MIB = 1 << 20
COARSE = [1 << shift for shift in range(14, 32)]
KIB = 1024


def observed(*records: tuple[int, int], rows: bool = False) -> Observations:
    """Return records: sector, and the word of bits."""
    found = Observations()
    if rows:
        bits = np.array([word for _, word in records], "<u8").view(np.uint8).reshape(-1, 8)
        found.add_rows(np.array([sector for sector, _ in records], np.int64), bits)
        return found
    for sector, word in records:
        found.add(sector, memoryview(word.to_bytes(8, "little")))
    return found


def above(least: int) -> list[int]:
    return [granularity for granularity in COARSE if granularity >= least]


def below(most: int) -> list[int]:
    return [granularity for granularity in COARSE if granularity <= most]


#: What: records (sector, word), the most bytes of the disk, what remains of 16 KiB to 2 GiB.
CASES: dict[str, tuple[list[tuple[int, int]], int | None, list[int]]] = {
    "one record": ([(0, 1)], None, COARSE),
    "the same word": ([(0, 5), (2048, 5), (4096, 5)], None, COARSE),
    # From 32 KiB on, the two chunks share a word.
    "a bit is cleared": ([(0, 3), (2048, 1)], None, [16 * KIB]),
    "a bit is cleared, two chunks further": ([(0, 3), (4096, 1)], None, below(32 * KIB)),
    "a bit is cleared, far away": ([(0, 3), (2048 * 64, 1)], None, below(MIB)),
    "a bit is cleared, before": ([(2048 * 64, 3), (0, 1)], None, below(MIB)),
    "the top bit is cleared": ([(0, 1 << 63), (2048, 0)], None, [16 * KIB]),
    # Bit 32 of 32 KiB is of the second chunk, which is sent with it.
    "a bit of a chunk that is sent": ([(0, 0), (2048, 1 << 32)], None, below(32 * KIB)),
    "the last bit of a chunk that is sent": ([(0, 0), (2048, 1 << 63)], None, below(32 * KIB)),
    "a bit of the chunk before": ([(0, 0), (2048, 1)], None, [16 * KIB, *above(2 * MIB)]),
    "a bit of the chunk before, sent again": (
        [(0, 0), (2048, 0), (0, 1), (2048, 1)], None, COARSE),
    "a bit of a chunk in between": (
        [(0, 0), (2048, 0), (4096, 1 << 16)], None, [16 * KIB, 32 * KIB, 128 * KIB]),
    "a bit of a chunk in between, 64 KiB": (
        [(0, 0), (2048, 0), (4096, 1 << 32)], None, [16 * KIB, 32 * KIB, 64 * KIB]),
    "a bit of a granule of two chunks": (
        [(0, 0), (2048, 0), (4096, 2)], None, [16 * KIB, 32 * KIB, 2 * MIB]),
    "cleared, with another word in between": (
        [(0, 3), (2048 * 1000, 1), (2048, 1)], None, [16 * KIB]),
    "a bit of the chunk before, with another word before it": (
        [(2048 * 1000, 0), (0, 0), (2048, 1)], None, [16 * KIB, *above(2 * MIB)]),
    "two bits, of which one is of the chunk before": (
        [(0, 0), (2048, 1), (2048, 1 << 32 | 1)], None, [16 * KIB]),
    "many bits, with another word in between": (
        [(at % 2 * 2048 * 1000, (1 << at // 2) - 1 if at % 2 == 0 else 0) for at in range(66)],
        None, [16 * KIB, 32 * KIB]),
    "off the grid": ([(0, 0), (2049, 1)], None, COARSE),
    "off the grid, cleared": ([(0, 1), (2049, 0)], None, [16 * KIB]),
    "a bit at the disk's end": ([(0, 1 << 3)], 4 * MIB, below(MIB)),
    "a bit past the disk's end": ([(0, 1 << 3)], 3 * MIB, below(512 * KIB)),
    "a bit past the disk's end, by a byte": ([(0, 1 << 3)], 3 * MIB + 1, below(MIB)),
    "the last granule": ([(0, 1 << 63)], MIB, [16 * KIB]),
    "a word past the disk's end": ([(4096, 1)], 2 * MIB, above(64 * KIB)),
    "a word past the disk's end, and a chunk before": (
        [(0, 0), (4096, 1)], 2 * MIB, above(4 * MIB)),
    "an empty word past the disk's end": ([(0, 0), (4096, 0)], 2 * MIB, COARSE),
}  # fmt: skip


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("words", [0, 3])
@pytest.mark.parametrize("what", CASES)
def test_what_remains(what: str, words: int, rows: bool) -> None:
    """Also further back, by whole words of all granularities."""
    records, size, expected = CASES[what]
    records = [(sector + words * (128 << 30) // 512, word) for sector, word in records]
    size = None if size is None else size + words * (128 << 30)
    assert observed(*records, rows=rows).narrow(COARSE, size) == expected
    assert observed(*records, rows=rows).narrow(COARSE[2:5], size) == [
        granularity for granularity in COARSE[2:5] if granularity in expected
    ]


@pytest.mark.parametrize("granularity", [4 * KIB, 8 * KIB])
def test_finer_granularities_are_not_contradicted(granularity: int) -> None:
    """Of which the disk's end has cut each record to one word."""
    assert observed((0, 0), (0, 1)).narrow([granularity], None) == [granularity]


def test_records_of_other_lengths_say_nothing() -> None:
    found = observed((0, 3), (2048, 1))
    found.add(4096, memoryview(bytes(16)))
    assert found.narrow(COARSE, None) == COARSE


def test_rows_of_equal_length() -> None:
    found = observed((0, 1), (2048, 2))
    found.add(4096, memoryview(bytes(range(16))))
    found.add_rows(np.array([8192, 6144], np.int64), np.arange(32, dtype=np.uint8).reshape(2, 16))
    found.add(10240, memoryview(b""))
    found.add(12288, memoryview(b"12345678"))
    assert [(sectors.tolist(), bits.shape, bits.tobytes()) for sectors, bits in found.rows()] == [
        ([0, 2048], (2, 8), b"\1" + bytes(7) + b"\2" + bytes(7)),
        ([4096, 8192, 6144], (3, 16), bytes(range(16)) + bytes(range(32))),
        ([10240], (1, 0), b""),
        ([12288], (1, 8), b"12345678"),
    ]
    assert found.numbers().tolist() == [0, 2048, 4096, 8192, 6144, 10240, 12288]
    assert list(Observations().rows()) == []
