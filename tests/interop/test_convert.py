"""Old captures are converted, and loaded by a QEMU that does not read their dialect."""

from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap_file import read_bitmaps
from tests.conftest import Run, get_capture
from tests.interop import qemu
from tests.interop.qemu import Drive
from tests.interop.test_send import FIRMWARE, check, same


@pytest.mark.block_migration
@pytest.mark.parametrize("name", ["v1-blocks-and-bitmaps", "classic-live-writes", "classic-tail"])
def test_an_old_capture_is_loaded(name: str, run: Run, unpacked: Path, tmp_path: Path) -> None:
    capture, stream = get_capture(name, unpacked), tmp_path / "new.bin"
    words = ["--normalize", "--machine", FIRMWARE, "--for-qemu", "7.2", *capture.hints()]
    outcome = run("convert", capture.path, *words, "--to", stream, "-v")
    assert outcome.status == 0
    assert "warning" not in outcome.err
    image = tmp_path / "wanted"
    assert (
        run("replay", capture.path, *capture.hints(), "--image", image, "--create", "-q").status
        == 0
    )
    ((device, disk),) = capture.truth["devices"].items()
    target = tmp_path / "dst"
    target.write_bytes(b"\x5a" * disk["size"])
    with qemu.destination(tmp_path / "q", Drive(device, target)) as destination:
        destination.capabilities("dirty-bitmaps")
        assert destination.load(f"exec:cat {stream}") == "completed", destination.log
        if capture.truth["bitmaps"]:
            held = read_bitmaps(f"{image}.bitmaps.json").bitmaps
            check(destination.bitmaps(device), list(held.values()))
            for bitmap in capture.truth["bitmaps"]:
                found = destination.sha256(device, bitmap["name"])
                assert found == bitmap.get("sha256", found)
    same(target, "raw", image)


@pytest.mark.parametrize("name", ["v1-bitmaps-only", "bitmaps-10.0"])
def test_bitmaps_of_an_old_capture_are_loaded(
    name: str, run: Run, unpacked: Path, tmp_path: Path
) -> None:
    """A QEMU without block migration loads them as well."""
    capture, stream = get_capture(name, unpacked), tmp_path / "new.bin"
    words = ["--normalize", "--for-qemu", "10.0", *capture.hints(), "--to", stream]
    assert run("convert", capture.path, *words).status == 0
    drives = []
    for device, disk in capture.truth["devices"].items():
        with open(tmp_path / device, "wb") as file:
            file.truncate(disk["size"])
        drives.append(Drive(device, tmp_path / device))
    machine = ["-M", "none", *qemu.drive_words(*drives), "-incoming", "defer"]
    with qemu.running(tmp_path / "q", *machine) as destination:
        destination.capabilities("dirty-bitmaps")
        assert destination.load(f"exec:cat {stream}") == "completed", destination.log
        for bitmap in capture.truth["bitmaps"]:
            found = destination.sha256(bitmap["device"], bitmap["name"])
            assert found == bitmap["sha256"]
