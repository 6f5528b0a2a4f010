"""Validating one stream: checking its events, and comparing it with images and manifests."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import field, replace
from functools import partial

from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.checks.checker import Checker
from blkmig_cli.checks.compatibility import Traits, Version, objections
from blkmig_cli.checks.judge import differing, found
from blkmig_cli.checks.manifest import Manifest, check_images
from blkmig_cli.checks.report import Report
from blkmig_cli.checks.survey import Contents, read_stream, source_of_data, with_transfer
from blkmig_cli.contents.final_layout import EndStates
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.open import open_image
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.compare import differing_ranges
from blkmig_cli.operations.reading import Reading, each_report
from blkmig_cli.progress import Tick
from blkmig_cli.text import escape, human_size, names_text, quote
from blkmig_cli.transport.source import Stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Consumer
from blkmig_cli.wire.schema_io import Input


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """What to check in addition to the stream itself.

    ``images``: paths or NBD URIs of images to compare, by device (None: the stream's only one);
    ``formats``: theirs, by device, None for all others (-f); ``shared``: even if another program
    writes them.
    ``incremental``: missing chunks are intentional.  ``for_qemu``: warn if this QEMU cannot load it.
    """

    images: dict[str | None, str] = field(default_factory=dict)
    formats: Mapping[str | None, str] = field(default_factory=dict)
    shared: bool = False
    incremental: bool = False
    for_qemu: Version | None = None
    manifest: Manifest | None = None

    @property
    def reads_data(self) -> bool:
        """Whether the disks' content is read after the stream's records."""
        return bool(self.images) or (self.manifest is not None and self.manifest.to_read > 0)

    def open_images(self, stack: ExitStack) -> dict[str | None, Image]:
        """Open the images, to be closed by ``stack``; raises FailureError."""
        return {
            device: stack.enter_context(
                closing(
                    open_image(
                        path,
                        image_format=self.formats.get(device, self.formats.get(None)),
                        shared=self.shared,
                    )
                )
            )
            for device, path in self.images.items()
        }


def validate_stream(
    stream: Stream,
    hints: Hints,
    make_decoder: Callable[[Input, Hints], Decoder],
    tick: Tick,
    options: ValidateOptions,
) -> Report:
    """Read ``stream`` to its end, and judge it.

    Raises FailureError where the input or an image fails; UsageError where an image has no device,
    or a manifest needs the data of a pipe.
    """
    if options.reads_data:
        source_of_data(stream)
    with ExitStack() as stack:
        images = options.open_images(stack)
        sizes = {device: image.size for device, image in images.items() if image.is_file}
        known = replace(hints, images={**hints.images, **sizes})
        if options.manifest is not None:
            known = options.manifest.completing(known)
        decoder = make_decoder(stream.input, known)
        checker = Checker(known, incremental=options.incremental)
        states = EndStates()
        consumers: list[Consumer] = [checker]
        if images or options.manifest is not None:
            consumers.append(states)
        failure = read_stream(decoder, tick, *consumers)
        report = with_transfer(checker.finish(stream.name, decoder, failure), stream)
        if images:
            contents = Contents(stream, checker, report, states)
            report = _against_images(images, contents, known, tick)
        if failure is None and options.for_qemu is not None:
            traits = _traits(report, checker.state.machine)
            texts = objections(traits, options.for_qemu)
            report = report.adding(found("qemu-cannot-load", text) for text in texts)
        if failure is None and options.manifest is not None:
            contents = Contents(stream, checker, report, states)
            report = _against_manifest(options.manifest, contents, tick, options)
        return report


def validate_all(name: str, reading: Reading, options: ValidateOptions) -> Iterator[Report]:
    """Yield the report on each stream in the STREAM ``name``, in order.

    Raises as :func:`validate_stream`, and FailureError or StreamError where it cannot be opened.
    """
    reading = replace(reading, number=1)
    with reading.open(name, again=options.reads_data, by_range=True) as stream:
        total = stream.input.size
        if total is not None and options.manifest is not None:
            total += options.manifest.to_read
        with reading.progress("validating", total) as tick:
            judge = partial(
                validate_stream,
                hints=reading.hints,
                make_decoder=reading.decoder_for,
                tick=tick,
                options=options,
            )
            yield from each_report(stream, judge)


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


def _images_by_device(images: dict[str | None, Image], report: Report) -> list[tuple[str, Image]]:
    """Return the images with the devices whose disks they are compared with.

    Raises UsageError where an image belongs to no device of the stream, or to several.
    """
    disks = [verdict.disk.name for verdict in report.devices if verdict.disk.has_blocks]
    hint = f"the stream has {names_text(verdict.disk.name for verdict in report.devices)}"
    for device in images:
        if device is not None and device not in disks and report.failure is None:
            raise UsageError(f"the stream has no blocks of device {quote(device)}", hint=hint)
    if None in images and len(disks) > len(images):
        raise UsageError("an image without DEVICE, and several devices", hint=hint)
    found_images = ((device, images.get(device, images.get(None))) for device in disks)
    return [(device, image) for device, image in found_images if image is not None]


def _against_images(
    images: dict[str | None, Image], contents: Contents, hints: Hints, tick: Tick
) -> Report:
    """Return the report with the differences from ``images``, by device (None: the only one)."""
    report = contents.report
    findings: list[Finding] = []
    same, ranges = [], {}
    for device, image in _images_by_device(images, report):
        findings += _sizes(contents.checker, hints, device, image)
        differ = differing_ranges(contents.disk(device), image, partial(tick, disk=device))
        ranges[device] = tuple((start, end - start) for start, end in differ)
        findings += differing(ranges[device], image.path, device)
        if not ranges[device] and report.failure is None:
            same.append((device, image.path))
    return replace(report.adding(findings), same=tuple(same), differing=ranges)


def _sizes(checker: Checker, hints: Hints, device: str, image: Image) -> Iterator[Finding]:
    """Yield the finding that an image cannot have the disk's size; a device may be larger."""
    size = hints.option_size(device)
    least = most = size
    if size is None:
        bounds = checker.state.proven_size(device)
        least, most = bounds.least, bounds.most
    larger = image.is_file and most is not None and image.size > most and size is None
    if image.size < (least or 0) or larger:
        between = f"at least {least}" if most is None else f"{least} to {most}"
        disk = str(most) if least == most else between
        text = f"{escape(image.path)} has {image.size} bytes, the disk has {disk}"
        yield found("size-mismatch", text, device=device)


def _against_manifest(
    manifest: Manifest, contents: Contents, tick: Tick, options: ValidateOptions
) -> Report:
    """Return the report with the differences from ``manifest``.

    ``tick`` gets the bytes read so far.  Raises FailureError where the stream's file fails.
    """
    report, findings = contents.report, []
    disks, partly_sent = {}, set()
    for verdict in report.devices:
        name, entry = verdict.disk.name, manifest.disks.get(verdict.disk.name)
        if not verdict.disk.has_blocks or (entry is not None and entry.sha256 is None):
            continue
        if entry is not None and verdict.missing:
            partly_sent.add(name)
            text = f"{human_size(verdict.missing_bytes)} of the disk was not sent"
            check = "manifest-unchecked" if options.incremental else "manifest-differs"
            findings.append(found(check, text, device=name))
        elif entry is not None:
            disks[name] = contents.disk(name)
        else:
            findings.append(
                found("manifest-differs", "the disk is not in the manifest", device=name)
            )
    bitmaps = {
        key: bitmap.content
        for key, bitmap in contents.checker.state.bitmaps.items()
        if bitmap.content is not None
    }
    read = contents.stream.input.size or 0
    differences = check_images(
        manifest,
        disks,
        bitmaps,
        lambda done, disk=None: tick(read + done, disk),
        partly_sent,
    )
    findings += [
        found("manifest-differs", difference.message, device=difference.device)
        for difference in differences
    ]
    return report.adding(findings) if findings else replace(report, manifest=manifest.path)
