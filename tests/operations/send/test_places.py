"""Where records of a part of a disk stand: they carry all of it, and nothing else."""

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.operations.send.places import places, regions, unplaceable
from tests.support.strategies import MemoryImage

CHUNK = 2048


class Extents(MemoryImage):
    """A disk of which only its extents, in sectors, are known."""

    def __init__(self, total: int, extents: list[tuple[int, int]]) -> None:
        self._total = total
        self._extents = extents

    @property
    def size(self) -> int:
        return self._total * 512

    def extents(self) -> Iterator[tuple[int, int]]:
        for start, end in self._extents:
            yield start * 512, (end - start) * 512


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
        found = list(places(start, end, total))
        carried = {at for sector in found for at in range(sector, min(sector + CHUNK, total))}
        assert carried == set(range(start, end))
        assert found == sorted(set(found))
        assert len(found) <= (end - start) // CHUNK + 2


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
            assert all(sector % CHUNK == 0 for sector in places(start, end, total))


def test_a_chunk_off_the_grid() -> None:
    """One record, where one is enough; its end and the next chunk's begin need not be on the grid."""
    assert list(places(100, 100 + CHUNK, 5 * CHUNK)) == [100]
    assert list(places(0, CHUNK + 1, 5 * CHUNK)) == [0, 1]
    assert list(places(100, 2 * CHUNK, 5 * CHUNK)) == [100, CHUNK]
    assert list(places(CHUNK, CHUNK + 7, CHUNK + 7)) == [CHUNK]
    assert list(places(100, 107, 107)) == [100]
