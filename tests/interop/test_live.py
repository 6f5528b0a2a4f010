"""``blkmig live``: the disks and bitmaps of a guest that writes, compared with the paused guest's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import blkmig_cli
from blkmig_cli.checks.compatibility import BLOCKS_END
from blkmig_cli.disks.bitmap_file import read_bitmaps
from blkmig_cli.operations.live.live import capture
from blkmig_cli.operations.live.request import LiveRequest, PassesOptions, PassesReport
from blkmig_cli.progress import Tick
from tests.conftest import Run, fails
from tests.interop import disks, qemu
from tests.interop.disks import MIB
from tests.interop.guest import Guest, Writer, started
from tests.interop.qemu import Drive
from tests.output.test_json_schemas import hold

#: The second disk has no whole MiB.
SIZES = (24 * MIB, 21 * MIB + 3 * 512)
#: Node or drive, name and granularity.
BITMAPS = (("first", "daily", 65536), ("drive1", "fine", 4096))


def make_disks(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / "a.img", folder / "b.img"]
    for path, size in zip(made, SIZES, strict=True):
        path.write_bytes(disks.mixed(size))
    return made


@contextmanager
def guest(
    folder: Path, writer: Writer | None = None, *more: str, iothread: bool = True
) -> Iterator[Guest]:
    """A guest with a node without drive, on an iothread, and a drive; each has a named bitmap."""
    one, other = make_disks(folder)
    words = [
        *(["-object", "iothread,id=io0"] if iothread else []),
        "-blockdev", f"driver=raw,node-name=first,file.driver=file,file.filename={one}",
        "-device", "virtio-blk,drive=first,id=disk0" + (",iothread=io0" if iothread else ""),
        "-drive", f"if=none,id=drive1,file={other},format=raw",
        "-device", "virtio-blk,drive=drive1",
    ]  # fmt: skip
    with started(folder / "q", [*words, *more], writer) as found:
        for node, name, granularity in BITMAPS:
            found.qemu.cmd("block-dirty-bitmap-add", node=node, name=name, granularity=granularity)
        yield found


def live_words(found: Guest, *words: object) -> list[object]:
    """The words for a capture, which does not fail where this machine is slower than the guest."""
    patient = [] if "snapshot" in words else ["--on-no-converge", "pause"]
    return ["live", found.monitor, *patient, *words]


def live(run: Run, found: Guest, *words: object) -> Any:
    outcome = run(*live_words(found, "--output", "json", *words))
    assert outcome.status == 0, outcome
    hold("live", outcome.json)
    return outcome.json


def check_clean(found: Guest) -> None:
    """Check that nothing of ours is left in QEMU."""
    cmd = found.qemu.cmd
    assert cmd("query-block-exports") == []
    nodes = [node["node-name"] for node in cmd("query-named-block-nodes")]
    assert not any("blkmig" in node for node in nodes)
    cmd("nbd-server-start", addr={"type": "unix", "data": {"path": f"{found.path}.nbd"}})
    cmd("nbd-server-stop")


def check_same(run: Run, found: Guest, stream: Path, folder: Path, *hints: str) -> None:
    """Check that a stream has the disks and bitmaps of the guest, which is paused."""
    replayed = [folder / "disk0.raw", folder / "drive1.raw"]
    words = [f"--image={path.stem}={path}" for path in replayed]
    outcome = run("replay", stream, *words, *hints, "--create", "--overwrite")
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
        words = ["--downtime", "60s", "--bitmaps", "--then", "leave-paused"]
        report = live(run, found, *words, "--to", stream)
        assert found.qemu.cmd("query-status")["status"] == "paused"
        check_same(run, found, stream, tmp_path)
        check_clean(found)
    assert report["left-paused"]
    assert report["converged"]
    assert run("validate", stream).status == 0


#: Three passes over changes and then the pause, whatever the guest writes.
THREE = ("--downtime", "0ms", "--max-passes", "3", "--on-no-converge", "pause")


@pytest.mark.parametrize(
    ("dialect", "container"),
    [
        ("qemu", "qemu"),
        *(
            pytest.param(dialect, container, marks=pytest.mark.long)
            for dialect, container in (
                ("v2", "none"),
                ("v2", "qemu"),
                ("v1", "qemu"),
                ("v1", "none"),
            )
        ),
    ],
)
def test_passes_in_every_dialect(run: Run, tmp_path: Path, dialect: str, container: str) -> None:
    """With an iothread in the first; a QEMU 7.2 with one may abort (nbd/server.c: blk_aio_attached)."""
    stream = tmp_path / "s.bin"
    iothread = dialect == "qemu" or qemu.version() >= (10, 0)
    words = [*THREE, "--dialect", dialect, "--container", container, "--then", "leave-paused"]
    with guest(tmp_path, Writer(20 * MIB), iothread=iothread) as found:
        report = live(run, found, "--bitmaps", *words, "--to", stream)
        hints = ["--device-size", f"disk0={SIZES[0]}", "--device-size", f"drive1={SIZES[1]}"]
        if dialect == "v1":
            hints += ["--granularity", "disk0:daily=64k", "--granularity", "drive1:fine=4k"]
        hints += ["--dialect", dialect, "--container", container]
        check_same(run, found, stream, tmp_path, *hints)
        check_clean(found)
    assert [done["kind"] for done in report["passes"]] == ["bulk", *["dirty"] * 3, "paused"]
    assert not report["converged"]
    assert report["times-sent"] > 1
    validated = run("validate", stream, *hints, "--output", "json")
    assert validated.status == 0, validated
    assert validated.report["verdict"] == "whole", validated.report


@pytest.mark.long
def test_classic_has_no_bitmaps(run: Run, tmp_path: Path) -> None:
    stream = tmp_path / "s.bin.zst"
    with guest(tmp_path, Writer(20 * MIB)) as found:
        assert run("live", found.monitor, "--bitmaps", "--dialect", "classic").status == 2
        live(run, found, *THREE, "--dialect", "classic", "--to", stream, "--then", "leave-paused")
        words = [f"--image={name}={tmp_path / name}.raw" for name in ("disk0", "drive1")]
        assert run("replay", stream, *words, "--create").status == 0
        for name, original in (("disk0", "a.img"), ("drive1", "b.img")):
            made = (tmp_path / f"{name}.raw").read_bytes()
            assert made == (tmp_path / original).read_bytes()


@pytest.mark.long
def test_the_guest_runs_on(run: Run, tmp_path: Path) -> None:
    stream = tmp_path / "s.bin"
    with guest(tmp_path, Writer(20 * MIB)) as found:
        report = live(run, found, "--to", stream)
        assert found.qemu.cmd("query-status")["status"] == "running"
        check_clean(found)
        # The monitor is free for the next one.
        again = run(*live_words(found, "--to", stream))
        assert again.status == 0
        assert "captured 'drive1', 'disk0'" in again.err or "captured 'disk0'" in again.err
        assert "the guest was paused for" in again.err
    assert report["pause"] > 0
    assert not report["left-paused"]


def test_a_guest_that_does_not_run(run: Run, tmp_path: Path) -> None:
    stream = tmp_path / "s.bin"
    with guest(tmp_path) as found:
        report = live(run, found, "--bitmaps", "--to", stream)
        assert found.qemu.cmd("query-status")["status"] == "prelaunch"
        check_same(run, found, stream, tmp_path)
    assert report["pause"] is None
    assert report["predicted-pause"] is None


def test_the_identity(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    stream, own = tmp_path / "s.bin", "c6edee4f-054d-43d1-b63e-0e9c1140883c"
    with guest(tmp_path) as found:
        live(run, found, "--id", own, "--to", stream)
        identity = run("info", stream, "--output", "json").json["identity"]
        live(run, found, "--no-identity", "--to", stream)
        assert run("live", found.monitor, "--id", own, "--no-identity").status == 2
    assert identity["id"] == own
    assert identity["consistency"] == "paused"
    assert identity["created"] == "1970-01-01T00:00:00Z"
    assert identity["disks"]["drive1"]["size"] == SIZES[1]
    assert run("info", stream, "--output", "json").json["identity"] is None


@pytest.mark.long
def test_a_guest_that_writes_too_fast(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path, Writer(20 * MIB), iothread=False) as found:
        words = ["--downtime", "0ms", "--max-passes", "2", "--to", tmp_path / "s.bin"]
        fails(run("live", found.monitor, *words), 4, "the guest writes too fast: after 2 passes")
        assert found.qemu.cmd("query-status")["status"] == "running"
        check_clean(found)
    assert not (tmp_path / "s.bin").exists()


def test_a_warning_of_iothreads(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path) as found:
        outcome = run(*live_words(found, "--to", tmp_path / "s.bin"))
    assert ("may abort if the guest resets" in outcome.err) is (qemu.version() < (10, 0))


def test_bandwidth(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path) as found:
        words = ["--disk", "disk0", "--max-bandwidth", "100M", "--to", tmp_path / "s.bin"]
        report = live(run, found, *words)
    # 24 MiB, of which 1.5 MiB are zeros.
    assert report["passes"][0]["milliseconds"] >= 200


@pytest.mark.skipif(
    qemu.OWN is None or qemu.version("") >= BLOCKS_END, reason="no QEMU that loads disks"
)
def test_qemu_loads_it(run: Run, tmp_path: Path) -> None:
    """The QEMU of this machine, whichever QEMU the stream is of."""
    stream = tmp_path / "s.bin"
    with guest(tmp_path, Writer(20 * MIB)) as found:
        words = ["--machine", qemu.MACHINE, "--then", "leave-paused", "--for-qemu", "7.2"]
        outcome = run("live", found.monitor, *THREE, *words, "--bitmaps", "--to", stream)
        assert outcome.status == 0
        assert "cannot load" not in outcome.err
        digests = [found.qemu.sha256(node, name) for node, name, _ in BITMAPS]
    drives = [Drive("disk0", tmp_path / "0.dst"), Drive("drive1", tmp_path / "1.dst")]
    for drive, size in zip(drives, SIZES, strict=True):
        drive.path.write_bytes(b"Z" * size)
    with qemu.destination(tmp_path / "d", *drives, root="") as destination:
        destination.capabilities("dirty-bitmaps")
        assert destination.load(f"exec:cat {stream}") == "completed", destination.log
        loaded = [
            destination.sha256(drive.device, name)
            for drive, (_, name, _) in zip(drives, BITMAPS, strict=True)
        ]
        assert loaded == digests
        assert destination.bitmaps("drive1")["fine"]["granularity"] == 4096
    for drive, name in zip(drives, ("a.img", "b.img"), strict=True):
        assert drive.path.read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.long
def test_to_a_qemu_that_waits(run: Run, tmp_path: Path) -> None:
    """As a migration: the other QEMU confirms that it has loaded everything (only up to 9.0)."""
    if qemu.OWN is None or qemu.version("") >= BLOCKS_END:
        pytest.skip("no QEMU that loads disks")
    drives = [Drive("disk0", tmp_path / "0.dst"), Drive("drive1", tmp_path / "1.dst")]
    for drive, size in zip(drives, SIZES, strict=True):
        drive.path.write_bytes(b"Z" * size)
    with (
        guest(tmp_path, Writer(20 * MIB)) as found,
        qemu.destination(tmp_path / "d", *drives, root="") as destination,
    ):
        destination.capabilities("dirty-bitmaps")
        uri = destination.listen(f"unix:{tmp_path}/in")
        words = ["--machine", qemu.MACHINE, "--for-qemu", "7.2", "--then", "leave-paused"]
        live(run, found, *words, "--bitmaps", "--to", uri)
        assert destination.wait() == "completed"
        for drive, (node, name, _) in zip(drives, BITMAPS, strict=True):
            assert destination.sha256(drive.device, name) == found.qemu.sha256(node, name)
    for drive, name in zip(drives, ("a.img", "b.img"), strict=True):
        assert drive.path.read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.long
def test_many_captures_of_one_guest(run: Run, tmp_path: Path) -> None:
    """Each with new bitmaps, in turn as many passes as are needed and three."""
    stream, late = tmp_path / "s.bin", 0
    number = 50
    with guest(tmp_path, Writer(20 * MIB)) as found:
        for turn in range(number):
            words = THREE if turn % 2 else ()
            report = live(run, found, "--bitmaps", "--then", "leave-paused", "--to", stream, *words)
            check_same(run, found, stream, tmp_path)
            for node, name, granularity in BITMAPS:
                found.qemu.cmd("block-dirty-bitmap-remove", node=node, name=name)
                found.qemu.cmd(
                    "block-dirty-bitmap-add", node=node, name=name, granularity=granularity
                )
            found.qemu.cmd("cont")
            if report["converged"]:
                late += report["pause"] > 300
            print(turn, report["predicted-pause"], report["pause"], report["times-sent"])
    print(f"{number} captures, {late} paused for longer than predicted")


@pytest.mark.long
def test_what_does_not_fit_into_memory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read while the guest was paused goes to a temporary file."""
    monkeypatch.setattr("blkmig_cli.limits.HELD_MAX", 2 * MIB)
    stream = tmp_path / "s.bin"
    words = ["--max-passes", "0", "--on-no-converge", "pause", "--downtime", "0ms"]
    with guest(tmp_path, Writer(20 * MIB)) as found:
        report = live(run, found, *words, "--bitmaps", "--then", "leave-paused", "--to", stream)
        assert report["passes"][-1]["bytes-read"] > 2 * MIB
        check_same(run, found, stream, tmp_path)


def test_the_library(tmp_path: Path) -> None:
    stream, mode = tmp_path / "s.bin", PassesOptions(on_no_converge="pause", then="leave-paused")
    with guest(tmp_path, Writer(20 * MIB)) as found:
        request = LiveRequest((("a", "disk0"),), bitmaps=(), mode=mode)
        report = blkmig_cli.live(found.monitor, stream, request, manifest=tmp_path / "m.json")
        assert found.qemu.cmd("query-status")["status"] == "paused"
        check_clean(found)
    assert (report.sizes, report.bitmaps) == ({"a": SIZES[0]}, [("a", "daily")])
    assert isinstance(report.mode, PassesReport)
    assert report.mode.left_paused
    assert report.written == stream.stat().st_size
    with blkmig_cli.open(stream) as reader, reader.disk() as disk:
        assert disk.read() == (tmp_path / "a.img").read_bytes()
    assert blkmig_cli.read_manifest(str(tmp_path / "m.json")) == report.manifest


def test_progress(tmp_path: Path) -> None:
    shown: list[tuple[str, int | None]] = []
    ticks: list[int] = []

    @contextmanager
    def progress(label: str, total: int | None) -> Iterator[Tick]:
        shown.append((label, total))
        ticks.clear()
        yield lambda done, disk=None: ticks.append(done)
        if total:
            assert ticks == sorted(ticks)
            assert ticks[-1] >= total // MIB * MIB

    passes = PassesOptions(downtime=0, max_passes=2, on_no_converge="pause")
    with guest(tmp_path, Writer(20 * MIB)) as found:
        request = LiveRequest(mode=passes)
        report = capture(found.monitor, str(tmp_path / "s.bin"), request, progress=progress)
    assert [label for label, _ in shown] == ["sending", "pass 1", "pass 2", "last pass"]
    assert isinstance(report.mode, PassesReport)
    assert [total for _, total in shown] == [done.size for done in report.mode.passes]
