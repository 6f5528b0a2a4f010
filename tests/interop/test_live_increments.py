"""Increments of a guest that writes, by bitmaps in the running QEMU."""

import json
from pathlib import Path

from tests.conftest import Run, fails
from tests.interop.disks import MIB
from tests.interop.guest import Writer
from tests.interop.test_live import SIZES, check_clean, guest, live, live_words


def replayed(run: Run, folder: Path, *streams: Path) -> None:
    """Replay streams, and compare with the disks of the guest, which is paused."""
    for number, stream in enumerate(streams):
        words = [f"--image={name}={folder / name}.raw" for name in ("disk0", "drive1")]
        done = run("replay", stream, *words, *([] if number else ["--create"]), "-q")
        assert done.status == 0, done.err
    for name, original in (("disk0", "a.img"), ("drive1", "b.img")):
        made = (folder / f"{name}.raw").read_bytes()
        assert made == (folder / original).read_bytes() or not f"{name} differs"


def marks(found: object, node: str) -> dict[str, int]:
    """Return the bitmaps of a node that are not its first ones, and how much is dirty in them."""
    nodes = found.qemu.cmd("query-named-block-nodes")  # type: ignore[attr-defined]
    (bitmaps,) = (each["dirty-bitmaps"] for each in nodes if each["node-name"] == node)
    return {each["name"]: each["count"] for each in bitmaps if each["name"][0] == "m"}


def test_increments_of_a_guest_that_writes(run: Run, tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"s{number}.bin" for number in range(3))
    with guest(tmp_path, Writer(20 * MIB)) as found:
        live(run, found, "--mark", "m0", "--to", first)
        words = ["--since", "m0", "--mark", "m1", "--base", first, "--drop", "m0"]
        report = live(run, found, *words, "--bitmaps", "--to", second)
        check_clean(found)
        assert list(marks(found, "first")) == ["m1"]
        words = ["--since", "m1", "--mark", "m2", "--base", second, "--then", "leave-paused"]
        live(run, found, *words, "--to", third)
        assert marks(found, "first")["m2"] == 0
        for device in ("first", "drive1"):
            found.qemu.cmd("human-monitor-command", command_line=f'qemu-io {device} "flush"')
        replayed(run, tmp_path, first, second, third)
        check_clean(found)
    assert report["times-sent"] < 3
    identity = run("validate", second, "--output", "json").report["identity"]
    assert identity["incremental"]
    assert identity["disks"]["disk0"] == {
        "size": SIZES[0], "full": False, "since": "m0", "mark": "m1"
    }  # fmt: skip
    folded = tmp_path / "folded.bin"
    assert run("fold", first, second, third, "--to", folded).status == 0
    for name in ("disk0", "drive1"):
        image = f"{name}={tmp_path / name}.raw"
        assert run("compare", folded, image, "--strict", "-q").status in (0, 1)


def test_only_what_changed_is_sent(run: Run, tmp_path: Path) -> None:
    first, second = tmp_path / "s0.bin", tmp_path / "s1.bin"
    with guest(tmp_path) as found:
        live(run, found, "--mark", "m0", "--to", first)
        found.qemu.cmd("human-monitor-command", command_line='qemu-io drive1 "write -P 7 3M 4k"')
        live(run, found, "--since", "m0", "--base", first, "--to", second)
    lines = run("dump", second, "--type", "block", "--output", "jsonl").out.splitlines()
    blocks = [json.loads(line) for line in lines]
    # Of a disk without changes, one chunk is sent.
    assert [(each["device"], each["sector"]) for each in blocks] in (
        [("disk0", 0), ("drive1", 6144)],
        [("drive1", 6144), ("disk0", 0)],
    )


def test_what_is_refused(run: Run, tmp_path: Path) -> None:
    first, stream = tmp_path / "s0.bin", tmp_path / "s1.bin"
    with guest(tmp_path) as found:
        live(run, found, "--mark", "m0", "--to", first)
        found.qemu.cmd("block-dirty-bitmap-disable", node="first", name="m0")
        words = live_words(found, "--to", stream)
        fails(run(*words, "--mark", "m0"), 4, "there is a bitmap 'm0' already")
        fails(run(*words, "--drop", "m7"), 2, "no disk has a bitmap 'm7'")
        fails(run(*words, "--since", "m0", "--base", first), 4, "it is not recording")
        fails(run(*words, "--since", "nope:m0"), 2, "no device 'nope'")
        fails(run(*words, "--since", "disk0:m0"), 2, "--since names no bitmap of 'drive1'")
        words += ["--since", "m0", "--else", "full", "--mark", "m1", "--base", first]
        done = run(*words)
        assert done.status == 0, done
        assert "the disk is sent whole" in done.err
        check_clean(found)
        assert sorted(marks(found, "first")) == ["m0", "m1"]
    disks = run("validate", stream, "--output", "json").report["identity"]["disks"]
    assert (disks["disk0"]["full"], disks["drive1"]["full"]) == (True, False)


def test_a_target_that_fails_leaves_no_mark(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path) as found:
        done = run("live", found.monitor, "--mark", "m0", "--to", "/dev/full")
        assert done.status == 4
        assert "/dev/full: No space left on device" in done.err
        check_clean(found)
        assert not marks(found, "first")
