"""The bitmap against a plain set of granules; files of bitmaps."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from blkmig_cli.errors import FailureError

# Around the edges of a segment (2**19 granules) and of words.
PLACES = st.one_of(st.integers(0, 300), st.integers((1 << 19) - 200, (1 << 19) + 200))


def pack(granules: set[int], first_word: int, words: int) -> bytes:
    value = sum(1 << granule - 64 * first_word for granule in granules
                if 0 <= granule - 64 * first_word < 64 * words)  # fmt: skip
    return value.to_bytes(words * 8, "little")


@given(st.lists(st.tuples(st.sampled_from("wgcs"), PLACES, st.integers(1, 200), st.integers(0)),
                max_size=12))  # fmt: skip
def test_against_a_set(steps: list[tuple[str, int, int, int]]) -> None:
    bitmap, model = DirtyBitmap("b", 512), set[int]()
    for kind, first, count, seed in steps:
        if kind == "w":
            words = count // 64 + 1
            bits = (seed % (1 << 64 * words)).to_bytes(words * 8, "little")
            bitmap.write_words(first // 64, bits)
            base = first // 64 * 64
            model -= set(range(base, base + 64 * words))
            model |= {base + at for at in range(64 * words) if bits[at // 8] >> at % 8 & 1}
        elif kind == "g":
            word, last = first // 64, (first + count - 1) // 64
            bits = (seed * 0x9E3779B97F4A7C15 % (1 << 64 * (last - word + 1))).to_bytes(
                8 * (last - word + 1), "little"
            )
            bitmap.write_granules(first, count, bits)
            ours = set(range(first, first + count))
            given_bits = {
                64 * word + at for at in range(8 * len(bits)) if bits[at // 8] >> at % 8 & 1
            }
            model = model - ours | given_bits & ours
        elif kind == "c":
            bitmap.write_granules(first, count, b"")
            model -= set(range(first, first + count))
        else:
            bitmap.set_range(first * 512 + seed % 512, count * 512 - 511)
            start = first * 512 + seed % 512
            model |= set(range(start // 512, (start + count * 512 - 512) // 512 + 1))
    runs = [g for first, count in bitmap.granule_runs() for g in range(first, first + count)]
    assert runs == sorted(model)
    size = 512 * ((1 << 19) + 100) + 300
    assert bitmap.count(size) == sum(min(512, size - g * 512) for g in model if g * 512 < size)
    ranges = bitmap.ranges(size)
    assert all(a + n < b for (a, n), (b, _) in pairwise(ranges))
    for word, words in ((0, 5), ((1 << 13) - 2, 4)):
        assert bitmap.words(word, words).tobytes() == pack(model, word, words)
        assert bitmap.words(word, words).dtype == np.uint8


def test_memory_follows_what_is_dirty() -> None:
    """A bit 2**50 granules away costs a segment, not the way there."""
    bitmap = DirtyBitmap("b", 512)
    bitmap.write_words(1 << 44, bytes(7) + b"\x80")
    assert bitmap.ranges(None) == [(((1 << 44) * 64 + 63) * 512, 512)]


def test_a_million_bits_and_the_farthest() -> None:
    """Bytes past 2**63 (a hostile sector can say so) are counted all the same."""
    bitmap = DirtyBitmap("b", 1 << 20)
    bitmap.write_words(0, b"\x55" * 250_000)
    bitmap.write_words(1 << 52, b"\x81" + bytes(7))
    far = 1 << 58 + 20
    starts = [start for start, _ in bitmap.ranges(None)]
    assert starts == [*(at << 21 for at in range(1_000_000)), far, far + (7 << 20)]
    assert bitmap.count(None) == 1_000_002 << 20
    assert bitmap.end() == far + (8 << 20)
    assert bitmap.ranges(far + 1)[-1] == (far, 1)
    assert bitmap.count(far + 1) == (1_000_000 << 20) + 1
    assert bitmap.ranges(1 << 90) == bitmap.ranges(None)


def document(**changes: Any) -> dict[str, Any]:
    bitmap = {"name": "b", "granularity": 65536, "recording": True, "persistent": False,
              "count": 65636, "dirty": [{"start": 0, "length": 65536},
                                        {"start": 131072, "length": 100}]}  # fmt: skip
    bitmap.update({key[1:]: value for key, value in changes.items() if key.startswith("_")})
    root: dict[str, Any] = {"version": 1, "virtual-size": 131172, "bitmaps": [bitmap]}
    root.update({key: value for key, value in changes.items() if not key.startswith("_")})
    return root


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document()))
    content = read_bitmaps(str(path))
    write_bitmaps(str(path), content)
    assert json.loads(path.read_text()) == document()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def ranges(*pairs: tuple[int, int]) -> list[dict[str, int]]:
    return [{"start": start, "length": length} for start, length in pairs]


CHANGES: list[dict[str, Any]] = [
    {"bitmaps": None},
    {"virtual-size": -1},
    {"virtual-size": True},
    {"bitmaps": [1]},
    {"bitmaps": document()["bitmaps"] * 2},
    {"_name": ""},
    {"_name": 5},
    {"_granularity": 1000},
    {"_granularity": 1 << 40},
    {"_recording": 1},
    {"_persistent": None},
    {"_count": 1},
    {"_dirty": {}},
    {"_dirty": ranges((5, 65536))},
    {"_dirty": ranges((0, 100))},
    {"_dirty": ranges((131072, 100), (0, 65536))},
    {"_dirty": ranges((131072, 65536))},
    {"_dirty": ranges((0, 0))},
    {"_dirty": ranges((0, 1 << 62)), "virtual-size": 1 << 62, "_granularity": 512},
]


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"version": 2}',
        *[json.dumps(document(**changes)) for changes in CHANGES],
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(damaged)
    with pytest.raises(FailureError, match=r"x\.json is no file of bitmaps"):
        read_bitmaps(str(path))


def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    bitmap = DirtyBitmap("b", 768)  # what no writer makes: ranges() still works, so break the name
    bitmap.name = object()  # type: ignore[assignment]
    with pytest.raises(TypeError):
        write_bitmaps(str(path), BitmapFile(0, {"b": bitmap}))
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FailureError):
        write_bitmaps(str(tmp_path / "no" / "x.json"), BitmapFile(0, {}))
