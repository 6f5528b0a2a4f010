"""Which records a later one supersedes: of the same place, and at least as long."""

from collections.abc import Callable

import numpy as np
import pytest

from blkmig_cli.operations.replay import superseded as module
from blkmig_cli.operations.replay.superseded import Superseded
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.runs.columns import Column, Run

CHUNK = 2048
Records = list[tuple[int, int]]


def block(
    sector: int, offset: int, sectors: int = CHUNK, flags: int = 9, device: str = "d"
) -> Block:
    return Block(
        offset, 15, "block", device, sector, sectors, sectors, flags, "classic", None, ()
    )  # fmt: skip


def by_events(records: Records, sectors: int = CHUNK) -> Superseded:
    """One by one, at offsets 0, 15, 30..."""
    found, covered = Superseded(), IntervalSet()
    for number, (sector, length) in enumerate(records):
        found.feed(block(sector, 15 * number, length), covered)
        covered.add(sector, sector + length)
    return found


def by_run(records: Records) -> Superseded:
    """As one run, with a column for each length."""
    found = Superseded()
    columns = []
    for length in dict.fromkeys(length for _, length in records):
        rows = [at for at, (_, each) in enumerate(records) if each == length]
        sectors = np.array([records[at][0] for at in rows])
        first = block(int(sectors[0]), 15 * rows[0], length)
        columns.append(Column(first, np.array(rows) * 15, sectors))
    found.feed_run(Run(tuple(columns), 15 * len(records)), lambda _: IntervalSet())
    return found


@pytest.mark.parametrize("feed", [by_events, by_run])
@pytest.mark.parametrize(
    ("records", "which"),
    [
        ([(0, CHUNK)], []),
        ([(0, CHUNK), (CHUNK, CHUNK)], []),
        ([(0, CHUNK), (0, CHUNK)], [0]),
        ([(CHUNK, CHUNK), (0, CHUNK), (CHUNK, CHUNK)], [0]),
        ([(0, CHUNK), (0, CHUNK), (0, CHUNK)], [0, 1]),
        ([(0, CHUNK), (CHUNK, CHUNK), (0, CHUNK), (CHUNK, CHUNK)], [0, 1]),
        # Another place, though they overlap.
        ([(0, CHUNK), (1, CHUNK)], []),
        ([(1, CHUNK), (0, CHUNK)], []),
        ([(1, CHUNK), (0, CHUNK), (1, CHUNK)], [0]),
        # A shorter one does not cover it.
        ([(0, CHUNK), (0, CHUNK - 1)], []),
        ([(0, CHUNK - 1), (0, CHUNK)], [0]),
        ([(0, 5), (0, 5)], [0]),
    ],
)
def test_records(feed: Callable[[Records], Superseded], records: Records, which: list[int]) -> None:
    found = feed(records)
    assert [
        at for at, (sector, length) in enumerate(records) if block(sector, 15 * at, length) in found
    ] == which
    for length in {length for _, length in records}:
        rows = [at for at, (_, each) in enumerate(records) if each == length]
        sectors = np.array([records[at][0] for at in rows])
        mask = found.rows(block(0, 0, length), np.array(rows) * 15, sectors)
        assert [at for at, no in zip(rows, mask.tolist(), strict=True) if no] == [
            at for at in which if at in rows
        ]


def test_other_devices_and_places() -> None:
    found = by_events([(0, CHUNK), (CHUNK, CHUNK), (0, CHUNK)])
    assert block(0, 0, device="e") not in found
    assert block(5, 0) not in found
    assert block(9 * CHUNK, 0) not in found
    assert not found.rows(block(0, 0, device="e"), np.array([0]), np.array([0])).any()
    mask = found.rows(block(0, 0), np.array([0, 0, 0]), np.array([5, CHUNK, 9 * CHUNK]))
    assert mask.tolist() == [False] * 3


@pytest.mark.parametrize(("flags", "counts"), [(9, True), (0x21, False)])
def test_records_without_content(flags: int, counts: bool) -> None:
    """They write nothing, and supersede nothing."""
    found, covered = Superseded(), IntervalSet()
    covered.add(0, CHUNK)
    dialect = "v2" if flags == 0x21 else "classic"
    each = Block(15, 15, "block", "d", 0, CHUNK, CHUNK, flags, dialect, None, ())
    found.feed(each, covered)
    assert (block(0, 0) in found) is counts


@pytest.mark.parametrize(
    ("sector", "sectors", "expected"),
    [
        (0, CHUNK, []),
        (CHUNK, CHUNK, []),
        (1, CHUNK, [(512, 512 + (1 << 20))]),
        (CHUNK - 1, 5, [(1047552 + 512, 1047552 + 512 + 5 * 512 - 0)]),
    ],
)
def test_bytes_that_may_overlap(sector: int, sectors: int, expected: list[tuple[int, int]]) -> None:
    """Those of records off the grid."""
    if sector == CHUNK - 1:
        expected = [((CHUNK - 1) * 512, (CHUNK + 4) * 512)]
    for found in (by_events([(sector, sectors)]), by_run([(sector, sectors)])):
        assert list(found.overlaps("d")) == expected
        assert list(found.overlaps("e")) == []


@pytest.mark.parametrize("sectors", [[0, 1, 2], [2, 1, 0], [0, 2, 1], [0, 1, 1], [1, 1, 0]])
@pytest.mark.parametrize("before", [[], [0], [1], [2], [0, 1, 2], [0, 1, 2, 3], [5], [0, 2]])
def test_runs_after_others(sectors: list[int], before: list[int]) -> None:
    """What was sent before the run, and what is twice in it."""
    covered = IntervalSet()
    found = Superseded()
    for at, chunk in enumerate(before):
        found.feed(block(chunk * CHUNK, 15 * at), covered)
        covered.add(chunk * CHUNK, (chunk + 1) * CHUNK)
    first = 1000
    offsets = first + 15 * np.arange(len(sectors))
    column = Column(block(sectors[0] * CHUNK, first), offsets, np.array(sectors) * CHUNK)
    found.feed_run(Run((column,), 2000), lambda _: covered)
    for at, chunk in enumerate(before):
        assert (block(chunk * CHUNK, 15 * at) in found) == (chunk in sectors)
    for at, chunk in enumerate(sectors):
        assert (block(chunk * CHUNK, first + 15 * at) in found) == (chunk in sectors[at + 1 :])


@pytest.mark.parametrize("batch", [1, 2, 3, 1 << 16])
@pytest.mark.parametrize("least", [1, 2, 5, 1 << 20])
def test_rows_that_are_thinned_out(monkeypatch: pytest.MonkeyPatch, batch: int, least: int) -> None:
    monkeypatch.setattr(module, "_BATCH", batch)
    monkeypatch.setattr(module, "_ROWS_MIN", least)
    covered = IntervalSet()
    covered.add(0, 9 * CHUNK)
    found = Superseded()
    sectors = np.array([0, 1, 2, 1, 0, 2, 2, 5]) * CHUNK
    for turn in range(4):
        offsets = 1000 * turn + 15 * np.arange(8)
        column = Column(block(0, int(offsets[0])), offsets, sectors)
        found.feed_run(Run((column,), 1000 * turn + 500), lambda _: covered)
    last = {0: 3060, 1: 3045, 2: 3090, 5: 3105}
    for chunk, offset in last.items():
        assert block(chunk * CHUNK, offset - 1) in found
        assert block(chunk * CHUNK, offset) not in found
        assert block(chunk * CHUNK, 0, CHUNK + 1) not in found
