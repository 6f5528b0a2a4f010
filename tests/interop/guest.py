"""A guest that writes to its disks while it runs: a boot sector, so that a paused guest writes nothing.

``guest.s`` is its source; ``PROGRAM`` is made of it with ``as --32`` and ``objcopy -O binary -j .text``.
"""

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.interop import qemu
from tests.interop.qemu import Qemu
from tests.support.peers import wait_until

PROGRAM = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cfbfc66a1687c6669c00d66190066055ff36e3c66a3687cbf0080b900"
    "0466f3ab6689c366c1e8086631d266f7366c7c66c1ea0366c1e2036689167c7c8a16847c66c1eb1f"
    "00dabe747cb44330c0cd13668b0e707c67e3ab6649ebf99039300000443322118877665510000800"
    "00800000000000000000000080"
)
# Places of its numbers in the program.
_SPAN, _PAUSE, _FIRST = 0x6C, 0x70, 0x7C
_SEED = 12345
SECTOR = 512


@dataclass(frozen=True)
class Writer:
    """What the guest writes: 8 sectors at a time, somewhere in the first ``span`` bytes of its two disks.

    ``pause``: how long it counts between two writes.
    """

    span: int
    pause: int = 20_000

    def boot_sector(self) -> bytes:
        made = bytearray(PROGRAM.ljust(510, b"\0") + b"\x55\xaa")
        struct.pack_into("<I", made, _SPAN, self.span // SECTOR - 8)
        struct.pack_into("<I", made, _PAUSE, self.pause)
        return bytes(made)

    def writes(self) -> Iterator[tuple[int, int, int]]:
        """Yield the guest's writes in order: the disk (0 or 1), the block of 4 KiB, and its 32-bit value."""
        value = _SEED
        while True:
            value = (value * 1664525 + 1013904223) & 0xFFFFFFFF
            yield value >> 31, (value >> 8) % (self.span // SECTOR - 8) // 8, value


@dataclass
class Guest:
    """A running guest: the QEMU, and the path of a monitor that nobody uses yet."""

    qemu: Qemu
    path: Path

    @property
    def monitor(self) -> str:
        return f"qmp:unix:{self.path}"


@contextmanager
def started(folder: Path, words: list[str], writer: Writer | None) -> Iterator[Guest]:
    """Start a QEMU with two monitors and, if there is a ``writer``, let its guest run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "live"
    more = ["-qmp", f"unix:{path},server=on,wait=off", "-m", "16", "-M", qemu.MACHINE]
    if writer is not None:
        floppy = folder / "floppy.img"
        floppy.write_bytes(writer.boot_sector().ljust(1474560, b"\0"))
        more += ["-drive", f"if=floppy,format=raw,readonly=on,file={floppy}"]
    with ExitStack() as stack:
        running = stack.enter_context(qemu.running(folder, *more, *words))
        if writer is not None:
            running.cmd("cont")
            # Before, the firmware resets the disks, which QEMU 7.2 does not survive while clients of NBD
            # are at work on a disk with an iothread (nbd/server.c: blk_aio_attached).
            wait_until(lambda: _writes(running) > 20)
        yield Guest(running, path)


def _writes(running: Qemu) -> int:
    """Return how often the guest has written."""
    found = running.cmd("query-blockstats")
    return sum(int(each["stats"]["wr_operations"]) for each in found)
