"""Findings on what is not known to be whole."""

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.support import raw

V2 = raw.block(0, 0x60, rest=raw.v2(2048, ("b", 1, 65536, b"\1" * 8)))
BITS = raw.bitmap_start(granularity=65536) + raw.bitmap_bits(0, 8192, b"\1" * 8)
SECTION = raw.qemu(bitmaps=BITS + raw.COMPLETE, blocks=False)
#: What: the stream, the verdict, and the findings.
BITMAPS = {
    "records without a size": (raw.qemu(V2, raw.progress(100)), "unknown", ["completeness-unknown"]),
    "a section": (SECTION, "whole", []),
    "a section, and damage behind it": (SECTION[:-1] + b"\x77", "damaged", ["unknown-section"]),
    "a section, and no end": (SECTION[:-1], "damaged", ["truncated"]),
    "a section whose bitmap has no end": (
        raw.qemu(bitmaps=BITS, blocks=False), "incomplete", ["bitmap-incomplete"]),
}  # fmt: skip


@pytest.mark.parametrize("what", BITMAPS)
def test_bitmaps_alone(what: str, run: Run, tmp_path: Path) -> None:
    data, verdict, ids = BITMAPS[what]
    path = tmp_path / "s.bin"
    path.write_bytes(data)
    report = run("validate", path, "--output", "json").report
    assert report["verdict"] == verdict
    assert [finding["id"] for finding in report["findings"]] == ids


def test_a_bitmap_that_ends_before_the_disk(run: Run, tmp_path: Path) -> None:
    """Of which another bitmap proves that it is longer, but not how long it is."""
    both = raw.v1(("b", b"\1" * 8), ("c", b"\1" * 8))
    second = raw.block(2048, 0x20, rest=raw.v1(("c", b"\1" * 8)))
    path = tmp_path / "s.bin"
    path.write_bytes(raw.qemu(raw.block(0, 0x20, rest=both), second))
    words = ["--granularity", "b=64K", "--granularity", "c=64K"]
    report = run("validate", path, *words, "--output", "json").report
    complete = {bitmap["name"]: bitmap["complete"] for bitmap in report["bitmaps"]}
    assert complete == {"b": False, "c": None}


def test_a_bitmap_with_a_gap_past_the_stated_size(run: Run, tmp_path: Path) -> None:
    further = raw.block(4096, 0x60, rest=raw.v2(2048, ("b", 1, 65536, b"\1" * 8)))
    path = tmp_path / "s.bin"
    path.write_bytes(raw.qemu(V2, further, raw.progress(100)))
    report = run("validate", path, "--device-size", "1M", "--output", "json").report
    assert [bitmap["complete"] for bitmap in report["bitmaps"]] == [False]
