"""Parts and the progress in them, counted as QEMU does: before its chunks, of all disks together."""

from dataclasses import dataclass
from typing import Any

import pytest

from blkmig_cli.disks.disk import Disk
from blkmig_cli.operations.send import equal_parts
from blkmig_cli.operations.send.stream import SendOptions, disk_parts, progress_part, send_events
from blkmig_cli.wire.events import Block, Event, Progress, SectionHeader
from blkmig_cli.wire.runs.columns import expand
from tests.support.strategies import LaidOut

CHUNK = 2048
MIB = 1 << 20
#: Percentages, and the device and sector of each record.
Part = tuple[list[int], list[tuple[str, int]]]


class Sectors(LaidOut):
    """A disk of ``total`` sectors, no part of which is zero but for what is known to be."""

    def __init__(
        self, total: int, *extents: tuple[int, int], zeros: tuple[tuple[int, int], ...] = ()
    ) -> None:
        super().__init__(total * 512, *extents, zeros=zeros)

    def is_zero(self, offset: int, length: int) -> bool:
        return False


@dataclass
class Expected:
    """A plain count of what is sent, disk by disk."""

    total: int

    def __post_init__(self) -> None:
        self.parts: list[Part] = []
        self._percent = -1
        self._finished = 0
        self._now: Part = ([], [])

    def disk(self, name: str, total: int, sent: list[int], *, counted: int | None = None) -> None:
        """``counted``: where the disk is said to be at its end, if not at its last record."""
        for sector in sent:
            self._count(sector)
            self._now[1].append((name, sector))
            if len(self._now[1]) == 8:
                self._take()
        last = sent[-1] if sent else 0
        if counted is not None:
            last = counted
        elif last + CHUNK < total:
            last = total
        self._count(last)
        if any(self._now):
            self._take()
        self._finished += last

    def _count(self, sector: int) -> None:
        percent = (self._finished + sector) * 100 // self.total
        if percent != self._percent:
            self._percent = percent
            self._now[0].append(percent)

    def _take(self) -> None:
        self.parts.append(self._now)
        self._now = ([], [])


def parts_of(events: list[Event]) -> list[Part]:
    """What is in each part; in a part, the progress comes first."""
    found: list[Part] = []
    for event in events:
        if isinstance(event, SectionHeader):
            found.append(([], []))
        elif isinstance(event, Progress):
            assert not found[-1][1]
            found[-1][0].append(event.percent)
        elif isinstance(event, Block):
            found[-1][1].append((event.device, event.sector))
    return found


def sent(*disks: Disk, **options: Any) -> list[Part]:
    return parts_of(list(expand(disk_parts(list(disks), SendOptions("classic", **options)))))


def grid(total: int, first: int = 0) -> list[int]:
    return list(range(first, total, CHUNK))


SIZES = [1, CHUNK - 1, CHUNK, CHUNK + 1, 8 * CHUNK, 9 * CHUNK - 1, 17 * CHUNK, 201 * CHUNK + 5]


@pytest.mark.parametrize("sizes", [*([size] for size in SIZES), SIZES, SIZES[::-1]])
@pytest.mark.parametrize("allocated", [True, False])
def test_whole_disks(sizes: list[int], allocated: bool) -> None:
    expected = Expected(sum(sizes))
    disks = []
    for number, total in enumerate(sizes):
        name = f"d{number}"
        expected.disk(name, total, grid(total))
        disks.append(Disk(name, Sectors(total, *([(0, total)] if allocated else []))))
    assert sent(*disks) == expected.parts


@pytest.mark.parametrize("total", [100 * CHUNK, 100 * CHUNK + 8])
@pytest.mark.parametrize(
    "extents",
    [
        [],
        [(0, 1)],
        [(CHUNK - 1, CHUNK + 1)],
        [(5 * CHUNK, 20 * CHUNK), (20 * CHUNK + 5, 20 * CHUNK + 6)],
        [(3 * CHUNK, 3 * CHUNK + 1), (3 * CHUNK + 9, 4 * CHUNK + 1), (98 * CHUNK, 99 * CHUNK)],
        [(98 * CHUNK, 99 * CHUNK + 1)],
        [(99 * CHUNK, 100 * CHUNK)],
    ],
)
def test_disks_with_holes_left_out(total: int, extents: list[tuple[int, int]]) -> None:
    """The hole at a disk's end counts as done."""
    chunks = {at for start, end in extents for at in range(start // CHUNK, -(-end // CHUNK))}
    expected = Expected(total + 3 * CHUNK)
    expected.disk("d", total, [at * CHUNK for at in sorted(chunks)])
    expected.disk("e", 3 * CHUNK, grid(3 * CHUNK))
    disks = [Disk("d", Sectors(total, *extents)), Disk("e", Sectors(3 * CHUNK, (0, 3 * CHUNK)))]
    assert sent(*disks, skip_unallocated=True) == expected.parts


@pytest.mark.parametrize(
    ("received", "first"),
    [
        (1, 0),
        (MIB - 1, 0),
        (MIB, CHUNK),
        (MIB + 1, CHUNK),
        (5 * MIB, 5 * CHUNK),
        (20 * MIB - 512, 19 * CHUNK),
        (20 * MIB, 20 * CHUNK),
        (20 * MIB + 4095, 20 * CHUNK),
        (20 * MIB + 4096, None),
        (21 * MIB, None),
    ],
)
@pytest.mark.parametrize("allocated", [True, False])
def test_disks_of_which_a_part_was_received(
    received: int, first: int | None, allocated: bool
) -> None:
    """The chunk that was not received completely is sent; the rest of the progress is as ever."""
    total = 20 * CHUNK + 8
    expected = Expected(total + 3 * CHUNK)
    if first is None:
        # Nothing of it is sent: it counts as a disk whose last chunk was.
        expected._finished = 20 * CHUNK
    else:
        expected.disk("d", total, grid(total, first))
    expected.disk("e", 3 * CHUNK, grid(3 * CHUNK))
    disks = [
        Disk("d", Sectors(total, *([(0, total)] if allocated else []))),
        Disk("e", Sectors(3 * CHUNK, (0, 3 * CHUNK))),
    ]
    assert sent(*disks, received={"d": received}) == expected.parts


@pytest.mark.parametrize(
    ("total", "regions", "sectors", "counted"),
    [
        (40 * CHUNK, [(0, CHUNK)], [0], None),
        (40 * CHUNK, [(7, 10 * CHUNK + 7)], [7, *grid(10 * CHUNK, CHUNK), 9 * CHUNK + 7], None),
        (40 * CHUNK, [(5, CHUNK + 5), (38 * CHUNK, 40 * CHUNK)], [5, *grid(40 * CHUNK, 38 * CHUNK)],
         None),
        # It ends with the disk, and off the grid: counted as if the disk's end cut it.
        (40 * CHUNK + 7, [(39 * CHUNK + 7, 40 * CHUNK + 7)], [39 * CHUNK + 7], 40 * CHUNK),
        (40 * CHUNK + 1, [(39 * CHUNK + 1, 40 * CHUNK + 1)], [39 * CHUNK + 1], 40 * CHUNK),
        (40 * CHUNK, [(38 * CHUNK + 1, 39 * CHUNK + 1)], [38 * CHUNK + 1], None),
        (40 * CHUNK, [(39 * CHUNK, 40 * CHUNK)], [39 * CHUNK], None),
    ],
)  # fmt: skip
def test_parts_of_disks(
    total: int, regions: list[tuple[int, int]], sectors: list[int], counted: int | None
) -> None:
    for zeros in ((), tuple(regions)):
        for open_ended in (False, True) if counted is None else (False,):
            expected = Expected(total)
            expected.disk("d", total, sectors, counted=counted)
            image = Sectors(total, *regions, zeros=zeros)
            assert sent(Disk("d", image, partial=True, open_ended=open_ended)) == expected.parts


@pytest.mark.parametrize("total", [300 * CHUNK, 3000 * CHUNK])
@pytest.mark.parametrize("shift", [0, 7])
@pytest.mark.parametrize("before", [0, 3])
def test_many_small_regions_of_zeros(total: int, shift: int, before: int) -> None:
    """They come in runs of parts that are equal but for their sectors."""
    data = [(at * 2 * CHUNK, at * 2 * CHUNK + CHUNK) for at in range(before)]
    zeros = [
        (at + shift, at + shift + CHUNK)
        for at in range(before * 2 * CHUNK, total - CHUNK, 2 * CHUNK)
    ]
    expected = Expected(total)
    regions = data + zeros
    expected.disk("d", total, [start for start, _ in regions])
    image = Sectors(total, *regions, zeros=tuple(zeros))
    assert sent(Disk("d", image, partial=True)) == expected.parts
    assert sent(Disk("d", image, partial=True), zero_blocks=False) == expected.parts


@pytest.mark.parametrize("size", [1, 1 << 11, 1 << 13, 1 << 20])
@pytest.mark.parametrize("total", [2000 * CHUNK, 2405 * CHUNK + 9])
def test_runs_of_any_size(monkeypatch: pytest.MonkeyPatch, size: int, total: int) -> None:
    """How many parts are encoded at once changes nothing."""
    monkeypatch.setattr(equal_parts, "_RUN_SIZE", size)
    disks = [Disk("d", Sectors(total, (0, 3 * CHUNK))), Disk("e", Sectors(5 * CHUNK))]
    expected = Expected(total + 5 * CHUNK)
    expected.disk("d", total, grid(total))
    expected.disk("e", 5 * CHUNK, grid(5 * CHUNK))
    assert sent(*disks) == expected.parts


def test_without_progress() -> None:
    disks = [Disk("d", Sectors(20 * CHUNK)), Disk("e", Sectors(CHUNK, (0, CHUNK)))]
    options = SendOptions("classic")
    found = parts_of(list(expand(disk_parts(disks, options, counts=False))))
    assert [percents for percents, _ in found] == [[]] * 4
    assert [at for _, blocks in found for at in blocks] == [
        *(("d", at) for at in grid(20 * CHUNK)), ("e", 0)
    ]  # fmt: skip


@pytest.mark.parametrize("dialect", ["classic", "qemu"])
def test_chunks_that_changed(dialect: str) -> None:
    """All of the disk can be read, but only what ranges touch is sent."""
    disk = Disk("d", Sectors(20 * CHUNK, (0, 20 * CHUNK)))
    changes = {"d": [(5 * MIB - 1, 2), (9 * MIB, 1), (9 * MIB + 5, 1)]}
    options = SendOptions(dialect)
    found = parts_of(list(expand(disk_parts([disk], options, changes))))
    assert [at for _, blocks in found for _, at in blocks] == [4 * CHUNK, 5 * CHUNK, 9 * CHUNK]
    assert list(disk_parts([disk], SendOptions(disks=False), changes)) == []


def test_a_part_with_progress_only() -> None:
    assert parts_of(progress_part(7, SendOptions())) == [([7], [])]
    (record,) = progress_part(7, SendOptions("v1", "none"))
    assert isinstance(record, Progress)
    assert record.percent == 7


def test_the_end_of_the_section() -> None:
    events = list(send_events([Disk("d", Sectors(CHUNK, (0, CHUNK)))], SendOptions()))
    assert parts_of(events) == [([], []), ([0], [("d", 0)]), ([100], [])]


@pytest.mark.parametrize("first", [80, 1000])
@pytest.mark.parametrize("gap", [1, 100, 5000])
@pytest.mark.parametrize("shift", [0, 7])
def test_large_regions_of_zeros_far_apart(first: int, gap: int, shift: int) -> None:
    """The percentage jumps between them."""
    start = (first + gap) * CHUNK
    regions = [(0, first * CHUNK), (start + shift, start + 90 * CHUNK + shift)]
    total = start + 200 * CHUNK
    sectors = grid(first * CHUNK)
    if shift:
        body = grid(start + 90 * CHUNK, start + CHUNK)
        sectors += [start + shift, *body, start + 89 * CHUNK + shift]
    else:
        sectors += grid(start + 90 * CHUNK, start)
    expected = Expected(total)
    expected.disk("d", total, sectors)
    image = Sectors(total, *regions, zeros=tuple(regions))
    assert sent(Disk("d", image, partial=True)) == expected.parts
