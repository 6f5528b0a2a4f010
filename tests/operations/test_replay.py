"""``replay``: what is written, what is refused before the first write, and with which exit status."""

import hashlib
import json
from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from tests.conftest import Run, fails
from tests.support import raw

MIB = 1 << 20
BITS = raw.bitmap_bits(0, 4096, b"\3".ljust(8, b"\0"))
DIRTY = raw.bitmap_start() + BITS + raw.COMPLETE


def filled(byte: int) -> bytes:
    return bytes([byte]) * MIB


def data(sector: int, byte: int, device: str = "d") -> bytes:
    return raw.block(sector, 0, device, filled(byte))


TWO_MIB = raw.qemu(data(0, 1), raw.block(2048, 8))
BOTH = raw.qemu(data(0, 1), raw.block(2048, 8), bitmaps=DIRTY)
DEVICES = raw.qemu(data(0, 1), data(0, 2, "e"))


def put(folder: Path, content: bytes, name: str = "s.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def snapshot(folder: Path) -> dict[str, str]:
    """Every file's content, but for the stream's."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "s.bin"
    }


def test_the_document(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, BOTH), tmp_path / "disk"
    outcome = run("replay", path, "--image", f"d={image}", "--create", "--output", "json")
    assert outcome.status == 0
    (device,) = outcome.report["devices"]
    assert device["bytes-written"] == 2 * MIB
    assert device["size"] == 2 * MIB
    assert outcome.report["complete"] is True
    assert outcome.report["bitmap-files"] == [f"{image}.bitmaps.json"]
    assert image.read_bytes() == filled(1) + bytes(MIB)
    assert json.loads(Path(f"{image}.bitmaps.json").read_text()) == {
        "version": 1,
        "virtual-size": 2 * MIB,
        "bitmaps": [
            {
                "name": "b",
                "granularity": 65536,
                "recording": True,
                "persistent": False,
                "count": 131072,
                "dirty": [{"start": 0, "length": 131072}],
            }
        ],
    }


def test_zeros_become_holes(run: Run, tmp_path: Path) -> None:
    """Zero chunks and data of zeros take no space, in a new image and in an old one."""
    path = put(tmp_path, raw.qemu(raw.block(0, 8), data(2048, 0), data(4096, 7)))
    for image, more in (
        (tmp_path / "new", ["--create"]),
        (put(tmp_path, filled(9) * 3, "old"), []),
    ):
        assert run("replay", path, "--image", image, *more).status == 0
        assert image.read_bytes() == bytes(2 * MIB) + filled(7)
        assert image.stat().st_blocks * 512 < 2 * MIB


def test_no_image(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, DEVICES)
    outcome = run("replay", path)
    assert outcome.status == 2
    assert "'d', 'e'" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert run("replay", path, "--dry-run").status == 0
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    "words",
    [
        ["--image", "d=x"],
        ["--image", "x"],
        ["--image", "d=x", "--image", "nobody=y"],
        ["--image", "d=x", "--image", "e=y", "--image", "nobody=z"],
        ["--image", "d=x", "--image", "d=y"],
        ["--image", "e="],
        ["--bitmaps-only", "--no-bitmaps", "--image", "x"],
        ["--image", "d=x", "--image", "e=y", "--device-size", "1Q"],
    ],
)
def test_usage_errors(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Refused before the first write."""
    monkeypatch.chdir(tmp_path)
    outcome = run("replay", put(tmp_path, DEVICES), "--create", *words)
    assert outcome.status == 2
    assert "Traceback" not in outcome.err
    assert snapshot(tmp_path) == {}


def test_two_devices(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, DEVICES)
    assert run("replay", path, "--create", "--image", "d=x", "--image", "e=y").status == 0
    assert Path("x").read_bytes() == filled(1)
    assert Path("y").read_bytes() == filled(2)


def test_unnamed_device_and_a_path_with_an_equals_sign(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, raw.qemu(data(0, 3, "")))
    assert run("replay", path, "--create", "--image", "=x").status == 0
    assert run("replay", path, "--create", "--image", "./a=b").status == 0
    assert Path("x").read_bytes() == Path("a=b").read_bytes() == filled(3)


def test_missing_image(run: Run, tmp_path: Path) -> None:
    outcome = run("replay", put(tmp_path, BOTH), "--image", tmp_path / "disk")
    assert outcome.status == 4
    assert "--create" in outcome.err
    assert snapshot(tmp_path) == {}


def test_created_without_a_size_warns(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, TWO_MIB), tmp_path / "disk"
    outcome = run("replay", path, "--image", image, "--create")
    assert outcome.status == 0
    assert image.stat().st_size == 2 * MIB
    assert "--device-size" in outcome.err
    image.unlink()
    # The result may not be what was asked for, which is reported even with -q.
    assert "--device-size" in run("replay", path, "--image", image, "--create", "-q").err


def test_created_with_a_size(run: Run, tmp_path: Path) -> None:
    """The tail stops at the disk's end."""
    path, image = put(tmp_path, raw.qemu(data(0, 1), data(2048, 2))), tmp_path / "disk"
    size = MIB + 1000 * 512
    outcome = run("replay", path, "--image", image, "--create", "--device-size", size)
    assert (outcome.status, outcome.err) == (0, "")
    assert image.read_bytes() == (filled(1) + filled(2))[:size]


def test_existing_image_keeps_its_size(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, TWO_MIB), put(tmp_path, filled(9) + filled(9)[:1024], "disk")
    assert run("replay", path, "--image", image).status == 0
    assert image.read_bytes() == filled(1) + bytes(1024)


REFUSED_IMAGES = {
    "too small": (filled(9), 4),
    "empty": (b"", 4),
    "qcow2": (b"QFI\xfb".ljust(2 * MIB, b"\0"), 4),
    "too small for the given size": (filled(9) * 2, 4),
}


@pytest.mark.parametrize("name", REFUSED_IMAGES)
def test_refused_images_are_untouched(run: Run, tmp_path: Path, name: str) -> None:
    content, status = REFUSED_IMAGES[name]
    path, image = put(tmp_path, TWO_MIB), put(tmp_path, content, "disk")
    before = snapshot(tmp_path)
    more = ["--device-size", "3M"] if "given" in name else []
    outcome = run("replay", path, "--image", image, *more)
    assert outcome.status == status
    assert len(outcome.err.splitlines()) == 1
    assert snapshot(tmp_path) == before


def test_raw_that_looks_like_qcow2(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, TWO_MIB), put(tmp_path, b"QFI\xfb".ljust(2 * MIB, b"\0"), "disk")
    assert run("replay", path, "--image", image, "-f", "raw").status == 0
    assert image.read_bytes() == filled(1) + bytes(MIB)


def test_larger_image_is_a_size_mismatch(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, BOTH), put(tmp_path, bytes(3 * MIB), "disk")
    outcome = run("replay", path, "--image", image, "--output", "json", "--allow-incomplete")
    assert outcome.status == 1
    assert "size-mismatch" in [finding["id"] for finding in outcome.report["findings"]]
    assert image.read_bytes() == bytes(3 * MIB)
    # The stream proves 2 MiB: an option that says so writes these, any other contradicts it.
    words = ["replay", path, "--image", image, "--incremental", "--no-bitmaps", "--device-size"]
    fails(run(*words, "3M"), 1, "size-mismatch")
    assert image.read_bytes() == bytes(3 * MIB)
    assert run(*words, "2M").status == 0
    assert image.read_bytes() == filled(1) + bytes(2 * MIB)


def test_sector_past_the_given_end(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, TWO_MIB), put(tmp_path, filled(9) * 2, "disk")
    before = snapshot(tmp_path)
    for option in ([], ["--allow-incomplete"], ["--incremental"]):
        outcome = run("replay", path, "--image", image, "--device-size", "1M", *option)
        fails(outcome, 1, "sector 2048 is past the disk's end")
        assert outcome.out.count("[sector-past-end]") == 1
        assert snapshot(tmp_path) == before


def test_sector_past_the_end_from_a_pipe(run: Run, tmp_path: Path) -> None:
    """A pipe is read once: what lies within the disk is written, nothing beyond."""
    path, image = put(tmp_path, raw.qemu(data(0, 1), data(2048, 2))), put(tmp_path, bytes(MIB), "x")
    outcome = run("replay", f"exec:cat {path}", "--image", image)
    assert outcome.status == 4
    assert image.read_bytes() == filled(1)


@pytest.mark.parametrize("source", ["{}", "exec:cat {}"])
@pytest.mark.parametrize("sector", [1 << 53, 1 << 45, 1 << 40])
def test_a_hostile_sector_makes_no_huge_file(
    run: Run, tmp_path: Path, source: str, sector: int
) -> None:
    path, image = put(tmp_path, raw.qemu(raw.block(sector, 8))), tmp_path / "disk"
    outcome = run("replay", source.format(path), "--image", image, "--create")
    assert outcome.status == 4
    assert f"sector {sector}" in outcome.err
    assert not image.exists() or image.stat().st_size == 0


DAMAGED = {
    "truncated": BOTH[:-3],
    "flags": raw.qemu(data(0, 1), raw.block(2048, 0x80)),
    "footer": BOTH[:-6] + raw.footer(99) + raw.EOF,
    "bitmap": raw.qemu(data(0, 1), bitmaps=raw.bitmap_start(granularity=100)),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("old", [True, False])
def test_damaged_file_writes_nothing(run: Run, tmp_path: Path, name: str, old: bool) -> None:
    path, image = put(tmp_path, DAMAGED[name]), tmp_path / "disk"
    if old:
        image.write_bytes(filled(9) * 2)
    before = snapshot(tmp_path)
    outcome = run("replay", path, "--image", image, *([] if old else ["--create"]))
    assert outcome.status == 3
    assert len(outcome.err.splitlines()) == 1
    assert snapshot(tmp_path) == before


def test_damaged_pipe_writes_no_bitmaps(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, BOTH[:-3]), tmp_path / "disk"
    words = ["replay", f"exec:cat {path}", "--image", image, "--create"]
    outcome = run(*words, "--output", "json")
    assert outcome.status == 3
    assert outcome.report["partial-images"] == [f"{image}.partial"]
    assert set(snapshot(tmp_path)) == {"disk.partial", "disk.replay.json"}
    # An interrupted replay is recognized, and stays as it is until --resume or --restart.
    fails(run(*words), 4, "a replay was interrupted")
    assert set(snapshot(tmp_path)) == {"disk.partial", "disk.replay.json"}


def test_missing_chunks(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, raw.qemu(data(2048, 5))), put(tmp_path, filled(9) * 3, "disk")
    words = ["replay", path, "--image", image]
    before = snapshot(tmp_path)
    outcome = run(*words, "--output", "json")
    assert outcome.status == 1
    missing = outcome.report["devices"][0]["missing"]
    assert [(part["start"], part["length"]) for part in missing] == [(0, MIB), (2 * MIB, MIB)]
    assert snapshot(tmp_path) == before
    assert "nothing was written" in outcome.err
    for option in ("--incremental", "--allow-incomplete"):
        image.write_bytes(filled(9) * 3)
        assert run(*words, option).status == 0
        assert image.read_bytes() == filled(9) + filled(5) + filled(9)


def test_dry_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, BOTH), put(tmp_path, filled(9) * 2, "disk")
    before = snapshot(tmp_path)
    assert run("replay", path, "--image", image, "--dry-run").status == 0
    assert run("replay", path, "--image", tmp_path / "new", "--create", "--dry-run").status == 0
    assert run("replay", path, "--image", tmp_path / "new", "--dry-run").status == 4
    assert run("replay", path, "--image", image, "--create", "--dry-run").status == 4
    assert run("replay", path, "--image", f"e={image}", "--dry-run").status == 2
    small = put(tmp_path, filled(9), "small")
    before = snapshot(tmp_path)
    assert run("replay", path, "--image", small, "--dry-run").status == 4
    assert run("replay", put(tmp_path, BOTH[:-3]), "--dry-run").status == 3
    assert snapshot(tmp_path) == before


def held(image: Path, *bitmaps: DirtyBitmap, size: int = 2 * MIB) -> Path:
    path = Path(f"{image}.bitmaps.json")
    write_bitmaps(str(path), BitmapFile(size, {bitmap.name: bitmap for bitmap in bitmaps}))
    return path


def test_bitmaps_replaced_and_kept(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, BOTH), put(tmp_path, bytes(2 * MIB), "disk")
    other, old = DirtyBitmap("other", 512), DirtyBitmap("b", 1024, recording=False)
    other.set_range(512, 512)
    old.set_range(0, 2 * MIB)
    side = held(image, other, old)
    outcome = run("replay", path, "--image", image)
    assert outcome.status == 0
    assert "other" in outcome.err
    assert "warning" in outcome.err
    found = read_bitmaps(str(side)).bitmaps
    assert set(found) == {"b", "other"}
    assert found["other"].ranges(2 * MIB) == [(512, 512)]
    assert (found["b"].granularity, found["b"].recording) == (65536, True)
    assert found["b"].ranges(2 * MIB) == [(0, 131072)]


def test_bitmaps_of_another_disk_are_refused(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, BOTH), put(tmp_path, bytes(2 * MIB), "disk")
    held(image, size=4 * MIB)
    before = snapshot(tmp_path)
    assert run("replay", path, "--image", image).status == 4
    Path(f"{image}.bitmaps.json").write_text("{}")
    before = snapshot(tmp_path)
    assert run("replay", path, "--image", image).status == 4
    assert snapshot(tmp_path) == before


def test_no_bitmaps(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, BOTH), tmp_path / "disk"
    assert run("replay", path, "--image", image, "--create", "--no-bitmaps").status == 0
    assert set(snapshot(tmp_path)) == {"disk", "disk.replay.json"}


def test_bitmaps_only(run: Run, tmp_path: Path) -> None:
    path, image = put(tmp_path, BOTH), put(tmp_path, filled(9) * 2, "disk")
    assert run("replay", path, "--image", image, "--bitmaps-only").status == 0
    assert image.read_bytes() == filled(9) * 2
    assert read_bitmaps(f"{image}.bitmaps.json").bitmaps["b"].count(2 * MIB) == 131072


def test_bitmaps_to(run: Run, tmp_path: Path) -> None:
    path, image, side = put(tmp_path, BOTH), tmp_path / "disk", tmp_path / "bits"
    words = ["--image", f"d={image}", "--create", "--bitmaps-to", f"d={side}"]
    assert run("replay", path, *words).status == 0
    assert set(snapshot(tmp_path)) == {"disk", "disk.replay.json", "bits"}
    assert read_bitmaps(str(side)).size == 2 * MIB


def test_bitmap_of_unknown_granularity(run: Run, tmp_path: Path) -> None:
    """v1, 8 bytes of bits in the only chunk: the disk is written, the candidates are named."""
    record = raw.block(0, 0x30, rest=raw.v1(("b", b"\1".ljust(8, b"\0"))) + filled(4))
    path, image = put(tmp_path, raw.qemu(record)), put(tmp_path, bytes(MIB), "disk")
    outcome = run("replay", path, "--image", image)
    assert outcome.status == 1
    assert "16 KiB" in outcome.out
    assert image.read_bytes() == filled(4)
    assert set(snapshot(tmp_path)) == {"disk", "disk.replay.json"}
    assert run("replay", path, "--image", image, "--granularity", "d:b=64k").status == 0
    assert read_bitmaps(f"{image}.bitmaps.json").bitmaps["b"].ranges(MIB) == [(0, 65536)]


def test_granularity_of_an_existing_bitmap_is_used(run: Run, tmp_path: Path) -> None:
    record = raw.block(0, 0x30, rest=raw.v1(("b", b"\1".ljust(8, b"\0"))) + filled(4))
    path, image = put(tmp_path, raw.qemu(record)), put(tmp_path, bytes(MIB), "disk")
    side = held(image, DirtyBitmap("b", 32768), size=MIB)
    assert run("replay", path, "--image", image).status == 0
    assert read_bitmaps(str(side)).bitmaps["b"].ranges(MIB) == [(0, 32768)]


def test_v2_bitmap_of_another_granularity_is_refused(run: Run, tmp_path: Path) -> None:
    bits = raw.v2(2048, ("b", 1, 65536, b"\1".ljust(8, b"\0")))
    path = put(tmp_path, raw.qemu(raw.block(0, 0x68, rest=bits)))
    image = put(tmp_path, filled(9), "disk")
    held(image, DirtyBitmap("b", 32768), size=MIB)
    before = snapshot(tmp_path)
    outcome = run("replay", path, "--image", image)
    assert outcome.status == 4
    assert len(outcome.err.splitlines()) == 1
    assert snapshot(tmp_path) == before


def test_v2_states_the_size(run: Run, tmp_path: Path) -> None:
    """The last range ends the disk; padding is left out."""
    bits = raw.v2(100, ("b", 3, 512, b"\xff" * 16))
    path = put(tmp_path, raw.qemu(raw.block(0, 0x70, rest=bits + filled(6))))
    image = tmp_path / "disk"
    outcome = run("replay", path, "--image", image, "--create")
    assert (outcome.status, outcome.err) == (0, "")
    assert image.read_bytes() == b"\6" * 51200
    found = read_bitmaps(f"{image}.bitmaps.json").bitmaps["b"]
    assert found.ranges(51200) == [(0, 51200)]
    assert (found.recording, found.persistent) == (True, True)
