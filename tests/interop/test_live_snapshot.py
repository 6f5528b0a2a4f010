"""``blkmig live --mode snapshot``: the disks and bitmaps of one moment, of a guest that goes on writing."""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.bitmap_file import read_bitmaps
from tests.conftest import Run, fails
from tests.interop import qemu
from tests.interop.disks import MIB, patterned
from tests.interop.guest import Guest, Writer, started
from tests.interop.moment import is_of_last_writes, writes_in
from tests.interop.test_live import BITMAPS, SIZES, check_clean, guest, live, make_disks
from tests.interop.test_live_failures import (
    Running,
    check_clean_soon,
    children,
    one_line,
    ours,
    running,
)
from tests.support.agent import Agent
from tests.support.long import examples
from tests.support.peers import wait_until
from tests.support.qcow2 import same

#: It writes to all of the first disk, without a pause.
WRITER = Writer(20 * MIB, 500)
NAMES = ("disk0", "drive1")
#: Their guest devices.
PATHS = (
    "/machine/peripheral/disk0/virtio-backend",
    "/machine/peripheral-anon/device[0]/virtio-backend",
)


def snapshot_guest(folder: Path, *more: str, iothread: bool = True) -> Any:
    return guest(folder, WRITER, *more, iothread=iothread)


def words(folder: Path, *more: object) -> list[Any]:
    return ["--mode", "snapshot", "--scratch", folder, *more]


def originals(folder: Path) -> list[bytes]:
    """Return the disks of the guest as they were before it started."""
    return [path.read_bytes() for path in make_disks(folder / "before")]


def replayed(run: Run, folder: Path, *streams: Path) -> list[bytes]:
    """Return the disks of a stream and its increments."""
    paths = [folder / f"{name}.raw" for name in NAMES]
    for number, stream in enumerate(streams):
        more = ["--image=" + f"{path.stem}={path}" for path in paths] + ["-q"]
        more += [] if number else ["--create", "--overwrite"]
        assert run("replay", stream, *more).status == 0
    return [path.read_bytes() for path in paths]


def check_unharmed(found: Guest, folder: Path) -> None:
    """Check that the guest runs, has its own nodes, and that every write of it has arrived."""
    assert found.qemu.cmd("query-status")["status"] == "running"
    check_clean(found)
    found.qemu.cmd("stop")
    for node in ("first", "drive1"):
        found.qemu.io(node, "flush")
    writes_in(
        WRITER, originals(folder), [(folder / name).read_bytes() for name in ("a.img", "b.img")]
    )
    found.qemu.cmd("cont")


@pytest.mark.scaled
def test_two_disks_and_bitmaps_at_one_moment(run: Run, tmp_path: Path) -> None:
    stream, before = tmp_path / "s.bin", originals(tmp_path)
    with (
        snapshot_guest(tmp_path) as found,
        Agent(tmp_path / "qga") as agent,
    ):
        more = words(tmp_path, "--bitmaps", "--agent", agent.path, "--freeze", "require")
        for _ in range(examples(1, 20)):
            for node, name, _ in BITMAPS:
                found.qemu.cmd("block-dirty-bitmap-clear", node=node, name=name)
            report = live(run, found, *more, "--to", stream)
            last = writes_in(WRITER, before, replayed(run, tmp_path, stream))
            check_bitmaps(tmp_path, last)
            assert report["pause"] > 0
            assert report["write-latency"] > 0
            assert 0 < report["scratch-bytes"] < sum(SIZES)
            assert report["consistency"] == "frozen"
            assert agent.said == ["freeze", "thaw"]
            agent.said.clear()
        check_unharmed(found, tmp_path)
    report = run("validate", stream, "--output", "json").report
    assert report["verdict"] == "whole"
    assert report["identity"]["consistency"] == "frozen"


def check_bitmaps(folder: Path, last: int) -> None:
    """Check that the bitmaps have what some last writes before the moment wrote, and no more."""
    for name, bitmap, granularity in (("disk0", "daily", 65536), ("drive1", "fine", 4096)):
        read = read_bitmaps(f"{folder / name}.raw.bitmaps.json")
        dirty = {
            granule
            for start, length in read.bitmaps[bitmap].ranges(read.size)
            for granule in range(start // granularity, -(-(start + length) // granularity))
        }
        assert dirty
        assert is_of_last_writes(WRITER, last, dirty, granularity), bitmap


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("iothread", [False, True])
def test_one_disk_without_a_pause(run: Run, tmp_path: Path, name: str, iothread: bool) -> None:
    """QEMU 7.2 needs one where that disk has an iothread, which the second disk has not."""
    stream, before = tmp_path / "s.bin", originals(tmp_path)
    paused = iothread and name == NAMES[0] and qemu.version() < (10, 0)
    with snapshot_guest(tmp_path, iothread=iothread) as found:
        report = live(run, found, *words(tmp_path, "--disk", name, "--to", stream))
        assert (report["pause"] is not None) == paused
        assert paused or "STOP" not in found.qemu.events()
        check_unharmed(found, tmp_path)
    image = tmp_path / "d.raw"
    assert run("replay", stream, f"--image={name}={image}", "--create").status == 0
    captured = [image.read_bytes() if each == name else None for each in NAMES]
    writes_in(WRITER, before, captured)


@pytest.mark.long
def test_a_guest_that_does_not_run(run: Run, tmp_path: Path) -> None:
    first = tmp_path / "s.bin"
    with guest(tmp_path, iothread=False) as found:
        report = live(run, found, *words(tmp_path, "--to", first))
    assert report["pause"] is None
    assert report["write-latency"] is None
    assert replayed(run, tmp_path, first) == originals(tmp_path)


@pytest.mark.long
def test_what_is_written_while_it_is_read(tmp_path: Path, run: Run) -> None:
    """To all places of the disks, before they are sent."""
    stream = tmp_path / "s.bin"
    with guest(tmp_path, iothread=False) as found:
        with running(found, *map(str, words(tmp_path))) as capture:
            for path, size in zip(PATHS, SIZES, strict=True):
                fill(found, path, size)
            stream.write_bytes(capture.rest())
        check_clean(found)
    assert replayed(run, tmp_path, stream) == originals(tmp_path)


@pytest.mark.long
def test_every_kind_of_guest_device(run: Run, tmp_path: Path) -> None:
    words_of: list[str] = []
    devices = {
        "ide": "ide-hd,drive=ide,id=a",
        "sata": "ide-hd,drive=sata,bus=ahci.0,id=b",
        "scsi": "scsi-hd,drive=scsi,id=c",
        "nvme": "nvme,drive=nvme,serial=1,id=d",
        "usb": "usb-storage,drive=usb,id=e",
    }
    words_of += ["-device", "ahci,id=ahci", "-device", "virtio-scsi", "-device", "qemu-xhci"]
    for name, device in devices.items():
        (tmp_path / name).write_bytes(patterned(12 * MIB))
        words_of += ["-drive", f"if=none,id={name},format=raw,file={tmp_path / name}"]
        words_of += ["-device", device]
    # A node below a filter of somebody's.
    (tmp_path / "limited").write_bytes(patterned(12 * MIB))
    node = f"driver=raw,node-name=below,file.driver=file,file.filename={tmp_path / 'limited'}"
    words_of += ["-object", "throttle-group,id=slow,x-iops-total=1000", "-blockdev", node]
    words_of += ["-blockdev", "driver=throttle,node-name=top,throttle-group=slow,file=below"]
    words_of += ["-device", "virtio-blk,drive=top,id=limited"]
    stream = tmp_path / "s.bin"
    with started(tmp_path / "q", words_of, None) as found:
        before = used_nodes(found)
        with running(found, *map(str, words(tmp_path))) as capture:
            assert not set(used_nodes(found).values()) & set(before.values())
            for path in before:
                fill(found, path, 12 * MIB)
            stream.write_bytes(capture.rest())
        assert used_nodes(found) == before
        check_clean(found)
    for name in [*devices, "limited"]:
        assert run("extract", stream, "--device", name, "--to", tmp_path / "x").status == 0
        assert (tmp_path / "x").read_bytes() == patterned(12 * MIB), name


@pytest.mark.long
def test_a_large_disk(run: Run, tmp_path: Path) -> None:
    """Zeros of more than a request of NBD can state, before and in an increment."""
    image, first, second = tmp_path / "d.img", tmp_path / "0.bin", tmp_path / "1.bin"
    with open(image, "wb") as file:
        file.truncate(20 << 30)
    drive = ["-drive", f"if=none,id=d,format=raw,file={image}", "-device", "virtio-blk,drive=d"]
    with started(tmp_path / "q", drive, None) as found:
        found.qemu.write("d", 1, 19 << 30, MIB)
        live(run, found, *words(tmp_path, "--mark", "m0", "--to", first))
        for start in (0, 11 << 30, 18 << 30):
            found.qemu.write("d", 2, start, 100)
        live(run, found, *words(tmp_path, "--since", "m0", "--base", first, "--to", second))
        check_clean(found)
    copy = tmp_path / "copy.img"
    assert run("replay", first, f"--image=d={copy}", "--create").status == 0
    assert run("replay", second, f"--image=d={copy}").status == 0
    same(copy, "raw", image)


def used_nodes(found: Guest) -> dict[str, str]:
    """Return the node that each guest device uses, by its path."""
    blocks = found.qemu.cmd("query-block")
    return {
        each["qdev"] if each["qdev"][0] == "/" else f"/machine/peripheral/{each['qdev']}":
        each["inserted"]["node-name"]
        for each in blocks
        if "inserted" in each
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("passes", ()),
        ("snapshot", ()),
        ("passes", ("--dialect", "v1", "--container", "none")),
        ("snapshot", ("--dialect", "v2")),
    ],
)
def test_the_manifest(run: Run, tmp_path: Path, mode: str, form: tuple[str, ...]) -> None:
    stream, manifest = tmp_path / "s.bin", tmp_path / "s.json"
    more = [*form, "--mode", mode, "--bitmaps", "--mark", "m0", "--manifest", manifest]
    with snapshot_guest(tmp_path) as found:
        live(run, found, *more, "--to", stream)
        fails(run("live", found.monitor, *more, "--to", "exec:cat"), 2, "stored in a file")
        second = tmp_path / "1.json"
        more = ["--since", "m0", "--base", manifest, "--mode", mode, "--manifest", second]
        live(run, found, *more, *form, "--to", tmp_path / "1.bin")
    outcome = run("validate", stream, "--manifest", manifest, *form, "--output", "json")
    assert outcome.status == 0, outcome
    made = json.loads(manifest.read_text())
    digests = {each["device"]: each["sha256"] for each in made["devices"]}
    images = replayed_form(run, tmp_path, manifest, *form)
    assert [hashlib.sha256(image).hexdigest() for image in images] == [*map(digests.get, NAMES)]
    assert len(made["bitmaps"]) == 2
    assert [each["sha256"] for each in json.loads(second.read_text())["devices"]] == [None, None]
    assert run("validate", tmp_path / "1.bin", "--manifest", second, *form).status == 0


def replayed_form(run: Run, folder: Path, manifest: Path, *form: str) -> list[bytes]:
    """As replayed, of one stream in another form."""
    paths = [folder / f"{name}.raw" for name in NAMES]
    more = [f"--image={path.stem}={path}" for path in paths] + ["--manifest", str(manifest)]
    done = run("replay", folder / "s.bin", *more, *form, "--create", "--no-bitmaps")
    assert done.status == 0, done
    return [path.read_bytes() for path in paths]


@pytest.mark.long
@pytest.mark.parametrize("dialect", ["qemu", "classic", "v1", "v2"])
def test_dialects(run: Run, tmp_path: Path, dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is discarded at once."""
    monkeypatch.setattr("blkmig_cli.operations.live.snapshot._DISCARDED", MIB)
    stream, before = tmp_path / "s.bin", originals(tmp_path)
    bitmaps = [] if dialect == "classic" else ["--bitmaps"]
    with snapshot_guest(tmp_path) as found:
        live(run, found, *words(tmp_path, *bitmaps, "--dialect", dialect, "--to", stream))
        check_clean(found)
    more = [f"--device-size={name}={size}" for name, size in zip(NAMES, SIZES, strict=True)]
    if dialect == "v1":
        more += ["--granularity", "disk0:daily=64k", "--granularity", "drive1:fine=4k"]
    paths = [tmp_path / f"{name}.raw" for name in NAMES]
    images = [f"--image={path.stem}={path}" for path in paths]
    done = run("replay", stream, *images, "--create", "--dialect", dialect, *more)
    assert done.status == 0, done
    last = writes_in(WRITER, before, [path.read_bytes() for path in paths])
    if bitmaps:
        check_bitmaps(tmp_path, last)


@pytest.mark.long
def test_increments(run: Run, tmp_path: Path) -> None:
    first, second, before = tmp_path / "0.bin", tmp_path / "1.bin", originals(tmp_path)
    with snapshot_guest(tmp_path) as found:
        live(run, found, *words(tmp_path, "--mark", "m0", "--to", first))
        start = writes_in(WRITER, before, replayed(run, tmp_path, first))
        more = ["--since", "m0", "--mark", "m1", "--drop", "m0", "--base", first, "--to", second]
        live(run, found, *words(tmp_path, *more))
        assert writes_in(WRITER, before, replayed(run, tmp_path, first, second)) > start
        check_unharmed(found, tmp_path)
    identity = run("validate", second, "--output", "json").report["identity"]
    assert identity["consistency"] == "crash"
    assert identity["disks"]["disk0"] == {
        "size": SIZES[0], "full": False, "since": "m0", "mark": "m1"
    }  # fmt: skip


# -- what fails costs the capture, not the guest's writes


def test_a_scratch_that_is_full(tmp_path: Path) -> None:
    more = map(str, words(tmp_path, "--scratch-limit", "2M"))
    with snapshot_guest(tmp_path) as found, running(found, *more) as capture:
        fill(found, PATHS[1], SIZES[1])
        status, err = capture.end()
        assert status == 4
        assert "the snapshot is lost: the scratch is full (2 MiB)" in one_line(err)
        check_clean(found)
        assert found.qemu.cmd("query-status")["status"] == "running"
    assert not list(tmp_path.glob("blkmig*"))


def fill(found: Guest, path: str, size: int) -> None:
    """Write to all of a disk as its guest device does; it must not fail."""
    line = f'qemu-io -d {path} "write -P 9 0 {size}"'
    answer = found.qemu.cmd("human-monitor-command", command_line=line)
    assert not answer.strip(), answer


@pytest.mark.long
def test_a_full_scratch_and_a_guest_that_writes(tmp_path: Path) -> None:
    more = map(str, words(tmp_path, "--scratch-limit", "2M"))
    with snapshot_guest(tmp_path) as found, running(found, *more) as capture:
        seen = found.qemu.cmd("query-blockstats")
        wait_until(lambda: wrote(found) > wrote_in(seen) + 300)
        status, err = capture.end()
        assert (status, "the scratch is full" in err) == (4, True)
        check_unharmed(found, tmp_path)


def wrote(found: Guest) -> int:
    return wrote_in(found.qemu.cmd("query-blockstats"))


def wrote_in(stats: Any) -> int:
    return sum(int(each["stats"]["wr_operations"]) for each in stats)


def scratch_daemon(capture: Running) -> int:
    """Return the process that serves the scratch."""
    (found,) = (
        child
        for child in children(capture.process)
        if "storage" in Path(f"/proc/{child}/comm").read_text()
    )
    return found


#: The command line of a program that waits for a snapshot for a second only.
IMPATIENT = """
from blkmig_cli import limits
limits.SNAPSHOT_ANSWER_WAIT = 1
from blkmig_cli.commands import main
main()
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_scratch_that_hangs_or_ends(tmp_path: Path, number: signal.Signals) -> None:
    more = map(str, words(tmp_path))
    with (
        snapshot_guest(tmp_path) as found,
        running(found, *more, script=IMPATIENT) as capture,
    ):
        os.kill(scratch_daemon(capture), number)
        before = wrote(found)
        wait_until(lambda: wrote(found) > before + 100)
        status, err = capture.end()
        assert status == 4
        assert "the snapshot is lost: the" in one_line(err)
        check_unharmed(found, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("target", ["/dev/full", "exec:head -c 4M >/dev/null; exit 3"])
def test_a_target_that_fails(run: Run, tmp_path: Path, target: str) -> None:
    with snapshot_guest(tmp_path) as found:
        done = run("live", found.monitor, *words(tmp_path, "--to", target))
        assert done.status == 4
        assert "snapshot" not in one_line(done.err)
        check_unharmed(found, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(tmp_path: Path, number: signal.Signals, status: int) -> None:
    more = map(str, words(tmp_path, "--bitmaps", "--mark", "m0"))
    with snapshot_guest(tmp_path) as found, running(found, *more) as capture:
        capture.process.send_signal(number)
        ended, err = capture.end()
        assert ended == status
        one_line(err)
        check_unharmed(found, tmp_path)


@pytest.mark.long
def test_a_kill_is_cleaned_up(tmp_path: Path) -> None:
    more = map(str, words(tmp_path, "--bitmaps", "--mark", "m0"))
    with snapshot_guest(tmp_path) as found, running(found, *more) as capture:
        assert "copy-before-write" in ours(found)
        assert not list(tmp_path.glob("blkmig-*"))
        capture.process.kill()
        wait_until(lambda: "blkmig" not in ours(found))
        check_clean_soon(found)
        check_unharmed(found, tmp_path)


@pytest.mark.long
def test_what_a_kill_of_both_processes_leaves(run: Run, tmp_path: Path) -> None:
    """QEMU 7.2 does not survive it where a disk has an iothread (see guard.py)."""
    more, iothread = map(str, words(tmp_path, "--bitmaps")), qemu.version() >= (10, 0)
    guest_of = snapshot_guest(tmp_path, iothread=iothread)
    with guest_of as found, running(found, *more) as capture:
        for child in children(capture.process):
            if child != scratch_daemon(capture):
                os.kill(child, signal.SIGKILL)
        capture.process.kill()
        capture.process.wait()
        wait_until(lambda: run("live", found.monitor, "--list").status == 0)
        for mode in ("passes", "snapshot"):
            done = run("live", found.monitor, "--mode", mode, "--to", tmp_path / "s.bin")
            fails(done, 4, "of another run (blkmig-")
        done = run("live", found.monitor, "--clean-up", "--output", "json").json
        assert len(done["nodes"]) == 6
        assert len(done["exports"]) == 4
        check_unharmed(found, tmp_path)


@pytest.mark.long
def test_a_run_at_work_is_not_cleaned_up(run: Run, tmp_path: Path) -> None:
    second = tmp_path / "second"
    other = ("-qmp", f"unix:{second},server=on,wait=off")
    more = map(str, words(tmp_path))
    with snapshot_guest(tmp_path, *other) as found, running(found, *more) as capture:
        done = run("live", f"qmp:unix:{second}", "--clean-up", "--output", "json").json
        assert (done["nodes"], done["exports"], len(done["at-work"])) == ([], [], 1)
        assert capture.end()[0] == 0
        check_unharmed(found, tmp_path)


@pytest.mark.long
def test_a_filter_that_something_else_uses_stays(tmp_path: Path) -> None:
    """An overlay that somebody has put on it is not taken from the guest."""
    overlay = tmp_path / "overlay.qcow2"
    more = map(str, words(tmp_path))
    with snapshot_guest(tmp_path) as found, running(found, *more) as capture:
        found.qemu.cmd(
            "blockdev-snapshot-sync", device="drive1", snapshot_file=str(overlay), format="qcow2"
        )
        status, err = capture.end()
        assert status == 4
        assert "is not yet removed" in err or "in use" in err, err
        assert "filter" in ours(found)
        assert found.qemu.cmd("query-status")["status"] == "running"
        before = wrote(found)
        wait_until(lambda: wrote(found) > before + 100)


@pytest.mark.long
def test_writes_that_take_too_long(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blkmig_cli.limits.SNAPSHOT_LATENCY_MAX", 0)
    with snapshot_guest(tmp_path, iothread=False) as found:
        more = words(tmp_path, "--max-bandwidth", "1M", "--to", tmp_path / "s.bin")
        fails(run("live", found.monitor, *more), 4, "the guest's writes take over 0 ms")
        check_unharmed(found, tmp_path)


# -- what is refused


def test_bad_options(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path, iothread=False) as found:
        for more, text in (
            (["--scratch", tmp_path], "--scratch is for --mode snapshot"),
            (["--freeze", "auto"], "--freeze is for --mode snapshot"),
            (["--mode", "snapshot", "--downtime", "1s"], "--downtime is for --mode passes"),
            (["--mode", "snapshot", "--then", "resume"], "--then is for --mode passes"),
            (words(tmp_path, "--freeze", "require"), "--freeze require needs the guest agent"),
            (words(tmp_path, "--freeze", "no", "--agent", "x"), "exclude each other"),
            (words(tmp_path, "--scratch-limit", "1M"), "1048576 bytes are too few"),
            (words(tmp_path, "--scratch-limit", "x"), "--scratch-limit: invalid size 'x'"),
        ):
            fails(run("live", found.monitor, *more, "--to", tmp_path / "s.bin"), 2, text)
        more = words(tmp_path / "no", "--to", tmp_path / "s.bin")
        fails(run("live", found.monitor, *more), 4, "No such file or directory")
        check_clean(found)


@pytest.mark.long
def test_disks_that_cannot_be_filtered(run: Run, tmp_path: Path) -> None:
    image = tmp_path / "loose.img"
    image.write_bytes(bytes(MIB))
    drive = ("-drive", f"if=none,id=loose,format=raw,file={image}")
    with guest(tmp_path, None, *drive) as found:
        more = words(tmp_path, "--to", tmp_path / "s.bin", "--disk")
        fails(run("live", found.monitor, *more, "loose"), 4, "no guest device uses it")
        assert run("live", found.monitor, *more, "disk0").status == 0
        assert run("live", found.monitor, *more, "drive1").status == 0
        check_clean(found)


# -- the guest's file systems


@contextmanager
def with_agent(folder: Path, **more: Any) -> Iterator[tuple[Guest, Agent]]:
    with snapshot_guest(folder) as found, Agent(folder / "qga", **more) as agent:
        yield found, agent


@pytest.mark.long
@pytest.mark.parametrize(
    "fault", [{"frozen": 0}, {"mute": ("freeze",)}, {"refused": ("freeze",)}], ids=str
)
def test_freezing_that_fails(
    run: Run, tmp_path: Path, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is thawed in any case."""
    monkeypatch.setattr("blkmig_cli.limits.AGENT_WAIT", 1)
    with with_agent(tmp_path, **fault) as (found, agent):
        more = words(tmp_path, "--agent", agent.path, "--to", tmp_path / "s.bin")
        outcome = run("live", found.monitor, *more, "--freeze", "require")
        assert outcome.status == 4, outcome
        assert "the guest agent" in one_line(outcome.err)
        assert agent.said == ["freeze", "thaw"]
        report = run("live", found.monitor, *more, "--output", "json")
        assert report.json["consistency"] == "crash"
        assert "the guest's file systems are not frozen" in report.err
        assert agent.said == ["freeze", "thaw"] * 2
        check_unharmed(found, tmp_path)


@pytest.mark.long
def test_thawing_that_fails(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blkmig_cli.limits.AGENT_WAIT", 1)
    with with_agent(tmp_path, refused=("thaw",)) as (found, agent):
        more = words(tmp_path, "--agent", agent.path, "--to", tmp_path / "s.bin")
        fails(run("live", found.monitor, *more), 4, "file systems may be frozen still: the guest")
        assert agent.said == ["freeze", "thaw", "thaw"]
        check_unharmed(found, tmp_path)


@pytest.mark.long
def test_a_kill_while_the_guest_is_frozen(tmp_path: Path) -> None:
    """The other process thaws it."""
    with with_agent(tmp_path, mute=("freeze",)) as (found, agent):
        more = words(tmp_path, "--agent", agent.path)
        capture = Running(found, *map(str, more))
        wait_until(lambda: agent.said == ["freeze"])
        capture.process.kill()
        capture.process.communicate()
        wait_until(lambda: agent.said == ["freeze", "thaw"])
        wait_until(lambda: "blkmig" not in ours(found))
        check_clean_soon(found)
        check_unharmed(found, tmp_path)
