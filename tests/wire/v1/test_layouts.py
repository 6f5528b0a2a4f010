"""Layouts of v1 by themselves: what follows from one record for others, and which are equal."""

import pytest

from blkmig_cli.wire.events import Payload
from blkmig_cli.wire.v1.reading import (
    UNKNOWN,
    After,
    Ahead,
    Layout,
    Reading,
    bits_lengths,
    top_key,
)
from tests.support.feed import in_file, piped

FULL = (2048, 2048)
TAIL = (4096, 1, 64)
ENDED = Layout({}, {"d": TAIL}, {}, 5)


@pytest.mark.parametrize(
    ("layout", "sector", "top", "size", "sectors"),
    [
        (UNKNOWN, 0, -1, None, (1, 2048)),
        (UNKNOWN, 2048, 0, None, (1, 2048)),
        (UNKNOWN, 2048, 2048, None, (1, 2048)),
        (UNKNOWN, 2048, 2049, None, FULL),
        (ENDED, 4095, -1, None, FULL),
        (ENDED, 4096, -1, None, (1, 64)),
        (ENDED, 4096, 9999, None, (1, 64)),
        (ENDED, 4097, -1, None, None),
        (ENDED, 4097, 1, 1 << 30, FULL),
        (UNKNOWN, 2048, -1, 4096 * 512, FULL),
        (UNKNOWN, 2048, -1, 4095 * 512, (2047, 2047)),
        (UNKNOWN, 2048, -1, 2048 * 512 + 1, (1, 1)),
        (UNKNOWN, 2048, -1, 2048 * 512, None),
        (UNKNOWN, 2048, -1, 512, None),
    ],
)
def test_sectors_of_a_record(
    layout: Layout, sector: int, top: int, size: int | None, sectors: tuple[int, int] | None
) -> None:
    assert layout.sectors("d", sector, top, size) == sectors
    if size is None:
        assert layout.sectors("e", sector, 1 << 40, size) == FULL


@pytest.mark.parametrize(
    ("layout", "sector", "top", "sectors", "sized", "tail"),
    [
        (UNKNOWN, 2048, 0, FULL, False, None),
        (UNKNOWN, 2048, 0, (65, 2048), False, None),
        (UNKNOWN, 2048, 0, (1, 64), True, None),
        (UNKNOWN, 2048, 0, (1, 64), False, (2048, 1, 64)),
        (UNKNOWN, 2048, 2048, (1, 64), False, (2048, 1, 64)),
        (UNKNOWN, 2048, 2049, (1, 64), False, "impossible"),
        (ENDED, 4096, 0, (1, 32), False, (4096, 1, 32)),
        (ENDED, 4096, 0, FULL, False, TAIL),
        (ENDED, 4095, 0, FULL, False, TAIL),
        (ENDED, 4097, 0, FULL, False, "impossible"),
        (ENDED, 4097, 0, (1, 64), True, "impossible"),
    ],
)
def test_the_end_of_a_disk(
    layout: Layout,
    sector: int,
    top: int,
    sectors: tuple[int, int],
    sized: bool,
    tail: tuple[int, int, int] | str | None,
) -> None:
    found = layout.after("d", sector, top, *sectors, sized=sized)
    if tail == "impossible":
        assert found is None
    else:
        assert found is not None
        assert found.tails.get("d") == tail


def test_the_highest_sector() -> None:
    found = UNKNOWN.risen("d", 5, -1)
    assert found.tops == {"d": 5}
    assert found.risen("d", 5, 5) is found
    assert found.risen("d", 4, 5) is found
    assert found.risen("e", 1, -1).tops == {"d": 5, "e": 1}
    assert (found.full, found.tails) == ({}, {})


def pairs() -> list[tuple[Layout, Layout]]:
    """Layouts that are equal, made in two ways."""
    a, b = ("d", "a", 16), ("d", "b", 8)
    tail = UNKNOWN.after("d", 9, 0, 1, 64, sized=False)
    assert tail is not None
    narrow, direct = (each.after("d", 9, 9, 1, 5, sized=False) for each in (tail, UNKNOWN))
    assert narrow is not None
    assert direct is not None
    return [
        (UNKNOWN.knowing(*a).knowing(*b), UNKNOWN.knowing(*b).knowing(*a)),
        (UNKNOWN.risen("d", 5, -1).risen("d", 9, 5), UNKNOWN.risen("d", 9, -1)),
        (UNKNOWN.risen("d", 5, -1).risen("e", 9, -1), UNKNOWN.risen("e", 9, -1).risen("d", 5, -1)),
        (narrow, direct),
    ]


def test_equal_layouts() -> None:
    for one, other in pairs():
        assert one == other
        assert hash(one) == hash(other)
        assert one != UNKNOWN
        assert one != "layout"


@pytest.mark.parametrize(
    "other",
    [
        Layout({("d", "b"): 8}, {}, {}, 5),
        Layout({}, {}, {}, 5),
        Layout({}, {"d": TAIL}, {"d": 1}, 5),
        Layout({}, {"d": TAIL}, {}, 6),
    ],
)
def test_other_layouts(other: Layout) -> None:
    """Each part counts, also where the keys happen to be the same."""
    assert other != ENDED
    assert Layout({}, {"d": TAIL}, {}, 5) == ENDED


def test_keys() -> None:
    assert top_key("d", 1, 2) ^ top_key("d", 2, 3) == top_key("d", 1, 3)
    assert top_key("d", 1, 2) != top_key("d", 1, 3) != top_key("e", 1, 3)
    assert top_key("d", 4, 4) == 0
    known = UNKNOWN.knowing("d", "b", 16)
    assert known.full == {("d", "b"): 16}
    assert len({known.key, UNKNOWN.knowing("d", "b", 8).key, UNKNOWN.key, 0}) == 3


@pytest.mark.parametrize(
    ("full", "sectors", "lengths"),
    [
        (8, (1, 2048), [(8, (1, 2048))]),
        (8, (1, 5), [(8, (1, 5))]),
        (16, FULL, [(16, FULL)]),
        (16, (1, 2048), [(8, (1, 1024)), (16, (1025, 2048))]),
        (16, (1024, 1025), [(8, (1024, 1024)), (16, (1025, 1025))]),
        (16, (1024, 1024), [(8, (1024, 1024))]),
        (16, (1025, 1025), [(16, (1025, 1025))]),
        (32, (513, 1536), [(16, (513, 1024)), (24, (1025, 1536))]),
        (256, (1, 1), [(8, (1, 1))]),
        (256, (64, 65), [(8, (64, 64)), (16, (65, 65))]),
        (256, FULL, [(256, FULL)]),
    ],
)
def test_lengths_of_bits(
    full: int, sectors: tuple[int, int], lengths: list[tuple[int, tuple[int, int]]]
) -> None:
    assert list(bits_lengths(full, sectors)) == lengths


def test_all_lengths_of_the_finest() -> None:
    found = bits_lengths(256, (1, 2048))
    assert [length for length, _ in found] == list(range(8, 264, 8))
    assert [sectors for _, sectors in found] == [(n + 1, n + 64) for n in range(0, 2048, 64)]


def test_readings() -> None:
    before = Reading(5, UNKNOWN)
    assert before == Reading(5, UNKNOWN, (), FULL, None, None)
    reading = Reading(9, ENDED, (8, 16), (1, 64), None, before)
    assert reading.ended(After.CUT) == Reading(9, ENDED, (8, 16), (1, 64), After.CUT, before)
    ended = reading.ended(After.END)
    assert ended.covering((3, 4)) == Reading(9, ENDED, (8, 16), (3, 4), After.END, before)
    assert ended.complete(100, UNKNOWN) == Reading(
        109, UNKNOWN, (8, 16), (1, 64), After.END, before
    )


@pytest.mark.parametrize("source", [in_file, piped])
def test_reading_ahead(source: type) -> None:
    """It moves in a source that stays where it is."""
    data = bytes(range(100))
    inner = source(data)
    ahead = Ahead(inner, 10)
    assert (ahead.size, ahead.seekable) == (inner.size, inner.seekable)
    assert (ahead.origin, ahead.damage) == (inner.origin, inner.damage)
    assert ahead.peek(3) == data[10:13]
    assert ahead.peek_at(50, 2) == data[50:52]
    ahead.advance(20)
    assert (ahead.offset, ahead.peek(1)) == (30, data[30:31])
    assert ahead.available(0) == 0
    assert ahead.available(70) == 70
    assert (ahead.available(71) < 71) is True
    assert ahead.discard(5) == 5
    assert ahead.offset == 35
    assert bytes(ahead.view(Payload(7, 3))) == data[7:10]
    ahead.release()
    assert inner.offset == 0


def test_what_is_left_of_a_file() -> None:
    """A file knows how much it is; of a pipe, it is all that is asked for, or nothing."""
    assert Ahead(in_file(bytes(100)), 30).available(71) == 70
    assert Ahead(in_file(bytes(100)), 30).discard(71) == 70
    assert Ahead(piped(bytes(100)), 30).available(71) == 0
