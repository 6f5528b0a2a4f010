"""A stream in another dialect.

Normalized: made anew from the disks and bitmaps that the stream leaves behind, sorted, each chunk
once, without RAM and devices.  Else the order stays, and all that is no block record nor bitmap is
kept byte for byte: records are said in the other dialect, bitmaps move to where it has them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from blkmig_cli.checks.survey import Contents
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import read_bitmaps
from blkmig_cli.disks.disk import Disk, past_end
from blkmig_cli.errors import FailureError, IncompleteError, UndecidableError, UsageError
from blkmig_cli.operations.send import dialects as sending
from blkmig_cli.operations.send.stream import bitmap_sections, section
from blkmig_cli.schemas.constants import (
    CHUNK_SECTORS,
    CHUNK_SIZE,
    DIRTY_BITMAP_SECTION,
    SECTOR_SIZE,
    BlockFlag,
    SectionType,
)
from blkmig_cli.text import escape, human_size, quote
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.transport.target import resolving
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import (
    Block,
    Eof,
    Event,
    Payload,
    Raw,
    SectionHeader,
)


@dataclass(slots=True)
class Converted:
    """The disks of a stream, to be sent, and what must be said before."""

    disks: list[Disk]
    warnings: list[str]


def disks_of(contents: Contents, *, bitmaps: bool, incremental: bool) -> Converted:
    """The disks of a stream, with their ``bitmaps`` or without.

    Raises IncompleteError where chunks are missing (unless ``incremental``) or a bitmap is not whole,
    FailureError where a disk is no whole number of sectors, UndecidableError where a bitmap's
    granularity is open.
    """
    found = Converted([], [])
    for verdict in contents.report.devices:
        device = verdict.disk.name
        held = [
            _content(owner.bitmap.content, owner.bitmap.name, device, owner.complete)
            for owner in contents.report.bitmaps
            if bitmaps and owner.bitmap.device == device
        ]
        if not verdict.disk.has_blocks and not held:
            continue
        disk = contents.disk(device)
        if not verdict.disk.has_blocks:
            ends = [v.bitmap.covered.end for v in contents.report.bitmaps
                    if v.bitmap.device == device]  # fmt: skip
            disk = disk.resized(verdict.size.exact or max(ends) * SECTOR_SIZE)
        elif verdict.size.exact is None:
            found.warnings.append(
                f"the size of {quote(device)} is not in the stream; took {human_size(disk.size)}; "
                "see --device-size"
            )
        if disk.size % SECTOR_SIZE:
            raise FailureError(f"{disk.size} bytes are no whole sectors", device=device)
        missing = sum(length for _, length in verdict.missing)
        if missing and not incremental:
            raise IncompleteError(
                f"{human_size(missing)} of the disk never came",
                device=device,
                hint="say --incremental if that is meant: they stay left out",
            )
        image = disk.incremental() if incremental else disk
        found.disks.append(Disk(device, image, held))
    return found


def _content(
    content: DirtyBitmap | None, name: str, device: str, complete: bool | None
) -> DirtyBitmap:
    if content is None:
        raise UndecidableError(
            f"the granularity of bitmap {quote(name)} is open",
            device=device,
            hint="say it with --granularity, or leave bitmaps out with --no-bitmaps",
        )
    if complete is False:
        raise IncompleteError(
            f"bitmap {quote(name)} is not whole", device=device, hint="say --no-bitmaps"
        )
    return content


def add_bitmaps(disks: list[Disk], files: dict[str | None, str]) -> None:
    """Give ``disks`` all bitmaps of ``files`` (None: of the only disk), in place of their namesakes.

    Raises UsageError where a device is unknown, FailureError where a file is not of this disk.
    """
    by_name = {disk.device: disk for disk in disks}
    for device, path in files.items():
        if device is None and len(disks) != 1:
            raise UsageError("--bitmaps-from without DEVICE, and several disks")
        disk = disks[0] if device is None else by_name.get(device)
        if disk is None:
            raise UsageError(f"--bitmaps-from: the stream has no disk {quote(device or '')}")
        content = read_bitmaps(path)
        if content.size != disk.size:
            raise FailureError(
                f"{escape(path)} is of a disk of {content.size} bytes, not {disk.size}",
                device=disk.device,
            )
        kept = [bitmap for bitmap in disk.bitmaps if bitmap.name not in content.bitmaps]
        disk.bitmaps = [*kept, *content.bitmaps.values()]


class Translation:
    """The events of a stream, in their order, with its block records in ``dialect``.

    ``disks`` say which devices' records to write, and hold what their bitmaps are to be;
    ``resolve`` gives the bytes of payloads, in the stream or made here.
    """

    def __init__(self, source: FileInput, dialect: str, disks: list[Disk]) -> None:
        self.resolve = resolving(source)
        self._dialect = sending.DIALECTS[dialect]
        self._disks = {disk.device: disk for disk in disks}
        with_bitmaps = {disk.device for disk in disks if disk.bitmaps}
        self._own_section = dialect == "qemu" and bool(with_bitmaps)
        self._bits_of_all = dialect == "v1"
        # Devices whose bitmaps travel in block records, and have not yet.
        self._waiting = set() if self._own_section else with_bitmaps
        self._kept = 0  # from here on, the stream is copied as it is

    def events(self, decoder: Decoder) -> Iterator[Event]:
        """What to write; ``decoder`` gives the stream's events from its start.

        Payloads are those of ``resolve``.  Raises StreamError where the stream cannot be read,
        FailureError for a record past its disk's end, UsageError where bitmaps find no place.
        """
        highest = 0
        end = self._kept = decoder.source.offset
        for event in decoder:
            end = event.offset + event.length
            if isinstance(event, SectionHeader):
                highest = max(highest, event.id)
            if event.section == DIRTY_BITMAP_SECTION:
                yield from self._copy(event.offset, end)
            elif isinstance(event, Block):
                yield from self._copy(event.offset, end)
                yield from self._block(event)
            elif isinstance(event, Eof) and self._own_section:
                yield from self._copy(event.offset, event.offset)
                yield from self._bitmaps(highest + 1)
        yield from self._copy(end, end)
        if self._waiting:
            raise UsageError(
                f"no block record can carry the bitmaps of device {quote(min(self._waiting))}",
                hint="say --normalize",
            )

    def _copy(self, end: int, then: int) -> Iterator[Event]:
        """What is kept as it is, up to byte ``end``; then goes on from byte ``then``."""
        if self._kept < end:
            yield Raw(0, 0, None, Payload(self._kept, end - self._kept))
        self._kept = then

    def _bitmaps(self, number: int) -> Iterator[Event]:
        """All bitmaps in a section of their own, which may stand anywhere before the end."""
        disks = list(self._disks.values())
        starts = sending.bitmap_starts(disks)
        yield from section(SectionType.START, DIRTY_BITMAP_SECTION, number, starts)
        yield from bitmap_sections(disks, number)

    def _block(self, event: Block) -> Iterator[Block]:
        disk = self._disks.get(event.device)
        if disk is None:
            return  # bitmaps of a disk that did not come, and nobody wants them
        if event.device in self._waiting:
            self._waiting.discard(event.device)
            yield from self._dialect.before(disk)
            if self._bits_of_all:
                yield from self._never_sent(disk)
        zero = bool(event.flags & BlockFlag.ZERO_BLOCK)
        if event.data is None and not zero:
            return
        sectors = min(CHUNK_SECTORS, disk.size // SECTOR_SIZE - event.sector)
        if sectors <= 0:
            raise past_end(event.device, event.sector, event.offset, disk.size)
        yield from self._dialect.records(disk, event.sector, sectors, event.data, zero)

    def _never_sent(self, disk: Disk) -> Iterator[Block]:
        """v1 says every chunk's bits in a record of its own, also where the chunk does not come."""
        assert isinstance(disk.image, StreamDisk)
        for piece in disk.image.pieces():
            if piece.kind == "missing":
                first = piece.start // CHUNK_SIZE * CHUNK_SECTORS
                for sector in range(first, piece.end // SECTOR_SIZE, CHUNK_SECTORS):
                    sectors = min(CHUNK_SECTORS, disk.size // SECTOR_SIZE - sector)
                    yield from self._dialect.records(disk, sector, sectors, None, False)
