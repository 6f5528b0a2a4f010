"""Records at any sector, in every dialect: the last byte at each place counts, and nothing else.

A model of one number per sector, and streams written by hand, are what conversions are held to.
"""

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli import limits
from blkmig_cli.checks.survey import Contents, read_contents
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.errors import IncompleteError, UsageError
from blkmig_cli.operations.convert.convert import ConvertOptions, convert
from blkmig_cli.operations.reading import Reading
from blkmig_cli.progress import no_tick
from blkmig_cli.schemas.constants import V2_BITS_MAX
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.hints import Hints
from tests.conftest import Run, fails
from tests.support import raw
from tests.support.long import examples

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
        sizes = [2 * CHUNK + 7, 3 * CHUNK, 5000, 3 * CHUNK - 1, CHUNK + 1, CHUNK, 1, CHUNK - 1]
        sectors = draw(st.one_of(st.sampled_from(sizes), st.integers(1, 3 * CHUNK)))
        models[name] = Model(sectors)
    records: list[tuple[str, int]] = []
    if draw(st.booleans()):  # all of it, in some order
        records += [(n, at) for n, m in models.items() for at in range(0, m.sectors, CHUNK)]
        records = draw(st.permutations(records))
    for _ in range(draw(st.sampled_from([3, 1, 2, 5, 0]))):
        name = draw(st.sampled_from(names))
        end = models[name].sectors
        near = [max(end - CHUNK, 0), end // 2, min(CHUNK - 7, end - 1), (end - 1) // CHUNK * CHUNK]
        sector = draw(st.one_of(st.sampled_from(near), st.integers(0, end - 1)))
        place = draw(st.sampled_from([len(records), draw(st.integers(0, len(records)))]))
        records.insert(place, (name, sector))
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
        some, records = records[:count], records[count:]
        if may_end and draw(st.booleans()):
            some[-1] = some[-1][:7] + bytes([some[-1][7] | 2]) + some[-1][8:]
        else:
            some.append(raw.EOS)
        parts.append(b"".join(some))
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
    """Return a stream's records and the disks that replay makes of it, in the model's form."""
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
    """Return whether the dialect cannot express the stream."""
    on_grid = options.dialect in ("v1", "v2")
    parted = any(True for model in case.models.values() for _ in model.parted())
    unfinished = case.with_bitmaps and not case.ended and options.dialect == "v2"
    homeless = case.with_bitmaps and set(case.models) != case.with_records
    return on_grid and (parted or (not options.normalize and (unfinished or homeless)))


@pytest.mark.scaled
@settings(max_examples=examples(21, 1000))
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


def bits_of(sectors: int, granularity: int, *dirty: int) -> bytes:
    """The bitmap ``b`` of ``d`` in the dirty-bitmap section."""
    return section_bits(Model(sectors, granularity=granularity, dirty=set(dirty)), "d")


def test_a_chunk_that_ends_with_a_small_disk(run: Run, tmp_path: Path) -> None:
    """Seven sectors, the last four of which come again, off the grid; its bitmap states the size."""
    records = raw.block(0, 0, "d", chunk(1)), raw.block(3, 0, "d", chunk(2))
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(raw.qemu(*records, bitmaps=bits_of(7, 512, 0, 6)))
    for dialect in ("v1", "v2", "qemu"):
        assert run("convert", source, "--dialect", dialect, "--to", target).status == 0
        words = ["--device-size=3584", "--granularity=b=512"]
        outcome = run("validate", target, *words, "--output", "json")
        assert (outcome.status, outcome.report["complete"]) == (0, True)
        assert run("compare", source, target, *words).status == 0
        assert outcome.report["bitmaps"][0]["count"] == 1024


@pytest.mark.parametrize("granularity", [512, 4096, 16384, 65536, 1 << 20])
def test_bits_at_the_end_of_a_disk(run: Run, tmp_path: Path, granularity: int) -> None:
    """``send`` moves the last chunk forward to end with the disk; in v1 its words would end too early."""
    image, source, target = (tmp_path / name for name in ("d", "a", "b"))
    sectors = 5 * CHUNK + 17
    image.write_bytes(b"x" * sectors * 512)
    last = (sectors * 512 - 1) // granularity
    bitmap = DirtyBitmap("b", granularity)
    bitmap.set_range(last * granularity, 1)
    write_bitmaps(f"{image}.bitmaps.json", BitmapFile(sectors * 512, {"b": bitmap}))
    assert run("send", f"d={image}", "--bitmaps", "--to", source).status == 0
    for dialect in ("v1", "v2"):
        assert run("convert", source, "--dialect", dialect, "--to", target).status == 0
        words = [f"--device-size={sectors * 512}", f"--granularity=d:b={granularity}"]
        report = run("validate", target, *words, "--output", "json").report
        (found,) = report["bitmaps"]
        assert (found["complete"], found["count"]) == (True, sectors * 512 - last * granularity)
        assert report["complete"] is True


def test_chunks_are_cut_anew_once(run: Run, tmp_path: Path) -> None:
    """Nor at all where a record on the grid comes later."""
    source, target = tmp_path / "a", tmp_path / "b"
    grid, off = [raw.block(at * CHUNK, 8) for at in range(3)], raw.block(CHUNK + 5, 8)
    words = ["convert", source, "--dialect", "v2", "--device-size=3M", "--to", target]
    for records, count in (([off, *grid], 3), ([*grid, off, off], 5), ([*grid, off, grid[1]], 5)):
        source.write_bytes(raw.qemu(*records))
        assert run(*words).status == 0
        report = run("validate", target, "--device-size=3M", "--output", "json").report
        assert (report["devices"][0]["chunks"], report["complete"]) == (count, True)


def test_padding_is_not_copied(run: Run, tmp_path: Path) -> None:
    """Bytes behind the disk's end in an old capture are not copied, in any dialect."""
    source, target = tmp_path / "a", tmp_path / "b"
    secret = b"\x55" * 512
    data = chunk(1)[: 7 * 512] + secret * (CHUNK - 7)
    source.write_bytes(raw.qemu(raw.block(0, 0, "d", data)))
    for dialect in ("classic", "qemu", "v1", "v2"):
        for more in ([], ["--normalize"]):
            words = ["convert", source, "--dialect", dialect, "--device-size=3584", *more]
            assert run(*words, "--to", target).status == 0
            assert secret not in target.read_bytes()
            assert run("compare", source, target, "--device-size=3584").status == 0


def test_a_part_of_a_chunk(run: Run, tmp_path: Path) -> None:
    """Of an incremental stream; the destination keeps what the stream does not have."""
    source, target, image = (tmp_path / name for name in ("a", "b", "d"))
    source.write_bytes(raw.qemu(raw.block(100, 0, "d", chunk(1))))
    words = ["convert", source, "--device-size=d=2M", "--incremental", "--to", target]
    for dialect in ("v1", "v2"):
        for more in ([], ["--normalize"]):
            outcome = run(*words, "--dialect", dialect, *more)
            fails(outcome, 1, "sectors 100-2148 are only a part of their chunks")
            assert "see --dialect qemu" in outcome.err
    assert not target.exists()
    for more in ([], ["--normalize"]):
        assert run(*words, *more).status == 0
        image.write_bytes(b"\xee" * 2 * MIB)
        assert run("replay", target, "--image", image, "--incremental").status == 0
        assert image.read_bytes() == b"\xee" * 51200 + chunk(1) + b"\xee" * (MIB - 51200)


def test_the_chunk_before_the_last(run: Run, tmp_path: Path) -> None:
    """A last chunk is not moved forward over what the stream does not have."""
    source, target, image = (tmp_path / name for name in ("a", "b", "d"))
    source.write_bytes(raw.qemu(raw.block(CHUNK, 0, "d", chunk(1))))
    size = MIB + 3584
    words = ["convert", source, f"--device-size=d={size}", "--incremental", "--to", target]
    for more in ([], ["--normalize"]):
        assert run(*words, *more).status == 0
        image.write_bytes(b"\xee" * size)
        assert run("replay", target, "--image", image, "--incremental").status == 0
        assert image.read_bytes() == b"\xee" * MIB + chunk(1)[:3584]


@pytest.mark.parametrize("dialect", ["qemu", "v1", "v2"])
def test_a_disk_of_which_only_bitmaps_came(run: Run, tmp_path: Path, dialect: str) -> None:
    """Converted beside a disk with content, it does not become a disk of zeros."""
    source, target, image = (tmp_path / name for name in ("a", "b", "e"))
    bitmap = section_bits(Model(2 * CHUNK, dirty={3}), "e")
    source.write_bytes(raw.qemu(raw.block(0, 8, "d"), bitmaps=bitmap))
    words = ["convert", source, "--device-size=d=1M", "--dialect", dialect, "--normalize"]
    assert run(*words, "--to", target).status == 0
    image.write_bytes(b"\xee" * 2 * MIB)
    hints = ["--device-size=d=1M", "--device-size=e=2M", "--granularity=e:b=64k"]
    report = run("validate", target, *hints, "--output", "json").report
    assert [(d["name"], d["chunks"]) for d in report["devices"] if d["chunks"]] == [("d", 1)]
    assert [(b["device"], b["count"], b["complete"]) for b in report["bitmaps"]] == [
        ("e", 65536, True)
    ]


def test_bits_that_are_never_final(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    stream = raw.qemu(raw.block(0, 8, "d"), bitmaps=bits_of(CHUNK, 65536, 1))
    source.write_bytes(stream.replace(raw.progress(100), b""))
    words = ["convert", source, "--to", target]
    fails(run(*words, "--dialect", "v2"), 1, "ends without 100 percent")
    for more in (["--dialect", "v1"], ["--dialect", "qemu"], ["--dialect", "v2", "--normalize"]):
        assert run(*words, *more).status == 0
        hints = ["--device-size=1M", "--granularity=b=64k"]
        assert run("validate", target, *hints, "--output", "json").report["complete"] is True


FAULTS = {
    "sector-past-end": (raw.qemu(raw.block(0, 8), raw.block(CHUNK, 8)), ["--device-size=1M"]),
    "missing-chunks": (raw.qemu(raw.block(CHUNK, 8)), []),
    "section-unfinished": (
        raw.HEADER + raw.configuration()
        + raw.start(1, "block", 1, raw.block(0, 8) + raw.EOS) + raw.footer(1) + raw.EOF, []),
    "size-mismatch": (
        raw.qemu(raw.block(0, 8), bitmaps=bits_of(CHUNK, 65536)), ["--device-size=512k"]),
    "bitmap-incomplete": (
        raw.qemu(raw.block(0, 8), bitmaps=bits_of(CHUNK, 65536).replace(raw.COMPLETE, b"")), []),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("normalize", [False, True])
def test_streams_with_errors_are_not_converted(
    run: Run, tmp_path: Path, fault: str, normalize: bool
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    data, words = FAULTS[fault]
    source.write_bytes(data)
    outcome = run("validate", source, *words, "--output", "json")
    assert fault in [finding["id"] for finding in outcome.report["findings"]]
    more = ["--normalize"] if normalize else []
    outcome = run("convert", source, "--to", target, *words, *more)
    assert outcome.status == 1, outcome
    assert len(outcome.err.splitlines()) == 1
    assert not target.exists()
    if fault == "bitmap-incomplete":
        assert run("convert", source, "--to", target, "--no-bitmaps", *more).status == 0


def clean(sectors: int, *granularities: int) -> bytes:
    """Bitmaps of ``d`` without a dirty bit, in the dirty-bitmap section."""
    zeroes = bytes([0x42]) + struct.pack(">QI", 0, sectors) + raw.COMPLETE
    return b"".join(
        raw.bitmap_start(bitmap=f"b{at}", granularity=granularity) + zeroes
        for at, granularity in enumerate(granularities)
    )


def test_records_for_bits_alone(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """v1 has a record for every chunk, also of a disk whose size a few bytes claim."""
    source, target = tmp_path / "a", tmp_path / "b"
    ranges = b"".join(bytes([0x42]) + struct.pack(">QI", at << 31, 1 << 31) for at in range(64))
    bitmap = raw.bitmap_start(granularity=1 << 31) + ranges + raw.COMPLETE
    source.write_bytes(raw.qemu(bitmaps=bitmap))
    words = ["convert", source, "--dialect", "v1", "--normalize", "--to", target]
    fails(run(*words), 3, "67,108,864 chunks without data, and 1 bitmap: ")
    monkeypatch.setattr(limits, "V1_EMPTY_ENTRIES_MAX", 4)
    for sectors, status in ((3 * CHUNK - 1, 0), (3 * CHUNK, 3)):
        source.write_bytes(raw.qemu(bitmaps=clean(sectors, 65536, 65536)))
        assert run(*words).status == status


def test_bitmaps_in_every_record(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """v2 may name every bitmap in every record; their number is bounded."""
    source, target = tmp_path / "a", tmp_path / "b"
    monkeypatch.setattr(limits, "V2_ENTRIES_MAX", 4)
    words = ["convert", source, "--dialect", "v2", "--normalize", "--to", target]
    fine = 8 * V2_BITS_MAX  # sectors of the most bits in one record, at 512 bytes
    for sectors, status in ((2 * fine, 0), (2 * fine + 1, 4)):
        source.write_bytes(raw.qemu(bitmaps=clean(sectors, 512, 65536)))
        outcome = run(*words)
        assert outcome.status == status, outcome
    assert "2 bitmaps in 3 records, 4 entries are the most" in outcome.err


def test_names_that_v1_cannot_carry(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(raw.qemu(raw.block(0, 8, "a\0b")))
    fails(run("convert", source, "--dialect", "v1", "--to", target), 4, "it contains a NUL")
    assert not target.exists()


def test_what_options_name_must_be_there(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(raw.qemu(raw.block(0, 8), bitmaps=bits_of(CHUNK, 65536)))
    words = ["convert", source, "--to", target]
    fails(
        run(*words, "--device-size=x=1M"),
        2,
        "--device-size: no device 'x'; there is the device 'd'",
    )
    fails(run(*words, "--granularity=x=64k"), 2, "no bitmap 'x'; there is the bitmap 'd/b'")
    fails(run(*words, "--granularity=x:b=64k"), 2, "no bitmap 'x:b'")
    assert not target.exists()
    for name in ("b", "d:b", "d/b"):
        assert run(*words, f"--granularity={name}=64k", "--device-size=d=max").status == 0


def test_sizes_that_are_known_are_stated(run: Run, tmp_path: Path) -> None:
    """The record that stated the size is left out; the converted stream states it all the same."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(
        raw.qemu(raw.block(0, 8), raw.block(CHUNK, 8), bitmaps=bits_of(2 * CHUNK, 4096))
    )
    assert run("validate", source, "--output", "json").report["complete"] is True
    words = ["convert", source, "--no-bitmaps", "--to", target, "--normalize"]
    for dialect in ("classic", "qemu", "v1", "v2"):
        assert run(*words, "--dialect", dialect).status == 0
        report = run("validate", target, "--output", "json").report
        assert (report["complete"], report["devices"][0]["size"]) == (True, 2 * MIB)


def test_one_of_several_streams(run: Run, tmp_path: Path) -> None:
    """Nothing of the others, nor of what stands behind it."""
    source, target = tmp_path / "a", tmp_path / "b"
    streams = [raw.qemu(raw.block(at * CHUNK, 0, "d", chunk(at))) for at in range(3)]
    source.write_bytes(b"".join(streams) + b"behind it")
    words = ["convert", source, "--to", target, "--incremental", "--dialect", "classic"]
    fails(run(*words), 2, "--stream")
    assert not target.exists()
    for number, stream in enumerate(streams, 1):
        assert run(*words, "--stream", number).status == 0
        assert target.read_bytes() == stream
        assert run(*words, "--stream", number, "--normalize").status == 0
        (device,) = run("validate", target, "--output", "json").report["devices"]
        assert device["chunks"] == 1
        assert run("compare", source, target, "--stream", number, "--stream", 1).status == 0
