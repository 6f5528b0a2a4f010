"""Places for bitmaps: what they hold already, and what they refuse before anything is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from blkmig_cli.disks.image import StoredBitmap
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay.bitmap_place import BitmapsFile, BitmapsInImage
from tests.support.replays import MIB, folder

__all__ = ["folder"]


def bitmaps(*names: str, granularity: int = 65536) -> dict[str, DirtyBitmap]:
    return {name: DirtyBitmap(name, granularity) for name in names}


def held(image: str | None = None, size: int = MIB) -> BitmapsFile:
    """A file with the bitmaps a and b."""
    write_bitmaps("f", BitmapFile(size, bitmaps("a", "b", granularity=512)))
    place = BitmapsFile("f", image)
    place.read()
    return place


# -- a file


def test_a_file_that_does_not_exist() -> None:
    place = BitmapsFile("f")
    place.read()
    assert place.granularities == {}
    place.check_size(5)
    place.check(bitmaps("c"), 5)
    assert place.write(bitmaps("c"), MIB) == []
    assert (read_bitmaps("f").size, set(read_bitmaps("f").bitmaps)) == (MIB, {"c"})


def test_a_file_keeps_bitmaps_of_other_names() -> None:
    place = held()
    assert place.granularities == {"a": 512, "b": 512}
    assert place.write(bitmaps("b", "c"), MIB) == ["a"]
    found = read_bitmaps("f").bitmaps
    assert {name: bitmap.granularity for name, bitmap in found.items()} == {
        "a": 512, "b": 65536, "c": 65536
    }  # fmt: skip
    assert held().write(bitmaps("b", "a"), MIB) == []


@pytest.mark.parametrize(
    ("image", "names", "size", "fits"),
    [
        (None, "ab", MIB, True),
        (None, "ab", None, True),
        (None, "ab", MIB + 512, False),
        (None, "ab", MIB - 512, False),
        # That of an image may grow with its disk, if all of it is replaced.
        ("x", "ab", MIB + 512, True),
        ("x", "abc", MIB + 512, True),
        ("x", "a", MIB + 512, False),
        ("x", "a", MIB, True),
        ("x", "a", None, True),
    ],
)
def test_a_file_of_a_disk_of_another_size(
    image: str | None, names: str, size: int | None, fits: bool
) -> None:
    place = held(image)
    if fits:
        place.check(bitmaps(*names), size)
        return
    with pytest.raises(FailureError) as error:
        place.check(bitmaps(*names), size)
    assert str(error.value) == (
        f"f is of a disk of {MIB} bytes, not {size}; remove it, or see --bitmaps-to"
    )
    with pytest.raises(FailureError):
        place.check_size(size)


@pytest.mark.parametrize("stored", [False, True])
def test_a_file_that_would_be_too_large(monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    """What it has and what is added count together; what is replaced does not."""
    place = held() if stored else BitmapsFile("f")
    monkeypatch.setattr(limits, "BITMAPS_FILE_MAX", 0)
    dirty = bitmaps("c")
    place.check(dirty, MIB)
    dirty["c"].set_range(0, 1)
    with pytest.raises(FailureError, match="the dirty ranges are over 0"):
        place.check(dirty, MIB)
    # Of a disk of unknown size, no range counts yet.
    place.check(dirty, None)


def test_a_file_gets_the_mode_of_its_image() -> None:
    Path("x").touch(mode=0o600)
    Path("x").chmod(0o640)
    held("x").write(bitmaps("c"), MIB)
    assert Path("f").stat().st_mode & 0o777 == 0o640


def test_a_file_that_was_replaced_since() -> None:
    place = held()
    Path("f").unlink()
    Path("f").symlink_to("elsewhere")
    with pytest.raises(FailureError, match="f is a symbolic link"):
        place.write(bitmaps("c"), MIB)


# -- an image


class Owner:
    """Stands for the destination of an image."""

    path = "x"

    def __init__(self) -> None:
        self.written: list[str] = []

    def write_bitmaps(self, found: Sequence[DirtyBitmap]) -> None:
        self.written = [bitmap.name for bitmap in found]


def in_image(*stored: StoredBitmap) -> tuple[BitmapsInImage, Owner]:
    owner: Any = Owner()
    return BitmapsInImage(owner, stored), owner


def test_an_image_keeps_bitmaps_of_other_names() -> None:
    """Those that record have recorded the writes of a replay; the others are named."""
    place, owner = in_image(
        StoredBitmap("a", 512),
        StoredBitmap("b", 1024, recording=False),
        StoredBitmap("c", None, recording=False),
        StoredBitmap("d", 512, recording=False),
    )
    assert (place.path, place.in_image, BitmapsFile.in_image) == ("x", True, False)
    assert place.granularities == {"a": 512, "b": 1024, "d": 512}
    assert place.write(bitmaps("b", "z"), MIB) == ["c", "d"]
    assert owner.written == ["b", "z"]


LONG = "b" * 1023
HINT = "specify a file with --bitmaps-to, or use --no-bitmaps"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("b", None),
        ("é", None),
        ("a\nb", None),
        (LONG, None),
        (LONG + "b", f"bitmap name '{LONG}b': it is over 1023 bytes; {HINT}"),
        ("é" * 511 + "b", None),
        ("é" * 512, f"bitmap name '{'é' * 512}': it is over 1023 bytes; {HINT}"),
        ("\udcff", f"bitmap name '\\xff': QEMU accepts only UTF-8; {HINT}"),
    ],
)
def test_names_that_qemu_does_not_accept(name: str, said: str | None) -> None:
    place, _ = in_image()
    if said is None:
        place.check(bitmaps(name), MIB)
        return
    with pytest.raises(FailureError) as error:
        place.check(bitmaps("a", name), MIB)
    assert str(error.value) == said


def test_a_bitmap_with_a_fault() -> None:
    """It stands in the way of one of its name only."""
    place, _ = in_image(StoredBitmap("a", 512), StoredBitmap("b\n", 512, fault="it is in use"))
    place.check(bitmaps("a", "c"), MIB)
    with pytest.raises(FailureError) as error:
        place.check(bitmaps("b\n"), MIB)
    assert str(error.value) == (
        "x: bitmap 'b\\x0a': it is in use; remove it with: qemu-img bitmap --remove x b\\x0a"
    )
