"""What a block device lies on: the disk of a partition, the file of a loop device, and so on down."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blkmig_cli.errors import UsageError
from blkmig_cli.system import devices
from blkmig_cli.system.devices import identity, layers
from blkmig_cli.system.file_uses import FileUses
from tests.conftest import Run, fails
from tests.support import raw


def device(number: str) -> tuple[str, int]:
    major, minor = map(int, number.split(":"))
    return ("block device", os.makedev(major, minor))


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sysfs with a disk 8:0 of two partitions, 253:0 on the first, and a loop device 7:0."""
    monkeypatch.setattr(devices, "_SYS", str(tmp_path / "sys"))
    backing = tmp_path / "backing"
    backing.touch()

    def make(node: str, number: str, **files: str) -> Path:
        folder = tmp_path / "devices" / node
        folder.mkdir(parents=True)
        (folder / "dev").write_text(f"{number}\n")
        for name, content in files.items():
            (folder / name).write_text(content)
        (tmp_path / "sys").mkdir(exist_ok=True)
        (tmp_path / "sys" / number).symlink_to(folder)
        return folder

    make("sda", "8:0")
    first = make("sda/sda1", "8:1", partition="1\n")
    make("sda/sda2", "8:2", partition="2\n")
    (make("dm-0", "253:0") / "slaves").mkdir()
    (tmp_path / "devices/dm-0/slaves/sda1").symlink_to(first)
    for number, path in (("7:0", backing), ("7:1", tmp_path / "removed")):
        loop = make(f"loop{number[-1]}", number) / "loop"
        loop.mkdir()
        (loop / "backing_file").write_text(f"{path}\n")
    return backing


def test_layers(sysfs: Path) -> None:
    assert layers(device("8:0")) == set()
    assert layers(device("8:1")) == layers(device("8:2")) == {device("8:0")}
    assert layers(device("253:0")) == {device("8:1"), device("8:0")}
    assert layers(device("7:0")) == {identity(sysfs.stat())}
    assert layers(device("7:1")) == layers(device("9:9")) == layers(identity(sysfs.stat())) == set()


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ("8:0", "8:1", True), ("8:2", "8:0", True), ("253:0", "8:1", True), ("8:0", "253:0", True),
        ("8:1", "8:2", False), ("253:0", "8:2", False), ("7:0", "8:0", False),
    ],
)  # fmt: skip
def test_devices_that_share_sectors_have_one_use(
    one: str, other: str, refused: bool, sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = {f"/dev/{number}": device(number) for number in (one, other)}
    monkeypatch.setattr("blkmig_cli.system.file_uses._identities", lambda path: [nodes[path]])
    uses = FileUses()
    uses.add("the image", f"/dev/{one}", writes=True)
    if refused:
        with pytest.raises(UsageError, match="are the same file"):
            uses.add("the image", f"/dev/{other}", writes=True)
    else:
        uses.add("the image", f"/dev/{other}", writes=True)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A loop device, and its file; needs root."""
    file = tmp_path / "s"
    file.write_bytes(raw.qemu(raw.block(0, 0, "d", b"\7" * raw.CHUNK)).ljust(2 * raw.CHUNK, b"\0"))
    words = ["losetup", "-f", "--show", str(file)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("losetup is not installed")
    if done.returncode:
        pytest.skip(f"no loop device can be made here: {done.stderr.strip()}")
    try:
        yield done.stdout.strip(), file
    finally:
        subprocess.run(["losetup", "-d", done.stdout.strip()], check=False, capture_output=True)


def test_a_stream_is_not_overwritten_through_its_loop_device(
    run: Run, loop: tuple[str, Path]
) -> None:
    node, file = loop
    before = file.read_bytes()
    fails(run("replay", file, "--image", f"d={node}"), 2, "are the same file")
    assert file.read_bytes() == before
