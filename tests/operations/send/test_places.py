"""Where records of a part of a disk stand: they carry all of it, and nothing else."""

from collections.abc import Iterator
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.disks.disk import Disk
from blkmig_cli.operations.send import many_regions
from blkmig_cli.operations.send import places as module
from blkmig_cli.operations.send.many_regions import placed_many
from blkmig_cli.operations.send.places import placed, regions, unplaceable
from blkmig_cli.operations.send.region import places, split_by_zeros
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.wire.events import Block
from tests.support.strategies import MemoryImage, stream_events

CHUNK = 2048


class Extents(MemoryImage):
    """A disk of which only its extents, in sectors, are known."""

    def __init__(self, total: int, extents: list[tuple[int, int]]) -> None:
        self._total = total
        self._extents = extents
        self.zeros: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return self._total * 512

    def extents(self) -> Iterator[tuple[int, int]]:
        for start, end in self._extents:
            yield start * 512, (end - start) * 512

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        for start, end in self.zeros:
            low, high = max(start * 512, offset), min(end * 512, offset + length)
            if low < high:
                yield low, high - low


@st.composite
def disks(draw: st.DrawFn) -> Extents:
    total = draw(st.integers(1, 5 * CHUNK))
    near = st.sampled_from([*range(0, total + 1, CHUNK), total])
    edges = draw(st.lists(st.one_of(st.integers(0, total), near), max_size=12))
    ranges = sorted(zip(edges[::2], edges[1::2], strict=False))
    found: list[tuple[int, int]] = []
    for low, end in ranges:
        start = max(low, found[-1][1] if found else 0)
        if start < end:
            found.append((start, end))
    return Extents(total, found)


def records(start: int, end: int, total: int) -> list[int]:
    """The sectors of records."""
    return list(chain.from_iterable(places(start, end, total)))


@given(disks())
def test_regions_are_extents_that_touch(disk: Extents) -> None:
    wanted = {at for start, end in disk._extents for at in range(start, end)}
    found = list(regions(disk))
    assert {at for start, end in found for at in range(start, end)} == wanted
    assert all(before[1] < after[0] for before, after in pairwise(found))


@given(disks())
def test_records_carry_a_region_and_nothing_else(disk: Extents) -> None:
    apart = set(unplaceable(disk, on_grid=False))
    total = disk.size // 512
    for start, end in regions(disk):
        small = end - start < CHUNK and end != total
        assert ((start, end) in apart) == small
        if small:
            continue
        found = records(start, end, total)
        carried = {at for sector in found for at in range(sector, min(sector + CHUNK, total))}
        assert carried == set(range(start, end))
        assert found == sorted(set(found))
        assert len(found) <= (end - start) // CHUNK + 2


@given(disks(), disks(), st.booleans())
def test_records_in_arrays_are_those_of_regions(
    disk: Extents, zeros: Extents, open_ended: bool
) -> None:
    apart = list(unplaceable(disk, on_grid=False, open_ended=open_ended))
    disk._extents = [one for one in regions(disk) if one not in apart]
    # Every other extent is all zeros, the others where the other disk has extents.
    disk.zeros = [
        (max(low, start), min(high, end))
        for at, (start, end) in enumerate(disk._extents)
        for low, high in (zeros._extents if at % 2 else [(start, end)])
        if max(low, start) < min(high, end)
    ]
    total = None if open_ended else disk.size // 512
    expected = [
        (sector, zero)
        for start, end in disk._extents
        for chunks in places(start, end, total)
        for part, zero in split_by_zeros(disk, chunks)
        for sector in part
    ]
    for found in (placed(disk, total), placed_many(disk, regions(disk), total)):
        assert [(sector, one.zero) for one in found for sector in one.sectors] == expected


@given(disks())
def test_the_grid(disk: Extents) -> None:
    apart = set(unplaceable(disk, on_grid=True))
    total = disk.size // 512
    for start, end in regions(disk):
        chunks = set(range(start // CHUNK, -(-end // CHUNK)))
        whole = {
            at for chunk in chunks for at in range(chunk * CHUNK, min((chunk + 1) * CHUNK, total))
        }
        assert ((start, end) in apart) == (whole != set(range(start, end)))
        if (start, end) not in apart:
            assert all(sector % CHUNK == 0 for sector in records(start, end, total))


#: Lengths of regions around those of whole chunks, and where they begin, relative to the grid.
LENGTHS = [CHUNK * number + more for number in (1, 2, 3, 64) for more in (-1, 0, 1, 7)][1:]
STARTS = [0, 1, 7, CHUNK - 7, CHUNK - 1]


@pytest.mark.parametrize("batch", [1, 2, 1 << 16])
@pytest.mark.parametrize("cut", [None, 0, 1])
def test_regions_of_zeros_are_placed_like_others(
    monkeypatch: pytest.MonkeyPatch, batch: int, cut: int | None
) -> None:
    """Around whole chunks; ``cut``: whether the disk ends with the last one, if its size is known."""
    monkeypatch.setattr(many_regions, "_BATCH", batch)
    monkeypatch.setattr(module, "_FEW", 0)
    grid, found = 0, []
    for length in LENGTHS:
        for start in STARTS:
            found.append((grid + start, grid + start + length))
            grid += (start + length) // CHUNK * CHUNK + 2 * CHUNK
    disk = Extents(found[-1][1] + (100 if cut == 0 else 0), found)
    disk.zeros = [each for at, each in enumerate(found) if at % 3 != 1]
    total = None if cut is None else disk.size // 512
    expected = [
        (sector, start, (start, end) in disk.zeros and sector + CHUNK <= end)
        for start, end in found
        for chunks in places(start, end, total)
        for sector in chunks
    ]
    made = [(sector, one.since, one.zero) for one in placed(disk, total) for sector in one.sectors]
    assert [(sector, zero) for sector, _, zero in made] == [
        (sector, zero) for sector, _, zero in expected
    ]
    # Of an array, it is where the first of its regions begins.
    assert all(since <= start for (_, since, _), (_, start, _) in zip(made, expected, strict=True))


def test_a_chunk_off_the_grid() -> None:
    """One record, where one is enough; its end and the next chunk's begin need not be on the grid."""
    assert records(100, 100 + CHUNK, 5 * CHUNK) == [100]
    assert records(0, CHUNK + 1, 5 * CHUNK) == [0, 1]
    assert records(100, 2 * CHUNK, 5 * CHUNK) == [100, CHUNK]
    assert records(CHUNK, CHUNK + 7, CHUNK + 7) == [CHUNK]
    assert records(100, 107, 107) == [100]


class Zeros(Extents):
    """All of it came; ``zeros`` are ranges of sectors known to be zero."""

    def __init__(self, total: int, zeros: list[tuple[int, int]]) -> None:
        super().__init__(total, [(0, total)])
        self.zeros = zeros

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        for start, end in self.zeros:
            low, high = max(start * 512, offset), min(end * 512, offset + length)
            if low < high:
                yield low, high - low


@given(disks(), st.integers(0, 3 * CHUNK), st.integers(1, 4))
def test_chunks_that_are_known_to_be_zero(disk: Extents, start: int, number: int) -> None:
    zeros = {at for low, high in disk._extents for at in range(low, high)}
    chunks = range(start, start + number * CHUNK, CHUNK)
    parts = list(split_by_zeros(Zeros(disk._total, disk._extents), chunks))
    assert [at for part, _ in parts for at in part] == list(chunks)
    for part, zero in parts:
        for at in part:
            whole = zeros.issuperset(range(at, at + CHUNK))
            assert not zero or whole
            # Extents that touch are not joined.
            alone = any(low <= at and at + CHUNK <= high for low, high in disk._extents)
            assert zero or not alone


class OnlyZeros(Extents):
    """A disk of zeros, of which only its extents are known, and that they are zeros."""

    def read(self, offset: int, length: int) -> bytes:
        return bytes(length)

    def is_zero(self, offset: int, length: int) -> bool:
        return True


@given(disks(), st.integers(0, 12), st.booleans())
def test_many_regions_are_sent_as_few_are(disk: Extents, few: int, zero_blocks: bool) -> None:
    zeros = OnlyZeros(disk._total, [])
    zeros._extents = [
        each for each in regions(disk) if each not in unplaceable(disk, on_grid=False)
    ]
    zeros.zeros = zeros._extents[::2]
    sent = [Disk("d", zeros, partial=True)]
    options = SendOptions("classic", zero_blocks=zero_blocks)
    expected = stream_events(sent, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", few)
        assert stream_events(sent, options) == expected


@pytest.mark.parametrize("zero_blocks", [False, True])
def test_known_zeros_are_sent(zero_blocks: bool) -> None:
    """As zero blocks, or as data: of single chunks, of a few and of many, on the chunk grid or not."""
    extents = [
        (0, CHUNK),
        (2 * CHUNK + 8, 4 * CHUNK),
        (6 * CHUNK, 80 * CHUNK),
        (90 * CHUNK, 91 * CHUNK),
    ]
    disk = OnlyZeros(100 * CHUNK, extents)
    disk.zeros = extents
    expected = [at for start, end in extents for at in records(start, end, 100 * CHUNK)]
    options = SendOptions("classic", zero_blocks=zero_blocks)
    events = stream_events([Disk("d", disk, partial=True)], options)
    blocks = [event for event in events if isinstance(event, Block)]
    assert [event.sector for event in blocks] == expected
    assert all((event.data is None) == zero_blocks for event in blocks)
