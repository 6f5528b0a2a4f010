"""Inference of v1's layout: the true one or a refusal, never a wrong one."""

import random
import struct
from pathlib import Path

import pytest

from blkmig_cli.contents.v1_granularity import Observations
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.operations.send.stream import SendOptions
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.v1.layout import describe
from tests.conftest import Run
from tests.support import raw
from tests.support.feed import encoded, events, in_file
from tests.support.strategies import MIB, MemoryImage, stream_events


def ambiguous() -> bytes:
    """A record whose 16 bytes of bits hold, in their second half, a record of their own."""
    second = raw.progress(1)  # 8 bytes that a shorter layout reads as a record
    return raw.block(0, 0x20, rest=raw.v1(("b", bytes(8) + second))) + raw.progress(100) + raw.EOS


def test_an_ambiguous_stream_is_refused() -> None:
    found, error = events(in_file(ambiguous()))
    assert found == []
    assert error is not None
    assert error.startswith("UndecidableError")
    assert "--granularity" in error


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.long if seed > 2 else []) for seed in range(12)]
)
def test_dense_bits_are_read_or_refused(seed: int) -> None:
    """Bits that look like names give many layouts: never an error that blames the stream."""
    dense = random.Random(seed)
    records = [
        raw.block(sector, 0x28, rest=raw.v1(*((f"b{n}", dense.randbytes(256)) for n in range(4))))
        for sector in (0, 2048)
    ]
    data = b"".join(records) + raw.EOS
    found, error = events(in_file(data))
    assert error is None or error.startswith("UndecidableError")
    if error is None:
        assert [event.length for event in found] == [len(records[0]), len(records[1]), 8]


@pytest.mark.parametrize(("granularity", "length"), [(8192, 16), (65536, 8)])
def test_hints_decide(granularity: int, length: int) -> None:
    known = Hints({"d": MIB}, {(None, "b"): granularity})
    found, error = events(in_file(ambiguous()), hints=known)
    assert error is None
    assert isinstance(found[0], Block)
    assert found[0].bitmaps[0].bits.length == length


@pytest.mark.parametrize("granularity", [512, 1024, 2048, 4096, 8192])
@pytest.mark.parametrize("size", [3 * MIB, 3 * MIB + 512, 3 * MIB + 64 * 512, 4 * MIB - 512])
def test_fine_granularities_are_found(granularity: int, size: int) -> None:
    """Two bitmaps, one fine, one coarse, and a last chunk of any size."""
    maps = [DirtyBitmap("fine", granularity), DirtyBitmap("coarse", 1 << 20)]
    for bitmap in maps:
        bitmap.set_range(5000, 2 * MIB)
    disk = Disk("d", MemoryImage(b"x" * size), maps)
    data = encoded(stream_events([disk], SendOptions("v1", "none")))
    source = in_file(data)
    decoder = Decoder(source)
    assert sum(event.length for event in decoder) == len(data)
    layouts = decoder.block.layouts
    assert layouts.granularities("d", "fine") == [granularity]
    assert 1 << 20 in layouts.granularities("d", "coarse")
    tail = layouts.tails().get("d")
    assert tail is None or tail[0] <= size <= tail[1]


CANDIDATES = [1 << shift for shift in range(14, 32)]


def observe(*records: tuple[int, int]) -> Observations:
    seen = Observations()
    for sector, word in records:
        seen.add(sector, memoryview(struct.pack("<Q", word)))
    return seen


def test_a_bit_that_vanishes_rules_out_a_shared_word() -> None:
    seen = observe((0, 1), (2048, 0))
    assert seen.narrow(CANDIDATES, None) == [1 << 14]


def test_a_bit_that_appears_without_its_chunk_rules_out() -> None:
    """Bit 0 is the first chunk's up to 1 MiB; that chunk was not sent again."""
    possible = observe((0, 0), (2048, 1)).narrow(CANDIDATES, None)
    assert possible == [1 << 14, *[g for g in CANDIDATES if g > 1 << 20]]


def test_a_write_meanwhile_rules_nothing_out() -> None:
    assert observe((0, 0), (2048, 1), (0, 1)).narrow(CANDIDATES, None) == CANDIDATES


def test_bits_past_the_disk_rule_out() -> None:
    """Bit 3 is past a disk of 2 MiB from 1 MiB on."""
    possible = observe((0, 8), (2048, 8)).narrow(CANDIDATES, 2 * MIB)
    assert possible == [g for g in CANDIDATES if 3 * g < 2 * MIB]


def test_records_of_a_word_are_found_wherever_they_stand() -> None:
    """Sent twice from the beginning, and clean the second time: no granularity explains it."""
    chunks = [(2048 * at, 255) for at in range(4)] + [(2048 * at, 0) for at in range(4)]
    assert observe(*chunks).narrow(CANDIDATES, None) == []
    assert observe(*chunks[:4]).narrow(CANDIDATES, None) == CANDIDATES


def test_contradicting_records_are_reported(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.bin"
    records = [raw.block(0, 0x28, rest=raw.v1(("bits", bits))) for bits in (b"\xff" * 8, bytes(8))]
    path.write_bytes(raw.qemu(*records))
    outcome = run("validate", path, "--output", "json")
    (finding,) = [f for f in outcome.report["findings"] if f["id"] == "bitmap-open"]
    assert "contradict" in finding["message"]
    assert outcome.report["bitmaps"][0]["candidates"] == []


@pytest.mark.parametrize(
    ("shifts", "text"),
    [
        ([], "unknown (its records contradict each other)"),
        ([14], "16 KiB"),
        ([14, 15], "16 KiB or 32 KiB"),
        ([14, 15, 16], "16 KiB, 32 KiB or 64 KiB"),
        ([14, 15, 16, 17], "anything from 16 KiB to 128 KiB"),
        ([14, 15, 16, 18], "16 KiB, 32 KiB, 64 KiB or 256 KiB"),
        ([14, 18], "16 KiB or 256 KiB"),
        ([14, 16, 17, 18, 19], "16 KiB, 64 KiB, 128 KiB, 256 KiB or 512 KiB"),
    ],
)
def test_candidates_as_text(shifts: list[int], text: str) -> None:
    assert describe([1 << shift for shift in shifts]) == text
