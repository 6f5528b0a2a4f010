"""Strategies: streams of any dialect, as legal as random."""

import os
from dataclasses import replace
from itertools import pairwise

from hypothesis import strategies as st

from tests.support.model_wire import (
    CHUNK_SECTORS,
    SECTOR,
    WORD,
    Bitmap,
    Bits,
    Block,
    Data,
    Disk,
    Framing,
    Mark,
    Part,
    Progress,
    Stream,
)

MOST_SECTORS = 4 * CHUNK_SECTORS
_DEVICES = ["drive0", "d", "vm.disk-1", "é x", "\udcff", "n" * 255, ""]
_BITMAPS = ["b", "daily", "é", "a:b=c", "\udcfe", "n" * 255]

_sectors = st.one_of(
    st.sampled_from([2048, 4096, 6144, 2049, 4095, 2047, 5, 1]), st.integers(1, MOST_SECTORS)
)
_granularities = st.one_of(
    st.sampled_from([1 << shift for shift in range(9, 24)]), st.sampled_from([1 << 31, 1 << 16])
)
_data = st.builds(
    Data, st.sampled_from(["noise", "noise", "sparse", "zeros"]), st.integers(0, CHUNK_SECTORS - 1)
)


@st.composite
def disks(draw: st.DrawFn, *, bitmaps: bool, unnamed: bool) -> tuple[Disk, ...]:
    """One to three disks, of any size in sectors, with bitmaps of any granularity."""
    names = st.sampled_from(_DEVICES if unnamed else _DEVICES[:-1])
    found = []
    for name in draw(st.lists(names, unique=True, min_size=1, max_size=3)):
        maps: list[Bitmap] = []
        if bitmaps:
            chosen = draw(st.lists(st.sampled_from(_BITMAPS), unique=True, max_size=2))
            maps = [
                Bitmap(other, draw(_granularities), draw(st.booleans()), draw(st.booleans()))
                for other in chosen
            ]
        found.append(Disk(name, draw(_sectors), tuple(maps)))
    return tuple(found)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """A stream of any dialect: perhaps with gaps, repeats, overlaps, devices in turns."""
    dialect, container = draw(
        st.sampled_from(
            [
                ("classic", "qemu"), ("classic", "none"), ("qemu", "qemu"),
                ("v1", "qemu"), ("v1", "none"), ("v2", "qemu"), ("v2", "none"),
            ]
        )
    )  # fmt: skip
    found = draw(disks(bitmaps=dialect != "classic", unnamed=dialect != "qemu"))
    with_bitmaps = any(disk.bitmaps for disk in found)
    only = with_bitmaps and draw(st.integers(0, 9)) == 0
    records = _Records(draw, dialect, found).draw(only=only)
    marks = draw(_marks(found)) if dialect == "qemu" else ()
    parts: tuple[Part, ...] = ()
    if records.blocks or records.ending or container == "none" or not marks:
        parts = _parts(draw, dialect, records.blocks, records.ending)
    framing = Framing()
    if container == "qemu":
        framing = draw(_framings())
    return Stream(dialect, container, found, parts, marks, framing, records.progress)


@st.composite
def _framings(draw: st.DrawFn) -> Framing:
    old = draw(st.integers(0, 4)) == 0
    return Framing(
        old=old,
        machine=draw(st.sampled_from(["none", "pc", ""])),
        ram=draw(st.booleans()),
        description=None if old else draw(st.sampled_from([b'{"devices": []}', None])),
        block_first=draw(st.booleans()),
        eos_beside=draw(st.booleans()),
    )


def _parts(
    draw: st.DrawFn, dialect: str, records: list[Block | Progress], ending: list[Progress]
) -> tuple[Part, ...]:
    """The records in parts of some; v2 has no flags beside EOS."""
    each = draw(st.sampled_from([1, 2, 3, 100]))
    beside = dialect != "v2" and draw(st.booleans())
    groups = [tuple(records[at : at + each]) for at in range(0, len(records), each)]
    if draw(st.integers(0, 3)) == 0:
        groups.insert(draw(st.integers(0, len(groups))), ())
    parts = [Part(group, beside) for group in groups]
    return (*parts, Part(tuple(ending), beside))


class _Records:
    """Draws the block records of a stream, and the progress records between them."""

    def __init__(self, draw: st.DrawFn, dialect: str, found: tuple[Disk, ...]) -> None:
        self._draw = draw
        self._dialect = dialect
        self._disks = found
        self.blocks: list[Block | Progress] = []
        self.ending: list[Progress] = []
        self.progress = "none"

    def draw(self, *, only: bool) -> "_Records":
        """Draw them all; ``only``: bitmaps without disks."""
        draw = self._draw
        progress = self.progress = draw(
            st.sampled_from(["none", "none", "true", "true", "silent", "zero", "wild"])
        )
        gaps = draw(st.integers(0, 2)) == 0
        blocks: list[Block | Progress] = []
        if not only:
            blocks = list(self._bulk(progress, gaps=gaps))
            extras = [self._extra() for _ in range(draw(st.integers(0, 3)))]
            if progress == "true":
                blocks += extras
            else:
                for extra in extras:
                    blocks.insert(draw(st.integers(0, len(blocks))), extra)
        if self._dialect in ("v1", "v2"):
            blocks = self._with_bits(blocks, gaps=gaps)
        if progress in ("zero", "wild"):
            for _ in range(draw(st.integers(1, 2))):
                percent = 0 if progress == "zero" else draw(st.integers(0, 100))
                blocks.insert(draw(st.integers(0, len(blocks))), Progress(percent))
        if self._dialect != "qemu" or not only:
            self.ending = [] if progress == "silent" else [Progress(100)]
        self.blocks = blocks
        return self

    def _bulk(self, progress: str, *, gaps: bool) -> list[Block | Progress]:
        """Chunks that cover the disks, some left out if ``gaps``, in the order of a sender or any."""
        draw = self._draw
        true = progress == "true"
        total = sum(disk.sectors for disk in self._disks)
        finished, percent = 0, -1
        out: list[Block | Progress] = []

        def count(done: int) -> None:
            nonlocal percent
            if true and percent != 100 * done // total:
                percent = 100 * done // total
                out.append(Progress(percent))

        for disk in self._disks:
            starts = self._starts(disk, aligned=true)
            sent = [start for start in starts if not gaps or draw(st.integers(0, 3))]
            done = 0
            for start in sent:
                # A chunk that was moved to end with the disk counts from where it would have stood.
                done = -(-start // CHUNK_SECTORS) * CHUNK_SECTORS
                count(finished + done)
                out.append(self._chunk(disk.name, start))
            if sent[-1:] != starts[-1:]:
                # What is left out at a disk's end is passed over, and is done.
                self.progress = "skipped" if true else self.progress
                done = disk.sectors
                count(finished + done)
            finished += done
        if true:
            if gaps and draw(st.booleans()):
                self.progress = "abandoned"
                del out[draw(st.integers(0, len(out))) :]
            return out
        order = draw(st.sampled_from(["sent", "backwards", "any"]))
        if order == "backwards":
            out.reverse()
        return draw(st.permutations(out)) if order == "any" else out

    def _starts(self, disk: Disk, *, aligned: bool) -> list[int]:
        """First sectors of chunks that cover ``disk``."""
        draw = self._draw
        ways = ["grid", "grid", "moved"] + ([] if aligned else ["odd"])
        way = draw(st.sampled_from(ways))
        starts = list(range(0, disk.sectors, CHUNK_SECTORS))
        if way == "moved" and disk.sectors >= CHUNK_SECTORS:
            starts[-1] = disk.sectors - CHUNK_SECTORS
        elif way == "odd":
            starts = [0]
            while starts[-1] + CHUNK_SECTORS < disk.sectors:
                starts.append(starts[-1] + draw(st.integers(1024, CHUNK_SECTORS)))
        return starts

    def _chunk(self, device: str, sector: int) -> Block:
        draw = self._draw
        if draw(st.integers(0, 2)) == 0:
            wins = self._dialect == "v1" and draw(st.integers(0, 4)) == 0
            return Block(device, sector, zero=True, zero_wins=wins)
        return Block(device, sector, draw(_data))

    def _extra(self) -> Block:
        """A chunk anywhere: a repeat, or one that overlaps others."""
        draw = self._draw
        disk = draw(st.sampled_from(self._disks))
        sector = draw(st.integers(0, disk.sectors - 1))
        if draw(st.booleans()):
            sector -= sector % CHUNK_SECTORS
        return self._chunk(disk.name, sector)

    def _with_bits(self, blocks: list[Block | Progress], *, gaps: bool) -> list[Block | Progress]:
        """The records of v1 and v2 with bits: in records of chunks, and in records of their own."""
        draw = self._draw
        for disk in self._disks:
            if not disk.bitmaps:
                continue
            own = draw(st.sampled_from(["none", "first", "last", "any"]))
            ranges = self._ranges(disk)
            if gaps:
                ranges = [each for each in ranges if draw(st.integers(0, 3))]
            records = [Block(disk.name, sector, sectors=n, bits=()) for sector, n in ranges]
            if own == "first":
                blocks = [*records, *blocks]
            elif own == "last":
                blocks = [*blocks, *records]
            elif own == "any":
                for record in records:
                    blocks.insert(draw(st.integers(0, len(blocks))), record)
        rides = draw(st.booleans())
        named: set[str] = set()
        return [
            self._bits(record, named, rides=rides) if isinstance(record, Block) else record
            for record in blocks
        ]

    def _ranges(self, disk: Disk) -> list[tuple[int, int]]:
        """Ranges that cover the disk: sector and sectors; v2's may be larger than a chunk."""
        each = 1 if self._dialect == "v1" else self._draw(st.sampled_from([1, 1, 2, 100]))
        step = each * CHUNK_SECTORS
        return [(at, min(step, disk.sectors - at)) for at in range(0, disk.sectors, step)]

    def _bits(self, record: Block, named: set[str], *, rides: bool) -> Block:
        """``record`` with the bits of its disk's bitmaps, where it may carry any."""
        draw = self._draw
        disk = next(disk for disk in self._disks if disk.name == record.device)
        own = record.bits is not None
        if not own and (not disk.bitmaps or not (rides or draw(st.integers(0, 3)) == 0)):
            return record
        if self._dialect == "v2":
            if record.sector % CHUNK_SECTORS:
                return record
            sectors = record.sectors or min(CHUNK_SECTORS, disk.sectors - record.sector)
            record = replace(record, sectors=sectors)
        first = disk.name not in named
        named.add(disk.name)
        some = not first and draw(st.integers(0, 4)) == 0
        chosen = [one for one in disk.bitmaps if not some or draw(st.booleans())]
        return replace(record, bits=tuple(self._entry(bitmap) for bitmap in chosen))

    def _entry(self, bitmap: Bitmap) -> Bits:
        draw = self._draw
        bits = draw(_bits(bitmap))
        if self._dialect == "v1":
            return bits
        changed = draw(st.integers(0, 9)) == 0
        flags = draw(st.integers(0, 3)) if changed else bitmap.recording | bitmap.persistent << 1
        return replace(bits, flags=flags, junk=draw(st.booleans()), short=draw(st.booleans()))


@st.composite
def _bits(draw: st.DrawFn, bitmap: Bitmap) -> Bits:
    kind = draw(st.sampled_from(["clean", "noise", "all", "noise"]))
    return Bits(bitmap, kind, draw(st.integers(0, 99)) if kind == "noise" else 0)


@st.composite
def _marks(draw: st.DrawFn, found: tuple[Disk, ...]) -> tuple[tuple[Mark, ...], ...]:
    """The ``dirty-bitmap`` section, in parts: bitmaps one after the other, or in turns."""
    starts, middles, ends = [], [], []
    flat: list[Mark] = []
    for disk in found:
        for bitmap in disk.bitmaps:
            start = Mark("start", disk.name, bitmap)
            ended = draw(st.integers(0, 9)) > 0
            middle = draw(_pieces(disk, bitmap, ended=ended))
            end = [Mark("complete", disk.name, bitmap)] if ended else []
            flat += [start, *middle, *end]
            starts.append(start)
            middles += middle
            ends += end
    if draw(st.booleans()):
        flat = [*starts, *draw(st.permutations(middles)), *ends]
    flat = [replace(mark, named=draw(st.booleans())) for mark in flat]
    if not flat:
        return ()
    each = draw(st.sampled_from([1, 2, 100]))
    return tuple(tuple(flat[at : at + each]) for at in range(0, len(flat), each))


@st.composite
def _pieces(draw: st.DrawFn, disk: Disk, bitmap: Bitmap, *, ended: bool) -> list[Mark]:
    """Chunks of bits that cover a disk, seldom one left out, and perhaps one more.

    Those of a bitmap that ``ended`` say where the disk ends: the last of several is not left out.
    """
    step = WORD * bitmap.granularity // SECTOR
    words = -(-disk.sectors // step)
    cuts = sorted(draw(st.sets(st.integers(1, words - 1), max_size=3))) if words > 1 else []
    edges = [0, *cuts, words]
    spans = list(pairwise(edges))
    if draw(st.integers(0, 9)) == 0 and (not ended or words == 1 or len(spans) > 1):
        spans.remove(draw(st.sampled_from(spans[:-1] if ended and words > 1 else spans)))
    if draw(st.integers(0, 4)) == 0:
        low = draw(st.integers(0, words - 1))
        spans.append((low, draw(st.integers(low + 1, words))))
    return [draw(_piece(disk, bitmap, low * step, high * step)) for low, high in spans]


@st.composite
def _piece(draw: st.DrawFn, disk: Disk, bitmap: Bitmap, low: int, high: int) -> Mark:
    bits = draw(_bits(bitmap))
    zeroes = bits.kind == "clean" and draw(st.booleans())
    return Mark(
        "bits", disk.name, bitmap, low, min(high, disk.sectors) - low,
        None if zeroes else bits, zeroes, draw(st.integers(0, 3)),
    )  # fmt: skip


def examples(ordinary: int) -> int:
    """How many streams to try: ``ordinary``, or what BLKMIG_MODEL_EXAMPLES says."""
    return int(os.environ.get("BLKMIG_MODEL_EXAMPLES", ordinary))
