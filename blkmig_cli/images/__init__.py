"""Disk images behind one small protocol."""

from blkmig_cli.images.base import Image
from blkmig_cli.images.raw import (
    RawImage,
    create_raw,
    half_done,
    open_raw,
    other_format,
    partial_path,
)

__all__ = [
    "Image",
    "RawImage",
    "create_raw",
    "half_done",
    "open_raw",
    "other_format",
    "partial_path",
]
