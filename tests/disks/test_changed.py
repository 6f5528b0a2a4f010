"""The part of a disk that changed, in whole chunks."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from blkmig_cli.disks.changed import Changed
from blkmig_cli.disks.open import open_image

MIB = 1 << 20
Ranges = list[tuple[int, int]]


@pytest.mark.parametrize(
    ("size", "grown", "dirty", "at_end", "extents"),
    [
        # Nothing: the first chunk.
        (4 * MIB, 4 * MIB, [], False, [(0, MIB)]),
        (512, 512, [], False, [(0, 512)]),
        (512, 512, [], True, [(0, 512)]),
        (MIB, MIB, [], True, [(0, MIB)]),
        # Whole chunks, joined where they touch; the disk's end cuts the last one.
        (4 * MIB, 4 * MIB, [(MIB, 1)], False, [(MIB, MIB)]),
        (4 * MIB, 4 * MIB, [(MIB - 1, 2)], False, [(0, 2 * MIB)]),
        (8 * MIB, 8 * MIB, [(0, 1), (2 * MIB, 1), (3 * MIB, 9), (6 * MIB, 1)], False,
         [(0, MIB), (2 * MIB, 2 * MIB), (6 * MIB, MIB)]),
        (4 * MIB + 512, 4 * MIB + 512, [(4 * MIB, 1)], False, [(4 * MIB, 512)]),
        # Behind the size at that time, the bitmap tells nothing.
        (8 * MIB, 6 * MIB, [(0, 1)], False, [(0, MIB), (6 * MIB, 2 * MIB)]),
        (8 * MIB, 6 * MIB + 512, [(0, 1)], False, [(0, MIB), (6 * MIB, 2 * MIB)]),
        (8 * MIB, 0, [], False, [(0, 8 * MIB)]),
        # The last chunk ends with the disk: the chunk before is included.
        (4 * MIB + 512, 4 * MIB + 512, [(4 * MIB, 1)], True, [(3 * MIB, MIB + 512)]),
        (4 * MIB + 512, 4 * MIB + 512, [(0, 1), (4 * MIB, 1)], True,
         [(0, MIB), (3 * MIB, MIB + 512)]),
        (4 * MIB + 512, 4 * MIB + 512, [(2 * MIB, 1), (4 * MIB, 1)], True, [(2 * MIB, 2 * MIB + 512)]),
        (4 * MIB + 512, 4 * MIB + 512, [(2 * MIB, 2 * MIB + 1)], True, [(2 * MIB, 2 * MIB + 512)]),
        (4 * MIB + 512, 4 * MIB + 512, [(3 * MIB, 1)], True, [(3 * MIB, MIB)]),
        (4 * MIB, 4 * MIB, [(3 * MIB, 1)], True, [(3 * MIB, MIB)]),
        (MIB + 512, MIB + 512, [(MIB, 1)], True, [(0, MIB + 512)]),
        (MIB - 512, MIB - 512, [(0, 1)], True, [(0, MIB - 512)]),
    ],
)  # fmt: skip
def test_extents(
    tmp_path: Path, size: int, grown: int, dirty: Ranges, at_end: bool, extents: Ranges
) -> None:
    path = tmp_path / "disk"
    with open(path, "wb") as file:
        file.truncate(size)
        file.seek(max(size // MIB - 1, 0) * MIB)
        file.write(b"x" * min(size, 512))
    image = open_image(str(path), writable=False)
    try:
        changed = Changed(image, dirty, grown, at_end=at_end)
        assert list(changed.extents()) == extents
        # Zeros are known as far as the image has holes, within the extents.
        known = {
            at
            for start, part in changed.known_zeros(0, size)
            for at in range(start, start + part, 512)
        }
        data = {
            at
            for start, part in image.extents()
            for at in range(start // 512 * 512, start + part, 512)
        }
        inside = {at for start, part in extents for at in range(start, start + part, 512)}
        assert known == inside - data
    finally:
        image.close()


class Noted:
    """An image of 8 MiB with data in some ranges, which notes what it is told to read ahead."""

    path = "noted"
    size = 8 * MIB

    def __init__(self, *data: tuple[int, int]) -> None:
        self._data_ranges = data
        self.told: Ranges = []

    def planned(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        for each in ranges:
            self.told.append(each)
            yield each

    def data_in(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        for first, size in self._data_ranges:
            low, high = max(first, offset), min(first + size, offset + length)
            if low < high:
                yield low, high - low

    def read(self, offset: int, length: int) -> bytes:
        return bytes([offset % 251]) * length

    def is_zero(self, offset: int, length: int) -> bool:
        return (offset, length) == (MIB, 5)

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        os.write(target, b"%d %d %d" % (offset, length, pipe))


def changed_in(image: Noted, *chunks: int) -> Changed:
    dirty = [(chunk * MIB, 512) for chunk in chunks]
    return Changed(image, dirty, image.size, at_end=False)  # type: ignore[arg-type]


def test_what_comes_next_is_told_when_it_is_reached() -> None:
    image = Noted()
    changed = changed_in(image, 1, 2, 4, 7)
    assert list(changed.extents()) == [(MIB, 2 * MIB), (4 * MIB, MIB), (7 * MIB, MIB)]
    assert image.told == []
    assert changed.read(MIB, 3) == bytes([MIB % 251]) * 3
    assert image.told == [(MIB, MIB)]
    assert changed.is_zero(MIB, 5)
    assert image.told == [(MIB, MIB)]
    assert not changed.is_zero(3 * MIB - 1, 1)
    assert image.told == [(MIB, MIB), (2 * MIB, MIB)]
    changed.is_zero(4 * MIB, 5)
    assert image.told[2:] == [(4 * MIB, MIB)]
    reader, writer = os.pipe()
    changed.copy_to(writer, 7 * MIB, 9, pipe=True)
    changed.copy_to(writer, 8 * MIB - 1, 1)
    assert os.read(reader, 99) == b"7340032 9 18388607 1 0"
    os.close(reader)
    os.close(writer)
    assert image.told[3:] == [(7 * MIB, MIB)]
    # From the beginning again; what is passed over is not told.
    changed.extents()
    changed.read(2 * MIB, 1)
    changed.read(6 * MIB, 1)
    assert image.told[4:] == [(2 * MIB, MIB), (7 * MIB, MIB)]


def test_the_last_chunk_may_be_shorter() -> None:
    image = Noted()
    image.size = 2 * MIB + 512
    changed = changed_in(image, 2)
    assert list(changed.extents()) == [(2 * MIB, 512)]
    changed.read(2 * MIB, 1)
    assert image.told == [(2 * MIB, 512)]
    assert list(changed.known_zeros(2 * MIB, MIB)) == [(2 * MIB, 512)]


@pytest.mark.parametrize(
    ("offset", "length", "zeros"),
    [
        (0, 8 * MIB, [(MIB + 512, MIB + 100), (2 * MIB + 712, MIB - 712), (4 * MIB, MIB)]),
        (MIB, 512, []),
        (MIB, 513, [(MIB + 512, 1)]),
        (3 * MIB - 1, 2 * MIB, [(3 * MIB - 1, 1), (4 * MIB, MIB - 1)]),
        (3 * MIB, MIB, []),
        (3 * MIB, MIB + 1, [(4 * MIB, 1)]),
        (5 * MIB, MIB, []),
        (5 * MIB - 1, MIB, [(5 * MIB - 1, 1)]),
        (2 * MIB + 612, 100, []),
        (2 * MIB + 611, 102, [(2 * MIB + 611, 1), (2 * MIB + 712, 1)]),
    ],
)
def test_zeros_between_the_data(offset: int, length: int, zeros: Ranges) -> None:
    """In the chunks that changed."""
    changed = changed_in(Noted((MIB, 512), (2 * MIB + 612, 100), (6 * MIB, 1)), 1, 2, 4)
    assert list(changed.known_zeros(offset, length)) == zeros
