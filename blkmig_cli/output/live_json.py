"""The JSON documents of ``live``."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from blkmig_cli.operations.live.request import SnapshotReport

if TYPE_CHECKING:
    from blkmig_cli.operations.live.disks import QemuDisk
    from blkmig_cli.operations.live.remnants import CleanedUp
    from blkmig_cli.operations.live.request import LiveReport, PassesReport

Json = dict[str, Any]


def report_json(report: "LiveReport") -> Json:
    """Return the document of a capture; times are in milliseconds, sizes in bytes."""
    return {
        "version": 1,
        "mode": "snapshot" if isinstance(report.mode, SnapshotReport) else "passes",
        "devices": [{"name": name, "size": size} for name, size in report.sizes.items()],
        "bitmaps": [{"device": device, "name": name} for device, name in report.bitmaps],
        "consistency": report.consistency,
        **_mode_json(report.mode),
        "pause": _milliseconds(report.pause),
        "write-latency": _milliseconds(report.latency),
        "bytes-written": report.written,
    }


def _mode_json(mode: "PassesReport | SnapshotReport") -> Json:
    if isinstance(mode, SnapshotReport):
        return {"scratch-bytes": mode.scratch}
    return {
        "passes": [
            {
                "kind": done.kind,
                "bytes": done.size,
                "bytes-read": done.read,
                "milliseconds": _milliseconds(done.seconds),
                "bytes-per-second": None if done.rate is None else round(done.rate),
                "bytes-left": done.left,
            }
            for done in mode.passes
        ],
        "times-sent": round(mode.times_sent, 3),
        "converged": mode.converged,
        "predicted-pause": _milliseconds(mode.predicted),
        "left-paused": mode.left_paused,
    }


def disks_json(disks: Iterable["QemuDisk"]) -> Json:
    """Return the document of ``--list``."""
    return {
        "version": 1,
        "disks": [
            {
                "device": disk.device,
                "drive": disk.drive or None,
                "qdev": disk.qdev or None,
                "node": disk.node or None,
                "root": disk.root or None,
                "format": disk.image_format or None,
                "size": disk.size,
                "captured": disk.reason is None and disk.obstacle is None,
                "possible": disk.obstacle is None,
                "reason": disk.obstacle or disk.reason,
                "bitmaps": [
                    {
                        "name": bitmap.name,
                        "node": bitmap.node,
                        "granularity": bitmap.granularity,
                        "count": bitmap.count,
                        "recording": bitmap.recording,
                        "persistent": bitmap.persistent,
                        "busy": bitmap.busy,
                        "inconsistent": bitmap.inconsistent,
                    }
                    for bitmap in disk.bitmaps
                ],
            }
            for disk in disks
        ],
    }


def cleaned_up_json(done: "CleanedUp") -> Json:
    """Return the document of ``--clean-up``."""
    return {
        "version": 1,
        "exports": list(done.exports),
        "bitmaps": list(done.bitmaps),
        "nodes": list(done.nodes),
        "server": done.server,
        "at-work": list(done.work),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
