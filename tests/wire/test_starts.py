"""Which bytes begin a stream: of an input, behind another stream, cut; and what is said of others."""

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import NotAStreamError
from blkmig_cli.transport.inputs import PipeInput
from blkmig_cli.wire.recognition import (
    HEADER,
    container_of,
    may_be_cut,
    not_a_stream,
    stream_behind,
)
from tests.support import raw
from tests.support.feed import in_file, piped

#: The first sector behind those of a bare stream's disk.
FAR = limits.BARE_DISK_MAX // 512


def test_the_header() -> None:
    assert HEADER == raw.HEADER


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (HEADER, "qemu"),
        (HEADER[:4], "qemu"),
        (HEADER[:4] + b"\xff" * 4, "qemu"),
        (HEADER[:3], None),
        (HEADER[:3] + bytes(5), None),
        (b"", None),
        (raw.EOS, "none"),
        (raw.EOS[:7], None),
        (raw.word(100, 2), "none"),
        (raw.word(101, 2), None),
        (raw.word(100, 4), "none"),
        (raw.word(101, 4), None),
        (raw.word(100, 6), "none"),
        (raw.word(0, 0), None),
        (raw.word(0, 8), None),
        (raw.word(0, 0x70), None),
        *((raw.word(0, 2 | flag), "none") for flag in (0x04, 0x08, 0x10, 0x20, 0x40)),
        *((raw.word(0, 3 | flag), None) for flag in (0x80, 0x100)),
        *((raw.word(FAR - 1, flags), "none") for flags in (1, 9, 0x11, 0x7F)),
        (raw.word(FAR, 1), None),
    ],
)
def test_containers(head: bytes, container: str | None) -> None:
    assert container_of(head) == container


@pytest.mark.parametrize(
    ("head", "cut"),
    [
        (HEADER[:1], True),
        (HEADER[:7], True),
        (HEADER[:6] + b"\1", False),
        (b"\0", True),
        (b"\0\xff", True),
        (b"\1", False),
        (b"R", False),
    ],
)
def test_what_may_be_cut(head: bytes, cut: bool) -> None:
    assert may_be_cut(head) is cut


ZERO = raw.block(0, 8)
BEHIND = {
    "a header": (HEADER, True),
    "a magic": (HEADER[:4], True),
    "half of a magic": (HEADER[:3], False),
    "nothing": (b"", False),
    "a record": (ZERO, True),
    "a record, cut": (ZERO[:-1], False),
    "a record without its name": (ZERO[:9], False),
    "a record without a length": (ZERO[:8], False),
    "a long name": (raw.block(0, 8, "x" * 255), True),
    "a long name, cut": (raw.block(0, 8, "x" * 255)[:-1], False),
    "no name": (raw.block(0, 8, ""), False),
    "a name of other letters": (raw.block(0, 8, "é"), False),
    "a name with a tab": (raw.block(0, 8, "a\tb"), False),
    "the end of a disk": (raw.block(FAR - 1, 8), True),
    "past the end of a disk": (raw.block(FAR, 8), False),
    "progress, a record": (raw.progress(100) + ZERO, True),
    "too much progress": (raw.progress(101) + ZERO, False),
    "an end, a record": (raw.EOS + ZERO, True),
    "progress with an end": (raw.word(9, 6) + ZERO, True),
    "progress, too much": (raw.progress(9) + raw.progress(101) + ZERO, False),
    "progress, and a far record": (raw.progress(9) + raw.block(FAR, 8), False),
    "progress of another kind": (raw.word(9, 4 | 8) + ZERO, False),
    "progress, one of another kind": (raw.progress(0) + raw.word(9, 4 | 8) + ZERO, False),
    "progress, no flags": (raw.progress(0) + raw.word(9, 0) + ZERO, False),
    "progress, zeros": (raw.progress(0) + bytes(8) + ZERO, False),
    "progress only": (raw.progress(0) * 70, False),
    "much progress": (raw.progress(0) * 62 + ZERO, True),
    "more progress": (raw.progress(0) * 63 + ZERO, False),
    "a record of v1": (raw.block(0, 0x28), True),
    "a record of v1 with an end": (raw.block(0, 0x2A), True),
    "a record of v2": (raw.block(0, 0x68), True),
    "a record of v2 with an end": (raw.block(0, 0x6A), False),
    "a classic record": (raw.block(0, 2), True),
    "flags of no dialect": (raw.block(0, 0x48), False),
    "unknown flags": (raw.block(0, 0x88), False),
    "progress, unknown flags": (raw.progress(0) + raw.block(0, 0x88), False),
}


@pytest.mark.parametrize("name", BEHIND)
def test_behind_another(name: str) -> None:
    data, found = BEHIND[name]
    for source in (in_file(data), piped(data)):
        assert stream_behind(source) is found
        assert source.offset == 0


LATER = "one may begin at byte {}: file:PATH,offset=N reads it"
ZEROS = "it begins with zeros; file:PATH,offset=N reads a stream that begins later"
NONE = "not a migration stream (no QEVM magic or block record)"
TEXT = "not a migration stream but text"
HTTP = (
    "not a migration stream but an HTTP message",
    "save the body alone, as curl -f -o FILE URL does",
)


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (b"", "not a migration stream: the input is empty", None),
        (b"\x80" + HEADER, NONE, LATER.format(1)),
        (b"\x80" * 500 + HEADER, NONE, LATER.format(500)),
        (b"\x80" * ((1 << 16) - 8) + HEADER, NONE, LATER.format((1 << 16) - 8)),
        (b"\x80" * ((1 << 16) - 7) + HEADER, NONE, None),
        (bytes(9), NONE, ZEROS),
        (bytes(9) + b"\x80", NONE, None),
        (b"a\tb\r\n\fc", TEXT, None),
        (b"a" * 63 + b"\x80", TEXT, None),
        (b"a" * 62 + b"\x80a", NONE, None),
        (b"a" * 64 + b"\x80", TEXT, None),
        (b"a" * 63 + "é".encode(), TEXT, None),
        (b"a" * 9 + b"\1", NONE, None),
        (b"GET / HTTP/1.1\r\n", *HTTP),
        (b"{} text", TEXT, None),
    ],
)
def test_what_is_said(data: bytes, message: str, hint: str | None) -> None:
    for source in (in_file(data), piped(data)):
        error = not_a_stream(source)
        assert isinstance(error, NotAStreamError)
        assert (error.message, error.hint, error.offset) == (message, hint, 0)


def test_what_is_said_counts_from_the_file() -> None:
    source = in_file(b"abc\x80\x81" + HEADER)
    source.offset = 3
    error = not_a_stream(source)
    assert (error.offset, error.hint) == (3, LATER.format(5))


@pytest.mark.parametrize("head", [b"NBDMAGIC", b"GET / HT", b"# Disk DescriptorFile"])
def test_no_more_is_asked_for_than_shows_the_kind(head: bytes) -> None:
    """A peer may send no more than these bytes, and wait."""
    left = [head]

    def readinto(target: memoryview) -> int:
        if not left:
            raise BlockingIOError
        data = left.pop()
        target[: len(data)] = data
        return len(data)

    assert "not a migration stream but a" in not_a_stream(PipeInput(readinto)).message
