"""Disk images behind one small protocol."""

from blkmig_cli.images.base import Image
from blkmig_cli.images.raw import RawImage, create_raw, open_raw, other_format

__all__ = ["Image", "RawImage", "create_raw", "open_raw", "other_format"]
