"""What may be between two sections, as far as few bytes tell."""

import struct

import pytest

from blkmig_cli.wire.resync import plausible, seek_footer, seek_header
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


@pytest.mark.parametrize("command", [0, 1, 11, 12])
def test_commands(command: int) -> None:
    data = b"\x08" + struct.pack(">H", command)
    assert plausible(data, ()) == (1 <= command <= 11)


@pytest.mark.parametrize(
    ("name", "printable"),
    [(b" ~", True), (b"a\x1f", False), (b"a\x7f", False), (b"\x1fa", False), (b"\x80", False)],
)
@pytest.mark.parametrize("kind", [1, 4])
def test_names(kind: int, name: bytes, printable: bool) -> None:
    head = bytes([kind]) + bytes(4) + bytes([len(name)])
    assert plausible(head + name, ()) is printable
    # Bytes behind it are not part of it.
    assert plausible(head + name + b"\0", ()) is printable


def found_footer(payload: bytes, behind: bytes, end: int | None = None) -> tuple[bool, int]:
    """Whether a footer of section 7 is found, and where the input is then."""
    data = payload + behind
    found = []
    for source in (in_file(data), piped(data)):
        reader = Reader(source)
        found.append((seek_footer(reader, 7, {3}, end), source.offset))
    assert found[0] == found[1]
    return found[0]


FOOTER = raw.footer(7)
LENGTHS = [0, 1, 5, *((1 << 16) + at for at in range(-6, 7)), (1 << 17) - 9, 200_000]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_footer_wherever_it_is(length: int) -> None:
    payload = b"\xaa" * length
    assert found_footer(payload, FOOTER + b"\0") == (True, length)
    assert found_footer(payload, FOOTER) == (False, length + 5)
    assert found_footer(payload, raw.footer(6) + b"\0") == (False, length + 6)
    assert found_footer(payload, FOOTER + b"\x55" + FOOTER + b"\0") == (True, length + 6)
    assert found_footer(payload, FOOTER * 2 + b"\0") == (True, length + 5)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_footer_before_an_end(length: int) -> None:
    """Where the payload may not go further, nothing has to be behind its footer."""
    payload = b"\xaa" * length
    whole = FOOTER + b"\x55" + FOOTER + b"\0"
    assert found_footer(payload, whole, length + 5) == (True, length)
    assert found_footer(payload, whole, length + 4) == (False, length + 4)
    assert found_footer(payload, whole, length + 6) == (False, length + 6)
    assert found_footer(payload, whole, length + 11) == (True, length + 6)
    assert found_footer(payload, FOOTER + b"\0", length) == (False, length)


@pytest.mark.parametrize("kind", [2, 3])
def test_a_footer_before_a_part_of_a_known_section(kind: int) -> None:
    assert found_footer(b"", FOOTER + raw.part(3, b"", kind)) == (True, 0)
    assert found_footer(b"", FOOTER + raw.part(7, b"", kind)) == (False, 10)


@pytest.mark.parametrize("length", [255, 254])
def test_a_footer_before_a_long_name(length: int) -> None:
    start = raw.start(9, "n" * length, 1)
    assert found_footer(b"", FOOTER + start) == (True, 0)
    wrong = start[: 5 + length] + b"\n" + start[6 + length :]
    assert found_footer(b"", FOOTER + wrong) == (False, len(FOOTER + wrong))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_header_wherever_it_is(length: int) -> None:
    data = b"\xaa" * length + raw.HEADER
    for rest, found in ((raw.configuration(), True), (b"\x05", False)):
        source = in_file(data + rest)
        assert seek_header(Reader(source)) is found
        assert source.offset == (length if found else len(data + rest))
