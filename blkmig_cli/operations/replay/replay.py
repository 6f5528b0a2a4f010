"""Applying a stream: blocks onto disk images, bitmaps into files beside them.

A stream in a file is read twice: first to find out whether all can be done, then to do it.  From a
pipe it is read once, and every record is checked before it is written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from blkmig_cli.checks.catalogue import Finding, finding_of
from blkmig_cli.checks.checker import Checker
from blkmig_cli.checks.judge import found
from blkmig_cli.checks.manifest import Manifest, check_images
from blkmig_cli.checks.report import BitmapVerdict, Report
from blkmig_cli.checks.survey import read_stream
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.contents.state import StreamState
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.disks.disk import image_too_small
from blkmig_cli.errors import BlkmigError, FailureError, UndecidableError
from blkmig_cli.operations.replay.superseded import Superseded
from blkmig_cli.operations.replay.target import Target
from blkmig_cli.operations.replay.targets import Targets
from blkmig_cli.operations.replay.writing import Writer, placed
from blkmig_cli.progress import Tick, no_tick
from blkmig_cli.schemas.constants import BLOCK_SECTION, SECTOR_SIZE
from blkmig_cli.text import escape, human_size, quote
from blkmig_cli.transport.source import Stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import BitmapChunk, Block, Event
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import EventConsumer, Run
from blkmig_cli.wire.schema_io import Input


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What to apply, and what may be missing.

    ``disks`` and ``bitmaps``: apply these at all; ``verify``: read back what was written;
    ``manifest``: hold the images against it in the end.
    """

    disks: bool = True
    bitmaps: bool = True
    incremental: bool = False
    allow_incomplete: bool = False
    dry_run: bool = False
    verify: bool = False
    manifest: Manifest | None = None


@dataclass(slots=True)
class ReplayResult:
    """The stream's report, bytes written by device, bitmap files written, and what to warn of.

    ``partial_images``: what a failed replay left half done; ``resumed``: by device, the byte of the
    stream up to which an earlier run had applied it, None where that one had done everything.
    """

    report: Report
    written: dict[str, int] = field(default_factory=dict)
    bitmap_files: list[str] = field(default_factory=list)
    partial_images: list[str] = field(default_factory=list)
    resumed: dict[str, int | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class Replay:
    """One stream onto its targets.

    ``decoder`` makes a decoder from the input's start with given hints; ``tick`` is told how far
    the writing (or, in a dry run, the reading) has come.
    """

    def __init__(
        self,
        stream: Stream,
        targets: Targets,
        options: ReplayOptions,
        hints: Hints,
        decoder: Callable[[Input, Hints], Decoder],
    ) -> None:
        self._stream = stream
        self._targets = targets
        self._options = options
        self._told = hints
        self._hints = targets.hints(hints)
        self._make_decoder = decoder

    def run(self, tick: Tick) -> ReplayResult:
        """Apply the stream.

        Raises UsageError (a device without image, before the first write where the stream can be
        read twice), FailureError.  A stream that is damaged is told in the result's report; from a
        file, nothing has been written then.
        """
        dry, superseded = self._options.dry_run, Superseded()
        if not (dry or self._stream.seekable):
            decoder, checker = self._decoder(), self._checker()
            writer, failure = self._write(decoder, superseded, checker, tick)
            report = checker.finish(self._stream.name, decoder, failure)
            return self._finish(checker, report, writer)
        checker, report = self._plan(tick if dry else no_tick, superseded)
        self._check_plan(checker, report)
        if dry or report.failure is not None:
            return ReplayResult(report)
        if not (self._options.disks and any(device.disk.has_blocks for device in report.devices)):
            return self._finish(checker, report, None)  # the bits have been read already
        self._stream.input.offset = 0
        writer, failure = self._write(self._decoder(), superseded, None, tick)
        if failure is not None:
            report = replace(report.adding([finding_of(failure)]), failure=failure)
        return self._finish(checker, report, writer)

    def _decoder(self) -> Decoder:
        return self._make_decoder(self._stream.input, self._hints)

    def _checker(self) -> Checker:
        return Checker(self._hints, incremental=self._options.incremental)

    def _plan(self, tick: Tick, superseded: Superseded) -> tuple[Checker, Report]:
        """Read the stream without writing anything."""
        decoder, checker = self._decoder(), self._checker()
        failure = read_stream(decoder, tick, _Repeats(superseded, checker.state), checker)
        return checker, checker.finish(self._stream.name, decoder, failure)

    def _write(
        self, decoder: Decoder, superseded: Superseded, checker: Checker | None, tick: Tick
    ) -> tuple[Writer, BlkmigError | None]:
        """Apply all records; ``checker`` takes them where they have not been read before.

        Returns what knows how much was written, and what ended the work, if anything did.
        """
        with Writer(self._stream.input, superseded, verify=self._options.verify) as writer:
            apply = self._apply
            refuse_merged, checkpoint = self._refuse_merged, self._targets.checkpoint

            class Apply(EventConsumer):
                def feed(self, event: Event, source: Input) -> None:
                    apply(event, writer)
                    if checker is not None:
                        checker.feed(event, source)
                        refuse_merged(checker)
                    if writer.due:
                        writer.drain()
                        checkpoint(event.offset + event.length)

            try:
                failure = read_stream(decoder, tick, Apply())
                writer.drain()
            except (FailureError, UndecidableError) as error:
                # Of an image, or of merged disks; what was written until then is told beside it.
                failure = error
        return writer, failure

    def _check_plan(self, checker: Checker, report: Report) -> None:
        """Refuse before the first write what the first reading shows to be impossible."""
        devices = self._wanted(report)
        if not (self._options.dry_run and not self._targets.any):
            self._targets.bind(devices)
            for verdict in report.devices:
                if verdict.disk.has_blocks and self._options.disks:
                    self._targets.need_image(verdict.disk.name)
        if report.failure is not None:
            return
        self._refuse_merged(checker)
        for verdict in report.devices:
            target = self._targets.get(verdict.disk.name)
            if target is None or not verdict.disk.has_blocks or not self._options.disks:
                continue
            bounds = checker.state.proven_size(verdict.disk.name)
            self._check_size(target, verdict.disk.name, bounds)
            disk = verdict.disk
            with placed(disk.name, disk.top, disk.top_offset):
                target.check_growth((disk.top + 1) * SECTOR_SIZE)
            limit = target.limit
            if limit is not None and verdict.disk.top * SECTOR_SIZE >= limit:
                raise image_too_small(
                    verdict.disk.name, verdict.disk.top, verdict.disk.top_offset, limit
                )
        self._check_granularities(report)

    def _refuse_merged(self, checker: Checker) -> None:
        """Neither of two disks that came as one can be had."""
        if checker.defects.merged and self._options.disks:
            raise UndecidableError(
                "a disk and the file that holds it are mixed under an empty name",
                section=BLOCK_SECTION,
                device="",
                hint="capture again, with disks that have an id (-drive id=NAME)",
                check="merged-devices",
            )

    def _wanted(self, report: Report) -> list[str]:
        """Devices of the stream that have something to be applied."""
        owners = {verdict.bitmap.device for verdict in report.bitmaps}
        return [
            verdict.disk.name
            for verdict in report.devices
            if (self._options.disks and verdict.disk.has_blocks)
            or (self._options.bitmaps and verdict.disk.name in owners)
        ]

    def _check_size(self, target: Target, device: str, bounds: SizeBounds) -> None:
        """An existing image that is too small for the disk: refuse."""
        if target.existing_size is None or self._told.option_size(device) is not None:
            return
        if target.existing_size < bounds.least:
            raise FailureError(
                f"{escape(target.path)} has {target.existing_size} bytes, the disk has at least "
                f"{bounds.least}",
                device=device,
                hint="enlarge the image, or say the disk's size with --device-size",
            )

    def _check_granularities(self, report: Report) -> None:
        """v2: a bitmap of another granularity at the destination is an error before any write."""
        if not self._options.bitmaps:
            return
        for verdict in report.bitmaps:
            bitmap = verdict.bitmap
            target = self._targets.get(bitmap.device)
            held = None if target is None else target.bitmaps.get(bitmap.name)
            if (
                bitmap.origin == "v2"
                and held is not None
                and held.granularity != bitmap.granularity
            ):
                raise FailureError(
                    f"bitmap {quote(bitmap.name)} has granularity {held.granularity} at the "
                    f"destination, {bitmap.granularity} in the stream",
                    device=bitmap.device,
                    hint=f"remove it from {escape(target.bitmaps_path or '')}" if target else None,
                )

    def _apply(self, event: Event, writer: Writer) -> None:
        """Write what a record says.  (From a pipe, this is the first that is known of it.)"""
        if isinstance(event, Block):
            content = event.has_content
            applies = (content and self._options.disks) or (
                bool(event.bitmaps) and self._options.bitmaps
            )
            if not applies:
                return
            target = self._targets.claim(event.device, event.offset)
            if content and self._options.disks:
                self._targets.need_image(event.device, event.offset)
                writer.write(event, target)
        elif isinstance(event, BitmapChunk) and self._options.bitmaps:
            self._targets.claim(event.device, event.offset)

    def _finish(self, checker: Checker, report: Report, writer: Writer | None) -> ReplayResult:
        result = ReplayResult(report)
        for verdict in report.devices:
            target = self._targets.get(verdict.disk.name)
            course = None if target is None else target.course
            if course is not None and course.resumed_at is not None:
                at = None if course.finished else course.resumed_at
                result.resumed[verdict.disk.name] = at
        self._settle(checker, result)
        if writer is not None:
            # Now that the images have their sizes: padding behind a disk's end does not count.
            result.written = writer.written
        return result

    def _settle(self, checker: Checker, result: ReplayResult) -> None:
        """Give images their sizes and names, and write the bitmaps; or tell what is half done."""
        report = result.report
        if report.failure is not None:
            result.partial_images = self._targets.flush()
            return
        if self._options.disks:
            self._targets.make_empty()
        for verdict in report.devices:
            target = self._targets.get(verdict.disk.name)
            if target is not None and verdict.disk.has_blocks and not target.finished:
                mismatch = self._size_mismatch(checker, target, verdict.disk.name)
                result.report = result.report.adding(mismatch)
                self._end_image(checker, target, verdict.disk.name, result)
        self._targets.finish(checker.state.end)
        if self._options.bitmaps:
            self._write_bitmaps(checker, report, result)
        self._targets.conclude(checker.state.end)
        if self._options.manifest is not None:
            differences = self._hold_against(self._options.manifest, report)
            result.report = result.report.adding(list(differences))

    def _hold_against(self, manifest: Manifest, report: Report) -> Iterator[Finding]:
        """Read the images; gives what is not as the manifest says."""
        images = {}
        for verdict in report.devices:
            target = self._targets.get(verdict.disk.name)
            if target is not None and target.image is not None and verdict.disk.has_blocks:
                images[verdict.disk.name] = target.image
        bitmaps = {
            (verdict.bitmap.device, verdict.bitmap.name): verdict.bitmap.content
            for verdict in report.bitmaps
            if verdict.bitmap.content is not None and verdict.complete is not False
        }
        for difference in check_images(
            manifest,
            images if self._options.disks else None,
            bitmaps if self._options.bitmaps else None,
            no_tick,
        ):
            yield found("manifest-differs", difference.message, device=difference.device)

    def _size_mismatch(self, checker: Checker, target: Target, device: str) -> Iterator[Finding]:
        bounds = checker.state.proven_size(device)
        size = target.existing_size
        if size is None or self._told.option_size(device) is not None:
            return
        if size < bounds.least or (bounds.most is not None and size > bounds.most):
            room = "" if bounds.exact else f"{bounds.least} to "
            most = "any number of" if bounds.most is None else bounds.most
            yield found(
                "size-mismatch",
                f"{escape(target.path)} has {size} bytes, the disk {room}{most} bytes; "
                "say --device-size if this is meant",
                device=device,
            )

    def _end_image(
        self, checker: Checker, target: Target, device: str, result: ReplayResult
    ) -> None:
        """Give an image that grew with the stream its final size."""
        if target.limit is not None:
            return
        bounds = checker.state.proven_size(device)
        stated = bounds.most if bounds.source in ("stream", "bitmap-layout") else None
        # Only padding may be cut off: never a chunk, whatever a bitmap says of the disk's size.
        if stated is not None and stated > checker.state.disk(device).top * SECTOR_SIZE:
            target.end_at(stated)
        if bounds.exact is None:
            most = "?" if bounds.most is None else str(bounds.most)
            result.warnings.append(
                f"{escape(target.path)}: the disk's size is not in the stream; made it "
                f"{target.size} bytes, it had {bounds.least} to {most}; see --device-size"
            )

    def _write_bitmaps(self, checker: Checker, report: Report, result: ReplayResult) -> None:
        by_path: dict[str, tuple[Target, list[BitmapVerdict]]] = {}
        for verdict in report.bitmaps:
            target = self._targets.get(verdict.bitmap.device)
            if target is None or target.finished:
                continue
            if target.bitmaps_path is not None:
                by_path.setdefault(target.bitmaps_path, (target, []))[1].append(verdict)
        for path, (target, verdicts) in by_path.items():
            whole = {
                verdict.bitmap.name: verdict.bitmap.content
                for verdict in verdicts
                if verdict.bitmap.content is not None and verdict.complete is not False
            }
            kept = {name: held for name, held in target.bitmaps.items() if name not in whole}
            if kept:
                names = ", ".join(escape(name) for name in kept)
                result.warnings.append(
                    f"{escape(path)}: kept {names}, which does not know of this write"
                )
            if not whole:
                continue
            size = target.size
            if size is None:
                device = verdicts[0].bitmap.device
                bounds = checker.size(device)
                size = (
                    bounds.exact
                    or bounds.most
                    or max(verdict.bitmap.covered.end * SECTOR_SIZE for verdict in verdicts)
                )
                if bounds.exact is None:
                    result.warnings.append(
                        f"{escape(path)}: the disk's size is not known; took {human_size(size)}"
                    )
            write_bitmaps(path, BitmapFile(size, {**kept, **whole}))
            result.bitmap_files.append(path)


class _Repeats:
    """Gives ``superseded`` the records, with the sectors that the ``state`` has of their disks."""

    def __init__(self, superseded: Superseded, state: StreamState) -> None:
        self._superseded = superseded
        self._state = state

    def feed(self, event: Event, source: Input) -> None:
        if isinstance(event, Block):
            self._superseded.feed(event, self._state.covered(event.device))

    def feed_run(self, run: Run, source: Input) -> None:
        self._superseded.feed_run(run, self._state.covered)
