"""Chunks of the dirty-bitmap section: their fields, the rules at their bounds, what errors state."""

import random
import struct

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError, TruncatedError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapChunk,
    BitmapComplete,
    BitmapEos,
    BitmapStart,
    Payload,
)
from tests.support import raw
from tests.support.feed import in_file

pytestmark = pytest.mark.usefixtures("engine")

HEAD = raw.HEADER + raw.configuration() + raw.start(5, "dirty-bitmap", 1)
START, FINE = raw.bitmap_start(), raw.bitmap_start(granularity=512)
BITS = bytes(8)
#: Sectors of a disk of the greatest size; rounded down to a multiple of those of a word of bits.
MOST = limits.DISK_MAX // 512


def section(*chunks: bytes) -> bytes:
    return HEAD + b"".join(chunks)


def chunks_of(*chunks: bytes) -> list[BitmapChunk | BitmapEos]:
    """Return the events of a section with EOS at its end."""
    data = section(*chunks) + b"\1" + raw.footer(5) + raw.EOF
    found = list(Decoder(in_file(data)))
    return [event for event in found if isinstance(event, BitmapChunk | BitmapEos)]


def refused(*chunks: bytes) -> StreamError:
    with pytest.raises(StreamError) as error:
        list(Decoder(in_file(section(*chunks))))
    return error.value


def clear(sector: int, sectors: int, flags: int = 0x42) -> bytes:
    return bytes([flags]) + struct.pack(">QI", sector, sectors)


def test_the_fields_of_each() -> None:
    at, name = len(HEAD), "dirty-bitmap"
    found = chunks_of(
        raw.bitmap_start("dd", "bbb", 1024, 7),
        b"\x80" + raw.bitmap_bits(128, 129, bytes(32)),
        clear(256, 3),
        b"\x20",
    )
    assert found == [
        BitmapStart(at, 13, name, "dd", "bbb", 0x1C, b"", 1024, 7),
        BitmapBits(
            at + 13, 54, name, "dd", "bbb", 0x40, b"\x80", 128, 129, 1024,
            Payload(at + 13 + 22, 32),
        ),
        BitmapBits(at + 67, 13, name, "dd", "bbb", 0x42, b"", 256, 3, 1024, None),
        BitmapComplete(at + 80, 1, name, "dd", "bbb", 0x20, b""),
        BitmapEos(at + 81, 1, name, 1, b""),
    ]  # fmt: skip


@pytest.mark.parametrize("extra", [b"", b"\x80", b"\xff", b"\x80\x91\0"])
def test_bytes_before_the_flags(extra: bytes) -> None:
    (found,) = chunks_of(extra)
    assert isinstance(found, BitmapEos)
    assert (found.extra_flags, found.flags, found.length) == (extra, 1, len(extra) + 1)


def test_all_flags() -> None:
    """The last byte counts, whatever it is."""
    found = list(Decoder(in_file(section(b"\x80\x80\0\xff" + START[1:]) + raw.footer(5) + raw.EOF)))
    assert isinstance(found[3], BitmapStart)
    assert (found[3].flags, found[3].extra_flags) == (0xFF, b"\x80\x80\0")


def test_a_chunk_that_ends_the_section() -> None:
    """EOS may be in a chunk's own flags; then none is alone."""
    for chunk in (b"\x21", b"\x43" + struct.pack(">QI", 0, 128)):
        data = section(START, chunk) + raw.footer(5) + raw.EOF
        found = list(Decoder(in_file(data)))
        assert [event.type for event in found][-2:] == ["section-footer", "eof"]
        assert not any(isinstance(event, BitmapEos) for event in found)


GOOD = {
    "the least range": [FINE, raw.bitmap_bits(0, 1, BITS)],
    "a word": [FINE, raw.bitmap_bits(64, 64, BITS)],
    "a sector more": [FINE, raw.bitmap_bits(64, 65, bytes(16))],
    "padded": [FINE, raw.bitmap_bits(0, 64, bytes(32))],
    "padded from 32": [FINE, raw.bitmap_bits(0, 257, bytes(64))],
    "not padded": [FINE, raw.bitmap_bits(0, 256, bytes(32))],
    "as many bits as are allowed": [FINE, raw.bitmap_bits(0, 81920, bytes(10240))],
    "up to the end": [FINE, clear(MOST - 64, 64)],
    "the finest": [raw.bitmap_start(granularity=512), clear(64, 1)],
    "the coarsest": [raw.bitmap_start(granularity=1 << 31), clear(1 << 28, 1)],
    "all attributes": [raw.bitmap_start(flags=7)],
    "no attributes": [raw.bitmap_start(flags=0)],
    "a further bitmap": [START, b"\x14" + raw.name("c") + START[-5:]],
    "another device": [START, b"\x18" + raw.name("e") + START[-5:]],
    "the other of two": [START, raw.bitmap_start("e"), b"\x28" + raw.name("d")],
}


@pytest.mark.parametrize("name", GOOD)
def test_accepted(name: str) -> None:
    chunks = GOOD[name]
    assert len(chunks_of(*chunks)) == len(chunks) + 1


BAD = {
    "no sectors": (
        [FINE, clear(64, 0)], "bitmap 'b': a range of 0 sectors (QEMU would loop endlessly)",
        "bitmap-range", 64),
    "past the end": (
        [FINE, clear(MOST - 64, 65)],
        f"bitmap 'b': its range ends past {limits.DISK_MAX} bytes", "bitmap-range", MOST - 64),
    "far past the end": (
        [FINE, clear(1 << 63, 64)],
        f"bitmap 'b': its range ends past {limits.DISK_MAX} bytes", "bitmap-range", 1 << 63),
    "not on a word": (
        [FINE, clear(65, 63)], "bitmap 'b': its range does not start on a word of bits",
        "bitmap-start", 65),
    "not on a word of the coarsest": (
        [raw.bitmap_start(granularity=1 << 31), clear(1 << 27, 1)],
        "bitmap 'b': its range does not start on a word of bits", "bitmap-start", 1 << 27),
    "too few bits": (
        [FINE, raw.bitmap_bits(64, 65, BITS)],
        "bitmap 'b': 8 bytes of bits for 65 sectors, 16 are needed", "bitmap-length", 64),
    "too many bits": (
        [FINE, raw.bitmap_bits(0, 64, bytes(33))],
        "bitmap 'b': 33 bytes of bits for 64 sectors, 8 are needed", "bitmap-length", 0),
    "more bits than are allowed": (
        [FINE, raw.bitmap_bits(0, 81921, bytes(10248))],
        "bitmap 'b': 10248 bytes of bits in one chunk, 10240 are allowed", "bitmap-length", 0),
    "a reserved attribute": (
        [raw.bitmap_start(flags=0x88)], "bitmap 'b': reserved flags 0x88 are set", "bitmap-flags",
        None),
    "too fine": (
        [raw.bitmap_start(granularity=256, flags=8)],
        "bitmap 'b': granularity 256 is not a power of two from 512 bytes to 2 GiB",
        "bitmap-granularity", None),
    "no power of two": (
        [START, raw.bitmap_start(granularity=1536)],
        "bitmap 'b': granularity 1536 is not a power of two from 512 bytes to 2 GiB",
        "bitmap-granularity", None),
    "a second start": (
        [START, raw.bitmap_start(flags=8)], "bitmap 'b': it starts a second time",
        "bitmap-restart", None),
    "a start after the end": (
        [START, raw.COMPLETE, START], "bitmap 'b': it starts a second time", "bitmap-restart",
        None),
    "bits after the end": (
        [START, raw.COMPLETE, clear(0, 128)], "bitmap 'b' has ended", "malformed", None),
    "a second end": ([START, raw.COMPLETE * 2], "bitmap 'b' has ended", "malformed", None),
    "never started": (
        [START, b"\x24" + raw.name("c")], "bitmap 'c' was never started", "malformed", None),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str) -> None:
    chunks, message, check, sector = BAD[name]
    error = refused(*chunks)
    assert isinstance(error, MalformedError)
    assert (error.message, error.check, error.sector) == (message, check, sector)
    assert (error.device, error.section) == ("d", "dirty-bitmap")


NAMELESS = {
    "no device's name": (
        [b"\x1c" + raw.name("") + raw.name("b")], "the device's name is empty", "bitmap-name"),
    "no bitmap's name": (
        [b"\x1c" + raw.name("d") + raw.name("")], "the bitmap's name is empty", "bitmap-name"),
    "neither": ([START[:1] + bytes(2)], "the device's name is empty", "bitmap-name"),
    "only a device": (
        [b"\x18" + raw.name("d") + START[-5:]], "the first chunk names no device and bitmap",
        "malformed"),
    "only a bitmap": (
        [b"\x14" + raw.name("b") + START[-5:]], "the first chunk names no device and bitmap",
        "malformed"),
    "no kind": (
        [START, b"\x0e" + raw.name("d") + raw.name("b")],
        "chunk flags 0xe are neither start, bits, complete nor end", "malformed"),
    "more flags": ([b"\x80\x80\x02\x01"], "chunk flags 0x200 are unknown", "malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMELESS)
def test_refused_without_a_bitmap(name: str) -> None:
    chunks, message, check = NAMELESS[name]
    error = refused(*chunks)
    assert isinstance(error, MalformedError)
    assert (error.message, error.check) == (message, check)
    assert (error.device, error.sector, error.section) == (None, None, "dirty-bitmap")
    assert error.offset == len(section(*chunks[:-1]))


@pytest.mark.parametrize("most", [1, 2, 3])
def test_so_many_bitmaps(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have ended count, too."""
    monkeypatch.setattr(limits, "BITMAPS_MAX", most)
    three = [START, raw.COMPLETE, raw.bitmap_start(bitmap="c"), raw.bitmap_start("e")]
    if most == 3:
        assert len(chunks_of(*three)) == 5
    else:
        error = refused(*three)
        assert (error.message, error.check) == (f"over {most} bitmaps", "limit")
    assert len(chunks_of(*three[:2])) == 3


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_cut_inside_a_name(cut: int) -> None:
    error = refused(START[:cut])
    assert isinstance(error, TruncatedError)
    assert (error.offset, error.section) == (len(HEAD) + cut, "dirty-bitmap")


@pytest.mark.parametrize("chunks", [[clear(0, 128)], [raw.bitmap_bits(0, 64, BITS)]])
def test_names_after_many_chunks_of_another(chunks: list[bytes]) -> None:
    """Chunks of two bitmaps by turns, each with its names; then one without."""
    names = [b"\x4e" + raw.name("d") + raw.name(name) for name in "bc"]
    turns = [name + clear(128 * at, 128)[1:] for at in range(40) for name in names]
    found = chunks_of(FINE, raw.bitmap_start("d", "c", 512), *turns, *chunks, raw.COMPLETE)
    assert [event.bitmap for event in found if isinstance(event, BitmapChunk)] == [
        "b", "c", *["b", "c"] * 40, "c", "c"
    ]  # fmt: skip


LONG = [clear(128 * at, 128) for at in range(40)]
ROWS = {
    "no sectors": (clear(40 * 128, 0), "a range of 0 sectors"),
    "not on a word": (clear(40 * 128 + 32, 64), "not start on a word"),
    "a sector past the end": (clear(MOST - 64, 65), "ends past"),
    "past the end": (clear(1 << 62, 128), "ends past"),
    "far past the end": (clear((1 << 64) - 128, 128), "ends past"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_chunk_after_many(name: str) -> None:
    chunk, message = ROWS[name]
    for more in ([], LONG):
        error = refused(FINE, *LONG, chunk, *more)
        assert message in error.message
        assert error.offset == len(section(FINE, *LONG))


@pytest.mark.parametrize(
    ("sectors", "length", "good"),
    [(64, 8, True), (64, 16, True), (65, 8, False), (65, 16, True), (257, 32, False),
     (256, 40, False), (257, 40, True), (256, 32, True)],
)  # fmt: skip
def test_lengths_of_bits_after_many(sectors: int, length: int, good: bool) -> None:
    """Those whose bits have one length; the last has other sectors."""
    most = length // 8 * 64
    many = [raw.bitmap_bits(at * 512, most, bytes(length)) for at in range(40)]
    chunks = [FINE, *many, raw.bitmap_bits(40 * 512, sectors, bytes(length)), *many]
    if good:
        assert len(chunks_of(*chunks)) == len(chunks) + 1
    else:
        assert f"{length} bytes of bits for {sectors} sectors" in refused(*chunks).message


@pytest.mark.parametrize("ended", [False, True])
def test_chunks_in_no_order_of_a_bitmap_that_has_ended(ended: bool) -> None:
    """Also where those before it and behind it are taken together."""
    of_b, of_c, more = (
        b"\x4e" + raw.name("d") + raw.name("b") + clear(0, 64)[1:],
        b"\x4e" + raw.name("d") + raw.name("c") + clear(0, 64)[1:],
        b"\x4a" + raw.name("d") + clear(64, 64)[1:],
    )
    dice = random.Random(7)
    chunks = [FINE, raw.bitmap_start("d", "c", 512)]
    chunks += [dice.choice([of_b, of_c, more]) for _ in range(200)] + [of_b]
    if ended:
        chunks += [raw.COMPLETE]
    chunks += [of_c, *(dice.choice([of_c, more]) for _ in range(200))]
    if ended:
        error = refused(*chunks, of_b, *[of_c] * 20, *[of_b, of_c] * 20)
        assert (error.message, error.offset) == ("bitmap 'b' has ended", len(section(*chunks)))
    else:
        assert len(chunks_of(*chunks, of_b, *[of_c] * 20)) == len(chunks) + 22
