"""Which records count as applied, which of them are compared with the image, and what is said."""

import hashlib
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay import history as module
from blkmig_cli.operations.replay.history import History
from blkmig_cli.operations.replay.journal import NO_RECORDS, Entry, Stop
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.wire.events import Block, Payload
from tests.support.feed import in_file
from tests.support.strategies import MemoryImage

CHUNK, MIB = 2048, 1 << 20
DATA = b"".join(bytes([at]) * MIB for at in range(1, 9))
SOURCE = in_file(DATA)
AGAIN = "; check which belong together, or use --restart to start over"


def zeros(sector: int, offset: int, flags: int = 9, device: str = "d") -> Block:
    return Block(
        offset, 15, "block", device, sector, CHUNK, CHUNK, flags, "classic", None, ()
    )  # fmt: skip


def data(number: int, sector: int | None = None, length: int = MIB) -> Block:
    """The ``number``-th MiB of the source, at which its record begins."""
    at = number * MIB
    sector = number * CHUNK if sector is None else sector
    return Block(
        at, MIB, "block", "d", sector, CHUNK, CHUNK, 1, "classic", Payload(at, length), ()
    )  # fmt: skip


class Compared(MemoryImage):
    """An image that notes what of it is looked at."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.asked: list[int] = []

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append(offset // MIB)
        return super().read(offset, length)

    def is_zero(self, offset: int, length: int) -> bool:
        self.asked.append(offset // MIB)
        return super().is_zero(offset, length)


def image_of(content: bytes) -> Any:
    return Compared(content)


def entry_of(*records: Block, state: Any = "writing", position: int | None = None) -> Entry:
    """The journal of a run that has applied these records."""
    history = History("j")
    for record in records:
        history.add(record, SOURCE)
    end = records[-1].offset + 1 if records and position is None else position or 0
    found = history.entry(state, end, 5)
    assert found is not None
    return found


# -- the digest


def record(offset: int, sector: int, flags: int, head: int, device: bytes = b"d") -> bytes:
    return struct.pack("<QQII", offset, sector, flags, head) + device + b"\0"


def test_the_digest_of_records() -> None:
    """Places, flags, and the first bytes of data."""
    history = History("j")
    history.add(zeros(3, 77, 11, "é"), SOURCE)
    history.add(data(1), SOURCE)
    history.add(data(2, length=100), SOURCE)
    heads = [zlib.crc32(DATA[MIB : MIB + 4096]), zlib.crc32(DATA[2 * MIB : 2 * MIB + 100])]
    expected = hashlib.sha256(
        record(77, 3, 11, 0, "é".encode())
        + record(MIB, CHUNK, 1, heads[0])
        + record(2 * MIB, 2 * CHUNK, 1, heads[1])
    ).hexdigest()
    stop = Stop(1, 2, 3, False, (), ())
    assert history.entry("incomplete", 9 * MIB, 7, stop) == Entry(
        "incomplete", False, 7, 9 * MIB, 3, 2, expected, stop
    )


def test_the_digest_of_rows() -> None:
    history = History("j", new=True)
    offsets, sectors = np.array([15, 30]), np.array([CHUNK, 0])
    assert history.add_zeros(zeros(CHUNK, 15), offsets, sectors) == 0
    expected = hashlib.sha256(record(15, CHUNK, 9, 0) + record(30, 0, 9, 0)).hexdigest()
    assert history.entry("writing", 45, None) == Entry("writing", True, None, 45, 2, 0, expected)


def test_before_the_first_record() -> None:
    assert History("j").entry("writing", 99, 5) == Entry("writing", False, 5, 0, 0, 0, NO_RECORDS)


@pytest.mark.parametrize("new", [True, False])
def test_whether_the_image_is_new_stays(new: bool) -> None:
    """As the journal has it."""
    before = Entry("writing", new, 5)
    history = History("j", before, new=not new)
    history.end()
    entry = history.entry("writing", 0, 5)
    assert entry is not None
    assert entry.new is new


# -- what has been applied


@pytest.mark.parametrize(("position", "applied"), [(0, 0), (15, 0), (16, 1), (30, 1), (31, 2)])
def test_records_before_a_position(position: int, applied: int) -> None:
    offsets = [15, 30]
    before = entry_of(*(zeros(0, at) for at in offsets[:applied]), position=position)
    before = Entry(
        "writing", False, 5, position, before.records, before.data_records, before.digest
    )  # fmt: skip
    one, rows = History("j", before), History("j", before)
    assert one.resumed_at == position
    assert [one.add(zeros(0, at), SOURCE) for at in offsets] == [at < applied for at in range(2)]
    assert rows.add_zeros(zeros(0, 15), np.array(offsets), np.array([0, 0])) == applied
    for history in (one, rows):
        history.end()
        assert not history.finished
        assert history.entry("writing", 99, 5) == entry_of(
            *(zeros(0, at) for at in offsets), position=99
        )
    # What comes later has not been applied, whatever its place.
    assert one.add(zeros(0, 45), SOURCE) is False


def test_without_an_earlier_run() -> None:
    history = History("j")
    assert (history.resumed_at, history.finished, history.differing) == (None, False, False)
    assert history.add_zeros(zeros(0, 0), np.array([0, 15]), np.array([0, 0])) == 0


def test_a_finished_one_has_no_new_entry() -> None:
    before = entry_of(zeros(0, 15), state="finished", position=30)
    history = History("j", before)
    assert history.finished
    assert history.add(zeros(0, 15), SOURCE)
    history.end()
    assert history.entry("finished", 30, 5) is None
    refused: list[Any] = [
        lambda: history.add(zeros(0, 45), SOURCE),
        lambda: history.add_zeros(zeros(0, 45), np.array([45]), np.array([0])),
    ]
    for more in refused:
        with pytest.raises(FailureError) as error:
            more()
        assert str(error.value) == f"j is of another stream than this{AGAIN}"


# -- samples


@pytest.mark.parametrize(
    ("number", "compared"),
    [(1, [0]), (2, [0, 1]), (3, [0, 2]), (4, [0, 2]), (5, [0, 3]), (6, [0, 3]), (8, [0, 4])],
)
@pytest.mark.parametrize("thorough", [True, False])
def test_which_records_are_samples(
    monkeypatch: pytest.MonkeyPatch, number: int, compared: list[int], thorough: bool
) -> None:
    """At most so many, evenly, from the first; of data and of zeros each."""
    monkeypatch.setattr(module, "_SAMPLES", 2)
    every = list(range(number))
    wanted = every if thorough else compared
    records = [data(at) for at in every]
    image = image_of(DATA)
    history = History("j", entry_of(*records), thorough=thorough)
    for at, each in enumerate(records):
        history.add(each, SOURCE)
        history.compare(each, SOURCE, image, at * MIB, (at + 1) * MIB)
    history.end()
    assert image.asked == wanted

    records = [zeros(at * CHUNK, 15 * (at + 1)) for at in every]
    image = image_of(bytes(8 * MIB))
    history = History("j", entry_of(*records), thorough=thorough)
    for at, each in enumerate(records):
        history.add(each, SOURCE)
        history.compare(each, SOURCE, image, at * MIB, (at + 1) * MIB)
    history.end()
    assert image.asked == wanted

    image = image_of(bytes(8 * MIB))
    history = History("j", entry_of(*records), thorough=thorough)
    for first, last in ((0, number // 2), (number // 2, number)):
        rows = np.arange(first, last)
        if len(rows):
            history.add_zeros(records[first], 15 * (rows + 1), rows * CHUNK)
            history.compare_zeros(image, rows * MIB, (rows + 1) * MIB)
    history.end()
    assert image.asked == wanted


def test_samples_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAMPLES", 2)
    records = [data(0), zeros(CHUNK, MIB + 5), data(2), zeros(3 * CHUNK, 3 * MIB), data(4)]
    content = bytearray(DATA)
    for at in (1, 3):
        content[at * MIB : (at + 1) * MIB] = bytes(MIB)
    image = image_of(bytes(content))
    history = History("j", entry_of(*records))
    for at, each in enumerate(records):
        assert history.add(each, SOURCE)
        history.compare(each, SOURCE, image, at * MIB, (at + 1) * MIB)
    history.end()
    assert image.asked == [0, 1, 3, 4]


@pytest.mark.parametrize("kind", ["data", "zeros", "rows"])
@pytest.mark.parametrize(("size", "fits"), [(MIB - 512, False), (MIB, True)])
def test_an_image_that_is_shorter(kind: str, size: int, fits: bool) -> None:
    """Then it is not the image, though all that is there fits."""
    each = data(0) if kind == "data" else zeros(0, 15)
    image = image_of((DATA if kind == "data" else bytes(MIB))[:size])
    history = History("j", entry_of(each))
    history.add(each, SOURCE)
    if kind == "rows":
        history.compare_zeros(image, np.array([0]), np.array([MIB]))
    else:
        history.compare(each, SOURCE, image, 0, MIB)
    assert history.differing is not fits
    if fits:
        history.end()
        return
    with pytest.raises(FailureError) as error:
        history.end()
    assert str(error.value) == (
        f"j is of another image: bytes 0-{MIB} are not what was written{AGAIN}"
    )
    history.wrote(0, MIB)
    assert not history.differing
    history.end()


def test_a_finished_image_that_differs() -> None:
    before = entry_of(zeros(0, 15), state="finished")
    history = History("j", before)
    history.add(zeros(0, 15), SOURCE)
    history.compare(zeros(0, 15), SOURCE, image_of(DATA), 512, MIB)
    with pytest.raises(FailureError) as error:
        history.end()
    assert str(error.value) == (
        f"the image is not as the replay left it: bytes 512-{MIB} are not what was written{AGAIN}"
    )


def test_a_part_of_a_record() -> None:
    """Only what lies within the disk is compared."""
    image = image_of(DATA[: MIB - 512])
    history = History("j", entry_of(data(0)))
    history.add(data(0), SOURCE)
    history.compare(data(0), SOURCE, image, 0, MIB - 512)
    history.end()


@pytest.mark.parametrize("kind", ["data", "zeros", "rows"])
def test_a_sample_that_comes_again(kind: str) -> None:
    """The last record of a place counts."""
    wrong = data(1, 0)
    again = data(0, 0) if kind == "data" else zeros(0, 2 * MIB)
    image = image_of(DATA if kind == "data" else bytes(8 * MIB))
    history = History("j", entry_of(wrong, again, position=3 * MIB))
    history.add(wrong, SOURCE)
    history.compare(wrong, SOURCE, image, 0, MIB)
    assert history.differing
    if kind == "rows":
        history.add_zeros(again, np.array([2 * MIB]), np.array([0]))
        history.compare_zeros(image, np.array([0]), np.array([MIB]))
    else:
        history.add(again, SOURCE)
        history.compare(again, SOURCE, image, 0, MIB)
    assert not history.differing
    history.end()


# -- when it is certain


def overlapping(*pairs: tuple[int, int]) -> IntervalSet:
    found = IntervalSet()
    for start, end in pairs:
        found.add(start, end)
    return found


@pytest.mark.parametrize(
    ("overlaps", "wrong", "refused"),
    [
        # From a file it is known which samples a later record may have overwritten.
        (overlapping(), [1], 1),
        (overlapping((MIB + 5, MIB + 6)), [1], None),
        (overlapping((2 * MIB, 3 * MIB)), [1], 1),
        (overlapping((0, MIB)), [0, 2], 2),
        (overlapping(), [], None),
        # From a pipe, it is certain only if all samples of data differ.
        (None, [1], None),
        (None, [0, 1], None),
        (None, [], None),
    ],
)
def test_samples_that_differ(
    overlaps: IntervalSet | None, wrong: list[int], refused: int | None
) -> None:
    records = [data(at) for at in range(3)]
    content = bytearray(DATA)
    for at in wrong:
        content[at * MIB] ^= 1
    image = image_of(bytes(content))
    history = History("j", entry_of(*records), later_overlaps=overlaps)
    for at, each in enumerate(records):
        history.add(each, SOURCE)
        history.compare(each, SOURCE, image, at * MIB, (at + 1) * MIB)
    assert history.entry("writing", 9 * MIB, 5) is None
    if refused is not None:
        with pytest.raises(FailureError, match=rf"bytes {refused * MIB}-{(refused + 1) * MIB} "):
            history.add(zeros(0, 5 * MIB), SOURCE)
        return
    assert history.add(zeros(0, 5 * MIB), SOURCE) is False
    assert (history.entry("writing", 9 * MIB, 5) is None) == bool(wrong)


def test_all_samples_of_data_differ() -> None:
    """Those of neighbours are one range; zeros count for nothing."""
    records = [data(0), data(1), zeros(5 * CHUNK, 2 * MIB)]
    image = image_of(bytes(6 * MIB))
    history = History("j", entry_of(*records))
    for at, each in enumerate(records):
        history.add(each, SOURCE)
        history.compare(each, SOURCE, image, at * MIB, (at + 1) * MIB)
    with pytest.raises(FailureError, match=rf"bytes 0-{2 * MIB} are not what was written"):
        history.add(zeros(0, 5 * MIB), SOURCE)


def test_zeros_alone_are_never_certain_in_a_pipe() -> None:
    history = History("j", entry_of(zeros(0, 15)))
    history.add(zeros(0, 15), SOURCE)
    history.compare(zeros(0, 15), SOURCE, image_of(DATA), 0, MIB)
    assert history.add(zeros(0, 30), SOURCE) is False
    assert history.differing


@pytest.mark.parametrize("number", [0, 1, 3])
def test_another_number_of_records(number: int) -> None:
    before = entry_of(zeros(0, 15), zeros(0, 30))
    history = History("j", Entry(before.state, False, 5, 99, 2, 0, before.digest))
    for at in range(number):
        history.add(zeros(0, 15 * (at + 1)), SOURCE)
    with pytest.raises(FailureError) as error:
        history.end()
    assert str(error.value) == f"j is of another stream than this{AGAIN}"
