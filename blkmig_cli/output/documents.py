"""The JSON documents of the commands: kebab-case keys, exact names (surrogates for invalid bytes)."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from blkmig_cli import limits
from blkmig_cli.output.json_writer import Items, Rows
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.wire.identity import identity_document

if TYPE_CHECKING:
    from blkmig_cli.checks.catalogue import Finding
    from blkmig_cli.checks.report import BitmapVerdict, DeviceVerdict, Report
    from blkmig_cli.operations.compare import Comparison
    from blkmig_cli.operations.info import Info
    from blkmig_cli.operations.many.tally import Tally
    from blkmig_cli.operations.map import DiskMap, Extents
    from blkmig_cli.operations.replay.request import ReplayResult
    from blkmig_cli.operations.salvage.result import Salvaged
    from blkmig_cli.ranges import IntervalSet

Json = dict[str, Any]
# The most items of a list that is built in memory; a longer one is generated while it is written.
_LIST_MAX = 1 << 12
_RANGE = ("start", "length")
# Dirty ranges that are written at once.
_ROWS = 1 << 10
_EXTENT = (*_RANGE, "depth", "present", "zero", "data", "repeated")
_PLACE, _NO_PLACE = ("offset", "stride"), (None, None)
_JSON = {False: "false", True: "true"}
# Whether an extent of a kind is present, zero, and data.
_FLAGS = {
    "missing": ("false", "false", "false"),
    "zero": ("true", "true", "false"),
    "data": ("true", "false", "true"),
}


def report_json(report: "Report") -> Json:
    """Return the object of one stream in ``validate``'s document."""
    return {
        "stream": report.stream,
        "dialect": report.dialect,
        "container": report.container,
        "verdict": report.verdict,
        "valid": report.valid,
        "complete": report.complete,
        "identity": None if report.identity is None else identity_document(report.identity),
        "devices": [
            _device(device) | _differing(report, device.disk.name) for device in report.devices
        ],
        "bitmaps": _list(partial(_bitmap_verdicts, report), len(report.bitmaps)),
        "findings": _each(_finding, report.findings),
        **_transfer(report),
    }


def _transfer(report: "Report") -> Json:
    """Return what was moved of a stream at a URL."""
    found = report.transfer
    if found is None:
        return {}
    return {"transfer": {"moved": found.moved, "requests": found.requests, "size": found.size}}


def without_base_json(tally: "Tally") -> list[Json]:
    """Return the increments in a catalogue that lack their base, in ``validate``'s document."""
    return [
        {"stream": report.stream, "findings": _each(_finding, report.findings)}
        for report in tally.without_base
    ]


def _finding(finding: "Finding") -> Json:
    return {
        "id": finding.id,
        "severity": finding.severity,
        "offset": finding.offset,
        "device": finding.device,
        "message": finding.message,
    }


def _device(verdict: "DeviceVerdict") -> Json:
    disk, size = verdict.disk, verdict.size
    return {
        "name": disk.name,
        "chunks": disk.chunks,
        "zero-chunks": disk.zero_chunks,
        "repeated-chunks": disk.repeated_chunks,
        "missing": _lengths(verdict.missing),
        "size": size.exact,
        "inferred-size": {"min": size.least, "max": size.most},
    }


def _differing(report: "Report", device: str) -> Json:
    """Return the ranges in which an image differs from the device's disk."""
    ranges = report.differing.get(device)
    if ranges is None:
        return {}
    return {"differing": _lengths(ranges)}


def _bitmap_verdicts(report: "Report") -> Iterator[Json]:
    """Yield the bitmaps of a report; the first ones with dirty ranges, as far as there is room."""
    left = limits.DIRTY_RANGES_MAX
    for number, verdict in enumerate(report.bitmaps):
        dirty = verdict.dirty_ranges(left) if number < limits.SHOWN_MAX else None
        left -= 0 if dirty is None else len(dirty.ranges)
        yield _bitmap_verdict(verdict) | {
            "dirty": None if dirty is None else list(map(_range, dirty.ranges)),
            "dirty-omitted": None if dirty is None else dirty.omitted,
        }


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
        device["already-applied"] = device["name"] in result.applied
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
                "extents": Rows(partial(_extent_rows, disk.extents)),
                "bitmaps": [_bitmap_json(verdict, disk.size) for verdict in disk.bitmaps],
            }
            for disk in maps
        ],
    }


def _extent_rows(extents: "Extents") -> Iterator[tuple[tuple[str, ...], tuple[Any, ...]]]:
    """Yield extents as :class:`Rows` has them, with offset and stride where they have any."""
    for extent in extents:
        start, kind, place = extent.start, extent.kind, (extent.offset, extent.stride)
        row = (start, extent.end - start, 0, *_FLAGS[kind], _JSON[extent.repeated])
        if place == _NO_PLACE:
            yield _EXTENT, row
        else:
            known = tuple(number for number in place if number is not None)
            yield _EXTENT + _PLACE[: len(known)], row + known


def _bitmap_json(verdict: "BitmapVerdict", size: int) -> Json:
    bitmap, dirty = verdict.bitmap, None
    if bitmap.content is not None:
        content = bitmap.content
        dirty = Rows(
            lambda: (
                (_RANGE, part[at : at + _ROWS].reshape(-1).tolist())
                for part in content.range_parts(size)
                for at in range(0, len(part), _ROWS)
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


def _each(make: Callable[[Any], Json], values: Sequence[Any]) -> list[Json] | Items:
    """Return the results of ``make`` for each of ``values`` as :func:`_list`."""
    return _list(lambda: map(make, values), len(values))


def _list(make: Callable[[], Iterator[Json]], length: int) -> list[Json] | Items:
    """Return the ``length`` objects of ``make`` as a list, or as ``Items`` if it is long."""
    return Items(make) if length > _LIST_MAX else list(make())


def _lengths(ranges: Sequence[tuple[int, int]]) -> list[Json] | Items:
    """Return ranges (start, length) in bytes."""
    if len(ranges) > _LIST_MAX:
        return Rows(lambda: ((_RANGE, pair) for pair in ranges))
    return list(map(_range, ranges))


def _range(pair: tuple[int, int]) -> Json:
    """Return a range (start, length) in bytes."""
    return dict(zip(_RANGE, pair, strict=True))


def _ranges(ranges: "IntervalSet") -> Rows:
    """Return ranges (start, end) in bytes."""
    return Rows(lambda: ((_RANGE, (start, end - start)) for start, end in ranges))


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
