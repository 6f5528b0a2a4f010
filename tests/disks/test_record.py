"""The record of what an image holds."""

import os
from pathlib import Path

import pytest

from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.disks.record import Holding, fits, read_record, write_record

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


def test_a_clock_that_is_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a file server, for example: it is not waited for as long as it is ahead."""
    waits: list[float] = []
    monkeypatch.setattr("blkmig_cli.disks.record.time.sleep", waits.append)
    image = tmp_path / "d.img"
    image.write_bytes(b"x")
    os.utime(image, (1 << 33, 1 << 33))
    write_record(neighbours_of(str(image)), HOLDING)
    assert 0.01 < sum(waits) < 0.1
