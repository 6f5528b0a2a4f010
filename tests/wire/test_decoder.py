"""One table of cases: what is accepted, what is refused, and with which words."""

import gzip
import json
import struct
from pathlib import Path

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError
from blkmig_cli.schemas.constants import V2_BITS_MAX
from blkmig_cli.transport.source import adopt_stream, open_stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import DeviceState, Event, StateMismatch, Undecoded, VmDescription
from blkmig_cli.wire.hints import Hints
from tests.conftest import Run, fails
from tests.support import raw
from tests.support.feed import events, in_file, piped

pytestmark = pytest.mark.usefixtures("engine")

DATA = bytes(raw.CHUNK)
BITS = bytes(8)
HEAD = raw.HEADER + raw.configuration()


def dirty(*chunks: bytes) -> bytes:
    return raw.qemu(bitmaps=b"".join(chunks))


def types(data: bytes) -> list[str]:
    found, error = events(in_file(data))
    assert error is None, error
    return [event.type for event in found]


GOOD = {
    "bare-zero": raw.block(0, 8) + raw.EOS,
    "bare-empty": raw.EOS,
    "several-eos": raw.block(0, 8) + raw.EOS + raw.progress(100) + raw.EOS,
    "block-and-eos": raw.block(0, 0x0A),
    "block-and-progress-and-eos": raw.block(0, 0x0E),
    "progress-and-eos": raw.word(100, 6),
    "data-and-eos": raw.block(0, 2, rest=DATA),
    "unnamed-device": raw.block(0, 8, device="") + raw.EOS,
    "qemu": raw.qemu(raw.block(0, 8)),
    "v1": raw.qemu(raw.block(0, 0x10, rest=DATA), raw.block(2048, 0)),
    "v2": raw.qemu(raw.block(0, 0x68, rest=raw.v2(2048, ("b", 1, 65536, BITS)))),
    "v2-far-bitmaps-only": raw.block(0, 0x60, rest=raw.v2(4096 * 2048, ("b", 3, 1 << 31, b"")))
    + raw.EOS,
    "v1-lifted-to-v2": raw.block(0, 0x10, rest=DATA)
    + raw.block(0, 0x60, rest=raw.v2(100, ("b", 0, 512, bytes(16))))
    + raw.EOS,
    "bitmap": dirty(raw.bitmap_start(), raw.bitmap_bits(0, 128, BITS), raw.COMPLETE),
    "bitmap-padded-bits": dirty(
        raw.bitmap_start(), raw.bitmap_bits(0, 128, bytes(32)), raw.COMPLETE
    ),
    "bitmap-zeroes": dirty(raw.bitmap_start(), b"\x42" + struct.pack(">QI", 0, 128), raw.COMPLETE),
    "bitmap-extra-flags": dirty(b"\x80" + raw.bitmap_start(), b"\x80\x80\x00\x20"),
    "no-configuration-no-footers": raw.HEADER
    + raw.start(1, "block", 1, raw.EOS)
    + raw.part(1, raw.EOS, kind=3)
    + raw.EOF,
    "commands": HEAD + b"\x08\0\x02\0\x04abcd" + raw.EOF,
    "package": HEAD
    + b"\x08\0\x07\0\x04"
    + struct.pack(">I", 10)
    + b"\x08\0\x04\0\0\x08\0\x05\0\0"
    + raw.EOF,
    "unknown-section": HEAD + raw.start(9, "cmma", 1, b"xyz") + raw.footer(9) + raw.EOF,
    "trailing-bytes": HEAD + raw.EOF + b"more",
}


@pytest.mark.parametrize("name", GOOD)
def test_accepted(name: str) -> None:
    """Whole, byte by byte (small ones), and from a file: the same, to the last byte."""
    data = GOOD[name]
    found, error = events(in_file(data))
    assert error is None
    assert sum(event.length for event in found) == len(data)
    assert events(piped(data)) == (found, None)
    if len(data) < 4096:
        assert events(piped(data, [1] * len(data))) == (found, None)


def v2_pair(first: bytes, second: bytes) -> bytes:
    return raw.block(0, 0x60, rest=first) + raw.block(2048, 0x60, rest=second) + raw.EOS


ONE = ("b", 1, 65536, BITS)
BAD = {
    "text": (b"hello, this is text\n", "not a migration stream but text"),
    "version-2": (b"QEVM" + struct.pack(">I", 2), "obsolete"),
    "unknown-flag": (raw.qemu(raw.block(0, 0x88)), "flags 0x80 are unknown"),
    "no-flag": (raw.qemu(raw.word(5, 0)), "neither block, progress nor end"),
    "wrong-footer": (raw.qemu()[:-6] + raw.footer(9) + raw.EOF, "footer of section 9"),
    "no-footer": (HEAD + raw.start(1, "block", 1, raw.EOS) + raw.EOF, "footer is missing"),
    "unstarted": (HEAD + raw.part(7, raw.EOS), "never started"),
    "unknown-type": (HEAD + b"\x55", "section type 0x55 is unknown"),
    "unknown-command": (HEAD + b"\x08\0\x63\0\0" + raw.EOF, "command 99"),
    "unknown-subsection": (
        HEAD + b"\x05" + raw.name("configuration/x") + b"\0\0\0\1",
        "'configuration/x' is unknown",
    ),
    "package-too-short": (
        HEAD + b"\x08\0\x07\0\x04" + struct.pack(">I", 3) + b"\x08\0\x04\0\0" + raw.EOF,
        "inside a section",
    ),
    "package-with-an-end": (
        HEAD + b"\x08\0\x07\0\x04" + struct.pack(">I", 5) + raw.EOF + bytes(4) + raw.EOF,
        "ends inside a package",
    ),
    "package-of-3-bytes": (HEAD + b"\x08\0\x07\0\x03\0\0\5" + raw.EOF, "malformed"),
    "package-in-a-package": (
        HEAD + (b"\x08\0\x07\0\x04" + struct.pack(">I", 9)) * 2 + raw.EOF,
        "inside a package",
    ),
    "postcopy-advise": (HEAD + b"\x08\0\x03\0\x05" + bytes(5) + raw.EOF, "has 5 bytes of data"),
    "long-machine": (
        raw.HEADER + b"\x07" + struct.pack(">I", limits.MACHINE_MAX + 1) + bytes(9999),
        "the machine type is 4097 bytes long",
    ),
    "page-bits": (
        HEAD + b"\x05" + raw.name("configuration/target-page-bits") + struct.pack(">II", 1, 99),
        "the page size is 2**99 bytes",
    ),
    "long-description": (
        raw.qemu() + b"\x06" + struct.pack(">I", limits.DESCRIPTION_MAX + 1) + bytes(99),
        "the description is 16777217 bytes long",
    ),
    "compressed-page": (
        HEAD + raw.start(2, "ram", 4, struct.pack(">QI", 0x120, 1 << 20) + bytes(1 << 20)),
        "compressed page of 1048576 bytes is larger",
    ),
    "ram-blocks": (
        HEAD
        + raw.start(
            2, "ram", 4, struct.pack(">Q", 4096 | 4) + raw.name("a") + struct.pack(">Q", 8192)
        ),
        "the RAM blocks are 4096 bytes larger than their total",
    ),
    "id-twice": (raw.qemu()[:-1] + raw.start(1, "block", 1, raw.EOS), "used twice"),
    "classic-then-v1": (
        raw.block(0, 0, rest=DATA) + raw.block(2048, 0x10, rest=DATA) + raw.EOS,
        "--dialect",
    ),
    "v1-bitmaps-then-v2": (
        raw.block(0, 0x28, rest=raw.v1(("b", BITS)))
        + raw.block(2048, 0x68, rest=raw.v2(2048, ONE))
        + raw.EOS,
        "--dialect",
    ),
    "v2-zero-and-data": (raw.block(0, 0x78, rest=raw.v2(2048, ONE)), "exclude each other"),
    "v2-eos": (raw.block(0, 0x6A, rest=raw.v2(2048, ONE)), "no end"),
    "v2-sized-alone": (raw.block(0, 0x48), "go together"),
    "v2-no-sectors": (raw.block(0, 0x60, rest=raw.v2(0, ONE)), "0 sectors"),
    "v2-unaligned": (raw.block(5, 0x60, rest=raw.v2(2048, ONE)), "does not start on a chunk"),
    "v2-data-too-far": (raw.block(0, 0x70, rest=raw.v2(4096, ONE)), "data for a range"),
    "v2-two-sizes": (v2_pair(raw.v2(100, ONE), raw.v2(100, ONE)), "disk ends at sector"),
    "v2-beyond": (v2_pair(raw.v2(100, ONE), raw.v2(2048, ONE)), "records reach sector"),
    "v2-empty-name": (raw.block(0, 0x60, rest=raw.v2(2048, ("", 1, 65536, BITS))), "name is empty"),
    "v2-name-twice": (raw.block(0, 0x60, rest=raw.v2(2048, ONE, ONE)), "twice in one record"),
    "v2-flags": (raw.block(0, 0x60, rest=raw.v2(2048, ("b", 4, 65536, BITS))), "reserved flags"),
    "v2-granularity": (raw.block(0, 0x60, rest=raw.v2(2048, ("b", 1, 768, BITS))), "power of two"),
    "v2-long": (
        raw.block(0, 0x60, rest=raw.v2(2048, ("b", 1, 512, bytes(V2_BITS_MAX + 8)))),
        "1048584 bytes of bits, 1048576 are allowed",
    ),
    "v2-length": (raw.block(0, 0x60, rest=raw.v2(2048, ("b", 1, 512, BITS))), "256 are needed"),
    "v2-new-name": (
        v2_pair(raw.v2(2048, ONE), raw.v2(2048, ("c", 1, 65536, BITS))),
        "not named in the device's first record",
    ),
    "v2-granularity-changes": (
        v2_pair(raw.v2(2048, ONE), raw.v2(2048, ("b", 1, 131072, BITS))),
        "it was 65536 before",
    ),
    "bitmap-granularity-0": (dirty(raw.bitmap_start(granularity=0)), "power of two"),
    "bitmap-granularity-256": (dirty(raw.bitmap_start(granularity=256)), "power of two"),
    "bitmap-granularity-odd": (dirty(raw.bitmap_start(granularity=3 * 512)), "power of two"),
    "bitmap-second-start": (dirty(raw.bitmap_start(), raw.bitmap_start()), "second time"),
    "bitmap-reserved": (dirty(raw.bitmap_start(flags=9)), "reserved flags 0x8"),
    "bitmap-empty-name": (dirty(raw.bitmap_start(bitmap="")), "bitmap's name is empty"),
    "bitmap-no-device": (dirty(raw.bitmap_start(device="")), "device's name is empty"),
    "bitmap-0-sectors": (dirty(raw.bitmap_start(), raw.bitmap_bits(0, 0, BITS)), "0 sectors"),
    "bitmap-unaligned": (
        dirty(raw.bitmap_start(), raw.bitmap_bits(128, 128, BITS)),
        "not start on a word",
    ),
    "bitmap-short": (
        dirty(raw.bitmap_start(granularity=512), raw.bitmap_bits(0, 128, BITS)),
        "16 are needed",
    ),
    "bitmap-long": (
        dirty(raw.bitmap_start(), raw.bitmap_bits(0, 128, bytes(40))),
        "40 bytes of bits",
    ),
    "bitmap-huge": (
        dirty(raw.bitmap_start(), raw.bitmap_bits(0, 128, bytes(10241))),
        "10240 are allowed",
    ),
    "bitmap-not-started": (dirty(raw.bitmap_bits(0, 128, BITS)), "names no device"),
    "bitmap-after-end": (
        dirty(raw.bitmap_start(), raw.COMPLETE, raw.bitmap_bits(0, 128, BITS)),
        "has ended",
    ),
    "bitmap-no-flag": (dirty(b"\x00"), "neither start"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str) -> None:
    data, words = BAD[name]
    found, error = events(in_file(data))
    assert error is not None
    assert words in error
    assert "at byte" in error
    assert events(piped(data)) == (found, error)


def test_contradiction_names_both_offsets() -> None:
    data, _ = BAD["classic-then-v1"]
    _, error = events(in_file(data))
    assert error is not None
    second = len(raw.block(0, 0, rest=DATA))
    assert "byte 0" in error
    assert f"at byte {second}" in error


def test_bare_zero_blocks_decide_nothing() -> None:
    found, _ = events(in_file(raw.block(0, 8) + raw.block(0, 0x10, rest=DATA) + raw.EOS))
    assert [getattr(event, "dialect", "-") for event in found] == [None, "v1", "-"]


def test_a_failed_decoder_stays_failed() -> None:
    decoder = Decoder(in_file(raw.qemu(raw.block(0, 0x80))))
    with pytest.raises(MalformedError) as first:
        list(decoder)
    with pytest.raises(MalformedError) as second:
        next(decoder)
    assert first.value is second.value


def described(stream: bytes, description: bytes | None) -> bytes:
    if description is None:
        return stream
    return stream + b"\x06" + struct.pack(">I", len(description)) + description


def state_stream(size: int, description: bytes | None) -> bytes:
    """Device state of ``size`` bytes that holds a footer's look-alike."""
    state = raw.footer(3).ljust(size, b"\x55")
    out = HEAD + raw.start(3, "dev", 1, state, kind=4) + raw.footer(3) + raw.EOF
    return described(out, description)


def describe(size: int) -> bytes:
    fields = [{"name": "x", "size": 2, "array_len": 3}, {"name": "y", "size": size - 6 - 9 - 4}]
    sub = {"vmsd_name": "abc", "version": 1, "fields": [{"name": "z", "size": 4}]}
    device = {"name": "dev", "instance_id": 0, "fields": fields, "subsections": [sub]}
    return json.dumps({"page_size": 4096, "devices": [device]}).encode()


def same_anywhere(data: bytes) -> list[Event]:
    """The events of a stream that ends properly, which are the same from a file and a pipe."""
    found, error = events(in_file(data))
    assert error is None
    assert events(piped(data)) == (found, None)
    assert events(piped(data, [1] * len(data))) == (found, None)
    return found


def test_state_is_sized_by_its_footer_and_confirmed_by_the_description() -> None:
    *_, state, _, _, description = same_anywhere(state_stream(40, describe(40)))
    assert isinstance(state, DeviceState)
    assert (state.length, state.sized_by) == (40, "footer")
    assert isinstance(description, VmDescription)
    assert (description.confirmed, description.mismatches) == (frozenset({state.offset}), ())


def test_state_is_sized_by_its_footer_without_one() -> None:
    *_, state, _, _ = same_anywhere(state_stream(40, None))
    assert isinstance(state, DeviceState)
    assert (state.length, state.sized_by) == (40, "footer")


@pytest.mark.parametrize("said", [38, 41, 45, 10**12])
def test_a_wrong_description_is_found(said: int) -> None:
    *_, state, _, _, description = same_anywhere(state_stream(40, describe(said)))
    assert isinstance(state, DeviceState)
    assert state.length == 40
    assert isinstance(description, VmDescription)
    assert description.confirmed == frozenset()
    assert description.mismatches == (StateMismatch(state.offset, "dev", 40, said),)


NONSENSE = {
    "no JSON": b"{'devices': []}",
    "no devices": b'{"page_size": 4096}',
    "no object": b"[1, 2, 3]",
    "not bytes": b'{"devices": [{"name": "dev", "instance_id": 0, "fields": [{"size": "x"}]}]}',
    "negative": describe(40).replace(b'"size": 2,', b'"size": -2,'),
    "4000 digits": describe(40).replace(b'"size": 4}', b'"size": ' + b"9" * 4000 + b"}"),
    "5000 digits": describe(40).replace(b'"size": 4}', b'"size": ' + b"9" * 5000 + b"}"),
    "too large": describe(40).replace(b'"size": 4}', b'"size": ' + b"9" * 30 + b"}"),
    "deep": b'{"devices": ' + b"[" * 100_000,
    "many": b'{"devices": [' + b"{}," * 700_000 + b"{}]}",
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_description_that_makes_no_sense_says_nothing(name: str) -> None:
    data = state_stream(40, NONSENSE[name])
    found, error = events(in_file(data))
    assert error is None
    *_, state, _, _, description = found
    assert (state.length, getattr(state, "sized_by", None)) == (40, "footer")
    assert isinstance(description, VmDescription)
    assert (description.confirmed, description.mismatches) == (frozenset(), ())
    assert events(piped(data)) == (found, error)


def without_footers(size: int, *more: bytes) -> bytes:
    """As machine types up to 2.3 write it: neither configuration nor footers."""
    return (
        raw.HEADER
        + raw.start(1, "block", 1, raw.EOS)
        + raw.part(1, raw.EOS, kind=3)
        + raw.start(3, "dev", 1, b"\x55" * size, kind=4)
        + b"".join(more)
        + raw.EOF
    )


def test_without_footers_the_description_sizes_state() -> None:
    second = raw.start(4, "dev2", 1, b"more", kind=4)
    text = json.dumps(
        {
            "devices": [
                json.loads(describe(40))["devices"][0],
                {"name": "dev2", "instance_id": 0, "fields": [{"size": 4}]},
            ]
        }
    ).encode()
    found = same_anywhere(described(without_footers(40, second), text))
    states = [event for event in found if isinstance(event, DeviceState)]
    assert [(state.length, state.sized_by) for state in states] == [
        (40, "description"),
        (4, "description"),
    ]
    assert isinstance(found[-1], VmDescription)
    assert found[-1].confirmed == {state.offset for state in states}


@pytest.mark.parametrize("said", [39, 41, 44, 1 << 40])
def test_without_footers_a_wrong_description_is_not_used(said: int) -> None:
    found = same_anywhere(described(without_footers(40), describe(said)))
    assert isinstance(found[-1], Undecoded)
    assert found[-1].reason == "the end of this state is unknown"


def test_without_footers_another_streams_description_is_not_used() -> None:
    """The one at the file's end fits, but what stands behind the state is no end with it."""
    first = without_footers(40)
    found, error = events(in_file(first + described(without_footers(40), describe(40))))
    assert isinstance(found[-1], Undecoded)
    assert found[-1].offset + found[-1].length == len(first)
    assert error is not None
    assert f"bytes 0, {len(first)}" in error


def test_without_footers_another_streams_description_is_refused() -> None:
    """As above, where what stands behind the state shows nothing."""
    end = raw.part(1, raw.EOS, kind=3)
    first = without_footers(40, end).replace(end, b"", 1)
    data = first + described(without_footers(40), describe(40))
    for source in (in_file(data), piped(data)):
        found, error = events(source, chosen=True)
        assert found[-1].type == "eof"
        assert error is not None
        assert "description that is not this stream's" in error


def test_state_without_footers_is_undecoded() -> None:
    data = (
        raw.HEADER
        + raw.start(1, "block", 1, raw.EOS)
        + raw.part(1, raw.EOS, kind=3)
        + raw.start(3, "dev", 1, b"state" * 9, kind=4)
        + raw.EOF
    )
    found, error = events(piped(data))
    assert error is None
    assert found[-1].type == "undecoded"
    assert found[-1].offset + found[-1].length == len(data)


def ram(payload: bytes, *, before: bytes = b"", capabilities: tuple[str, ...] = ()) -> bytes:
    head = HEAD
    if capabilities:
        names = b"".join(raw.name(item) for item in capabilities)
        body = struct.pack(">I", len(capabilities)) + names
        head += b"\x05" + raw.name("configuration/capabilities") + struct.pack(">I", 1) + body
    payload += struct.pack(">Q", 0x10)
    return head + before + raw.start(2, "ram", 4, payload) + raw.footer(2) + raw.EOF


def mem_size(*entries: tuple[str, int, bytes]) -> bytes:
    total = sum(length for _, length, _ in entries)
    blocks = [raw.name(name) + struct.pack(">Q", length) + more for name, length, more in entries]
    return struct.pack(">Q", total | 4) + b"".join(blocks)


ADVICE = b"\x08\0\x03\0\x10" + struct.pack(">QQ", 0x201000, 4096)
RAM = {
    "empty": ram(b""),
    "sizes": ram(mem_size(("a", 4096, b""), ("b", 8192, b""))),
    "page": ram(struct.pack(">Q", 0x08) + raw.name("a") + bytes(4096)),
    "page-continued": ram(struct.pack(">Q", 0x1028) + bytes(4096)),
    "zero": ram(struct.pack(">Q", 0x02) + raw.name("a") + b"\0"),
    "xbzrle": ram(struct.pack(">Q", 0x60) + b"\1\0\3abc"),
    "compressed": ram(struct.pack(">Q", 0x120) + struct.pack(">I", 5) + b"abcde"),
    "hook-and-flush": ram(struct.pack(">QQ", 0x80, 0x200)),
    "addresses": ram(
        mem_size(("a", 4096, struct.pack(">Q", 77))), capabilities=("x-ignore-shared",)
    ),
    "huge-pages": ram(
        mem_size(("a", 1 << 21, struct.pack(">Q", 1 << 21)), ("b", 4096, b"")), before=ADVICE
    ),
}


@pytest.mark.parametrize("name", RAM)
def test_ram_is_stepped_over(name: str) -> None:
    assert types(RAM[name])[-3:] == ["ram", "section-footer", "eof"]


def test_mapped_ram_jumps() -> None:
    header = struct.pack(">IQQQ", 1, 4096, 0, 500)
    prefix = ram(mem_size(("a", 4096, header)), capabilities=("mapped-ram",))
    cut = prefix.rindex(header) + len(header)
    data = prefix[:cut].ljust(500 + 4096, b"\xaa") + prefix[cut:]
    assert types(data)[-3:] == ["ram", "section-footer", "eof"]


@pytest.mark.parametrize("pages", [0, 1, 3000])
def test_mapped_ram_that_is_cut(pages: int) -> None:
    """The error's offset is the end of what there is."""
    header = struct.pack(">IQQQ", 1, 4096, 0, 500)
    prefix = ram(mem_size(("a", 4096, header)), capabilities=("mapped-ram",))
    data = prefix[: prefix.rindex(header) + len(header)].ljust(500, b"\xaa") + bytes(pages)
    for source in (in_file(data), piped(data)):
        _, error = events(source)
        assert error is not None
        assert error.startswith("TruncatedError")
        assert f"at byte {len(data)}" in error


def test_unknown_ram_is_refused_while_blocks_are_open() -> None:
    data = raw.HEADER + raw.start(1, "block", 1, raw.EOS) + raw.start(2, "ram", 3, b"x" * 50)
    found, error = events(in_file(data))
    assert found[-1].type == "undecoded"
    assert error is not None
    assert "blocks or bitmaps are not complete" in error


def test_sizes_of_hints_reach_the_events() -> None:
    found, _ = events(in_file(GOOD["bare-zero"]), hints=Hints({"d": 1024}))
    assert getattr(found[0], "sectors", None) == 2


def test_errors_have_one_root() -> None:
    assert issubclass(MalformedError, StreamError)


CASES = Path(__file__).parents[1] / "cases"


@pytest.mark.parametrize("origin", [0, 4096, 500])
def test_mapped_ram_at_an_offset_of_the_file(origin: int, tmp_path: Path) -> None:
    """The offsets in its headers count from the start of the file."""
    header = struct.pack(">IQQQ", 1, 4096, 0, origin + 500)
    prefix = ram(mem_size(("a", 4096, header)), capabilities=("mapped-ram",))
    cut = prefix.rindex(header) + len(header)
    data = prefix[:cut].ljust(500 + 4096, b"\xaa") + prefix[cut:]
    path = tmp_path / "m.bin"
    path.write_bytes(bytes(origin) + data)
    with open_stream(f"file:{path},offset={origin}") as stream:
        found = list(Decoder(stream.input))
    assert [event.type for event in found][-3:] == ["ram", "section-footer", "eof"]
    assert (found[0].offset, found[-1].offset) == (0, len(data) - 1)
    with open(path, "rb") as file:
        file.seek(origin)
        with adopt_stream(file) as stream:
            assert list(Decoder(stream.input)) == found
    # A second stream in the same file is where the file says, too.
    path.write_bytes(HEAD + raw.EOF + bytes(origin) + data)
    with open_stream(str(path)) as stream:
        first = Decoder(stream.input, chosen=True)
        assert list(first)[-1].type in ("eof", "undecoded")
        decoder = Decoder(stream.input)
        if origin:
            with pytest.raises(MalformedError):
                list(decoder)


def test_the_case_of_mapped_ram_at_4096(run: Run, tmp_path: Path) -> None:
    """QEMU 10.0 wrote it with ``migrate file:F,offset=4096``; padding before it is no stream."""
    path = tmp_path / "m.bin"
    path.write_bytes(gzip.decompress((CASES / "mapped-ram-at-4096.bin.gz").read_bytes()))
    outcome = run("validate", f"file:{path},offset=4096", "--output", "json")
    assert outcome.status == 0
    assert outcome.report["complete"] is True
    (bitmap,) = outcome.report["bitmaps"]
    assert (bitmap["device"], bitmap["name"], bitmap["count"]) == ("drive0", "daily", 256 << 10)
    fails(run("validate", path), 3, "one may begin at byte 4096: file:PATH,offset=N reads it")
    piped_part = f"exec:tail -c +4097 {path}"
    fails(run("dump", piped_part, "--limit", "2000000"), 3, "use file:PATH,offset=N")


@pytest.mark.parametrize("size", [4096, 8192])
@pytest.mark.parametrize("behind", ["continued", "named", "zero", "end", "hook"])
def test_a_page_size_that_nothing_says(size: int, behind: str) -> None:
    """sparc64 and alpha have pages of 8 KiB, and say so nowhere: the first page shows it."""
    page = struct.pack(">Q", 0x08) + raw.name("a") + b"\x55" * size
    after = {
        "continued": struct.pack(">Q", size | 0x28) + b"\x66" * size,
        "named": struct.pack(">Q", size | 0x08) + raw.name("bc") + b"\x66" * size,
        "zero": struct.pack(">Q", size | 0x22) + b"\0",
        "end": b"",
        "hook": struct.pack(">Q", 0x80),
    }[behind]
    found = same_anywhere(ram(page + after))
    assert [event.type for event in found[3:-2]] == ["ram"] * (2 + bool(after))


def test_the_description_case(run: Run) -> None:
    """A device's size of 8000 digits: no size at all."""
    outcome = run("validate", CASES / "description-size-4000-digits.bin", "--output", "json")
    assert outcome.status == 0
    assert "resynchronised" in [finding["id"] for finding in outcome.report["findings"]]


def test_a_mismatch_is_an_error_from_file_and_pipe(run: Run, tmp_path: Path) -> None:
    """The disk is all there: the state of a device is not the stream's failure."""
    inner = raw.qemu(raw.block(0, 8))[:-1] + raw.start(3, "dev", 1, bytes(38), kind=4)
    path = tmp_path / "s.bin"
    path.write_bytes(described(inner + raw.footer(3) + raw.EOF, describe(40)))
    reports = []
    for name in (path, f"exec:cat {path}"):
        outcome = run("validate", name, "--device-size", "1M", "--output", "json")
        assert outcome.status == 1
        reports.append(outcome.report | {"stream": None})
    assert reports[0] == reports[1]
    (finding,) = reports[0]["findings"]
    assert (finding["id"], finding["severity"]) == ("device-state", "error")
    assert finding["offset"] == len(inner) - 38
    assert "38 bytes long, the description says 40" in finding["message"]
    assert reports[0]["complete"] is True
