"""The files that blkmig keeps beside an image, or for a block device in the state folder.

Something else that stands under one of their names (a symbolic link, a FIFO, a device, a folder, a
file with other hard links) is refused: it is never followed, waited for or removed.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from blkmig_cli.disks import block_device
from blkmig_cli.disks.bitmap_file import default_path
from blkmig_cli.errors import FailureError
from blkmig_cli.text import escape

_JOURNAL = ".replay.json"
_TEMPORARY = ".new"
_PARTIAL = ".partial"
_IDENTITY = ".blkmig.json"
#: What the names of these files end with, behind that of the image.
SUFFIXES = (_JOURNAL, _JOURNAL + _TEMPORARY, _PARTIAL, _IDENTITY, default_path(""))

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Paths of the files that belong to the image at ``image``.

    ``journal``: how far a replay has come.  ``partial``: the new image while it is made.
    ``bitmaps``: its dirty bitmaps.  ``identity``: which stream it was made from.  A block device has
    no place for the last three (None); its journal is in the state folder.
    """

    image: str
    journal: str
    partial: str | None
    bitmaps: str | None
    identity: str | None

    @property
    def temporary_journal(self) -> str:
        """Where the journal is written before it replaces the one before."""
        return self.journal + _TEMPORARY

    def __iter__(self) -> Iterator[str]:
        """All paths, but for the image."""
        paths = (self.journal, self.temporary_journal, self.partial, self.bitmaps, self.identity)
        return (path for path in paths if path is not None)

    def check(self) -> None:
        """Raise FailureError where something else than a file of ours stands at one of the paths."""
        for path in self:
            exists(path)


def neighbours_of(image: str) -> Neighbours:
    """Return the neighbours of the image at ``image``, a path; nothing is made.

    Raises FailureError where a block device cannot be identified.
    """
    number = block_device.number_of(image)
    if number is not None:
        journal = block_device.state_path(number) + _JOURNAL
        return Neighbours(image, journal, None, None, None)
    return Neighbours(
        image, image + _JOURNAL, image + _PARTIAL, default_path(image), image + _IDENTITY
    )


def exists(path: str) -> bool:
    """Return whether a file of ours stands at ``path``.

    Raises FailureError where something else does, or the path cannot be looked at.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error
    kind = next((name for test, name in _KINDS if test(found.st_mode)), None)
    if kind is None and found.st_nlink > 1:
        kind = "a file with other hard links"
    if kind is not None:
        raise FailureError(f"{escape(path)} is {kind}", hint="remove or rename it")
    return True


def remove(path: str | None) -> bool:
    """Remove the file of ours at ``path``, if it is there; return whether it was.

    Raises FailureError where something else stands there, or it cannot be removed.
    """
    if path is None or not exists(path):
        return False
    try:
        os.unlink(path)
    except OSError as error:
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error
    return True
