"""Which disks ``blkmig live`` captures, what they are called, and how they are specified."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, fails
from tests.interop.disks import MIB, patterned
from tests.interop.guest import Guest, started
from tests.interop.test_live import live_words
from tests.interop.test_live_failures import one_line, running
from tests.output.test_json_schemas import hold
from tests.support.peers import wait_until

ADDRESS = {"type": "unix", "data": {"path": "/nowhere"}}
#: Of every kind: the device's name, and why it is not captured by default.
KINDS = {
    "plain": None,
    "sata": None,
    "node-only": None,
    "throttled": None,
    "flash": "firmware",
    "cd": "removable",
    "floppy0": "removable",
    "shared": "shared (share-rw)",
    "fixed": "read-only",
    "loose": "no guest device",
}


@contextmanager
def every_kind(folder: Path) -> Iterator[Guest]:
    images = {}
    for name in KINDS:
        images[name] = folder / f"{name}.img"
        images[name].write_bytes(patterned(MIB))
    images["floppy0"].write_bytes(bytes(1474560))

    def drive(name: str, *more: str) -> list[str]:
        return ["-drive", ",".join([f"if=none,id={name},format=raw,file={images[name]}", *more])]

    def node(name: str) -> list[str]:
        place = f"file.driver=file,file.filename={images[name]}"
        return ["-blockdev", f"driver=raw,node-name={name},{place}"]

    throttle = "driver=throttle,node-name=top,throttle-group=slow,file=throttled"
    words = [
        *drive("plain"), "-device", "virtio-blk,drive=plain,id=virtio0",
        *node("sata"), "-device", "ahci,id=ahci", "-device", "ide-hd,drive=sata,id=disk1,bus=ahci.0",
        *node("node-only"), "-device", "virtio-blk,drive=node-only",
        "-object", "throttle-group,id=slow,x-iops-total=1000",
        *node("throttled"), "-blockdev", throttle, "-device", "virtio-blk,drive=top,id=limited",
        "-drive", f"if=pflash,id=flash,format=raw,file={images['flash']}",
        *drive("cd", "readonly=on"), "-device", "ide-cd,drive=cd,bus=ahci.1",
        "-drive", f"if=floppy,format=raw,file={images['floppy0']}",
        *drive("shared"), "-device", "virtio-blk,drive=shared,share-rw=on",
        *drive("fixed", "readonly=on"), "-device", "virtio-blk,drive=fixed",
        *drive("loose"),
    ]  # fmt: skip
    with started(folder / "q", words, None) as found:
        yield found


#: The names in a stream of those that are captured by default.
NAMES = {"plain": "plain", "disk1": "sata", "node-only": "node-only", "limited": "throttled"}


def test_the_list(run: Run, tmp_path: Path) -> None:
    with every_kind(tmp_path) as found:
        listed = run("live", found.monitor, "--list", "--output", "json").json
        shown = run("live", found.monitor, "--list").out
    hold("live", listed)
    disks = {disk["device"]: disk for disk in listed["disks"]}
    for name, node in NAMES.items():
        assert disks[name]["captured"]
        assert disks[name]["reason"] is None
        if name != "plain":
            assert disks[name]["node"] == node
    assert disks["limited"]["root"] == "top"
    for name, reason in KINDS.items():
        if reason is not None:
            assert disks[name]["reason"] == reason
            assert f"only with --disk: {reason}" in shown
    assert disks["plain"]["size"] == MIB


def captured(run: Run, found: Guest, stream: Path, *words: str) -> set[str]:
    outcome = run(*live_words(found, *words, "--to", stream, "--output", "json"))
    assert outcome.status == 0, outcome
    hold("live", outcome.json)
    return {device["name"] for device in outcome.json["devices"]}


@pytest.mark.long
def test_the_choice(run: Run, tmp_path: Path) -> None:
    stream = tmp_path / "s.bin"
    with every_kind(tmp_path) as found:
        assert captured(run, found, stream) == set(NAMES)
        left = captured(run, found, stream, "--exclude", "virtio0", "--exclude", "top")
        assert left == {"disk1", "node-only"}
        path = "/machine/peripheral/virtio0/virtio-backend"
        for text, name in (
            ("virtio0", "plain"),
            (path, "plain"),
            (f"a={path}", "a"),
            ("a=throttled", "a"),
            ("limited", "limited"),
            ("flash", "flash"),
            ("loose", "loose"),
            ("fixed", "fixed"),
            ("shared", "shared"),
        ):
            assert captured(run, found, stream, "--disk", text) == {name}, text
        two = captured(run, found, stream, "--disk", "a=plain", "--disk", "b=sata")
        assert two == {"a", "b"}
        validated = run("validate", stream, "--output", "json").report
        assert {device["name"] for device in validated["devices"]} == {"a", "b"}
        assert validated["verdict"] == "whole"


def test_bad_choices(run: Run, tmp_path: Path) -> None:
    with every_kind(tmp_path) as found:
        for words, status, text in (
            (["--disk", "no"], 2, "--disk 'no': no such disk; the disks are"),
            (["--exclude", "no"], 2, "--exclude 'no': no such disk"),
            (["--disk", "a=plain", "--disk", "a=sata"], 2, "two disks are called 'a'"),
            (["--disk", "plain", "--disk", "b=virtio0"], 2, "or one is specified twice"),
            (["--disk", "plain", "--exclude", "plain"], 4, "QEMU has no disk to capture"),
            (["--downtime", "3"], 2, "invalid time '3'"),
            (["--max-bandwidth", "0"], 2, "--max-bandwidth: invalid size '0'"),
            (["--list"], 2, "--list writes no stream"),
            (["--list", "--clean-up"], 2, "--list excludes --clean-up"),
        ):
            outcome = run("live", found.monitor, *words, "--to", tmp_path / "s.bin")
            fails(outcome, status, text)
        assert "blkmig" not in json.dumps(found.qemu.cmd("query-named-block-nodes"))
        fails(run("live", found.monitor, "--output", "json"), 2, "stdout is the target")


def test_a_drive_without_medium(run: Run, tmp_path: Path) -> None:
    words = ["-device", "ahci,id=ahci", "-device", "ide-cd,id=cd0,bus=ahci.0"]
    with started(tmp_path / "q", words, None) as found:
        disks: list[dict[str, Any]] = run("live", found.monitor, "--list", "--output", "json").json[
            "disks"
        ]
        assert [(disk["device"], disk["reason"]) for disk in disks] == [("cd0", "no medium")]
        outcome = run("live", found.monitor, "--disk", "cd0", "--to", tmp_path / "s.bin")
        fails(outcome, 4, "it cannot be captured: no medium")
        fails(run("live", found.monitor, "--to", tmp_path / "s.bin"), 4, "no disk to capture")


def test_small_disks(run: Run, tmp_path: Path) -> None:
    """An empty one, one of a sector, and one below a chunk."""
    words, stream = [], tmp_path / "s.bin"
    for name, size in (("none", 0), ("least", 512), ("small", 300 << 10)):
        (tmp_path / name).write_bytes(patterned(size))
        words += ["-drive", f"if=none,id={name},format=raw,file={tmp_path / name}"]
        words += ["-device", f"virtio-blk,drive={name}"]
    with started(tmp_path / "q", words, None) as found:
        assert "impossible: empty" in run("live", found.monitor, "--list").out
        assert captured(run, found, stream) == {"least", "small"}
        outcome = run("live", found.monitor, "--disk", "none", "--to", stream)
        fails(outcome, 4, "it cannot be captured: empty (device 'none')")
    for name in ("least", "small"):
        words = ["--image", f"{name}={tmp_path / name}"]
        assert run("validate", stream, *words).status == 0


def test_a_disk_that_is_unplugged(run: Run, tmp_path: Path) -> None:
    """A SCSI disk goes without the guest's consent."""
    image = tmp_path / "d.img"
    image.write_bytes(patterned(24 * MIB))
    words = [
        "-device", "virtio-scsi,id=scsi",
        "-drive", f"if=none,id=drive0,format=raw,file={image}",
        "-device", "scsi-hd,drive=drive0,id=sd0",
    ]  # fmt: skip
    with started(tmp_path / "q", words, None) as found, running(found) as capture:
        found.qemu.cmd("device_del", id="sd0")
        wait_until(lambda: "drive0" not in str(found.qemu.cmd("query-block")))
        status, err = capture.end()
        assert status == 4
        assert "it was removed while it was captured" in one_line(err)
        assert found.qemu.cmd("query-block-exports") == []
