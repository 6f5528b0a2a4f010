"""QEMU block-migration streams, decoded, checked, made and applied to disk images.

What is named in ``__all__`` is the public library; it is loaded when it is first used, so that
importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from blkmig_cli.api import (
        DiskFile,
        StreamReader,
        events_of,
        open,  # noqa: A004
        open_image,
        write,
    )
    from blkmig_cli.checks.report import Report
    from blkmig_cli.disks.bitmap import DirtyBitmap
    from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
    from blkmig_cli.disks.disk import Disk
    from blkmig_cli.errors import (
        BlkmigError,
        FailureError,
        FindingError,
        IncompleteError,
        StreamError,
        UsageError,
    )

__all__ = [
    "BitmapFile",
    "BlkmigError",
    "DirtyBitmap",
    "Disk",
    "DiskFile",
    "FailureError",
    "FindingError",
    "IncompleteError",
    "Report",
    "StreamError",
    "StreamReader",
    "UsageError",
    "events_of",
    "open",
    "open_image",
    "read_bitmaps",
    "write",
    "write_bitmaps",
]

_HOMES = {
    "api": ("DiskFile", "StreamReader", "events_of", "open", "open_image", "write"),
    "checks.checker": ("Report",),
    "disks.bitmap": ("DirtyBitmap",),
    "disks.bitmap_file": ("BitmapFile", "read_bitmaps", "write_bitmaps"),
    "errors": (
        "BlkmigError",
        "FailureError",
        "FindingError",
        "IncompleteError",
        "StreamError",
        "UsageError",
    ),
    "operations.send.stream": ("Disk",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"blkmig_cli.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
