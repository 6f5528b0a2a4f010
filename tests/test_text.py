"""Names, sizes and ranges as reports print them, and sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.text import (
    bitmap_name,
    device_name,
    devices_text,
    exact_size,
    human_size,
    names_text,
    parse_size,
    ranges_text,
    size_range,
)

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("7", 7),
        ("512 B", 512),
        ("64k", 65536),
        ("64K", 65536),
        ("64 KiB", 65536),
        ("3MiB", 3 * MIB),
        ("48 MiB", 48 * MIB),
        ("20G", 20 << 30),
        ("2.5 GiB", 5 << 29),
        ("1.5k", 1536),
        ("5.0 MiB", 5 * MIB),
        ("2T", 2 << 40),
        ("3P", 3 << 50),
        ("7E", 7 << 60),
        (str((1 << 63) - 1), (1 << 63) - 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "k", "48MB", "48 MBytes", "48  MiB", " 48", "48 ", "-1", "+1", "1e3", "0x10", "1_000",
        "1.", ".5", "1.2.3", "1,5k", "20 GB", "20GiBB", "٣", "3\u212a", "3 M i B", "max",
    ],
)  # fmt: skip
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"^invalid size '.*': expected e\.g\. 512, 64k, 20G, 3MiB$"
    ):
        parse_size(text)


@pytest.mark.parametrize("text", ["5.012 MiB", "1.3", "0.1k", "512.5", "70.69 MiB"])
def test_rounded_sizes_are_refused(text: str) -> None:
    """Reports round what is no whole number; taking that for exact would cut a disk."""
    with pytest.raises(ValueError, match="use the exact bytes"):
        parse_size(text)


@pytest.mark.parametrize("text", ["9" * 20, "9" * 4000, "8E", "9" * 20 + "E", "1." + "0" * 4000])
def test_numbers_without_end(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size") as error:
        parse_size(text)
    assert len(str(error.value)) < 200


@given(st.integers(0, (1 << 63) - 1))
def test_what_reports_print_is_exact_or_refused(size: int) -> None:
    shown = human_size(size)
    try:
        assert abs(parse_size(shown) - size) <= size / 1000
    except ValueError as error:
        assert "use the exact bytes" in str(error) or "too large" in str(error)  # noqa: PT017


@given(st.integers(0, 1023), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB", "PiB"]))
def test_whole_numbers_come_back(number: int, unit: str) -> None:
    size = number << 10 * ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit)
    assert parse_size(human_size(size)) == size


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
    assert ranges_text([(0, 512)]) == "bytes 0-512"
    assert ranges_text([(0, 1), (5, 9)]) == "bytes 0-1, 5-9"
    many = [(2 * at, 2 * at + 1) for at in range(6)]
    assert ranges_text(many) == "bytes 0-1, 2-3, 4-5, 6-7, 8-9 and 1 more range"
    assert ranges_text(iter(many * 2)).endswith(" and 7 more ranges")


def test_devices() -> None:
    assert devices_text([]) == "no devices"
    assert devices_text(["a"]) == "the device 'a'"
    assert devices_text(["a", "b"]) == "the devices 'a', 'b'"


def test_names() -> None:
    assert device_name("") == "(unnamed)"
    assert device_name("a\x1b") == "a\\x1b"
    assert bitmap_name("drive0", "daily") == "drive0/daily"
    assert bitmap_name("", "b\n") == "(unnamed)/b\\x0a"
    assert names_text(["a", "b\n"]) == "'a', 'b\\x0a'"
    assert names_text([]) == "none"
    assert names_text("abcdefgh") == "'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'"
    assert names_text("abcdefghij") == "'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h' and 2 more"
