"""What ``send`` writes: parts and progress as QEMU's, ranges that fit their fields, zeros in runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.operations.send.requirements import warnings_for
from blkmig_cli.operations.send.stream import SendOptions, is_cut, send_events, send_pieces
from blkmig_cli.wire.events import BitmapBits, BitmapStart, Block, Event, Progress, SectionHeader
from blkmig_cli.wire.runs.columns import Run as EventRun
from tests.conftest import Run
from tests.support.feed import encoded
from tests.support.long import examples
from tests.support.strategies import MemoryImage

MIB = 1 << 20
TIB = 1 << 40


class Hole(MemoryImage):
    """A disk of zeros, but for chunks that are said to hold data."""

    def __init__(self, size: int, *data: int) -> None:
        self._size = size
        self._data = sorted(data)

    @property
    def size(self) -> int:
        return self._size

    def is_zero(self, offset: int, length: int) -> bool:
        return offset // MIB not in self._data

    def extents(self) -> Iterator[tuple[int, int]]:
        for chunk in self._data:
            yield chunk * MIB, min(MIB, self._size - chunk * MIB)

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        yield from ()


def blocks_of(events: list[Event]) -> list[Block]:
    return [event for event in events if isinstance(event, Block)]


def test_the_last_part_of_a_disk(run: Run, tmp_path: Path) -> None:
    """805 MiB: the last five chunks come without a progress record of their own."""
    image, stream = tmp_path / "d", tmp_path / "s"
    image.touch()
    with open(image, "r+b") as file:
        file.truncate(805 * MIB)
    assert run("send", image, "--to", stream).status == 0
    outcome = run("validate", stream, "--device-size=805M", "--output", "json")
    assert (outcome.status, outcome.report["devices"][0]["chunks"]) == (0, 805)
    events = list(send_events([Disk("d", Hole(805 * MIB))], SendOptions()))
    last = max(
        at for at, event in enumerate(events) if isinstance(event, Progress) and event.percent < 100
    )
    assert sum(isinstance(event, Block) for event in events[last:]) > 5


@pytest.mark.parametrize("chunks", [1, 7, 8, 9, 800, 805, 1601])
def test_every_chunk_once(chunks: int) -> None:
    for options in (SendOptions(), SendOptions("v2"), SendOptions("classic", "none")):
        events = list(send_events([Disk("d", Hole(chunks * MIB))], options))
        assert [block.sector for block in blocks_of(events)] == list(range(0, chunks * 2048, 2048))


@pytest.mark.parametrize(
    ("dialect", "size", "skip", "cut"),
    [
        ("qemu", 3 * MIB, False, False),
        ("qemu", 3 * MIB + 512, False, False),  # moved forward to end with the disk
        ("qemu", MIB - 512, False, True),  # nowhere to move it
        ("qemu", 3 * MIB + 512, True, True),  # the chunk before may be left out
        ("qemu", 3 * MIB, True, False),
        ("classic", 3 * MIB + 512, False, True),
        ("classic", 3 * MIB, False, False),
        ("v1", 3 * MIB + 512, False, True),
        ("v2", 3 * MIB + 512, False, True),
    ],
)
def test_a_last_chunk_that_is_cut(dialect: str, size: int, skip: bool, cut: bool) -> None:
    disk = Disk("d", Hole(size, 2 if size > 2 * MIB else 0, size // MIB))
    options = SendOptions(dialect, zero_blocks=False, skip_unallocated=skip)
    assert is_cut(disk, options) == cut
    warned = list(warnings_for([disk], options, None))
    assert bool(warned) == (cut and dialect == "qemu")
    assert any("fails on data" in text for text in warnings_for([disk], options, (7, 2))) == cut
    last = blocks_of(list(send_events([disk], options)))[-1]
    inside = min(2048, size // 512 - last.sector)
    if not skip:  # with holes left out, it is moved where the chunk before is sent
        assert (inside < 2048) == cut
    padding = getattr(last.data, "padding", 0)
    assert padding == (2048 - inside) * 512


@pytest.mark.parametrize("allocated", [True, False])
def test_a_last_chunk_and_the_hole_before_it(allocated: bool) -> None:
    """It is moved over the chunk before it only where that is sent as well."""
    size = 3 * MIB + 512
    disk = Disk("d", Hole(size, *([2, 3] if allocated else [3])))
    blocks = blocks_of(list(send_events([disk], SendOptions(skip_unallocated=True))))
    assert blocks[-1].sector == (size // 512 - 2048 if allocated else 3 * 2048)


@pytest.mark.parametrize("granularity", [1 << 25, 1 << 28, 1 << 31])
@pytest.mark.parametrize("size", [2 * TIB - 512, 2 * TIB, 2 * TIB + MIB, 16 * TIB])
def test_ranges_fit_their_fields(granularity: int, size: int) -> None:
    """A be32 of sectors is less than 2 TiB; a range of 2**32 sectors would come out as none."""
    bitmap = DirtyBitmap("b", granularity)
    bitmap.set_range(size - 1, 1)
    disk = Disk("d", Hole(size), [bitmap])
    bits = [
        event
        for event in send_events([disk], SendOptions(disks=False))
        if isinstance(event, BitmapBits)
    ]
    ranges = blocks_of(list(send_events([disk], SendOptions("v2", disks=False))))
    for found in (bits, ranges):
        at = 0
        for event in found:
            assert event.sector == at
            assert 0 < event.sectors < 1 << 32
            at += event.sectors
        assert at == size // 512
        encoded(found)
    assert all(event.sector * 512 % (64 * granularity) == 0 for event in bits)
    assert all(event.sector % 2048 == 0 for event in ranges)
    assert [event.bits is not None for event in bits].count(True) == 1


def test_bits_come_in_parts(run: Run, tmp_path: Path) -> None:
    """Over 64 chunks of bits: several parts of their section, all of it read back."""
    image, stream = tmp_path / "d", tmp_path / "s"
    size = 4 * MIB * 130 + 512
    with open(image, "wb") as file:
        file.truncate(size)
    bitmap = DirtyBitmap("b", 512)
    for at in range(0, size, 3 * MIB):
        bitmap.set_range(at, 1024)
    events = list(send_events([Disk("d", Hole(size), [bitmap])], SendOptions(disks=False)))
    kinds = [e.kind.name for e in events if isinstance(e, SectionHeader)]
    assert kinds == ["START", "PART", "PART", "END"]
    counts, held = [], 0
    for event in events:
        held += isinstance(event, BitmapBits)
        if event.type == "section-footer":
            counts.append(held)
            held = 0
    assert counts == [0, 64, 64, 3]
    stream.write_bytes(encoded(events))
    report = run("validate", stream, "--output", "json").report
    assert report["bitmaps"][0]["count"] == bitmap.count(size)
    assert report["complete"] is True


def test_names_come_where_they_change() -> None:
    bitmaps = [DirtyBitmap(name, 65536) for name in "xy"]
    events = list(send_events([Disk("d", Hole(MIB), bitmaps)], SendOptions(disks=False)))
    starts = [event.flags & 0x0C for event in events if isinstance(event, BitmapStart)]
    assert starts == [0x0C, 0x04]


@pytest.mark.scaled
@settings(max_examples=examples(20, 300))
@given(
    st.lists(
        st.tuples(st.integers(1, 2_600_000), st.lists(st.integers(0, 1300), max_size=4)),
        min_size=1,
        max_size=2,
    ),
    st.sampled_from(["qemu", "classic", "v1", "v2"]),
    st.sampled_from(["qemu", "none"]),
    st.booleans(),
)
def test_runs_are_what_single_events_would_be(
    disks: list[tuple[int, list[int]]], dialect: str, container: str, with_bitmaps: bool
) -> None:
    """Zero chunks in runs: each once and in order, in parts of eight, progress before its chunks."""
    with_bitmaps &= dialect == "v1"
    sent = []
    for name, (sectors, data) in zip("de", disks, strict=False):
        image = Hole(sectors * 512, *(chunk for chunk in set(data) if chunk * 2048 < sectors))
        bitmaps = [DirtyBitmap("b", 65536)] if with_bitmaps else []
        sent.append(Disk(name, image, bitmaps))
    pieces = list(send_pieces(sent, SendOptions(dialect, container)))
    if with_bitmaps:
        assert not any(isinstance(piece, EventRun) for piece in pieces)
    events = [e for p in pieces for e in (p if isinstance(p, EventRun) else [p])]
    total, done = sum(sectors for sectors, _ in disks), 0
    percent, counted = -1, (e for e in events if isinstance(e, Progress | Block))
    for disk in sent:
        chunks = range(0, disk.size // 512, 2048)
        for at in chunks:
            record = next(counted)
            while isinstance(record, Progress):
                assert record.percent > percent
                percent = record.percent
                record = next(counted)
            moved = disk.size // 512 - 2048
            assert record.device == disk.device
            assert record.sector in (at, moved if dialect == "qemu" and at == chunks[-1] else at)
            # Submitted, and so counted, before it is written (QEMU counts some chunks ahead).
            assert percent >= (done + at) * 100 // total
        done += chunks[-1]
    per_part = [0]
    for event in events:
        if isinstance(event, SectionHeader):
            per_part.append(0)
        per_part[-1] += isinstance(event, Block)
    assert container == "none" or max(per_part) <= 8
    large = (
        max(sectors for sectors, data in disks if not data) if any(not d for _, d in disks) else 0
    )
    if large > 2048 * 100 * 24 * len(disks) and not with_bitmaps:
        assert any(isinstance(piece, EventRun) for piece in pieces)


def test_a_hole_of_terabytes_is_few_pieces() -> None:
    pieces = list(send_pieces([Disk("d", Hole(3 * TIB))], SendOptions()))
    assert len(pieces) < 20_000
    found = [piece for piece in pieces if isinstance(piece, EventRun)]
    assert sum(map(len, found)) > 3_000_000
    assert all(run.end - run.start <= 1 << 20 for run in found)


def test_zeros_with_bits_are_no_runs() -> None:
    """Each record has the bits of its chunk."""
    bitmap = DirtyBitmap("b", 16 << 10)  # a chunk has one word
    for chunk in (0, 1000, 4095):
        bitmap.set_range(chunk * MIB, MIB)
    pieces = list(send_pieces([Disk("d", Hole(4096 * MIB), [bitmap])], SendOptions("v1")))
    records = [piece for piece in pieces if isinstance(piece, Block)]
    assert [record.sector for record in records] == list(range(0, 4096 * 2048, 2048))
    dirty = [any(encoded([record])[-8:]) for record in records]
    assert [number for number, each in enumerate(dirty) if each] == [0, 1000, 4095]
