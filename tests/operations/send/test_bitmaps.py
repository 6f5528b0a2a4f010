"""Which bitmaps go with a disk: those of files, or else those of its image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.image import StoredBitmap
from blkmig_cli.errors import BlkmigError, FailureError, UsageError
from blkmig_cli.operations.send.bitmaps import add_bitmaps, attach_bitmaps
from tests.support.replays import folder
from tests.support.strategies import MemoryImage

__all__ = ["folder"]

MIB = 1 << 20


class Marked(MemoryImage):
    """An image with bitmaps in it; ``stored`` None: it has no place for any."""

    def __init__(self, *stored: str, path: str = "x", is_file: bool = True) -> None:
        super().__init__(bytes(MIB))
        self.path = path
        self.is_file = is_file
        self.stored: Sequence[str] | None = stored

    def bitmaps(self) -> Sequence[StoredBitmap] | None:
        if self.stored is None:
            return None
        return [StoredBitmap(name, 65536) for name in self.stored]

    def read_bitmap(self, name: str) -> DirtyBitmap:
        return DirtyBitmap(name, 65536)


def plain(path: str, *, is_file: bool = True) -> Marked:
    image = Marked(path=path, is_file=is_file)
    image.stored = None
    return image


def file(path: str, *names: str, size: int = MIB) -> None:
    write_bitmaps(path, BitmapFile(size, {name: DirtyBitmap(name, 512) for name in names}))


def attached(
    images: dict[str, Marked], files: dict[str | None, str] | None = None, *names: str
) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    """Return the files that were read, and the bitmaps of each device: name and granularity."""
    disks = [Disk(device, image) for device, image in images.items()]
    read = attach_bitmaps(disks, images, files or {}, names)  # type: ignore[arg-type]
    return read, {
        disk.device: [(bitmap.name, bitmap.granularity) for bitmap in disk.bitmaps]
        for disk in disks
    }


def test_those_of_images() -> None:
    images = {"d": Marked("a", "b"), "e": Marked("b", path="y")}
    assert attached(images) == ([], {"d": [("a", 65536), ("b", 65536)], "e": [("b", 65536)]})
    assert attached(images, {}, "b") == ([], {"d": [("b", 65536)], "e": [("b", 65536)]})
    assert attached(images, {}, "d:b") == ([], {"d": [("b", 65536)], "e": []})
    assert attached(images, {}, "a", "e:b") == ([], {"d": [("a", 65536)], "e": [("b", 65536)]})


def test_those_beside_images() -> None:
    for path, name in (("x", "a"), ("y", "b"), ("z", "c")):
        file(f"{path}.bitmaps.json", name)
    images = {"d": plain("x"), "e": Marked("n", path="y"), "f": plain("z", is_file=False)}
    assert attached(images) == (
        ["x.bitmaps.json"], {"d": [("a", 512)], "e": [("n", 65536)], "f": []}
    )  # fmt: skip
    assert attached(images, {}, "n") == (
        ["x.bitmaps.json"], {"d": [], "e": [("n", 65536)], "f": []}
    )  # fmt: skip
    assert attached({"d": plain("w"), "e": Marked("n")}) == ([], {"d": [], "e": [("n", 65536)]})


@pytest.mark.parametrize("key", ["d", None])
def test_those_of_a_file_in_place_of_the_image_s(key: str | None) -> None:
    file("f", "a")
    file("x.bitmaps.json", "b")
    assert attached({"d": Marked("n")}, {key: "f"}) == (["f"], {"d": [("a", 512)]})
    assert attached({"d": plain("x")}, {key: "f"}) == (["f"], {"d": [("a", 512)]})


def test_those_of_a_file_for_one_of_two_devices() -> None:
    file("f", "a")
    images = {"d": Marked("n"), "e": Marked("n", path="y")}
    assert attached(images, {"e": "f"}) == (["f"], {"d": [("n", 65536)], "e": [("a", 512)]})


def test_those_of_a_file_replace_those_of_the_same_name() -> None:
    file("f", "a", "b")
    disk = Disk("d", Marked(), [DirtyBitmap("b", 1024), DirtyBitmap("c", 1024)])
    add_bitmaps([disk], {"d": "f"})
    assert [(bitmap.name, bitmap.granularity) for bitmap in disk.bitmaps] == [
        ("c", 1024), ("a", 512), ("b", 512)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "names", "error", "said"),
    [
        ({None: "f"}, "de", UsageError,
         "--bitmaps-from without DEVICE, and the devices are 'd', 'e'"),
        ({None: "f"}, "", UsageError, "--bitmaps-from without DEVICE, and the devices are none"),
        ({"x": "f"}, "de", UsageError,
         "--bitmaps-from: no device 'x'; there are the devices 'd', 'e'"),
        ({"e": "g"}, "de", FailureError,
         f"g is of a disk of {MIB - 512} bytes, not {MIB} (device 'e')"),
        ({None: "none"}, "d", FailureError, "none: No such file or directory"),
    ],
)  # fmt: skip
def test_files_that_are_refused(
    files: dict[str | None, str], names: str, error: type[BlkmigError], said: str
) -> None:
    file("f", "a")
    file("g", "a", size=MIB - 512)
    with pytest.raises(error) as raised:
        add_bitmaps([Disk(name, Marked(path=name)) for name in names], files)
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("images", "names", "error", "said"),
    [
        ({"d": plain("x")}, [], FailureError,
         "no image has any bitmap; specify a file with --bitmaps-from"),
        ({"d": Marked()}, [], FailureError,
         "no image has any bitmap; specify a file with --bitmaps-from"),
        ({"d": plain("x")}, ["a"], UsageError, "--bitmap: no bitmap 'a'; there is no bitmap"),
        ({"d": Marked("a")}, ["a", "d:b"], UsageError,
         "--bitmap: no bitmap 'd:b'; there is the bitmap 'd/a'"),
    ],
)  # fmt: skip
def test_bitmaps_that_are_missing(
    images: dict[str, Any], names: list[str], error: type[BlkmigError], said: str
) -> None:
    assert not list(Path().iterdir())
    with pytest.raises(error) as raised:
        attached(images, {}, *names)
    assert str(raised.value) == said
