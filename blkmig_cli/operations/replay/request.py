"""What a replay is asked to do, and what it did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from blkmig_cli.checks.manifest import Manifest
from blkmig_cli.checks.report import Report
from blkmig_cli.errors import StreamError, UsageError
from blkmig_cli.wire.decoder import Container
from blkmig_cli.wire.hints import Hints

Dialect = Literal["auto", "classic", "v1", "v2", "qemu"]

#: What is missing: accepted with --allow-incomplete, and of no importance where disks are not written.
MISSING = ("missing-chunks", "bulk-unfinished", "section-unfinished")

#: What an image's name stands for every device with, where images are made.
TEMPLATE = "{device}"


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Where the disks of a stream go, and how.

    ``images``, ``bitmap_files``: paths by device; None stands for the only device, and where images
    are made, a path with ``{device}`` in it for every one that is not named.  ``devices``: those to
    take; None: all.

    ``create``: the images are made, and must not exist.  ``overwrite``: they are made, and replace
    those that exist.  ``force``: they are raw, whatever they look like (-f raw).  ``mounted``: write
    a block device even while it is mounted (--force).

    ``disks``, ``bitmaps``: whether these are applied at all.  ``incremental``: missing chunks are
    intended.  ``allow_incomplete``: take what is sound of an incomplete or damaged stream.
    ``dry_run``: check everything, write nothing.  ``resume``: continue a replay that was interrupted;
    ``restart``: start it afresh.  ``verify``: read back what was written.  ``manifest``: compare the
    images with it.

    ``number``: which of several streams in the input.  ``hints``: sizes of disks and granularities of
    bitmaps.  ``dialect``, ``container``: how the
    stream is read.
    """

    images: Mapping[str | None, str] = field(default_factory=dict)
    bitmap_files: Mapping[str | None, str] = field(default_factory=dict)
    devices: frozenset[str] | None = None
    create: bool = False
    overwrite: bool = False
    force: bool = False
    mounted: bool = False
    disks: bool = True
    bitmaps: bool = True
    incremental: bool = False
    allow_incomplete: bool = False
    dry_run: bool = False
    resume: bool = False
    restart: bool = False
    verify: bool = False
    manifest: Manifest | None = None
    hints: Hints = field(default_factory=Hints)
    number: int | None = None
    dialect: Dialect = "auto"
    container: Container = "auto"

    @property
    def makes(self) -> bool:
        """Whether images are made, not written in place."""
        return self.create or self.overwrite

    @property
    def continues(self) -> bool:
        """Whether an earlier replay is expected: one to continue, or to start afresh."""
        return self.resume or self.restart

    @property
    def known(self) -> Hints:
        """The hints, completed by those of the manifest."""
        return self.hints if self.manifest is None else self.manifest.completing(self.hints)

    def takes(self, device: str) -> bool:
        """Return whether ``device`` is among those to take."""
        return self.devices is None or device in self.devices

    def check(self, *, with_stream: bool) -> None:
        """Check the request, ``with_stream`` or without; raises UsageError where it contradicts itself."""
        if not (self.disks or self.bitmaps):
            raise UsageError("--no-bitmaps and --bitmaps-only together leave nothing to do")
        if self.resume and self.restart:
            raise UsageError("--resume and --restart exclude each other")
        if self.continues and (self.dry_run or not self.disks):
            raise UsageError("--resume and --restart need disks to be written")
        if self.manifest is not None and self.dry_run:
            raise UsageError(
                "--manifest is compared with what was written",
                hint="see blkmig validate --manifest",
            )
        if not with_stream:
            if not (self.resume and self.allow_incomplete):
                raise UsageError("no STREAM is named")
            if not self.images:
                raise UsageError("no --image is named")


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay did.

    ``report``: the verdict on the stream, and all findings.  ``accepted``: it was applied to its end;
    False: it is not all right, so that the images are not, either.  ``written``: bytes by device.
    ``bitmap_files``: files of bitmaps that were written.  ``partial_images``: images that are
    incomplete; ``resumed``: by device, the byte of the stream up to which an earlier run had applied
    it, None where that one had done everything.
    """

    report: Report
    accepted: bool
    written: dict[str, int] = field(default_factory=dict)
    bitmap_files: list[str] = field(default_factory=list)
    partial_images: list[str] = field(default_factory=list)
    resumed: dict[str, int | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def problem(self) -> str | None:
        """Why the stream was not applied to its end, and what to do, in one line; None: it was."""
        failure, sound = self.report.failure, "use --allow-incomplete to take what is sound"
        if failure is not None:
            damaged = isinstance(failure, StreamError) and not self.accepted and not failure.hint
            return f"{failure}; {sound}" if damaged and self.report.devices else str(failure)
        errors = (found for found in self.report.findings if found.severity == "error")
        found = None if self.accepted else next(errors, None)
        if found is None:
            return None
        state = "incomplete" if self.partial_images else "nothing was written"
        place = f" ({found.place})" if found.place else ""
        hint = f"; {sound}" if found.id in MISSING else ""
        return f"{state}: {found.message}{place} [{found.id}]{hint}"

    @property
    def exit_status(self) -> int:
        """0; 1 for findings; 3 or 4 where the work could not be done to its end."""
        return self.report.exit_status()
