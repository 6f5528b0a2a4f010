"""Writing records to images: what is written and when, what is compared, what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blkmig_cli import limits
from blkmig_cli.disks.raw import RawImage
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay import writer as module
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.operations.replay.history import History
from blkmig_cli.operations.replay.journal import Entry
from blkmig_cli.operations.replay.request import ReplayRequest
from blkmig_cli.operations.replay.superseded import Superseded
from blkmig_cli.operations.replay.verify import Verifier
from blkmig_cli.operations.replay.writer import Writer
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.text import human_size
from blkmig_cli.wire.events import Block, BlockBitmap, Payload
from tests.support.feed import in_file, piped
from tests.support.replays import MIB, filled, folder, here, put
from tests.support.strategies import MemoryImage

__all__ = ["folder"]

CHUNK = 2048
#: Five chunks of data, one after the other.
DATA = b"".join(map(filled, range(1, 6)))


def block(
    sector: int, number: int | None = None, *, device: str = "d", sectors: int = CHUNK,
    offset: int | None = None, **more: Any,
) -> Block:  # fmt: skip
    """A record of the ``number``-th chunk of data, or of zeros."""
    at = (number or 0) * MIB if offset is None else offset
    data = None if number is None else Payload(number * MIB, MIB)
    known: dict[str, Any] = {
        "flags": 9 if number is None else 1, "dialect": "classic", "bitmaps": (),
        "sectors_min": sectors,
    } | more  # fmt: skip
    return Block(at, 15, "block", device, sector, sectors, known["sectors_min"], known["flags"],
                 known["dialect"], data, known["bitmaps"])  # fmt: skip


@contextmanager
def writing(
    *, size: int | None = None, new: bool = True, kind: str = "pipe", verify: bool = False,
    superseded: Superseded | None = None,
) -> Iterator[tuple[Writer, Destination]]:  # fmt: skip
    found = Destination("x", size, ReplayRequest({"d": "x"}, create=new), None)
    found.open(lambda *_: None)
    found.bind("d", size)
    source = in_file(DATA) if kind == "file" else piped(DATA)
    if kind == "pipe":
        source.available(len(DATA))
    try:
        with Writer(source, superseded or Superseded(), verify=verify) as writer:
            yield writer, found
    finally:
        found.close()


def content() -> bytes:
    return Path("x.partial" if Path("x.partial").exists() else "x").read_bytes()


both_kinds = pytest.mark.parametrize("kind", ["file", "pipe"])


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """The writes and holes of images, in order."""
    done: list[tuple[str, int, int]] = []
    write, zero = RawImage.write, RawImage.zero

    def written(self: RawImage, offset: int, data: memoryview) -> None:
        done.append(("write", offset, len(data)))
        write(self, offset, data)

    def zeroed(self: RawImage, offset: int, length: int) -> None:
        done.append(("zero", offset, length))
        zero(self, offset, length)

    monkeypatch.setattr(RawImage, "write", written)
    monkeypatch.setattr(RawImage, "zero", zeroed)
    return done


# -- the end of the disk


@both_kinds
@pytest.mark.parametrize("size", [MIB, MIB + 512, 2 * MIB - 512, 2 * MIB])
def test_nothing_is_written_past_the_end(kind: str, size: int) -> None:
    with writing(size=size, kind=kind) as (writer, found):
        for number in range(3):
            writer.write(block(CHUNK * number, number), found)
        writer.drain()
        assert writer.written() == {"d": size}
        assert found.reception.length == size
    assert content() == DATA[:size]


@both_kinds
@pytest.mark.parametrize("size", [MIB, MIB + 512, 2 * MIB])
def test_no_zeros_are_written_past_the_end(kind: str, size: int) -> None:
    put(filled(9, 3 * MIB), "x")
    sectors = np.array([0, CHUNK, 2 * CHUNK])
    for rows in (False, True):
        put(filled(9, 3 * MIB), "x")
        with writing(size=size, new=False, kind=kind) as (writer, found):
            if rows:
                writer.write_zeros(block(0), np.array([0, 15, 30]), sectors, found)
            else:
                for at, sector in enumerate(sectors.tolist()):
                    writer.write(block(sector, offset=15 * at), found)
            writer.drain()
            assert writer.written() == {"d": size}
        assert content() == bytes(size) + filled(9, 3 * MIB - size)
        Path("x.replay.json").unlink()


@pytest.mark.parametrize("sector", [CHUNK, CHUNK + 1, 5 * CHUNK])
@pytest.mark.parametrize("rows", [True, False])
def test_an_image_that_is_smaller_than_its_disk(sector: int, rows: bool) -> None:
    """Where nothing states the size, the record that begins behind the image proves it."""
    put(filled(9, MIB + 512), "x")

    def write(writer: Writer, found: Destination) -> None:
        if rows:
            offsets, sectors = np.array([7, 22, 37]), np.array([0, sector, 9])
            writer.write_zeros(block(0, offset=7), offsets, sectors, found)
        else:
            writer.write(block(sector, offset=22), found)

    with writing(new=False) as (writer, found):
        if sector == CHUNK:
            write(writer, found)
            return
        with pytest.raises(FailureError) as error:
            write(writer, found)
    assert str(error.value) == (
        f"a record lies past the disk's end at byte {MIB + 512} (at byte 22, section 'block', "
        f"device 'd', sector {sector}); use a larger image, or check --device-size"
    )


def test_a_record_behind_a_disk_of_stated_size() -> None:
    """It is a finding, and no error of the image."""
    put(filled(9, MIB), "x")
    with writing(size=MIB, new=False) as (writer, found):
        writer.write(block(9 * CHUNK, 1), found)
        writer.write_zeros(block(9 * CHUNK), np.array([0]), np.array([9 * CHUNK]), found)
        writer.drain()
    assert content() == filled(9, MIB)


BITMAPS = (BlockBitmap("b", 65536, None, Payload(0, 0)),)


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ({"dialect": "v2", "bitmaps": BITMAPS}, True),
        ({"dialect": "v1", "bitmaps": BITMAPS}, False),
        ({"dialect": "v2"}, False),
        ({"dialect": "v2", "bitmaps": BITMAPS, "sectors_min": 5}, False),
    ],
)
def test_a_record_that_states_its_length(more: dict[str, Any], refused: bool) -> None:
    put(filled(9, MIB - 512), "x")
    with writing(new=False) as (writer, found):
        if not refused:
            writer.write(block(0, 0, **more), found)
            writer.drain()
            assert content() == filled(1, MIB - 512)
            return
        with pytest.raises(FailureError) as error:
            writer.write(block(0, 0, **more), found)
    assert str(error.value) == (
        f"the disk reaches byte {MIB}, x has {MIB - 512} "
        "(at byte 0, section 'block', device 'd', sector 0); enlarge the image"
    )


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("more", [0, 1])
def test_how_far_an_image_grows(rows: bool, more: int) -> None:
    last = limits.GROWTH_MAX // 512 - CHUNK + more

    def write(writer: Writer, found: Destination) -> None:
        if rows:
            offsets, sectors = np.array([7, 22, 37]), np.array([0, last, 9])
            writer.write_zeros(block(0, offset=7), offsets, sectors, found)
        else:
            writer.write(block(last, offset=22), found)

    with writing() as (writer, found):
        if not more:
            write(writer, found)
            return
        with pytest.raises(FailureError) as error:
            write(writer, found)
    assert str(error.value) == (
        f"x would grow to {human_size(limits.GROWTH_MAX + 512)} (at byte 22, section 'block', "
        f"device 'd', sector {last}); if this is intended, specify --device-size"
    )
    assert here() == {}


# -- holes


@pytest.mark.parametrize(
    ("sectors", "holes"),
    [
        ([0, 1, 2], [(0, 3)]),
        ([2, 1, 0], [(0, 3)]),
        ([1, 2, 0], [(0, 3)]),
        ([0, 2], [(0, 1), (2, 1)]),
        ([0, 2, 1], [(0, 1), (1, 2)]),
        ([0, 0], [(0, 1), (0, 1)]),
    ],
)
def test_neighbouring_zeros(
    steps: list[tuple[str, int, int]], sectors: list[int], holes: list[tuple[int, int]]
) -> None:
    """One by one, each with the one before."""
    put(filled(9, 3 * MIB), "x")
    with writing(new=False) as (writer, found):
        for sector in sectors:
            writer.write(block(sector * CHUNK), found)
        assert len(steps) == len(holes) - 1
        writer.drain()
        assert writer.written() == {"d": len(set(sectors)) * MIB}
    assert steps == [("zero", at * MIB, length * MIB) for at, length in holes]


@pytest.mark.parametrize(
    ("sector", "first"), [(0, True), (CHUNK - 1, True), (CHUNK, None), (2 * CHUNK, None)]
)
def test_data_over_zeros(
    steps: list[tuple[str, int, int]], sector: int, first: bool | None
) -> None:
    """The hole comes first where they overlap."""
    with writing(size=4 * MIB) as (writer, found):
        writer.write(block(0), found)
        writer.write(block(sector, 4), found)
        if first:
            assert steps[0] == ("zero", 0, MIB)
        writer.drain()
    expected = bytearray(4 * MIB)
    expected[sector * 512 : sector * 512 + MIB] = filled(5)
    assert content() == expected


def test_zeros_of_two_disks(steps: list[tuple[str, int, int]]) -> None:
    """They are no neighbours."""
    put(filled(9, 3 * MIB), "x")
    put(filled(9, 3 * MIB), "y")
    other = Destination("y", None, ReplayRequest({"e": "y"}), None)
    other.open(lambda *_: None)
    with writing(new=False) as (writer, found):
        writer.write(block(0), found)
        writer.write(block(CHUNK, device="e"), other)
        writer.write(block(CHUNK), found)
        writer.drain()
        assert writer.written() == {"d": 2 * MIB, "e": MIB}
    other.close()
    assert sorted(steps) == [("zero", 0, MIB), ("zero", MIB, MIB), ("zero", MIB, MIB)]
    assert Path("y").read_bytes() == filled(9) + bytes(MIB) + filled(9)


@pytest.mark.parametrize("few", [1, 2, 3])
@pytest.mark.parametrize("dirty", [True, False])
def test_holes_of_an_empty_image(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int, int]], few: int, dirty: bool
) -> None:
    """If there are more than a few, and only holes, none is punched."""
    monkeypatch.setattr(module, "_FEW", few)
    with open("x", "wb") as file:
        file.truncate(6 * MIB)
        if dirty:
            file.seek(3 * MIB)
            file.write(b"\1")
    sectors = np.array([4 * CHUNK, 0, 2 * CHUNK])
    with writing(size=6 * MIB, new=False) as (writer, found):
        writer.write_zeros(block(0), np.array([0, 15, 30]), sectors, found)
        writer.drain()
        assert writer.written() == {"d": 3 * MIB}
        assert found.reception.length == MIB
    punched = few == 3 or dirty
    assert steps == ([("zero", at * MIB, MIB) for at in (0, 2, 4)] if punched else [])
    assert (content()[3 * MIB] == 1) is dirty


def test_holes_at_the_end_of_a_new_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches to the end of the last one."""
    monkeypatch.setattr(module, "_FEW", 1)
    with writing() as (writer, found):
        sectors = np.array([2 * CHUNK, 4 * CHUNK])
        writer.write_zeros(block(0), np.array([0, 15]), sectors, found)
        assert Path("x.partial").stat().st_size == 5 * MIB
        writer.drain()


@pytest.mark.parametrize("why", ["verify", "differing"])
def test_holes_that_are_punched_all_the_same(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int, int]], why: str
) -> None:
    """Where they are read back, or a part of the image is not yet as it was left."""
    monkeypatch.setattr(module, "_FEW", 1)
    with writing(size=6 * MIB, verify=why == "verify") as (writer, found):
        if why == "differing":
            found.history = History("j", Entry("writing", True, None))
            image: Any = MemoryImage(b"")  # it is never as it was
            found.history.compare(block(5 * CHUNK), in_file(DATA), image, 5 * MIB, 6 * MIB)
            assert found.history.differing
        sectors = np.array([0, 2 * CHUNK])
        writer.write_zeros(block(0), np.array([0, 15]), sectors, found)
        writer.drain()
    assert steps == [("zero", 0, MIB), ("zero", 2 * MIB, MIB)]


def test_rows_of_zeros_that_are_superseded(steps: list[tuple[str, int, int]]) -> None:
    superseded = Superseded()
    covered = IntervalSet()
    for offset, sector in ((0, 0), (15, CHUNK), (30, 0)):
        superseded.feed(block(sector, offset=offset), covered)
        covered.add(sector, sector + CHUNK)
    put(filled(9, 3 * MIB), "x")
    with writing(new=False, superseded=superseded, kind="file") as (writer, found):
        writer.write_zeros(block(0), np.array([0, 15]), np.array([0, CHUNK]), found)
        writer.write(block(0, 3, offset=30), found)
        writer.write(block(0, 4, offset=5), found)
        writer.drain()
    assert sorted(step for step in steps if step[0] == "zero") == [("zero", MIB, MIB)]
    assert content() == filled(4) + bytes(MIB) + filled(9)


# -- what an earlier run has applied


@both_kinds
@pytest.mark.parametrize("changed", [False, True])
def test_what_was_applied_is_compared(kind: str, changed: bool) -> None:
    records = [block(0, 0), block(CHUNK, offset=MIB), block(2 * CHUNK, 2)]
    with writing(size=5 * MIB, kind=kind) as (writer, found):
        for record in records:
            writer.write(record, found)
        writer.drain()
        found.save(3 * MIB)
    if changed:
        with open("x.partial", "r+b") as file:
            file.seek(5)
            file.write(b"\7")
    found = Destination("x", 5 * MIB, ReplayRequest({"d": "x"}, create=True, resume=True), None)
    found.open(lambda *_: None)
    source = in_file(DATA) if kind == "file" else piped(DATA)
    source.available(len(DATA))
    with Writer(source, Superseded()) as writer:
        writer.write(records[0], found)
        writer.write_zeros(block(CHUNK), np.array([MIB]), np.array([CHUNK]), found)
        writer.write(records[2], found)
        writer.write(block(3 * CHUNK, 3), found)
        writer.drain()
        assert writer.written() == {"d": MIB}
        if changed:
            with pytest.raises(FailureError, match=f"is of another image: bytes 0-{MIB} are not"):
                found.complete()
        else:
            found.complete()
    found.close()
    assert content()[3 * MIB : 4 * MIB] == filled(4)


# -- when it is put on stable storage


def test_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many bytes; a hole counts little, but not nothing."""
    monkeypatch.setattr(module, "_CHECKPOINT", 2 * MIB)
    with writing(size=5 * MIB) as (writer, found):
        writer.write(block(0, 0), found)
        assert not writer.due
        writer.write(block(CHUNK, 1), found)
        assert writer.due
        writer.drain()
        assert not writer.due
    monkeypatch.setattr(module, "_CHECKPOINT", 12 << 10)
    Path("x.partial").unlink()
    Path("x.replay.json").unlink()
    with writing(size=5 * MIB) as (writer, found):
        for number in range(3):
            assert not writer.due
            writer.write(block(2 * CHUNK - number * CHUNK), found)
        assert writer.due
        writer.drain()
        writer.write_zeros(block(0), np.array([0]), np.array([0]), found)
        assert not writer.due
        writer.write_zeros(block(0), np.array([0, 15]), np.array([2 * CHUNK, 4 * CHUNK]), found)
        assert writer.due


def test_rows_that_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where none needs to be punched."""
    monkeypatch.setattr(module, "_CHECKPOINT", 20 * 4096)
    for number, due in ((19, False), (20, True)):
        with writing(size=64 * MIB) as (writer, found):
            rows = np.arange(number)
            writer.write_zeros(block(0), rows * 15, rows * 2 * CHUNK, found)
            assert writer.due is due
        Path("x.partial").unlink()
        Path("x.replay.json").unlink()


@both_kinds
@pytest.mark.parametrize("number", [None, 2])
def test_a_failure_names_its_record(
    kind: str, number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise FailureError("broken", hint="do something")

    for name in ("write", "zero", "write_part"):
        monkeypatch.setattr(RawImage, name, fail)
    with writing(size=5 * MIB, kind=kind) as (writer, found):
        with pytest.raises(FailureError) as error:
            write_and_drain(writer, block(CHUNK, number, offset=99), found)
        assert str(error.value) == (
            f"broken (at byte 99, section 'block', device 'd', sector {CHUNK}); do something"
        )
        assert writer.written() == {"d": 0}


def write_and_drain(writer: Writer, record: Block, found: Destination) -> None:
    writer.write(record, found)
    writer.drain()


# -- reading back


@both_kinds
def test_verifying(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is overwritten is read back before; each byte once."""
    checked: list[str] = []
    original = Verifier.check

    def check(self: Verifier) -> None:
        checked.append("check")
        original(self)

    monkeypatch.setattr(Verifier, "check", check)
    with writing(size=5 * MIB, kind=kind, verify=True) as (writer, found):
        writer.write(block(0, 0), found)
        writer.write(block(CHUNK, 1), found)
        writer.write(block(2 * CHUNK), found)
        assert checked == []
        writer.write(block(CHUNK, 3), found)
        assert checked == ["check"]
        writer.drain()
        assert checked == ["check", "check"]
    assert content() == filled(1) + filled(4) + bytes(3 * MIB)


def test_the_entry_in_the_journal_is_of_what_is_drained() -> None:
    with writing(size=5 * MIB) as (writer, found):
        writer.write(block(0), found)
        assert found.reception.length == 0
        writer.drain()
        assert found.reception.in_entry(Entry("writing", True, None)).received == MIB
