"""The journal of an image (IMAGE.replay.json): the progress of a replay, and its stream.

It is written before the first byte of the image, and never claims more than is on stable storage.
"""

import os
import re
from typing import Any, Literal, get_args

from blkmig_cli import limits
from blkmig_cli.checks.catalogue import CHECKS, Finding
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.formats import RAW
from blkmig_cli.disks.neighbours import Neighbours, exists, remove
from blkmig_cli.errors import FailureError, failing
from blkmig_cli.system.atomic import sync_folder
from blkmig_cli.system.documents import Entry as Object
from blkmig_cli.system.documents import read_document, write_document

VERSION = 1
#: ``writing``: the image is being written.  ``incomplete``: the stream ended, but is incomplete or
#: damaged.  ``written``: the image has all its bytes.  ``finished``: it also has its name and bitmaps.
State = Literal["writing", "incomplete", "written", "finished"]
_DIGEST = re.compile(r"[0-9a-f]{64}")
NO_RECORDS = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of b""
_FINDINGS = 8
_MESSAGE = 400
_BITMAPS = 32
_NAME = 255


@dataclass(frozen=True, slots=True)
class Stop:
    """The state of a replay at the end of an incomplete or damaged stream, to accept its image later.

    ``least``, ``most``: bounds of the disk's size; ``end``: where its last chunk ends; in bytes.
    ``damaged``: the stream could not be read to its end.  ``bitmaps``: the names of complete ones,
    which are only in the stream.
    """

    least: int
    most: int | None
    end: int
    damaged: bool
    findings: tuple[Finding, ...]
    bitmaps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """The content of a journal.

    ``position``: all records that begin before this offset in the stream are on the image; ``records``
    is their number, ``data_records`` that of those with data, and ``digest`` their SHA-256 (see
    ``history.py``).  ``new``: the image is IMAGE.partial until it is written.  ``size``: that of the
    disk in bytes, None while unknown; ``assumed``: it is only derived from the end of the last chunk.
    ``stop``: for ``incomplete``, and for an image that was accepted then.  ``image_format``: that of a new
    image.  ``stream``: the id of the stream whose disk the image will hold, None if that is unknown.
    ``device``: the name of the disk; ``received``: so many bytes from its start are on the image, of this
    stream or of earlier ones; ``bitmaps``: the stream has bitmaps of it.
    """

    state: State
    new: bool
    size: int | None
    position: int = 0
    records: int = 0
    data_records: int = 0
    digest: str = NO_RECORDS
    stop: Stop | None = None
    image_format: str = RAW
    stream: str | None = None
    device: str | None = None
    received: int = 0
    bitmaps: bool = False
    assumed: bool = False


def read_journal(neighbours: Neighbours) -> Entry | None:
    """Return the journal of an image, None where there is none.

    Raises FailureError where it is damaged.
    """
    path = neighbours.journal
    if not exists(path):
        return None
    try:
        return read_document(path, limits.JOURNAL_MAX, "journal of a replay", _parse)
    except FailureError as error:
        raise FailureError(error.message, hint="use --restart to start over") from error


def write_journal(neighbours: Neighbours, entry: Entry) -> None:
    """Replace the journal of an image, on stable storage; the image must be locked.

    Raises FailureError.
    """
    path = neighbours.journal
    if neighbours.partial is None:
        folder = os.path.dirname(path)
        with failing(folder):
            os.makedirs(folder, 0o700, exist_ok=True)
    write_document(path, _document(entry), neighbours.temporary_journal)


def discard_journal(neighbours: Neighbours) -> None:
    """Remove the journal of an image, if it has one, on stable storage; raises FailureError."""
    if remove(neighbours.journal):
        with failing(neighbours.journal):
            sync_folder(neighbours.journal)


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "version": VERSION,
        "state": entry.state,
        "new": entry.new,
        "size": entry.size,
        "size-assumed": entry.assumed,
        "position": entry.position,
        "records": entry.records,
        "data-records": entry.data_records,
        "digest": entry.digest,
        "format": entry.image_format,
        "stream": entry.stream,
        "device": entry.device,
        "received": entry.received,
        "has-bitmaps": entry.bitmaps,
    } | ({} if entry.stop is None else _stop_document(entry.stop))


def _stop_document(stop: Stop) -> dict[str, Any]:
    return {
        "least": stop.least,
        "most": stop.most,
        "end": stop.end,
        "damaged": stop.damaged,
        "findings": [
            {"id": found.id, "message": found.message[:_MESSAGE]}
            for found in stop.findings[:_FINDINGS]
        ],
        "bitmaps": [{"name": name[:_NAME]} for name in stop.bitmaps[:_BITMAPS]],
    }


def _parse(root: Object) -> Entry:
    root.check_version(VERSION)
    states: dict[str, State] = {state: state for state in get_args(State)}
    state = states.get(root.text("state"))
    if state is None:
        raise root.fault("unknown state")
    digest = root.text("digest")
    if not _DIGEST.fullmatch(digest):
        raise root.fault("digest is not a SHA-256")
    position = root.number("position", limits.DISK_MAX)
    records = root.number("records", position)
    data_records = root.number("data-records", records)
    if (records == 0) != (position == 0) or (records == 0) != (digest == NO_RECORDS):
        raise root.fault("position, records and digest do not fit together")
    accepted = state != "writing" and root.value("damaged") is not None
    stop = _parse_stop(root) if state == "incomplete" or accepted else None
    size = None if root.is_null("size") else root.number("size", limits.DISK_MAX)
    if size is None and state in ("written", "finished"):
        raise root.fault("no size")
    new, image_format = root.flag("new"), root.text("format", default=RAW)
    stream = None if root.value("stream") is None else root.text("stream")
    device = None if root.value("device") is None else root.text("device")
    # A journal of an earlier version says nothing of it.
    received = 0 if root.value("received") is None else root.number("received", limits.DISK_MAX)
    bitmaps = root.flag("has-bitmaps", default=False)
    assumed = root.flag("size-assumed", default=False)
    return Entry(
        state,
        new,
        size,
        position,
        records,
        data_records,
        digest,
        stop,
        image_format,
        stream,
        device,
        received,
        bitmaps,
        assumed,
    )


def _parse_stop(found: Object) -> Stop:
    findings = []
    for entry in found.entries("findings"):
        check = entry.text("id")
        if check not in CHECKS:
            raise entry.fault("unknown id")
        findings.append(Finding(check, CHECKS[check][0], entry.text("message")))
    return Stop(
        found.number("least", limits.DISK_MAX),
        None if found.is_null("most") else found.number("most", limits.DISK_MAX),
        found.number("end", limits.DISK_MAX),
        found.flag("damaged"),
        tuple(findings),
        tuple(entry.text("name") for entry in found.entries("bitmaps")),
    )
