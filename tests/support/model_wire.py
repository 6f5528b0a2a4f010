"""Streams of every dialect from descriptions of their records, by struct alone.

Written from the format's description only: it shares no code with the program, so that a mistake in
one of the two shows itself.  A description may say anything that is legal; ``encode`` gives its bytes,
with the padding behind a disk's end as it was drawn or zeroed.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

SECTOR = 512
CHUNK = 1 << 20
CHUNK_SECTORS = CHUNK // SECTOR
WORD = 64

DEVICE_BLOCK, EOS, PROGRESS, ZERO_BLOCK, HAS_BLOCK, HAS_BITMAPS, SIZED_BITMAPS = (
    1 << bit for bit in range(7)
)
BITS_EOS, BITS_ZEROES, BITS_BITMAP, BITS_DEVICE, BITS_START, BITS_COMPLETE, BITS_BITS = (
    1 << bit for bit in range(7)
)


@dataclass(frozen=True)
class Bitmap:
    """A dirty bitmap; ``granularity`` in bytes."""

    name: str
    granularity: int
    recording: bool = True
    persistent: bool = False


@dataclass(frozen=True)
class Disk:
    """A disk of ``sectors``, and its bitmaps."""

    name: str
    sectors: int
    bitmaps: tuple[Bitmap, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self.sectors * SECTOR

    def granules(self, granularity: int) -> int:
        """Bits of a bitmap of this disk."""
        return -(-self.size // granularity)


@dataclass(frozen=True)
class Data:
    """A chunk's data: ``noise`` in every sector, a few sectors of it (``sparse``), or ``zeros``."""

    kind: str
    seed: int = 0


@dataclass(frozen=True)
class Bits:
    """The bits of ``bitmap`` in one record: ``clean``, ``all`` or ``noise``.

    ``junk`` (v2): the bits that do not count are set; ``short`` (v2): clean bits have length 0;
    ``flags`` (v2): bitmap flags as this record says them.
    """

    bitmap: Bitmap
    kind: str = "clean"
    seed: int = 0
    junk: bool = False
    short: bool = False
    flags: int = 1


@dataclass(frozen=True)
class Block:
    """A block record: ``data``, a ``zero`` chunk, or neither; ``bits`` of v1 and v2.

    ``sectors``: the range that a v2 record with bitmaps covers; ``zero_wins``: HAS_BLOCK is set beside
    ZERO_BLOCK, and no data follows (v1).
    """

    device: str
    sector: int
    data: Data | None = None
    zero: bool = False
    bits: tuple[Bits, ...] | None = None
    sectors: int = 0
    zero_wins: bool = False


@dataclass(frozen=True)
class Progress:
    """A progress record."""

    percent: int


@dataclass(frozen=True)
class Part:
    """Records of one part of the ``block`` section; ``beside``: the last one carries EOS itself."""

    records: tuple[Block | Progress, ...] = ()
    beside: bool = False


@dataclass(frozen=True)
class Mark:
    """A chunk of the ``dirty-bitmap`` section: ``start``, ``bits``, ``complete`` or ``eos``.

    ``named``: it says its names though the chunk before had the same; ``slack``: words of zeros
    behind the bits; ``eos``: EOS accompanies it and ends the part.
    """

    kind: str
    device: str = ""
    bitmap: Bitmap = Bitmap("", 512)
    sector: int = 0
    sectors: int = 0
    bits: Bits | None = None
    zeroes: bool = False
    slack: int = 0
    named: bool = True


@dataclass(frozen=True)
class Framing:
    """What the records stand in.

    ``old``: neither configuration nor footers; ``ram``: empty parts of a ``ram`` section between the
    others; ``description``: the JSON at the end; ``block_first``: whose parts come first.
    """

    old: bool = False
    machine: str = "none"
    ram: bool = False
    description: bytes | None = b'{"devices": []}'
    block_first: bool = True
    eos_beside: bool = False


@dataclass(frozen=True)
class Stream:
    """A stream: its disks, the parts of its sections, the last of each being the section's end.

    ``container``: ``qemu``, or ``none`` for bare records; ``blocks`` empty: no ``block`` section.
    ``progress``: what the progress records are: ``none`` but the last, ``true``, ``skipped`` (true, and
    disks' ends were left out, which count as done), ``abandoned`` (true, but all that should follow
    was left out), ``silent``, ``zero``, or ``wild``.
    """

    dialect: str
    container: str
    disks: tuple[Disk, ...]
    blocks: tuple[Part, ...]
    marks: tuple[tuple[Mark, ...], ...] = ()
    framing: Framing = Framing()
    progress: str = "none"

    def disk(self, name: str) -> Disk:
        """The disk called ``name``."""
        return next(disk for disk in self.disks if disk.name == name)

    def records(self) -> Iterator[Block | Progress]:
        """All block records, in their order."""
        for part in self.blocks:
            yield from part.records


# -- content ---------------------------------------------------------------------------------------


def _noise(sectors: int) -> bytes:
    """Return sectors that all differ, each half of which holds its place; quick to compress."""
    found = bytearray()
    for number in range(sectors):
        head = struct.pack(
            ">IIQ", number * 2654435761 & 0xFFFFFFFF, number, ~number & (1 << 64) - 1
        )
        found += head * (SECTOR // len(head))
    return bytes(found)


_NOISE = _noise(2 * CHUNK_SECTORS)
_SPARSE = (0, 1, 7, 1024, 2047)


@lru_cache(maxsize=32)
def chunk(data: Data) -> bytes:
    """One MiB."""
    start = data.seed % CHUNK_SECTORS * SECTOR
    noise = _NOISE[start : start + CHUNK]
    if data.kind == "noise":
        return noise
    found = bytearray(CHUNK)
    if data.kind == "sparse":
        for sector in {(data.seed * 37 + step) % CHUNK_SECTORS for step in _SPARSE}:
            at = sector * SECTOR
            found[at : at + SECTOR] = noise[at : at + SECTOR]
    return bytes(found)


def bits_of(bits: Bits, first: int, count: int) -> int:
    """The bits of the granules [first, first + count), the first one lowest."""
    if bits.kind == "clean" or count <= 0:
        return 0
    if bits.kind == "all":
        return (1 << count) - 1
    source = random.Random(bits.seed * 1_000_003 + first)
    return source.getrandbits(count) & source.getrandbits(count)


# -- where the bits of a record lie --------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """Words [first, first + words) of a bitmap, of which the granules [low, high) count."""

    first: int
    words: int
    low: int
    high: int


def v1_span(disk: Disk, sector: int, granularity: int) -> Span:
    """The words of a v1 record: as many as its sectors fill, from the word of its first granule."""
    sectors = min(CHUNK_SECTORS, disk.sectors - sector)
    words = (sectors * SECTOR - 1) // granularity // WORD + 1
    first = sector * SECTOR // granularity // WORD
    return Span(first, words, first * WORD, min((first + words) * WORD, disk.granules(granularity)))


def v2_span(sector: int, sectors: int, granularity: int) -> Span:
    """The words of a v2 record, and the granules that its range touches."""
    low = sector * SECTOR // granularity
    high = ((sector + sectors) * SECTOR - 1) // granularity + 1
    first = low // WORD
    return Span(first, (high - 1) // WORD - first + 1, low, high)


def mark_span(mark: Mark) -> Span:
    """The words of a chunk of bits in the ``dirty-bitmap`` section."""
    return v2_span(mark.sector, mark.sectors, mark.bitmap.granularity)


def _words(bits: Bits, span: Span) -> bytes:
    value = bits_of(bits, span.low, span.high - span.low) << (span.low - span.first * WORD)
    if bits.junk:
        counting = ((1 << span.high - span.low) - 1) << (span.low - span.first * WORD)
        value |= ((1 << span.words * WORD) - 1) & ~counting
    return value.to_bytes(span.words * WORD // 8, "little")


# -- bytes -----------------------------------------------------------------------------------------


def name_bytes(name: str) -> bytes:
    """A name as it is on the wire, without its length."""
    return name.encode("utf-8", "surrogateescape")


def counted(name: str) -> bytes:
    """A counted string."""
    raw = name_bytes(name)
    return bytes([len(raw)]) + raw


def _word(upper: int, flags: int) -> bytes:
    return struct.pack(">Q", upper << 9 | flags)


def block_flags(stream: Stream, record: Block) -> int:
    """The flags of a block record, without EOS."""
    flags = DEVICE_BLOCK
    if record.zero:
        flags |= ZERO_BLOCK
    if stream.dialect in ("v1", "v2"):
        if record.data is not None or record.zero_wins:
            flags |= HAS_BLOCK
        if record.bits is not None:
            flags |= HAS_BITMAPS | (SIZED_BITMAPS if stream.dialect == "v2" else 0)
    return flags


def _record(stream: Stream, record: Block | Progress, *, eos: bool, scrubbed: bool) -> list[bytes]:
    ending = EOS if eos else 0
    if isinstance(record, Progress):
        return [_word(record.percent, PROGRESS | ending)]
    disk = stream.disk(record.device)
    out = [_word(record.sector, block_flags(stream, record) | ending), counted(record.device)]
    if record.bits is not None:
        if stream.dialect == "v2":
            out.append(struct.pack(">I", record.sectors))
        out.append(struct.pack(">I", len(record.bits)))
        for bits in record.bits:
            granularity = bits.bitmap.granularity
            out.append(counted(bits.bitmap.name))
            if stream.dialect == "v1":
                out.append(_words(bits, v1_span(disk, record.sector, granularity)))
                continue
            raw = _words(bits, v2_span(record.sector, record.sectors, granularity))
            raw = b"" if bits.short and bits.kind == "clean" else raw
            out += [struct.pack(">BII", bits.flags, granularity, len(raw)), raw]
    if record.data is not None:
        data = chunk(record.data)
        left = (disk.sectors - record.sector) * SECTOR
        if scrubbed and left < CHUNK:
            data = data[:left] + bytes(CHUNK - left)
        out.append(data)
    return out


def _part(stream: Stream, part: Part, *, scrubbed: bool) -> bytes:
    beside = part.beside and bool(part.records)
    out: list[bytes] = []
    for number, record in enumerate(part.records, 1):
        last = beside and number == len(part.records)
        out += _record(stream, record, eos=last, scrubbed=scrubbed)
    if not beside:
        out.append(_word(0, EOS))
    return b"".join(out)


class _Marks:
    """Encodes chunks of the ``dirty-bitmap`` section, which may leave out the names just said."""

    def __init__(self, *, eos_beside: bool) -> None:
        self._said: tuple[str, str] | None = None
        self._eos_beside = eos_beside

    def part(self, marks: tuple[Mark, ...]) -> bytes:
        """One part's payload."""
        out = []
        for number, mark in enumerate(marks, 1):
            last = self._eos_beside and number == len(marks)
            out.append(self._mark(mark, BITS_EOS if last else 0))
        if not (self._eos_beside and marks):
            out.append(bytes([BITS_EOS]))
        return b"".join(out)

    def _mark(self, mark: Mark, ending: int) -> bytes:
        kinds = {"start": BITS_START, "complete": BITS_COMPLETE, "bits": BITS_BITS}
        flags = kinds[mark.kind] | ending | (BITS_ZEROES if mark.zeroes else 0)
        names = b""
        if self._said is None or mark.named or self._said[0] != mark.device:
            flags |= BITS_DEVICE
            names += counted(mark.device)
        if self._said != (mark.device, mark.bitmap.name) or mark.named:
            flags |= BITS_BITMAP
            names += counted(mark.bitmap.name)
        self._said = (mark.device, mark.bitmap.name)
        return bytes([flags]) + names + self._body(mark)

    def _body(self, mark: Mark) -> bytes:
        if mark.kind == "start":
            flags = mark.bitmap.recording | mark.bitmap.persistent << 1
            return struct.pack(">IB", mark.bitmap.granularity, flags)
        if mark.kind == "complete":
            return b""
        head = struct.pack(">QI", mark.sector, mark.sectors)
        if mark.zeroes:
            return head
        assert mark.bits is not None
        raw = _words(mark.bits, mark_span(mark))
        most = -(-len(raw) // 32) * 32
        raw = raw.ljust(min(len(raw) + mark.slack * 8, most), b"\0")
        return head + struct.pack(">Q", len(raw)) + raw


_BLOCK, _RAM, _DIRTY = 2, 3, 4


def encode(stream: Stream, *, scrubbed: bool = False) -> bytes:
    """The stream's bytes; ``scrubbed``: the padding behind the disks' ends is zero."""
    blocks = [_part(stream, part, scrubbed=scrubbed) for part in stream.blocks]
    if stream.container == "none":
        return b"".join(blocks)
    framing = stream.framing
    encoder = _Marks(eos_beside=framing.eos_beside)
    marks = [encoder.part(part) for part in stream.marks]
    out = [b"QEVM", struct.pack(">I", 3)]
    if not framing.old:
        machine = framing.machine.encode()
        out.append(b"\x07" + struct.pack(">I", len(machine)) + machine)
    used: list[tuple[int, str, int, list[bytes]]] = []
    if blocks:
        used.append((_BLOCK, "block", 1, [_word(0, EOS), *blocks]))
    if marks:
        used.append((_DIRTY, "dirty-bitmap", 1, marks if len(marks) > 1 else [b"\x01", *marks]))
    ram = _word(0, 0)[:7] + b"\x10"  # be64 0 | EOS
    if framing.ram:
        used.insert(1, (_RAM, "ram", 4, [ram] * 4))

    def section(kind: int, number: int, payload: bytes, head: bytes = b"") -> bytes:
        footer = b"" if framing.old else b"\x7e" + struct.pack(">I", number)
        return bytes([kind]) + struct.pack(">I", number) + head + payload + footer

    for number, name, version, payloads in used:
        out.append(section(1, number, payloads[0], counted(name) + struct.pack(">II", 0, version)))
    middle = [(number, payloads[1:-1]) for number, _, _, payloads in used]
    if not framing.block_first:
        middle.reverse()
    longest = max((len(payloads) for _, payloads in middle), default=0)
    for at in range(longest):
        for number, payloads in middle:
            out += [section(2, number, payload) for payload in payloads[at : at + 1]]
    out += [section(3, number, payloads[-1]) for number, _, _, payloads in used]
    out.append(b"\0")
    if framing.description is not None:
        out.append(b"\x06" + struct.pack(">I", len(framing.description)) + framing.description)
    return b"".join(out)
