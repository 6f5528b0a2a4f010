"""Watching what a capture does to the guest: how long its writes take, and how the scratch grows."""

import time
from collections.abc import Callable, Iterable

from blkmig_cli import limits
from blkmig_cli.operations.live.disks import QemuDisk
from blkmig_cli.system.qmp import Monitor
from blkmig_cli.text import human_size

# Seconds between two measurements.
_INTERVAL = 1.0
# Intervals in a row in which writes may take too long; the first one may be that of a pause.
_PATIENCE = 3
# By drive and device: the number of writes, and the nanoseconds that they took.
_Counts = dict[tuple[str, str], tuple[int, int]]


class Watch:
    """Measures the writes to ``disks``, and the scratch, if ``size`` is set, which returns its bytes.

    ``note`` is called with a text about each measurement.  ``latency``: the highest mean of an interval so
    far, in seconds, of the disk that was slowest; None without writes.
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
        self._slow = 0  # intervals in a row
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
        latest = max(means, default=None)
        if latest is not None:
            self.latency = max(latest, self.latency or 0)
        is_slow = latest is not None and latest * 1000 > limits.SNAPSHOT_LATENCY_MAX
        self._slow = self._slow + 1 if is_slow else 0
        shown = [] if latest is None else [f"writes take {latest * 1000:.1f} ms"]
        if self.size is not None:
            shown.append(f"scratch {human_size(self.size())}")
        self._note(", ".join(shown))

    @property
    def is_slow(self) -> bool:
        """Whether the writes have taken too long for some time."""
        return self._slow > _PATIENCE

    def _read(self) -> _Counts:
        found: _Counts = {}
        for each in self._monitor.execute("query-blockstats"):
            disk, stats = (each.get("device", ""), each.get("qdev", "")), each["stats"]
            if disk in self._disks:
                found[disk] = stats["wr_operations"], stats["wr_total_time_ns"]
        return found
