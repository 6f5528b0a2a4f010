"""The bitmap against a plain set of granules; files of bitmaps."""

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli import limits
from blkmig_cli.disks import bitmap_words
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from blkmig_cli.disks.bitmap_words import Room
from blkmig_cli.errors import FailureError, LimitError

# Around the edges of a segment (2**16 granules) and of words.
EDGE = 1 << 16
PLACES = st.one_of(st.integers(0, 300), st.integers(EDGE - 200, EDGE + 200))
#: Bytes from which on a segment holds all its bits, and segments whose words are handed out together.
SIZES = st.sampled_from([(0, 1), (40, 2), (1 << 12, 1 << 6)])


@contextmanager
def segments(sizes: tuple[int, int]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitmap_words, "_SPARSE_MAX", sizes[0])
        patch.setattr(bitmap_words, "_BATCH", sizes[1])
        yield


def pack(granules: set[int], first_word: int, words: int) -> bytes:
    value = sum(1 << granule - 64 * first_word for granule in granules
                if 0 <= granule - 64 * first_word < 64 * words)  # fmt: skip
    return value.to_bytes(words * 8, "little")


@given(st.lists(st.tuples(st.sampled_from("wgcs"), PLACES, st.integers(1, 200), st.integers(0)),
                max_size=12), SIZES)  # fmt: skip
def test_against_a_set(steps: list[tuple[str, int, int, int]], sizes: tuple[int, int]) -> None:
    with segments(sizes):
        check_against_a_set(steps)


def check_against_a_set(steps: list[tuple[str, int, int, int]]) -> None:
    room = Room()
    bitmap, model = DirtyBitmap("b", 512, room=room), set[int]()
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
    for size in (512 * (EDGE + 100) + 300, 512 * 90 + 1):
        inside = [g for g in sorted(model) if g * 512 < size]
        assert bitmap.count(size) == sum(min(512, size - g * 512) for g in inside)
        ranges = bitmap.ranges(size)
        assert all(a + n < b for (a, n), (b, _) in pairwise(ranges))
        assert [g for a, n in ranges for g in range(a // 512, -(-(a + n) // 512))] == inside
        some = bitmap.bits(size, 512 * 70)
        assert some.dtype == np.bool_
        assert some.tolist() == [g in model for g in range(70, -(-size // 512))]
        packed = pack(model, 0, -(-size // (512 * 64)))
        assert bitmap.sha256(size) == hashlib.sha256(packed).hexdigest()
    assert bitmap.count(None) == 512 * len(model)
    assert bitmap.end() == (max(model, default=-1) + 1) * 512
    for word, words in ((0, 5), (EDGE // 64 - 2, 4)):
        assert bitmap.words(word, words).tobytes() == pack(model, word, words)
        assert bitmap.words(word, words).dtype == np.uint8
        some_bits = pack(model, word, words)
        assert bitmap.packed(word, words) == (some_bits if any(some_bits) else b"")
    copy = DirtyBitmap("copy", 512)
    for start, length in bitmap.ranges(None):
        copy.set_range(start, length)
    assert bitmap.same(copy)
    copy.set_range(max(model, default=0) * 512 + 1024, 1)
    assert not bitmap.same(copy)
    assert bitmap.same(copy, max(model, default=0) * 512 + 1)
    bitmap.write_granules(0, 1 << 30, b"")
    assert (bitmap.ranges(None), room.left) == ([], Room().left)


@pytest.mark.parametrize(
    "runs",
    [
        [(-9, 9), (3, 4)],
        [(-9, 12), (4, 1)],
        [(-20, 5), (-9, 8), (0, 4)],
        [(-20, 5), (-9, 9), (10, 1)],
        [(-20, 5), (-9, (1 << 22) + 20)],
        [(-(1 << 22), 1 << 23)],
        [(-1, 1), (1, 1), ((1 << 22) - 1, 2)],
        [(0, 3 << 22)],
    ],
)
def test_runs_around_the_edge_of_what_is_yielded_together(runs: list[tuple[int, int]]) -> None:
    """64 segments of 64 Ki granules."""
    bitmap, edge = DirtyBitmap("b", 512), 1 << 22
    for start, count in runs:
        bitmap.set_range((edge + start) * 512, count * 512)
    expected = [((edge + start) * 512, count * 512) for start, count in runs]
    assert bitmap.ranges() == expected
    assert bitmap.granule_runs().tolist() == [[start // 512, n // 512] for start, n in expected]
    end = sum(expected[-1])
    assert (bitmap.end(), bitmap.count()) == (end, sum(length for _, length in expected))
    assert bitmap.ranges(end - 1)[-1] == (expected[-1][0], expected[-1][1] - 1)


def test_memory_follows_what_is_dirty() -> None:
    """A bit 2**50 granules away costs as much as one nearby."""
    room = Room(1000)
    bitmap = DirtyBitmap("b", 512, room=room)
    bitmap.write_words(1 << 44, bytes(7) + b"\x80")
    assert bitmap.ranges(None) == [(((1 << 44) * 64 + 63) * 512, 512)]
    assert room.left > 800


@pytest.mark.long
def test_many_bits_and_the_farthest() -> None:
    """Bytes past 2**63, which a hostile sector can claim, are counted as well."""
    bitmap = DirtyBitmap("b", 1 << 20)
    bitmap.write_words(0, b"\x55" * 25_000)
    bitmap.write_words(1 << 52, b"\x81" + bytes(7))
    far = 1 << 58 + 20
    starts = [start for start, _ in bitmap.ranges(None)]
    assert starts == [*(at << 21 for at in range(100_000)), far, far + (7 << 20)]
    assert bitmap.count(None) == 100_002 << 20
    assert bitmap.end() == far + (8 << 20)
    assert bitmap.ranges(far + 1)[-1] == (far, 1)
    assert bitmap.count(far + 1) == (100_000 << 20) + 1
    assert bitmap.ranges(1 << 90) == bitmap.ranges(None)


@pytest.mark.parametrize("granule", [(1 << 33) - 2, (1 << 33) - 1, 1 << 33, (1 << 34) - 1, 1 << 34])
def test_around_the_end_of_int64(granule: int) -> None:
    """Granules of 1 GiB that end just before, at and behind byte 2**63, and 2**64."""
    bitmap = DirtyBitmap("b", 1 << 30)
    bitmap.write_granules(granule, 1, struct.pack("<Q", 1 << granule % 64))
    start = granule << 30
    assert bitmap.ranges(None) == [(start, 1 << 30)]
    assert bitmap.ranges(start + 5) == [(start, 5)]
    assert bitmap.ranges(start) == []
    ((first, count),) = bitmap.granule_runs()
    assert (first * bitmap.granularity, count * bitmap.granularity) == (start, 1 << 30)
    fits = granule < (1 << 33) - 1
    assert bitmap.granule_runs().dtype == (np.int64 if fits else object)


def test_what_is_asked_for_is_bounded() -> None:
    """A few bytes claim a huge disk."""
    bitmap = DirtyBitmap("b", 512)
    with pytest.raises(LimitError, match="bitmap of over 1024 MiB of bits"):
        bitmap.sha256(1 << 60)
    with pytest.raises(LimitError, match="granules at once"):
        bitmap.bits(1 << 60)
    assert bitmap.bits((1 << 60) + 513, 1 << 60).tolist() == [False, False]
    assert bitmap.bits(512, 1024).tolist() == []


def test_a_short_repr() -> None:
    bitmap = DirtyBitmap("b", 512)
    bitmap.write_words(0, b"\xff" * 800)
    assert (
        repr(bitmap) == "DirtyBitmap(name='b', granularity=512, recording=True, persistent=False)"
    )


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
    {"_dirty": ranges((0, 65536), (65536, 65536), (131072, 100)), "_count": 131172},
    {"_dirty": [{"start": 0}]},
    {"_dirty": [{"start": 0, "length": 65536.0}]},
    {"_dirty": [7]},
    {"_inconsistent": True},
    {"_inconsistent": 0},
    {"_name": "x" * 1024},
    {"_granularity": float("inf")},
    {"version": 1.0},
    {"version": True},
    {"virtual-size": 10**4000},
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
        json.dumps(document()).replace('"count": 65636', '"count": 65636, "count": 65636'),
        json.dumps(document()).replace('{"start": 0', '{"start": 0, "start": 0'),
        json.dumps(document()).replace('"version": 1', '"version": 1, "version": 1'),
        json.dumps(document()).replace('"version": 1', '"version": 1, "x": ' + "9" * 4301),
        *[json.dumps(document(**changes)) for changes in CHANGES],
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(damaged)
    with pytest.raises(FailureError, match=r"x\.json is not a file of bitmaps"):
        read_bitmaps(str(path))


def test_what_an_entry_may_say(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document(_inconsistent=False, _name="x" * 1023, other=[1.5])))
    assert list(read_bitmaps(path).bitmaps) == ["x" * 1023]


def test_any_name_and_number_of_ranges_is_written(tmp_path: Path) -> None:
    """What is written in pieces is what json would write at once."""
    names = ["empty", 'quotes: "dirty": []', "\udcff", "many"]
    bitmaps = {name: DirtyBitmap(name, 512) for name in names}
    bitmaps["many"].write_words(0, b"\x55" * 12_000)
    bitmaps['quotes: "dirty": []'].set_range(512, 1024)
    path, size = tmp_path / "x.json", 1 << 30
    write_bitmaps(path, BitmapFile(size, bitmaps))
    found = json.loads(path.read_text())
    assert path.read_text() == json.dumps(found, indent=1) + "\n"
    assert [bitmap["name"] for bitmap in found["bitmaps"]] == names
    for bitmap in found["bitmaps"]:
        held = bitmaps[bitmap["name"]]
        assert [(x["start"], x["length"]) for x in bitmap["dirty"]] == held.ranges(size)
        assert bitmap["count"] == held.count(size)
    assert read_bitmaps(path).bitmaps.keys() == bitmaps.keys()


def test_more_ranges_than_a_file_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused before anything is written."""
    monkeypatch.setattr(limits, "BITMAPS_FILE_MAX", 10_000)
    path = tmp_path / "x.json"
    path.write_text("old")
    bitmap = DirtyBitmap("b", 512)
    bitmap.write_words(0, b"\x55" * 100)
    with pytest.raises(FailureError, match=r"over \d+, as many as a file of bitmaps may have"):
        write_bitmaps(path, BitmapFile(1 << 30, {"b": bitmap}))
    assert path.read_text() == "old"
    write_bitmaps(path, BitmapFile(512 * 100, {"b": bitmap}))
    assert len(read_bitmaps(path).bitmaps["b"].ranges(None)) == 50


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


@pytest.mark.parametrize("first", [0, 5, 63, 64, 128])
@pytest.mark.parametrize("data", [b"", b"\xff" * 8])
def test_no_granules(first: int, data: bytes) -> None:
    bitmap = DirtyBitmap("b", 512)
    bitmap.set_range(0, 200 * 512)
    bitmap.write_granules(first, 0, data)
    bitmap.write_granules(first, -1, data)
    assert bitmap.ranges() == [(0, 200 * 512)]
