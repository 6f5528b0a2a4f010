"""The records that a replay applies to one image, counted and digested in the order of the stream.

The digest identifies the stream when a replay is resumed: it is the SHA-256 of place, device, sector
and flags of every record, and of a CRC of the first bytes of its data.  The image is identified by
samples of what an earlier run wrote to it.
"""

import hashlib
import struct
import zlib

import numpy as np

from blkmig_cli.disks.image import Image
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay.journal import Entry, State, Stop
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.text import encode_name, escape
from blkmig_cli.wire.events import Block, Payload
from blkmig_cli.wire.runs.columns import Numbers
from blkmig_cli.wire.schema_io import Input

# Bytes of each record's data that are part of the digest.
_HEAD = 4096
# The number of records with data that are compared with the image, and of those with zeros.
_SAMPLES = 128
_RECORD = struct.Struct("<QQII")
_RECORDS = np.dtype([("offset", "<u8"), ("sector", "<u8"), ("flags", "<u4"), ("head", "<u4")])
_RESTART = "check which belong together, or use --restart to start over"


class History:
    """The records applied to an image; those that an earlier run applied are taken first, again.

    ``journal`` is the path of the journal.  ``before``: its entry; None without an earlier run.
    ``new``: see ``Entry``.  ``later_overlaps``: byte ranges of the image in which a record may partly
    overlap earlier ones, if these are known (a stream that was read before).  ``thorough``: all
    records are compared with the image, not only samples.
    """

    def __init__(
        self,
        journal: str,
        before: Entry | None = None,
        *,
        new: bool = False,
        later_overlaps: IntervalSet | None = None,
        thorough: bool = False,
    ) -> None:
        self._journal = journal
        self._before = before
        self._new = before.new if before is not None else new
        self._later_overlaps = later_overlaps
        self._digest = hashlib.sha256()
        self._data = self._zeros = 0
        self._behind = before is None  # after all that the earlier run applied
        self._differing = IntervalSet()
        self._compared = self._differed = 0
        self._data_step = self._zeros_step = 1
        if before is not None and not thorough:
            zeros = before.records - before.data_records
            self._data_step = max(-(-before.data_records // _SAMPLES), 1)
            self._zeros_step = max(-(-zeros // _SAMPLES), 1)

    @property
    def resumed_at(self) -> int | None:
        """The offset in the stream up to which an earlier run applied it; None without one."""
        return None if self._before is None else self._before.position

    @property
    def differing(self) -> bool:
        """Whether a sample differs that a later record may overwrite."""
        return bool(self._differing)

    @property
    def finished(self) -> bool:
        """Whether an earlier run finished everything."""
        return self._before is not None and self._before.state == "finished"

    def add(self, event: Block, source: Input) -> bool:
        """Take the next record; return whether the earlier run has applied it.

        Raises FailureError where the stream or the image is found not to be that of that run.
        """
        applied = self._applied(event.offset)
        head = 0
        if event.data is not None:
            first = Payload(event.data.offset, min(_HEAD, event.data.length))
            head = zlib.crc32(source.view(first))
            self._data += 1
        else:
            self._zeros += 1
        place = _RECORD.pack(event.offset, event.sector, event.flags, head)
        self._digest.update(place + encode_name(event.device) + b"\0")
        return applied

    def add_zeros(self, event: Block, offsets: Numbers, sectors: Numbers) -> int:
        """Take records of zeros like ``event`` at ``offsets`` (ascending) and ``sectors``.

        Returns how many of the first ones the earlier run has applied.  Raises as :meth:`add`.
        """
        applied = int(np.searchsorted(offsets, self.resumed_at or 0))
        if applied:
            self._digest_rows(event, offsets[:applied], sectors[:applied])
        if applied < len(offsets):
            self._applied(int(offsets[applied]))
            self._digest_rows(event, offsets[applied:], sectors[applied:])
        return applied

    def _digest_rows(self, event: Block, offsets: Numbers, sectors: Numbers) -> None:
        name = encode_name(event.device) + b"\0"
        rows = np.empty((len(offsets), _RECORDS.itemsize + len(name)), np.uint8)
        places = np.zeros(len(offsets), _RECORDS)
        places["offset"], places["sector"], places["flags"] = offsets, sectors, event.flags
        rows[:, : _RECORDS.itemsize] = places.view(np.uint8).reshape(len(offsets), -1)
        rows[:, _RECORDS.itemsize :] = np.frombuffer(name, np.uint8)
        self._digest.update(rows.tobytes())
        self._zeros += len(offsets)

    def compare(self, event: Block, source: Input, image: Image, start: int, end: int) -> None:
        """Compare bytes [start, end) of the image with the record just added, if it is a sample.

        The earlier run has applied it.  Bytes that a later record overlaps are no longer compared.
        """
        self._differing.remove(start, end)
        if event.data is None:
            if (self._zeros - 1) % self._zeros_step == 0:
                self._compare_zeros(image, start, end)
        elif (self._data - 1) % self._data_step == 0:
            self._compared += 1
            data = source.view(Payload(event.data.offset, end - start))
            if end > image.size or image.read(start, end - start) != bytes(data):
                self._differed += 1
                self._differing.add(start, end)

    def compare_zeros(self, image: Image, starts: Numbers, ends: Numbers) -> None:
        """Do as :meth:`compare` for the records of zeros just added, at bytes [starts, ends)."""
        first = self._zeros - len(starts)
        for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            if self._differing:
                self._differing.remove(start, end)
            if (first + row) % self._zeros_step == 0:
                self._compare_zeros(image, start, end)

    def _compare_zeros(self, image: Image, start: int, end: int) -> None:
        if end > image.size or not image.is_zero(start, end - start):
            self._differing.add(start, end)

    def wrote(self, start: int, end: int) -> None:
        """Note that bytes [start, end) of the image are being written, and drop them as samples."""
        if self._differing:
            self._differing.remove(start, end)

    def end(self) -> None:
        """Finish at the end of the stream.

        Raises FailureError where the stream or the image is not that of the earlier run.
        """
        self._pass()
        if self._differing:
            self._refuse_image(next(iter(self._differing)))

    def entry(
        self, state: State, position: int, size: int | None, stop: Stop | None = None
    ) -> Entry | None:
        """Return the journal entry for the state in which all records before ``position`` are applied.

        None while it is not proven that stream and image are those of the earlier run.
        """
        if not self._behind or self._differing or self.finished:
            return None
        records = self._data + self._zeros
        digest = self._digest.hexdigest()
        position = position if records else 0
        return Entry(state, self._new, size, position, records, self._data, digest, stop)

    def _applied(self, offset: int) -> bool:
        """Return whether the earlier run has applied the record at ``offset``."""
        if offset < (self.resumed_at or 0):
            return True
        if self.finished:
            self._refuse_stream()
        self._pass()
        return False

    def _pass(self) -> None:
        """Compare digest and samples after all records that the earlier run applied.

        The earlier run may have written more than it recorded, so that samples may differ that later
        records overwrite.  Where it is unknown which ones these can be (a pipe), they are compared
        with the image only at the stream's end, unless all samples of data differ.
        """
        if self._behind:
            return
        self._behind = True
        before = self._before
        assert before is not None
        records = self._data + self._zeros
        if (records, self._digest.hexdigest()) != (before.records, before.digest):
            self._refuse_stream()
        if self._later_overlaps is None:
            certain = list(self._differing) if 0 < self._compared == self._differed else []
        else:
            later = self._later_overlaps
            certain = [place for place in self._differing if not later.touches(*place)]
        if certain:
            self._refuse_image(certain[0])

    def _refuse_stream(self) -> None:
        message = f"{escape(self._journal)} is of another stream than this"
        raise FailureError(message, hint=_RESTART)

    def _refuse_image(self, place: tuple[int, int]) -> None:
        start, end = place
        message = f"{escape(self._journal)} is of another image"
        if self.finished:
            message = "the image is not as the replay left it"
        raise FailureError(
            f"{message}: bytes {start}-{end} are not what was written", hint=_RESTART
        )
