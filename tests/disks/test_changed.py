"""The part of a disk that changed, in whole chunks."""

from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
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
    bitmap = DirtyBitmap("b", 512)
    for start, length in dirty:
        bitmap.set_range(start, length)
    image = open_image(str(path), writable=False)
    try:
        changed = Changed(image, bitmap, grown, at_end=at_end)
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
