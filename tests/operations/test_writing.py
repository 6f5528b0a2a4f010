"""Records that repeat and overlap: whatever is left out or done at once, the last byte counts."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.disks import raw as raw_images
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay import held, superseded
from blkmig_cli.operations.replay.superseded import Superseded
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import BlockFlag
from blkmig_cli.system.overlap import Overlap
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Run as Rows
from tests.conftest import Run, fails
from tests.support import raw
from tests.support.feed import in_file
from tests.support.long import examples

SECTORS = 6 * 2048
# Sector, and the byte that fills the chunk; 0 as a zero block, -1 as data of zeros.
RECORDS = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, 5).map(lambda chunk: chunk * 2048),
            st.integers(0, SECTORS - 1),
            st.just(SECTORS - 2048),
        ),
        st.integers(-1, 255),
    ),
    max_size=12,
)


def stream(records: list[tuple[int, int]]) -> bytes:
    return raw.qemu(
        *(
            raw.block(sector, 8)
            if byte == 0
            else raw.block(sector, 0, rest=bytes([max(byte, 0)]) * raw.CHUNK)
            for sector, byte in records
        )
    )


@given(records=RECORDS, existing=st.booleans())
@pytest.mark.scaled
@settings(max_examples=examples(10, 150))
def test_the_last_record_counts(
    run: Run,
    tmp_path_factory: pytest.TempPathFactory,
    records: list[tuple[int, int]],
    existing: bool,
) -> None:
    folder = tmp_path_factory.mktemp("w", numbered=True)
    path = folder / "s.bin"
    path.write_bytes(stream(records))
    before = b"\xee" * (SECTORS * 512) if existing else bytes(SECTORS * 512)
    expected, touched = bytearray(before), IntervalSet()
    for sector, byte in records:
        end = min(sector + 2048, SECTORS)
        expected[sector * 512 : end * 512] = bytes([max(byte, 0)]) * ((end - sector) * 512)
        touched.add(sector, end)
    # From a file, whose records are held, or decoded a second time; from a pipe.
    for source, room in ((path, held._ROOM), (path, 3 << 10), (f"exec:cat {path}", 0)):
        image = folder / "image"
        image.unlink(missing_ok=True)
        if existing:
            image.write_bytes(before)
        words = ["--device-size", f"d={SECTORS * 512}", "--allow-incomplete"]
        words += [] if existing else ["--create"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(held, "_ROOM", room)
            outcome = run("replay", source, "--image", f"d={image}", *words, "--output", "json")
        if not records:
            continue
        assert outcome.status == 0, outcome
        assert image.read_bytes() == expected
        written = outcome.report["devices"][0]["bytes-written"]
        assert written == sum(high - low for low, high in touched) * 512


@given(records=RECORDS)
@pytest.mark.scaled
@settings(max_examples=examples(17, 250))
def test_superseded_by_runs_and_by_events(records: list[tuple[int, int]]) -> None:
    """A record is left out only if a later one begins where it does; whole runs say the same."""
    data = stream(records)
    by_events, by_runs = Superseded(), Superseded()
    blocks = [event for event in Decoder(in_file(data), hints=Hints()) if isinstance(event, Block)]
    covered = IntervalSet()
    for block in blocks:
        by_events.feed(block, covered)
        covered.add(block.sector, block.sector + 2048)
    covered = IntervalSet()
    decoder = Decoder(in_file(data), hints=Hints())
    try:
        while True:
            piece = decoder.piece()
            if isinstance(piece, Rows):
                by_runs.feed_run(piece, lambda _: covered)
            elif isinstance(piece, Block):
                by_runs.feed(piece, covered)
            for event in piece if isinstance(piece, Rows) else [piece]:
                if isinstance(event, Block):
                    covered.add(event.sector, event.sector + 2048)
    except StopIteration:
        pass
    for number, block in enumerate(blocks):
        again = any(later.sector == block.sector for later in blocks[number + 1 :])
        assert (block in by_events) == again
        assert (block in by_runs) == again


@given(records=RECORDS)
@pytest.mark.scaled
@settings(max_examples=examples(17, 250))
def test_superseded_rows_are_thinned_out(records: list[tuple[int, int]]) -> None:
    """However often a chunk is sent, its last record is known, and little more is stored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(superseded, "_ROWS_MIN", 2)
        found, last = Superseded(), {}
        covered = IntervalSet()
        covered.add(0, SECTORS + 2048)
        for number, (sector, _) in enumerate(records * 3):
            found.feed(block(sector, number), covered)
            last[sector] = number
        for sector, number in last.items():
            assert block(sector, number - 1) in found
            assert block(sector, number) not in found
    assert block(SECTORS + 1, -1) not in found


def block(sector: int, offset: int) -> Block:
    flags = BlockFlag.DEVICE_BLOCK | BlockFlag.ZERO_BLOCK
    return Block(offset, 15, "block", "d", sector, 2048, 2048, flags, "classic", None, ())


def test_superseded_records_are_not_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that comes ten times is written once."""
    path, image = tmp_path / "s.bin", tmp_path / "image"
    path.write_bytes(stream([(0, byte) for byte in range(1, 11)]))
    written = []
    old = raw_images.RawImage.write

    def write(self: raw_images.RawImage, offset: int, data: memoryview) -> None:
        written.append((offset, data[0]))
        old(self, offset, data)

    monkeypatch.setattr(raw_images.RawImage, "write", write)
    assert run("replay", path, "--image", image, "--create", "--device-size", "1M").status == 0
    assert written == [(0, 10)]


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_neighbouring_zeros_are_one_hole(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """Those of a run, in any order."""
    path, image = tmp_path / "s.bin", tmp_path / "image"
    path.write_bytes(stream([(sector, 0) for sector in (4096, 2048, 0, 8192, 6144)]))
    image.write_bytes(b"\1" * (5 * raw.CHUNK))
    holes = []
    old = raw_images.RawImage.zero

    def zero(self: raw_images.RawImage, offset: int, length: int) -> None:
        holes.append((offset >> 20, length >> 20))
        old(self, offset, length)

    monkeypatch.setattr(raw_images.RawImage, "zero", zero)
    source = path if way == "file" else f"exec:cat {path}"
    assert run("replay", source, "--image", image).status == 0
    assert holes == [(0, 5)]
    assert image.read_bytes() == bytes(5 * raw.CHUNK)


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_a_full_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """The error names the record, and says what was written before."""
    path, image = tmp_path / "s.bin", tmp_path / "image"
    path.write_bytes(stream([(0, 1), (2048, 2), (4096, 3), (6144, 4)]))
    old = os.pwrite

    def full(fd: int, data: memoryview, offset: int) -> int:
        if offset >= 2 * raw.CHUNK:
            raise OSError(28, "No space left on device")
        return old(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    source = path if way == "file" else f"exec:cat {path}"
    outcome = run("replay", source, "--image", image, "--create", "--device-size", "4M")
    fails(outcome, 4, "No space left")
    assert "sector 4096" in outcome.err or "sector 6144" in outcome.err
    assert "2 MiB written" in outcome.out
    begun = Path(f"{image}.partial").read_bytes()
    assert begun[: 2 * raw.CHUNK] == b"\1" * raw.CHUNK + b"\2" * raw.CHUNK


def test_zeros_that_were_not_written_do_not_count(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, image = tmp_path / "s.bin", tmp_path / "image"
    path.write_bytes(stream([(0, 1), (2048, 0), (4096, 0)]))
    image.write_bytes(b"\xee" * (3 * raw.CHUNK))

    def zero(self: raw_images.RawImage, offset: int, length: int) -> None:
        raise FailureError("no zeros today")

    monkeypatch.setattr(raw_images.RawImage, "zero", zero)
    outcome = run("replay", path, "--image", image, "--output", "json")
    fails(outcome, 4, "no zeros today")
    assert outcome.report["devices"][0]["bytes-written"] == raw.CHUNK
    assert image.read_bytes()[raw.CHUNK :] == b"\xee" * (2 * raw.CHUNK)


def test_zeros_of_two_devices_count_for_each(run: Run, tmp_path: Path) -> None:
    """Runs of zeros whose rows alternate between two images."""
    path, images = tmp_path / "s.bin", [tmp_path / "d", tmp_path / "e"]
    records = [raw.block(at * 2048, 8, name) for at in range(40) for name in "de"]
    path.write_bytes(raw.qemu(*records))
    for image in images:
        image.write_bytes(b"\xee" * (40 * raw.CHUNK))
    words = [f"--image={image.name}={image}" for image in images]
    outcome = run("replay", path, *words, "--output", "json")
    assert outcome.status == 0
    assert [found["bytes-written"] for found in outcome.report["devices"]] == [40 * raw.CHUNK] * 2
    assert [image.read_bytes() for image in images] == [bytes(40 * raw.CHUNK)] * 2


@pytest.mark.parametrize("at", [0, 1, 2, 79, 80, 158, 159, 160])
def test_many_zeros_over_one_chunk_of_data(run: Run, tmp_path: Path, at: int) -> None:
    """A run of zero chunks, every other of a disk of holes: each is written, the others stay."""
    path, image = tmp_path / "s.bin", tmp_path / "image"
    path.write_bytes(stream([(chunk * 2048, 0) for chunk in range(1, 160, 2)]))
    with open(image, "wb") as file:
        file.truncate(161 * raw.CHUNK)
        file.seek(at * raw.CHUNK)
        file.write(b"\xee" * raw.CHUNK)
    words = ["--incremental", "--device-size", "161M"]
    assert run("replay", path, "--image", image, *words).status == 0
    with open(image, "rb") as file:
        file.seek(at * raw.CHUNK)
        assert file.read(raw.CHUNK) == (b"\0" if at % 2 else b"\xee") * raw.CHUNK


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_the_ranges_of_jobs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Writes that overlap are in order, as each is known by its range of the image."""
    path, image = tmp_path / "s.bin", tmp_path / "image"
    path.write_bytes(stream([(0, 1), (1000, 2), (4096, 3)]))
    ranges = []
    old = Overlap.submit

    def submit(self: Overlap, target: object, start: int, end: int, job: Any) -> None:
        ranges.append((start, end))
        old(self, target, start, end, job)

    monkeypatch.setattr(Overlap, "submit", submit)
    source = path if way == "file" else f"exec:cat {path}"
    words = ["--create", "--device-size", "3M", "--allow-incomplete"]
    run("replay", source, "--image", image, *words)
    expected = [(512 * sector, 512 * sector + raw.CHUNK) for sector in (0, 1000, 4096)]
    assert ranges in (expected, [])
    assert ranges or way == "pipe"


def test_overlap_keeps_the_order_of_ranges_that_touch() -> None:
    gate, log, target, other = threading.Event(), [], object(), object()

    def first() -> None:
        gate.wait(10)
        log.append("first")

    def open_gate() -> None:
        log.append("other")
        gate.set()

    with Overlap() as overlap:
        overlap.submit(target, 0, 10, first)
        overlap.submit(other, 0, 10, open_gate)
        overlap.submit(target, 9, 20, lambda: log.append("second"))
        overlap.drain()
    assert log == ["other", "first", "second"]


def test_overlap_raises_what_a_job_raised() -> None:
    def fail() -> None:
        raise FailureError("no")

    with Overlap() as overlap:
        overlap.submit(object(), 0, 1, fail)
        with pytest.raises(FailureError):
            overlap.drain()
