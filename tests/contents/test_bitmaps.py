"""The state of a bitmap: records of unknown granularity, rows of records, chunks of the section."""

import numpy as np
import pytest

from blkmig_cli.contents.bitmaps import BitmapState
from blkmig_cli.contents.v1_granularity import Observations
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_words import Room
from blkmig_cli.wire.events import BitmapBits, BlockBitmap, Payload

KIB = 1 << 10
WORD = b"\1".ljust(8, b"\0")


def opened(*sectors: int) -> BitmapState:
    """A v1 bitmap of unknown granularity, whose records at ``sectors`` have a word with bit 0."""
    state = BitmapState("d", "b", None, open=Observations())
    assert state.open is not None
    for sector in sectors:
        state.covered.add(sector, sector + 2048)
        state.open.add(sector, memoryview(WORD))
    return state


@pytest.mark.parametrize(
    ("sectors", "granularity", "covered"),
    [
        ([0, 2048], 16 * KIB, [(0, 4096)]),
        ([0, 2048], 64 * KIB, [(0, 4096)]),
        # Off the grid: up to the word's end.
        ([1000], 16 * KIB, [(1000, 2048)]),
        ([2049], 16 * KIB, [(2049, 4096)]),
        ([2047], 16 * KIB, [(2047, 2048)]),
        ([1000, 2048], 16 * KIB, [(1000, 4096)]),
        ([1000, 3000], 16 * KIB, [(1000, 2048), (3000, 4096)]),
        ([1000], 32 * KIB, [(1000, 3048)]),
        ([3000], 32 * KIB, [(3000, 4096)]),
        ([3000, 9000, 0], 32 * KIB, [(0, 2048), (3000, 4096), (9000, 11048)]),
        # Eight words of 4 KiB are half a chunk; they are not of a coarse bitmap.
        ([0], 8 * KIB, [(0, 1024)]),
    ],
)
def test_what_is_covered_when_the_granularity_is_known(
    sectors: list[int], granularity: int, covered: list[tuple[int, int]]
) -> None:
    state = opened(*sectors)
    state.settle([granularity], None, Room())
    assert list(state.covered) == covered
    assert (state.granularity, state.candidates, state.open) == (granularity, [granularity], None)
    assert state.content is not None
    words = {sector * 512 // granularity // 64 for sector in sectors}
    assert [start for start, _ in state.content.ranges()] == sorted(
        word * 64 * granularity for word in words
    )


@pytest.mark.parametrize("possible", [[], [16 * KIB, 32 * KIB]])
def test_a_granularity_that_stays_open(possible: list[int]) -> None:
    state = opened(0, 4096)
    state.settle(possible, None, Room())
    assert (state.candidates, state.granularity, state.content) == (possible, None, None)
    assert state.open is not None


def test_the_size_of_a_disk_decides() -> None:
    state = opened(4096)
    state.settle([16 * KIB, 64 * KIB], 2 << 20, Room())
    assert (state.granularity, state.candidates) == (64 * KIB, [64 * KIB])


def test_a_known_granularity_is_not_settled() -> None:
    state = BitmapState("d", "b", 512, content=DirtyBitmap("b", 512))
    state.settle([1024], None, Room())
    assert (state.granularity, state.candidates) == (512, [])


@pytest.mark.parametrize("flags", range(8))
def test_flags(flags: int) -> None:
    state = BitmapState("d", "b", 512)
    assert (state.recording, state.persistent) == (True, False)
    state.set_flags(flags)
    assert (state.recording, state.persistent) == (bool(flags & 1), bool(flags & 2))


V1 = BlockBitmap("b", None, None, Payload(0, 8))
V2 = BlockBitmap("b", 65536, 1, Payload(0, 8))


@pytest.mark.parametrize(
    ("part", "granularity", "sectors", "covered"),
    [
        (V1, 16 * KIB, [0, 2048], [(0, 4096)]),
        (V1, 16 * KIB, [1000, 3000], [(1000, 2048), (3000, 4096)]),
        (V1, 16 * KIB, [0, 2047], [(0, 2048)]),
        (V1, 32 * KIB, [1000, 3000], [(1000, 4096)]),
        (V2, 16 * KIB, [1000, 3048], [(1000, 5096)]),
        (V1, None, [1000, 3048], [(1000, 5096)]),
    ],
)
def test_what_rows_cover(
    part: BlockBitmap, granularity: int | None, sectors: list[int], covered: list[tuple[int, int]]
) -> None:
    """Of v1, no further than their bits, if that is known."""
    content = None if granularity is None else DirtyBitmap("b", granularity)
    state = BitmapState("d", "b", granularity, content=content)
    state.cover_rows(part, np.array(sectors, np.int64), 2048, 8)
    assert list(state.covered) == covered


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("granularity", [1 << shift for shift in range(9, 32)])
def test_rows_of_v2_are_as_their_records_one_by_one(granularity: int, down: bool) -> None:
    """Of all granularities, from a chunk that is not the first of its word."""
    chunks = range(5, 45)
    sectors = np.array(chunks[::-1] if down else chunks, np.int64) * 2048
    size = max((1 << 20) // granularity // 8, 8)
    rows = np.random.default_rng(granularity).integers(0, 256, (len(sectors), size), np.uint8)
    by_rows, one_by_one = (
        BitmapState("d", "b", granularity, content=DirtyBitmap("b", granularity)) for _ in range(2)
    )
    by_rows.add_rows(V2, sectors, 2048, rows)
    for sector, row in zip(sectors.tolist(), rows, strict=True):
        one_by_one.add_rows(V2, np.array([sector]), 2048, row[None])
    assert by_rows.content is not None
    assert one_by_one.content is not None
    assert by_rows.content.ranges() == one_by_one.content.ranges()
    # Clean ones, of some of them.
    for state in (by_rows, one_by_one):
        state.add_rows(V2, sectors[3:9], 2048, np.empty((6, 0), np.uint8))
    assert by_rows.content.ranges() == one_by_one.content.ranges()
    low, high = sorted((int(sectors[3]), int(sectors[8])))
    first = -(-low * 512 // granularity) * granularity
    last = (high + 2048) * 512 // granularity * granularity
    assert not [start for start, _ in by_rows.content.ranges() if first <= start < last]


@pytest.mark.parametrize(
    ("sector", "sectors", "bits", "ranges"),
    [
        (0, 100, b"\5".ljust(8, b"\0"), [(0, 512), (1024, 512)]),
        (64, 65, b"\1".ljust(16, b"\0"), [(64 * 512, 512)]),
        # Further words are those of QEMU's alignment, and say nothing.
        (0, 64, bytes(8) + b"\xff" * 24, []),
        (64, 64, b"\xff" * 32, [(64 * 512, 64 * 512)]),
    ],
)
def test_chunks_of_the_section(
    sector: int, sectors: int, bits: bytes, ranges: list[tuple[int, int]]
) -> None:
    state, room = BitmapState("d", "b", None, origin="dirty-bitmap"), Room()
    chunk = BitmapBits(0, 9, "dirty-bitmap", "d", "b", 0, b"", sector, sectors, 512, None)
    state.add_section_bits(chunk, memoryview(bits), room)
    assert state.content is not None
    assert (state.granularity, list(state.covered)) == (512, [(sector, sector + sectors)])
    assert state.content.ranges() == ranges
    assert room.left < Room().left or not ranges
    state.add_section_bits(chunk, None, room)
    assert state.content.ranges() == []
    assert room.left == Room().left


@pytest.mark.parametrize("sectors", [1, 128, 129, 256, 257])
def test_a_clean_chunk_ends_with_its_last_granule(sectors: int) -> None:
    content = DirtyBitmap("b", 65536)
    content.set_range(0, 4 * 65536)
    state = BitmapState("d", "b", 65536, content=content, origin="dirty-bitmap")
    chunk = BitmapBits(0, 9, "dirty-bitmap", "d", "b", 0, b"", 0, sectors, 65536, None)
    state.add_section_bits(chunk, None, Room())
    cleared = -(-sectors // 128) * 65536
    assert content.ranges() == [(cleared, 4 * 65536 - cleared)]
