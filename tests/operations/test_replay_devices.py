"""Replay onto block devices: bytes behind the disk, where the journal is, where bitmaps go."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blkmig_cli.disks import block_device
from blkmig_cli.disks.bitmap_file import read_bitmaps
from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.errors import FailureError
from blkmig_cli.system.state_folder import state_path
from tests.conftest import Run, fails
from tests.support import raw

MIB = 1 << 20
BITMAP = raw.bitmap_start() + raw.bitmap_bits(0, 4096, b"\3".ljust(8, b"\0")) + raw.COMPLETE
BLOCKS = [raw.block(0, 0, rest=b"\1" * MIB), raw.block(2048, 8)]
STREAM = raw.qemu(*BLOCKS)
#: The disk ends in the middle of its last chunk, as the bitmap states; padding is not zero.
CUT = raw.qemu(
    raw.block(0, 0, rest=b"\1" * MIB),
    raw.block(2048, 0, rest=b"\2" * MIB),
    bitmaps=raw.bitmap_start() + raw.bitmap_bits(0, 3072, bytes(8)) + raw.COMPLETE,
)
DISK = b"\1" * MIB + bytes(MIB)
OLD = b"\xee"


class Loop:
    """A loop device of 4 MiB, full of bytes that are not zero."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(OLD * (4 * MIB))
        words = ["losetup", "-f", "--show", str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no loop device can be made: {done.stderr.strip()}")
        self.path = done.stdout.strip()

    def content(self) -> bytes:
        return Path(self.path).read_bytes()

    def detach(self) -> None:
        subprocess.run(["losetup", "-d", self.path], check=False, capture_output=True)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    if os.getuid() or shutil.which("losetup") is None:
        pytest.skip("loop devices need root and losetup")
    made = Loop(tmp_path / "backing")
    yield made
    made.detach()


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "s.bin"
    path.write_bytes(STREAM)
    return path


both_sources = pytest.mark.parametrize("kind", ["file", "pipe"])


def source(kind: str, path: Path) -> str:
    return str(path) if kind == "file" else f"exec:cat {path}"


@both_sources
def test_what_lies_behind_the_disk_is_left_alone(
    run: Run, loop: Loop, stream: Path, kind: str
) -> None:
    words = ["replay", source(kind, stream), "--image", loop.path]
    outcome = run(*words, "--verify")
    assert outcome.status == 0
    assert "--device-size" in outcome.err
    assert loop.content() == DISK + OLD * (2 * MIB)
    assert run(*words, "--resume", "--verify").status == 0


@both_sources
def test_padding_is_not_written_behind_the_disk(
    run: Run, loop: Loop, stream: Path, kind: str
) -> None:
    """Also from a pipe, whose size is known only at its end: it is kept in a file first."""
    stream.write_bytes(CUT)
    words = ["replay", source(kind, stream), "--image", loop.path, "--no-bitmaps"]
    assert run(*words).status == 0
    size = MIB + MIB // 2
    assert loop.content() == b"\1" * MIB + b"\2" * (MIB // 2) + OLD * (4 * MIB - size)


def test_the_size_of_a_device_is_only_a_limit(run: Run, loop: Loop, stream: Path) -> None:
    """A larger one is no mismatch and leaves no gap; a smaller one is refused."""
    outcome = run("replay", stream, "--image", loop.path, "--output", "json")
    assert outcome.status == 0
    assert [
        found["id"] for found in outcome.report["findings"] if found["severity"] == "error"
    ] == []
    assert outcome.report["devices"][0]["missing"] == []
    before = loop.content()
    stream.write_bytes(raw.qemu(*BLOCKS, raw.block(4 * 2048, 8)))
    for kind in ("file", "pipe"):
        outcome = run("replay", source(kind, stream), "--image", loop.path, "--allow-incomplete")
        fails(outcome, 4, f"has {4 * MIB} bytes, the disk at least")
        assert loop.content() == before
    fails(
        run("replay", stream, "--image", loop.path, "--device-size", "5M"), 4, "enlarge the image"
    )


def test_a_last_chunk_that_the_device_cuts(run: Run, tmp_path: Path, loop: Loop) -> None:
    stream = tmp_path / "s.bin"
    stream.write_bytes(raw.qemu(*(raw.block(2048 * at, 8) for at in range(3)), raw.block(7168, 8)))
    before = loop.content()
    outcome = run("replay", stream, "--image", loop.path, "--allow-incomplete")
    fails(outcome, 1, "size of 'd' is unknown")
    assert loop.content() == before
    outcome = run(
        "replay", stream, "--image", loop.path, "--allow-incomplete", "--device-size", "max"
    )
    assert outcome.status == 0
    assert loop.content()[7168 * 512 :] == bytes(MIB // 2)


def test_manifest_of_a_smaller_disk(run: Run, loop: Loop, tmp_path: Path) -> None:
    disk, stream, manifest = tmp_path / "disk", tmp_path / "s.bin", tmp_path / "m.json"
    disk.write_bytes(b"\3" * (MIB + 3584))
    assert run("send", f"d={disk}", "--to", stream, "--manifest", manifest).status == 0
    words = ["replay", stream, "--image", loop.path, "--verify", "--manifest", manifest]
    assert run(*words).status == 0
    assert loop.content() == disk.read_bytes() + OLD * (3 * MIB - 3584)


@pytest.mark.parametrize("name", ["create", "overwrite"])
def test_a_device_is_not_made(run: Run, loop: Loop, stream: Path, name: str) -> None:
    before = loop.content()
    outcome = run("replay", stream, "--image", loop.path, f"--{name}")
    fails(outcome, 2 if name == "overwrite" else 4, "is written in place")
    assert loop.content() == before


@both_sources
def test_a_device_has_no_place_for_bitmaps(
    run: Run, loop: Loop, stream: Path, tmp_path: Path, kind: str
) -> None:
    stream.write_bytes(raw.qemu(*BLOCKS, bitmaps=BITMAP))
    before, words = loop.content(), ["replay", source(kind, stream), "--image", loop.path]
    outcome = run(*words)
    fails(outcome, 2, "has no place for the bitmaps of 'd'")
    assert "--bitmaps-to" in outcome.err
    assert "--no-bitmaps" in outcome.err
    assert loop.content() == before
    assert run(*words, "--no-bitmaps").status == 0
    bits = tmp_path / "bits"
    assert run(*words, "--bitmaps-to", bits).status == 0
    assert read_bitmaps(str(bits)).bitmaps["b"].count(2 * MIB) == 131072
    assert not Path(f"{loop.path}.bitmaps.json").exists()


@both_sources
def test_bitmaps_of_block_records_have_no_place_either(
    run: Run, loop: Loop, stream: Path, kind: str
) -> None:
    bits = raw.v2(2048, ("b", 1, 65536, b""))
    stream.write_bytes(raw.qemu(raw.block(0, 0x70, rest=bits + b"\1" * MIB)))
    words = ["replay", source(kind, stream), "--image", loop.path, "--device-size", "1M"]
    fails(run(*words), 2, "has no place for the bitmaps of 'd'")
    assert run(*words, "--no-bitmaps", "--restart").status == 0
    assert loop.content() == b"\1" * MIB + OLD * (3 * MIB)


def test_two_nodes_of_one_device(run: Run, loop: Loop, tmp_path: Path) -> None:
    stream, node, link = tmp_path / "two.bin", tmp_path / "node", tmp_path / "link"
    stream.write_bytes(raw.qemu(raw.block(0, 8, "d"), raw.block(0, 8, "e")))
    os.mknod(node, 0o60600, os.stat(loop.path).st_rdev)
    link.symlink_to(loop.path)
    for other in (node, link, loop.path):
        words = ["--image", f"d={loop.path}", "--image", f"e={other}"]
        fails(run("replay", stream, *words), 2, "are the same file")
    assert loop.content() == OLD * (4 * MIB)


# -- the journal


def test_the_journal_of_a_device_follows_it(
    run: Run, loop: Loop, stream: Path, tmp_path: Path, home: Path
) -> None:
    """It is known by its backing file, whatever its name in /dev is today."""
    cut, link = tmp_path / "cut.bin", tmp_path / "link"
    cut.write_bytes(STREAM[:-30])
    link.symlink_to(loop.path)
    words = ["--device-size", "2M", "-q", "--image"]
    assert run("replay", f"exec:cat {cut}", *words, loop.path).status == 3
    (path,) = (home / ".local/state/blkmig").iterdir()
    assert json.loads(path.read_text())["state"] == "incomplete"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not list(Path("/dev").glob(f"{Path(loop.path).name}.*"))
    fails(run("replay", stream, *words, link), 4, "--resume")
    loop.detach()
    again = ["losetup", "-f", "--show", str(loop.file)]
    loop.path = subprocess.run(again, capture_output=True, text=True, check=True).stdout.strip()
    assert run("replay", stream, *words, loop.path, "--resume").status == 0
    assert loop.content()[: 2 * MIB] == DISK
    assert json.loads(path.read_text())["state"] == "finished"
    # Another file behind the same node is another device.
    loop.detach()
    other = Loop(tmp_path / "other")
    try:
        assert run("replay", stream, *words, other.path).status == 0
        assert len(list(path.parent.iterdir())) == 2
    finally:
        other.detach()


@pytest.mark.parametrize("suffix", ["", ".new"])
def test_strange_files_in_the_state_folder(
    run: Run, loop: Loop, stream: Path, tmp_path: Path, suffix: str
) -> None:
    path = Path(neighbours_of(loop.path).journal + suffix)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    fails(run("replay", stream, "--image", loop.path, "--device-size", "2M"), 4, "is a FIFO")
    path.unlink()
    (tmp_path / "mine").write_text("mine")
    path.symlink_to(tmp_path / "mine")
    outcome = run("replay", stream, "--image", loop.path, "--device-size", "2M")
    fails(outcome, 4, "is a symbolic link")
    assert (tmp_path / "mine").read_text() == "mine"
    assert loop.content() == OLD * (4 * MIB)


# -- what identifies a device, by a tree as sysfs has it


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "sys"
    (folder / "8:0").mkdir(parents=True)
    monkeypatch.setattr(block_device, "_SYS", str(folder))
    return folder


def attribute(folder: Path, name: str, value: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"dm/uuid": "LVM-abc", "serial": "s"}, "dm-uuid LVM-abc"),
        ({"loop/backing_file": "/x y", "loop/offset": "512"}, "loop /x y at 512"),
        ({"md/uuid": "1:2"}, "md-uuid 1:2"),
        ({"wwid": "eui.1"}, "wwid eui.1"),
        ({"device/wwid": "naa.5"}, "wwid naa.5"),
        ({"serial": "virtio"}, "serial virtio"),
        ({"device/serial": "SN", "dm/uuid": ""}, "serial SN"),
    ],
)
def test_identities(sysfs: Path, attributes: dict[str, str], expected: str) -> None:
    for name, value in attributes.items():
        attribute(sysfs / "8:0", name, value)
    assert block_device.identity(os.makedev(8, 0)) == expected


def test_the_identity_of_a_partition(sysfs: Path) -> None:
    attribute(sysfs / "8:0", "serial", "SN")
    for number, start in ((1, 2048), (2, 4096)):
        part = sysfs / "8:0" / f"sda{number}"
        attribute(part, "partition", str(number))
        attribute(part, "start", str(start))
        (sysfs / f"8:{number}").symlink_to(part)
    found = [block_device.identity(os.makedev(8, number)) for number in range(3)]
    assert found == ["serial SN", "serial SN, partition at 2048", "serial SN, partition at 4096"]


def test_devices_that_nothing_identifies_for_long(sysfs: Path) -> None:
    with pytest.raises(FailureError, match="nothing identifies the block device 8:0"):
        block_device.identity(os.makedev(8, 0))
    attribute(sysfs / "8:0", "diskseq", "17")
    first = block_device.identity(os.makedev(8, 0))
    attribute(sysfs / "8:0", "diskseq", "18")
    assert first.startswith("device 17 of boot ")
    assert block_device.identity(os.makedev(8, 0)) != first


def test_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state_path("serial SN").startswith(f"{tmp_path}/state/blkmig/")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative/state"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert state_path("serial SN").startswith(f"{tmp_path}/home/.local/state/blkmig/")
    monkeypatch.setenv("HOME", "relative")
    with pytest.raises(FailureError, match="set XDG_STATE_HOME"):
        state_path("serial SN")


def test_files_are_no_devices(tmp_path: Path) -> None:
    assert block_device.number_of(str(tmp_path / "none")) is None
    assert block_device.number_of(str(tmp_path)) is None
    assert block_device.number_of("/dev/null") is None


def test_a_larger_device_has_the_disk_of_the_stream(run: Run, loop: Loop, stream: Path) -> None:
    """Its size is not that of a disk: for compare and validate, neither."""
    assert run("replay", stream, "--image", loop.path, "--no-bitmaps").status == 0
    assert run("compare", stream, loop.path).status == 0
    assert run("compare", loop.path, stream).status == 0
    words = ["validate", stream, "--image", loop.path, "--output", "json"]
    (disk,) = run(*words).report["devices"]
    assert disk["missing"] == []
    assert disk["size"] in (None, len(DISK))
    with open(loop.path, "r+b") as device:
        device.seek(100)
        device.write(b"x")
    assert run("compare", stream, loop.path).status == 1
    assert "image-differs" in run("validate", stream, "--image", loop.path).out
