"""The end state of a stream, in a slow and simple way: every disk and bitmap in memory, bit by bit.

A disk is a bytearray with a note per sector of what came for it; a bitmap is one byte a granule.
Nothing here shares code with the program: this is what its results are compared with.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.support import model_wire as wire
from tests.support.model_wire import CHUNK, CHUNK_SECTORS, SECTOR, WORD

MISSING, ZERO, DATA = 0, 1, 2

Ranges = list[tuple[int, int]]

_DIGITS = bytes(byte & 1 for byte in range(256))  # of "0" and "1"
_ONE_MORE = bytes(min(byte + 1, 2) for byte in range(256))
_IS_MISSING = bytes(byte == MISSING for byte in range(256))


def ranges_of(flags: bytes | bytearray, unit: int, end: int) -> Ranges:
    """Ranges (start, length) in bytes of the ``unit``-sized places that are set, cut at ``end``."""
    found: Ranges = []
    at = 0
    while (start := flags.find(1, at)) >= 0:
        at = flags.find(0, start)
        at = len(flags) if at < 0 else at
        found.append((start * unit, min(at * unit, end) - start * unit))
    return found


@dataclass
class BitmapModel:
    """One bitmap: a byte for each granule, and for each granule whether bits for it came.

    ``sectors`` (v1): those of whose own records the words reached so far.
    """

    device: str
    bitmap: wire.Bitmap
    size: int
    recording: bool = True
    persistent: bool = False
    ended: bool = False
    dirty: bytearray = field(default_factory=bytearray)
    came: bytearray = field(default_factory=bytearray)
    sectors: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.sectors = bytearray(self.size // SECTOR)
        granules = -(-self.size // self.bitmap.granularity)
        self.dirty, self.came = bytearray(granules), bytearray(granules)

    def put(self, low: int, high: int, bits: int) -> None:
        """Set the granules [low, high) to ``bits``, the lowest first."""
        high = min(high, len(self.dirty))
        if low < high:
            digits = f"{bits:0{high - low}b}"[: -(high - low) - 1 : -1]
            self.dirty[low:high] = digits.encode().translate(_DIGITS)
            self.came[low:high] = b"\1" * (high - low)

    @property
    def ranges(self) -> Ranges:
        """Dirty bytes as ranges (start, length)."""
        return ranges_of(self.dirty, self.bitmap.granularity, self.size)

    @property
    def covered(self) -> bool:
        """Whether bits came for every granule."""
        return all(self.came)

    def json(self) -> dict[str, Any]:
        """The bitmap as IMAGE.bitmaps.json has it."""
        ranges = self.ranges
        return {
            "name": self.bitmap.name,
            "granularity": self.bitmap.granularity,
            "recording": self.recording,
            "persistent": self.persistent,
            "count": sum(length for _, length in ranges),
            "dirty": [{"start": start, "length": length} for start, length in ranges],
        }


@dataclass
class DiskModel:
    """One disk: its bytes, and for each sector what came for it last and how often."""

    disk: wire.Disk
    content: bytearray = field(default_factory=bytearray)
    kinds: bytearray = field(default_factory=bytearray)
    times: bytearray = field(default_factory=bytearray)
    chunks: int = 0
    zero_chunks: int = 0
    repeated: int = 0
    end: int = 0
    named: bool = False
    stated: bool = False
    ranged: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.content = bytearray(self.disk.size)
        self.kinds = bytearray(self.disk.sectors)
        self.times = bytearray(self.disk.sectors)
        self.ranged = bytearray(self.disk.sectors)

    @property
    def has_content(self) -> bool:
        """Whether any record carries content of the disk."""
        return self.chunks > 0

    def put(self, sector: int, data: bytes | None) -> None:
        """A chunk at ``sector``; ``data`` None: zeros."""
        last = min(sector + CHUNK_SECTORS, self.disk.sectors)
        start, end = sector * SECTOR, last * SECTOR
        self.content[start:end] = bytes(end - start) if data is None else data[: end - start]
        # Of a chunk past the end, its start counts: it has never come.
        self.repeated += sector < last and all(self.times[sector:last])
        self.kinds[sector:last] = bytes([ZERO if data is None else DATA]) * (last - sector)
        self.times[sector:last] = self.times[sector:last].translate(_ONE_MORE)
        self.chunks += 1
        self.zero_chunks += data is None
        self.end = max(self.end, sector + CHUNK_SECTORS)

    def missing(self, size: int | None = None) -> Ranges:
        """Bytes that were not sent, as ranges (start, length), of a disk of ``size``: the true one."""
        flags = self.kinds.translate(_IS_MISSING)
        limit = self.disk.size if size is None else size
        sectors = min(limit // SECTOR, len(flags))
        return ranges_of(flags[:sectors], SECTOR, limit)

    def over(self, old: bytes) -> bytes:
        """The disk as it is when the stream was written over ``old``."""
        out = bytearray(self.content)
        for start, length in self.missing():
            out[start : start + length] = old[start : start + length]
        return bytes(out)


class Model:
    """The end state of a stream, and what its records prove of it."""

    def __init__(self, stream: wire.Stream) -> None:
        self.stream = stream
        self.disks = {disk.name: DiskModel(disk) for disk in stream.disks}
        self.bitmaps: dict[tuple[str, str], BitmapModel] = {}
        for record in stream.records():
            if isinstance(record, wire.Block):
                self._block(record)
        # The 100 of the section's end; without container, of the last record before the last EOS.
        ending = list(stream.records())
        if stream.container == "qemu" and stream.blocks:
            ending = list(stream.blocks[-1].records)
        self.final = bool(ending) and ending[-1] == wire.Progress(100)
        for part in stream.marks:
            for mark in part:
                self._mark(mark)
        for name, disk in self.disks.items():
            whole = [b for b in self.bitmaps.values() if b.device == name and b.ended and b.covered]
            disk.stated |= bool(whole)

    def _block(self, record: wire.Block) -> None:
        disk = self.disks[record.device]
        disk.named = True
        if record.zero or record.data is not None:
            disk.put(record.sector, None if record.data is None else wire.chunk(record.data))
        if record.bits is not None and self.stream.dialect == "v2":
            last = record.sector + record.sectors
            disk.ranged[record.sector : last] = b"\1" * record.sectors
            disk.stated |= record.sectors % CHUNK_SECTORS != 0
        for bits in record.bits or ():
            bitmap = self._bitmap(record.device, bits.bitmap)
            if self.stream.dialect == "v1":
                span = wire.v1_span(disk.disk, record.sector, bits.bitmap.granularity)
                bound = span.high * bits.bitmap.granularity // SECTOR
                last = min(record.sector + CHUNK_SECTORS, disk.disk.sectors, bound)
                bitmap.sectors[record.sector : last] = b"\1" * (last - record.sector)
            else:
                span = wire.v2_span(record.sector, record.sectors, bits.bitmap.granularity)
                bitmap.recording, bitmap.persistent = bool(bits.flags & 1), bool(bits.flags & 2)
            bitmap.put(span.low, span.high, wire.bits_of(bits, span.low, span.high - span.low))

    def _mark(self, mark: wire.Mark) -> None:
        self.disks[mark.device].named = True
        bitmap = self._bitmap(mark.device, mark.bitmap)
        if mark.kind == "start":
            bitmap.recording, bitmap.persistent = mark.bitmap.recording, mark.bitmap.persistent
        elif mark.kind == "complete":
            bitmap.ended = True
        else:
            span = wire.mark_span(mark)
            count = span.high - span.low
            bits = 0 if mark.bits is None else wire.bits_of(mark.bits, span.low, count)
            bitmap.put(span.low, span.high, bits)

    def _bitmap(self, device: str, bitmap: wire.Bitmap) -> BitmapModel:
        size = self.disks[device].disk.size
        return self.bitmaps.setdefault((device, bitmap.name), BitmapModel(device, bitmap, size))

    # -- what the program should say of it -----------------------------------------------------

    def whole_bitmap(self, bitmap: BitmapModel) -> bool | None:
        """Whether all bits of a bitmap came, and it ended as its dialect wants it.

        None: in v1, where all words came, but not all with the chunks that they are of; a reader may
        take it for whole or not.
        """
        if self.stream.dialect == "v2":
            return self.final and all(self.disks[bitmap.device].ranged)
        if self.stream.dialect == "v1":
            return (all(bitmap.sectors) or None) if bitmap.covered else False
        return bitmap.covered and bitmap.ended

    def whole_disk(self, name: str) -> bool:
        """Whether every sector of a disk came, or nothing was meant to."""
        disk = self.disks[name]
        return not disk.has_content or all(disk.kinds)

    @property
    def whole_bitmaps(self) -> set[bool]:
        """Whether all bitmaps are whole; both where a reader may say either."""
        found = {self.whole_bitmap(bitmap) for bitmap in self.bitmaps.values()}
        if False in found:
            return {False}
        return {True, False} if None in found else {True}

    def gap_before_end(self, name: str) -> bool:
        """Return whether a gap comes before a sector that was sent, which proves it missing at any size."""
        disk = self.disks[name]
        return bool(disk.missing(min(disk.end * SECTOR, disk.disk.size)))

    def bitmaps_of(self, device: str) -> dict[str, BitmapModel]:
        """A disk's bitmaps by name."""
        return {name: b for (owner, name), b in self.bitmaps.items() if owner == device}

    def document(self, device: str) -> dict[str, Any]:
        """IMAGE.bitmaps.json of a disk."""
        bitmaps = [bitmap.json() for bitmap in self.bitmaps_of(device).values()]
        size = self.disks[device].disk.size
        return {"version": 1, "virtual-size": size, "bitmaps": bitmaps}


__all__ = ["CHUNK", "CHUNK_SECTORS", "SECTOR", "WORD", "BitmapModel", "DiskModel", "Model"]
