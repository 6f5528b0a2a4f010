"""The rules that size payloads, and which flags the dialects have."""

import numpy as np
import pytest

from blkmig_cli.schemas import block
from blkmig_cli.schemas.dialects import CLASSIC, DIALECTS, V1, V2, Dialect, dialect_of
from blkmig_cli.schemas.dirty_bitmap import bits_length, granularity_fault, padded_length

MIB = 1 << 20


def test_words() -> None:
    assert block.split_word(0x1FF) == (0, 0x1FF)
    assert block.split_word(0x200) == (1, 0)
    assert block.split_word(5 << 9 | 0x41) == (5, 0x41)
    assert block.join_word(5, 0x41) == 5 << 9 | 0x41
    assert type(block.join_word(5, V1.flags)) is int


@pytest.mark.parametrize(
    ("sectors", "granularity", "words"),
    [
        (1, 512, 1), (64, 512, 1), (65, 512, 2), (2048, 512, 32), (2047, 512, 32), (1984, 512, 31),
        (2048, 8192, 2), (1024, 8192, 1), (1025, 8192, 2), (2048, 16384, 1), (2048, 1 << 31, 1),
    ],
)  # fmt: skip
def test_words_of_v1(sectors: int, granularity: int, words: int) -> None:
    assert block.v1_words(sectors, granularity) == words


def test_full_chunks_of_v1() -> None:
    lengths = [block.v1_full_length(1 << shift) for shift in range(9, 32)]
    assert lengths == [256, 128, 64, 32, 16, *[8] * 18]
    assert tuple(sorted(set(lengths))) == block.V1_FULL_LENGTHS
    found = [block.v1_granularity(length) for length in (8, 16, 32, 64, 128, 256)]
    assert found == [None, 8192, 4096, 2048, 1024, 512]


@pytest.mark.parametrize(
    ("sector", "sectors", "granularity", "first", "words"),
    [
        (0, 1, 512, 0, 1), (63, 1, 512, 0, 1), (64, 1, 512, 1, 1), (63, 2, 512, 0, 2),
        (0, 64, 512, 0, 1), (0, 65, 512, 0, 2), (64, 128, 512, 1, 2), (65, 127, 512, 1, 2),
        (2048, 2048, 32768, 0, 1), (4096, 2048, 32768, 1, 1), (2048, 2049, 32768, 0, 2),
    ],
)  # fmt: skip
def test_words_of_v2(sector: int, sectors: int, granularity: int, first: int, words: int) -> None:
    assert block.first_word(sector, granularity) == first
    assert block.v2_words(sector, sectors, granularity) == words


@pytest.mark.parametrize(
    ("sectors", "granularity", "exact", "padded"),
    [
        (1, 512, 8, 32), (64, 512, 8, 32), (65, 512, 16, 32), (256, 512, 32, 32),
        (257, 512, 40, 64), (128, 65536, 8, 32), (128 * 64 + 1, 65536, 16, 32),
    ],
)  # fmt: skip
def test_bits_of_a_chunk(sectors: int, granularity: int, exact: int, padded: int) -> None:
    assert bits_length(sectors, granularity) == exact
    assert padded_length(exact) == padded
    assert bits_length(np.array([sectors]), granularity).tolist() == [exact]
    assert padded_length(np.array([exact])).tolist() == [padded]


@pytest.mark.parametrize(
    ("granularity", "good"),
    [(512, True), (1024, True), (1 << 31, True), (256, False), (0, False), (1, False), (768, False),
     (1536, False), (1 << 32, False), (513, False), ((1 << 31) + 512, False)],
)  # fmt: skip
def test_granularities(granularity: int, good: bool) -> None:
    fault = f"granularity {granularity} is not a power of two from 512 bytes to 2 GiB"
    assert granularity_fault(granularity) == (None if good else fault)


def test_names_of_dialects() -> None:
    assert DIALECTS == {"classic": CLASSIC, "v1": V1, "v2": V2, "qemu": CLASSIC}
    assert [dialect.name for dialect in (CLASSIC, V1, V2)] == ["classic", "v1", "v2"]
    assert [int(dialect.flags) for dialect in (CLASSIC, V1, V2)] == [0x0F, 0x3F, 0x7F]


@pytest.mark.parametrize(
    ("dialect", "flags", "length"),
    [
        (CLASSIC, 0x01, MIB), (CLASSIC, 0x09, 0), (CLASSIC, 0x03, MIB),
        (V1, 0x01, 0), (V1, 0x11, MIB), (V1, 0x19, 0), (V1, 0x31, MIB), (V1, 0x21, 0),
        (V2, 0x61, 0), (V2, 0x71, MIB), (V2, 0x69, 0), (V2, 0x79, 0),
    ],
)  # fmt: skip
def test_data(dialect: Dialect, flags: int, length: int) -> None:
    assert dialect.data_length(flags) == length


NEITHER = "are neither block, progress nor end"
FAULTS = [
    (CLASSIC, 0x10, "flags 0x10 are unknown in dialect classic"),
    (CLASSIC, 0x1F1, "flags 0x1f0 are unknown in dialect classic"),
    (V1, 0x41, "flags 0x40 are unknown in dialect v1"),
    (V2, 0x81, "flags 0x80 are unknown in dialect v2"),
    (CLASSIC, 0x08, f"flags 0x8 {NEITHER}"),
    (V1, 0x30, f"flags 0x30 {NEITHER}"),
    (V2, 0x78, f"flags 0x78 {NEITHER}"),
    (V2, 0x00, f"flags 0x0 {NEITHER}"),
    (V2, 0x6B, "flags 0x6b: a v2 block carries no end and no progress"),
    (V2, 0x6D, "flags 0x6d: a v2 block carries no end and no progress"),
    (V2, 0x01, "flags 0x1: a v2 block has data, zeros or bitmaps"),
    (V2, 0x41, "flags 0x41: a v2 block has data, zeros or bitmaps"),
    (V2, 0x19, "flags 0x19: zero block and data exclude each other in v2"),
    (V2, 0x49, "flags 0x49: has-bitmaps and sized-bitmaps go together in v2"),
    (V2, 0x29, "flags 0x29: has-bitmaps and sized-bitmaps go together in v2"),
]


@pytest.mark.parametrize("case", range(len(FAULTS)))
def test_faults(case: int) -> None:
    dialect, flags, fault = FAULTS[case]
    assert dialect.fault(flags) == fault


def test_flags_of_each_dialect() -> None:
    """All that are no fault."""
    found = {
        dialect.name: {flags for flags in range(512) if dialect.fault(flags) is None}
        for dialect in (CLASSIC, V1, V2)
    }
    assert found["classic"] == {flags for flags in range(16) if flags & 7}
    assert found["v1"] == {flags for flags in range(64) if flags & 7}
    ends = {flags for flags in range(128) if not flags & 1 and flags & 6}
    assert found["v2"] == ends | {0x09, 0x11, 0x61, 0x69, 0x71}


def test_what_flags_say() -> None:
    for flags in range(1, 512, 2):
        dialect = V2 if flags & 0x40 else V1 if flags & 0x30 else None if flags & 8 else CLASSIC
        assert dialect_of(flags) is dialect
