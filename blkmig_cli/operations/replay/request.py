"""The request to a replay, and its result."""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from blkmig_cli.checks.acceptance import accepting
from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.checks.manifest import Manifest
from blkmig_cli.checks.report import Report
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.qemu.create import check_options
from blkmig_cli.errors import StreamError, UsageError
from blkmig_cli.wire.decoder import Container
from blkmig_cli.wire.hints import Hints

Dialect = Literal["auto", "classic", "v1", "v2", "qemu"]

#: The part of an image's name that is replaced by the device, where images are created.
TEMPLATE = "{device}"


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """The destinations of the disks of a stream, and how to write them.

    ``images``, ``bitmap_files``: paths by device; None is the key of the only device, and where images
    are created, a path with ``{device}`` in it is for every device without its own.  ``devices``:
    those to apply; None: all.

    ``create``: create the images, which must not exist.  ``overwrite``: create them, and replace
    existing ones.  ``formats``: those of the images by device, None for all others (-f);
    ``format_options``: options of new ones (-o).  ``mounted``: write a block device even if it is
    mounted (--force).

    ``disks``, ``bitmaps``: whether these are applied at all.  ``incremental``: missing chunks are
    intentional.  ``allow_incomplete``: apply the intact part of an incomplete or damaged stream.
    ``dry_run``: check everything, write nothing.  ``resume``: continue a replay that was interrupted;
    ``restart``: start it over.  ``verify``: read back what was written.  ``manifest``: compare the
    images with it.

    ``verify_base``: the manifest of an increment's base, with which the images are compared first;
    ``base_check``: check that the images hold the base of an increment.

    ``number``: that of several streams in the input.  ``hints``: sizes of disks and granularities of
    bitmaps.  ``dialect``, ``container``: how the stream is read.
    """

    images: Mapping[str | None, str] = field(default_factory=dict)
    bitmap_files: Mapping[str | None, str] = field(default_factory=dict)
    devices: frozenset[str] | None = None
    create: bool = False
    overwrite: bool = False
    formats: Mapping[str | None, str] = field(default_factory=dict)
    format_options: tuple[str, ...] = ()
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
    verify_base: Manifest | None = None
    base_check: bool = True
    hints: Hints = field(default_factory=Hints)
    number: int | None = None
    dialect: Dialect = "auto"
    container: Container = "auto"

    @property
    def makes(self) -> bool:
        """Whether images are created, not written in place."""
        return self.create or self.overwrite

    @property
    def continues(self) -> bool:
        """Whether an earlier replay is expected, to be continued or started over."""
        return self.resume or self.restart

    @property
    def accepts(self) -> bool:
        """Whether an image may be accepted as it is, without a stream."""
        return self.resume and self.allow_incomplete

    @property
    def known(self) -> Hints:
        """The hints, completed by those of the manifest."""
        return self.hints if self.manifest is None else self.manifest.completing(self.hints)

    def takes(self, device: str) -> bool:
        """Return whether ``device`` is among those to apply."""
        return self.devices is None or device in self.devices

    def format_of(self, device: str | None) -> str | None:
        """Return the specified format of the image of ``device``, None without."""
        return self.formats.get(device, self.formats.get(None))

    def check(self, *, with_stream: bool) -> None:
        """Check the request, ``with_stream`` or without; raises UsageError for a contradiction."""
        if not (self.disks or self.bitmaps):
            raise UsageError("--no-bitmaps and --bitmaps-only together leave nothing to do")
        if self.bitmap_files and not self.bitmaps:
            raise UsageError("--no-bitmaps and --bitmaps-to exclude each other")
        if self.resume and self.restart:
            raise UsageError("--resume and --restart exclude each other")
        if self.format_options and not self.makes:
            raise UsageError("-o is for images that are created", hint="see --create")
        check_options(self.format_options)
        if self.continues and (self.dry_run or not self.disks):
            raise UsageError("--resume and --restart need disks to be written")
        if self.manifest is not None and self.dry_run:
            raise UsageError(
                "--manifest is compared with what was written",
                hint="see blkmig validate --manifest",
            )
        if self.verify_base is not None and not self.base_check:
            raise UsageError("--verify-base and --no-base-check exclude each other")
        if not with_stream:
            if not self.accepts:
                raise UsageError("no STREAM is specified")
            if not self.images:
                raise UsageError("no --image is specified")


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result of a replay.

    ``report``: the verdict on the stream, and all findings.  ``accepted``: it was applied to its end;
    False: it is incomplete or damaged, and so are the images.  ``written``: bytes by device.
    ``bitmap_files``: files of bitmaps that were written.  ``partial_images``: images that are
    incomplete; ``applied``: devices whose images hold the increment already; ``resumed``: by device,
    the offset in the stream up to which an earlier run had applied it, None where that run had
    finished everything.
    """

    report: Report
    accepted: bool
    written: dict[str, int] = field(default_factory=dict)
    bitmap_files: list[str] = field(default_factory=list)
    partial_images: list[str] = field(default_factory=list)
    resumed: dict[str, int | None] = field(default_factory=dict)
    applied: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def reason(self) -> Finding | None:
        """The finding for which a stream that was read to its end was not applied; None if it was."""
        if self.accepted or self.report.failure is not None:
            return None
        errors = self.report.counting()
        return next((f for f in errors if not _acceptable(f)), errors[0] if errors else None)

    @property
    def problem(self) -> str | None:
        """Why the stream was not applied to its end, with a hint, as one line; None if it was."""
        failure, sound = self.report.failure, "use --allow-incomplete to take what is sound"
        if failure is not None:
            damaged = isinstance(failure, StreamError) and not self.accepted and not failure.hint
            return f"{failure}; {sound}" if damaged and self.report.devices else str(failure)
        found = self.reason
        if found is None:
            return None
        state = "incomplete" if self.partial_images else "nothing was written"
        place = f" ({found.place})" if found.place else ""
        hint = f"; {sound}" if _acceptable(found) else ""
        return f"{state}: {found.message}{place} [{found.id}]{hint}"

    @property
    def exit_status(self) -> int:
        """The exit status: 0; 1 for findings; 3 or 4 where the replay could not be completed."""
        return self.report.exit_status()


def _acceptable(found: Finding) -> bool:
    """Return whether --allow-incomplete accepts a finding."""
    return "--allow-incomplete" in accepting("replay", found.id)
