"""Devices and bitmaps that options name must be in the stream: one check for all commands."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.checks.names import Key, Names, find_bitmaps, find_device, split_bitmap
from blkmig_cli.errors import UsageError
from blkmig_cli.wire.hints import Hints
from tests.conftest import Run, fails
from tests.support import raw

KNOWN: list[Key] = [("a", "x"), ("b", "x"), ("b", "y"), ("a/b", "z"), ("a", "b/z"), ("c", "a/x")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("y", [("b", "y")]),
        ("x", [("a", "x"), ("b", "x")]),
        ("a:x", [("a", "x")]),
        ("b/y", [("b", "y")]),
        ("a:b/z", [("a", "b/z")]),
        ("a/b:z", [("a/b", "z")]),
        ("c/a/x", [("c", "a/x")]),
    ],
)
def test_bitmaps(text: str, found: list[Key]) -> None:
    assert find_bitmaps("--bitmap", split_bitmap(text), KNOWN) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w", "--bitmap: no bitmap 'w'; there are the bitmaps 'a/x', 'b/x', "),
        ("a:y", "no bitmap 'a:y'"),
        (":x", "no bitmap ':x'"),
        ("b/w", "no bitmap 'b/w'"),
        ("a/x", "'a/x' may mean 'c:a/x', 'a:x'; use DEVICE:NAME"),
        ("a/b/z", "'a/b/z' may mean 'a/b:z', 'a:b/z'; use DEVICE:NAME"),
    ],
)
def test_bitmaps_that_are_not_in_the_stream(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        find_bitmaps("--bitmap", split_bitmap(text), KNOWN)
    assert message in str(error.value)


def test_long_lists_are_cut() -> None:
    with pytest.raises(UsageError) as error:
        find_device("--device", "x\n", [f"d{at}" for at in range(4096)])
    assert str(error.value).endswith("'d6', 'd7' and 4088 more")
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"there is no device$"):
        find_device("--device", "x", [])


def test_hints() -> None:
    names = Names({"a": None, "b": None}, {("a", "x"): None})
    names.check_hints(Hints({"a": 512, None: 1024}, {(None, "x"): 512}, largest={"b"}))
    for hints in (
        Hints({"c": 512}),
        Hints(largest={"c"}),
        Hints({}, {("b", "x"): 512}),
        Hints({}, {(None, "y"): 512}),
    ):
        with pytest.raises(UsageError):
            names.check_hints(hints)
        # ... of a stream that was not read to its end, no chunk is known to be missing.
        Names(partly_read=True).check_hints(hints)


@given(st.text("ab/:", min_size=1, max_size=4), st.text("ab/:", min_size=1, max_size=4))
def test_what_reports_print_is_understood(device: str, name: str) -> None:
    printed = f"{device}/{name}"
    hints = Hints({}, {split_bitmap(printed): 4096})
    if ":" not in printed:
        assert find_bitmaps("--bitmap", split_bitmap(printed), [(device, name)]) == [(device, name)]
        assert hints.granularity(device, name) == 4096
    key = split_bitmap(f"{device}:{name}")
    if ":" not in device:
        assert key == (device, name)
        assert Hints({}, {key: 4096}).granularity(device, name) == 4096
        assert Hints({}, {key: 4096}).granularity("x", name) is None


def test_max() -> None:
    hints = Hints({"a": 512}, largest={None})
    assert [hints.takes_most(name) for name in "ab"] == [False, True]
    assert hints.option_size("a") == 512
    hints = Hints({None: 512}, images={"a": 1024}, largest={"a"})
    assert [hints.takes_most(name) for name in "ab"] == [True, False]
    assert [hints.size(name) for name in "ab"] == [None, 512]


def test_the_option_that_names_no_bitmap(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.bin"
    path.write_bytes(raw.qemu(raw.block(0, 8)))
    fails(run("validate", path, "--granularity", "d:b=64k"), 2, "--granularity: ")


@pytest.mark.parametrize("name", ["b", "d:b"])
def test_a_bitmap_of_the_section_is_known_without_a_report(
    run: Run, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "s.bin"
    bits = raw.bitmap_start() + raw.bitmap_bits(0, 2048, bytes(8)) + raw.COMPLETE
    path.write_bytes(raw.qemu(bitmaps=bits))
    assert run("dump", path, "--granularity", f"{name}=64K").status == 0
    fails(run("dump", path, "--granularity", "d:c=64K"), 2, "no bitmap 'd:c'")
