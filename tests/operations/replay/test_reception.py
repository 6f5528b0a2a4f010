"""What an image has received: only what comes from its start without a gap counts."""

import hashlib

import pytest

from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay.journal import Entry
from blkmig_cli.operations.replay.reception import Reception
from blkmig_cli.ranges import IntervalSet
from tests.support.strategies import MemoryImage

MIB = 1 << 20


def ranges(*pairs: tuple[int, int]) -> IntervalSet:
    found = IntervalSet()
    for start, end in pairs:
        found.add(start, end)
    return found


@pytest.mark.parametrize(
    ("before", "written", "length"),
    [
        (0, [], 0),
        (0, [(0, 10)], 10),
        (0, [(1, 10)], 0),
        (0, [(0, 10), (11, 20)], 10),
        (10, [(10, 20)], 20),
        (10, [(5, 20)], 20),
        (10, [(11, 20)], 10),
        (10, [(0, 5)], 10),
        (10, [(0, 10)], 10),
    ],
)
def test_what_counts(before: int, written: list[tuple[int, int]], length: int) -> None:
    reception = Reception("d", before)
    reception.add(ranges(*written))
    assert reception.length == length


def test_in_a_journal_and_back() -> None:
    entry = Reception("d", 10, True).in_entry(Entry("writing", True, 99))
    assert entry == Entry("writing", True, 99, device="d", received=10, bitmaps=True)
    reception = Reception()
    assert (reception.device, reception.length, reception.bitmaps) == (None, 0, False)
    reception.restore(entry)
    assert reception == Reception("d", 10, True)


def test_its_digest() -> None:
    """Of the first bytes; the ticks are of the device."""
    image = MemoryImage(b"\1" * MIB + b"\2" * MIB)
    ticks = []

    def tick(done: int, disk: str | None = None) -> None:
        ticks.append((done, disk))

    whole = Reception("d", MIB + 512, True).read(image, tick)  # type: ignore[arg-type]
    assert whole is not None
    assert (whole.device, whole.length, whole.bitmaps) == ("d", MIB + 512, True)
    assert ticks
    assert {disk for _, disk in ticks} == {"d"}
    other = MemoryImage(b"\1" * MIB + b"\2" * 512 + b"\3" * 512)
    again = Reception("d", MIB + 512).read(other, tick)  # type: ignore[arg-type]
    assert again is not None
    assert (again.digest, again.bitmaps) == (whole.digest, False)
    longer = Reception("d", MIB + 513).read(other, tick)  # type: ignore[arg-type]
    assert longer is not None
    assert longer.digest != whole.digest
    assert len(whole.digest) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize(
    ("reception", "image"),
    [
        (Reception("d", 10), None),
        (Reception("d", 0), MemoryImage(bytes(20))),
        (Reception(None, 10), MemoryImage(bytes(20))),
    ],
)
def test_nothing_received(reception: Reception, image: MemoryImage | None) -> None:
    assert reception.read(image, lambda *_: None) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [9, 10])
def test_an_image_that_has_become_smaller(size: int) -> None:
    reception, image = Reception("d", 10), MemoryImage(bytes(size))
    if size == 10:
        assert reception.read(image, lambda *_, disk: None) is not None  # type: ignore[arg-type]
        return
    with pytest.raises(FailureError) as error:
        reception.read(image, lambda *_, disk: None)  # type: ignore[arg-type]
    assert str(error.value) == ("memory has 9 bytes, 10 were received; use --restart to start over")
