"""Converting a complete stream to another dialect."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blkmig_cli.checks.compatibility import Version
from blkmig_cli.checks.names import Names
from blkmig_cli.checks.survey import Contents, source_of_data
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
from blkmig_cli.operations.send.bitmaps import Files, add_bitmaps
from blkmig_cli.operations.send.dialects import DIALECTS
from blkmig_cli.operations.send.requirements import check_disks, warnings_for
from blkmig_cli.operations.send.stream import SendOptions, send_pieces
from blkmig_cli.operations.send.writing import write_disks
from blkmig_cli.progress import ignore
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import quote
from blkmig_cli.transport.target import open_target, resolving
from blkmig_cli.wire.runs import Piece


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
    if chosen.machine is not None and not chosen.normalize:
        raise UsageError("--machine requires a new stream", hint="use --normalize")
    last = LastRecords()
    with how.contents(stream, last, again=True) as contents:
        report = contents.report
        Names.of(report).check_hints(how.hints)
        refuse_faults(report, bitmaps=chosen.bitmaps, incremental=chosen.incremental)
        container = report.container or "qemu"
        if not chosen.normalize and chosen.container not in (None, container):
            raise UsageError("another container requires a new stream", hint="use --normalize")
        disks = disks_of(contents, bitmaps=chosen.bitmaps, incremental=chosen.incremental)
        add_bitmaps(disks, files)
        if chosen.normalize:
            disks.sort(key=lambda disk: disk.device)
        sending = SendOptions(
            chosen.dialect,
            chosen.container or container,
            chosen.machine or "none",
            disks=any(verdict.disk.has_blocks for verdict in report.devices),
            skip_unallocated=chosen.incremental,
            sizes={
                verdict.disk.name: verdict.size.exact
                for verdict in report.devices
                if verdict.size.exact
            },
            identity=report.identity,
        )
        check_disks(disks, sending)
        if chosen.dialect == "v1":
            check_empty_chunks(disks)
        if chosen.normalize and sending.container == "none" != container:
            check_stated_sizes(report, disks, chosen.dialect)
        if not chosen.normalize:
            _check_records(contents, disks, last, chosen.dialect)
        on_grid = DIALECTS[chosen.dialect].on_grid
        warnings = (
            *check_sizes(report, disks, filled=chosen.normalize, on_grid=on_grid),
            *warnings_for(disks, sending, for_qemu),
        )
        total = sum(disk.size for disk in disks)
        source = source_of_data(contents.stream).again()
        pieces: Iterator[Piece]
        if chosen.normalize:
            pieces = send_pieces(disks, sending)
        else:
            pieces = Translation(chosen.dialect, disks, last).pieces(how.decoder(source).pieces())
        uses = FileUses.of_stream(stream)
        for file in files.values():
            uses.add("the bitmaps file", file, writes=False)
        with (
            open_target(target, uses) as sink,
            how.progress("converting", total) as tick,
        ):
            for warning in warnings:
                warn(warning)
            write_disks(pieces, disks, sink, tick, resolving(source))
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
