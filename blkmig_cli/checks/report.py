"""The report on one stream: an immutable verdict with findings."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Literal

from blkmig_cli.checks.catalogue import Finding, finding_of
from blkmig_cli.contents.bitmaps import BitmapState
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.contents.state import DiskState
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import BlkmigError, FailureError, NotAStreamError
from blkmig_cli.ranges import ByteRanges
from blkmig_cli.wire.identity import Identity

if TYPE_CHECKING:
    from blkmig_cli.transport.store import ObjectVersion

#: Ranges of a disk: start and length, in bytes.
Ranges = Sequence[tuple[int, int]]

#: The verdicts, from the best to the worst; ``failed``: the input is missing, or failed.
Verdict = Literal["whole", "unknown", "incomplete", "faulty", "damaged", "not-a-stream", "failed"]


@dataclass(frozen=True, slots=True)
class DeviceVerdict:
    """A disk: its state, its missing ranges, and its size.

    ``intended``: chunks were left out on purpose, and are in the base.  ``end_known``: the size is
    known, or the stream has all that its bounds allow.
    """

    disk: DiskState
    missing: ByteRanges
    size: SizeBounds
    intended: bool
    end_known: bool

    @property
    def missing_bytes(self) -> int:
        """Bytes of the disk that are known to be missing."""
        return self.missing.total


@dataclass(frozen=True, slots=True)
class DirtyRanges:
    """The first dirty ranges of a bitmap, in bytes, and how many more there are."""

    ranges: Ranges
    omitted: int


@dataclass(frozen=True, slots=True)
class BitmapVerdict:
    """A bitmap: candidates of its granularity in bytes, dirty bytes, and whether it is complete.

    ``count`` is None while the granularity is unknown; ``complete`` is None if unknown: it is complete
    for a disk of up to ``reach`` bytes.  ``limit``: the disk's end in bytes, at most, if that is known;
    ``listed``: dirty ranges of a bitmap whose bits are not at hand.
    """

    bitmap: BitmapState
    candidates: tuple[int, ...]
    count: int | None
    complete: bool | None
    reach: int
    limit: int | None = None
    listed: DirtyRanges | None = None

    def dirty_ranges(self, most: int) -> DirtyRanges | None:
        """Return up to ``most`` dirty ranges; None while the granularity is unknown."""
        content = self.bitmap.content
        if content is None:
            return self.listed
        ranges: list[tuple[int, int]] = []
        total = 0
        for part in content.range_parts(self.limit):
            total += len(part)
            ranges += map(tuple, part[: most - len(ranges)].tolist())
        return DirtyRanges(ranges, total - len(ranges))


@dataclass(frozen=True, slots=True)
class Transfer:
    """What was moved to read an object in a store of ``size`` bytes, None if unknown.

    ``moved``: bytes.  ``version``: that of the object which was read.
    """

    moved: int
    requests: int
    size: int | None
    version: "ObjectVersion"


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on one stream.

    ``complete`` is None if unknown.  ``identity``: that of the stream, if it has one.  ``failure``:
    the error that ended the reading, if any; ``next_stream``: the offset of a further stream in the input.
    ``same``: devices and paths of images that match the disks in the stream; ``differing``: by
    device, the ranges in which an image does not; ``manifest``: the file of the manifest that the
    stream matches; ``transfer``: of a stream at a URL, what was moved.
    """

    stream: str
    dialect: str | None = None
    container: str | None = None
    complete: bool | None = None
    identity: Identity | None = None
    devices: tuple[DeviceVerdict, ...] = ()
    bitmaps: tuple[BitmapVerdict, ...] = ()
    findings: tuple[Finding, ...] = ()
    failure: BlkmigError | None = None
    next_stream: int | None = None
    same: tuple[tuple[str, str], ...] = ()
    differing: Mapping[str, Ranges] = field(default_factory=dict)
    manifest: str | None = None
    transfer: Transfer | None = None

    @property
    def valid(self) -> bool:
        """Whether the stream was read to its end without an error finding."""
        return self.failure is None and not self.counting()

    @property
    def verdict(self) -> Verdict:
        """The verdict in one word, the same in every output."""
        if self.failure is not None:
            if isinstance(self.failure, NotAStreamError):
                return "not-a-stream"
            return "failed" if isinstance(self.failure, FailureError) else "damaged"
        if self.complete is False:
            return "incomplete"
        if not self.valid:
            return "faulty"
        return "whole" if self.complete else "unknown"

    def counting(self, *, strict: bool = False) -> tuple[Finding, ...]:
        """Return the findings that fail a check: errors, and if ``strict`` warnings."""
        bad = ("error", "warning") if strict else ("error",)
        return tuple(finding for finding in self.findings if finding.severity in bad)

    def exit_status(self, *, strict: bool = False) -> int:
        """Return 3 or 4 if the stream could not be read, 1 if a finding counts (``strict``), else 0."""
        if self.failure is not None:
            return self.failure.exit_status
        return int(bool(self.counting(strict=strict)))

    def check_read(self) -> None:
        """Check that the stream was read to its end.

        Raises the error that ended the reading otherwise, a BlkmigError, with the stream's name.
        """
        if self.failure is not None:
            self.failure.stream = self.stream
            raise self.failure

    def adding(self, findings: Iterable[Finding]) -> "Report":
        """Return the report with more ``findings``."""
        return replace(self, findings=(*self.findings, *findings))

    def ignoring(self, checks: Collection[str]) -> "Report":
        """Return the report without the findings of ``checks``."""
        kept = tuple(finding for finding in self.findings if finding.id not in checks)
        return replace(self, findings=kept)


def failed_report(stream: str, error: BlkmigError) -> Report:
    """Return the report on a stream that could not be opened or read because of ``error``."""
    return Report(stream, failure=error, findings=(finding_of(error),))
