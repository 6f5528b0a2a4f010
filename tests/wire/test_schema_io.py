"""Plain values by the schemas: what is built and read, and what is said where a value does not fit."""

import re
import struct
from typing import Any

import pytest
from construct import Construct

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError, TruncatedError
from blkmig_cli.schemas import block, framing, nbd
from blkmig_cli.wire.events import Payload
from blkmig_cli.wire.schema_io import Reader, build, parse, parse_rows, size_of
from tests.support import raw
from tests.support.feed import in_file, piped

BUILT: dict[str, tuple[Construct, tuple[Any, ...], bytes]] = {
    "numbers": (block.V2Range, (7, 9), struct.pack(">II", 7, 9)),
    "the highest": (framing.CommandHead, (255, 65535, 65535), b"\xff" * 5),
    "a name": (block.DeviceName, (b"abc",), b"\3abc"),
    "no name": (block.DeviceName, (b"",), b"\0"),
    "the longest name": (block.DeviceName, (b"x" * 255,), b"\xff" + b"x" * 255),
    "a name, and numbers": (
        block.V2BitmapHead, (b"ab", 1, 2, 3), b"\2ab\1" + struct.pack(">II", 2, 3)),
    "a name between": (
        framing.SectionHead, (1, 2, b"ab", 3, 4),
        b"\1" + struct.pack(">I", 2) + b"\2ab" + struct.pack(">II", 3, 4)),
    "a list": (
        framing.SUBSECTION_BODIES[b"configuration/capabilities"], ([b"a", b""],),
        struct.pack(">I", 2) + b"\1a\0"),
    "a magic": (framing.FileHeader, (0x5145564D, 3), raw.HEADER),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILT)
def test_built_and_read(name: str) -> None:
    schema, values, data = BUILT[name]
    assert build(schema, *values) == data
    for source in (in_file(data + b"more"), piped(data + b"more")):
        reader = Reader(source)
        found = reader.take(schema)
        assert len(found) == len(values)
        assert [list(v) if isinstance(v, list) else v for v in found] == list(values)
        assert source.offset == reader.length() == len(data)
    for length in range(len(data)):
        for source in (in_file(data[:length]), piped(data[:length])):
            with pytest.raises(TruncatedError) as error:
                Reader(source).take(schema)
            assert error.value.offset == length
            said = f"stream truncated at byte {length}, inside the record at byte 0"
            assert error.value.message == said


@pytest.mark.parametrize(
    ("schema", "values", "message"),
    [
        (block.V2Range, (1 << 32, 0), "sectors: 4294967296 does not fit the format"),
        (block.V2Range, (0, 1 << 32), "count: 4294967296 does not fit the format"),
        (block.V2Range, (0, -1), "count: -1 does not fit the format"),
        (block.DeviceName, (b"x" * 256,), "device: 256 bytes does not fit the format"),
        (block.V2BitmapHead, (b"x" * 256, 0, 0, 0), "name: 256 bytes does not fit the format"),
        (block.V2BitmapHead, (b"x", 0, 0, -5), "length: -5 does not fit the format"),
        (
            framing.SectionHead,
            (1, 2, b"x", 3, 1 << 32),
            "version: 4294967296 does not fit the format",
        ),
        (framing.SectionHead, (1, 2, b"x" * 256, 3, 4), "name: 256 bytes does not fit the format"),
    ],
)
def test_what_does_not_fit(schema: Construct, values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build(schema, *values)


def test_parsed() -> None:
    assert parse(nbd.ClientFlags, b"\0\0\0\7") == (7,)
    assert parse(nbd.ClientFlags, b"\0\0\0\7\0") is None
    assert parse(nbd.ClientFlags, b"\0\0\7") is None
    assert parse(nbd.MetaContext, struct.pack(">I", 5) + b"name") == (5, b"name")
    assert parse(nbd.MetaContext, b"\0\0\0") is None


def test_rows() -> None:
    data = struct.pack(">IIII", 1, 2, 3, 4)
    assert list(parse_rows(nbd.Extent, data)) == [(1, 2), (3, 4)]
    assert list(parse_rows(nbd.Extent, memoryview(b""))) == []
    for length in (1, 7, 9, 15):
        message = f"{length} bytes are no whole number of rows of 8"
        with pytest.raises(ValueError, match=f"^{message}$"):
            parse_rows(nbd.Extent, data[:length])


def test_sizes() -> None:
    assert size_of(nbd.Extent) == 8
    assert size_of(framing.ReturnPathHead) == 4


def test_a_long_object() -> None:
    """It may need more bytes than are looked at first, up to a limit."""
    schema = framing.SUBSECTION_BODIES[b"configuration/capabilities"]
    reader = Reader(in_file(struct.pack(">I", 200) + raw.name("x" * 255) * 200))
    assert reader.take(schema)[0] == [b"x" * 255] * 200
    for section, shown in ((None, "header"), ("ram", "ram")):
        reader = Reader(in_file(struct.pack(">I", 600) + raw.name("x" * 255) * 600))
        reader.section = section
        with pytest.raises(MalformedError) as error:
            reader.take(schema)
        assert error.value.message == f"a {shown} object is over {limits.HEAD_MAX} bytes"
        assert error.value.section == section


def test_a_wrong_magic() -> None:
    with pytest.raises(MalformedError) as error:
        Reader(in_file(b"QEVN" + bytes(4))).take(framing.FileHeader)
    assert "\n" not in error.value.message
    assert "  " not in error.value.message


@pytest.mark.parametrize("source", [in_file, piped])
@pytest.mark.parametrize("keep", [False, True])
def test_bytes_that_are_stepped_over(source: type, keep: bool) -> None:
    data = bytes(range(100))
    reader = Reader(source(data), keep=keep)
    assert reader.take_bytes(10) == data[:10]
    assert reader.payload(20) == Payload(10, 20)
    assert reader.length() == 30
    assert bytes(reader.source.view(Payload(10, 20))) == data[10:30]
    assert reader.begin() == reader.start == 30
    reader.skip(10)
    assert (reader.source.offset, reader.length()) == (40, 10)
    if keep:
        assert bytes(reader.source.view(Payload(30, 10))) == data[30:40]
    assert reader.pass_over(0) == 0
    assert reader.pass_over(50) == 50
    assert reader.pass_over(50) == 10
    assert reader.pass_over(50) == 0
    assert reader.source.offset == 100


@pytest.mark.parametrize("keep", [False, True])
def test_a_long_way_is_stepped_over(keep: bool) -> None:
    length = (2 << 20) + 5
    for source in (in_file([length]), piped(bytes(length))):
        reader = Reader(source, keep=keep)
        assert reader.pass_over(length - 2) == length - 2
        assert source.offset == length - 2
        assert reader.pass_over(9) == 2


@pytest.mark.parametrize("source", [in_file, piped])
@pytest.mark.parametrize("keep", [False, True])
def test_cut(source: type, keep: bool) -> None:
    for step in ("skip", "payload", "take_bytes"):
        reader = Reader(source(bytes(100)), keep=keep)
        reader.skip(10)
        reader.begin()
        reader.section = "ram"
        reader.skip(5)
        with pytest.raises(TruncatedError) as error:
            getattr(reader, step)(86)
        assert error.value.message == "stream truncated at byte 100, inside the record at byte 10"
        assert (error.value.offset, error.value.section) == (100, "ram")
        reader = Reader(source(bytes(100)), keep=keep)
        getattr(reader, step)(100)


def test_failures() -> None:
    reader = Reader(in_file(bytes(100)))
    reader.skip(9)
    reader.begin()
    reader.section = "block"
    with pytest.raises(StreamError) as error:
        reader.fail("wrong", check="x", device="d")
    found = error.value
    assert (found.message, found.offset, found.section) == ("wrong", 9, "block")
    assert (found.check, found.device) == ("x", "d")
    with pytest.raises(StreamError) as error:
        reader.fail("wrong", offset=5)
    assert error.value.offset == 5
