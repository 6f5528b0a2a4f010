"""The record of what an image holds."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.neighbours import Neighbours, device_kind, neighbours_of, remove
from blkmig_cli.disks.record import (
    Holding,
    Record,
    _time_in,
    discard_record,
    fits,
    read_record,
    write_record,
)
from blkmig_cli.errors import FailureError

HOLDING = Holding("01234567-89ab-cdef-0123-456789abcdef", "drive0")


def test_a_write_right_after_it_shows(tmp_path: Path) -> None:
    """However soon it comes, and although it leaves the size as it was."""
    image = tmp_path / "d.img"
    for _ in range(25):
        image.write_bytes(b"x")
        write_record(neighbours_of(str(image)), HOLDING)
        found = read_record(neighbours_of(str(image)))
        assert found is not None
        assert found.holding == HOLDING
        assert fits(found, str(image))
        image.write_bytes(b"y")
        assert not fits(found, str(image))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that are waited; they pass at once."""
    found: list[float] = []
    monkeypatch.setattr("blkmig_cli.disks.record.time.sleep", found.append)
    monkeypatch.setattr("blkmig_cli.disks.record.time.monotonic", lambda: 500.0 + sum(found))
    monkeypatch.setattr("blkmig_cli.disks.record.time.time", lambda: 1000.0 + sum(found))
    return found


@pytest.mark.parametrize(("before", "least", "most"), [
    (-(1 << 40), 0.02, 0.021), (0, 0.02, 0.021), (15, 0.005, 0.006), (19, 0.001, 0.002), (21, 0, 0),
    (500, 0, 0),
])  # fmt: skip
@pytest.mark.parametrize("clock", [0, 999_000_000_000])
def test_a_clock_that_cannot_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float], clock: int,
    before: int, least: float, most: float,
) -> None:  # fmt: skip
    """Or of a file server, that is wrong: it is not waited for as long as that.  ``before``: in ms."""
    monkeypatch.setattr("blkmig_cli.disks.record._time_in", lambda _: clock)
    image = tmp_path / "d.img"
    image.write_bytes(b"x")
    os.utime(image, ns=(0, 1_000_000_000_000 - before * 1_000_000))
    write_record(neighbours_of(str(image)), HOLDING)
    assert least - 1e-6 <= sum(waits) <= most + 1e-6


@pytest.mark.parametrize(("ticks", "waited"), [(0, 0.003), (1, 0.002), (3, 0), (5, 0)])
def test_the_clock_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float], ticks: int, waited: float
) -> None:
    """It must be past the modification time."""
    last = 1_000_000_000_000
    times = iter([last - 2, last - 1, last, last + 1][ticks:] or [last + 1])
    monkeypatch.setattr("blkmig_cli.disks.record._time_in", lambda _: next(times))
    image = tmp_path / "d.img"
    image.write_bytes(b"x")
    os.utime(image, ns=(0, last))
    write_record(neighbours_of(str(image)), HOLDING)
    assert sum(waits) == pytest.approx(waited)


def test_an_image_on_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    """The clock of its folder says nothing of it."""
    monkeypatch.setattr("blkmig_cli.disks.record._time_in", lambda _: 1 << 62)
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        if os.fstat(file.fileno()).st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is no other file system")
        os.utime(file.name, (1000, 1000))
        image = tmp_path / "d.img"
        image.symlink_to(file.name)
        write_record(neighbours_of(str(image)), HOLDING)
    assert sum(waits) == pytest.approx(0.02, abs=0.0011)


def test_the_time_in_a_folder(tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(b"x")
    assert _time_in(str(tmp_path)) >= image.stat().st_mtime_ns
    assert os.listdir(tmp_path) == ["d.img"]
    assert _time_in(str(tmp_path / "away")) == 0


def test_what_is_written(tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(b"abc")
    os.utime(image, ns=(0, 1_234_567_890))
    neighbours = neighbours_of(str(image))
    assert read_record(neighbours) is None
    write_record(neighbours, HOLDING)
    path = tmp_path / "d.img.blkmig.json"
    assert json.loads(path.read_text()) == {
        "version": 1, "id": HOLDING.id, "device": "drive0", "size": 3, "mtime-ns": 1_234_567_890,
    }  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == ["d.img", "d.img.blkmig.json"]
    record = read_record(neighbours)
    assert record == Record(HOLDING, 3, 1_234_567_890)
    assert fits(record, str(image))
    image.write_bytes(b"abcd")
    os.utime(image, ns=(0, 1_234_567_890))
    assert not fits(record, str(image))
    discard_record(neighbours)
    assert os.listdir(tmp_path) == ["d.img"]
    discard_record(neighbours)
    with pytest.raises(FailureError, match="away: No such file"):
        fits(record, str(tmp_path / "away"))
    with pytest.raises(FailureError, match="away: No such file"):
        write_record(neighbours_of(str(tmp_path / "away")), HOLDING)


GOOD: dict[str, Any] = {
    "version": 1, "id": HOLDING.id, "device": "d", "size": limits.DISK_MAX, "mtime-ns": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"mtime-ns": limits.DISK_MAX, "size": 0}, None),
        ({"version": 2}, "version 2, only 1 is known"),
        ({"id": "x"}, "'x' is not a UUID"),
        ({"id": HOLDING.id.upper().replace("0", "A")}, "is not a UUID"),
        ({"id": 1}, "id"),
        ({"device": None}, "device"),
        ({"size": limits.DISK_MAX + 1}, "size"),
        ({"size": -1}, "size"),
        ({"mtime-ns": limits.DISK_MAX + 1}, "mtime-ns"),
        ({"mtime-ns": "0"}, "mtime-ns"),
    ],
)
def test_records_that_are_damaged(
    tmp_path: Path, changes: dict[str, Any], fault: str | None
) -> None:
    document = GOOD | changes
    path = tmp_path / "d.img.blkmig.json"
    path.write_text(json.dumps(document))
    neighbours = neighbours_of(str(tmp_path / "d.img"))
    if fault is None:
        expected = Record(Holding(HOLDING.id, "d"), document["size"], document["mtime-ns"])
        assert read_record(neighbours) == expected
        return
    with pytest.raises(FailureError) as caught:
        read_record(neighbours)
    assert str(caught.value).startswith(f"{path} is not a record of an image: ")
    assert fault in str(caught.value)
    assert caught.value.hint == "remove it"


def test_a_record_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "d.img.blkmig.json"
    text = json.dumps(GOOD)
    neighbours = neighbours_of(str(tmp_path / "d.img"))
    path.write_text(text + " " * (limits.RECORD_MAX - len(text)))
    assert read_record(neighbours) is not None
    path.write_text(text + " " * (limits.RECORD_MAX - len(text) + 1))
    with pytest.raises(FailureError, match="is not a record of an image: it is over"):
        read_record(neighbours)


def test_exports_have_no_record(home: Path) -> None:
    uri = "nbd://localhost:99/x"
    neighbours = neighbours_of(uri)
    assert (neighbours.partial, neighbours.bitmaps, neighbours.identity) == (None, None, None)
    assert neighbours.temporary_identity is None
    assert neighbours.image == uri
    assert list(neighbours) == [neighbours.journal, neighbours.temporary_journal]
    assert neighbours.journal.startswith(str(home))
    assert neighbours.journal.endswith(".replay.json")
    assert neighbours.journal != neighbours_of("nbd://localhost:98/x").journal
    assert read_record(neighbours) is None
    write_record(neighbours, HOLDING)
    discard_record(neighbours)
    assert device_kind(uri) == "an NBD export"
    assert device_kind("/dev/sda") == "a block device"


def test_files_of_an_image(tmp_path: Path) -> None:
    image = str(tmp_path / "d")
    neighbours = neighbours_of(image)
    assert neighbours == Neighbours(
        image, image + ".replay.json", image + ".partial", image + ".bitmaps.json",
        image + ".blkmig.json",
    )  # fmt: skip
    assert list(neighbours) == [
        image + suffix
        for suffix in (".replay.json", ".replay.json.new", ".partial", ".bitmaps.json",
                       ".blkmig.json", ".blkmig.json.new")
    ]  # fmt: skip


def test_removing(tmp_path: Path) -> None:
    path = tmp_path / "d.partial"
    assert not remove(None)
    assert not remove(str(path))
    path.write_bytes(b"")
    assert remove(str(path))
    assert not path.exists()
    path.mkdir()
    with pytest.raises(FailureError):
        remove(str(path))


def test_an_image_that_is_one_of_its_own_files(tmp_path: Path) -> None:
    image, partial = tmp_path / "d", tmp_path / "d.partial"
    partial.write_bytes(b"")
    neighbours_of(str(image)).check()
    image.write_bytes(b"")
    neighbours_of(str(image)).check()
    image.unlink()
    image.symlink_to(partial)
    with pytest.raises(FailureError, match=r"d and .*d\.partial are the same file$"):
        neighbours_of(str(image)).check()
