"""Which image and which place for bitmaps a device has, and what is said where it has none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.checks.manifest import DiskEntry, Manifest
from blkmig_cli.checks.names import Names
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.errors import BlkmigError, FailureError, UsageError
from blkmig_cli.operations.replay.destinations import Destinations
from blkmig_cli.operations.replay.request import ReplayRequest
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.identity import DiskIdentity, Identity
from tests.conftest import Run
from tests.support import raw
from tests.support.replays import MIB, data, filled, folder, here, put, refused

__all__ = ["folder"]

EACH = "use --image DEVICE=IMAGE for each"


_made: list[Destinations] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    close()


def close() -> None:
    """Close all images, so that they can be opened again."""
    while _made:
        _made.pop().close()


def opened(images: dict[str | None, str], **more: Any) -> Destinations:
    close()
    _made.append(Destinations(ReplayRequest(images, **more), FileUses()))
    _made[-1].open()
    return _made[-1]


def names(*devices: str, bitmaps: tuple[tuple[str, str], ...] = ()) -> Names:
    return Names(dict.fromkeys(devices), dict.fromkeys(bitmaps))


def bitmaps(path: str, *found: str, size: int = MIB, granularity: int = 512) -> None:
    write_bitmaps(path, BitmapFile(size, {name: DirtyBitmap(name, granularity) for name in found}))


def raised(error: Any) -> str:
    assert isinstance(error.value, BlkmigError)
    return str(error.value)


# -- the image of a device


def test_an_image_without_device_is_of_the_first_that_occurs() -> None:
    put(bytes(MIB), "x")
    put(bytes(MIB), "y")
    made = opened({None: "x", "e": "y"})
    assert made.found("d") is None
    assert made.image_of("d").path == "x"
    assert made.image_of("e").path == "y"
    assert made.find("f") is None
    assert made.find("d") is made.found("d")
    with pytest.raises(UsageError) as error:
        made.image_of("f", 77)
    assert raised(error) == f"device 'f' has no image (at byte 77); {EACH}"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"f": "b"}, "device 'f' has blocks, but no image (at byte 7)"),
        ({"e": "b"}, "device 'f' has no image (at byte 7)"),
        ({None: "b"}, "device 'f' has blocks, but no image (at byte 7)"),
    ],
)
def test_a_device_with_a_place_for_bitmaps_alone(files: dict[str | None, str], said: str) -> None:
    put(bytes(MIB), "x")
    made = opened({"d": "x"}, bitmap_files=files)
    with pytest.raises(UsageError) as error:
        made.image_of("f", 7)
    other = ", or --bitmaps-only" if "blocks" in said else ""
    assert raised(error) == f"{said}; {EACH}{other}"
    if files == {None: "b"}:  # which is now that of f
        with pytest.raises(UsageError) as error:
            made.image_of("g", 7)
        assert raised(error) == f"device 'g' has no image (at byte 7); {EACH}"


def test_the_sizes_that_are_known() -> None:
    """From the option for the device, or for all; it is what the image is opened with."""
    for name in "xyz":
        put(bytes(2 * MIB), name)
    hints = Hints({None: MIB, "e": 2 * MIB})
    made = opened({None: "x", "e": "y"}, hints=hints)
    assert made.image_of("d").size == MIB
    assert made.image_of("e").size == 2 * MIB
    assert opened({"f": "z"}).image_of("f").size is None
    with pytest.raises(FailureError, match=rf"x has {2 * MIB} bytes, the disk {4 * MIB};"):
        opened({"e": "x"}, hints=Hints({"e": 4 * MIB}))


@pytest.mark.parametrize(("full", "size"), [(True, 2 * MIB), (False, None)])
def test_the_size_of_an_increment_s_disk_is_not_that_of_the_manifest(
    full: bool, size: int | None
) -> None:
    """It may have grown since; an option says otherwise."""
    put(bytes(MIB), "x")
    identity = Identity("i", "b", True, "", "paused", {"d": DiskIdentity(2 * MIB, full)})
    manifest = Manifest(disks={"d": DiskEntry("d", 2 * MIB, None)}, identity=identity)
    if size is None:
        assert opened({"d": "x"}, manifest=manifest).image_of("d").size is None
    else:
        with pytest.raises(FailureError, match=f"the disk {size}"):
            opened({"d": "x"}, manifest=manifest)
    stated = opened({"d": "x"}, manifest=manifest, hints=Hints({"d": MIB}))
    assert stated.image_of("d").size == MIB


def test_hints() -> None:
    """With the sizes of existing images, and the granularities of their bitmaps."""
    put(bytes(MIB), "x")
    put(bytes(2 * MIB), "y")
    bitmaps("x.bitmaps.json", "b", granularity=1024)
    bitmaps("f", "c")
    given = Hints({"s": 5}, {("d", "z"): 4096}, {"e": 7}, {"m"})
    images: dict[str | None, str] = {"d": "x", "e": "y", None: "new"}
    Path("new").write_bytes(bytes(512))
    made = opened(images, bitmap_files={"e": "f"}, hints=given)
    found = made.hints(existing=True)
    assert found.images == {"e": 7, "d": MIB, None: 512}
    assert found.granularities == {("d", "z"): 4096, ("d", "b"): 1024, ("e", "c"): 512}
    assert (found.sizes, found.largest, found.identity) == ({"s": 5}, {"m"}, None)
    assert made.hints(existing=False).images == {"e": 7}
    assert given.images == {"e": 7}
    assert given.granularities == {("d", "z"): 4096}


def test_hints_that_are_given_stand_first() -> None:
    put(bytes(MIB), "x")
    bitmaps("x.bitmaps.json", "b", granularity=1024)
    made = opened({"d": "x"}, hints=Hints({}, {("d", "b"): 4096}))
    assert made.hints(existing=True).granularities == {("d", "b"): 4096}


# -- the place for bitmaps


def test_places() -> None:
    put(bytes(MIB), "x")
    put(bytes(MIB), "y")
    made = opened({"d": "x", "e": "y"}, bitmap_files={"e": "f"})
    assert made.place_of("d").path == "x.bitmaps.json"
    assert made.place_of("e").path == "f"
    made = opened({None: "x"}, bitmap_files={None: "f"})
    assert made.place_of("d").path == "f"
    with pytest.raises(UsageError) as error:
        made.place_of("e", 9)
    assert raised(error) == f"device 'e' has no image (at byte 9); {EACH}"
    # The file beside the image may be named.
    made = opened({"d": "x"}, bitmap_files={"d": "./x.bitmaps.json"})
    assert made.place_of("d").path == "x.bitmaps.json"


def test_bitmaps_beside_images_that_were_written() -> None:
    for name in "xyz":
        put(bytes(MIB), name)
    for name in "xy":
        bitmaps(f"{name}.bitmaps.json", "b")
    made = opened({"d": "x", "e": "y", "f": "z"})
    assert list(made.bitmaps_beside_written()) == []
    for device in "df":
        found = made.image_of(device)
        found.decide(MIB)
        found.image_for(MIB)
    assert list(made.bitmaps_beside_written()) == ["x.bitmaps.json"]


@pytest.mark.parametrize("files", [{}, {"d": "f"}])
def test_bitmaps_of_another_disk(files: dict[str | None, str]) -> None:
    """Beside an image of known size, they are refused at once."""
    put(bytes(MIB), "x")
    bitmaps("x.bitmaps.json", "b", size=MIB + 512)
    bitmaps("f", "b", size=MIB + 512)
    with pytest.raises(FailureError) as error:
        opened({"d": "x"}, bitmap_files=files)
    assert raised(error) == (
        f"x.bitmaps.json is of a disk of {MIB + 512} bytes, not {MIB}; "
        "remove it, or see --bitmaps-to"
    )
    opened({"d": "x"}, bitmaps=False, bitmap_files={})


def test_bitmaps_beside_an_image_to_be_replaced_are_not_read() -> None:
    put(bytes(MIB), "x")
    put(b"{}", "x.bitmaps.json")
    made = opened({"d": "x"}, overwrite=True)
    assert made.place_of("d").granularities == {}
    with pytest.raises(FailureError, match="is not a file of bitmaps"):
        opened({"d": "x"})
    put(b"{}", "f")
    with pytest.raises(FailureError, match="f is not a file of bitmaps"):
        opened({"d": "y"}, create=True, bitmap_files={"d": "f"})


# -- the names in options


@pytest.mark.parametrize(
    ("request_", "devices", "said"),
    [
        ({"images": {None: "x"}}, "d", None),
        ({"images": {None: "x"}}, "de", f"the stream has the devices 'd', 'e'; {EACH}"),
        ({"images": {None: "x", "e": "y"}}, "de", None),
        ({"images": {"d": "x"}}, "de",
         f"device 'e' has no image; the stream has the devices 'd', 'e'; {EACH}"),
        ({"images": {"d": "x"}, "bitmap_files": {None: "f"}}, "de", None),
        ({"images": {"d": "x"}, "bitmap_files": {"e": "f"}}, "de", None),
        ({"images": {"d": "x", "f": "y"}}, "d",
         "--image: no device 'f'; there is the device 'd'"),
        ({"images": {"d": "x"}, "bitmap_files": {"f": "b"}}, "d",
         "--bitmaps-to: no device 'f'; there is the device 'd'"),
        ({"images": {"d": "x"}, "devices": frozenset("f")}, "d",
         "--device: no device 'f'; there is the device 'd'"),
        ({"images": {"d": "x"}, "formats": {"f": "raw"}}, "d",
         "-f: no device 'f'; there is the device 'd'"),
        ({"images": {"d": "x"}, "formats": {None: "raw"}}, "d", None),
        ({"images": {"d": "x"}, "hints": Hints({"f": 512})}, "d",
         "--device-size: no device 'f'; there is the device 'd'"),
        ({"images": {"d": "x"}, "hints": Hints(largest={"f"})}, "d",
         "--device-size: no device 'f'; there is the device 'd'"),
        ({"images": {"d": "x"}, "hints": Hints({}, {(None, "z"): 512})}, "d",
         "--granularity: no bitmap 'z'; there is no bitmap"),
        # Nothing of a disk of 0 bytes is in a stream.
        ({"images": {"d": "x", "f": "y"}, "hints": Hints({"f": 0}), "formats": {"f": "raw"}}, "d",
         None),
        ({"images": {"d": "x", "f": "y"}, "hints": Hints({"f": 1})}, "d",
         "--image: no device 'f'; there is the device 'd'"),
        ({"images": {"d": "x"}, "bitmap_files": {"f": "b"}, "hints": Hints({"f": 0})}, "d", None),
    ],
)  # fmt: skip
def test_names_in_options(request_: dict[str, Any], devices: str, said: str | None) -> None:
    made = Destinations(ReplayRequest(**request_), FileUses())
    if said is None:
        made.bind(list(devices), names(*devices))
        return
    with pytest.raises(UsageError) as error:
        made.bind(list(devices), names(*devices))
    assert raised(error) == said


@pytest.mark.parametrize("device", ["d", "f"])
def test_the_image_of_a_disk_of_0_bytes(run: Run, device: str) -> None:
    """It is made, though the stream has nothing of it."""
    put(raw.qemu(data(0, 1)))
    words = ["replay", "s.bin", "--image", "d=x", "--image", f"{device}=y", "--create"]
    if device == "d":
        refused(run(*words), 2, "--image d=y: the second one of this device", here())
        return
    assert run(*words, "--device-size", "f=0").status == 0
    assert (Path("x").read_bytes(), Path("y").read_bytes()) == (filled(1), b"")
    for path in ("x", "y", "x.replay.json"):
        Path(path).unlink()
    words[5] = "f={device}.img"
    assert run(*words, "--device-size", "f=0", "--bitmaps-only").status == 0
    assert set(here()) == {"s.bin"}


# -- templates and formats


def test_a_template() -> None:
    made = opened({None: "{device}.img", "e": "named"}, create=True)
    assert [found.path for found in made] == ["named"]
    assert made.image_of("d").path == "d.img"
    assert made.image_of("e").path == "named"
    assert [device for device, _ in made.items()] == ["e", "d"]
    made.bind(["d", "e", "f"], names("d", "e", "f"))


@pytest.mark.parametrize(("length", "fits"), [(239, True), (240, False)])
def test_the_longest_name_from_a_template(length: int, fits: bool) -> None:
    """With the suffix of each file beside the image, it has 255 bytes at most."""
    made = opened({None: "{device}"}, create=True)
    if fits:
        assert made.image_of("x" * length).path == "x" * length
        return
    with pytest.raises(UsageError) as error:
        made.image_of("x" * length)
    assert raised(error) == (
        f"device '{'x' * length}' has a name that is not a plain file name; "
        "use --image DEVICE=IMAGE for it"
    )


@pytest.mark.parametrize(
    ("images", "formats", "more", "needs"),
    [
        ({"d": "new"}, {}, {"create": True}, False),
        ({"d": "new.qcow2"}, {}, {"create": True}, True),
        ({"d": "new.qcow2"}, {}, {"create": True, "disks": False}, False),
        ({"d": "new.qcow2"}, {}, {"create": True, "hints": Hints({None: MIB})}, False),
        ({"d": "new.qcow2"}, {}, {"create": True, "hints": Hints({"d": MIB})}, False),
        (
            {"d": "new.qcow2", "e": "n.qcow2"},
            {},
            {"create": True, "hints": Hints({"d": MIB})},
            True,
        ),
        ({None: "new.qcow2"}, {}, {"create": True, "hints": Hints({None: MIB})}, False),
        ({None: "{device}.qcow2"}, {}, {"create": True}, True),
        ({None: "{device}.qcow2"}, {}, {"create": True, "hints": Hints({None: MIB})}, False),
        ({None: "{device}.qcow2"}, {None: "raw"}, {"create": True}, False),
        ({None: "{device}"}, {None: "qcow2"}, {"create": True}, True),
        ({None: "{device}"}, {}, {"create": True}, False),
        ({None: "old"}, {}, {}, False),
    ],
)
def test_whether_a_size_is_needed_before_the_first_write(
    images: dict[str | None, str], formats: dict[str | None, str], more: dict[str, Any], needs: bool
) -> None:
    put(bytes(MIB), "old")
    assert opened(images, formats=formats, **more).need_size is needs


@pytest.mark.parametrize(
    ("images", "formats", "fits"),
    [
        ({"d": "x"}, {}, False),
        ({"d": "x", "e": "y.qcow2"}, {}, True),
        ({"d": "x.qcow2"}, {"d": "raw"}, False),
        ({"d": "x"}, {"d": "qcow2"}, True),
        ({None: "{device}"}, {}, False),
        ({None: "{device}"}, {None: "qcow2"}, True),
        ({None: "{device}.qcow2"}, {}, True),
        ({None: "{device}.qcow2", "e": "y"}, {"e": "raw"}, True),
    ],
)
def test_options_of_formats(
    images: dict[str | None, str], formats: dict[str | None, str], fits: bool
) -> None:
    def make() -> None:
        opened(images, formats=formats, create=True, format_options=("compat=1.1",))

    if fits:
        make()
        return
    with pytest.raises(UsageError) as error:
        make()
    assert raised(error) == "-o is for images of other formats than raw; see -f"


# -- files with two uses


@pytest.mark.parametrize(
    ("images", "more", "said"),
    [
        ({"d": "x", "e": "./x"}, {}, ("the image of 'd' (x)", "the image of 'e' (./x)")),
        ({"d": "x", "e": "x.partial"}, {},
         ("a file beside the image of 'd' (x.partial)", "the image of 'e' (x.partial)")),
        ({None: "x"}, {"bitmap_files": {None: "x"}}, ("the image (x)", "the bitmaps file (x)")),
        ({None: "x"}, {"bitmap_files": {"d": "x.replay.json"}},
         ("a file beside the image (x.replay.json)", "the bitmaps file of 'd' (x.replay.json)")),
    ],
)  # fmt: skip
def test_files_with_two_uses(
    images: dict[str | None, str], more: dict[str, Any], said: tuple[str, str]
) -> None:
    with pytest.raises(UsageError) as error:
        opened(images, create=True, **more)
    assert all(text in raised(error) for text in said)
    assert "are the same file" in raised(error)
