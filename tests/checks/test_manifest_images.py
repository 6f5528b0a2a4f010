"""Disks and bitmaps against a manifest: every difference, and what is not compared."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from blkmig_cli import limits
from blkmig_cli.checks.manifest import (
    BitmapEntry,
    Difference,
    DiskEntry,
    Manifest,
    check_images,
    check_work,
    manifest_of,
)
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.raw import RawImage, open_raw
from blkmig_cli.errors import FailureError
from blkmig_cli.progress import no_tick
from blkmig_cli.wire.hints import Hints

MIB = 1 << 20
#: Data at the start, and behind 600 KiB of zeros; zeros at the end.
CONTENT = (b"\1" * 4096).ljust(600 << 10, b"\0") + (b"\2" * 5000).ljust(424 << 10, b"\0")
DIGEST = hashlib.sha256(CONTENT).hexdigest()
WORDS = b"\6".ljust(8, b"\0")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[RawImage]:
    with (tmp_path / "d").open("wb") as file:
        for at in (0, 600 << 10):
            file.seek(at)
            file.write(CONTENT[at : at + 5000].rstrip(b"\0"))
        file.truncate(MIB)
    with closing(open_raw(str(tmp_path / "d"), writable=False)) as found:
        yield found


def bitmap(granularity: int = 65536) -> DirtyBitmap:
    found = DirtyBitmap("b", granularity)
    found.set_range(granularity, 2 * granularity)
    return found


ENTRY = BitmapEntry("d", "b", 65536, True, False, 131072, hashlib.sha256(WORDS).hexdigest())
MANIFEST = Manifest(disks={"d": DiskEntry("d", MIB, DIGEST)}, bitmaps={("d", "b"): ENTRY})


def test_what_is_made(image: RawImage) -> None:
    disk = Disk("d", image, [bitmap()])
    check_work([disk], content=True)
    ticks: list[tuple[int, str | None]] = []

    def tick(done: int, disk: str | None = None) -> None:
        ticks.append((done, disk))

    assert manifest_of([disk], tick, content=True, flags=True) == MANIFEST
    assert {device for _, device in ticks} == {"d"}
    assert [done for done, _ in ticks] == sorted(done for done, _ in ticks)
    assert ticks[0][0] == 0
    assert ticks[-1][0] < MIB
    bare = manifest_of([disk], tick, content=False, flags=False)
    assert bare.disks == {"d": DiskEntry("d", MIB, None)}
    assert bare.bitmaps == {("d", "b"): replace(ENTRY, recording=None, persistent=None)}
    assert (MANIFEST.to_read, bare.to_read) == (MIB, 0)
    ticks.clear()
    two = manifest_of([disk, Disk("e", image)], tick, content=True, flags=True)
    assert [two.disks[name].sha256 for name in "de"] == [DIGEST, DIGEST]
    assert min(done for done, device in ticks if device == "e") == MIB


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"size": MIB + 512}, "the disk has 1048576 bytes, not 1049088"),
        ({"sha256": "0" * 64}, f"the disk's SHA-256 is {DIGEST[:12]}..., not 000000000000..."),
        ({"sha256": None, "size": 5}, None),
    ],
)
def test_a_disk(image: RawImage, changed: dict[str, object], message: str | None) -> None:
    manifest = Manifest(disks={"d": replace(MANIFEST.disks["d"], **changed)})  # type: ignore[arg-type]
    expected = [] if message is None else [Difference("d", message)]
    assert list(check_images(manifest, {"d": image}, None, no_tick)) == expected
    assert list(check_images(manifest, {"d": image}, None, no_tick, {"d"})) == []


def test_disks_that_only_one_of_them_has(image: RawImage) -> None:
    assert list(check_images(MANIFEST, {"e": image}, None, no_tick)) == [
        Difference("d", "the disk is missing"), Difference("e", "the disk is not in the manifest"),
    ]  # fmt: skip
    assert list(check_images(MANIFEST, {"e": image}, None, no_tick, {"d"})) == [
        Difference("e", "the disk is not in the manifest")
    ]
    assert list(check_images(MANIFEST, None, None, no_tick)) == []


OTHER = DirtyBitmap("b", 65536)
OTHER.set_range(0, 131072)


@pytest.mark.parametrize(
    ("found", "changed", "message"),
    [
        (bitmap(), {}, None),
        (bitmap(4096), {}, "its granularity is 4096, not 65536"),
        (bitmap(), {"count": 65536}, "131072 bytes are dirty, not 65536"),
        (OTHER, {}, "as many bytes are dirty, but others"),
        (bitmap(), {"recording": False}, "it is recording"),
        (bitmap(), {"persistent": True}, "it is not persistent"),
        (bitmap(), {"recording": None, "persistent": None}, None),
    ],
)
def test_a_bitmap(found: DirtyBitmap, changed: dict[str, object], message: str | None) -> None:
    manifest = replace(MANIFEST, bitmaps={("d", "b"): replace(ENTRY, **changed)})  # type: ignore[arg-type]
    expected = [] if message is None else [Difference("d", f"bitmap 'b': {message}")]
    assert list(check_images(manifest, None, {("d", "b"): found}, no_tick)) == expected


def test_bitmaps_that_only_one_of_them_has() -> None:
    assert list(check_images(MANIFEST, None, {("d", "c"): bitmap()}, no_tick)) == [
        Difference("d", "bitmap 'b': is missing"),
        Difference("d", "bitmap 'c': is not in the manifest"),
    ]


@pytest.mark.parametrize("enough", [True, False])
def test_zeros_that_are_too_many_to_hash(
    image: RawImage, monkeypatch: pytest.MonkeyPatch, enough: bool
) -> None:
    """By the data of all disks."""
    data = sum(length for _, length in image.extents())
    zeros = MIB - data
    monkeypatch.setattr(limits, "ZEROS_HASHED", 1)
    monkeypatch.setattr(limits, "ZEROS_HASHED_FOR", zeros if enough else zeros - 1)
    found = list(check_images(MANIFEST, {"d": image}, None, no_tick))
    disk = Disk("d", image)
    if enough:
        assert found == []
        check_work([disk], content=True)
        return
    (difference,) = found
    assert difference.message.startswith("the disk was not compared: too many zeros to hash (over ")
    with pytest.raises(FailureError, match="--manifest: too many zeros to hash") as caught:
        check_work([disk], content=True)
    assert caught.value.device == "d"
    check_work([disk], content=False)


@pytest.mark.parametrize("enough", [True, False])
def test_bits_that_are_too_many_to_hash(
    image: RawImage, monkeypatch: pytest.MonkeyPatch, enough: bool
) -> None:
    monkeypatch.setattr(limits, "ZEROS_HASHED", 1)
    monkeypatch.setattr(limits, "ZEROS_HASHED_FOR", 8 if enough else 7)
    found = list(check_images(MANIFEST, None, {("d", "b"): bitmap()}, no_tick))
    disk = Disk("d", image, [bitmap()])
    if enough:
        assert found == []
        check_work([disk], content=False)
        return
    (difference,) = found
    assert difference.message.startswith("bitmap 'b': was not compared: too many zeros to hash")
    with pytest.raises(FailureError, match="--manifest: bitmap 'b': too many zeros to hash"):
        check_work([disk], content=False)


def test_hints_that_a_manifest_completes() -> None:
    given = Hints(
        {"d": 5}, {("d", "b"): 512, (None, "x"): 1024}, {"d": 7, "e": 9}, {"f"},
    )  # fmt: skip
    found = MANIFEST.completing(given)
    assert found.sizes == {"d": 5}
    assert found.granularities == {("d", "b"): 512, (None, "x"): 1024}
    assert found.images == {"d": MIB, "e": 9}
    assert found.largest == {"f"}
    assert found.identity is None
    assert MANIFEST.completing(Hints()).granularities == {("d", "b"): 65536}
