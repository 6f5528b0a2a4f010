"""Increments: what is refused, to the last word, and which bitmap selects what is sent."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.image import StoredBitmap
from blkmig_cli.errors import BlkmigError, FailureError, UsageError
from blkmig_cli.operations.send.changes import (
    Dirty,
    SendChanges,
    UnusableError,
    base_of,
    check_changes,
    check_named,
    check_options,
    find_dirty,
    finish_changes,
    select_changes,
    writes_images,
)
from blkmig_cli.operations.send.identity import Base, SendIdentity
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.wire.identity import DiskIdentity, Identity
from tests.support.replays import folder
from tests.support.strategies import MemoryImage

__all__ = ["folder"]

MIB = 1 << 20
ID = "01234567-89ab-cdef-0123-456789abcdef"


class Marked(MemoryImage):
    """An image of ``size`` bytes with bitmaps in it; ``stored`` None: it has no place for any."""

    is_file = True

    def __init__(
        self, stored: Sequence[StoredBitmap] | None = (), path: str = "x", size: int = MIB
    ) -> None:
        super().__init__(b"")
        self.path = path
        self.stored = stored
        self.done: list[object] = []
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def bitmaps(self) -> Sequence[StoredBitmap] | None:
        return self.stored

    def planned(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        return iter(ranges)

    def dirty_ranges(self, name: str) -> Iterator[tuple[int, int]]:
        yield 0, len(name)

    def add_bitmap(self, name: str, granularity: int) -> None:
        self.done.append((name, granularity))

    def remove_bitmap(self, name: str) -> None:
        self.done.append(name)


# -- options


@pytest.mark.parametrize(
    ("changes", "options", "target", "shared", "text"),
    [
        ({"since": {None: "b"}}, {"skip_unallocated": True}, None, False,
         "--since and --skip-unallocated exclude each other"),
        ({"since": {None: "b"}}, {"disks": False}, None, False,
         "--since and --bitmaps-only exclude each other"),
        ({"or_full": True}, {}, None, False, "--else is for --since"),
        ({"mark": "m"}, {}, None, True,
         "--mark, --drop and -U: the image may change after it was sent"),
        ({"drop": ("m",)}, {}, "s.bin", True,
         "--mark, --drop and -U: the image may change after it was sent"),
        ({"mark": ""}, {}, None, False, "--mark: the name is empty"),
        ({"drop": ("m",)}, {}, None, False,
         "--drop is only for a stream that is stored in a file or at a URL; see --to FILE"),
        ({"drop": ("m",)}, {}, "exec:cat", False,
         "--drop is only for a stream that is stored in a file or at a URL; see --to FILE"),
        ({}, {"skip_unallocated": True}, None, True, None),
        ({"since": {None: "b"}, "or_full": True}, {}, None, True, None),
        ({"mark": "m"}, {"disks": False}, None, False, None),
        ({"drop": ("m",)}, {"skip_unallocated": True}, "s.bin", False, None),
        ({"drop": ("m",)}, {}, "https://h/s", False, None),
    ],
)  # fmt: skip
def test_options_that_contradict(
    changes: dict[str, Any], options: dict[str, Any], target: str | None, shared: bool,
    text: str | None,
) -> None:  # fmt: skip
    def check() -> None:
        check_options(SendChanges(**changes), SendOptions(**options), target, shared=shared)

    if text is None:
        check()
        return
    with pytest.raises(UsageError) as error:
        check()
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("changes", "writes"),
    [({}, False), ({"since": {None: "b"}}, False), ({"mark": ""}, True), ({"drop": ("m",)}, True)],
)
def test_whether_images_are_written(changes: dict[str, Any], writes: bool) -> None:
    assert writes_images(SendChanges(**changes)) is writes


def test_the_base_of_a_stream() -> None:
    since, uses = SendChanges({None: "b"}), FileUses()
    assert base_of(None, SendOptions(), since, uses) is None
    assert base_of(SendIdentity(), SendOptions(), since, uses) is None
    wanted = SendIdentity(base=ID.upper())
    assert base_of(wanted, SendOptions(), since, uses) == Base(ID)
    skipping = SendOptions(skip_unallocated=True)
    assert base_of(wanted, skipping, SendChanges(), uses) == Base(ID)
    with pytest.raises(UsageError) as error:
        base_of(wanted, SendOptions(), SendChanges(), uses)
    assert str(error.value) == (
        "--base is for a stream of changes; see --since and --skip-unallocated"
    )


@pytest.mark.parametrize(
    ("since", "files", "devices", "text"),
    [
        ({"d": "b"}, {}, "de", "--since names no bitmap of 'e'; use --since DEVICE:NAME"),
        ({"x": "b"}, {}, "d", "--since: no device 'x'; there is the device 'd'"),
        ({None: "b"}, {"x": "f"}, "d", "--bitmaps-from: no device 'x'; there is the device 'd'"),
        ({None: "b"}, {None: "f"}, "de",
         "--bitmaps-from without DEVICE, and there are several disks"),
        ({None: "b"}, {None: "f"}, "d", None),
        ({None: "b", "d": "c"}, {"d": "f"}, "de", None),
        ({"d": "b", "e": "c"}, {"d": "f"}, "de", None),
        ({}, {"d": "f"}, "de", None),
    ],
)  # fmt: skip
def test_the_devices_of_options(
    since: dict[str | None, str], files: dict[str | None, str], devices: str, text: str | None
) -> None:
    if text is None:
        check_named(SendChanges(since, files), devices)
        return
    with pytest.raises(UsageError) as error:
        check_named(SendChanges(since, files), devices)
    assert str(error.value) == text


# -- bitmaps that are created and removed


@pytest.mark.parametrize("option", ["--mark", "--drop"])
@pytest.mark.parametrize("kind", ["raw", "export"])
def test_images_that_record_nothing(option: str, kind: str) -> None:
    image = Marked(None if kind == "raw" else ())
    image.is_file = kind == "raw"
    changes = SendChanges(mark="m") if option == "--mark" else SendChanges(drop=("m",))
    with pytest.raises(UsageError) as error:
        check_changes(changes, {"d": image})  # type: ignore[dict-item]
    assert str(error.value) == (
        f"{option}: x is not a qcow2 image, so that nothing would record its changes"
    )
    check_changes(SendChanges({None: "b"}), {"d": image})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mark": "b"}, (FailureError, "x has a bitmap 'b' already")),
        ({"mark": "c"}, (FailureError, "y has a bitmap 'c' already")),
        ({"drop": ("d",)}, (UsageError, "--drop: no image has a bitmap 'd'")),
        ({"drop": ("c", "e")}, (UsageError, "--drop: no image has a bitmap 'e'")),
        ({"mark": "m" * 256}, (UsageError, f"--mark: '{'m' * 256}': over 255 bytes")),
        ({"mark": "m\0"}, (UsageError,
         "--mark: 'm\\x00': it contains a NUL, which ends a name in QEMU")),
        ({"mark": "m" * 255}, None),
        ({"mark": "m", "drop": ("b", "c")}, None),
    ],
)  # fmt: skip
def test_names_of_bitmaps_to_create_and_remove(
    changes: dict[str, Any], expected: tuple[type[BlkmigError], str] | None
) -> None:
    images: Any = {
        "d": Marked([StoredBitmap("b", 65536)]), "e": Marked([StoredBitmap("c", 65536)], "y")
    }  # fmt: skip
    for name in "xy":
        Path(name).touch()
    if expected is None:
        check_changes(SendChanges(**changes), images)
        return
    with pytest.raises(expected[0]) as error:
        check_changes(SendChanges(**changes), images)
    assert str(error.value) == expected[1]


def test_an_image_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def access(path: str, mode: int) -> bool:
        asked.append((path, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(FailureError) as error:
        check_changes(SendChanges(mark="m"), {"d": Marked()})  # type: ignore[dict-item]
    assert str(error.value) == "x cannot be written, so that its bitmaps cannot be changed"
    assert asked == [("x", os.W_OK)]


def test_finishing() -> None:
    """One to remove is only in some images."""
    one, other = Marked([StoredBitmap("b", 512)]), Marked([StoredBitmap("c", 512)])
    images: Any = {"d": one, "e": other}
    finish_changes(SendChanges(mark="m", drop=("b", "z")), images)
    for image, removed in ((one, ["b"]), (other, [])):
        assert image.done == [("m", 65536), *removed]
    plain = Marked(None)
    finish_changes(SendChanges(), {"d": plain})  # type: ignore[dict-item]
    assert plain.done == []


def test_finishing_that_fails() -> None:
    class Broken(Marked):
        def add_bitmap(self, name: str, granularity: int) -> None:
            raise FailureError("no")

    with pytest.raises(FailureError, match="no") as error:
        finish_changes(SendChanges(mark="m"), {"d": Broken()})  # type: ignore[dict-item]
    assert error.value.__notes__ == [
        "the stream is complete; not all bitmaps were created or removed"
    ]


# -- the bitmap that selects


def found(name: str, **known: Any) -> StoredBitmap:
    return StoredBitmap(name, 65536, **known)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("z", "x has no such bitmap"),
        ("bad", "it is broken"),
        ("off", "it is not recording, so that it does not tell all changes"),
        ("b", None),
    ],
)
def test_a_bitmap_in_an_image(name: str, text: str | None) -> None:
    stored = [found("off", recording=False), found("bad", fault="it is broken"), found("b")]
    images: Any = {"d": Marked(stored)}
    if text is None:
        dirty, size = find_dirty("d", name, images=images, files={}, uses=FileUses())
        assert (list(dirty), size) == ([(0, len(name))], MIB)
        return
    with pytest.raises(UnusableError) as error:
        find_dirty("d", name, images=images, files={}, uses=FileUses())
    assert str(error.value) == text


def beside(name: str, size: int = MIB, *, recording: bool = True) -> None:
    bitmap = DirtyBitmap("b", 512, recording)
    bitmap.set_range(0, min(size, 512))
    write_bitmaps(name, BitmapFile(size, {"b": bitmap}))


@pytest.mark.parametrize("key", ["d", None])
def test_a_bitmap_in_a_file(key: str | None) -> None:
    """It is believed, though the image may have others, or be newer."""
    beside("f", MIB - 512)
    Path("x").touch()
    os.utime("f", (1, 1))
    images: Any = {"d": Marked([found("b"), found("c")])}
    uses = FileUses()
    dirty, size = find_dirty("d", "b", images=images, files={key: "f"}, uses=uses)
    assert (dirty, size) == ([(0, 512)], MIB - 512)
    with pytest.raises(UsageError) as error:
        uses.add("the target", "f", writes=True)
    assert "the bitmaps file" in str(error.value)
    with pytest.raises(UnusableError) as unusable:
        find_dirty("d", "c", images=images, files={key: "f"}, uses=FileUses())
    assert str(unusable.value) == "f has no such bitmap"


def test_a_bitmap_in_a_file_for_another_device() -> None:
    beside("f")
    images: Any = {"d": Marked([found("c")])}
    dirty, _ = find_dirty("d", "c", images=images, files={"e": "f"}, uses=FileUses())
    assert list(dirty) == [(0, 1)]


def test_a_bitmap_beside_an_image() -> None:
    image = Marked(None)
    images: Any = {"d": image}

    def read() -> Dirty:
        return find_dirty("d", "b", images=images, files={}, uses=FileUses())

    Path("x").touch()
    with pytest.raises(UnusableError) as error:
        read()
    assert str(error.value) == "x has no bitmaps"
    beside("x.bitmaps.json")
    os.utime("x", ns=(5, 5))
    os.utime("x.bitmaps.json", ns=(5, 5))
    assert read() == ([(0, 512)], MIB)
    os.utime("x", ns=(6, 6))
    with pytest.raises(UnusableError) as error:
        read()
    assert str(error.value) == (
        "x was written after x.bitmaps.json; if that is complete nevertheless, "
        "specify it with --bitmaps-from"
    )
    os.utime("x", ns=(4, 4))
    image.is_file = False
    with pytest.raises(UnusableError) as error:
        read()
    assert str(error.value) == "x has no bitmaps"


@pytest.mark.parametrize(
    ("size", "recording", "expected"),
    [
        (MIB, False, (UnusableError, "it is not recording, so that it does not tell all changes")),
        (MIB + 512, True, (FailureError,
         f"f is of a disk of {MIB + 512} bytes, not {MIB} (device 'd')")),
        (MIB, True, None),
        (0, True, None),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit(
    size: int, recording: bool, expected: tuple[type[Exception], str] | None
) -> None:
    beside("f", size, recording=recording)
    images: Any = {"d": Marked(None)}
    if expected is None:
        read = find_dirty("d", "b", images=images, files={None: "f"}, uses=FileUses())
        assert read[1] == size
        return
    with pytest.raises(expected[0]) as error:
        find_dirty("d", "b", images=images, files={None: "f"}, uses=FileUses())
    assert str(error.value) == expected[1]


NO_BASE = "the increment names no base, so that nothing shows what it belongs to; see --base"
ONLY_ID = (
    "the id of a base does not tell the sizes of its disks, and an increment of a disk that has "
    "grown since will be refused; specify the stream or its manifest with --base"
)
MISSING = "bitmap 'b': gone"


def based(*, full: bool = True, since: str | None = None, mark: str | None = "b") -> Base:
    disk = DiskIdentity(4 * MIB, full, since, mark)
    return Base(ID, Identity(ID, None, False, "", "paused", {"d": disk}))


@pytest.mark.parametrize(
    ("base", "or_full", "missing", "warned", "starts"),
    [
        (None, False, False, [NO_BASE], [0, 6, 7]),
        (Base(ID), False, False, [ONLY_ID], [0, 6, 7]),
        (based(), False, False, [], [0, 4, 5, 6, 7]),
        (based(full=False, since="a"), False, False, [], [0, 4, 5, 6, 7]),
        (based(mark=None), False, False,
         ["the base does not state a bitmap of 'd': 'b' must have recorded since it was made"],
         [0, 4, 5, 6, 7]),
        (based(full=False), False, False,
         ["the base does not have all of 'd', which is sent whole"], None),
        (based(), True, True, ["bitmap 'b' of 'd': gone; the disk is sent whole"], None),
    ],
)  # fmt: skip
def test_what_is_selected(
    base: Base | None, or_full: bool, missing: bool, warned: list[str], starts: list[int] | None
) -> None:
    """The chunk that is dirty, and what was added since the base or the bitmap's end."""
    image = Marked(size=8 * MIB)
    disk = Disk("d", image)
    warnings: list[str] = []

    def find(device: str, name: str) -> Dirty:
        assert (device, name) == ("d", "b")
        if missing:
            raise UnusableError("gone")
        return [(0, 65536)], 6 * MIB

    images: Any = {"d": image}
    selected = select_changes(
        [disk], images, SendChanges({None: "b"}, or_full=or_full), SendOptions(), base, find,
        warnings.append,
    )  # fmt: skip
    assert warnings == warned
    assert selected == ({} if starts is None else {"d": "b"})
    assert disk.partial is (starts is not None)
    if starts is None:
        assert disk.image is image
        return
    chunks = [
        at // MIB for start, length in disk.image.extents()
        for at in range(start, start + length, MIB)
    ]  # fmt: skip
    assert chunks == starts


@pytest.mark.parametrize(("dialect", "chunks"), [("qemu", [0, 1, 2]), ("classic", [0, 2])])
def test_the_chunk_before_the_last_one(dialect: str, chunks: list[int]) -> None:
    """In qemu, the last chunk ends with the disk, and carries a part of the one before."""
    dirty = [(0, 65536), (2 * MIB, 512)]
    image = Marked(size=2 * MIB + 512)
    disk, images = Disk("d", image), {"d": image}
    select_changes(
        [disk], images, SendChanges({"d": "b"}), SendOptions(dialect), None,  # type: ignore[arg-type]
        lambda *_: (dirty, image.size), lambda _: None,
    )  # fmt: skip
    found = [
        at // MIB for start, length in disk.image.extents()
        for at in range(start, start + length, MIB)
    ]  # fmt: skip
    assert found == chunks


@pytest.mark.parametrize(
    ("base", "text"),
    [
        (None, "bitmap 'b': gone (device 'd'); use --else full to send the disk whole"),
        (based(mark="a"),
         "bitmap 'b' is not the one that was created with the base, which is 'a' (device 'd')"),
    ],
)  # fmt: skip
def test_a_bitmap_that_is_not_usable(base: Base | None, text: str) -> None:
    def find(device: str, name: str) -> Dirty:
        raise UnusableError("gone")

    image: Any = Marked()
    with pytest.raises(FailureError) as error:
        select_changes(
            [Disk("d", image)], {"d": image}, SendChanges({None: "b"}), SendOptions(), base, find,
            lambda _: None,
        )  # fmt: skip
    assert str(error.value) == text


def test_a_bitmap_for_each_device() -> None:
    """One that is named for a device stands before the one for all others."""
    images: Any = {name: Marked(size=4 * MIB) for name in "de"}
    disks = [Disk(name, image) for name, image in images.items()]
    asked = []

    def find(device: str, name: str) -> Dirty:
        asked.append((device, name))
        return [], 4 * MIB

    selected = select_changes(
        disks, images, SendChanges({None: "b", "e": "c"}), SendOptions(), None, find,
        lambda _: None,
    )  # fmt: skip
    assert selected == {"d": "b", "e": "c"}
    assert asked == [("d", "b"), ("e", "c")]
    nothing = select_changes(
        disks, images, SendChanges(), SendOptions(), None, find, lambda _: None
    )
    assert nothing is None
    with pytest.raises(UsageError, match="no device 'x'"):
        select_changes(
            disks, images, SendChanges({"x": "b"}), SendOptions(), None, find, lambda _: None
        )
