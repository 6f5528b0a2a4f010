"""``blkmig live``: the disks and bitmaps of a guest that writes, compared with the paused guest's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.bitmap_file import read_bitmaps
from tests.conftest import Run, fails
from tests.interop import disks, qemu
from tests.interop.disks import MIB
from tests.interop.guest import Guest, Writer, started

#: The second disk has no whole MiB.
SIZES = (24 * MIB, 21 * MIB + 3 * 512)


def make_disks(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / "a.img", folder / "b.img"]
    for path, size in zip(made, SIZES, strict=True):
        path.write_bytes(disks.mixed(size))
    return made


@contextmanager
def guest(folder: Path, writer: Writer | None = None, *more: str) -> Iterator[Guest]:
    """A guest with a node without drive on an iothread, and a drive; each has a named bitmap."""
    one, other = make_disks(folder)
    words = [
        "-object", "iothread,id=io0",
        "-blockdev", f"driver=raw,node-name=first,file.driver=file,file.filename={one}",
        "-device", "virtio-blk,drive=first,id=disk0,iothread=io0",
        "-drive", f"if=none,id=drive1,file={other},format=raw",
        "-device", "virtio-blk,drive=drive1",
    ]  # fmt: skip
    with started(folder / "q", [*words, *more], writer) as found:
        for node, name, granularity in (("first", "daily", 65536), ("drive1", "fine", 4096)):
            found.qemu.cmd("block-dirty-bitmap-add", node=node, name=name, granularity=granularity)
        yield found


def live(run: Run, found: Guest, *words: object) -> Any:
    outcome = run("live", found.monitor, "--output", "json", *words)
    assert outcome.status == 0, outcome
    return outcome.json


def check_clean(found: Guest) -> None:
    """Check that nothing of ours is left in QEMU."""
    cmd = found.qemu.cmd
    assert cmd("query-block-exports") == []
    assert "blkmig" not in json.dumps(cmd("query-named-block-nodes"))
    cmd("nbd-server-start", addr={"type": "unix", "data": {"path": f"{found.path}.nbd"}})
    cmd("nbd-server-stop")


def check_same(run: Run, found: Guest, stream: Path, folder: Path) -> None:
    """Check that a stream has the disks and bitmaps of the guest, which is paused."""
    replayed = [folder / "disk0.raw", folder / "drive1.raw"]
    words = [f"--image={path.stem}={path}" for path in replayed]
    outcome = run("replay", stream, *words, "--create", "--overwrite")
    assert outcome.status == 0, outcome
    for path, node, bitmap in zip(replayed, ("first", "drive1"), ("daily", "fine"), strict=True):
        found.qemu.cmd("human-monitor-command", command_line=f'qemu-io {node} "flush"')
        original = folder / ("a.img" if node == "first" else "b.img")
        assert path.read_bytes() == original.read_bytes()
        read = read_bitmaps(f"{path}.bitmaps.json")
        assert read.bitmaps[bitmap].sha256(read.size) == found.qemu.sha256(node, bitmap)


def test_a_guest_that_writes(run: Run, tmp_path: Path) -> None:
    stream = tmp_path / "s.bin"
    with guest(tmp_path, Writer(20 * MIB)) as found:
        report = live(run, found, "--bitmaps", "--then", "leave-paused", "--to", stream)
        assert found.qemu.cmd("query-status")["status"] == "paused"
        check_same(run, found, stream, tmp_path)
        check_clean(found)
    assert report["left-paused"]
    print(json.dumps(report, indent=1))
    assert run("validate", stream).status == 0
