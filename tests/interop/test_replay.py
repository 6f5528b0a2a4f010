"""blkmig reads what a real QEMU writes: streams captured in the test, replayed and compared."""

import time
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.bitmap_file import read_bitmaps
from tests.conftest import Run
from tests.interop import disks, qemu
from tests.interop.disks import MIB
from tests.interop.qemu import Drive, Qemu

#: Without any downtime the bulk phase does not end before all is sent.
WHOLE = {"downtime_limit": 0}


def as_raw(drive: Drive, path: Path) -> bytes:
    """Return the drive's content, as qemu-img converts it."""
    qemu.qemu_img("convert", "-f", drive.format, "-O", "raw", drive.path, path)
    return path.read_bytes()


def drives(folder: Path, names: list[str], image_format: str) -> list[Drive]:
    """Make the disks named in ``disks.DISKS`` as drives of QEMU."""
    made = []
    for number, name in enumerate(names):
        path = disks.make(folder / f"{number}.raw", name)
        if image_format != "raw":
            packed = folder / f"{number}.{image_format}"
            qemu.qemu_img("convert", "-f", "raw", "-O", image_format, path, packed)
            path = packed
        made.append(Drive(f"drive{number}", path, image_format))
    return made


def replayed(run: Run, stream: Path, source: list[Drive], folder: Path, *options: str) -> Any:
    """Replay ``stream`` onto new images of the drives' sizes; return the report."""
    words = []
    for drive in source:
        size = int(qemu.qemu_img("info", drive.path).split(" (")[1].split(" bytes")[0])
        words += ["--image", f"{drive.device}={folder / drive.device}"]
        words += ["--device-size", f"{drive.device}={size}"]
    outcome = run("replay", stream, *words, "--create", "--output", "json", *options)
    assert outcome.status == 0, outcome
    return outcome.report


@pytest.mark.block_migration
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
@pytest.mark.parametrize("zero_blocks", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "chosen", [*([name] for name in disks.DISKS), ["patterned", "mixed, all but a sector", "empty"]]
)
def test_disks(
    run: Run, tmp_path: Path, chosen: list[str], image_format: str, zero_blocks: bool
) -> None:
    made, stream = drives(tmp_path, chosen, image_format), tmp_path / "s.bin"
    with qemu.source(tmp_path / "q", *made) as source:
        source.parameters(**WHOLE)
        if zero_blocks:
            source.capabilities("zero-blocks")
        source.save(f"exec:cat > {stream}", blk=True)
    report = replayed(run, stream, made, tmp_path)
    assert report["complete"] is True
    for drive in made:
        assert (tmp_path / drive.device).read_bytes() == as_raw(drive, tmp_path / "truth")


def add_bitmaps(source: Qemu, granularities: tuple[int, ...]) -> None:
    """Add a bitmap of each granularity, every other one disabled; then write to the disk."""
    for number, granularity in enumerate(granularities):
        source.cmd(
            "block-dirty-bitmap-add",
            node="drive0",
            name=f"b{granularity}",
            granularity=granularity,
            disabled=number % 2 == 1,
        )
    source.write("drive0", 0x11, 0, 512)
    source.write("drive0", 0x22, 3 * MIB - 4096, 8192)
    source.write("drive0", 0x33, 5 * MIB, 70000 // 512 * 512)


def compare_bitmaps(source: Qemu, report: Any, path: Path) -> None:
    """Check that the bitmaps in the file at ``path`` have QEMU's SHA-256, flags and granularity."""
    held = read_bitmaps(str(path))
    answer = source.bitmaps("drive0")
    assert set(held.bitmaps) == set(answer)
    assert all(bitmap["complete"] for bitmap in report["bitmaps"])
    for name, bitmap in held.bitmaps.items():
        assert bitmap.granularity == answer[name]["granularity"]
        assert bitmap.recording == answer[name]["recording"]
        assert bitmap.persistent == answer[name]["persistent"]
        assert bitmap.sha256(held.size) == source.sha256("drive0", name)


@pytest.mark.parametrize("blocks", [pytest.param(True, marks=pytest.mark.block_migration), False])
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_bitmaps(run: Run, tmp_path: Path, image_format: str, blocks: bool) -> None:
    made, stream = drives(tmp_path, ["mixed, all but a sector"], image_format), tmp_path / "s.bin"
    with qemu.source(tmp_path / "q", *made) as source:
        add_bitmaps(source, (512, 4096, 65536, 1 * MIB, 64 * MIB))
        if image_format == "qcow2":
            source.cmd("block-dirty-bitmap-add", node="drive0", name="kept", persistent=True)
        source.capabilities("dirty-bitmaps")
        if blocks:
            source.parameters(**WHOLE)
        source.cmd("migrate", uri=f"exec:cat > {stream}", **({"blk": True} if blocks else {}))
        if blocks:
            # Bitmaps converge only with a downtime that they fit into, which would end the bulk phase.
            source.await_bulk()
            source.parameters(downtime_limit=2000)
        assert source.wait() == "completed"
        report = replayed(run, stream, made, tmp_path)
        compare_bitmaps(source, report, tmp_path / "drive0.bitmaps.json")
        assert report["complete"] is True
    if blocks:
        assert (tmp_path / "drive0").read_bytes() == as_raw(made[0], tmp_path / "truth")


@pytest.mark.block_migration
def test_writes_during_the_migration(run: Run, tmp_path: Path) -> None:
    made, stream = drives(tmp_path, ["patterned"], "raw"), tmp_path / "s.bin"
    with open(made[0].path, "ab") as file:
        file.write(disks.noisy(29 * MIB))
    with qemu.machine(tmp_path / "q", *made) as source:
        source.parameters(max_bandwidth=8 * MIB, **WHOLE)
        source.cmd("migrate", uri=f"exec:cat > {stream}", blk=True)
        written = sent = 0
        while source.status() in ("setup", "active") and (written < 40 or sent < 4 * MIB):
            source.write("drive0", written % 255 + 1, written * 797 * 1024 % (31 * MIB), 65536)
            written += 1
            sent = source.cmd("query-migrate").get("disk", {}).get("transferred", 0)
        source.write("drive0", 0x99, 0, 65536)  # a chunk that has been sent
        source.parameters(max_bandwidth=1 << 40)
        assert source.wait() == "completed", (source.log, source.cmd("query-migrate"))
    report = replayed(run, stream, made, tmp_path)
    assert written > 10
    assert report["devices"][0]["repeated-chunks"] > 0
    assert (tmp_path / "drive0").read_bytes() == made[0].path.read_bytes()


@pytest.mark.block_migration
def test_incremental(run: Run, tmp_path: Path) -> None:
    base = disks.make(tmp_path / "base", "mixed, all but a sector")
    overlay, stream = tmp_path / "overlay.qcow2", tmp_path / "s.bin"
    qemu.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay)
    drive = Drive("drive0", overlay, "qcow2")
    with qemu.source(tmp_path / "q", drive) as source:
        source.write("drive0", 7, 2 * MIB, 65536)
        source.write("drive0", 8, 5 * MIB + 512, 1024)
        source.parameters(**WHOLE)
        source.save(f"exec:cat > {stream}", blk=True, inc=True)
    size = base.stat().st_size
    found = run("validate", stream, "--device-size", size, "--output", "json").report["findings"]
    assert [finding["id"] for finding in found if finding["severity"] == "error"] == [
        "missing-chunks"
    ]
    assert "--incremental" in found[0]["message"]
    image = tmp_path / "drive0"
    image.write_bytes(base.read_bytes())
    assert run("replay", stream, "--image", image, "--incremental").status == 0
    assert image.read_bytes() == as_raw(drive, tmp_path / "truth")


# A guest that goes on counting in the first word of every page from 1 to 15 MiB.  In 16-bit code, at
# the firmware's begin: lgdt; cr0 |= 1; ds = 8, flat; esi = 1 MiB; then, over and over,
# inc dword [esi]; add esi, 0x1000; cmp esi, 15 MiB; jb; jmp.  The descriptors stand at 0x40.
COUNTING = bytes.fromhex(
    "2e660f01164000 0f20c0 0c01 0f22c0 b80800 8ed8 66be00001000"
    "6766ff06 6681c600100000 6681fe0000f000 72ec ebe4"
).ljust(0x40, b"\0") + bytes.fromhex("0f0048000f000000 0000000000000000 ffff00000092cf00")
RESET = bytes.fromhex("ea000000f0").ljust(16, b"\0")


#: Where query-migrate counts the pages of a capability.
COUNTED = {"xbzrle": "xbzrle-cache", "compress": "compression"}


def save_with(folder: Path, drive: Drive, stream: Path, capability: str) -> None:
    """Save a guest that keeps changing its memory."""
    folder.mkdir(exist_ok=True)
    firmware = folder / "firmware"
    firmware.write_bytes(COUNTING.ljust((64 << 10) - len(RESET), b"\0") + RESET)
    words = ["-M", "pc", "-m", "16", "-bios", str(firmware), *qemu.drive_words(drive)]
    with qemu.running(folder, *words, "-device", f"virtio-blk,drive={drive.device}") as source:
        source.capabilities(capability)
        # Without any downtime QEMU does not look again at which pages the guest has changed.
        source.parameters(max_bandwidth=64 * MIB, downtime_limit=1)
        source.cmd("cont")
        source.cmd("migrate", uri=f"exec:cat > {stream}", blk=True)
        # Pages are encoded from their third round on.
        for _ in range(1000):
            answer = source.cmd("query-migrate")
            if (
                answer["status"] == "completed"
                or answer.get(COUNTED[capability], {}).get("pages", 0) > 100
            ):
                break
            time.sleep(0.01)
        source.cmd("stop")
        source.await_bulk()
        source.parameters(downtime_limit=2000, max_bandwidth=1 << 40)
        assert source.wait() == "completed", source.log


@pytest.mark.block_migration
@pytest.mark.parametrize(
    ("capability", "record"), [("compress", "compress-page"), ("xbzrle", "xbzrle")]
)
def test_ram_of_other_kinds(run: Run, tmp_path: Path, capability: str, record: str) -> None:
    made, stream = drives(tmp_path, ["patterned"], "raw"), tmp_path / "s.bin"
    # A guest that gets no time changes no page, and then there is nothing to encode.
    for attempt in range(10):
        save_with(tmp_path / "q", made[0], stream, capability)
        if f" {record} " in run("dump", stream, "--all", "--type", "ram").out:
            break
        assert attempt < 9, f"no {record} record"
    report = replayed(run, stream, made, tmp_path)
    assert report["complete"] is True
    assert (tmp_path / "drive0").read_bytes() == made[0].path.read_bytes()
