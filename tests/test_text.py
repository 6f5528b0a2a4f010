"""Sizes as people write them and as reports print them, within bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.text import human_size, parse_size

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
