"""Rules of the decoder beyond accept and refuse: names, dialects, commands, packages, flags."""

import struct

import pytest

from blkmig_cli.errors import StreamError, UndecidableError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapChunk,
    BitmapStart,
    Block,
    CommandEvent,
    Configuration,
    Event,
    Progress,
    Undecoded,
)
from blkmig_cli.wire.hints import Hints
from tests.support import raw
from tests.support.feed import events, in_file, piped

pytestmark = pytest.mark.usefixtures("engine")

DATA = b"\1" * raw.CHUNK
HEAD = raw.HEADER + raw.configuration()
BITS = bytes(8)


def good(data: bytes, dialect: str = "auto") -> list[Event]:
    found, error = events(in_file(data), dialect=dialect)
    assert error is None, error
    return found


def test_configuration_subsections() -> None:
    def subsection(name: str, body: bytes) -> bytes:
        return b"\5" + raw.name(f"configuration/{name}") + struct.pack(">I", 1) + body

    data = raw.HEADER + raw.configuration("pc-i440fx-2.11")
    data += subsection("target-page-bits", struct.pack(">I", 14))
    data += subsection(
        "capabilities", struct.pack(">I", 2) + raw.name("mapped-ram") + raw.name("x-ignore-shared")
    )
    data += subsection("uuid", bytes(range(16)))
    found = good(data + raw.EOF)[1]
    assert isinstance(found, Configuration)
    assert found.machine == "pc-i440fx-2.11"
    assert found.target_page_bits == 14
    assert found.capabilities == ("mapped-ram", "x-ignore-shared")
    assert found.uuid == bytes(range(16))


def test_target_page_bits_size_ram_pages() -> None:
    """Pages of 16 KiB: a PAGE record carries that many bytes."""
    bits = b"\5" + raw.name("configuration/target-page-bits") + struct.pack(">II", 1, 14)
    page = struct.pack(">Q", 0x4000 | 0x28) + bytes(1 << 14)
    ram = raw.start(2, "ram", 4, page + struct.pack(">Q", 0x10)) + raw.footer(2)
    found = good(HEAD + bits + ram + raw.EOF)
    assert [event.length for event in found if event.type == "ram"] == [8 + (1 << 14), 8]


@pytest.mark.parametrize(("length", "shown"), [(4, "none"), (2, "no"), (0, "")])
def test_any_prefix_of_a_machine(length: int, shown: str) -> None:
    found = good(raw.HEADER + raw.configuration("none"[:length]) + raw.EOF)[1]
    assert isinstance(found, Configuration)
    assert found.machine == shown


def test_sections_inside_a_package() -> None:
    """Ids go on counting inside; the command's length does not count the package."""
    body = b"\x08\0\x04\0\0" + raw.start(5, "dev", 1, b"state", kind=4) + raw.footer(5)
    body += b"\x08\0\x05\0\0"
    command = b"\x08\0\x07\0\x04" + struct.pack(">I", len(body))
    data = HEAD + command + body + raw.EOF
    found = good(data)
    package = next(e for e in found if isinstance(e, CommandEvent))
    assert (package.package, package.length) == (len(body), len(command))
    assert [e.command for e in found if isinstance(e, CommandEvent)] == [7, 4, 5]
    assert sum(e.length for e in found) == len(data)
    assert (found[-1].type, found[-1].offset) == ("eof", len(data) - 1)


def test_a_package_that_is_cut() -> None:
    command = b"\x08\0\x07\0\x04" + struct.pack(">I", 10) + b"\x08\0\x04\0\0"
    _, error = events(in_file(HEAD + command))
    assert error is not None
    assert error.startswith("TruncatedError")


def test_names_last_across_chunks_and_parts() -> None:
    chunks = raw.bitmap_start() + raw.bitmap_bits(0, 128, BITS) + b"\1"
    data = HEAD + raw.start(3, "dirty-bitmap", 1, chunks) + raw.footer(3)
    data += raw.part(3, raw.COMPLETE + b"\x14" + raw.name("c") + struct.pack(">IB", 512, 2) + b"\1")
    data += raw.footer(3) + raw.EOF
    found = [event for event in good(data) if isinstance(event, BitmapChunk)]
    assert [(event.device, event.bitmap) for event in found] == [("d", "b")] * 3 + [("d", "c")]
    assert isinstance(found[3], BitmapStart)
    assert (found[3].granularity, found[3].attributes) == (512, 2)


def test_two_bitmaps_may_alternate() -> None:
    chunks = raw.bitmap_start("d", "b") + raw.bitmap_start("d", "c", 512)
    chunks += b"\x44" + raw.name("b") + raw.bitmap_bits(0, 128, BITS)[1:]
    chunks += b"\x44" + raw.name("c") + raw.bitmap_bits(0, 64, BITS)[1:]
    found = [e for e in good(raw.qemu(bitmaps=chunks)) if isinstance(e, BitmapBits)]
    assert [(event.bitmap, event.granularity) for event in found] == [("b", 65536), ("c", 512)]


@pytest.mark.parametrize("length", [8, 16, 24, 32])
def test_bits_may_be_padded_to_32_bytes(length: int) -> None:
    chunks = raw.bitmap_start() + raw.bitmap_bits(0, 128, bytes(length)) + raw.COMPLETE
    found = next(e for e in good(raw.qemu(bitmaps=chunks)) if isinstance(e, BitmapBits))
    assert found.bits is not None
    assert found.bits.length == length


def test_progress_with_eos_and_block_with_progress() -> None:
    found = good(raw.word(37, 6))
    assert len(found) == 1
    assert isinstance(found[0], Progress)
    assert (found[0].percent, found[0].flags) == (37, 6)
    block = good(raw.word(2048, 0x0F) + raw.name("d"))
    assert len(block) == 1
    assert isinstance(block[0], Block)
    assert (block[0].sector, block[0].flags) == (2048, 0x0F)


@pytest.mark.parametrize("flags", [0x03, 0x05, 0x06, 0x0F])
def test_combinations_that_qemu_loads(flags: int) -> None:
    """Inside a section, EOS in a word ends the payload; without, a plain EOS follows."""
    record = raw.word(0, flags)
    if flags & 1:
        record += raw.name("d") + (b"" if flags & 8 else DATA)
    if not flags & 2:
        record += raw.EOS
    data = HEAD + raw.start(1, "block", 1, record) + raw.footer(1) + raw.EOF
    assert [event.type for event in good(data)][-2:] == ["section-footer", "eof"]


@pytest.mark.parametrize("flag", [0x80, 0x100])
@pytest.mark.parametrize("dialect", ["auto", "classic", "v1", "v2"])
def test_unknown_flags(flag: int, dialect: str) -> None:
    data = raw.qemu(raw.word(0, 9 | flag) + raw.name("d"))
    found, error = events(in_file(data), dialect=dialect)
    assert error is not None
    assert error.startswith("MalformedError")
    assert f"{flag:#x}" in error
    assert found[-1].offset + found[-1].length == data.index(raw.word(0, 9 | flag))


def test_a_given_dialect_is_not_guessed() -> None:
    """Classic data under v1 flags: v1 reads no data where the flag is missing."""
    record = raw.block(0, 0)
    assert isinstance(good(record + raw.EOS, "v1")[0], Block)
    _, error = events(in_file(record + raw.EOS), dialect="classic")
    assert error is not None
    assert error.startswith("TruncatedError")
    _, error = events(in_file(raw.block(0, 0x10, rest=DATA) + raw.EOS), dialect="classic")
    assert error is not None
    assert "0x10" in error


def test_v1_zero_block_wins_over_has_block() -> None:
    found = good(raw.block(0, 0x18) + raw.EOS, "v1")[0]
    assert isinstance(found, Block)
    assert found.data is None


def test_a_given_container() -> None:
    bare = raw.block(0, 8) + raw.EOS
    assert [e.type for e in events(in_file(bare), container="none")[0]] == ["block", "eos"]
    failure = events(in_file(bare), container="qemu")[1]
    assert failure is not None
    assert failure.startswith("NotAStreamError: ")
    assert "no QEVM magic" in failure
    assert events(in_file(raw.qemu()), container="none")[1] is not None


def test_unknown_section_with_its_footer_inside() -> None:
    """The footer's look-alike is passed over, as nothing sane stands behind it."""
    payload = b"abc" + raw.footer(9) + b"\x99" + b"d" * 100_000
    data = HEAD + raw.start(9, "htab", 1, payload) + raw.footer(9)
    data += raw.start(1, "block", 1, raw.EOS) + raw.footer(1) + raw.EOF
    for source in (in_file(data), piped(data), piped(data, [1000] * 200)):
        found, error = events(source)
        assert error is None
        state = next(event for event in found if event.type == "device-state")
        assert (state.section, state.length) == ("htab", len(payload))
        assert getattr(state, "sized_by", None) == "footer"


def test_trailing_bytes_are_reported() -> None:
    last = good(HEAD + raw.EOF + b"xyz")[-1]
    assert isinstance(last, Undecoded)
    assert last.length == 3


def test_undecodable_names_are_kept() -> None:
    found = good(raw.word(0, 9) + raw.name(b"\xff\xfea") + raw.EOS)[0]
    assert isinstance(found, Block)
    assert found.device == "\udcff\udcfea"


def test_an_unfinished_bitmap_part() -> None:
    """The chunk that announces more flag bytes may be cut there."""
    data = HEAD + raw.start(3, "dirty-bitmap", 1, b"\x80")
    _, error = events(in_file(data))
    assert error is not None
    assert error.startswith("TruncatedError")
    assert f"at byte {len(data)}" in error


def test_v2_disk_size_holds_back_to_earlier_records() -> None:
    """A record beyond the end that a later range states is an error, whichever came first."""
    tail = raw.block(0, 0x60, rest=raw.v2(100, ("b", 1, 512, b"")))
    data = raw.block(2048, 8) + raw.block(4096, 0x10, rest=DATA) + tail + raw.EOS
    _, error = events(in_file(data))
    assert error is not None
    assert "disk ends at 100" in error


def test_v2_needs_no_hints() -> None:
    """A size given by an option does not change how records are read."""
    record = raw.block(0, 0x60, rest=raw.v2(4096, ("b", 1, 512, bytes(512))))
    for hints in (Hints(), Hints({"d": 5 << 20}, {("d", "b"): 512})):
        found, error = events(in_file(record + raw.EOS), hints=hints)
        assert error is None
        assert isinstance(found[0], Block)
        assert found[0].sectors == 4096
        assert found[0].bitmaps[0].bits.length == 512


@pytest.mark.parametrize("source", [in_file, piped])
def test_every_error_is_raised_again(source: type) -> None:
    """After any error, reading on raises the same error again."""
    for data in (b"", b"text" * 9, HEAD, raw.qemu(raw.block(0, 0x80)), raw.qemu()[:-5]):
        decoder = Decoder(source(data))
        with pytest.raises(StreamError) as first:
            list(decoder)
        for _ in range(2):
            with pytest.raises(StreamError) as again:
                next(decoder)
            assert again.value is first.value


def test_undecidable_names_the_options() -> None:
    """Bits that hold, in their second half, a record and an end of their own."""
    inner = raw.EOS * 8
    data = raw.block(0, 0x28, rest=raw.v1(("b", bytes(8) + inner[8:]))) + raw.EOS
    decoder = Decoder(in_file(data))
    with pytest.raises(UndecidableError, match="--granularity"):
        list(decoder)
    found, error = events(in_file(data), hints=Hints({"d": raw.CHUNK}, {("d", "b"): 2048}))
    assert error is None
    assert isinstance(found[0], Block)
    assert found[0].bitmaps[0].bits.length == 64


@pytest.mark.parametrize("tail", [b"\x55", b"\x08\0\x63\0\0", b"", raw.part(7, raw.EOS)])
def test_errors_between_sections_name_none(tail: bytes) -> None:
    """What is wrong behind a section's footer is not in that section."""
    data = HEAD + raw.start(1, "block", 1, raw.block(0, 8) + raw.EOS) + raw.footer(1) + tail
    for source in (in_file(data), piped(data)):
        decoder = Decoder(source)
        with pytest.raises(StreamError) as error:
            list(decoder)
        assert error.value.section is None
    with pytest.raises(StreamError) as error:
        list(Decoder(in_file(HEAD + raw.start(1, "block", 1, raw.word(0, 0x80)))))
    assert error.value.section == "block"


@pytest.mark.parametrize("flags", [4, 6])
def test_a_bare_stream_may_open_with_progress(flags: int) -> None:
    """Up to 100 percent: what says more is something else."""
    for percent in (0, 100):
        assert good(raw.word(percent, flags) + raw.block(0, 8) + raw.EOS)[0].type == "progress"
    _, error = events(in_file(raw.word(101, flags) + raw.block(0, 8) + raw.EOS))
    assert error is not None
    assert error.startswith("NotAStreamError")
    # Where the container is given, it is read, and left to the checks.
    found, error = events(in_file(raw.word(101, 4) + raw.EOS), container="none")
    assert error is None
    assert getattr(found[0], "percent", None) == 101


@pytest.mark.parametrize(("sector", "fits"), [(2147, True), (2148, False), (2149, False)])
@pytest.mark.parametrize("flags", [0x08, 0x10])
@pytest.mark.parametrize("source", [in_file, piped])
def test_v2_records_at_the_stated_end(source: type, flags: int, sector: int, fits: bool) -> None:
    """A record without bitmaps covers what is left of the disk, and one sector at least."""
    tail = raw.block(2048, 0x60, rest=raw.v2(100, ("b", 1, 512, b"")))
    record = raw.block(sector, flags, rest=DATA if flags & 0x10 else b"")
    found, error = events(source(tail + record + raw.EOS))
    assert (error is None) == fits
    if fits:
        assert getattr(found[1], "sectors", None) == 2148 - sector
    else:
        assert f"records reach sector {sector + 1}, but the disk ends at 2148" in (error or "")
