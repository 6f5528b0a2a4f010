"""Disk images behind one small protocol."""

from blkmig_cli.images.base import Image, Readable
from blkmig_cli.images.partial import (
    NewImage,
    create_raw,
    half_done,
    partial_path,
    reopen_raw,
)
from blkmig_cli.images.raw import RawImage, open_raw, other_format

__all__ = [
    "Image",
    "NewImage",
    "RawImage",
    "Readable",
    "create_raw",
    "half_done",
    "open_raw",
    "other_format",
    "partial_path",
    "reopen_raw",
]
