"""IMAGE.blkmig.json: the stream whose disk an image holds, in the folder of the image.

It is removed before the image is written, and written when the image is complete, on stable storage.
Size and modification time of the image's file show whether another program has written it since.
"""

import os
import time
from typing import Any

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.neighbours import Neighbours, exists, remove
from blkmig_cli.errors import FailureError, failing
from blkmig_cli.system.atomic import sync_folder
from blkmig_cli.system.documents import Entry, encoded, read_document, write_pieces
from blkmig_cli.text import quote
from blkmig_cli.wire.identity import is_id

VERSION = 1
# Seconds: longer than the step of the clock by which the system dates changes (Linux: a tick, up to 10 ms),
# and between two looks at that clock.
_TICK, _LOOK = 0.02, 0.001


@dataclass(frozen=True, slots=True)
class Holding:
    """The disk of ``device`` in the stream with this ``id``."""

    id: str
    device: str


@dataclass(frozen=True, slots=True)
class Record:
    """What an image holds; ``size`` in bytes and modification time in ns of the image's file."""

    holding: Holding
    size: int
    mtime: int


def read_record(neighbours: Neighbours) -> Record | None:
    """Return the record of an image, None where there is none.

    Raises FailureError where it is damaged.
    """
    path = neighbours.identity
    if path is None or not exists(path):
        return None
    try:
        return read_document(path, limits.RECORD_MAX, "record of an image", _parse)
    except FailureError as error:
        raise FailureError(error.message, hint="remove it") from error


def fits(record: Record, image: str) -> bool:
    """Return whether ``image`` was not written since its record was; raises FailureError."""
    with failing(image):
        found = os.stat(image)
    return (found.st_size, found.st_mtime_ns) == (record.size, record.mtime)


def write_record(neighbours: Neighbours, holding: Holding) -> None:
    """Record what the image, on stable storage, holds.

    Nothing is recorded of block devices and NBD exports.  Raises FailureError.
    """
    path, temporary = neighbours.identity, neighbours.temporary_identity
    if path is None or temporary is None:
        return
    with failing(neighbours.image):
        found = os.stat(neighbours.image)
        _wait_for_a_tick(neighbours.image, found)
    document: dict[str, Any] = {
        "version": VERSION,
        "id": holding.id,
        "device": holding.device,
        "size": found.st_size,
        "mtime-ns": found.st_mtime_ns,
    }
    write_pieces(path, [encoded(document)], temporary, neighbours.image)


def _wait_for_a_tick(image: str, found: os.stat_result) -> None:
    """Wait until a write to ``image`` would get another modification time than that in ``found``.

    Where the clock of its file system cannot be seen, or is wrong, that is after ``_TICK`` seconds.
    """
    folder = os.path.dirname(image) or "."
    visible = os.stat(folder).st_dev == found.st_dev
    end = time.monotonic() + min(_TICK - (time.time() - found.st_mtime), _TICK)
    while time.monotonic() < end:
        if visible and _time_in(folder) > found.st_mtime_ns:
            break
        time.sleep(_LOOK)


def _time_in(folder: str) -> int:
    """Return the time by the clock of a file system, in ns: that of a new file; 0 where it has none."""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system without unnamed files
        return 0
    try:
        return os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def discard_record(neighbours: Neighbours) -> None:
    """Remove the record of an image, if it has one, on stable storage; raises FailureError."""
    path = neighbours.identity
    if path is not None and remove(path):
        with failing(path):
            sync_folder(path)


def _parse(root: Entry) -> Record:
    root.check_version(VERSION)
    number = root.text("id")
    if not is_id(number):
        raise root.fault(f"{quote(number)} is not a UUID")
    most = limits.DISK_MAX
    size, mtime = root.number("size", most), root.number("mtime-ns", most)
    return Record(Holding(number, root.text("device")), size, mtime)
