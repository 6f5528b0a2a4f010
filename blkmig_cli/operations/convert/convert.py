"""Converting a complete stream to another dialect."""

from collections.abc import Callable, Iterable

from blkmig_cli.checks.compatibility import Version
from blkmig_cli.checks.names import Names
from blkmig_cli.checks.survey import Contents, source_of_data
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import IncompleteError, UsageError
from blkmig_cli.operations.convert.disks import (
    check_empty_chunks,
    check_sizes,
    check_stated_sizes,
    disks_of,
    refuse_faults,
)
from blkmig_cli.operations.convert.translation import LastRecords, Translation
from blkmig_cli.operations.reading import Reading
from blkmig_cli.operations.send.bitmaps import add_bitmaps
from blkmig_cli.operations.send.changes import Files
from blkmig_cli.operations.send.dialects import DIALECTS
from blkmig_cli.operations.send.requirements import check_disks, warnings_for
from blkmig_cli.operations.send.stream import SendOptions, send_pieces
from blkmig_cli.operations.send.writing import write_disks
from blkmig_cli.progress import ignore
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import quote
from blkmig_cli.transport.target import Resolve, open_target, resolve_content, resolving
from blkmig_cli.wire.runs.columns import Piece


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """How to convert.  ``dialect``: qemu, classic, v1 or v2.

    ``normalize``: write the chunks sorted, each once, with zeros detected, without RAM and devices;
    only then ``container`` (qemu or none) and ``machine`` may differ from those of the stream (None).
    ``bitmaps``: include the stream's bitmaps.  ``incremental``: missing chunks are intentional.
    """

    dialect: str = "qemu"
    container: str | None = None
    normalize: bool = False
    machine: str | None = None
    bitmaps: bool = True
    incremental: bool = False


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """The result: bytes ``written``, and the warnings given before."""

    written: int
    warnings: tuple[str, ...]


def convert(
    stream: str,
    target: str | None = None,
    options: ConvertOptions | None = None,
    *,
    reading: Reading | None = None,
    bitmaps_from: Files | None = None,
    for_qemu: Version | None = None,
    warn: Callable[[str], None] = ignore,
) -> ConvertResult:
    """Write the STREAM ``stream`` to ``target`` (TARGET; None: stdout) in another dialect.

    ``reading``: how the stream is read.  ``bitmaps_from``: files of bitmaps by device, which replace
    those of the same name.  ``warn`` is called with each warning before the first byte is written,
    also if QEMU ``for_qemu`` cannot load the result.

    Raises StreamError for a damaged stream; IncompleteError where chunks or bits are missing, or for
    another fault of the stream; UsageError for options that contradict each other or the stream; FailureError
    where a file, a bitmap or the target fails or does not fit.
    """
    chosen, how, files = options or ConvertOptions(), reading or Reading(), bitmaps_from or {}
    if not chosen.normalize:
        for option, value in (("--machine", chosen.machine), ("--base", how.bases)):
            if value:
                raise UsageError(f"{option} requires a new stream", hint="use --normalize")
    last = LastRecords()
    uses = FileUses.of_stream(stream, *how.bases)
    for file in files.values():
        uses.add("the bitmaps file", file, writes=False)
    with how.contents(stream, last, again=True) as contents:
        Names.of(contents.report).check_hints(how.hints)
        if chosen.normalize:
            return write_new(contents, target, chosen, how, files, for_qemu, warn, uses)
        if chosen.container not in (None, contents.report.container or "qemu"):
            raise UsageError("another container requires a new stream", hint="use --normalize")
        disks, _, warnings = _prepared(contents, chosen, files, for_qemu)
        _check_records(contents, disks, last, chosen.dialect)
        source = source_of_data(contents.stream).again()
        pieces = Translation(chosen.dialect, disks, last).pieces(how.decoder(source).pieces())
        return _written(pieces, disks, target, uses, how, warnings, warn, resolving(source))


def write_new(
    contents: Contents,
    target: str | None,
    options: ConvertOptions,
    reading: Reading,
    files: Files,
    for_qemu: Version | None,
    warn: Callable[[str], None],
    uses: FileUses,
) -> ConvertResult:
    """Write a new stream of the disks and bitmaps in ``contents``, and of those in ``files``.

    ``uses``: the files that are read.  For the rest, see :func:`convert`.
    """
    disks, sending, warnings = _prepared(contents, options, files, for_qemu)
    disks.sort(key=lambda disk: disk.device)
    if sending.container == "none" != contents.report.container:
        if sending.salvaged:
            raise UsageError(
                "container none cannot state that the stream is the intact part of a damaged one",
                hint="use --container qemu",
            )
        check_stated_sizes(contents.report, disks, options.dialect)
    pieces = send_pieces(disks, sending)
    return _written(pieces, disks, target, uses, reading, warnings, warn, resolve_content)


def _prepared(
    contents: Contents, options: ConvertOptions, files: Files, for_qemu: Version | None
) -> tuple[list[Disk], SendOptions, tuple[str, ...]]:
    """Return the disks to write, checked, how to send them, and warnings; raises as :func:`convert`."""
    report = contents.report
    refuse_faults(report, bitmaps=options.bitmaps, incremental=options.incremental)
    disks = disks_of(contents, bitmaps=options.bitmaps, incremental=options.incremental)
    add_bitmaps(disks, files)
    sending = SendOptions(
        options.dialect,
        options.container or report.container or "qemu",
        options.machine or "none",
        disks=any(verdict.disk.has_blocks for verdict in report.devices),
        sizes={
            verdict.disk.name: verdict.size.exact
            for verdict in report.devices
            if verdict.size.exact
        },
        identity=report.identity,
        salvaged=contents.checker.state.salvaged,
    )
    check_disks(disks, sending)
    if options.dialect == "v1":
        check_empty_chunks(disks)
    on_grid = DIALECTS[options.dialect].on_grid
    warnings = (
        *check_sizes(report, disks, filled=options.normalize, on_grid=on_grid),
        *warnings_for(disks, sending, for_qemu),
    )
    return disks, sending, warnings


def _written(
    pieces: Iterable[Piece],
    disks: list[Disk],
    target: str | None,
    uses: FileUses,
    reading: Reading,
    warnings: tuple[str, ...],
    warn: Callable[[str], None],
    resolve: Resolve,
) -> ConvertResult:
    """Write ``pieces`` of ``disks`` to the ``target``, after the ``warnings``."""
    total = sum(disk.size for disk in disks)
    with (
        open_target(target, uses) as sink,
        reading.progress("converting", total) as tick,
    ):
        for warning in warnings:
            warn(warning)
        write_disks(pieces, disks, sink, tick, resolve)
    return ConvertResult(sink.written, warnings)


def _check_records(contents: Contents, disks: list[Disk], last: LastRecords, dialect: str) -> None:
    """Check that there are block records to carry the bitmaps, and the end that makes them final.

    Raises UsageError, IncompleteError.
    """
    with_bitmaps = [disk.device for disk in disks if disk.bitmaps and dialect != "qemu"]
    for device in with_bitmaps:
        if device not in last.offsets:
            raise UsageError(
                f"no block record can carry the bitmaps of device {quote(device)}",
                hint="use --normalize",
            )
    ids = {finding.id for finding in contents.report.findings}
    if with_bitmaps and dialect == "v2" and "no-final-progress" in ids:
        raise IncompleteError(
            "the block section ends without 100 percent, which makes the bits of dialect v2 final",
            hint="use --normalize",
            check="no-final-progress",
        )
