"""Sizes, names and ranges as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.text import (
    bitmap_name,
    device_name,
    exact_size,
    names_text,
    ranges_text,
    size_range,
)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1025, "1.001 KiB (1025 bytes)"),
        (48 << 20, "48 MiB"),
        (5251072, "5.008 MiB (5251072 bytes)"),
        ((5 << 20) + 512, "5 MiB (5243392 bytes)"),  # rounded, though it does not look so
        (5 << 29, "2.5 GiB (2684354560 bytes)"),
        ((1 << 63) - 512, "8 EiB (9223372036854775296 bytes)"),
    ],
)
def test_exact_sizes(size: int, shown: str) -> None:
    assert exact_size(size) == shown


@given(st.integers(0, 1 << 70))
def test_a_size_without_its_bytes_is_exact(size: int) -> None:
    number, unit = exact_size(size).split(" ", 1)
    units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    if unit in units:
        assert int(number) * 1024 ** units.index(unit) == size
    else:
        assert f"({size} bytes)" in unit


@pytest.mark.parametrize(
    ("least", "most", "shown"),
    [
        (63 << 20, 74123456, "63 to 70.69 MiB"),
        (512, 1 << 20, "512 B to 1 MiB"),
        (1 << 20, 1 << 20, "1 MiB"),
        (1536, 1536, "1.5 KiB (1536 bytes)"),
        (1 << 20, None, "at least 1 MiB"),
    ],
)
def test_bounds(least: int, most: int | None, shown: str) -> None:
    assert size_range(least, most) == shown


def test_ranges() -> None:
    assert ranges_text([(0, 512)]) == "bytes 0-512 (half-open)"
    assert ranges_text([(0, 1), (5, 9)]) == "bytes 0-1, 5-9 (half-open)"
    many = [(2 * at, 2 * at + 1) for at in range(6)]
    assert ranges_text(many) == "bytes 0-1, 2-3, 4-5, 6-7, 8-9 (half-open) and 1 more range"
    assert ranges_text(iter(many * 2)).endswith(" and 7 more ranges")


def test_names() -> None:
    assert device_name("") == "(unnamed)"
    assert device_name("a\x1b") == "a\\x1b"
    assert bitmap_name("drive0", "daily") == "drive0/daily"
    assert bitmap_name("", "b\n") == "(unnamed)/b\\x0a"
    assert names_text(["a", "b\n"]) == "'a', 'b\\x0a'"
    assert names_text([]) == "none"
