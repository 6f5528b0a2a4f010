"""The JSON documents of the commands: kebab-case keys, exact names (surrogates for invalid bytes)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from blkmig_cli.output.json_writer import Items
from blkmig_cli.schemas.constants import SECTOR_SIZE

if TYPE_CHECKING:
    from blkmig_cli.checks.report import BitmapVerdict, DeviceVerdict, Report
    from blkmig_cli.operations.compare import Comparison
    from blkmig_cli.operations.info import Info
    from blkmig_cli.operations.map import DiskMap, Extent
    from blkmig_cli.operations.replay.request import ReplayResult
    from blkmig_cli.operations.salvage.result import Salvaged
    from blkmig_cli.ranges import IntervalSet

Json = dict[str, Any]
# The most items of a list that is built in memory; a longer one is generated while it is written.
_LIST_MAX = 1 << 12


def report_json(report: "Report") -> Json:
    """Return the object of one stream in ``validate``'s document."""
    return {
        "stream": report.stream,
        "dialect": report.dialect,
        "container": report.container,
        "verdict": report.verdict,
        "valid": report.valid,
        "complete": report.complete,
        "devices": [
            _device(device) | _differing(report, device.disk.name) for device in report.devices
        ],
        "bitmaps": [_bitmap_verdict(bitmap) for bitmap in report.bitmaps],
        "findings": [
            {
                "id": finding.id,
                "severity": finding.severity,
                "offset": finding.offset,
                "device": finding.device,
                "message": finding.message,
            }
            for finding in report.findings
        ],
    }


def _device(verdict: "DeviceVerdict") -> Json:
    disk, size = verdict.disk, verdict.size
    return {
        "name": disk.name,
        "chunks": disk.chunks,
        "zero-chunks": disk.zero_chunks,
        "repeated-chunks": disk.repeated_chunks,
        "missing": _each(_range, verdict.missing),
        "size": size.exact,
        "inferred-size": {"min": size.least, "max": size.most},
    }


def _differing(report: "Report", device: str) -> Json:
    """Return the ranges in which an image differs from the device's disk."""
    ranges = report.differing.get(device)
    if ranges is None:
        return {}
    return {"differing": [{"start": start, "length": length} for start, length in ranges]}


def _bitmap_verdict(verdict: "BitmapVerdict") -> Json:
    bitmap = verdict.bitmap
    return {
        "device": bitmap.device,
        "name": bitmap.name,
        "granularity": bitmap.granularity,
        "candidates": verdict.candidates,
        "recording": bitmap.recording,
        "persistent": bitmap.persistent,
        "count": verdict.count,
        "complete": verdict.complete,
    }


def replay_json(result: "ReplayResult") -> Json:
    """Return the document of ``blkmig replay --output json``."""
    stream = report_json(result.report)
    for device in stream["devices"]:
        device["bytes-written"] = result.written.get(device["name"], 0)
        device["resumed"] = device["name"] in result.resumed
    stream["bitmap-files"] = result.bitmap_files
    stream["partial-images"] = result.partial_images
    return {"version": 1, "streams": [stream]}


def info_json(info: "Info") -> Json:
    """Return the document of ``blkmig info --output json``."""
    accounts, configuration = info.accounts, info.accounts.configuration
    return {
        "version": 1,
        **report_json(info.report),
        "size": info.size,
        "stream-version": accounts.version,
        "machine": None if configuration is None else configuration.machine,
        "capabilities": list(configuration.capabilities or ()) if configuration else [],
        "bytes": accounts.kinds,
        "metadata-per-data": accounts.overhead,
        "sections": [
            {"name": name or None, "parts": section.parts, "bytes": section.size}
            for name, section in accounts.sections.items()
        ],
        "next": [{"why": step.why, "command": step.command} for step in info.steps],
    }


def map_json(stream: str, maps: "list[DiskMap]") -> Json:
    """Return the document of ``blkmig map --output json``; extents have ``qemu-img map``'s keys."""
    return {
        "version": 1,
        "stream": stream,
        "devices": [
            {
                "name": disk.verdict.disk.name,
                "size": disk.verdict.size.exact,
                "inferred-size": {"min": disk.verdict.size.least, "max": disk.verdict.size.most},
                "extents": _each(_extent_json, disk.extents),
                "bitmaps": [_bitmap_json(verdict, disk.size) for verdict in disk.bitmaps],
            }
            for disk in maps
        ],
    }


def _extent_json(extent: "Extent") -> Json:
    found: Json = {
        "start": extent.start,
        "length": extent.end - extent.start,
        "depth": 0,
        "present": extent.kind != "missing",
        "zero": extent.kind == "zero",
        "data": extent.kind == "data",
        "repeated": extent.repeated,
    }
    if extent.offset is not None:
        found["offset"] = extent.offset
    if extent.stride is not None:
        found["stride"] = extent.stride
    return found


def _bitmap_json(verdict: "BitmapVerdict", size: int) -> Json:
    bitmap, dirty = verdict.bitmap, None
    if bitmap.content is not None:
        content = bitmap.content
        dirty = Items(
            lambda: (
                {"start": start, "length": length}
                for part in content.range_parts(size)
                for start, length in part.tolist()
            )
        )
    return {"name": bitmap.name, "granularity": bitmap.granularity, "dirty": dirty}


def comparison_json(comparison: "Comparison") -> Json:
    """Return the document of ``blkmig compare --output json``."""
    return {
        "version": 1,
        "same": comparison.same,
        "sides": [{"name": side.name, "kind": side.kind} for side in comparison.sides],
        "devices": [
            {
                "name": disk.device,
                "sizes": list(disk.sizes),
                "same": disk.is_same(comparison.options),
                "differing": _ranges(disk.differing),
                "missing": [_ranges(ranges) for ranges in disk.missing],
            }
            for disk in comparison.disks
        ],
        "bitmaps": None
        if comparison.bitmaps is None
        else [
            {
                "device": bitmap.device,
                "name": bitmap.name,
                "same": not bitmap.differences,
                "differences": bitmap.differences,
            }
            for bitmap in comparison.bitmaps
        ],
    }


def _each(make: Callable[[Any], Json], values: "Sequence[Any] | IntervalSet") -> list[Json] | Items:
    """Return the results of ``make`` for each of ``values`` as a list, or as ``Items`` if it is long."""
    if len(values) > _LIST_MAX:
        return Items(lambda: map(make, values))
    return [make(value) for value in values]


def _range(pair: tuple[int, int]) -> Json:
    return {"start": pair[0], "length": pair[1]}


def _ranges(ranges: "IntervalSet") -> list[Json] | Items:
    return _each(lambda pair: {"start": pair[0], "length": pair[1] - pair[0]}, ranges)


def salvage_json(found: "Salvaged") -> Json:
    """Return the document of ``blkmig salvage --output json``."""
    return {
        "version": 1,
        "stream": found.stream,
        "intact": found.intact,
        "size": found.size,
        "gaps": [
            {"start": gap.start, "length": gap.end - gap.start, "why": gap.why}
            for gap in found.gaps
        ],
        "may-be-outdated": found.outdated,
        "unconfirmed": [
            {"device": device, "start": start * SECTOR_SIZE, "length": (end - start) * SECTOR_SIZE}
            for device, sectors in found.unconfirmed.items()
            for start, end in sectors
        ],
        "devices": [
            {
                "name": disk.device,
                "size": disk.size,
                "size-known": disk.size_known,
                "missing": [
                    {"start": start, "length": end - start} for start, end in disk.missing()
                ],
                "bitmaps": [bitmap.name for bitmap in disk.bitmaps],
            }
            for disk in found.disks
        ],
        "lost-devices": [{"name": lost.device, "size": lost.size} for lost in found.lost_disks],
        "other-missing": found.other_missing,
        "lost-bitmaps": [
            {"device": lost.device, "name": lost.name, "why": lost.why}
            for lost in found.lost_bitmaps
        ],
        "bytes-written": found.written,
    }
