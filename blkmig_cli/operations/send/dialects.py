"""The records of chunks and bitmaps in each dialect."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from blkmig_cli.schemas import block as schema
from blkmig_cli.schemas.constants import (
    BLOCK_SECTION,
    CHUNK_SECTORS,
    DIRTY_BITMAP_SECTION,
    SECTOR_SIZE,
    V2_BITS_MAX,
    WORD_BITS,
    WORD_SIZE,
    BitmapAttribute,
    BitmapFlag,
    BlockFlag,
)
from blkmig_cli.schemas.dirty_bitmap import bits_length
from blkmig_cli.transport.payloads import literal
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapComplete,
    BitmapEos,
    BitmapStart,
    Block,
    BlockBitmap,
    Event,
    Payload,
)

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap
    from blkmig_cli.disks.disk import Disk

# Bytes of bits in one chunk of the dirty-bitmap section (QEMU 7.2, migration/block-dirty-bitmap.c:
# CHUNK_SIZE).
_CHUNK_BITS = 1 << 10
# The most that the field for the sectors of a range can hold, in both sections.
_SECTORS_MAX = (1 << 32) - 1


class SendDialect(Protocol):
    """One dialect of the block records.

    ``on_grid``: records are at multiples of a chunk only.  ``bits_in_chunks``: the record of each
    chunk carries its bits.
    """

    on_grid: bool
    bits_in_chunks: bool

    def before(self, disk: "Disk") -> Iterator[Block]:
        """Return the records that precede a disk's chunks."""

    def records(
        self, disk: "Disk", sector: int, sectors: int, data: Payload | None, zero: bool
    ) -> Iterator[Block]:
        """Return the records for the chunk at ``sector``, of which ``sectors`` lie within the disk.

        Neither ``data`` (padded to 1 MiB) nor ``zero``: its content is not sent.
        """


def _block(
    disk: "Disk",
    sector: int,
    sectors: int,
    flags: int,
    dialect: str,
    data: Payload | None = None,
    bitmaps: tuple[BlockBitmap, ...] = (),
) -> Block:
    flags |= BlockFlag.DEVICE_BLOCK
    return Block(
        0, 0, BLOCK_SECTION, disk.device, sector, sectors, sectors, flags, dialect, data, bitmaps
    )


class Classic:
    """Block records without bitmaps, at any sector."""

    on_grid = False
    bits_in_chunks = False

    def before(self, disk: "Disk") -> Iterator[Block]:
        """Return no records."""
        yield from ()

    def records(
        self, disk: "Disk", sector: int, sectors: int, data: Payload | None, zero: bool
    ) -> Iterator[Block]:
        """See ``SendDialect``."""
        if zero:
            yield _block(disk, sector, sectors, BlockFlag.ZERO_BLOCK, "classic")
        elif data is not None:
            yield _block(disk, sector, sectors, 0, "classic", data)


class V1(Classic):
    """Every record carries its part of all bitmaps of its device, without a length.

    The words begin with that of the record's first granule, and are as many as are needed for a chunk
    that begins with a word: at other sectors they would end before the chunk does.
    """

    on_grid = True
    bits_in_chunks = True

    def records(
        self, disk: "Disk", sector: int, sectors: int, data: Payload | None, zero: bool
    ) -> Iterator[Block]:
        """See ``SendDialect``."""
        flags = BlockFlag.ZERO_BLOCK if zero else BlockFlag(0)
        if data is not None:
            flags |= BlockFlag.HAS_BLOCK
        bitmaps = tuple(
            BlockBitmap(
                bitmap.name,
                bitmap.granularity,
                None,
                literal(
                    bitmap.words(
                        schema.first_word(sector, bitmap.granularity),
                        schema.v1_words(sectors, bitmap.granularity),
                    ).tobytes()
                ),
            )
            for bitmap in disk.bitmaps
        )
        if bitmaps:
            flags |= BlockFlag.HAS_BITMAPS
        if flags:
            yield _block(disk, sector, sectors, flags, "v1", data, bitmaps)


class V2:
    """Bitmaps are first, in ranges as large as the format allows; then data, without bitmaps."""

    on_grid = True
    bits_in_chunks = False

    def before(self, disk: "Disk") -> Iterator[Block]:
        """Return the bitmaps; the first record names them all, later ones those that are dirty there."""
        if not disk.bitmaps:
            return
        total = disk.size // SECTOR_SIZE
        step = self.step(disk.bitmaps)
        for sector in range(0, total, step):
            sectors = min(step, total - sector)
            bitmaps = []
            for bitmap in disk.bitmaps:
                first = schema.first_word(sector, bitmap.granularity)
                words = schema.v2_words(sector, sectors, bitmap.granularity)
                bits = self._touching(bitmap, sector, sectors, first, words)
                dirty = bits.count(0) != len(bits)
                if dirty or sector == 0:
                    attributes = BitmapAttribute.ENABLED if bitmap.recording else BitmapAttribute(0)
                    if bitmap.persistent:
                        attributes |= BitmapAttribute.PERSISTENT
                    payload = literal(bits if dirty else b"")
                    part = BlockBitmap(bitmap.name, bitmap.granularity, attributes, payload)
                    bitmaps.append(part)
            flags = BlockFlag.HAS_BITMAPS | BlockFlag.SIZED_BITMAPS
            yield _block(disk, sector, sectors, flags, "v2", None, tuple(bitmaps))

    def records(
        self, disk: "Disk", sector: int, sectors: int, data: Payload | None, zero: bool
    ) -> Iterator[Block]:
        """See ``SendDialect``; a partial last chunk states the disk's size by its range."""
        flags = BlockFlag.ZERO_BLOCK if zero else BlockFlag.HAS_BLOCK
        if sectors < CHUNK_SECTORS:
            flags |= BlockFlag.HAS_BITMAPS | BlockFlag.SIZED_BITMAPS
        if zero or data is not None:
            yield _block(disk, sector, sectors, flags, "v2", data)

    @staticmethod
    def step(bitmaps: "list[DirtyBitmap]") -> int:
        """Return the sectors of one record of bitmaps: as many as the bits of the finest allow."""
        finest = min(bitmap.granularity for bitmap in bitmaps)
        most = 8 * V2_BITS_MAX * finest // SECTOR_SIZE
        return min(most, _SECTORS_MAX // CHUNK_SECTORS * CHUNK_SECTORS)

    @staticmethod
    def _touching(
        bitmap: "DirtyBitmap", sector: int, sectors: int, first_word: int, words: int
    ) -> bytes:
        """Return the words of a range; bits of granules that do not overlap it are 0."""
        from blkmig_cli.disks.bitmap import DirtyBitmap  # noqa: PLC0415 (numpy is slow to load)

        part = DirtyBitmap(bitmap.name, bitmap.granularity)
        first = sector * SECTOR_SIZE // bitmap.granularity
        last = ((sector + sectors) * SECTOR_SIZE - 1) // bitmap.granularity
        part.write_granules(first, last - first + 1, bitmap.words(first_word, words).tobytes())
        return part.words(first_word, words).tobytes()


#: By the names of ``--dialect``.
DIALECTS: dict[str, SendDialect] = {
    "qemu": Classic(),
    "classic": Classic(),
    "v1": V1(),
    "v2": V2(),
}


def bitmap_eos() -> BitmapEos:
    """Return the end of a payload in the ``dirty-bitmap`` section."""
    return BitmapEos(0, 0, DIRTY_BITMAP_SECTION, BitmapFlag.EOS)


class _Names:
    """Computes the flags of the names that a chunk needs: those that differ from the last chunk."""

    def __init__(self) -> None:
        self._device: str | None = None
        self._bitmap: str | None = None

    def flags(self, device: str, bitmap: str) -> BitmapFlag:
        flags = BitmapFlag(0)
        if device != self._device:
            flags |= BitmapFlag.DEVICE_NAME
        if bitmap != self._bitmap:
            flags |= BitmapFlag.BITMAP_NAME
        self._device, self._bitmap = device, bitmap
        return flags


def bitmap_starts(disks: list["Disk"]) -> list[Event]:
    """Return the START chunks of all bitmaps; the first chunk after them names its bitmap again."""
    names = _Names()
    found: list[Event] = []
    for disk in disks:
        for bitmap in disk.bitmaps:
            attributes = BitmapAttribute.ENABLED if bitmap.recording else BitmapAttribute(0)
            if bitmap.persistent:
                attributes |= BitmapAttribute.PERSISTENT
            flags = BitmapFlag.START | names.flags(disk.device, bitmap.name)
            found.append(
                BitmapStart(
                    0, 0, DIRTY_BITMAP_SECTION, disk.device, bitmap.name, flags, b"",
                    bitmap.granularity, attributes,
                )
            )  # fmt: skip
    return found


def bitmap_chunks(disks: list["Disk"]) -> Iterator[Event]:
    """Yield the BITS and COMPLETE chunks of all bitmaps."""
    names = _Names()
    for disk in disks:
        for bitmap in disk.bitmaps:
            yield from _bits(disk, bitmap, names)
            flags = BitmapFlag.COMPLETE | names.flags(disk.device, bitmap.name)
            yield BitmapComplete(0, 0, DIRTY_BITMAP_SECTION, disk.device, bitmap.name, flags, b"")


def _bits(disk: "Disk", bitmap: "DirtyBitmap", names: _Names) -> Iterator[BitmapBits]:
    granularity = bitmap.granularity
    total = disk.size // SECTOR_SIZE
    word = WORD_BITS * granularity // SECTOR_SIZE
    step = min(_CHUNK_BITS // WORD_SIZE * word, _SECTORS_MAX // word * word)
    for sector in range(0, total, step):
        sectors = min(step, total - sector)
        words = bits_length(sectors, granularity) // WORD_SIZE
        bits = bitmap.packed(schema.first_word(sector, granularity), words)
        flags = BitmapFlag.BITS | names.flags(disk.device, bitmap.name)
        if not bits:
            flags |= BitmapFlag.ZEROES
        yield BitmapBits(
            0, 0, DIRTY_BITMAP_SECTION, disk.device, bitmap.name, flags, b"",
            sector, sectors, granularity, literal(bits) if bits else None,
        )  # fmt: skip
