"""The complete disks and bitmaps of a stream, as input for a new one."""

from collections.abc import Iterator

from blkmig_cli import limits
from blkmig_cli.checks.acceptance import accepted, accepting
from blkmig_cli.checks.report import BitmapVerdict, Report
from blkmig_cli.checks.survey import Contents
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.errors import IncompleteError, LimitError, UndecidableError, UsageError
from blkmig_cli.schemas.constants import CHUNK_SIZE, SECTOR_SIZE
from blkmig_cli.text import count, escape, exact_size, human_size, quote, size_range
from blkmig_cli.wire.v1.layout import describe

_HINTS = {
    "--incremental": "use --incremental if these gaps are intentional; they are preserved",
    "--no-bitmaps": "use --no-bitmaps to leave the bitmaps out",
}


def refuse_faults(report: Report, *, bitmaps: bool, incremental: bool) -> None:
    """Refuse a stream whose faults would be lost or copied in a new stream.

    ``bitmaps``: its bitmaps are used; ``incremental``: its gaps are intentional.  Raises the error
    that ended the reading, if any; IncompleteError for an error finding.
    """
    report.check_read()
    allowed = accepted("convert", {"--incremental": incremental, "--no-bitmaps": not bitmaps})
    for finding in report.findings:
        if finding.severity != "error" or finding.id in allowed:
            continue
        hint = next((_HINTS[option] for option in accepting("convert", finding.id)), None)
        raise IncompleteError(
            finding.message,
            offset=finding.offset,
            device=finding.device,
            hint=hint,
            check=finding.id,
        )


def disks_of(contents: Contents, *, bitmaps: bool, incremental: bool) -> list[Disk]:
    """Return the disks of a stream, with their ``bitmaps`` or without.

    ``incremental``: only the parts of disks that are in the stream, as of those of an increment.  Raises
    UndecidableError where a bitmap's granularity is unknown, IncompleteError where a part of a disk is
    missing.
    """
    disks = []
    for verdict in contents.report.devices:
        device = verdict.disk.name
        owned = [found for found in contents.report.bitmaps if found.bitmap.device == device]
        held = [_content(found) for found in owned if bitmaps]
        if not verdict.disk.has_blocks and not held:
            continue
        image = contents.disk(device)
        if not verdict.disk.has_blocks and verdict.size.exact is None:
            ends = [found.bitmap.covered.end for found in owned]
            image = image.resized(max(ends) * SECTOR_SIZE)
        identity = contents.report.identity
        gaps = incremental or (identity is not None and identity.has_gaps(device))
        missing = sum(length for _, length in verdict.missing)
        if missing and not gaps:
            raise IncompleteError(f"{human_size(missing)} of the disk are missing", device=device)
        # The content of a disk without blocks is unknown.
        partial = gaps or not verdict.disk.has_blocks
        open_ended = partial and verdict.size.exact is None
        disks.append(
            Disk(device, image.incremental() if partial else image, held, partial, open_ended)
        )
    return disks


def _content(verdict: BitmapVerdict) -> DirtyBitmap:
    bitmap = verdict.bitmap
    if bitmap.content is None:
        raise UndecidableError(
            f"the granularity of bitmap {quote(bitmap.name)} is {describe(verdict.candidates)}",
            device=bitmap.device,
            hint="specify it with --granularity, or leave the bitmaps out with --no-bitmaps",
        )
    return bitmap.content


def check_sizes(report: Report, disks: list[Disk], *, filled: bool, on_grid: bool) -> Iterator[str]:
    """Check the sizes of ``disks`` that the stream does not determine; yields warnings.

    ``filled``: the new stream contains everything up to a disk's end; ``on_grid``: its records are on
    the grid of chunks, so that a partial one states the end.  Raises IncompleteError where the end of
    the last chunk, which is assumed to be the disk's, cannot be that, or would be stated.
    """
    verdicts = {verdict.disk.name: verdict for verdict in report.devices}
    for disk in disks:
        verdict = verdicts[disk.device]
        cut = on_grid and disk.size % CHUNK_SIZE > 0
        if verdict.size.exact is not None or not (filled or cut or disk.bitmaps):
            continue
        option = f"--device-size {escape(disk.device)}=SIZE"
        least, most = verdict.size.least, verdict.size.most
        if cut or (most is not None and disk.size > most):
            bounds = f"at least {exact_size(least)}" if most is None else size_range(least, most)
            raise IncompleteError(
                f"size of {quote(disk.device)} is unknown ({bounds})",
                hint=f"specify {option}",
                check="completeness-unknown",
            )
        yield (
            f"size of {quote(disk.device)} is unknown, {exact_size(disk.size)} is assumed; if that is "
            f"wrong, use {option}"
        )


def check_stated_sizes(report: Report, disks: list[Disk], dialect: str) -> None:
    """Check that no size is lost in bare records, which have no description.

    A partial chunk of v2 states its disk's size, and progress records bound that of a single disk of
    several chunks; v1 with bitmaps is read with a size anyway.  Raises UsageError for any other size that
    the stream states.
    """
    verdicts = {verdict.disk.name: verdict for verdict in report.devices}
    for disk in disks:
        verdict = verdicts[disk.device]
        stated = dialect == "v2" and disk.size % CHUNK_SIZE > 0
        bounded = len(disks) == 1 and verdict.disk.has_blocks and disk.size > CHUNK_SIZE
        by_option = verdict.size.exact is None or verdict.size.source == "option"
        if not (stated or bounded or by_option or (dialect == "v1" and disk.bitmaps)):
            raise UsageError(
                f"container none cannot state the size of {quote(disk.device)}",
                hint=f"use --container qemu, or specify --device-size "
                f"{escape(disk.device)}={disk.size}, also to read what is written",
            )


def check_empty_chunks(disks: list[Disk]) -> None:
    """Check the number of records of ``disks`` in v1, whose bits need a record for every chunk.

    Raises LimitError where a size that is only stated would cause too many of them.
    """
    for disk in disks:
        if disk.bitmaps:
            there = sum(length for _, length in disk.image.extents())
            chunks, most = (disk.size - there) // CHUNK_SIZE, limits.V1_EMPTY_ENTRIES_MAX
            if chunks * len(disk.bitmaps) > most:
                raise LimitError(
                    f"{count(chunks, 'chunk')} without data, and {count(len(disk.bitmaps), 'bitmap')}: "
                    "dialect v1 needs a record for each chunk, with an entry for each bitmap, and "
                    f"{most} entries are the most",
                    device=disk.device,
                    hint="use --dialect v2",
                )
