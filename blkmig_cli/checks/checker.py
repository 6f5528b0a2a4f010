"""Is a stream whole, and is it sound?  Events in, findings and a verdict out."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from blkmig_cli.checks.catalogue import CHECKS, Finding, finding_of
from blkmig_cli.checks.defects import Defects
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.contents.state import BitmapState, DiskState, StreamState
from blkmig_cli.contents.totals import feed_run
from blkmig_cli.errors import BlkmigError, FailureError
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.text import count, human_size, quote
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import DeviceState, Event, Progress, VmDescription
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import Run
from blkmig_cli.wire.schema_io import Input
from blkmig_cli.wire.v1_layout import describe

Ranges = list[tuple[int, int]]

#: What a report comes to, from the best to the worst: ``failed`` is an input that is missing or broke
#: off, ``damaged`` a stream that cannot be read to its end.
Verdict = Literal[
    "whole", "whole with errors", "perhaps not whole", "not whole", "damaged", "failed"
]


@dataclass(frozen=True, slots=True)
class DeviceVerdict:
    """A disk: what came, what is missing (start, length in bytes), and its size."""

    disk: DiskState
    missing: Ranges
    size: SizeBounds


@dataclass(frozen=True, slots=True)
class BitmapVerdict:
    """A bitmap, the candidates of its granularity in bytes, its dirty bytes, and whether it is whole."""

    bitmap: BitmapState
    candidates: list[int]
    count: int | None
    complete: bool | None


@dataclass(slots=True)
class Report:
    """The verdict on one stream.

    ``failure`` is what ended the reading, if anything did; ``next_stream`` the byte at which a
    further stream begins in the same input; ``same`` are the devices and paths of
    images that hold what the stream leaves behind; ``differing``, by device, the ranges in which an
    image does not; ``manifest``, the file of the manifest that the stream matches.
    """

    stream: str
    dialect: str | None = None
    container: str | None = None
    complete: bool | None = None
    devices: list[DeviceVerdict] = field(default_factory=list)
    bitmaps: list[BitmapVerdict] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    failure: BlkmigError | None = None
    next_stream: int | None = None
    same: list[tuple[str, str]] = field(default_factory=list)
    differing: dict[str, Ranges] = field(default_factory=dict)
    manifest: str | None = None

    @property
    def valid(self) -> bool:
        """Readable to its end, and no error found."""
        return not self.counting()

    @property
    def verdict(self) -> Verdict:
        """What is to be said of the stream, in a word or two."""
        if self.failure is not None:
            return "failed" if isinstance(self.failure, FailureError) else "damaged"
        if self.complete is not True:
            return "perhaps not whole" if self.complete is None else "not whole"
        return "whole" if self.valid else "whole with errors"

    def counting(self, *, strict: bool = False) -> list[Finding]:
        """The findings that fail a check: errors, and if ``strict`` warnings."""
        bad = ("error", "warning") if strict else ("error",)
        return [finding for finding in self.findings if finding.severity in bad]

    def exit_status(self, *, strict: bool = False) -> int:
        """3 or 4 where the stream could not be read, 1 where a finding counts (``strict``), else 0."""
        if self.failure is not None:
            return self.failure.exit_status
        return int(bool(self.counting(strict=strict)))


class Checker:
    """Takes the events of one stream, and gives its report."""

    def __init__(self, decoder: Decoder, hints: Hints, *, incremental: bool = False) -> None:
        self.decoder = decoder
        self._hints = hints
        self._incremental = incremental
        self.state = StreamState(decoder, hints)
        self.defects = Defects()
        self.findings: list[Finding] = []
        self._resynchronised: list[int] = []

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event."""
        self.state.feed(event, source)
        self.defects.feed(event, source)
        if isinstance(event, Progress) and event.percent > 100:
            self._progress_range(event.percent, event.offset)
        elif isinstance(event, DeviceState) and event.sized_by == "footer":
            self._resynchronised.append(event.offset)
        elif isinstance(event, VmDescription):
            self._compare_states(event)

    def _compare_states(self, description: VmDescription) -> None:
        differing = {state.offset for state in description.mismatches}
        settled = description.confirmed | differing
        self._resynchronised = [at for at in self._resynchronised if at not in settled]
        for state in description.mismatches:
            self.add(
                "device-state",
                f"the state of {quote(state.section)} is {count(state.length, 'byte')} long, "
                f"the description says {state.described:,}",
                state.offset,
            )

    def feed_run(self, run: Run, source: Input) -> None:
        """Take a run of events whole."""
        feed_run(self.state, run, source)
        self.defects.feed_run(run, source)
        for column in run.columns:
            if isinstance(column.event, Progress) and column.numbers is not None:
                for row in np.flatnonzero(column.numbers > 100).tolist():
                    offset = column.event.offset + row * run.stride
                    self._progress_range(int(column.numbers[row]), offset)

    def add(
        self, check: str, message: str, offset: int | None = None, device: str | None = None
    ) -> None:
        """Report a finding of ``CHECKS``."""
        self.findings.append(Finding(check, CHECKS[check][0], message, offset, device))

    def size(self, device: str) -> SizeBounds:
        """The disk's size by order of belief, as far as the stream has been read."""
        return self.state.size(device, self._hints.size(device))

    def _progress_range(self, percent: int, offset: int) -> None:
        self.add("progress-range", f"progress of {percent} percent", offset)

    def finish(self, stream: str, source: Input, failure: BlkmigError | None = None) -> Report:
        """The report on what was read of ``source``; ``failure`` is what ended it, if anything did."""
        state, decoder = self.state, self.decoder
        state.finish(whole=failure is None)
        dialect = decoder.block.dialect
        name = dialect.name if dialect is not None else None
        if name in (None, "classic") and any(
            bitmap.origin == "dirty-bitmap" for bitmap in state.bitmaps.values()
        ):
            name = "qemu"
        elif name is None and state.block_started:
            name = "classic"
        container = None if decoder.container == "auto" else decoder.container
        report = Report(stream, name, container, failure=failure, next_stream=decoder.next_stream)
        if failure is not None:
            self.findings.append(finding_of(failure))
        report.devices = [self._device(disk, source) for disk in state.disks.values()]
        sizes = {verdict.disk.name: verdict.size for verdict in report.devices}
        report.bitmaps = [
            self._bitmap(bitmap, sizes[bitmap.device]) for bitmap in state.bitmaps.values()
        ]
        report.complete = self._complete(report)
        self._general(report)
        report.findings = self.findings
        return report

    def _device(self, disk: DiskState, source: Input) -> DeviceVerdict:
        size = self.size(disk.name)
        if size.most is not None:
            for check, text, offset in self.defects.tail(disk.name, size.most, source):
                self.add(check, text, offset, disk.name)
        missing: Ranges = []
        if disk.has_blocks:
            end = disk.covered.end if size.exact is None else -(-size.exact // SECTOR_SIZE)
            gaps = disk.covered.gaps(0, end)
            unsent = self.state.progress.never_sent(self.state.starts())
            if size.exact is None and unsent and len(self.state.starts()) == 1:
                gaps += [(end, end + unsent)]
            missing = _join(gaps)
            if size.exact is not None and disk.top * SECTOR_SIZE >= size.exact:
                self.add(
                    "sector-past-end",
                    f"sector {disk.top} lies past the disk's {human_size(size.exact)}",
                    disk.top_offset,
                    disk.name,
                )
        return DeviceVerdict(disk, missing, size)

    def _bitmap(self, bitmap: BitmapState, size: SizeBounds) -> BitmapVerdict:
        complete = self._bitmap_complete(bitmap, size)
        told, covered = self._hints.size(bitmap.device), bitmap.covered.end * SECTOR_SIZE
        if told is not None and covered > told and bitmap.origin == "dirty-bitmap":
            complete = False
            text = f"bitmap {quote(bitmap.name)} is of {covered} bytes or more, the disk has {told}"
            self.add("bitmap-size", text, device=bitmap.device)
        elif complete is False:
            self.add(
                "bitmap-incomplete",
                f"bitmap {quote(bitmap.name)} is not whole",
                device=bitmap.device,
            )
        candidates = bitmap.candidates if bitmap.open else [bitmap.granularity or 0]
        dirty = None
        if bitmap.content is None:
            self.add(
                "bitmap-open",
                f"bitmap {quote(bitmap.name)}: granularity {describe(bitmap.candidates)}; "
                f"say which with --granularity",
                device=bitmap.device,
            )
        else:
            limit = size.exact or size.most
            dirty = bitmap.content.count(limit)
            granularity = bitmap.content.granularity
            if limit is not None and bitmap.content.end() > -(-limit // granularity) * granularity:
                self.add(
                    "bitmap-past-end",
                    f"bitmap {quote(bitmap.name)} has dirty bits past the disk's end",
                    device=bitmap.device,
                )
        return BitmapVerdict(bitmap, candidates, dirty, complete)

    def _bitmap_complete(self, bitmap: BitmapState, size: SizeBounds) -> bool | None:
        state = self.state
        if bitmap.origin == "dirty-bitmap":
            return bitmap.ended and not bitmap.covered.gaps(0, bitmap.covered.end)
        covered = bitmap.covered
        if bitmap.origin == "v2":
            covered = state.disk(bitmap.device).bitmaps_covered
            if not state.progress.final:
                return False
        if not state.block_ended or covered.gaps(0, covered.end):
            return False
        if size.exact is not None:
            return not covered.gaps(0, -(-size.exact // SECTOR_SIZE))
        return True if size.most is not None and covered.end * SECTOR_SIZE >= size.most else None

    def _complete(self, report: Report) -> bool | None:
        state = self.state
        with_blocks = [device for device in report.devices if device.disk.has_blocks]
        parts: list[bool | None] = [verdict.complete for verdict in report.bitmaps]
        if state.block_started:
            parts.append(state.block_ended)
        if report.failure is not None and not (parts and all(parts)):
            return False
        missing = any(device.missing for device in with_blocks)
        unsent = bool(with_blocks) and state.progress.never_sent(state.starts()) > 0
        if not self._incremental:
            parts.append(not missing and not unsent)
        if self._bulk_ended(report) is False:
            parts.append(False)
        for device in with_blocks:
            known = device.size.exact is not None
            room = device.size.most
            end = device.disk.covered.end * SECTOR_SIZE
            parts.append(True if known or self._incremental or (room and end >= room) else None)
        if not with_blocks and not report.bitmaps:
            return None if report.failure is None else False
        if False in parts:
            return False
        return None if None in parts else True

    def _general(self, report: Report) -> None:
        state, failed = self.state, report.failure is not None
        self._all_missing(report)
        if state.block_started and not state.block_ended and not failed:
            self.add("section-unfinished", "the block section never ended", state.end)
        elif state.block_ended and not state.progress.final:
            self.add("no-final-progress", "the block section ended without 100 percent", state.end)
        if report.complete is None and any(device.disk.has_blocks for device in report.devices):
            self.add("completeness-unknown", _room(report.devices))
        for found in self.defects.findings():
            self.add(*found)
        self._owners(report)
        if not report.devices and not report.bitmaps and not failed:
            self.add("nothing-here", "the stream holds neither disks nor bitmaps")
        for stretch in state.undecoded:
            check = "trailing-bytes" if stretch.behind else "undecoded"
            self.add(check, f"{count(stretch.length, 'byte')}: {stretch.reason}", stretch.offset)
        if self._resynchronised:
            self.add(
                "resynchronised",
                f"the state of {count(len(self._resynchronised), 'section')} was sized by its footer",
                self._resynchronised[0],
            )

    def _owners(self, report: Report) -> None:
        """Bitmaps of the ``dirty-bitmap`` section find their disk by its name, or are dropped."""
        with_blocks = {device.disk.name for device in report.devices if device.disk.has_blocks}
        for verdict in report.bitmaps:
            bitmap = verdict.bitmap
            if with_blocks and bitmap.device not in with_blocks:
                text = f"bitmap {quote(bitmap.name)}: its device has no blocks in this stream"
                self.add("bitmap-device", text, device=bitmap.device)

    def _bulk_ended(self, report: Report) -> bool | None:
        """Did QEMU's bulk phase reach the end of all disks?  None: nothing tells."""
        if report.failure is not None:
            return None
        sizes = {
            device.disk.name: device.size.exact
            for device in report.devices
            if device.disk.has_blocks
        }
        return self.state.progress.bulk_ended(self.state.starts(), sizes)

    def _all_missing(self, report: Report) -> None:
        """Chunks that never came: left out on purpose (incremental), or by an abandoned bulk phase."""
        progress, starts = self.state.progress, self.state.starts()
        ended = self._bulk_ended(report)
        named = False
        for device in report.devices:
            exact = device.size.exact is not None
            end = device.disk.covered.end * SECTOR_SIZE
            behind = [gap for gap in device.missing if gap[0] >= end and ended is False]
            before = [gap for gap in device.missing if gap not in behind]
            if behind:
                named = True
                others = "" if exact else ", or disks that never began"
                self._abandoned(_never_came(behind, exact=exact) + others, device.disk.name)
            if before and self._incremental:
                self.add("incremental", _never_came(before, exact=exact), device=device.disk.name)
            elif before:
                text = _never_came(before, exact=exact)
                if ended:
                    text += "; progress went on past them: say --incremental if they are meant"
                self.add("missing-chunks", text, device=device.disk.name)
        unsent = progress.never_sent(starts) * SECTOR_SIZE
        if ended is False and not named:
            least = f"at least {human_size(unsent)}" if unsent else "more"
            self._abandoned(f"{least} never came, of these disks or of others")
        elif unsent and len(starts) > 1 and ended is None and not self._incremental:
            text = f"progress shows that at least {human_size(unsent)} more never came"
            self.add("missing-chunks", text)

    def _abandoned(self, what: str, device: str | None = None) -> None:
        percent = self.state.progress.percent
        self.add(
            "bulk-unfinished",
            f"the bulk phase was abandoned at {percent} %: {what}; "
            "capture again with downtime-limit 0, which makes it whole",
            device=device,
        )


def _never_came(ranges: Ranges, *, exact: bool) -> str:
    total = sum(length for _, length in ranges)
    spans = [f"{start}-{start + length}" for start, length in ranges[:3]]
    more = f" and {len(ranges) - 3} more ranges" if len(ranges) > 3 else ""
    least = "" if exact else "at least "
    return f"{least}{human_size(total)} never came: bytes {', '.join(spans)}{more}"


def _join(gaps: list[tuple[int, int]]) -> Ranges:
    """Sector ranges (start, end), ascending, as byte ranges (start, length) that do not touch."""
    joined: list[tuple[int, int]] = []
    for start, end in gaps:
        touching = bool(joined) and joined[-1][1] == start
        joined.append((joined.pop()[0] if touching else start, end))
    return [(start * SECTOR_SIZE, (end - start) * SECTOR_SIZE) for start, end in joined]


def _room(devices: list[DeviceVerdict]) -> str:
    open_sizes = []
    for device in devices:
        if device.disk.has_blocks and device.size.exact is None:
            most = "?" if device.size.most is None else human_size(device.size.most)
            open_sizes.append(
                f"{quote(device.disk.name)} has {human_size(device.size.least)} to {most}"
            )
    return f"{', '.join(open_sizes)}: say how much with --device-size"
