"""The last chunk of a disk whose end cuts it: where it is moved to, and what each chunk holds."""

from collections.abc import Iterator
from typing import Any

import pytest

from blkmig_cli.disks.disk import Disk
from blkmig_cli.operations.send.stream import (
    SendOptions,
    chunk_data,
    is_cut,
    last_chunk,
    section,
    send_events,
    stream_start,
)
from blkmig_cli.schemas.constants import SectionType
from blkmig_cli.transport.payloads import ImageRange
from blkmig_cli.wire.events import Block, Progress, SectionHeader
from blkmig_cli.wire.identity import Identity
from tests.support import raw
from tests.support.feed import encoded
from tests.support.strategies import MemoryImage

C = 2048
MIB = 1 << 20


class Ones(MemoryImage):
    """A disk of ones, of which some ranges of sectors are allocated."""

    def __init__(self, total: int, *extents: tuple[int, int]) -> None:
        super().__init__(b"\1" * 512 * total)
        self._extents = extents

    def extents(self) -> Iterator[tuple[int, int]]:
        for start, end in self._extents:
            yield start * 512, (end - start) * 512


def records(disk: Disk, **options: Any) -> list[tuple[int, int, int, int]]:
    """Sector, sectors, and of the data where it begins and how much padding it has."""
    found = []
    for event in send_events([disk], SendOptions(**options)):
        if isinstance(event, Block):
            assert isinstance(event.data, ImageRange)
            assert event.data.length == MIB
            assert event.data.offset == event.sector * 512
            found.append(
                (event.sector, event.sectors, event.data.offset // 512, event.data.padding)
            )
    return found


TOTAL = 3 * C + 8
MOVED = (2 * C + 8, C, 2 * C + 8, 0)
CUT = (3 * C, 8, 3 * C, MIB - 8 * 512)


@pytest.mark.parametrize(
    ("extents", "last"),
    [
        ([(0, TOTAL)], MOVED),
        ([(2 * C, TOTAL)], MOVED),
        ([(2 * C + 5, TOTAL)], MOVED),
        ([(2 * C, 2 * C + 1), (3 * C + 1, 3 * C + 2)], MOVED),
        ([(3 * C, TOTAL)], CUT),
        ([(0, 2 * C), (3 * C, TOTAL)], CUT),
        ([(0, 1), (2 * C - 1, 2 * C), (3 * C + 7, TOTAL)], CUT),
        ([(2 * C - 1, 2 * C + 1), (3 * C + 7, TOTAL)], MOVED),
    ],
)
def test_where_holes_are_left_out(extents: list[tuple[int, int]], last: Any) -> None:
    disk = Disk("d", Ones(TOTAL, *extents))
    assert records(disk, skip_unallocated=True)[-1] == last
    for dialect in ("classic", "v1", "v2"):
        assert records(disk, dialect=dialect, skip_unallocated=True)[-1] == CUT
    whole = Disk("d", Ones(TOTAL, (0, TOTAL)))
    assert records(whole)[-1] == MOVED
    assert records(whole, dialect="classic")[-1] == CUT


@pytest.mark.parametrize("received", [0, MIB, 2 * MIB, 3 * MIB, 3 * MIB + 4095])
def test_where_the_rest_is_sent(received: int) -> None:
    """The destination has the chunk before."""
    disk = Disk("d", Ones(TOTAL, (0, TOTAL)))
    found = records(disk, received={"d": received})
    assert found[-1] == MOVED
    assert len(found) == 4 - received // MIB


@pytest.mark.parametrize(
    ("total", "regions", "cut", "last"),
    [
        (TOTAL, [(2 * C + 8, TOTAL)], False, MOVED),
        (TOTAL, [(2 * C + 9, TOTAL)], True, CUT),
        (TOTAL, [(0, TOTAL)], False, MOVED),
        (TOTAL, [(3 * C, TOTAL)], True, CUT),
        (TOTAL, [(0, C)], False, (0, C, 0, 0)),
        (TOTAL, [(C, 2 * C), (3 * C, TOTAL)], True, CUT),
        (3 * C, [(2 * C, 3 * C)], False, (2 * C, C, 2 * C, 0)),
        (C - 1, [(0, C - 1)], True, (0, C - 1, 0, 512)),
        (C, [(0, C)], False, (0, C, 0, 0)),
    ],
)
def test_parts_of_a_disk(total: int, regions: list[tuple[int, int]], cut: bool, last: Any) -> None:
    disk = Disk("d", Ones(total, *regions), partial=True)
    assert is_cut(disk, SendOptions()) is cut
    if regions == [(2 * C + 9, TOTAL)]:
        return  # it begins inside a chunk, which no record carries
    assert records(disk)[-1] == last


@pytest.mark.parametrize(
    ("total", "dialect", "skip", "cut"),
    [
        (TOTAL, "qemu", False, False),
        (TOTAL, "qemu", True, True),
        (TOTAL, "classic", False, True),
        (3 * C, "classic", True, False),
        (C - 1, "qemu", False, True),
        (C + 1, "qemu", False, False),
    ],
)
def test_whole_disks(total: int, dialect: str, skip: bool, cut: bool) -> None:
    disk = Disk("d", Ones(total, (0, total)))
    assert is_cut(disk, SendOptions(dialect, skip_unallocated=skip)) is cut


@pytest.mark.parametrize(("total", "last"), [(C - 1, None), (C, 0), (C + 1, 1), (3 * C, 2 * C)])
def test_the_chunk_that_ends_with_a_disk(total: int, last: int | None) -> None:
    assert last_chunk(Disk("d", Ones(total))) == last


@pytest.mark.parametrize(
    ("sector", "padding"), [(0, 0), (C, 0), (2 * C + 8, 0), (2 * C + 9, 512), (3 * C, MIB - 4096)]
)
def test_the_data_of_a_chunk(sector: int, padding: int) -> None:
    image = Ones(TOTAL)
    assert chunk_data(image, sector) == ImageRange(sector * 512, MIB, None, padding, image=image)


# -- the start of a stream, and sections


@pytest.mark.parametrize("incremental", [None, False, True])
@pytest.mark.parametrize("disks", [True, False])
def test_an_increment_is_announced(incremental: bool | None, disks: bool) -> None:
    identity = None
    if incremental is not None:
        identity = Identity("i", None, incremental, "", "crash")
    disk = Disk("d", Ones(C, (0, C)))
    events = list(stream_start([disk], SendOptions(identity=identity, disks=disks)))
    announced = [event for event in events if isinstance(event, Progress)]
    assert bool(announced) is bool(incremental and disks)
    assert any(isinstance(event, SectionHeader) for event in events) is disks
    assert list(stream_start([disk], SendOptions("v1", "none", identity=identity))) == []


def test_sections() -> None:
    record = Block(0, 0, "block", "d", 0, C, C, 9, "classic", None, ())
    found = encoded(section(SectionType.PART, "block", 7, [record]))
    assert found == raw.part(7, raw.block(0, 8) + raw.EOS) + raw.footer(7)
    found = encoded(section(SectionType.START, "dirty-bitmap", 8, []))
    assert found == raw.start(8, "dirty-bitmap", 1, b"\1") + raw.footer(8)
