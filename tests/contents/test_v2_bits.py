"""v2: the bits of overlapping records add up as the format says, against a set of granules."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.disks.bitmap_file import read_bitmaps
from tests.conftest import Run
from tests.support import raw
from tests.support.long import examples

#: (first chunk, chunks, what: new bits by seed, 0 for clean, None for left out)
Step = tuple[int, int, int | None]
CHUNKS = 5
STEPS = st.lists(
    st.tuples(
        st.integers(0, CHUNKS - 1),
        st.integers(1, CHUNKS),
        st.one_of(st.none(), st.just(0), st.integers(1, 1 << 64)),
    ),
    max_size=6,
)


@pytest.mark.scaled
@settings(max_examples=examples(28, 400))
@given(STEPS, st.integers(9, 31), st.integers(1, 2048))
def test_records_add_up(
    run: Run,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[Step],
    shift: int,
    tail: int,
) -> None:
    """The last copy of a granule counts; bits outside the range, and what is left out, change nothing."""
    granularity = 1 << shift
    size = (CHUNKS - 1) * 2048 + tail
    model: set[int] = set()
    # The first names the bitmap and covers the whole disk: all clean.
    records = raw.block(0, 0x60, rest=raw.v2(size, ("b", 3, granularity, b"")))
    for chunk, chunks, seed in steps:
        sector, sectors = chunk * 2048, min(chunks * 2048, size - chunk * 2048)
        first = sector * 512 // granularity
        last = ((sector + sectors) * 512 - 1) // granularity
        if seed is None:
            records += raw.block(sector, 0x60, rest=raw.v2(sectors))
            continue
        words = last // 64 - first // 64 + 1
        bits = b""
        if seed:
            bits = (seed * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(8, "little") * words
        model -= set(range(first, last + 1))
        value = int.from_bytes(bits, "little")
        base = first // 64 * 64
        model |= {g for g in range(first, last + 1) if value >> (g - base) & 1}
        records += raw.block(sector, 0x60, rest=raw.v2(sectors, ("b", 1, granularity, bits)))
    folder = tmp_path_factory.mktemp("v2")
    (folder / "s").write_bytes(raw.qemu(records))
    outcome = run("replay", folder / "s", "--bitmaps-only", "--bitmaps-to", f"d={folder / 'b'}")
    assert outcome.status == 0, outcome.out + outcome.err
    found = read_bitmaps(str(folder / "b"))
    assert found.size == size * 512
    bitmap = found.bitmaps["b"]
    dirty = {g for first, count in bitmap.granule_runs() for g in range(first, first + count)}
    assert dirty == model
    # The last flags count.
    named_last = any(seed is not None for _, _, seed in steps)
    assert (bitmap.recording, bitmap.persistent) == (True, not named_last)


def test_a_gap_is_not_clean(run: Run, tmp_path: Path) -> None:
    """Where ranges leave a chunk out, the bitmap is incomplete, and not written."""
    entry = ("b", 1, 65536, b"")
    records = raw.block(0, 0x60, rest=raw.v2(2048, entry))
    records += raw.block(4096, 0x60, rest=raw.v2(100, entry))
    (tmp_path / "s").write_bytes(raw.qemu(records))
    report = run("validate", tmp_path / "s", "--output", "json").report
    assert report["complete"] is False
    assert [finding["id"] for finding in report["findings"]] == ["bitmap-incomplete"]
    outcome = run("replay", tmp_path / "s", "--bitmaps-only", "--bitmaps-to", tmp_path / "b")
    assert outcome.status == 1
    assert not (tmp_path / "b").exists()
