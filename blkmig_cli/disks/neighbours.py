"""The files of blkmig in an image's folder, or for a block device or NBD export in the state folder.

Anything else that has one of their names (a symbolic link, a FIFO, a device, a folder, a file with
other hard links) is refused: it is never followed, opened or removed.
"""

import os
from collections.abc import Iterator

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks import block_device
from blkmig_cli.errors import FailureError, failing
from blkmig_cli.system.atomic import check_neighbour
from blkmig_cli.system.nbd_uri import is_nbd, parse_nbd_uri
from blkmig_cli.system.state_folder import state_path
from blkmig_cli.text import escape

_JOURNAL = ".replay.json"
_TEMPORARY = ".new"
_PARTIAL = ".partial"
_IDENTITY = ".blkmig.json"
_BITMAPS = ".bitmaps.json"
#: The suffixes of these files, appended to the name of the image.
SUFFIXES = (
    _JOURNAL,
    _JOURNAL + _TEMPORARY,
    _PARTIAL,
    _IDENTITY,
    _IDENTITY + _TEMPORARY,
    _BITMAPS,
)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Paths of the files that belong to the image at ``image``.

    ``journal``: the progress of a replay.  ``partial``: the new image until it is complete.
    ``bitmaps``: its dirty bitmaps.  ``identity``: the id of the stream whose disk it holds.  A
    block device or NBD export has no place for the last three (None); its journal is in the state folder.
    """

    image: str
    journal: str
    partial: str | None
    bitmaps: str | None
    identity: str | None

    @property
    def temporary_journal(self) -> str:
        """The path at which the journal is written before it replaces the previous one."""
        return self.journal + _TEMPORARY

    @property
    def temporary_identity(self) -> str | None:
        """The path at which the record of the stream is written before it gets its name."""
        return None if self.identity is None else self.identity + _TEMPORARY

    def __iter__(self) -> Iterator[str]:
        """Return all paths except that of the image."""
        paths = (
            self.journal,
            self.temporary_journal,
            self.partial,
            self.bitmaps,
            self.identity,
            self.temporary_identity,
        )
        return (path for path in paths if path is not None)

    def check(self) -> None:
        """Raise FailureError where anything other than blkmig's own file is at one of the paths.

        That may be the image itself, to which its name is a symbolic link.
        """
        for path in self:
            if exists(path) and os.path.exists(self.image) and os.path.samefile(path, self.image):
                raise FailureError(f"{escape(self.image)} and {escape(path)} are the same file")


def neighbours_of(image: str) -> Neighbours:
    """Return the neighbours of the image at ``image``, a path or an NBD URI; nothing is created.

    Raises FailureError where a block device cannot be identified, UsageError for an invalid URI.
    """
    identity = None
    if is_nbd(image):
        identity = parse_nbd_uri(image).identity
    else:
        number = block_device.number_of(image)
        if number is not None:
            identity = block_device.identity(number)
    if identity is not None:
        return Neighbours(image, state_path(identity) + _JOURNAL, None, None, None)
    return Neighbours(
        image, image + _JOURNAL, image + _PARTIAL, bitmaps_path(image), image + _IDENTITY
    )


def bitmaps_path(image: str) -> str:
    """Return the path of the file with the bitmaps of the image file at ``image``."""
    return image + _BITMAPS


def device_kind(image: str) -> str:
    """Return what an image that is not a file is, for a message."""
    return "an NBD export" if is_nbd(image) else "a block device"


def exists(path: str) -> bool:
    """Return whether there is a file of blkmig at ``path``.

    Raises FailureError where there is anything else, or the path cannot be examined.
    """
    return check_neighbour(path) is not None


def remove(path: str | None) -> bool:
    """Remove blkmig's file at ``path``, if it exists; return whether it did.

    Raises FailureError where there is anything else, or it cannot be removed.
    """
    if path is None or not exists(path):
        return False
    with failing(path):
        os.unlink(path)
    return True
