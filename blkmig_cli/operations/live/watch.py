"""Watching what a capture does to the guest: how long its writes take, and how the scratch grows."""

import time
from collections.abc import Callable, Iterable

from blkmig_cli.operations.live.disks import QemuDisk
from blkmig_cli.system.qmp import Monitor
from blkmig_cli.text import human_size

# Seconds between two measurements.
_INTERVAL = 1.0
# By drive and device: the number of writes, and the nanoseconds that they took.
_Counts = dict[tuple[str, str], tuple[int, int]]


class Watch:
    """Measures the writes to ``disks``, and the scratch, if ``size`` is set, which returns its bytes.

    ``note`` is called with a text about each measurement.  ``latency``: the highest mean of an interval so
    far, in seconds, of the disk that was slowest; ``latest``: that of the last interval; None without writes.
    """

    def __init__(
        self,
        monitor: Monitor,
        disks: Iterable[QemuDisk],
        note: Callable[[str], None],
    ) -> None:
        self._monitor = monitor
        self._disks = {(disk.drive, disk.qdev) for disk in disks}
        self._note = note
        self.size: Callable[[], int] | None = None
        self.latency: float | None = None
        self.latest: float | None = None
        self._counts = self._read()
        self._next = time.monotonic() + _INTERVAL

    def look(self) -> bool:
        """Measure if it is time; return whether it was.  Raises FailureError."""
        if time.monotonic() < self._next:
            return False
        self.measure()
        return True

    def measure(self) -> None:
        """Measure since the last time; raises FailureError."""
        self._next = time.monotonic() + _INTERVAL
        before, self._counts = self._counts, self._read()
        means = [
            (nanoseconds - before[disk][1]) / (writes - before[disk][0]) / 1e9
            for disk, (writes, nanoseconds) in self._counts.items()
            if disk in before and writes > before[disk][0]
        ]
        self.latest = max(means, default=None)
        if self.latest is not None:
            self.latency = max(self.latest, self.latency or 0)
        shown = [] if self.latest is None else [f"writes take {self.latest * 1000:.1f} ms"]
        if self.size is not None:
            shown.append(f"scratch {human_size(self.size())}")
        self._note(", ".join(shown))

    def _read(self) -> _Counts:
        found: _Counts = {}
        for each in self._monitor.execute("query-blockstats"):
            disk, stats = (each.get("device", ""), each.get("qdev", "")), each["stats"]
            if disk in self._disks:
                found[disk] = stats["wr_operations"], stats["wr_total_time_ns"]
        return found
