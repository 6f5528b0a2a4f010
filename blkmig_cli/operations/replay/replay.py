"""Applying a stream to disk images: blocks to the images, bitmaps to their files.

A stream in a file is read twice: first it is judged, then it is applied.  One from a pipe is applied
as it is received, and judged at its end, which decides whether the images are complete.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from blkmig_cli.checks.catalogue import CHECKS, Finding, finding_of
from blkmig_cli.checks.judge import found as finding
from blkmig_cli.checks.manifest import Manifest, check_images
from blkmig_cli.checks.survey import read_stream
from blkmig_cli.disks.image import Beginning
from blkmig_cli.errors import BlkmigError, FailureError, StreamError, UsageError
from blkmig_cli.operations.replay.accept import accept
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.operations.replay.destinations import Destinations
from blkmig_cli.operations.replay.held import HeldRecords
from blkmig_cli.operations.replay.judgement import Judgement, Reading, judge
from blkmig_cli.operations.replay.received import check_continued
from blkmig_cli.operations.replay.request import ReplayRequest, ReplayResult
from blkmig_cli.operations.replay.superseded import Superseded
from blkmig_cli.operations.replay.writer import Writer
from blkmig_cli.operations.resume_token import Received
from blkmig_cli.progress import Tick, no_tick
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import devices_text, escape, names_text
from blkmig_cli.transport.inputs import PipeInput
from blkmig_cli.transport.source import Stream
from blkmig_cli.transport.spool import spool
from blkmig_cli.wire.announcement import is_announced
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import BitmapChunk, BitmapStart, Block, Event
from blkmig_cli.wire.runs.columns import (
    Run,
    alike,
    blocks_of,
    has_payload,
    in_order,
    is_near,
    is_past,
)
from blkmig_cli.wire.schema_io import Input

# Bytes at the start of a stream in which an increment is announced.
_HEAD = 4096


def replay(stream: Stream | None, request: ReplayRequest, tick: Tick = no_tick) -> ReplayResult:
    """Apply ``stream`` according to ``request``; ``tick`` gets the bytes of the stream done.

    Without a stream (also: an empty stdin), accept images that an earlier replay left incomplete.
    Faults of the stream are in the report of the result.

    Raises UsageError (a device without image, a file with two uses, options that contradict each
    other) and FailureError (an image that is missing, in the way, in use or too small); for a stream
    in a file, before anything is written.  Incomplete images are in the notes of the exception.
    """
    request.check(with_stream=stream is not None)
    with ExitStack() as stack:
        uses = FileUses()
        if stream is not None and stream.file is not None:
            uses.add("the stream", stream.file, writes=False)
        if request.manifest is not None and request.manifest.path:
            uses.add("the manifest", request.manifest.path, writes=False)
        destinations = Destinations(request, uses)
        stack.callback(destinations.close)
        destinations.open()
        with _noting(destinations):
            if stream is None or (
                request.accepts and stream.name == "-" and not stream.input.peek(1)
            ):
                return accept(request, destinations)
            continued = check_continued(stream, request, destinations)
            late = destinations.need_size or _may_be_increment(stream, request, destinations)
            if late and not (request.dry_run or stream.seekable):
                stream = _spooled(stream, stack)
            return _Replay(stream, request, destinations, continued).run(tick)


def _spooled(stream: Stream, stack: ExitStack) -> Stream:
    """Return a stream that can be read only once as one in a temporary file."""
    assert not stream.input.seekable
    return replace(stream, input=spool(stream.input, stack))


def _may_be_increment(stream: Stream, request: ReplayRequest, destinations: Destinations) -> bool:
    """Return whether ``stream`` may be an increment for an existing image, which its end will tell."""
    if not request.disks or all(found.existing_size is None for found in destinations):
        return False
    stated = None if request.manifest is None else request.manifest.identity
    if (stated is not None and stated.incremental) or request.number not in (None, 1):
        return True
    head = io.BytesIO(stream.input.peek(_HEAD))
    try:
        return is_announced(Decoder(PipeInput(head.readinto)))
    except StreamError:
        return False  # the rest is not needed


@contextmanager
def _noting(destinations: Destinations) -> Iterator[None]:
    """Add a note on incomplete images, and how to continue, to an exception that ends the replay."""
    try:
        yield
    except BaseException as error:
        left = [path for path in (found.incomplete_path for found in destinations) if path]
        if left:
            paths = ", ".join(map(escape, left))
            verb = "are" if len(left) > 1 else "is"
            error.add_note(f"{paths} {verb} incomplete; use --resume to continue")
        raise


class _Replay:
    """One stream onto its destinations, which are open."""

    def __init__(
        self,
        stream: Stream,
        request: ReplayRequest,
        destinations: Destinations,
        continued: Sequence[Received],
    ) -> None:
        self._stream = stream
        self._request = request
        self._destinations = destinations
        source = stream.input
        self._version = source.version() if source.seekable else None
        self._reading = Reading(stream, request, destinations, continued)

    def run(self, tick: Tick) -> ReplayResult:
        """Apply the stream; raises as :func:`replay`."""
        request, reading = self._request, self._reading
        nowhere = not (request.images or request.bitmap_files)
        judgement, held = None, HeldRecords()
        if self._stream.seekable or request.dry_run or nowhere:
            failure = reading.to_end(tick if request.dry_run else no_tick, held)
            judgement = judge(reading, failure, self._destinations, request)
            if nowhere and not request.dry_run:
                raise UsageError(
                    f"no --image is specified; the stream has {devices_text(reading.names.devices)}",
                    hint="use --image DEVICE=IMAGE for each, or --dry-run",
                )
            done = judgement.applied and set(judgement.applied) == set(judgement.sizes)
            if request.dry_run or done or not judgement.accepted:
                return ReplayResult(judgement.report, judgement.accepted, applied=judgement.applied)
            if not (request.disks and any(map(reading.has_blocks, judgement.sizes))):
                return self._conclude(judgement, {})  # the bitmaps have been read already
        return self._apply(judgement, held, tick)

    def _apply(self, judgement: Judgement | None, held: HeldRecords, tick: Tick) -> ReplayResult:
        """Write all records; if there is no ``judgement`` yet, judge the stream at its end."""
        reading, failed = self._reading, None
        failure: BlkmigError | None = None
        source = self._stream.input
        superseded = Superseded() if judgement is None else reading.superseded
        with Writer(source, superseded, verify=self._request.verify) as writer:
            applying = _Applying(writer, self._request, self._destinations)
            try:
                if judgement is None:
                    failure = reading.to_end(tick, applying)
                elif held.complete:
                    held.pass_on(source, tick, applying)
                    failure = judgement.report.failure
                else:
                    failure = read_stream(reading.from_start(), tick, applying)
                writer.drain()
                if source.seekable and source.version() != self._version:
                    name = escape(self._stream.name)
                    raise FailureError(f"{name} was changed while it was read")
            except FailureError as error:
                failed = error
        written = writer.written()
        if failed is not None:
            return self._failed(judgement, failed, written)
        if judgement is None:
            try:
                judgement = judge(reading, failure, self._destinations, self._request)
            except BlkmigError:
                # What was received is on the images, and may not be available again.
                for device, found in self._begun():
                    found.stop(reading.position, reading.stop(device, found, failure))
                raise
        if not judgement.accepted:
            return self._stop(judgement, written)
        return self._conclude(judgement, written)

    def _failed(
        self, judgement: Judgement | None, error: BlkmigError, written: dict[str, int]
    ) -> ReplayResult:
        """Return the result after the failure of an image; the replay can be continued."""
        if judgement is None:
            report = self._reading.report(error)
        else:
            report = replace(judgement.report.adding([finding_of(error)]), failure=error)
        return ReplayResult(
            report,
            accepted=False,
            written=written,
            partial_images=self._incomplete(),
            resumed=self._resumed(),
        )

    def _stop(self, judgement: Judgement, written: dict[str, int]) -> ReplayResult:
        """Return the result after an incomplete or damaged stream; the images remain incomplete."""
        reading, report = self._reading, judgement.report
        errors = tuple(found for found in report.findings if found.severity == "error")
        for device, found in self._begun():
            bitmaps = tuple(judgement.bitmaps(device))
            stop = reading.stop(device, found, report.failure, errors, bitmaps)
            found.stop(reading.position, stop)
        return ReplayResult(
            judgement.report,
            accepted=False,
            written=written,
            partial_images=self._incomplete(),
            resumed=self._resumed(),
        )

    def _conclude(self, judgement: Judgement, written: dict[str, int]) -> ReplayResult:
        """Set the sizes and names of complete images, and write the bitmaps; return the result."""
        position, request = self._reading.position, self._request
        for found in self._destinations:
            found.complete()
        self._destinations.make_empty()
        if request.manifest is not None:
            differing = self._against(request.manifest, judgement)
            if differing:
                judgement.report = judgement.report.adding(differing)
                return self._stop(judgement, written)
        for found in self._destinations:
            found.save(position, "written")
        warnings = list(judgement.warnings)
        files = self._write_bitmaps(judgement, warnings, in_image=True)
        for found in self._destinations:
            found.rename()
        files += self._write_bitmaps(judgement, warnings, in_image=False)
        self._finish(judgement)
        warnings += [
            f"{escape(path)}: kept, but it does not record this write"
            for path in self._destinations.bitmaps_beside_written()
            if path not in files
        ]
        return ReplayResult(
            judgement.report,
            accepted=True,
            written=written,
            bitmap_files=files,
            resumed=self._resumed(),
            warnings=warnings,
        )

    def _finish(self, judgement: Judgement) -> None:
        """Record that all is done, and what was accepted though it is a fault of the stream."""
        reading, report = self._reading, judgement.report
        accepted = tuple(found for found in report.findings if CHECKS[found.id][0] == "error")
        for device, found in self._begun():
            stop = None
            if accepted or report.failure is not None:
                stop = reading.stop(device, found, report.failure, accepted)
            found.finish(reading.position, stop)

    def _against(self, manifest: Manifest, judgement: Judgement) -> list[Finding]:
        """Read the images; return the differences from the manifest as findings."""
        request, disks, bitmaps = self._request, {}, {}
        for device, decision in judgement.sizes.items():
            found = self._destinations.find(device)
            if found is not None and found.image is not None and self._reading.has_blocks(device):
                disks[device] = Beginning(found.image, decision.size or 0)
            for name, bitmap in judgement.bitmaps(device).items():
                bitmaps[device, name] = bitmap
        left_out = [device for device in manifest.disks if not request.takes(device)]
        checked = check_images(
            manifest,
            disks if request.disks else None,
            bitmaps if request.bitmaps else None,
            no_tick,
            left_out,
        )
        return [
            finding("manifest-differs", found.message, device=found.device)
            for found in checked
            if request.takes(found.device)
        ]

    def _write_bitmaps(
        self, judgement: Judgement, warnings: list[str], *, in_image: bool
    ) -> list[str]:
        """Write all bitmaps into the images, or into files; return the files that were written."""
        files = []
        for device, decision in judgement.sizes.items() if self._request.bitmaps else ():
            destination = self._destinations.find(device)
            bitmaps = judgement.bitmaps(device)
            if not bitmaps or (destination is not None and destination.finished):
                continue
            place = self._destinations.place_of(device)
            if place.in_image != in_image:
                continue
            others = place.write(bitmaps, decision.size or 0)
            files.append(place.path)
            if others:
                warnings.append(
                    f"{escape(place.path)}: bitmaps that do not record this write were kept: "
                    f"{names_text(others)}"
                )
        return files

    def _begun(self) -> Iterator[tuple[str, Destination]]:
        """Yield the destinations that have been written to, with the names of their devices."""
        for device in self._reading.names.devices:
            found = self._destinations.found(device)
            if found is not None and found.begun:
                yield device, found

    def _incomplete(self) -> list[str]:
        paths = (found.incomplete_path for found in self._destinations)
        return [path for path in paths if path is not None]

    def _resumed(self) -> dict[str, int | None]:
        resumed: dict[str, int | None] = {}
        for device in self._reading.names.devices:
            found = self._destinations.found(device)
            if found is not None and found.history.resumed_at is not None:
                resumed[device] = None if found.finished else found.history.resumed_at
        return resumed


class _Applying:
    """A consumer that applies the events of a stream."""

    def __init__(self, writer: Writer, request: ReplayRequest, destinations: Destinations) -> None:
        self._writer = writer
        self._request = request
        self._destinations = destinations

    def feed(self, event: Event, source: Input) -> None:
        """Apply the next event.  (Events from a pipe have not been seen before.)"""
        if isinstance(event, Block) and self._request.takes(event.device):
            if event.has_content and self._request.disks:
                destination = self._destinations.image_of(event.device, event.offset)
                self._writer.write(event, destination)
            if event.bitmaps and self._request.bitmaps:
                self._destinations.place_of(event.device, event.offset)
                self._destinations.add_bitmaps(event.device)
        elif (
            isinstance(event, BitmapChunk)
            and self._request.bitmaps
            and self._request.takes(event.device)
        ):
            self._destinations.place_of(event.device, event.offset)
            if isinstance(event, BitmapStart):
                self._destinations.add_bitmaps(event.device)
        self._save(event.offset + event.length)

    def feed_run(self, run: Run, source: Input) -> None:
        """Apply a run of events; records of zeros in one step."""
        blocks = [column.event for column in run.columns if isinstance(column.event, Block)]
        zeros = blocks_of(run, content=False)
        if (
            any(has_payload(event) for event in blocks)
            or not all(map(alike, zeros.values()))
            or not is_near(run.columns)
            or any(map(is_past, run.columns))
        ):
            for single in run:
                self.feed(single, source)
            return
        for device, columns in zeros.items():
            event = columns[0].event
            assert isinstance(event, Block)
            if event.has_content and self._request.disks and self._request.takes(device):
                destination = self._destinations.image_of(device, event.offset)
                sectors, offsets = in_order(columns)
                self._writer.write_zeros(event, offsets, sectors, destination)
        self._save(run.end)

    def _save(self, position: int) -> None:
        if self._writer.due:
            self._writer.drain()
            for destination in self._destinations:
                destination.save(position)
