"""Validating one stream: the checks over its events, and images held against it."""

from collections.abc import Callable
from contextlib import ExitStack, closing

from blkmig_cli.checks.checker import Checker, Ranges, Report
from blkmig_cli.checks.compatibility import Traits, Version, objections
from blkmig_cli.checks.manifest import Manifest, check_images
from blkmig_cli.checks.survey import Contents, read_events, source_of_data
from blkmig_cli.contents.final_layout import EndStates
from blkmig_cli.disks.raw import RawImage, open_raw
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.image_comparison import ImageComparison
from blkmig_cli.progress import Tick
from blkmig_cli.text import count, escape, human_size, quote
from blkmig_cli.transport.source import Stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block, Configuration, Event
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import Run
from blkmig_cli.wire.schema_io import Input

# Ranges that a sentence names; the JSON has all of them.
_SHOWN = 5


class ImagesToCompare:
    """Paths of images by device (None: the stream's only one).

    ``force``, ``shared``: see ``open_raw``.
    """

    def __init__(self, paths: dict[str | None, str], *, force: bool, shared: bool) -> None:
        self._paths = paths
        self._force = force
        self._shared = shared

    def _open(self, path: str) -> RawImage:
        return open_raw(path, writable=False, force=self._force, shared=self._shared)

    def open(self, stack: ExitStack) -> dict[str | None, RawImage]:
        """Open them all, to be closed by ``stack``; raises FailureError."""
        return {
            device: stack.enter_context(closing(self._open(path)))
            for device, path in self._paths.items()
        }


def validate_stream(
    stream: Stream,
    hints: Hints,
    decoder: Callable[[Input, Hints], Decoder],
    tick: Tick,
    to_compare: ImagesToCompare,
    *,
    incremental: bool,
    for_qemu: Version | None = None,
    manifest: Manifest | None = None,
) -> Report:
    """Read ``stream`` to its end, and judge it.

    Raises FailureError where the input or an image fails; UsageError where an image has no device,
    or a ``manifest`` needs the data of a pipe.
    """
    against = ManifestCheck(manifest, stream)
    with ExitStack() as stack:
        images = to_compare.open(stack)
        sizes = {device: image.size for device, image in images.items()}
        known = against.hints(Hints({**sizes, **hints.sizes}, hints.granularities))
        events = decoder(stream.input, known)
        checker = Checker(events, known, incremental=incremental)
        comparisons: dict[str, ImageComparison] = {}
        machine: str | None = None

        def take(event: Event) -> None:
            nonlocal machine
            checker.feed(event, stream.input)
            against.feed(event)
            if isinstance(event, Configuration):
                machine = event.machine
            if isinstance(event, Block) and images:
                image = images.get(event.device, images.get(None))
                if image is not None:
                    if event.device not in comparisons:
                        comparisons[event.device] = ImageComparison(image)
                    comparisons[event.device].feed(event, stream.input)

        def take_run(run: Run) -> None:
            checker.feed_run(run, stream.input)
            against.feed_run(run)

        failure = read_events(events, take, tick, None if images else take_run)
        report = checker.finish(stream.name, stream.input, failure)
        if for_qemu is not None and failure is None:
            for objection in objections(_traits(report, machine), for_qemu):
                checker.add("qemu-cannot-load", objection)
        _check_devices(images, comparisons, report)
        for device, comparison in comparisons.items():
            image = images.get(device, images.get(None))
            assert image is not None
            _size_mismatch(checker, hints, device, image)
            differing = report.differing[device] = comparison.differing()
            if differing:
                checker.add("image-differs", _differing(differing, image.path), device=device)
            elif failure is None:
                report.same.append((device, image.path))
        against.finish(checker, report, tick, incremental=incremental)
        return report


def _traits(report: Report, machine: str | None) -> Traits:
    disks = [device for device in report.devices if device.disk.has_blocks]
    cut = {finding.device for finding in report.findings if finding.id == "partial-tail"}
    return Traits(
        report.dialect or "classic",
        report.container or "qemu",
        machine,
        [device.disk.name for device in disks],
        [device.disk.name for device in disks if device.disk.name in cut],
        zero_blocks=any(device.disk.zero_chunks for device in disks),
        bitmaps=bool(report.bitmaps),
    )


def _check_devices(
    images: dict[str | None, RawImage], comparisons: dict[str, ImageComparison], report: Report
) -> None:
    names = ", ".join(quote(verdict.disk.name) for verdict in report.devices) or "none"
    hint = f"the stream has {names}"
    for device in images:
        if device is not None and device not in comparisons and report.failure is None:
            raise UsageError(f"no block is of device {quote(device)}", hint=hint)
    if None in images and len(comparisons) > len(images):
        raise UsageError("an image without a device, and several devices", hint=hint)


def _size_mismatch(checker: Checker, told: Hints, device: str, image: RawImage) -> None:
    bounds = checker.state.size(device, told.size(device))
    if image.size < bounds.least or (bounds.most is not None and image.size > bounds.most):
        most = "?" if bounds.most is None else str(bounds.most)
        checker.add(
            "size-mismatch",
            f"{escape(image.path)} has {image.size} bytes, the disk {bounds.least} to {most}",
            device=device,
        )


def _differing(ranges: Ranges, path: str) -> str:
    total = sum(length for _, length in ranges)
    spans = ", ".join(f"{start}-{start + length}" for start, length in ranges[:_SHOWN])
    more = f" and {count(len(ranges) - _SHOWN, 'range')} more" if len(ranges) > _SHOWN else ""
    return f"{escape(path)} differs in {human_size(total)}: bytes {spans}{more}"


_DIFFERS, _UNCHECKED = "manifest-differs", "manifest-unchecked"


class ManifestCheck:
    """Holds ``stream`` against ``manifest``; without one (None) it does nothing."""

    def __init__(self, manifest: Manifest | None, stream: Stream) -> None:
        """Raises UsageError where disks must be read, and the stream is a pipe."""
        self._manifest = manifest
        self._stream = stream
        self._states = EndStates()
        if manifest is not None and manifest.to_read:
            source_of_data(stream)

    def hints(self, told: Hints) -> Hints:
        """What is ``told`` of the stream, and beside that what the manifest tells."""
        return told if self._manifest is None else self._manifest.completing(told)

    def feed(self, event: Event) -> None:
        """Take the next event."""
        if self._manifest is not None:
            self._states.feed(event)

    def feed_run(self, run: Run) -> None:
        """Take a run of events whole."""
        if self._manifest is not None:
            self._states.feed_run(run)

    def finish(self, checker: Checker, report: Report, tick: Tick, *, incremental: bool) -> None:
        """Add to ``checker`` what is not as it should be, now that the stream has been read.

        Of a damaged stream nothing more is said.  ``incremental``: missing chunks are meant.
        ``tick`` is told the bytes gone through.  Raises FailureError where the stream's file fails.
        """
        manifest = self._manifest
        if manifest is None or report.failure is not None:
            return
        contents = Contents(self._stream, checker, report, self._states)
        before = len(checker.findings)
        disks = {}
        partial = set()
        for verdict in report.devices:
            name, entry = verdict.disk.name, manifest.disks.get(verdict.disk.name)
            if not verdict.disk.has_blocks or (entry is not None and entry.sha256 is None):
                continue
            if entry is not None and verdict.missing:
                partial.add(name)
                length = sum(length for _, length in verdict.missing)
                text = f"{human_size(length)} of the disk never came"
                checker.add(_UNCHECKED if incremental else _DIFFERS, text, device=name)
            elif entry is not None:
                disks[name] = contents.disk(name)
            else:
                checker.add(_DIFFERS, "the disk is not in the manifest", device=name)
        bitmaps = {
            key: bitmap.content
            for key, bitmap in checker.state.bitmaps.items()
            if bitmap.content is not None
        }
        read = self._stream.input.size or 0
        for found in check_images(
            manifest, disks, bitmaps, lambda done: tick(read + done), partial
        ):
            checker.add(_DIFFERS, found.message, device=found.device)
        if len(checker.findings) == before:
            report.manifest = manifest.path
