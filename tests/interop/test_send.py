"""A real QEMU loads what blkmig sends: the disk compares equal, and so does every bitmap."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from tests.conftest import Run
from tests.interop import disks, qemu
from tests.interop.disks import MIB
from tests.interop.qemu import Drive

FIRMWARE = qemu.MACHINE
#: Granularities from the finest to one that is a large part of the disk.
GRANULARITIES = (512, 4096, 64 << 10, MIB, 64 * MIB)


def blank(path: Path, image_format: str, size: int) -> Path:
    """Make an image for a destination, with other content."""
    if image_format == "raw":
        path.write_bytes(b"\x5a" * size)
    else:
        qemu.qemu_img("create", "-q", "-f", image_format, path, size)
    return path


def same(path: Path, image_format: str, other: Path, other_format: str = "raw") -> None:
    """Check that qemu-img finds no difference."""
    qemu.qemu_img("compare", "-f", image_format, "-F", other_format, path, other)


# Three drives at once, and each disk alone.
CHOICES = [["patterned", "noisy, no whole MiB", "mixed, all but a sector"]]
CHOICES += [[name] for name in disks.DISKS]
# QEMU 2.10 to 9.0 cannot load data of a disk below a MiB: see test_defects.py.
CASES = [
    (chosen, image_format, zero_blocks)
    for chosen, image_format, zero_blocks in itertools.product(
        CHOICES, ("raw", "qcow2"), (True, False)
    )
    if zero_blocks or chosen != ["below a MiB, empty"]
]


@pytest.mark.block_migration
@pytest.mark.parametrize(
    ("chosen", "image_format", "zero_blocks"),
    # What is in a disk matters to QEMU, not the format into which it writes it.
    [pytest.param(*case, marks=pytest.mark.long if case[1] == "qcow2" else []) for case in CASES],
)
def test_disks(
    run: Run, tmp_path: Path, chosen: list[str], image_format: str, zero_blocks: bool
) -> None:
    images = [disks.make(tmp_path / f"{number}.img", name) for number, name in enumerate(chosen)]
    stream = tmp_path / "s.bin"
    options = [] if zero_blocks else ["--no-zero-blocks"]
    assert run("send", *images, "--machine", FIRMWARE, "--to", stream, *options).status == 0
    drives = []
    for number, image in enumerate(images):
        target = blank(tmp_path / f"{number}.dst", image_format, image.stat().st_size)
        drives.append(Drive(f"drive{number}", target, image_format))
    with qemu.destination(tmp_path / "q", *drives) as destination:
        assert destination.load(f"exec:cat {stream}") == "completed", destination.log
    assert "vmdescription" not in destination.log
    for drive, image in zip(drives, images, strict=True):
        same(drive.path, image_format, image)


def bitmaps_of(size: int) -> list[DirtyBitmap]:
    """Return bitmaps of all granularities, enabled and disabled, persistent and not."""
    made = [disks.bitmap(f"b{granularity}", granularity, size) for granularity in GRANULARITIES]
    for number, bitmap in enumerate(made):
        bitmap.recording = number % 2 == 0
        bitmap.persistent = number in (1, 2)
    return [*made, DirtyBitmap("clean", 65536)]


def check(found: dict[str, dict[str, Any]], wanted: list[DirtyBitmap]) -> None:
    """Check the flags, granularities and counts that query-block shows."""
    assert set(found) == {made.name for made in wanted}
    for made in wanted:
        shown = found[made.name]
        assert shown["granularity"] == made.granularity
        assert shown["recording"] == made.recording
        assert shown["persistent"] == made.persistent
        # QEMU counts a last granule whole, where the disk ends inside it.
        assert shown["count"] == made.count(None)


def with_bitmaps(path: Path, size: int) -> list[DirtyBitmap]:
    """Make a sparse disk of ``size`` bytes at ``path`` with bitmaps beside it; return them."""
    with open(path, "wb") as file:
        file.write(disks.noisy(MIB))
        file.truncate(size)
    made = bitmaps_of(size)
    names = {bitmap.name: bitmap for bitmap in made}
    write_bitmaps(f"{path}.bitmaps.json", BitmapFile(size, names))
    return made


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
@pytest.mark.parametrize("only", [pytest.param(False, marks=pytest.mark.block_migration), True])
def test_bitmaps(run: Run, tmp_path: Path, image_format: str, only: bool) -> None:
    size = 200 * MIB + 512 * 5
    image, stream = tmp_path / "d.img", tmp_path / "s.bin"
    wanted = with_bitmaps(image, size)
    options = ["--bitmaps-only"] if only else []
    words = ["send", image, "--bitmaps", "--machine", FIRMWARE, "--to", stream]
    assert run(*words, *options).status == 0
    target = tmp_path / "dst"
    if image_format == "raw":
        with open(target, "wb") as file:
            file.truncate(size)
    else:
        blank(target, image_format, size)
    drive = Drive("drive0", target, image_format)
    with qemu.destination(tmp_path / "q", drive) as destination:
        destination.capabilities("dirty-bitmaps")
        assert destination.load(f"exec:cat {stream}") == "completed", destination.log
        check(destination.bitmaps("drive0"), wanted)
        for made in wanted:
            assert destination.sha256("drive0", made.name) == made.sha256(size)
    if not only:
        same(target, image_format, image)


def test_bitmaps_only_need_no_machine(run: Run, tmp_path: Path) -> None:
    size = 70 * MIB
    image, stream = tmp_path / "d.img", tmp_path / "s.bin"
    wanted = with_bitmaps(image, size)
    assert run("send", image, "--bitmaps", "--bitmaps-only", "--to", stream).status == 0
    target = tmp_path / "dst"
    with open(target, "wb") as file:
        file.truncate(size)
    words = ["-M", "none", *qemu.drive_words(Drive("drive0", target)), "-incoming", "defer"]
    with qemu.running(tmp_path / "q", *words) as destination:
        destination.capabilities("dirty-bitmaps")
        assert destination.load(f"exec:cat {stream}") == "completed", destination.log
        check(destination.bitmaps("drive0"), wanted)
        for made in wanted:
            assert destination.sha256("drive0", made.name) == made.sha256(size)


def test_qemu_takes_the_rest_of_a_stream_for_no_disk(run: Run, tmp_path: Path) -> None:
    image, stream = tmp_path / "d.img", tmp_path / "s.bin"
    image.write_bytes(disks.noisy(4 * MIB))
    assert run("send", image, "--to", stream).status == 0
    cut, new = (
        f"exec:head -c {2 * MIB + 4096} {stream}",
        ("--image", tmp_path / "new.img", "--create"),
    )
    assert run("replay", cut, *new).status == 3
    token = run("replay", "--print-token", *new).out.strip()
    assert run("send", image, "--from-token", token, "--to", stream).status == 0
    target = tmp_path / "dst"
    target.write_bytes(bytes(4 * MIB))
    with qemu.destination(tmp_path / "q", Drive("drive0", target)) as destination:
        assert destination.load(f"exec:cat {stream}") in ("failed", "gone")
        assert "Machine type received is 'blkmig-rest-" in destination.log
    assert target.read_bytes() == bytes(4 * MIB)
