"""A real QEMU, controlled through QMP: started for one test, ended with it.

BLKMIG_QEMU_ROOT=DIR takes the QEMU of a system in the folder DIR (a debootstrapped Debian, for example).
It is started in a mount namespace of its own, in which DIR/tmp is the /tmp of the tests, and ends with it;
that takes root's rights.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qemu.qmp.legacy import QEMUMonitorProtocol

from blkmig_cli.checks.compatibility import BLOCKS_END
from tests.support.peers import PATIENCE

ROOT = os.environ.get("BLKMIG_QEMU_ROOT", "")
_NAME = "qemu-system-x86_64"
#: That of the machine, and the one to test.
OWN = shutil.which(_NAME)
BINARY = shutil.which(_NAME, path=f"{ROOT}/usr/bin" if ROOT else None)
QEMU_IMG = shutil.which("qemu-img")
# Sees the first folder of all paths below it as it is outside; its arguments are ROOT, that folder, and
# the command.
_ENTER = (
    'mkdir -p "$0$1" && mount --bind "$1" "$0$1" && root="$0" && shift && exec chroot "$root" "$@"'
)
#: What a destination that has disks is started as; its streams state a prefix of it.
MACHINE = "pc"


@dataclass(frozen=True)
class Drive:
    """A disk of QEMU: its device name, and the image with its format."""

    device: str
    path: Path
    format: str = "raw"


class QmpError(Exception):
    """QEMU refused a command."""


class Qemu:
    """A running QEMU.  What it printed is in ``log`` once it has ended."""

    def __init__(self, folder: Path, words: list[str], root: str = ROOT) -> None:
        self._folder = folder
        control = folder / "qmp"
        control.unlink(missing_ok=True)
        self._monitor = QEMUMonitorProtocol(str(control), server=True)
        command = [*words_for(folder, root), "-nodefaults", "-display", "none", "-S"]
        command += ["-qmp", f"unix:{control}"]
        with open(folder / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(
                [*command, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._monitor.settimeout(PATIENCE)
        self._monitor.accept()

    def cmd(self, command: str, /, **arguments: Any) -> Any:
        """Run a QMP command and return its result; underscores in names stand for dashes.

        Raises QmpError where QEMU refuses it, and what the package ``qemu.qmp`` raises.
        """
        words = {key.replace("_", "-"): value for key, value in arguments.items()}
        message = {"execute": command, "arguments": words}
        answer: Any = self._monitor.cmd_obj(message)
        if "error" in answer:
            raise QmpError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def events(self) -> list[str]:
        """Return the names of the events since the last call."""
        return [event["event"] for event in self._monitor.get_events()]

    def io(self, device: str, line: str) -> None:
        """Run a qemu-io command on a disk."""
        words = f'qemu-io {device} "{line}"'
        self.cmd("human-monitor-command", command_line=words)

    def write(self, device: str, byte: int, start: int, length: int) -> None:
        """Fill a range of a disk, in bytes."""
        self.io(device, f"write -P {byte} {start} {length}")

    @property
    def log(self) -> str:
        """Return what QEMU printed so far."""
        return (self._folder / "qemu.log").read_text("utf-8", "replace")

    def capabilities(self, *names: str) -> None:
        """Switch migration capabilities on."""
        wanted = [{"capability": name, "state": True} for name in names]
        self.cmd("migrate-set-capabilities", capabilities=wanted)

    def parameters(self, **values: Any) -> None:
        """Set migration parameters."""
        self.cmd("migrate-set-parameters", **values)

    def status(self) -> str:
        """Return the status of the migration; ``gone`` where QEMU itself has ended."""
        try:
            return str(self.cmd("query-migrate").get("status", "none"))
        except Exception:  # noqa: BLE001 (QEMU aborts and exits in many ways)
            return "gone"

    def wait(self, *states: str) -> str:
        """Wait until the migration is in one of ``states`` or has ended; return its status."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            status = self.status()
            if status in (*states, "completed", "failed", "cancelled", "gone"):
                return status
            time.sleep(0.01)
        raise TimeoutError(self.log)

    def save(self, uri: str, **arguments: Any) -> None:
        """Migrate to ``uri``, and wait until it is completed."""
        self.cmd("migrate", uri=uri, **arguments)
        assert self.wait() == "completed", self.log

    def await_bulk(self) -> None:
        """Wait until the bulk phase of the only disk is over: its last chunk has been read."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = self.cmd("query-migrate")
            if (
                answer["status"] == "completed"
                or answer.get("disk", {}).get("remaining", 1 << 60) <= 1 << 20
            ):
                return
        raise TimeoutError(self.log)

    def load(self, uri: str) -> str:
        """Load a migration from ``uri``; return its last status."""
        self.cmd("migrate-incoming", uri=uri)
        return self.wait()

    def listen(self, uri: str) -> str:
        """Wait for a migration at ``uri``; return it with the port that the system has chosen."""
        self.cmd("migrate-incoming", uri=uri)
        if not uri.startswith("tcp:"):
            return uri
        (at,) = self.cmd("query-migrate")["socket-address"]
        return f"tcp:{at['host']}:{at['port']}"

    def bitmaps(self, device: str) -> dict[str, dict[str, Any]]:
        """Return the dirty bitmaps of a disk, by name, as query-block shows them."""
        for block in self.cmd("query-block"):
            if block["device"] == device:
                held = block["inserted"].get("dirty-bitmaps", [])
                return {bitmap["name"]: bitmap for bitmap in held}
        raise KeyError(device)

    def sha256(self, device: str, bitmap: str) -> str:
        """Return QEMU's SHA-256 of a bitmap."""
        found = self.cmd("x-debug-block-dirty-bitmap-sha256", node=device, name=bitmap)
        return str(found["sha256"])

    def end(self) -> str:
        """End QEMU, and return what it printed."""
        if self.process.poll() is None:
            try:
                self.cmd("quit")
                self.process.wait(PATIENCE)
            except Exception:  # noqa: BLE001 (whatever is wrong with it, it ends here)
                self.process.kill()
                self.process.wait()
        with suppress(OSError, EOFError):
            self._monitor.close()
        return self.log


@contextmanager
def running(folder: Path, *words: str, root: str = ROOT) -> Iterator[Qemu]:
    """Start a QEMU with the options ``words``, and end it; ``root``: empty for that of the machine."""
    folder.mkdir(parents=True, exist_ok=True)
    qemu = Qemu(folder, list(words), root)
    try:
        yield qemu
    finally:
        qemu.end()


def source(folder: Path, *drives: Drive) -> Any:
    """Start a QEMU that has ``drives`` and no machine, to save them."""
    return running(folder, "-M", "none", *drive_words(*drives))


def machine(folder: Path, *drives: Drive, more: tuple[str, ...] = (), root: str = ROOT) -> Any:
    """Start a QEMU with an empty firmware and a guest device for every drive.

    (A drive without one is reopened at every change of its permissions, and QEMU aborts or fails
    where that meets a migration.)
    """
    folder.mkdir(parents=True, exist_ok=True)
    firmware = folder / "firmware"
    firmware.write_bytes(bytes(64 << 10))
    words = ["-M", MACHINE, "-m", "2", "-bios", str(firmware), *drive_words(*drives)]
    for drive in drives:
        words += ["-device", f"virtio-blk,drive={drive.device}"]
    return running(folder, *words, *more, root=root)


def destination(folder: Path, *drives: Drive, root: str = ROOT) -> Any:
    """Start a machine that waits for ``migrate-incoming``."""
    return machine(folder, *drives, more=("-incoming", "defer"), root=root)


def drive_words(*drives: Drive) -> list[str]:
    """Return the options that give QEMU its disks."""
    words = []
    for drive in drives:
        words += ["-drive", f"if=none,id={drive.device},file={drive.path},format={drive.format}"]
    return words


def words_for(folder: Path, root: str = ROOT) -> list[str]:
    """Return the words that start the QEMU in ``root``, which reaches the files below ``folder``."""
    if not root:
        assert OWN is not None
        return [OWN]
    top = str(Path(*folder.parts[:2]))
    return ["unshare", "--mount", "/bin/sh", "-c", _ENTER, root, top, f"/usr/bin/{_NAME}"]


def qemu_img(*words: object) -> str:
    """Run qemu-img; return what it prints."""
    assert QEMU_IMG is not None
    command = [QEMU_IMG, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def version(root: str = ROOT) -> tuple[int, int]:
    """Return QEMU's version, such as (7, 2)."""
    command = [*words_for(Path("/tmp/any"), root), "--version"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    major, minor = text.split("version ")[1].split(".")[:2]
    return int(major), int(minor)


def has_block_migration() -> bool:
    """Return whether there is a QEMU that saves and loads disks in streams (up to 9.0)."""
    return BINARY is not None and version() < BLOCKS_END
