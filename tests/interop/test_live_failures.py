"""``blkmig live`` where something is in the way, fails or is killed: the guest runs on, nothing is left."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, fails
from tests.interop import qemu
from tests.interop.disks import MIB
from tests.interop.guest import Guest, Writer
from tests.interop.test_live import check_clean, guest, live, live_words
from tests.support.peers import BLKMIG, PATIENCE, connect, wait_until

WRITER = Writer(20 * MIB)


def monitor_at(found: Guest) -> Path:
    """Give QEMU one more monitor, and return the path of its socket."""
    path = found.path.with_name("more")
    backend = {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": str(path)}},
               "server": True, "wait": False}}  # fmt: skip
    found.qemu.cmd("chardev-add", id="more", backend=backend)
    found.qemu.cmd("human-monitor-command", command_line="info status")
    return path


# -- the monitor


def test_no_monitor_there(run: Run, tmp_path: Path) -> None:
    words = ["--to", tmp_path / "s.bin"]
    fails(run("live", f"qmp:unix:{tmp_path}/no", *words), 4, "No such file or directory")
    (tmp_path / "file").touch()
    fails(run("live", f"qmp:unix:{tmp_path}/file", *words), 4, "Connection refused")
    for text in ("tcp:localhost:4444", "qmp:unix:", "qmp:tcp:localhost:1", "x\0y"):
        fails(run("live", text, *words), 2, "expected qmp:unix:PATH")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@contextmanager
def listening(path: Path, greeting: bytes | None) -> Iterator[None]:
    """Accept a client, and send it some bytes, then nothing; None: do not even accept it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(4)
        if greeting is None:
            yield
            return
        peers: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                peers.append(listener.accept()[0])
                peers[0].sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for peer in peers:
                peer.close()


def test_no_qmp(run: Run, tmp_path: Path) -> None:
    with listening(tmp_path / "s", b"QEMU 7.2 monitor - type 'help'\r\n(qemu) "):
        fails(run("live", f"qmp:unix:{tmp_path}/s"), 4, "it is not a QMP monitor")


@pytest.mark.parametrize("greeting", [None, pytest.param(b"", marks=pytest.mark.long)])
def test_no_greeting(
    run: Run, tmp_path: Path, greeting: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blkmig_cli.limits.QMP_GREETING_WAIT", 1)
    with listening(tmp_path / "s", greeting):
        outcome = run("live", f"qmp:unix:{tmp_path}/s", "--list")
        fails(outcome, 4, "no greeting within 1 second; another client may be connected")


@pytest.mark.long
def test_a_monitor_that_somebody_uses(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blkmig_cli.limits.QMP_GREETING_WAIT", 1)
    with guest(tmp_path) as found:
        with connect(found.path):
            fails(run("live", found.monitor, "--list"), 4, "no greeting within 1 second")
        assert run("live", found.monitor, "--list").status == 0


def test_without_the_package(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "qemu.qmp", None)
    outcome = run("live", f"qmp:unix:{tmp_path}/no", "--list")
    fails(outcome, 4, "install it with: pip install 'blkmig[live]'")


# -- what is in the way in QEMU


def refused(run: Run, found: Guest, folder: Path, words: str, *more: object) -> None:
    """Check that a capture is refused, and has changed nothing."""
    before = found.qemu.cmd("query-status")["status"]
    target = folder / "s.bin"
    fails(run("live", found.monitor, *more, "--to", target), 4, words)
    assert found.qemu.cmd("query-status")["status"] == before
    assert not target.exists()
    assert "blkmig" not in json.dumps(found.qemu.cmd("query-named-block-nodes"))
    assert "blkmig" not in json.dumps(found.qemu.cmd("query-block-exports"))


@pytest.mark.long
def test_an_nbd_server_that_runs(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path, WRITER) as found:
        address = {"type": "unix", "data": {"path": str(tmp_path / "nbd")}}
        found.qemu.cmd("nbd-server-start", addr=address)
        refused(run, found, tmp_path, "an NBD server is running in this QEMU")
        found.qemu.cmd("nbd-server-stop")
        live(run, found, "--to", tmp_path / "s.bin")


def test_a_block_job(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy.img"
    with guest(tmp_path, WRITER) as found:
        found.qemu.cmd(
            "drive-mirror", job_id="copying", device="drive1", target=str(copy), sync="full",
            format="raw", speed=4096,
        )  # fmt: skip
        refused(run, found, tmp_path, "a block job is under way: 'copying' (mirror)")


def test_a_migration(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path, WRITER) as found:
        found.qemu.parameters(max_bandwidth=1)
        found.qemu.cmd("migrate", uri="exec:sleep 1000")
        refused(run, found, tmp_path, "a migration is under way")
        found.qemu.cmd("migrate_cancel")


def test_a_guest_that_waits_for_a_migration(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path, None, "-incoming", "defer") as found:
        refused(run, found, tmp_path, "the guest is being migrated")


def test_bitmaps_in_use(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path) as found:
        found.qemu.cmd("block-dirty-bitmap-disable", node="drive1", name="fine")
        address = {"type": "unix", "data": {"path": str(tmp_path / "nbd")}}
        found.qemu.cmd("nbd-server-start", addr=address)
        node = next(
            block["inserted"]["node-name"]
            for block in found.qemu.cmd("query-block")
            if block["device"] == "drive1"
        )
        found.qemu.cmd("block-export-add", type="nbd", id="e", node_name=node, bitmaps=["fine"])
        refused(run, found, tmp_path, "bitmap 'fine' is in use", "--bitmaps")
        found.qemu.cmd("nbd-server-stop")


def test_inconsistent_bitmaps(run: Run, tmp_path: Path) -> None:
    image = tmp_path / "c.qcow2"
    qemu.qemu_img("create", "-q", "-f", "qcow2", image, "8M")
    qemu.qemu_img("bitmap", "--add", image, "torn")
    data = bytearray(image.read_bytes())
    # The flag in-use of the only bitmap (QEMU, docs/interop/qcow2.txt: Bitmap directory).
    at = data.index(b"torn") - 24
    data[at + 15] |= 1
    image.write_bytes(data)
    drive = f"if=none,id=drive2,file={image},format=qcow2"
    more = ("-drive", drive, "-device", "virtio-blk,drive=drive2")
    with guest(tmp_path, None, *more) as found:
        refused(run, found, tmp_path, "bitmap 'torn' is inconsistent", "--bitmaps")
        live(run, found, "--bitmap", "fine", "--to", tmp_path / "s.bin")


def test_bitmaps_that_are_not_there(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path) as found:
        for words, status, text in (
            (["--bitmap", "no"], 2, "no bitmap 'no'"),
            (["--bitmap", "disk0:fine"], 2, "no bitmap 'disk0:fine'"),
        ):
            fails(run("live", found.monitor, *words, "--to", tmp_path / "s.bin"), status, text)
        for node, name in (("first", "daily"), ("drive1", "fine")):
            found.qemu.cmd("block-dirty-bitmap-remove", node=node, name=name)
        refused(run, found, tmp_path, "no disk has any bitmap", "--bitmaps")


def test_a_socket_that_exists(run: Run, tmp_path: Path) -> None:
    """QEMU would remove the file."""
    precious = tmp_path / "precious"
    precious.write_text("data")
    with guest(tmp_path) as found:
        refused(run, found, tmp_path, "it exists", "--socket", precious)
        missing = tmp_path / "missing" / "nbd"
        refused(run, found, tmp_path, "QEMU cannot create it", "--socket", missing)
        live(run, found, "--socket", tmp_path / "nbd", "--to", tmp_path / "s.bin")
        check_clean(found)
    assert precious.read_text() == "data"
    assert not (tmp_path / "nbd").exists()


def test_a_target_that_the_guest_uses(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path) as found:
        link = tmp_path / "link"
        link.symlink_to("a.img")
        before = (tmp_path / "a.img").stat()
        for target in (tmp_path / "a.img", link):
            fails(run("live", found.monitor, "--to", target), 2, "are the same file")
        assert (tmp_path / "a.img").stat().st_ino == before.st_ino
        fails(run("live", found.monitor, "--id", "x", "--to", link), 2, "--id: 'x' is not a UUID")


# -- what happens meanwhile


#: The command line of a program that waits for QEMU for a second only.
IMPATIENT = """
from blkmig_cli import limits
from blkmig_cli.system import qmp
limits.QMP_ANSWER_WAIT = limits.NBD_ANSWER_WAIT = qmp._IMPATIENT = 1
from blkmig_cli.commands import main
main()
"""


class Running:
    """``blkmig live`` as a process, whose stream is read only as far as a test wants."""

    def __init__(self, found: Guest, *words: str, script: str | None = None) -> None:
        command = BLKMIG if script is None else [sys.executable, "-c", script]
        self.process = subprocess.Popen(
            [*command, *map(str, live_words(found, *words))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self.process.stdout is not None
        self._pipe = self.process.stdout
        self._first: list[bytes] = []

    def read(self, size: int) -> None:
        """Read so much of the stream."""
        while size > 0:
            data = self._pipe.read(size)
            assert data, self.process.communicate()
            self._first.append(data)
            size -= len(data)

    def rest(self) -> bytes:
        """Read the rest of the stream; return all of it."""
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, err
        return b"".join([*self._first, out])

    def end(self) -> tuple[int, str]:
        """Read the rest of the stream; return the exit status and what stderr says."""
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err.decode()


@contextmanager
def running(found: Guest, *words: str, script: str | None = None) -> Iterator[Running]:
    """Start a capture and wait until it is in the middle of its first pass."""
    started = Running(found, *words, script=script)
    try:
        started.read(8 * MIB)
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        started.process.communicate()


def one_line(err: str) -> str:
    """Return the only line of stderr but for warnings."""
    lines = [line for line in err.splitlines() if not line.startswith("blkmig: warning: ")]
    assert len(lines) == 1, err
    return lines[0]


@pytest.mark.parametrize(
    ("number", "status"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.long), (signal.SIGTERM, 143)],
)
def test_signals(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with guest(tmp_path, WRITER) as found, running(found) as capture:
        capture.process.send_signal(number)
        ended, err = capture.end()
        assert ended == status
        print(one_line(err))
        check_clean(found)
        assert found.qemu.cmd("query-status")["status"] == "running"


@pytest.mark.long
def test_qemu_is_killed(tmp_path: Path) -> None:
    with guest(tmp_path, WRITER) as found, running(found) as capture:
        found.qemu.process.kill()
        ended, err = capture.end()
        assert ended == 4
        assert "QEMU has ended, or closed its monitor" in one_line(err)


def test_the_reader_of_the_stream_leaves(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path, WRITER, iothread=False) as found:
        outcome = run("live", found.monitor, "--to", "exec:head -c 4M >/dev/null; exit 3")
        fails(outcome, 4, "the reader closed its end")
        check_clean(found)
        assert found.qemu.cmd("query-status")["status"] == "running"


@pytest.mark.long
def test_the_guest_does_not_wait_for_the_target(tmp_path: Path) -> None:
    """It is paused, and runs on, while nobody reads the stream."""
    words = ["--max-passes", "0", "--on-no-converge", "pause", "--downtime", "0ms"]
    with guest(tmp_path, WRITER) as found, running(found, *words) as capture:
        seen: set[str] = set()

        def saw(name: str) -> bool:
            seen.update(found.qemu.events())
            return name in seen

        while not saw("STOP"):
            capture.read(1 << 16)
        wait_until(lambda: saw("RESUME"))
        assert capture.end()[0] == 0
        check_clean(found)


@pytest.mark.long
def test_qemu_does_not_wait_for_the_target(tmp_path: Path) -> None:
    """What stops all requests to the disks is done at once, while nobody reads the stream."""
    with guest(tmp_path, WRITER, iothread=False) as found, running(found) as capture:
        capture.process.send_signal(signal.SIGTSTP)  # of Ctrl-Z
        found.qemu.cmd("stop")
        found.qemu.cmd("system_reset")
        found.qemu.cmd("cont")
        assert capture.end()[0] == 0
        check_clean(found)


def test_a_full_target(run: Run, tmp_path: Path) -> None:
    with guest(tmp_path, WRITER, iothread=False) as found:
        fails(run("live", found.monitor, "--to", "/dev/full"), 4, "No space left on device")
        check_clean(found)
        assert found.qemu.cmd("query-status")["status"] == "running"


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the processes that a process has started."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in text.split()]


def ours(found: Guest) -> str:
    """Return what there is in QEMU that may be ours."""
    parts = ("query-block-exports", "query-named-block-nodes")
    return json.dumps([found.qemu.cmd(part) for part in parts])


@pytest.mark.long
def test_a_kill_is_cleaned_up(tmp_path: Path) -> None:
    """By the process that stands by for that."""
    with guest(tmp_path, WRITER) as found, running(found, "--bitmaps") as capture:
        assert "blkmig" in ours(found)
        capture.process.kill()
        wait_until(lambda: "blkmig" not in ours(found))
        check_clean_soon(found)
        assert found.qemu.cmd("query-status")["status"] == "running"


#: The command line of a program that is killed as soon as QEMU's NBD server runs.
KILLED = """
import os, signal
from blkmig_cli.operations.live.session import Session
Session.open_disk = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from blkmig_cli.commands import main
main()
"""


@pytest.mark.long
def test_a_kill_before_there_is_an_export(tmp_path: Path) -> None:
    with guest(tmp_path, WRITER) as found:
        capture = Running(found, script=KILLED)
        assert capture.process.communicate()[1] == b""
        assert capture.process.returncode == -signal.SIGKILL
        check_clean_soon(found)


def check_clean_soon(found: Guest) -> None:
    """As check_clean; the server is stopped last."""

    def stopped() -> bool:
        try:
            check_clean(found)
        except qemu.QmpError:
            return False
        return True

    wait_until(stopped)


def test_a_kill_while_the_guest_is_paused(tmp_path: Path) -> None:
    with guest(tmp_path, WRITER) as found:
        words = ["--max-passes", "0", "--on-no-converge", "pause", "--downtime", "0ms"]
        with running(found, *words, "--then", "leave-paused") as capture:
            # The rest that was written meanwhile does not fit into the pipe.
            while found.qemu.cmd("query-status")["status"] == "running":
                capture.read(1 << 16)
            capture.process.kill()
            wait_until(lambda: found.qemu.cmd("query-status")["status"] == "running")
            wait_until(lambda: "blkmig" not in ours(found))
            check_clean_soon(found)


def without_iothread(folder: Path) -> Any:
    """QEMU 7.2 does not survive what these tests do to a disk with an iothread (see guard.py)."""
    return guest(folder, WRITER, iothread=False)


@pytest.mark.long
def test_what_a_kill_of_both_processes_leaves(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "s.bin"
    with without_iothread(tmp_path) as found, running(found, "--bitmaps") as capture:
        (guard,) = children(capture.process)
        os.kill(guard, signal.SIGKILL)
        capture.process.kill()
        capture.process.wait()
        wait_until(lambda: run("live", found.monitor, "--list").status == 0)
        outcome = run("live", found.monitor, "--to", target)
        fails(outcome, 4, "QEMU has exports, bitmaps or nodes of another run (blkmig-")
        assert "--clean-up" in outcome.err
        found.qemu.cmd("block-dirty-bitmap-add", node="drive1", name="blkmig-is-mine")
        done = run("live", found.monitor, "--clean-up", "--output", "json").json
        assert len(done["exports"]) == 2
        assert len(done["bitmaps"]) == 4
        assert done["server"]
        assert done["at-work"] == []
        names = set(found.qemu.bitmaps("drive1"))
        assert names == {"fine", "blkmig-is-mine"}
        found.qemu.cmd("block-dirty-bitmap-remove", node="drive1", name="blkmig-is-mine")
        check_clean(found)
        assert run("live", found.monitor, "--clean-up").out == "removed: nothing\n"
        live(run, found, "--to", target)


@pytest.mark.long
def test_a_run_at_work_is_not_cleaned_up(run: Run, tmp_path: Path) -> None:
    second = tmp_path / "second"
    more = ("-qmp", f"unix:{second},server=on,wait=off")
    with guest(tmp_path, WRITER, *more) as found, running(found, "--bitmaps") as capture:
        before = ours(found).count("blkmig-")
        words = ["live", f"qmp:unix:{second}"]
        fails(run(*words, "--to", tmp_path / "s.bin"), 4, "of another run")
        done = run(*words, "--clean-up", "--output", "json").json
        assert done["exports"] == done["bitmaps"] == []
        assert len(done["at-work"]) == 1
        assert "as it is at work" in run(*words, "--clean-up").out
        assert ours(found).count("blkmig-") == before
        ended, _ = capture.end()
        assert ended == 0
        check_clean(found)


def meanwhile(tmp_path: Path, change: Callable[[Guest], object], words: str, *more: str) -> None:
    """Check that a change to QEMU's disks during a capture ends it."""
    with guest(tmp_path, WRITER) as found, running(found, "--bitmaps", *more) as capture:
        change(found)
        ended, err = capture.end()
        assert ended == 4, err
        assert words in one_line(err)
        check_clean(found)
        assert found.qemu.cmd("query-status")["status"] == "running"


@pytest.mark.long
def test_a_bitmap_that_vanishes(tmp_path: Path) -> None:
    def change(found: Guest) -> None:
        found.qemu.cmd("block-dirty-bitmap-remove", node="drive1", name="fine")

    meanwhile(tmp_path, change, "was removed or changed while it was captured")


@pytest.mark.long
def test_a_job_that_is_started(tmp_path: Path) -> None:
    def change(found: Guest) -> None:
        found.qemu.cmd(
            "drive-mirror", job_id="copying", device="drive1", target=str(tmp_path / "copy"),
            sync="full", format="raw", speed=4096,
        )  # fmt: skip

    for words in ([], ["--max-passes", "0", "--on-no-converge", "pause"]):
        meanwhile(tmp_path, change, "a block job was started meanwhile: 'copying'", *words)


@pytest.mark.long
def test_a_snapshot_of_a_disk(tmp_path: Path) -> None:
    def change(found: Guest) -> None:
        overlay = str(tmp_path / "overlay.qcow2")
        found.qemu.cmd("blockdev-snapshot-sync", device="drive1", snapshot_file=overlay)

    meanwhile(tmp_path, change, "its medium or its node was exchanged while it was captured")


@pytest.mark.long
def test_a_disk_is_not_resized_meanwhile(tmp_path: Path) -> None:
    with guest(tmp_path, WRITER) as found, running(found) as capture:
        with pytest.raises(qemu.QmpError):
            found.qemu.cmd("block_resize", device="drive1", size=32 * MIB)
        assert capture.end()[0] == 0
        check_clean(found)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_while_the_guest_is_paused(tmp_path: Path, number: signal.Signals) -> None:
    with guest(tmp_path, WRITER) as found:
        words = ["--max-passes", "0", "--on-no-converge", "pause", "--downtime", "0ms"]
        with running(found, *words, "--then", "leave-paused") as capture:
            while found.qemu.cmd("query-status")["status"] == "running":
                capture.read(1 << 16)
            capture.process.send_signal(number)
            ended, err = capture.end()
            assert ended == 128 + number
            one_line(err)
            assert found.qemu.cmd("query-status")["status"] == "running"
            check_clean(found)


@pytest.mark.long
@pytest.mark.parametrize("paused", [False, True])
def test_a_qemu_that_hangs(tmp_path: Path, paused: bool) -> None:
    """What cannot be removed is removed, and the guest resumed, as soon as QEMU answers again."""
    words = ["--max-passes", "0", "--on-no-converge", "pause", "--downtime", "0ms"]
    words += ["--then", "leave-paused"] * paused
    with guest(tmp_path, WRITER) as found, running(found, *words, script=IMPATIENT) as capture:
        while paused and found.qemu.cmd("query-status")["status"] == "running":
            capture.read(1 << 16)
        found.qemu.process.send_signal(signal.SIGSTOP)
        ended, err = capture.end()
        assert ended == 4
        # Told first is what the capture was at, not what is asked for the removal after it.
        first, _, left = one_line(err).partition("what it made in QEMU is not yet removed")
        assert "no answer to " in first or "the server did not answer in time" in first
        assert "query-block-exports" not in first
        assert "no answer to query-block-exports" in left
        found.qemu.process.send_signal(signal.SIGCONT)
        wait_until(lambda: found.qemu.cmd("query-status")["status"] == "running")
        wait_until(lambda: "blkmig" not in ours(found))
        check_clean_soon(found)


@pytest.mark.long
def test_a_reset_of_the_guest(tmp_path: Path) -> None:
    """It changes nothing.  (A QEMU 7.2 with iothreads may not survive it.)"""
    with guest(tmp_path, WRITER, iothread=qemu.version() >= (10, 0)) as found:
        with running(found, "--bitmaps") as capture:
            found.qemu.cmd("system_reset")
            assert capture.end()[0] == 0
        check_clean(found)
        assert found.qemu.cmd("query-status")["status"] == "running"
