"""What QEMU's progress records prove of the sizes of disks."""

import pytest

from blkmig_cli.contents.sizes import ProgressBounds as Progress

MIB = 1 << 20


def progress(*records: tuple[str, int] | int) -> Progress:
    """Return what follows from chunks, as device and sector, and percentages, in turn."""
    found = Progress()
    for record in records:
        if isinstance(record, int):
            found.record(record, in_end=False)
        else:
            found.chunk(*record)
    return found


TWO: list[tuple[str, int] | int] = [("a", 0), ("b", 0), ("a", 2048), ("b", 4096), 9]


@pytest.mark.parametrize(
    ("records", "sizes", "sectors"),
    [
        # Two disks of 2 and 3 chunks: 6,144 sectors are less than 10 % of all.
        (TWO, {}, 61441 - 5 * 2048),
        (TWO, {"a": None, "b": None}, 61441 - 5 * 2048),
        (TWO, {"a": 512}, 61441 - 5 * 2048),
        (TWO, {"a": None, "b": 30000 * 512}, 61441 - 2 * 2048 - 30000),
        (TWO, {"b": 30000 * 512 - 511}, 61441 - 2 * 2048 - 30000),
        (TWO, {"c": 50000 * 512, "d": None}, 61441 - 5 * 2048 - 50000),
        (TWO, {"c": 61441 * 512 - 5 * MIB}, 0),
        (TWO, {"c": 61440 * 512 - 5 * MIB}, 1),
        (TWO, {"c": 99999 * 512}, 0),
        # A chunk that was moved to end with its disk counts as on the grid.
        ([("a", 0), ("a", 2050), 9], {}, 40961 - 3 * 2048),
        # The strictest record counts, and one of 100 percent proves nothing.
        ([*TWO, 50, 100], {}, 61441 - 5 * 2048),
        ([*TWO[:-1], 99], {}, 0),
        ([*TWO[:-1], 100, 1 << 50], {}, 0),
        ([], {"a": 512}, 0),
    ],
)
def test_never_sent(
    records: list[tuple[str, int] | int], sizes: dict[str, int | None], sectors: int
) -> None:
    assert progress(*records).never_sent(sizes) == sectors


@pytest.mark.parametrize(
    ("records", "sizes", "ended"),
    [
        ([("a", 0)], {"a": MIB}, None),
        ([100], {"a": MIB}, None),
        ([("a", 0), 75], {"a": 4 * MIB}, True),
        ([("a", 0), 74], {"a": 4 * MIB}, False),
        # The last chunk is of one sector.
        ([("a", 0), 99], {"a": 3 * MIB + 1}, True),
        ([("a", 0), 98], {"a": 3 * MIB + 1}, False),
        ([("a", 0), 50], {"a": 2 * MIB, "b": 2 * MIB}, True),
        ([("a", 0), 49], {"a": 2 * MIB, "b": 2 * MIB}, False),
        ([("a", 0), 50], {"a": 2 * MIB, "b": 0}, True),
        ([("a", 0), 49], {"a": 2 * MIB, "b": 0}, False),
        # The least size that fits 67 percent is 3,057 sectors, of which a chunk may be the last.
        ([("a", 0), ("a", 2048), 66], {"a": None}, True),
        ([("a", 0), ("a", 2048), 33], {"a": None}, False),
        ([("a", 0), ("a", 2048), 33], {"a": MIB, "b": None}, False),
        ([("a", 0), ("a", 2048), 33], {}, False),
        ([("a", 0), 0], {"a": None}, True),
        ([("a", 0), ("a", 2048), 33], {"a": 0}, False),
    ],
)
def test_the_bulk_phase_ended(
    records: list[tuple[str, int] | int], sizes: dict[str, int | None], ended: bool | None
) -> None:
    assert progress(*records).bulk_ended(sizes) is ended


def test_a_continued_stream_proves_nothing() -> None:
    found = progress(*TWO[:-1])
    found.continues = True
    found.record(9, in_end=False)
    assert (found.percent, found.least) == (None, 0)
    found.record(100, in_end=True)
    assert found.final
    found.record(99, in_end=True)
    assert not found.final


@pytest.mark.parametrize(
    ("percent", "least"), [(0, 614401), (99, 6145), (100, 6084), (101, 0), (1 << 50, 0)]
)
def test_the_least_of_all_disks(percent: int, least: int) -> None:
    """Of 6,144 sectors before it; over 100 percent nothing is proven."""
    assert progress(*TWO[:-1], percent).least == least
