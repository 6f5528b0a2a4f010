"""Sets of ranges compared with plain sets of numbers, and the order of their ranges."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli import intervals, limits, ranges
from blkmig_cli.errors import LimitError
from blkmig_cli.intervals import Intervals
from blkmig_cli.ranges import ByteRanges, IntervalSet, common, gaps_of, joined, tiles

TOP = 60
NUMBERS = st.integers(0, TOP)
#: What is done, then a range, and starts of ranges of one length for what takes several.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "remove", "all", "each"]),
        NUMBERS,
        NUMBERS,
        st.lists(NUMBERS, min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=20,
)


@contextmanager
def short_blocks(length: int) -> Iterator[None]:
    """Blocks of few ranges; several ranges are always added by sorting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "BLOCK", length)
        patch.setattr(ranges, "BLOCK", length)
        patch.setattr(ranges, "_FEW", 2 if length < 6 else 1 << 10)
        yield


def made(steps: list[tuple[str, int, int, list[int]]]) -> tuple[IntervalSet, set[int]]:
    found, model = IntervalSet(), set[int]()
    for kind, start, end, several in steps:
        length = max(end // 8, 1)
        each = [set(range(first, first + length)) for first in several]
        if kind == "add":
            found.add(start, end)
            model |= set(range(start, end))
        elif kind == "remove":
            found.remove(start, end)
            model -= set(range(start, end))
        elif kind == "all":
            found.add_all(np.array([[first, first + length] for first in several], np.int64))
            model = model.union(*each)
        else:
            repeated = 0
            for range_of in each:
                repeated += range_of <= model
                model |= range_of
            assert found.add_each(np.array(several, np.int64), length) == repeated
    return found, model


@given(STEPS, st.integers(2, 9))
def test_members_and_shape(steps: list[tuple[str, int, int, list[int]]], block: int) -> None:
    with short_blocks(block):
        found, model = made(steps)
    held = list(found)
    assert {number for start, end in held for number in range(start, end)} == model
    assert all(start < end for start, end in held)
    assert all(one[1] < other[0] for one, other in pairwise(held))
    assert bool(found) == bool(model)
    assert len(found) == len(held)
    assert found.end == max(model, default=-1) + 1
    assert [tuple(row) for row in found.table().tolist()] == held


def test_parts_over_several_blocks() -> None:
    found = Intervals()
    with short_blocks(2):
        for start in range(0, 24, 3):
            found.add(start, start + 2)
    for start in range(26):
        for end in range(26):
            parts = list(found.between(start, end))
            assert parts == [
                (max(low, start), min(low + 2, end))
                for low in range(0, 24, 3)
                if max(low, start) < min(low + 2, end)
            ]


@given(STEPS, st.integers(2, 9), NUMBERS, NUMBERS)
def test_queries(
    steps: list[tuple[str, int, int, list[int]]], block: int, start: int, end: int
) -> None:
    with short_blocks(block):
        found, model = made(steps)
        numbers = np.arange(TOP + 9)
        assert found.touches_each(numbers).tolist() == [at in model for at in numbers.tolist()]
    asked = set(range(start, end))
    assert found.covers(start, end) == (asked <= model)
    if asked:
        assert found.touches(start, end) == bool(asked & model)
    for held, expected in (
        (found.gaps(start, end), asked - model),
        (list(found.between(start, end)), asked & model),
    ):
        assert {number for low, high in held for number in range(low, high)} == expected
        assert all(low < high for low, high in held)
        assert all(one[1] < other[0] for one, other in pairwise(held))


def test_one_range_forwards_and_backwards() -> None:
    for order in (range(1000), reversed(range(1000))):
        found = IntervalSet()
        for number in order:
            found.add(number * 8, number * 8 + 8)
        assert list(found) == [(0, 8000)]


@pytest.mark.parametrize("order", ["forwards", "backwards", "random"])
def test_many_pieces(order: str) -> None:
    """More ranges than a block has, one by one and all at once, and then what joins them."""
    starts = np.arange(5000) * 4096
    if order == "backwards":
        starts = starts[::-1]
    elif order == "random":
        starts = np.random.default_rng(1).permutation(starts)
    single, several = IntervalSet(), IntervalSet()
    for start in starts.tolist():
        single.add(start, start + 2048)
    assert several.add_each(starts, 2048) == 0
    assert list(single) == list(several) == [(at * 4096, at * 4096 + 2048) for at in range(5000)]
    assert several.add_each(starts, 2048) == 5000
    assert repr(single) == "<IntervalSet of 5000 ranges>"
    single.remove(2048, 4096 * 2500)
    assert list(single)[:2] == [(0, 2048), (4096 * 2500, 4096 * 2500 + 2048)]
    single.add(2048, 4096 * 4000)
    assert list(single)[:2] == [(0, 4096 * 4000 + 2048), (4096 * 4001, 4096 * 4001 + 2048)]


def test_the_farthest_place() -> None:
    found, last = IntervalSet(), limits.DISK_MAX
    found.add(last - 1, last)
    assert list(found) == [(last - 1, last)]
    with pytest.raises(LimitError, match=f"reaches {last + 1}, past what a file offset can say"):
        found.add(last, last + 1)
    with pytest.raises(LimitError, match="past what a file offset can say"):
        found.add_all(np.array([[last - 5, last + 1]] * 99))
    assert list(found) == [(last - 1, last)]


def test_tiles() -> None:
    starts = np.array([0, 8, 16, 16, 8, 0, 100, 50, 42, 50])
    parts = [starts[tile].tolist() for tile in tiles(starts, 8)]
    assert parts == [[0, 8, 16], [16, 8, 0], [100], [50, 42], [50]]
    assert [starts[tile].tolist() for tile in tiles(starts[:1], 8)] == [[0]]


@given(STEPS)
def test_ranges_in_bytes(steps: list[tuple[str, int, int, list[int]]]) -> None:
    """A sequence as a tuple of pairs is, held as an array."""
    found, _ = made(steps)
    expected = tuple((start * 512, (end - start) * 512) for start, end in found)
    held = ByteRanges(found.table(), 512)
    assert held == expected
    assert tuple(held) == expected
    assert (len(held), bool(held)) == (len(expected), bool(expected))
    assert held[:3] == expected[:3]
    assert held[-1:] == expected[-1:]
    assert [held[at] for at in range(len(held))] == list(expected)
    assert held.total == sum(length for _, length in expected)
    assert held != (*expected, (0, 512))


def test_ranges_past_int64() -> None:
    """In bytes they may end past 2**63, as a hostile sector can say."""
    table = np.array([[(1 << 55) - 5, 1 << 55]])
    assert list(ByteRanges(table, 512)) == [((1 << 64) - 5 * 512, 5 * 512)]
    assert repr(ByteRanges(table, 512)) == "<ByteRanges: 1 of 2560 bytes>"


@given(st.lists(NUMBERS, max_size=12), st.integers(1, 9))
def test_joined_ranges(starts: list[int], length: int) -> None:
    held = IntervalSet()
    for start in starts:
        held.add(start, start + length)
    assert joined(np.array(starts, np.int64), length).tolist() == held.table().tolist()


RANGES = st.lists(st.integers(0, TOP), unique=True).map(
    lambda edges: np.array(sorted(edges[: len(edges) // 2 * 2]), np.int64).reshape(-1, 2)
)


def numbers(table: ranges.Table) -> list[int]:
    return [number for start, end in table.tolist() for number in range(start, end)]


@given(RANGES, RANGES)
def test_what_two_tables_have_in_common(ours: ranges.Table, theirs: ranges.Table) -> None:
    assert numbers(common(ours, theirs)) == sorted({*numbers(ours)} & {*numbers(theirs)})
    assert numbers(gaps_of(ours, 0, TOP)) == sorted({*range(TOP)} - {*numbers(ours)})
