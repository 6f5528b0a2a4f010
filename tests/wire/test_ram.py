"""RAM records: their fields, the rules at their bounds, what errors state."""

import struct

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError, TruncatedError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Payload, Ram, RamBlock
from tests.support import raw
from tests.support.feed import events, in_file, piped

HEAD = raw.HEADER + raw.configuration()
EOS = struct.pack(">Q", 0x10)
NAME = raw.name("pc.ram")
PAGE = b"\x55" * 4096


def bits(number: int) -> bytes:
    return b"\5" + raw.name("configuration/target-page-bits") + struct.pack(">II", 1, number)


def capabilities(*names: str) -> bytes:
    listed = struct.pack(">I", len(names)) + b"".join(map(raw.name, names))
    return b"\5" + raw.name("configuration/capabilities") + struct.pack(">I", 1) + listed


def advice(sizes: int) -> bytes:
    return b"\x08\0\x03\0\x10" + struct.pack(">QQ", sizes, 4096)


def word(number: int) -> bytes:
    return struct.pack(">Q", number)


def stream(payload: bytes, before: bytes = b"") -> bytes:
    return HEAD + before + raw.start(2, "ram", 4, payload)


def ends(data: bytes) -> bytes:
    return data + EOS + raw.footer(2) + raw.EOF


def records(payload: bytes, before: bytes = b"") -> list[Ram]:
    """The records but for the last, whose places count from the first."""
    data = ends(stream(payload, before))
    found = [e for e in Decoder(in_file(data)) if isinstance(e, Ram)]
    assert found == [e for e in Decoder(piped(data)) if isinstance(e, Ram)]
    assert found[-1] == Ram(found[-1].offset, 8, "ram", 0x10, None, 0)
    return found[:-1]


def refused(payload: bytes, before: bytes = b"") -> StreamError:
    found = []
    for source in (in_file(stream(payload, before)), piped(stream(payload, before))):
        with pytest.raises(StreamError) as error:
            list(Decoder(source))
        found.append(error.value)
    assert str(found[0]) == str(found[1])
    assert found[0].section == "ram"
    return found[0]


AT = len(stream(b""))


def test_the_fields_of_each() -> None:
    found = records(
        word(0x1008) + NAME + PAGE
        + word(0x2028) + PAGE
        + word(0x3002) + NAME + b"\x77"
        + word(0x4022) + b"\0"
        + word(0x5060) + b"\1\0\2ab"
        + word(0x6120) + struct.pack(">I", 3) + b"abc"
        + word(0x80) + word(0x200)
    )  # fmt: skip
    offsets = [AT]
    for length in (15 + 4096, 8 + 4096, 16, 9, 13, 15, 8, 8):
        offsets.append(offsets[-1] + length)
    a, b, c, d, e, f, g, h, _ = offsets
    assert found == [
        Ram(a, b - a, "ram", 0x08, "pc.ram", 0x1000, (), Payload(a + 15, 4096)),
        Ram(b, c - b, "ram", 0x28, None, 0x2000, (), Payload(b + 8, 4096)),
        Ram(c, d - c, "ram", 0x02, "pc.ram", 0x3000, (0x77,), None),
        Ram(d, e - d, "ram", 0x22, None, 0x4000, (0,), None),
        Ram(e, f - e, "ram", 0x60, None, 0x5000, (1, 2), Payload(e + 11, 2)),
        Ram(f, g - f, "ram", 0x120, None, 0x6000, (3,), Payload(f + 12, 3)),
        Ram(g, 8, "ram", 0x80, None, 0),
        Ram(h, 8, "ram", 0x200, None, 0),
    ]


def test_the_sizes_of_blocks() -> None:
    entries = NAME + word(8192) + raw.name("vga") + word(4096)
    (found,) = records(word(12288 | 4) + entries)
    blocks = (RamBlock("pc.ram", 8192), RamBlock("vga", 4096))
    assert found == Ram(AT, 8 + 15 + 12, "ram", 4, None, 12288, (), None, blocks)
    (found,) = records(word(4))
    assert found == Ram(AT, 8, "ram", 4, None, 0)


def test_addresses() -> None:
    payload = word(4096 | 4) + NAME + word(4096) + word(77)
    (found,) = records(payload, capabilities("x-ignore-shared"))
    assert found.blocks == (RamBlock("pc.ram", 4096, None, 77),)


@pytest.mark.parametrize("gap", [0, 1, 500])
def test_mapped_pages(gap: int) -> None:
    """They are where the header says: behind it, at the earliest."""
    before = capabilities("mapped-ram")
    start = len(stream(word(4096 | 4) + NAME + word(4096), before)) + 28
    header = struct.pack(">IQQQ", 1, 4096, 99, start + gap)
    payload = word(4096 | 4) + NAME + word(4096) + header + bytes(gap) + PAGE
    (found,) = records(payload, before)
    pages = Payload(start, gap + 4096)
    mapped = (1, 4096, 99, start + gap)
    assert found.blocks == (RamBlock("pc.ram", 4096, None, None, mapped, pages),)
    assert found.length == len(payload)


def test_mapped_pages_before_their_header() -> None:
    """A block that ends at its own header has no pages behind it; earlier, it makes no sense."""
    before = capabilities("mapped-ram")
    start = len(stream(word(4096 | 4) + NAME + word(4096), before)) + 28
    first = word(4096 | 4) + NAME + word(start) + struct.pack(">IQQQ", 1, 4096, 99, 0)
    rest = raw.name("b") + word(4096 - start) + struct.pack(">IQQQ", 1, 4096, 99, start)
    data = first + rest
    found = records(data + bytes(4096 - start - len(rest)), before)[0].blocks
    assert [block.pages for block in found] == [
        Payload(start, 0), Payload(start + len(rest), 4096 - start - len(rest))
    ]  # fmt: skip
    error = refused(word(4096 | 4) + NAME + word(start - 1) + first[-28:], before)
    assert error.message == f"mapped RAM ends at byte {start - 1}, before its own header"
    assert error.hint == "if the stream begins later in a file, use file:PATH,offset=N"


@pytest.mark.parametrize("number", [10, 12, 14, 20])
def test_pages_of_a_stated_size(number: int) -> None:
    size = 1 << number
    (found,) = records(word(size * 3 | 0x28) + b"\x55" * size, bits(number))
    assert (found.offset_in_block, found.data) == (size * 3, Payload(found.offset + 8, size))


def test_flags_are_below_a_small_page() -> None:
    """Of pages of 1 KiB, the tenth bit of a word is one of the offset."""
    (found,) = records(word(0x400 | 0x28) + b"\x55" * 1024, bits(10))
    assert (found.flags, found.offset_in_block) == (0x28, 0x400)


NEXT = {
    "end": EOS,
    "hook": word(0x80),
    "a page of it": word(0x8028),
    "the highest page of it": word((1 << 52) - 4096 + 0x28),
    "a page of another": word(0x8008) + raw.name("~ "),
    "a page of one with a long name": word(0x8008) + raw.name("x" * 255),
    "zeros": word(0x8002) + NAME,
}
NO_NEXT = {
    "an end with an offset": word(0x1010),
    "past the highest page": word((1 << 52) + 0x28),
    "no flags": word(0x8000),
    "sizes": word(0x8004) + NAME,
    "no name": word(0x8008) + raw.name(""),
    "a name of other letters": word(0x8008) + raw.name("a\x7f"),
    "a name with a tab": word(0x8008) + raw.name("a\tb"),
    "a long name with a tab": word(0x8008) + raw.name("x" * 254 + "\t"),
    "half a word": EOS[:7],
}


@pytest.mark.parametrize("name", [*NEXT, *NO_NEXT])
def test_pages_of_a_size_that_nothing_says(name: str) -> None:
    """Of 8 KiB, if a record is behind that and none behind 4 KiB; else of 4 KiB."""
    data = stream(word(0x28) + b"\x55" * 8192 + {**NEXT, **NO_NEXT}[name])
    found, _ = events(in_file(data))
    assert next(event for event in found if isinstance(event, Ram)).length == 8 + (
        8192 if name in NEXT else 4096
    )


def test_the_least_page_that_fits() -> None:
    """Records behind 4 KiB and behind 8 KiB."""
    found = records(word(0x28) + PAGE + word(0x1028) + PAGE[8:] + EOS)
    assert found[0].length == 8 + 4096


@pytest.mark.parametrize("flags", [0x40, 0x100])
@pytest.mark.parametrize(("known", "most"), [(None, 8192), (12, 4096), (16, 65536)])
def test_compressed_pages(flags: int, known: int | None, most: int) -> None:
    """They are a little longer than a page at most."""
    most = min(most + limits.COMPRESSED_PAGE_SLACK, 65535)
    for length in (most, most + 1):
        head = struct.pack(">BH", 1, length) if flags == 0x40 and length < 65536 else None
        head = struct.pack(">I", length) if flags == 0x100 else head
        if head is None:
            continue
        payload = word(0x20 | flags) + head + bytes(length)
        before = b"" if known is None else bits(known)
        if length == most or known == 16:
            assert records(payload, before)[0].length == len(payload)
        else:
            error = refused(payload, before)
            assert error.message == f"a compressed page of {length} bytes is larger than a page"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (word(0x01), "RAM record flags 0x1 are unknown"),
        (word(0x20), "RAM record flags 0x20 are unknown"),
        (word(0x0A), "RAM record flags 0xa are unknown"),
        (word(0x400), "RAM record flags 0x400 are unknown"),
        (
            word(4096 | 4) + NAME + word(4097),
            "the RAM blocks are 1 bytes larger than their total",
        ),
    ],
)
def test_refused(payload: bytes, message: str) -> None:
    error = refused(payload)
    assert isinstance(error, MalformedError)
    assert (error.message, error.offset) == (message, AT)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_so_many_blocks(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RAM_BLOCKS_MAX", most)
    payload = word(8192 | 4) + (NAME + word(4096)) * 2
    if most == 1:
        assert refused(payload).message == "over 1 RAM blocks"
        assert refused(payload).check == "limit"
    else:
        assert len(records(payload)[0].blocks) == 2


@pytest.mark.parametrize(
    ("sizes", "size", "stated"),
    [
        (0x201000, 0x200000, True),
        (0x201000, 0x1000, True),
        (0x201000, 0x400000, False),
        (0x201000, 0x201000, False),
        (0x200000, 0x200000, False),
        (0x200800, 0x800, False),
        (0, 0x200000, False),
    ],
)
def test_page_sizes_of_blocks(sizes: int, size: int, stated: bool) -> None:
    """It is there where one of those that were advised stands, a single bit, not where all are equal."""
    payload = word(0x200000 | 4) + NAME + word(0x200000) + word(size)
    before = advice(sizes)
    if stated:
        assert records(payload, before)[0].blocks == (RamBlock("pc.ram", 0x200000, size),)
    else:
        assert isinstance(refused(payload, before), MalformedError)


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 14, 15, 100])
def test_cut(cut: int) -> None:
    payload = (word(0x1008) + NAME + PAGE)[:cut]
    error = refused(payload)
    assert isinstance(error, TruncatedError)
    assert error.offset == AT + cut
