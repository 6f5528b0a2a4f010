"""Sets of ranges against plain sets of numbers, and the one promise about their shape."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.ranges import IntervalSet

TOP = 40
STEPS = st.lists(
    st.tuples(st.booleans(), st.integers(0, TOP), st.integers(0, TOP)), min_size=1, max_size=20
)


def made(steps: list[tuple[bool, int, int]]) -> tuple[IntervalSet, set[int]]:
    found, model = IntervalSet(), set[int]()
    for add, start, end in steps:
        if add:
            found.add(start, end)
            model |= set(range(start, end))
        else:
            found.remove(start, end)
            model -= set(range(start, end))
    return found, model


@given(STEPS)
def test_members_and_shape(steps: list[tuple[bool, int, int]]) -> None:
    found, model = made(steps)
    ranges = list(found)
    assert {number for start, end in ranges for number in range(start, end)} == model
    assert all(start < end for start, end in ranges)
    assert all(one[1] < other[0] for one, other in pairwise(ranges))
    assert bool(found) == bool(model)
    assert found.end == max(model, default=-1) + 1


@given(STEPS, st.integers(0, TOP), st.integers(0, TOP))
def test_questions(steps: list[tuple[bool, int, int]], start: int, end: int) -> None:
    found, model = made(steps)
    asked = set(range(start, end))
    assert found.covers(start, end) == (asked <= model)
    if asked:
        assert found.touches(start, end) == bool(asked & model)
    gaps = found.gaps(start, end)
    assert {number for low, high in gaps for number in range(low, high)} == asked - model
    assert all(low < high for low, high in gaps)
    assert all(one[1] < other[0] for one, other in pairwise(gaps))


def test_one_range_forwards_and_backwards() -> None:
    for order in (range(1000), reversed(range(1000))):
        found = IntervalSet()
        for number in order:
            found.add(number * 8, number * 8 + 8)
        assert list(found) == [(0, 8000)]
