"""Where data lies in an image's file: what is said of a range is so, in whatever order ranges are asked."""

import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.disks.open import open_image
from blkmig_cli.disks.qemu import placement
from blkmig_cli.disks.qemu.placement import Placement
from blkmig_cli.errors import FailureError
from blkmig_cli.system.children import start_child
from tests.support.nbd import tool

Extent = tuple[int, int, int | None]
SIZE = 64


class Mapped(Placement):
    """A placement whose map is given: start, length, and place of extents."""

    def __init__(self, extents: list[Extent]) -> None:
        super().__init__("d.qcow2", {})
        self.extents_there = extents

    def _map(self) -> Generator[Extent, None, None]:
        yield from self.extents_there


@st.composite
def extents(draw: st.DrawFn) -> list[Extent]:
    edges = sorted(draw(st.sets(st.integers(0, SIZE), max_size=20)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    count = len(pairs)
    places = draw(st.lists(st.none() | st.integers(100, 900), min_size=count, max_size=count))
    return [(low, high - low, place) for (low, high), place in zip(pairs, places, strict=True)]


RANGES = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 12)), max_size=12)


def check(found: Placement, there: list[Extent], offset: int, length: int) -> None:
    """The parts of a range are the range; what is said of a place is so."""
    where = {
        start + at: None if place is None else place + at
        for start, size, place in there
        for at in range(size)
    }
    at = offset
    for start, part, place in found.split(offset, length):
        assert start == at
        assert part > 0
        at += part
        for byte in range(part if place is not None else 0):
            assert where[start + byte] == (place or 0) + byte
    assert at == offset + length


@given(extents(), RANGES, st.booleans(), st.integers(1, 9), st.integers(0, 3))
def test_ranges_that_are_asked_for(
    there: list[Extent], ranges: list[tuple[int, int]], ascending: bool, kept: int, each: int
) -> None:
    """Known data is all data, whatever was dropped or passed over."""
    data = {start + at for start, size, _ in there for at in range(size)}
    found = Mapped(there)
    with patch.multiple(placement, _KEPT=kept, _PASSED=each * 2, _EACH=each):
        found.follow()
        for offset, length in sorted(ranges) if ascending else ranges:
            parts = found.data(offset, length)
            if parts is not None:
                known = {start + at for start, size in parts for at in range(size)}
                assert known == data & set(range(offset, offset + length))
            check(found, there, offset, length)
        for offset, length in ranges:
            check(found, there, offset, length)


def test_nothing_is_known_before_extents_are_followed() -> None:
    found = Mapped([(0, 8, 100)])
    assert found.data(0, 8) is None
    assert list(found.split(0, 8)) == [(0, 8, None)]


def test_extents_before_those_that_are_known() -> None:
    """What lies before a range that was asked for is known, until it is dropped."""
    found = Mapped([(0, 1, None), (2, 1, None), (4, 1, None), (6, 1, None)])
    with patch.multiple(placement, _KEPT=2, _PASSED=9):
        found.follow()
        assert found.data(5, 1) == []
        assert found.data(0, 4) is None
        assert found.data(3, 2) == [(4, 1)]


def test_ranges_behind_are_asked_for_before() -> None:
    """To read ahead, before what is between is read: this remains known."""
    there: list[Extent] = [(10 * at, 5, 1000 * at) for at in range(100)]
    found = Mapped(there)
    found.follow()
    for at in range(0, 900, 10):
        assert found.data(at + 80, 10) == [(at + 80, 5)]
        assert found.data(at, 10) == [(at, 5)]
        assert next(found.split(at, 5)) == (at, 5, 100 * at)


@given(extents())
def test_all_extents(there: list[Extent]) -> None:
    found = Mapped(there)
    with patch.object(placement, "_AHEAD", 2):
        for (start, size), (low, length, place) in zip(found.extents(), there, strict=True):
            assert (start, size) == (low, length)
            assert list(found.split(start, size)) == [(start, size, place)]
            check(found, there, max(start - 3, 0), size + 5)


def test_places_are_known_where_they_are_read_in_order() -> None:
    """Not only what is asked for once more: else all would go through a server."""
    there: list[Extent] = [(10 * at, 5, 1000 * at) for at in range(100)]
    found = Mapped(there)
    found.follow()
    asked = range(0, 1000, 50)
    assert [found.data(at, 10) for at in asked] == [[(at, 5)] for at in asked]
    assert [next(found.split(at, 5)) for at in asked] == [(at, 5, 100 * at) for at in asked]


def test_chunks_of_a_part_are_read_twice() -> None:
    """All of them first, whatever lies between them, and their places are known in both readings."""
    there: list[Extent] = [(1000 * at, 5, 7 * at) for at in range(400)]
    found = Mapped(there)
    extents = found.extents()
    for first in range(0, 400, 8):
        part = there[first : first + 8]
        for start, size, place in part:
            assert next(extents) == (start, size)
            assert list(found.split(start, size)) == [(start, size, place)]
        for start, size, place in part:
            assert list(found.split(start, size)) == [(start, size, place)]
    assert next(extents, None) is None
    assert len(found._known) < 2 * placement._AHEAD


def test_far_more_extents_than_ranges() -> None:
    there: list[Extent] = [(2 * at, 1, at) for at in range(10_000)]
    found = Mapped(there)
    found.follow()
    assert found.data(0, 1) == [(0, 1)]
    assert found.data(19_998, 1) is None
    assert list(found.split(0, 1)) == [(0, 1, None)]


def image_options(path: Path) -> dict[str, Any]:
    return {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}


@pytest.mark.parametrize("begun", [False, True])
def test_a_map_that_is_begun(tmp_path: Path, begun: bool) -> None:
    """It is read once, and afterwards made anew."""
    path = tmp_path / "d.qcow2"
    subprocess.run([tool("qemu-img"), "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    subprocess.run([tool("qemu-io"), "-c", "write 64k 64k", path], check=True, capture_output=True)
    found = Placement(str(path), image_options(path))
    if begun:
        found.begin()
    for _ in range(2):
        assert list(found.extents()) == [(65536, 65536)]
    found.close()


def test_a_map_that_is_not_needed(tmp_path: Path) -> None:
    """Its process is ended."""
    path = tmp_path / "d.qcow2"
    subprocess.run([tool("qemu-img"), "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    found = Placement(str(path), image_options(path))
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: Any) -> subprocess.Popen[bytes]:
        started.append(start_child(*arguments))
        return started[-1]

    with patch.object(placement, "start_child", start):
        found.begin()
    found.close()
    found.close()
    assert [process.returncode is None for process in started] == [False]


@pytest.mark.parametrize("begun", [False, True])
def test_a_map_that_fails(tmp_path: Path, begun: bool) -> None:
    """The message is that of qemu-img, when the map is read."""
    path = tmp_path / "d.qcow2"
    found = Placement(str(path), image_options(path))
    if begun:
        found.begin()
    with pytest.raises(FailureError, match=r"d\.qcow2: qemu-img map: Could not open"):
        list(found.extents())
    found.close()


ENTRIES = [
    '{ "start": 0, "length": 512, "depth": 0, "zero": false, "data": true, "offset": 65536}',
    '{ "start": 512, "length": 512, "depth": 0, "zero": true, "data": false}',
    '{ "start": 1024, "length": 512, "depth": 0, "zero": false, "data": true}',
]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (f"[{ENTRIES[0]},\n{ENTRIES[1]},\n{ENTRIES[2]}]\n", [(0, 512), (1024, 512)]),
        (f"[{ENTRIES[1]}]\n", []),
        ("[]\n", []),
        # What is left out or not understood is never taken for zeros.
        ("", None),
        (f"[{ENTRIES[0]},\n", None),
        (f"[{ENTRIES[0]},\n{ENTRIES[2]}]", None),
        (f"[{ENTRIES[0]},\nwarning: x\n{ENTRIES[2]}]\n", None),
        (f"[{ENTRIES[0]},\n{ENTRIES[2].replace('false', '', 1)}]\n", None),
        (f"[{ENTRIES[0].replace('start', 'begin')}]\n", None),
        ('["start"]\n', None),
        ('[{"start": null, "length": 1, "zero": false}]\n', None),
    ],
)
@pytest.mark.parametrize("read", [1, 100, 1 << 16])
def test_what_is_said_of_extents(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    found: list[tuple[int, int]] | None,
    read: int,
) -> None:
    """Read in parts of any length; output of another form is an error."""
    monkeypatch.setattr(placement, "_READ", read)
    program, output = tmp_path / "qemu-img", tmp_path / "output"
    output.write_text(said)
    program.write_text(f"#!/bin/sh\ncat {output}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tested = Placement("d.vdi", {})
    if found is not None:
        assert list(tested.extents()) == found
        return
    with pytest.raises(FailureError) as error:
        list(tested.extents())
    assert str(error.value) == "d.vdi: qemu-img map: its output is not what was expected"


def test_the_image_is_locked_when_its_map_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the map might be that of before a write."""
    path = tmp_path / "d.qcow2"
    subprocess.run([tool("qemu-img"), "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    written: list[subprocess.CompletedProcess[str]] = []

    def write(_: Placement) -> None:
        command = [tool("qemu-io"), "-c", "write 0 64k", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        written.append(done)

    monkeypatch.setattr(Placement, "begin", write)
    image = open_image(str(path))
    image.close()
    assert [(done.returncode, "lock" in done.stderr) for done in written] == [(1, True)]
