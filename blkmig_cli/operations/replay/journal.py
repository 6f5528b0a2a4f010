"""IMAGE.replay.json: how far a replay onto an image has come, and of which stream.

It stands beside the image before the image's first byte is written, and never says more than is on
stable storage.  A stream is known again by its *trail*: place, device, sector and flags of every
record applied, and the first bytes of its data; an image by samples of what was written to it.
"""

import contextlib
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from typing import Literal, get_args

from blkmig_cli import limits
from blkmig_cli.disks.image import Image
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas.constants import CHUNK_SIZE
from blkmig_cli.system.atomic import sync_folder
from blkmig_cli.system.documents import Entry as Record
from blkmig_cli.system.documents import read_document, write_document
from blkmig_cli.text import encode_name, escape
from blkmig_cli.wire.events import Block, Payload
from blkmig_cli.wire.schema_io import Input

VERSION = 1
#: Being written; all written, but bitmaps may not be; all is done.
State = Literal["writing", "written", "finished"]
_HEAD = 4096  # bytes of each chunk's data that are part of the trail
_SAMPLES = 256
_RECORD = struct.Struct("<QQII")
_RESTART = "check which belong together, or start afresh with --restart"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the file says.

    ``position``: all records that begin before this byte of the stream are on the image;
    ``records`` of them were applied, whose trail has the SHA-256 ``trail``.  ``new``: the image is
    IMAGE.partial until it is written.  ``size``: bytes of the disk, None where it grows.
    """

    state: State
    position: int = 0
    records: int = 0
    trail: str = hashlib.sha256().hexdigest()
    new: bool = False
    size: int | None = None


def journal_path(image: str) -> str:
    """Where the journal of ``image`` is kept."""
    return f"{image}.replay.json"


def read_journal(image: str) -> Entry | None:
    """The journal of ``image``, None where there is none; raises FailureError for a damaged one."""
    path = journal_path(image)
    if not os.path.lexists(path):
        return None
    try:
        return read_document(path, limits.JOURNAL_MAX, "journal of a replay", _parse)
    except FailureError as error:
        raise FailureError(error.message, hint="start afresh with --restart") from error


def write_journal(image: str, entry: Entry) -> None:
    """Replace the journal of ``image``, on stable storage; raises FailureError."""
    document = {
        "version": VERSION,
        "state": entry.state,
        "position": entry.position,
        "records": entry.records,
        "trail": entry.trail,
        "new": entry.new,
        "size": entry.size,
    }
    path = journal_path(image)
    # Only who has locked the image gets here.
    write_document(path, document, f"{path}.new")


def discard_journal(image: str) -> None:
    """Remove the journal of ``image``, if it has one; raises FailureError."""
    path = journal_path(image)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            sync_folder(path)
    except OSError as error:
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error


def _parse(root: Record) -> Entry:
    root.check_version(VERSION)
    states: dict[str, State] = {state: state for state in get_args(State)}
    state = states.get(root.text("state"))
    if state is None:
        raise root.fault("its state is unknown")
    return Entry(
        state,
        root.number("position", limits.DISK_MAX),
        root.number("records", limits.DISK_MAX),
        root.text("trail"),
        root.flag("new"),
        None if root.is_null("size") else root.number("size", limits.DISK_MAX),
    )


class Course:
    """One image's way through a stream: the records applied so far, and what an earlier run applied.

    ``before``: the journal of that run, None if there was none.  ``size``: bytes of the disk, None
    where the image grows.
    """

    def __init__(self, image: str, before: Entry | None, *, new: bool, size: int | None) -> None:
        self._path = image
        self._before = before
        self._new = before.new if before is not None else new
        self._size = size
        self._trail = hashlib.sha256()
        self._records = 0
        self._ahead = before is not None
        self._samples: dict[int, tuple[int, int | None]] = {}
        self.begun = before is not None

    @property
    def resumed_at(self) -> int | None:
        """The byte of the stream up to which an earlier run has applied it; None: there was none."""
        return None if self._before is None else self._before.position

    @property
    def finished(self) -> bool:
        """Has an earlier run done everything?"""
        return self._before is not None and self._before.state == "finished"

    def begin(self) -> None:
        """The image is about to be written for the first time; raises FailureError."""
        if not self.begun:
            write_journal(self._path, Entry("writing", new=self._new, size=self._size))
            self.begun = True

    def follow(self, event: Block, source: Input, image: Image | None) -> bool:
        """Take the next record that is to be applied; True: an earlier run has applied it.

        Raises FailureError where stream or ``image`` turn out not to be those of that run.
        """
        done = self._ahead and event.offset < (self.resumed_at or 0)
        if not done:
            self._compare(image, strict=source.seekable)
        head = 0
        if event.data is not None:
            first = Payload(event.data.offset, min(_HEAD, event.data.length))
            head = zlib.crc32(source.view(first))
        place = _RECORD.pack(event.offset, event.sector, event.flags, head)
        self._trail.update(place + encode_name(event.device) + b"\0")
        self._records += 1
        return done

    def sample(self, event: Block, source: Input, start: int, end: int) -> None:
        """Remember of some records applied earlier what bytes [start, end) of the image must hold."""
        assert self._before is not None
        self.forget(start, end)
        if self._records % -(-self._before.records // _SAMPLES) == 0 and start % CHUNK_SIZE == 0:
            digest = None
            if event.data is not None:
                digest = zlib.crc32(source.view(Payload(event.data.offset, end - start)))
            self._samples[start] = (end, digest)

    def forget(self, start: int, end: int) -> None:
        """A record overwrites bytes [start, end) of the image, at most a chunk."""
        if self._samples:
            for byte in (start, end - 1):
                self._samples.pop(byte - byte % CHUNK_SIZE, None)

    def settle(self, image: Image) -> None:
        """The stream has been applied to its end: was it all of one stream, and onto one image?

        Raises FailureError where not.
        """
        self._compare(image, strict=True)
        self._refuse()

    def _compare(self, image: Image | None, *, strict: bool) -> None:
        """All that an earlier run applied has passed: was it this stream, and onto this image?

        Not ``strict`` (a pipe, where nobody knows which records come again): the earlier run may
        have written more than it noted, so that samples which differ are kept until the end, as the
        records to come may overwrite them.  Raises FailureError.
        """
        before, ahead, self._ahead = self._before, self._ahead, False
        if before is None or not ahead:
            return
        if (self._records, self._trail.hexdigest()) != (before.records, before.trail):
            path = escape(journal_path(self._path))
            raise FailureError(f"{path} is of another stream than this", hint=_RESTART)
        if before.state == "finished" or image is None:
            self._samples = {}  # the image may have been used since
            return
        data = {start for start, (_, digest) in self._samples.items() if digest is not None}
        self._samples = {
            start: (end, digest)
            for start, (end, digest) in self._samples.items()
            if not _holds(image, start, end, digest)
        }
        if strict or (data and data <= set(self._samples)):
            self._refuse()

    def _refuse(self) -> None:
        for start, (end, _) in self._samples.items():
            path = escape(journal_path(self._path))
            message = f"{path} is of another image: bytes {start}-{end} are not what was written"
            raise FailureError(message, hint=_RESTART)

    def reached(self, position: int, state: State = "writing") -> None:
        """All records that begin before byte ``position`` are on the flushed image.

        Nothing is noted while it is not settled that this is the right one.  Raises FailureError.
        """
        if not (self._ahead or self._samples):
            trail = self._trail.hexdigest()
            write_journal(
                self._path, Entry(state, position, self._records, trail, self._new, self._size)
            )


def _holds(image: Image, start: int, end: int, digest: int | None) -> bool:
    """Has ``image`` data of this CRC at bytes [start, end); None: zeros?"""
    if end > image.size:
        return False
    if digest is None:
        return image.is_zero(start, end - start)
    return zlib.crc32(image.read(start, end - start)) == digest
