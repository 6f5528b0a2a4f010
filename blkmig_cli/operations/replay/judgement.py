"""Deciding whether a stream may be applied: its report for a replay, and the sizes of its disks.

A stream in a file is judged before the first write, one from a pipe at its end, by the same rules.
"""

from collections.abc import Iterable, Sequence
from dataclasses import field, replace

from blkmig_cli import limits
from blkmig_cli.checks.acceptance import accepted
from blkmig_cli.checks.catalogue import Finding, Severity, finding_of
from blkmig_cli.checks.checker import Checker
from blkmig_cli.checks.names import Names
from blkmig_cli.checks.report import BitmapVerdict, Report
from blkmig_cli.checks.survey import read_stream
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.record import Holding
from blkmig_cli.errors import BlkmigError, FailureError, StreamError, UndecidableError
from blkmig_cli.operations.replay.base import check_base, grown_since
from blkmig_cli.operations.replay.bitmap_place import BitmapPlace
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.operations.replay.destinations import Destinations
from blkmig_cli.operations.replay.disk_size import Decision, Evidence, decide_size
from blkmig_cli.operations.replay.journal import Stop
from blkmig_cli.operations.replay.request import ReplayRequest
from blkmig_cli.operations.replay.superseded import Superseded
from blkmig_cli.operations.resume_token import Received
from blkmig_cli.progress import Tick
from blkmig_cli.schemas.constants import BLOCK_SECTION, CHUNK_SECTORS, MAGIC, SECTOR_SIZE
from blkmig_cli.text import escape, quote
from blkmig_cli.transport.inputs import FileInput, PipeInput
from blkmig_cli.transport.source import Stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block, Event, Payload
from blkmig_cli.wire.identity import Identity, may_state
from blkmig_cli.wire.runs.columns import Consumer, Run, is_near
from blkmig_cli.wire.schema_io import Input
from blkmig_cli.wire.several import decoder_of

# The first bytes of a stream in QEMU's container.
_MAGIC = MAGIC.to_bytes(4, "big")
#: Errors that do not prevent writing the disks; the exit status shows that a bitmap was not written.
_LEFT_OUT = ("bitmap-open",)


class Reading:
    """A stream that is read for a replay: its state, and which records are superseded.

    ``continued``: what the images have received before, of which the stream is the rest.
    """

    def __init__(
        self,
        stream: Stream,
        request: ReplayRequest,
        destinations: Destinations,
        continued: Sequence[Received] = (),
    ) -> None:
        self.stream = stream
        self.superseded = Superseded()
        self._request = request
        # Until an increment has been read to its end, it is not known whether its disk has grown.
        self._hints = destinations.hints(existing=not _may_have_identity(stream.input))
        self._checker = Checker(self._hints, incremental=request.incremental)
        for received in continued:
            self._checker.state.add_received(received.device, received.length)
        self._decoder = self.from_start()

    def from_start(self) -> Decoder:
        """Return a decoder of the stream from its start."""
        self.stream.input.offset = 0
        return decoder_of(
            self.stream.input,
            self._request.number,
            dialect=self._request.dialect,
            container=self._request.container,
            hints=self._hints,
        )

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event; raises UndecidableError as :meth:`check_merged`."""
        if self.stream.seekable and isinstance(event, Block):
            self.superseded.feed(event, self._checker.state.covered(event.device))
        self._checker.feed(event, source)
        if self._checker.defects.merged:
            self.check_merged()

    def feed_run(self, run: Run, source: Input) -> None:
        """Take a run of events; raises as :meth:`feed`."""
        if not is_near(run.columns):
            for event in run:
                self.feed(event, source)
            return
        if self.stream.seekable:
            self.superseded.feed_run(run, self._checker.state.covered)
        self._checker.feed_run(run, source)
        self.check_merged()

    def to_end(self, tick: Tick, *before: Consumer) -> BlkmigError | None:
        """Read the stream, and pass its events to ``before`` first.

        Returns the error that ended the reading too early, if any.  Raises the errors of consumers.
        """
        return read_stream(self._decoder, tick, *before, self)

    # What has been read so far.

    @property
    def position(self) -> int:
        """The offset in the stream after the last event."""
        return self._checker.state.end

    @property
    def names(self) -> Names:
        """The devices and bitmaps so far."""
        state = self._checker.state
        return Names(dict.fromkeys(state.disks), dict.fromkeys(state.bitmaps))

    def has_blocks(self, device: str) -> bool:
        """Return whether there are records of the device's disk so far."""
        return self._checker.state.disk(device).has_blocks

    def check_merged(self) -> None:
        """Raise UndecidableError where two disks are mixed, neither of which can be recovered."""
        if self._checker.defects.merged and self._request.disks and self._request.takes(""):
            raise UndecidableError(
                "a disk and the file that holds it are mixed under an empty name",
                section=BLOCK_SECTION,
                device="",
                hint="capture again, with disks that have an id (-drive id=NAME)",
                check="merged-devices",
            )

    def stop(
        self,
        device: str,
        destination: Destination,
        failure: BlkmigError | None,
        findings: tuple[Finding, ...] = (),
        bitmaps: tuple[str, ...] = (),
    ) -> Stop:
        """Return the state to record in a journal where the stream is not accepted; see ``Stop``."""
        found = self.evidence(device, destination)
        bounds = found.stream
        damaged = failure is not None
        return Stop(bounds.least, bounds.most, found.end, damaged, findings, bitmaps)

    def report(self, failure: BlkmigError | None) -> Report:
        """Return the report on the stream; call it once.  ``failure``: the error that ended it, if any."""
        return self._checker.finish(self.stream.name, self._decoder, failure)

    @property
    def identity(self) -> Identity | None:
        """The identity of the stream, once it has been read."""
        stated = self._checker.state.identity
        return self._hints.identity if stated is None else stated

    def lacks_growth(self, device: str, existing: int | None, size: int) -> bool:
        """Return whether not all of what a disk has grown by is in the stream, in bytes."""
        if existing is None or existing >= size:
            return False
        covered = self._checker.state.disk(device).covered
        return not covered.covers(existing // SECTOR_SIZE, size // SECTOR_SIZE)

    def evidence(self, device: str, destination: Destination | None) -> Evidence:
        """Return the evidence for the size of the disk of ``device``, once there is a report."""
        request, state = self._request, self._checker.state
        disk = state.disk(device)
        end = disk.top + CHUNK_SECTORS
        if not disk.has_blocks:
            owned = [part for (owner, _), part in state.bitmaps.items() if owner == device]
            end = max((part.covered.end for part in owned), default=0)
        entry = None if request.manifest is None else request.manifest.disks.get(device)
        identity = self.identity
        gaps = identity is not None and identity.has_gaps(device)
        return Evidence(
            device,
            "" if destination is None else destination.path,
            state.proven_size(device),
            disk.top * SECTOR_SIZE,
            end * SECTOR_SIZE,
            disk.top_offset,
            request.hints.option_size(device),
            request.hints.takes_most(device),
            None if entry is None else entry.size,
            None if destination is None else destination.known_size,
            destination is not None and destination.is_device,
            request.incremental or request.allow_incomplete or gaps or not disk.has_blocks,
            destination is not None and destination.grows,
        )


def _may_have_identity(source: FileInput | PipeInput) -> bool:
    """Return whether there may be an identity at the end of a stream; it may turn out to have none."""
    size = source.size
    if not source.seekable:
        return False
    if size is None:  # a copy of a pipe that is being made
        return source.peek(len(_MAGIC)) == _MAGIC
    length = min(size, limits.IDENTITY_MAX)
    return may_state(source.view(Payload(size - length, length)))


@dataclass(slots=True)
class Judgement:
    """The judgement of a replay on a stream that was read.

    ``report``: with the severities of a replay.  ``accepted``: the stream may be applied, or, from a
    pipe, the images are complete.  ``sizes``: of the disks, by device.  ``applied``: devices whose images
    hold the increment already.
    """

    report: Report
    accepted: bool
    sizes: dict[str, Decision] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    applied: tuple[str, ...] = ()

    def add_base(
        self, device: str, found: Destination, reading: Reading, request: ReplayRequest
    ) -> Finding | None:
        """Check that the image of ``device`` holds the base of the stream; return its fault, if any.

        Raises FailureError where the image or its record fails.
        """
        identity, unchecked = reading.identity, not request.base_check
        base = check_base(identity, device, found, request.verify_base, unchecked=unchecked)
        found.grows = base.grows
        if identity is not None and base.proven and self.report.complete:
            found.holds = Holding(identity.id, device)
        if base.applied:
            self.applied += (device,)
        return base.fault

    def add_size(self, device: str, evidence: Evidence) -> int | None:
        """Decide and return the size of a disk in bytes, None if unknown.  Raises FailureError."""
        decision = self.sizes[device] = decide_size(evidence)
        if decision.assumed:
            self.warnings.append(
                f"size of {quote(device)} is not in the stream ({evidence.bounds}); took "
                f"{decision.size} bytes, the end of its last chunk; see --device-size"
            )
        return decision.size

    def bitmaps(self, device: str) -> dict[str, DirtyBitmap]:
        """Return the complete bitmaps of a device, by name."""
        return {
            found.bitmap.name: found.bitmap.content
            for found in self.report.bitmaps
            if found.bitmap.device == device
            and found.bitmap.content is not None
            and found.complete is not False
        }


def judge(
    reading: Reading,
    failure: BlkmigError | None,
    destinations: Destinations,
    request: ReplayRequest,
) -> Judgement:
    """Judge a stream that has been read; ``failure``: the error that ended the reading, if any.

    Raises UsageError where a device has no destination, or an option names a missing one;
    FailureError where an image or a file of bitmaps does not fit; UndecidableError.
    """
    names = reading.names
    names.partly_read = failure is not None
    owners = dict.fromkeys(device for device, _ in names.bitmaps) if request.bitmaps else {}
    devices = [
        device
        for device in names.devices
        if request.takes(device)
        and ((request.disks and reading.has_blocks(device)) or device in owners)
    ]
    anywhere = bool(request.images or request.bitmap_files)
    if anywhere:
        destinations.bind(devices, names)
    else:
        names.check_devices("--device", request.devices or ())
        names.check_devices("-f", (name for name in request.formats if name is not None))
        names.check_hints(request.hints)
    report = reading.report(failure)
    judgement = Judgement(report, accepted=False)
    faults: list[Finding] = []
    for device in devices if anywhere else ():
        blocks = request.disks and reading.has_blocks(device)
        found = destinations.image_of(device) if blocks else destinations.find(device)
        if found is not None and blocks:
            fault = judgement.add_base(device, found, reading, request)
            if fault is not None:
                faults.append(fault)
                continue
        size = judgement.add_size(device, reading.evidence(device, found))
        if found is not None and blocks and size is not None:
            if found.grows and reading.lacks_growth(device, found.existing_size, size):
                faults.append(grown_since(device, size))
            overlaps = reading.superseded.overlaps(device) if reading.stream.seekable else None
            found.decide(size, overlaps, assumed=judgement.sizes[device].assumed)
        if device in owners:
            place = destinations.place_of(device)
            if place.in_image and not blocks and (found is None or found.image is None):
                raise FailureError(
                    f"{escape(place.path)} does not exist, and no blocks of it are written",
                    device=device,
                    hint="write its bitmaps to a file with --bitmaps-to",
                )
            _check_granularities(report.bitmaps, device, place)
            place.check(judgement.bitmaps(device), size)
    decided = (decision.finding for decision in judgement.sizes.values())
    report = report.adding([*faults, *(found for found in decided if found is not None)])
    judgement.report = replace(
        report, findings=tuple(_weighed(found, request) for found in report.findings)
    )
    judgement.accepted = _accepted(judgement.report, request)
    return judgement


def _weighed(found: Finding, request: ReplayRequest) -> Finding:
    """Return a finding with its severity for this replay."""
    severity: Severity = found.severity
    options = {
        "--allow-incomplete": request.allow_incomplete,
        "--no-bitmaps": not request.bitmaps,
        "--bitmaps-only": not request.disks,
    }
    other_device = found.device is not None and not request.takes(found.device)
    if found.id == "bitmap-open" and request.bitmaps:
        severity = "error"
    if severity == "error" and (other_device or found.id in accepted("replay", options)):
        severity = "warning"
    return replace(found, severity=severity)


def _accepted(report: Report, request: ReplayRequest) -> bool:
    """Return whether the stream may be applied."""
    failure = report.failure
    if failure is not None and not (request.allow_incomplete and isinstance(failure, StreamError)):
        return False
    own = None if failure is None else finding_of(failure)
    errors = [found for found in report.findings if found.severity == "error" and found != own]
    return all(found.id in _LEFT_OUT for found in errors)


def _check_granularities(bitmaps: Iterable[BitmapVerdict], device: str, place: BitmapPlace) -> None:
    """Refuse bitmaps of a v2 stream whose granularity differs from that of the existing ones."""
    for verdict in bitmaps:
        bitmap, held = verdict.bitmap, place.granularities.get(verdict.bitmap.name)
        if bitmap.device != device or bitmap.origin != "v2" or held is None:
            continue
        if held != bitmap.granularity:
            raise FailureError(
                f"bitmap {quote(bitmap.name)} has granularity {held} in "
                f"{escape(place.path)}, {bitmap.granularity} in the stream",
                device=device,
                hint="remove it from there",
            )
