"""The records applied to an image: how a stream and an image are recognized; when the journal is written."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.disks.image import Image
from blkmig_cli.disks.new_image import create_partial
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay.history import History
from blkmig_cli.operations.replay.journal import NO_RECORDS, Entry
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.wire.events import Block, Payload
from tests.support.feed import in_file
from tests.support.long import examples

MIB = 1 << 20
CHUNK = 2048
#: Bytes of a record of data in these streams, which are nothing but data.
DATA = bytes([1]) * MIB + bytes([2]) * MIB + bytes([3]) * MIB + bytes([4]) * MIB
SOURCE = in_file(DATA)


def zeros(sector: int, offset: int, device: str = "d") -> Block:
    return Block(offset, 15, "block", device, sector, CHUNK, CHUNK, 9, "classic", None, ())


def data(sector: int, number: int) -> Block:
    """The record whose data are the ``number``-th MiB; it begins at that byte."""
    at = number * MIB
    return Block(at, MIB, "block", "d", sector, CHUNK, CHUNK, 1, "classic", Payload(at, MIB), ())


def entry_of(history: History, position: int, state: str = "writing") -> Entry:
    entry = history.entry("writing", position, None)
    assert entry is not None
    return Entry(
        state,  # type: ignore[arg-type]
        entry.new, 4 * MIB, entry.position, entry.records, entry.data_records, entry.digest,
    )  # fmt: skip


@given(
    st.lists(st.integers(0, 1 << 50), min_size=1, max_size=40),
    st.integers(0, 40),
    st.text(max_size=5),
)
@pytest.mark.scaled
@settings(max_examples=examples(23, 500))
def test_rows_of_zeros_count_as_records_do(sectors: list[int], done: int, device: str) -> None:
    """By rows or one by one: the same digest, and the same records have been applied."""
    offsets = [100 + 15 * row for row in range(len(sectors))]
    one = History("j")
    for sector, offset in zip(sectors, offsets, strict=True):
        assert not one.add(zeros(sector, offset, device), SOURCE)
    rows = History("j")
    first = zeros(sectors[0], offsets[0], device)
    assert rows.add_zeros(first, np.array(offsets), np.array(sectors)) == 0
    assert rows.entry("writing", 10**6, None) == one.entry("writing", 10**6, None)

    part = History("j")
    done = min(done, len(sectors))
    for sector, offset in zip(sectors[:done], offsets[:done], strict=True):
        part.add(zeros(sector, offset, device), SOURCE)
    before = part.entry("writing", 100 + 15 * done, None)
    resumed = History("j", before)
    assert resumed.add_zeros(first, np.array(offsets), np.array(sectors)) == done
    assert resumed.entry("writing", 10**6, None) == (
        one.entry("writing", 10**6, None) if done < len(sectors) else None
    )
    resumed.end()
    assert resumed.entry("writing", 10**6, None) == one.entry("writing", 10**6, None)


@pytest.mark.parametrize(
    "changed",
    [
        zeros(0, 16),
        zeros(1, 15),
        zeros(0, 15, "e"),
        Block(15, 15, "block", "d", 0, CHUNK, CHUNK, 11, "classic", None, ()),
        data(0, 0),
    ],
)
def test_another_record_is_another_stream(changed: Block) -> None:
    history = History("j")
    history.add(zeros(0, 15), SOURCE)
    resumed = History("j", entry_of(history, 30))
    resumed.add(changed, SOURCE)
    with pytest.raises(FailureError, match="j is of another stream than this"):
        resumed.end()


def test_fewer_records_are_another_stream() -> None:
    history = History("j")
    history.add(zeros(0, 15), SOURCE)
    with pytest.raises(FailureError, match="another stream"):
        History("j", entry_of(history, 30)).end()


def test_a_finished_one_that_goes_on_is_another_stream() -> None:
    history = History("j")
    history.add(zeros(0, 15), SOURCE)
    resumed = History("j", entry_of(history, 30, "finished"))
    assert resumed.add(zeros(0, 15), SOURCE)
    with pytest.raises(FailureError, match="another stream"):
        resumed.add(zeros(2048, 30), SOURCE)


def test_no_records() -> None:
    entry = History("j", new=True).entry("writing", 1000, None)
    assert entry == Entry("writing", True, None, 0, 0, 0, NO_RECORDS)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    made = create_partial(str(tmp_path / "disk"))
    made.resize(4 * MIB)
    for number in range(4):
        made.write(number * MIB, memoryview(DATA)[number * MIB : (number + 1) * MIB])
    return made


def resumed_history(
    records: list[Block], *, overlaps: IntervalSet | None = None, state: str = "writing",
    thorough: bool = False,
) -> History:  # fmt: skip
    history = History("j")
    for record in records:
        history.add(record, SOURCE)
    before = entry_of(history, 4 * MIB, state)
    return History("j", before, later_overlaps=overlaps, thorough=thorough)


def follow(history: History, records: list[Block], image: Image) -> None:
    for record in records:
        assert history.add(record, SOURCE)
        start = record.sector * 512
        history.compare(record, SOURCE, image, start, start + MIB)


NEXT = zeros(0, 4 * MIB)


def test_the_journal_waits_until_stream_and_image_are_proven(image: Image) -> None:
    """While records of an earlier run come again, and while samples differ."""
    records = [data(CHUNK * number, number) for number in range(4)]
    image.write(MIB, memoryview(bytes(512)))  # a pipe: perhaps it comes again
    history = resumed_history(records)
    for number, record in enumerate(records):
        assert history.entry("writing", number * MIB, None) is None
        follow(history, [record], image)
    assert not history.add(NEXT, SOURCE)
    assert history.entry("writing", 5 * MIB, None) is None
    with pytest.raises(FailureError, match=f"of another image: bytes {MIB}-{2 * MIB}"):
        history.end()
    history.wrote(MIB, MIB + 512)
    with pytest.raises(FailureError, match=f"bytes {MIB + 512}-{2 * MIB}"):
        history.end()
    history.wrote(MIB, 2 * MIB)
    history.end()
    assert history.entry("writing", 5 * MIB, None) is not None


def test_from_a_file_the_image_is_refused_before_it_is_written(image: Image) -> None:
    records = [data(CHUNK * number, number) for number in range(4)]
    image.write(MIB, memoryview(bytes(512)))
    history = resumed_history(records, overlaps=IntervalSet())
    follow(history, records, image)
    with pytest.raises(FailureError, match="of another image"):
        history.add(NEXT, SOURCE)
    # Unless a later record may have overwritten just that.
    overlaps = IntervalSet()
    overlaps.add(MIB + 100, MIB + 200)
    history = resumed_history(records, overlaps=overlaps)
    follow(history, records, image)
    assert not history.add(NEXT, SOURCE)
    with pytest.raises(FailureError, match="of another image"):
        history.end()


def test_from_a_pipe_an_image_without_any_of_the_data_is_refused_at_once(image: Image) -> None:
    records = [data(CHUNK * number, number) for number in range(4)]
    image.zero(0, 4 * MIB)
    history = resumed_history(records)
    follow(history, records, image)
    with pytest.raises(FailureError, match="of another image"):
        history.add(NEXT, SOURCE)


def test_the_last_record_of_a_place_counts(image: Image) -> None:
    records = [data(0, 3), data(CHUNK, 1), data(CHUNK * 2, 2), data(0, 0)]
    history = resumed_history(records, overlaps=IntervalSet(), thorough=True)
    for record in records:
        history.add(record, SOURCE)
        history.compare(record, SOURCE, image, record.sector * 512, record.sector * 512 + MIB)
    history.end()


def test_few_records_with_data_among_many_zeros_are_samples(tmp_path: Path) -> None:
    """Zeros prove little: an empty image holds all of them."""
    image = create_partial(str(tmp_path / "disk"))
    image.resize(1 << 40)
    rows = np.arange(300_000)
    offsets, sectors = 100 + rows * 15, rows * CHUNK
    history = History("j")
    history.add_zeros(zeros(0, 100), offsets, sectors)
    last = Block(
        10**7, MIB, "block", "d", CHUNK * 400_000, CHUNK, CHUNK, 1, "classic", Payload(0, MIB), ()
    )
    history.add(last, SOURCE)
    before = entry_of(history, 10**8)
    resumed = History("j", before, later_overlaps=IntervalSet())
    assert resumed.add_zeros(zeros(0, 100), offsets, sectors) == len(rows)
    resumed.compare_zeros(image, sectors * 512, sectors * 512 + MIB)
    assert resumed.add(last, SOURCE)
    resumed.compare(last, SOURCE, image, last.sector * 512, last.sector * 512 + MIB)
    with pytest.raises(FailureError, match="of another image"):
        resumed.end()


def test_zeros_that_are_none(image: Image) -> None:
    history = History("j")
    offsets, sectors = np.array([15, 30]), np.array([0, CHUNK])
    history.add_zeros(zeros(0, 15), offsets, sectors)
    for state, words in (
        ("writing", "of another image"),
        ("finished", "not as the replay left it"),
    ):
        resumed = History("j", entry_of(history, 45, state))
        assert resumed.add_zeros(zeros(0, 15), offsets, sectors) == 2
        resumed.compare_zeros(image, sectors * 512, sectors * 512 + MIB)
        with pytest.raises(FailureError, match=words):
            resumed.end()


def test_a_shorter_image(image: Image) -> None:
    records = [data(CHUNK * number, number) for number in range(4)]
    history = resumed_history(records, overlaps=IntervalSet())
    image.resize(3 * MIB)
    follow(history, records, image)
    with pytest.raises(FailureError, match="of another image"):
        history.end()


def test_all_records_are_samples_where_everything_is_compared(tmp_path: Path) -> None:
    """Otherwise one in 128 or fewer are."""
    image = create_partial(str(tmp_path / "disk"))
    image.resize(MIB * 400)
    image.write(MIB * 399 - 1, memoryview(b"\1"))
    rows = np.arange(400)
    offsets, sectors = 100 + rows * 15, rows * CHUNK
    history = History("j")
    history.add_zeros(zeros(0, 100), offsets, sectors)
    before = entry_of(history, 10**6, "finished")
    for thorough in (False, True):
        resumed = History("j", before, thorough=thorough)
        resumed.add_zeros(zeros(0, 100), offsets, sectors)
        resumed.compare_zeros(image, sectors * 512, sectors * 512 + MIB)
        if thorough:
            with pytest.raises(FailureError, match="not as the replay left it"):
                resumed.end()
        else:
            resumed.end()
