"""What may be between two sections, as far as few bytes tell."""

import struct

import pytest

from blkmig_cli.wire.resync import plausible, seek_header
from blkmig_cli.wire.schema_io import Reader
from tests.support import raw
from tests.support.feed import in_file, piped

PART = b"\x02" + struct.pack(">I", 7)
END = b"\x03" + struct.pack(">I", 7)
START = b"\x01" + struct.pack(">I", 9) + raw.name("block")
FULL = b"\x04" + struct.pack(">I", 9) + raw.name("cpu")
COMMAND = b"\x08" + struct.pack(">HH", 7, 4)


@pytest.mark.parametrize("data", [PART, END, START, FULL, COMMAND, b"\0", b"\0\x06"])
def test_what_may_be_cut_anywhere(data: bytes) -> None:
    for length in range(1, len(data) + 1):
        assert plausible(data[:length], {7}), length
    if len(data) > 2:
        assert plausible(data + b"\xff", {7})


@pytest.mark.parametrize(
    ("data", "least"),
    [
        (b"", 0),
        (b"\0\0", 2),
        (b"\0\x05", 2),
        (b"\x02" + struct.pack(">I", 8), 5),
        (b"\x03" + struct.pack(">I", 8), 5),
        (b"\x01" + struct.pack(">I", 9) + b"\0", 6),
        (b"\x01" + struct.pack(">I", 9) + b"\3a\x1fb", 8),
        (b"\x04" + struct.pack(">I", 9) + b"\3\x7fab", 7),
        (b"\x08" + struct.pack(">H", 99), 3),
        (b"\x05", 1),
        (b"\x7e", 1),
        (b"\xff" * 9, 1),
    ],
)
def test_what_cannot_be(data: bytes, least: int) -> None:
    """From ``least`` bytes on it is known."""
    for length in range(least):
        assert plausible(data[:length], {7}) == (length > 0)
    for length in range(least, len(data) + 1):
        assert not plausible(data[:length], {7})


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        (raw.configuration(), True),
        (raw.start(1, "block", 1), True),
        (b"", False),
        (b"\xff" * 9, False),
        (b"\x02" + struct.pack(">I", 1), False),
    ],
)
def test_the_next_header(rest: bytes, found: bool) -> None:
    """It is followed by a configuration, or by a section that begins."""
    before = b"\xaa" * 70_000 + raw.HEADER + b"\xaa" * 9
    for source in (in_file(before + raw.HEADER + rest), piped(before + raw.HEADER + rest)):
        reader = Reader(source)
        assert seek_header(reader) == found
        assert source.offset == len(before) + (0 if found else len(raw.HEADER + rest))
