"""Runs as arrays: their order, their parts, what they tell of their events."""

from typing import Any

import numpy as np
import pytest

from blkmig_cli import limits
from blkmig_cli.wire.events import (
    BitmapBits,
    Block,
    BlockBitmap,
    CommandEvent,
    Eos,
    Event,
    Footer,
    Payload,
    Progress,
)
from blkmig_cli.wire.runs.columns import (
    NEAR,
    Column,
    EventConsumer,
    Run,
    alike,
    behind_offset,
    bits_of,
    blocks_of,
    column_of,
    device_of,
    expand,
    has_payload,
    in_order,
    is_near,
    is_past,
    laid_out,
    last_block,
    moved,
)
from tests.support.feed import in_file


def block(at: int = 0, sector: int = 0, **more: Any) -> Block:
    fields: dict[str, Any] = {
        "device": "d", "sectors": 2048, "sectors_min": 2048, "flags": 9, "dialect": "v1",
        "data": None, "bitmaps": (),
    } | more  # fmt: skip
    return Block(at, 10, "block", fields.pop("device"), sector, **fields)


def bits(at: int = 0, sector: int = 0, sectors: int = 1, **more: Any) -> BitmapBits:
    fields: dict[str, Any] = {
        "device": "d", "bitmap": "b", "flags": 0x40, "extra_flags": b"\x80", "granularity": 512,
        "bits": None,
    } | more  # fmt: skip
    return BitmapBits(at, 13, "dirty-bitmap", sector=sector, sectors=sectors, **fields)


def column(event: Event, offsets: list[int], numbers: list[int] | None = None) -> Column:
    counted = None if numbers is None else np.array(numbers, np.int64)
    return Column(event, np.array(offsets, np.int64), counted)


FULL = block(
    100, 7, data=Payload(150, 9),
    bitmaps=(BlockBitmap("x", 512, 1, Payload(110, 8)), BlockBitmap("y", None, None, Payload(130, 4))),
)  # fmt: skip
MOVED: list[tuple[Event, Event]] = [
    (
        FULL,
        block(
            105, 33, data=Payload(155, 9),
            bitmaps=(
                BlockBitmap("x", 512, 1, Payload(115, 8)),
                BlockBitmap("y", None, None, Payload(135, 4)),
            ),
        ),
    ),
    (block(2, 7, sectors=100, sectors_min=50), block(7, 33, sectors=100, sectors_min=50)),
    (Progress(2, 8, "block", 50, 6), Progress(7, 8, "block", 33, 6)),
    (bits(2, 7, 8), bits(7, 33, 44)),
    (bits(2, 7, 8, bits=Payload(30, 16)), bits(7, 33, 44, bits=Payload(35, 16))),
    (Eos(2, 8, "block", 5), Eos(7, 8, "block", 5)),
    (CommandEvent(2, 5, None, 1, b"x", 9), CommandEvent(7, 5, None, 1, b"x", 9)),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(MOVED)))
def test_moved(case: int) -> None:
    event, expected = MOVED[case]
    assert moved(event, 5, 33, 44) == expected


def test_fields_behind_the_offset() -> None:
    assert behind_offset(Footer)(Footer(5, 1, "block", 7)) == (1, "block", 7)


def test_iteration() -> None:
    """Of each kind: with numbers, with counts, without."""
    assert list(column(block(5, 1), [5, 25], [1, 9])) == [block(5, 1), block(25, 9)]
    assert list(column(Eos(5, 8, None, 2), [5, 13])) == [Eos(5, 8, None, 2), Eos(13, 8, None, 2)]
    counts = np.array([3, 4], np.int64)
    found = column_of(bits(0), np.array([10, 30]), np.array([1, 2]), counts)
    assert list(found) == [bits(10, 1, 3), bits(30, 2, 4)]
    assert found.event == bits(10, 1, 3)


def parts_of(found: Column) -> tuple[Any, ...]:
    lists = [
        None if a is None else a.tolist() for a in (found.offsets, found.numbers, found.counts)
    ]
    return found.event, *lists, [each.tolist() for each in found.bits]


def test_parts_of_a_column() -> None:
    raw = np.arange(8, dtype=np.uint8).reshape(4, 2)
    whole = Column(
        bits(10, 1, 5), np.array([10, 20, 30, 40]), np.array([1, 2, 3, 4]), np.array([5, 6, 7, 8]),
        (raw,),
    )  # fmt: skip
    assert whole.rows == 4
    assert parts_of(whole.part(slice(1, 3))) == (
        bits(20, 2, 6), [20, 30], [2, 3], [6, 7], [[[2, 3], [4, 5]]]
    )  # fmt: skip
    plain = column(Eos(5, 8, None, 2), [5, 13])
    assert parts_of(plain.part(slice(1, 2))) == (Eos(13, 8, None, 2), [13], None, None, [])


def run() -> Run:
    """Records of two devices and progress, in no fixed order."""
    return Run(
        (
            column(block(0, 5), [0, 30, 40], [5, 6, 7]),
            column(block(10, 1, device="e"), [10, 20], [1, 2]),
            column(Progress(50, 8, "block", 9, 4), [50], [9]),
        ),
        58,
    )


IN_ORDER = [
    block(0, 5), block(10, 1, device="e"), block(20, 2, device="e"), block(30, 6), block(40, 7),
    Progress(50, 8, "block", 9, 4),
]  # fmt: skip


def test_order() -> None:
    found = run()
    assert (found.start, found.end, len(found)) == (0, 58, 6)
    assert found.order().tolist() == [0, 1, 1, 0, 0, 2]
    assert list(found) == IN_ORDER
    assert list(found.merged(["adf", "bc", "x"])) == list("abcdfx")
    one = Run(found.columns[:1], 50)
    assert one.order().tolist() == [0, 0, 0]
    assert list(one.merged(["abc"])) == list("abc")
    assert list(one) == list(found.columns[0])


@pytest.mark.parametrize("number", range(1, 8))
def test_the_first_events(number: int) -> None:
    found = run().first(number)
    assert list(found) == IN_ORDER[:number]
    assert found.end == [0, 10, 20, 30, 40, 50, 58][min(number, 6)]
    assert len(found) == min(number, 6)


@pytest.mark.parametrize("place", range(7))
def test_events_before_and_since(place: int) -> None:
    offset = [0, 10, 20, 30, 40, 50, 58][place]
    before, since = run().before(offset), run().since(offset)
    for found, events, end in ((before, IN_ORDER[:place], offset), (since, IN_ORDER[place:], 58)):
        if not events:
            assert found is None
        else:
            assert found is not None
            assert (list(found), found.end, found.start) == (events, end, events[0].offset)
            firsts = [each.event.offset for each in found.columns]
            assert firsts == sorted(firsts)


def test_columns_after_a_cut_are_in_order() -> None:
    """That which was first may have its next event later than the others."""
    found = run().since(10)
    assert found is not None
    assert [each.event.offset for each in found.columns] == [10, 30, 50]


def test_without_bits() -> None:
    raw = np.zeros((1, 8), np.uint8)
    whole = Run((Column(bits(5), np.array([5]), np.array([0]), np.array([1]), (raw,)),), 18)
    found = whole.without_bits()
    assert found.end == 18
    assert found.columns[0].bits == ()
    assert list(found) == list(whole)


def test_consumers_of_events() -> None:
    seen: list[Event] = []

    class Consumer(EventConsumer):
        def feed(self, event: Event, source: object) -> None:
            assert source is given
            seen.append(event)

    given = in_file(b"")
    Consumer().feed_run(run(), given)
    assert seen == IN_ORDER
    assert list(expand([Eos(0, 8, None, 2), run(), Footer(58, 5, None, 1)])) == [
        Eos(0, 8, None, 2), *IN_ORDER, Footer(58, 5, None, 1)
    ]  # fmt: skip
    with pytest.raises(NotImplementedError):
        EventConsumer().feed(Eos(0, 8, None, 2), given)


BITMAP = BlockBitmap("x", 512, 1, Payload(0, 0))


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (block(), False),
        (block(data=Payload(0, 9)), True),
        (block(bitmaps=(BITMAP,)), True),
        (bits(), False),
        (bits(bits=Payload(0, 8)), True),
        (Eos(0, 8, None, 2), False),
        (Progress(0, 8, None, 0, 4), False),
    ],
)
def test_payloads(event: Event, payload: bool) -> None:
    assert has_payload(event) is payload


def test_records_by_device() -> None:
    held = column(block(60, 3, flags=0x21, bitmaps=(BITMAP,)), [60], [3])
    whole = Run((*run().columns, held, column(bits(70), [70], [0])), 80)
    a, b, *_ = whole.columns
    assert blocks_of(whole) == {"d": [a], "e": [b]}
    assert blocks_of(whole, content=False) == {"d": [a, held], "e": [b]}


def test_bits_by_bitmap() -> None:
    first, second = column(bits(10), [10], [0]), column(bits(40, 5), [40], [5])
    other = column(bits(25, bitmap="c"), [25], [0])
    found = bits_of(Run((column(block(), [0], [0]), first, other, second), 53))
    assert {key: (part.columns, part.end) for key, part in found.items()} == {
        ("d", "b"): ((first, second), 53), ("d", "c"): ((other,), 53)
    }  # fmt: skip


def test_records_past_the_end() -> None:
    assert is_past(column(block(sectors=0), [0], [0]))
    assert not is_past(column(block(sectors=1), [0], [0]))
    assert not is_past(column(Eos(0, 8, None, 2), [0]))


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (block(50, 99), True),
        (block(device="e"), False),
        (block(flags=1), False),
        (block(sectors=5), False),
        (block(sectors_min=5), False),
        (block(dialect="v2"), False),
        (block(data=Payload(0, 9)), False),
        (block(bitmaps=(BITMAP,)), False),
    ],
)
def test_columns_that_differ_in_nothing_else(other: Block, same: bool) -> None:
    one, two = column(block(), [0], [0]), column(other, [50], [0])
    assert alike([one, two]) is same
    assert alike([two, one]) is same
    assert alike([one, column(block(), [0], [0]), two]) is same
    assert alike([two])


@pytest.mark.parametrize(("sector", "near"), [(NEAR - 1, True), (NEAR, True), (NEAR + 1, False)])
def test_byte_numbers_of_63_bits(sector: int, near: bool) -> None:
    assert NEAR == limits.DISK_MAX // 512 - (1 << 32)
    assert is_near([column(block(), [0, 1], [sector, 0])]) is near
    assert is_near([column(block(), [0], [0]), column(block(), [0], [sector])]) is near
    assert is_near([column(Progress(0, 8, None, 0, 4), [0], [sector])])
    assert is_near([])


def test_sectors_in_order() -> None:
    a, b, *_ = run().columns
    for columns, sectors, offsets in (
        ([a], [5, 6, 7], [0, 30, 40]),
        ([a, b], [5, 1, 2, 6, 7], [0, 10, 20, 30, 40]),
        ([b, a], [5, 1, 2, 6, 7], [0, 10, 20, 30, 40]),
    ):
        found = in_order(columns)
        assert [each.tolist() for each in found] == [sectors, offsets]


def test_the_last_record() -> None:
    assert last_block(run()) == block(40, 7)
    assert last_block(Run(run().columns[1:], 58)) == block(20, 2, device="e")
    assert last_block(Run(run().columns[2:], 58)) is None


def test_devices() -> None:
    assert device_of(block(device="e")) == "e"
    assert device_of(Eos(0, 8, None, 2)) is None
    assert device_of(run()) == "e"
    assert device_of(Run(run().columns[:1], 58)) == "d"
    assert device_of(Run(run().columns[2:], 58)) is None
    assert device_of(Run((column(bits(), [0], [0]),), 13)) is None


def test_laid_out_without_gaps() -> None:
    """By what were their offsets; of equal ones, the first column is the first."""
    a = column(block(7, 5), [7, 9, 9], [5, 6, 7])
    b = Column(bits(2, 1, 3), np.array([2, 9]), np.array([1, 2]), np.array([3, 4]))
    c = column(Eos(9, 8, None, 2), [9])
    found = laid_out([a, b, c], [10, 20, 30])
    assert found.end == 100
    assert list(found) == [
        bits(0, 1, 3), block(20, 5), block(30, 6), block(40, 7), bits(50, 2, 4), Eos(70, 8, None, 2)
    ]  # fmt: skip
    assert [each.event.offset for each in found.columns] == [0, 20, 70]
    assert laid_out([c], [30]).end == 30
