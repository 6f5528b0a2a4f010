"""Records at any sector, in every dialect: the last byte at each place counts, and nothing else.

A model of one number per sector, and streams written by hand, are what conversions are held to.
"""

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.checks.survey import Contents, read_contents
from blkmig_cli.errors import IncompleteError, UsageError
from blkmig_cli.operations.convert.convert import ConvertOptions, convert
from blkmig_cli.operations.reading import Reading
from blkmig_cli.progress import no_tick
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.hints import Hints
from tests.support import raw

MIB = 1 << 20
CHUNK = 2048
MISSING, ZERO = -1, 0


def chunk(number: int) -> bytes:
    """Data of which every sector is another."""
    return np.repeat(np.arange(CHUNK, dtype="<u4") + (number << 12 | 1), 128).tobytes()


def numbers(data: bytes) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """What the model holds of a disk's bytes."""
    words = np.frombuffer(data, "<u4").reshape(-1, 128)
    assert (words == words[:, :1]).all()
    return words[:, 0].astype(np.int64)


@dataclass
class Model:
    """A disk as its records leave it: for each sector which one, and a bitmap's dirty granules."""

    sectors: int
    content: list[int] = field(default_factory=list)
    granularity: int = 65536
    dirty: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.content = [MISSING] * self.sectors

    def write(self, sector: int, number: int | None) -> None:
        for at in range(sector, min(sector + CHUNK, self.sectors)):
            self.content[at] = ZERO if number is None else (number << 12 | 1) + at - sector

    @property
    def missing(self) -> bool:
        return MISSING in self.content

    def parted(self) -> Iterator[int]:
        """Chunks of the grid of which only a part is there."""
        for first in range(0, self.sectors, CHUNK):
            if (
                0
                < self.content[first : first + CHUNK].count(MISSING)
                < len(self.content[first : first + CHUNK])
            ):
                yield first


@dataclass
class Case:
    data: bytes
    models: dict[str, Model]
    with_records: set[str]
    with_bitmaps: bool
    ended: bool

    def __repr__(self) -> str:
        shown = {n: (m.sectors, m.granularity, sorted(m.dirty)) for n, m in self.models.items()}
        return f"Case({len(self.data)} bytes, {shown}, {self.with_bitmaps=}, {self.ended=})"


def section_bits(model: Model, name: str) -> bytes:
    """A bitmap in the dirty-bitmap section, all of its bits in one chunk."""
    granules = -(-model.sectors * 512 // model.granularity)
    bits = bytearray(-(-granules // 64) * 8)
    for granule in model.dirty:
        bits[granule // 8] |= 1 << granule % 8
    chunk = b"\x4c" + raw.name(name) + raw.name("b")
    chunk += struct.pack(">QIQ", 0, model.sectors, len(bits)) + bytes(bits)
    return raw.bitmap_start(name, "b", model.granularity) + chunk + raw.COMPLETE


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Records of one or two disks in turns: on the grid, off it, again, over each other."""
    dialect = draw(st.sampled_from(["classic", "classic", "v1", "v2"]))
    names = draw(st.sampled_from([["d"], ["d", "e"]]))
    models: dict[str, Model] = {}
    for name in names:
        sectors = draw(
            st.one_of(
                st.integers(1, 3 * CHUNK),
                st.sampled_from([1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7]),
            )
        )
        models[name] = Model(sectors)
    records: list[tuple[str, int]] = []
    if draw(st.booleans()):  # all of it, in some order
        records += [(n, at) for n, m in models.items() for at in range(0, m.sectors, CHUNK)]
        records = draw(st.permutations(records))
    for _ in range(draw(st.integers(0, 5))):
        name = draw(st.sampled_from(names))
        last = models[name].sectors - 1
        moved = max(models[name].sectors - CHUNK, 0)
        sector = draw(
            st.one_of(st.integers(0, last), st.just(moved), st.just(last // CHUNK * CHUNK))
        )
        records.insert(draw(st.integers(0, len(records))), (name, sector))
    written = []
    used = {name for name, _ in records}
    for number, (name, sector) in enumerate(records):
        zero = draw(st.booleans())
        models[name].write(sector, None if zero else number)
        flags = 8 if zero else 0 if dialect == "classic" else 0x10
        written.append(raw.block(sector, flags, name, b"" if zero else chunk(number)))
    with_bitmaps = draw(st.booleans())
    bits = b""
    for name, model in models.items() if with_bitmaps else []:
        model.granularity = 1 << draw(st.integers(9, 22))
        granules = -(-model.sectors * 512 // model.granularity)
        model.dirty = set(draw(st.lists(st.integers(0, granules - 1), max_size=8)))
        bits += section_bits(model, name)
    models = models if with_bitmaps else {name: models[name] for name in used}
    ended = draw(st.sampled_from([True, True, True, False]))
    data = stream_of(draw, written, bits, ended=ended, may_end=dialect != "v2")
    return Case(data, models, used, with_bitmaps, ended)


def stream_of(
    draw: st.DrawFn, records: list[bytes], bits: bytes, *, ended: bool, may_end: bool
) -> bytes:
    """The records in parts; ``may_end``: some parts end within the word of their last record."""
    parts = []
    while records:
        count = draw(st.integers(1, 4))
        part, records = records[:count], records[count:]
        if may_end and draw(st.booleans()):
            part[-1] = part[-1][:7] + bytes([part[-1][7] | 2]) + part[-1][8:]
        else:
            part.append(raw.EOS)
        parts.append(b"".join(part))
    last = (raw.progress(100) if ended else b"") + raw.EOS
    if parts and not bits and draw(st.booleans()):
        return b"".join(parts) + last
    out = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    if bits:
        out += raw.start(2, "dirty-bitmap", 1, b"\x01") + raw.footer(2)
    for part in parts:
        out += raw.part(1, part) + raw.footer(1)
    out += raw.part(1, last, kind=3) + raw.footer(1)
    if bits:
        out += raw.part(2, bits + b"\x01", kind=3) + raw.footer(2)
    return out + raw.EOF


def read(path: Path, hints: Hints) -> tuple[Contents, dict[str, list[int]]]:
    """What is in a stream, and what it leaves on its disks, as the model has it."""
    disks = {}
    with open_stream(str(path)) as stream:
        contents = read_contents(stream, Decoder(stream.input, hints=hints), hints, no_tick)
        assert contents.report.failure is None, contents.report.failure
        for verdict in contents.report.devices:
            disk = contents.disk(verdict.disk.name)
            found = numbers(disk.read(0, disk.size))
            for piece in disk.pieces():
                if piece.kind == "missing":
                    found[piece.start // 512 : piece.end // 512] = MISSING
            if (found != MISSING).any():
                disks[verdict.disk.name] = found.tolist()
    return contents, disks


def refused(case: Case, options: ConvertOptions) -> bool:
    """Whether the dialect has no place for what is in the stream."""
    on_grid = options.dialect in ("v1", "v2")
    parted = any(True for model in case.models.values() for _ in model.parted())
    unfinished = case.with_bitmaps and not case.ended and options.dialect == "v2"
    homeless = case.with_bitmaps and set(case.models) != case.with_records
    return on_grid and (parted or (not options.normalize and (unfinished or homeless)))


@settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from(["qemu", "classic", "v1", "v2"]), st.booleans())
def test_the_last_byte_counts(case: Case, dialect: str, normalize: bool) -> None:
    hints = Hints({name: case.models[name].sectors * 512 for name in case.models})
    options = ConvertOptions(
        dialect,
        normalize=normalize,
        bitmaps=dialect != "classic",
        incremental=any(model.missing for model in case.models.values()),
    )
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a", Path(folder) / "b"
        source.write_bytes(case.data)
        before, disks = read(source, hints)
        assert disks == {name: case.models[name].content for name in case.with_records}
        try:
            convert(str(source), str(target), options, reading=Reading(hints))
        except (IncompleteError, UsageError):
            assert refused(case, options)
            assert not target.exists()
            return
        assert not refused(case, options)
        hints.granularities = {(n, "b"): m.granularity for n, m in case.models.items()}
        after, found = read(target, hints)
    assert found == disks
    assert len(after.report.bitmaps) == len(before.report.bitmaps) * options.bitmaps
    for verdict in after.report.bitmaps:
        model, bitmap = case.models[verdict.bitmap.device], verdict.bitmap.content
        assert bitmap is not None
        assert bitmap.granularity == model.granularity
        runs = bitmap.granule_runs().tolist()
        assert {at for first, count in runs for at in range(first, first + count)} == model.dirty
        assert verdict.complete
    if not found and not after.report.bitmaps:
        return  # bitmaps were all there was
    worse_to_better = [False, None, True]
    rank = [worse_to_better.index(found.report.complete) for found in (before, after)]
    # Made anew, a stream says that what it leaves out is meant to be.
    assert rank[0] <= rank[1] if normalize else rank[0] == rank[1]
