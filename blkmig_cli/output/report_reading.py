"""Reports read back from the JSON objects that ``documents.report_json`` makes of them.

The result gives the same output as the report did; it has not the ranges that were sent, and of bitmaps
only the dirty ranges that the JSON lists.  An object may come from anywhere, and is checked.
"""

from typing import Any, cast

import numpy as np

from blkmig_cli import limits
from blkmig_cli.checks.catalogue import CHECKS, Finding
from blkmig_cli.checks.report import BitmapVerdict, DeviceVerdict, DirtyRanges, Report
from blkmig_cli.contents.bitmaps import BitmapState
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.contents.state import DiskState
from blkmig_cli.errors import NotAStreamError, StreamError
from blkmig_cli.output.documents import report_json
from blkmig_cli.ranges import ByteRanges
from blkmig_cli.system.documents import Entry
from blkmig_cli.text import escape
from blkmig_cli.wire.identity import parse_identity

_DIALECTS, _CONTAINERS = ("classic", "v1", "v2", "qemu"), ("qemu", "none")
# Numbers of things in a stream, and bytes.
_MOST = limits.DISK_MAX


def kept_report(report: Report) -> dict[str, Any]:
    """Return the object of ``report`` with what its JSON lacks: more of disks, and the ``failure``."""
    failure, document = report.failure, report_json(report)
    disks = zip(document["devices"], report.devices, strict=True)
    return {
        **document,
        "devices": [
            {**device, "intended": verdict.intended, "end-known": verdict.end_known}
            for device, verdict in disks
        ],
        "failure": None
        if failure is None
        else {
            "message": failure.message,
            "offset": failure.offset,
            "section": failure.section,
            "device": failure.device,
            "sector": failure.sector,
            "hint": failure.hint,
            "check": failure.check,
        },
    }


def read_report(root: Entry) -> Report:
    """Return the report of the object ``root``; raises ValueError where it is none."""
    complete = root.value("complete")
    identity = root.value("identity")
    if complete is not None and not isinstance(complete, bool):
        raise root.fault("complete is neither true, false nor null")
    return Report(
        root.text("stream"),
        _word(root, "dialect", _DIALECTS),
        _word(root, "container", _CONTAINERS),
        complete,
        None if identity is None else parse_identity(identity),
        tuple(map(_device, root.entries("devices"))),
        tuple(map(_bitmap, root.entries("bitmaps"))),
        tuple(map(_finding, root.entries("findings"))),
        _failure(root),
    )


def _word(entry: Entry, key: str, words: tuple[str, ...]) -> str | None:
    """Return the string ``key``, one of ``words``, or None."""
    if entry.is_null(key):
        return None
    word = entry.text(key)
    if word not in words:
        raise entry.fault(f"{key} is unknown")
    return word


def _number(entry: Entry, key: str) -> int | None:
    return None if entry.is_null(key) else entry.number(key, _MOST)


def _text(entry: Entry, key: str) -> str | None:
    return None if entry.is_null(key) else entry.text(key)


def _device(entry: Entry) -> DeviceVerdict:
    disk = DiskState(
        entry.text("name"),
        chunks=entry.number("chunks", _MOST),
        zero_chunks=entry.number("zero-chunks", _MOST),
        repeated_chunks=entry.number("repeated-chunks", _MOST),
    )
    rows = _ranges(entry, "missing")
    table = np.array([(start, start + length) for start, length in rows], np.int64)
    bounds = entry.entry("inferred-size")
    size = SizeBounds(bounds.number("min", _MOST), _number(bounds, "max"), "none")
    missing = ByteRanges(table.reshape(-1, 2), 1)
    return DeviceVerdict(disk, missing, size, entry.flag("intended"), entry.flag("end-known"))


def _ranges(entry: Entry, key: str) -> list[tuple[int, int]]:
    """Return the ranges in the list ``key``: start and length."""
    rows = [(start, length) for start, length in entry.rows(key, ("start", "length"), _MOST)]
    if any(start + length > _MOST for start, length in rows):
        raise entry.fault(f"{key} is past any disk's end")
    return rows


def _bitmap(entry: Entry) -> BitmapVerdict:
    state = BitmapState(
        entry.text("device"),
        entry.text("name"),
        _number(entry, "granularity"),
        entry.flag("recording"),
        entry.flag("persistent"),
    )
    candidates = entry.value("candidates")
    if not isinstance(candidates, list) or not all(type(one) is int for one in candidates):
        raise entry.fault("candidates is not a list of numbers")
    complete = None if entry.is_null("complete") else entry.flag("complete")
    dirty = None
    if not entry.is_null("dirty"):
        rows = _ranges(entry, "dirty")
        dirty = DirtyRanges(rows, entry.number("dirty-omitted", _MOST))
    count = _number(entry, "count")
    return BitmapVerdict(state, tuple(candidates), count, complete, 0, listed=dirty)


def _finding(entry: Entry) -> Finding:
    check, severity = entry.text("id"), entry.text("severity")
    if check not in CHECKS or severity not in ("error", "warning", "note"):
        raise entry.fault("an unknown check or severity")
    return Finding(
        check,
        cast(Any, severity),
        escape(entry.text("message")),
        _number(entry, "offset"),
        _text(entry, "device"),
    )


def _failure(root: Entry) -> StreamError | None:
    if root.is_null("failure"):
        return None
    entry = root.entry("failure")
    check = entry.text("check")
    if check not in CHECKS:
        raise entry.fault("an unknown check")
    kind = NotAStreamError if check == NotAStreamError.default_check else StreamError
    hint = _text(entry, "hint")
    return kind(
        escape(entry.text("message")),
        offset=_number(entry, "offset"),
        section=_text(entry, "section"),
        device=_text(entry, "device"),
        sector=_number(entry, "sector"),
        hint=None if hint is None else escape(hint),
        check=check,
    )
