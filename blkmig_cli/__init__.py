"""Decode, check, write and apply QEMU block-migration streams.

The names in ``__all__`` are the public library; each is loaded when it is first used, so that importing
the package is fast.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from blkmig_cli.api import (
        DiskFile,
        StreamReader,
        convert,
        events_of,
        fold,
        live,
        open,  # noqa: A004
        open_image,
        replay,
        resume_token,
        send,
        validate,
        write,
    )
    from blkmig_cli.checks.manifest import Manifest, read_manifest
    from blkmig_cli.checks.report import Report
    from blkmig_cli.disks.bitmap import DirtyBitmap
    from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
    from blkmig_cli.disks.disk import Disk
    from blkmig_cli.errors import (
        BlkmigError,
        FailureError,
        IncompleteError,
        StreamError,
        UsageError,
    )
    from blkmig_cli.operations.convert.convert import ConvertOptions, ConvertResult
    from blkmig_cli.operations.live.request import (
        LiveReport,
        LiveRequest,
        PassesOptions,
        SnapshotOptions,
    )
    from blkmig_cli.operations.replay.request import ReplayRequest, ReplayResult
    from blkmig_cli.operations.send.changes import SendChanges
    from blkmig_cli.operations.send.identity import SendIdentity
    from blkmig_cli.operations.send.send import SendBitmaps, SendResult
    from blkmig_cli.operations.send.stream import SendOptions
    from blkmig_cli.operations.validate import ValidateOptions
    from blkmig_cli.wire import events
    from blkmig_cli.wire.hints import Hints
    from blkmig_cli.wire.runs import columns as runs

__all__ = [
    "BitmapFile",
    "BlkmigError",
    "ConvertOptions",
    "ConvertResult",
    "DirtyBitmap",
    "Disk",
    "DiskFile",
    "FailureError",
    "Hints",
    "IncompleteError",
    "LiveReport",
    "LiveRequest",
    "Manifest",
    "PassesOptions",
    "ReplayRequest",
    "ReplayResult",
    "Report",
    "SendBitmaps",
    "SendChanges",
    "SendIdentity",
    "SendOptions",
    "SendResult",
    "SnapshotOptions",
    "StreamError",
    "StreamReader",
    "UsageError",
    "ValidateOptions",
    "convert",
    "events",
    "events_of",
    "fold",
    "live",
    "open",
    "open_image",
    "read_bitmaps",
    "read_manifest",
    "replay",
    "resume_token",
    "runs",
    "send",
    "validate",
    "write",
    "write_bitmaps",
]

_HOMES = {
    "api": (
        "DiskFile",
        "StreamReader",
        "convert",
        "events_of",
        "fold",
        "live",
        "open",
        "open_image",
        "replay",
        "resume_token",
        "send",
        "validate",
        "write",
    ),
    "checks.manifest": ("Manifest", "read_manifest"),
    "checks.report": ("Report",),
    "disks.bitmap": ("DirtyBitmap",),
    "disks.bitmap_file": ("BitmapFile", "read_bitmaps", "write_bitmaps"),
    "disks.disk": ("Disk",),
    "errors": ("BlkmigError", "FailureError", "IncompleteError", "StreamError", "UsageError"),
    "operations.convert.convert": ("ConvertOptions", "ConvertResult"),
    "operations.live.request": (
        "LiveReport",
        "LiveRequest",
        "PassesOptions",
        "SnapshotOptions",
    ),
    "operations.replay.request": ("ReplayRequest", "ReplayResult"),
    "operations.send.changes": ("SendChanges",),
    "operations.send.identity": ("SendIdentity",),
    "operations.send.send": ("SendBitmaps", "SendResult"),
    "operations.send.stream": ("SendOptions",),
    "operations.validate": ("ValidateOptions",),
    "wire.hints": ("Hints",),
}
_MODULES = {"events": "wire.events", "runs": "wire.runs.columns"}


def __getattr__(name: str) -> _Any:
    if name in _MODULES:
        return _import_module(f"blkmig_cli.{_MODULES[name]}")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(_import_module(f"blkmig_cli.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
