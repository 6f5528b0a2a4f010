"""Formats of disk images: their names, the suffixes of their files, and their first bytes.

A guest can write any bytes to its raw disk, so a format is never derived from the content alone: a raw
disk with the header of a qcow2 image would open the files that the header names.
"""

import os
from collections.abc import Sequence

from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.text import escape, quote

RAW = "raw"
#: Formats that can be read, by QEMU's names, except raw.  Their files are opened by QEMU's block layer.
OTHERS = (
    "bochs", "cloop", "dmg", "parallels", "qcow", "qcow2", "qed", "vdi", "vhdx", "vmdk", "vpc",
)  # fmt: skip
#: Formats that can be created, except raw.
CREATED = ("qcow", "qcow2", "qed", "vdi", "vhdx", "vmdk", "vpc")
#: Bytes at the start of an image that are examined.
HEAD = 512
# First bytes of images, with their formats (luks cannot be opened).
_MAGICS = {
    b"QFI\xfb\0\0\0\1": "qcow",
    b"QFI\xfb": "qcow2",
    b"QED\0": "qed",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vpc",
    b"<<< ": "vdi",
    b"WithoutFreeSpace": "parallels",
    b"WithouFreSpacExt": "parallels",
    b"LUKS\xba\xbe": "luks",
}
# Formats by the suffix of a file's name.
_SUFFIXES = {
    ".qcow2": "qcow2", ".qcow": "qcow", ".vmdk": "vmdk", ".vdi": "vdi", ".vhdx": "vhdx",
    ".raw": RAW, ".img": RAW,
}  # fmt: skip


def other_format(head: bytes) -> str | None:
    """Return the format of an image that begins with ``head``.

    None if no known magic matches, so that the image may be raw.
    """
    return next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)


def check_format(name: str) -> str:
    """Return ``name``, a format that can be read; raises UsageError for any other."""
    if name != RAW and name not in OTHERS:
        known = ", ".join((RAW, *OTHERS))
        raise UsageError(f"-f: unknown format {quote(name)}", hint=f"known are {known}")
    return name


def format_of(path: str, head: bytes, stated: str | None) -> str:
    """Return the format of the image at ``path``, which begins with ``head`` (``HEAD`` bytes).

    ``stated``: that of -f, which is not questioned.  Without it, the suffix and the content must agree;
    a file of another suffix is raw.  Raises FailureError where they do not agree, or where such a file
    looks like another format.
    """
    if stated is not None:
        return stated
    found = other_format(head)
    suffix = suffix_format(path)
    expected = RAW if suffix is None else suffix
    if (found or RAW) == expected:
        return expected
    looks = f"looks like {found}" if found else f"does not look like {expected}"
    hint = f"use -f {expected if found is None else found} if it is, or -f raw if it is raw"
    if found is not None and found not in OTHERS:
        looks, hint = f"looks like {found}, which is not supported", "use -f raw if it is raw"
    raise FailureError(f"{escape(path)} {looks}", hint=hint)


def new_format(path: str, stated: str | None) -> str:
    """Return the format in which an image is created at ``path``: ``stated``, or by its suffix, or raw.

    Raises FailureError where this format cannot be created.
    """
    found = stated or suffix_format(path) or RAW
    if found != RAW and found not in CREATED:
        raise FailureError(f"{escape(path)}: images of format {found} cannot be created")
    return found


def keeps_bitmaps(image_format: str, options: Sequence[str] = ()) -> bool:
    """Return whether an image that is created with ``options`` (-o) has a place for bitmaps.

    Of qcow2, version 2 ("compat=0.10") has none.
    """
    parts = {part.strip() for text in options for part in text.split(",")}
    return image_format == "qcow2" and not parts & {"compat=0.10", "compat=v2"}


def suffix_format(path: str) -> str | None:
    """Return the format that the suffix of a file's name stands for, None if for none."""
    return _SUFFIXES.get(os.path.splitext(path)[1].lower())
