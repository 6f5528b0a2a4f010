"""Decoding that resumes after damage: with what is known from before, and what is not."""

import struct

import pytest

from blkmig_cli.errors import (
    MalformedError,
    SeveralStreamsError,
    StreamError,
    TruncatedError,
    UndecidableError,
)
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import BitmapBits, Block, Event, Footer, SectionHeader
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.resume import ResumedDecoder, part_heads
from tests.support import raw
from tests.support.feed import in_file
from tests.wire.test_record_ends import OPEN

pytestmark = pytest.mark.usefixtures("engine")

HEAD = raw.HEADER + raw.configuration()
START = raw.start(7, "block", 1, raw.EOS) + raw.footer(7)
BITMAPS = raw.start(9, "dirty-bitmap", 1, raw.bitmap_start(granularity=512) + b"\1") + raw.footer(9)
DAMAGE = b"\xff" * 16
ZERO = raw.block(2048, 8)


def resumed(
    before: bytes,
    after: bytes,
    *,
    between: bool = False,
    dialect: str = "auto",
    hints: Hints | None = None,
    chosen: bool = False,
) -> ResumedDecoder:
    """The decoder of what comes after damage."""
    failed = Decoder(in_file(before + DAMAGE + after), hints=hints, chosen=chosen)
    with pytest.raises(StreamError):
        list(failed)
    return ResumedDecoder(failed, len(before + DAMAGE), dialect, between=between)


def types(events: list[Event]) -> list[str]:
    return [event.type for event in events]


def test_in_a_part() -> None:
    before = HEAD + START + raw.part(7, ZERO)
    found = list(resumed(before, ZERO + raw.EOS + raw.footer(7) + raw.EOF))
    assert types(found) == ["block", "eos", "section-footer", "eof"]
    assert [event.section for event in found] == ["block", "block", "block", None]
    assert found[0].offset == len(before + DAMAGE)


def test_in_a_part_with_parts_behind() -> None:
    before = HEAD + START + raw.part(7, ZERO)
    rest = raw.EOS + raw.footer(7) + raw.part(7, ZERO + raw.EOS, 3) + raw.footer(7) + raw.EOF
    found = list(resumed(before, rest))
    header = next(event for event in found if isinstance(event, SectionHeader))
    assert (header.section, header.id, header.version) == ("block", 7, 1)


def test_between_sections() -> None:
    before = HEAD + START
    found = list(
        resumed(before, raw.part(7, ZERO + raw.EOS) + raw.footer(7) + raw.EOF, between=True)
    )
    assert types(found) == ["section-part", "block", "eos", "section-footer", "eof"]


def test_the_footer_of_the_section() -> None:
    before = HEAD + START + raw.part(7, ZERO)
    with pytest.raises(MalformedError, match="footer of section 8, expected 7"):
        list(resumed(before, raw.EOS + raw.footer(8) + raw.EOF))
    with pytest.raises(MalformedError, match="footer is missing"):
        list(resumed(before, raw.EOS + raw.EOF))


def test_records_that_end_with_the_footer_of_the_section() -> None:
    """Their layout is open in both ways only if what stands behind makes sense."""
    before = HEAD + START + raw.part(7, ZERO)
    for number, error in ((7, UndecidableError), (8, MalformedError)):
        with pytest.raises(StreamError) as refused:
            list(resumed(before, OPEN + raw.EOS + raw.footer(number) + raw.EOF))
        assert type(refused.value) is error


def test_a_section_whose_start_is_lost() -> None:
    """Its id is that of the footer of its part; later parts have it, too."""
    before = HEAD
    rest = ZERO + raw.EOS + raw.footer(5) + raw.part(5, ZERO + raw.EOS) + raw.footer(5) + raw.EOF
    decoder = resumed(before, rest)
    found = list(decoder)
    assert types(found) == [
        "block", "eos", "section-footer", "section-part", "block", "eos", "section-footer", "eof"
    ]  # fmt: skip
    footer = found[2]
    assert isinstance(footer, Footer)
    assert footer.id == 5
    assert decoder.context.sections[5] == SectionHeader(
        footer.offset, 0, "block", decoder.context.sections[5].kind, 5, 0, 1
    )
    assert decoder.context.sections[5].type == "section-start"


@pytest.mark.parametrize("behind", [b"", raw.footer(5)[:4], b"\x7e"])
def test_a_section_whose_start_and_footer_are_lost(behind: bytes) -> None:
    with pytest.raises(TruncatedError):
        list(resumed(HEAD, ZERO + raw.EOS + behind))


def test_bare_records() -> None:
    failed = Decoder(in_file(ZERO + DAMAGE + ZERO + raw.EOS))
    with pytest.raises(StreamError):
        list(failed)
    for between in (False, True):
        found = list(ResumedDecoder(failed, len(ZERO + DAMAGE), "auto", between=between))
        assert types(found) == ["block", "eos"]


def test_an_unknown_container_is_qemus() -> None:
    failed = Decoder(in_file(b"\xff" * 20 + raw.part(7, b"")))
    with pytest.raises(StreamError):
        list(failed)
    decoder = ResumedDecoder(failed, 20, "auto", between=True)
    assert decoder.container == "qemu"


def test_what_is_known_from_before() -> None:
    """Sections, hints, which bitmaps have begun; not the names of the last chunk."""
    hints = Hints({"d": 2049 * 512})
    before = HEAD + START + BITMAPS
    named = b"\x4e" + raw.name("d") + raw.name("b") + struct.pack(">QI", 64, 5)
    rest = raw.part(7, ZERO + raw.EOS) + raw.footer(7)
    rest += raw.part(9, named + b"\1") + raw.footer(9) + raw.EOF
    decoder = resumed(before, rest, between=True, hints=hints)
    found = list(decoder)
    assert [e.sectors for e in found if isinstance(e, Block)] == [1]
    (bits,) = (event for event in found if isinstance(event, BitmapBits))
    assert (bits.granularity, bits.sector) == (512, 64)
    unnamed = raw.part(9, b"\x42" + named[5:]) + raw.footer(9)
    with pytest.raises(MalformedError, match="names no device and bitmap"):
        list(resumed(before, unnamed, between=True))
    again = raw.part(9, raw.bitmap_start(granularity=512))
    with pytest.raises(MalformedError, match="starts a second time"):
        list(resumed(before, again, between=True))


def test_the_decoder_before_is_as_it_was() -> None:
    failed = Decoder(in_file(HEAD + START + DAMAGE + raw.part(7, raw.EOS, 3) + raw.footer(7)))
    with pytest.raises(StreamError):
        list(failed)
    context = failed.context.copy()
    after = ResumedDecoder(failed, len(HEAD + START + DAMAGE), "auto", between=True)
    with pytest.raises(TruncatedError):
        list(after)
    assert failed.context == context
    assert after.context.open == set()


@pytest.mark.parametrize(("dialect", "good"), [("classic", False), ("v1", True)])
def test_the_dialect(dialect: str, good: bool) -> None:
    data = raw.block(0, 0x10, rest=bytes(raw.CHUNK))
    decoder = resumed(HEAD + START + raw.part(7, b""), data + raw.EOS, dialect=dialect)
    assert decoder.block.dialect is not None
    assert decoder.block.dialect.name == dialect
    with pytest.raises(TruncatedError if good else MalformedError):
        list(decoder)


def test_several_streams_are_not_counted() -> None:
    before, rest = HEAD + START, raw.part(7, raw.EOS) + raw.footer(7) + raw.EOF
    other = raw.qemu()
    start = len(before + DAMAGE + rest)
    with pytest.raises(SeveralStreamsError) as refused:
        list(resumed(before, rest + other * 2, between=True))
    assert refused.value.starts == [0, start]
    assert "the second begins at byte" in str(refused.value)
    chosen = resumed(before, rest + other * 2, between=True, chosen=True)
    assert types(list(chosen))[-1] == "eof"
    assert chosen.next_stream == start


def test_heads_of_parts() -> None:
    decoder = Decoder(in_file(HEAD + START + BITMAPS + raw.EOF))
    list(decoder)
    assert part_heads(decoder, ("block",)) == [raw.part(7, b""), raw.part(7, b"", 3)]
    assert part_heads(decoder, ("dirty-bitmap", "block")) == [
        raw.part(7, b""), raw.part(7, b"", 3), raw.part(9, b""), raw.part(9, b"", 3)
    ]  # fmt: skip
    assert part_heads(decoder, ("ram",)) == []
