"""The container: fields of its events, its rules at their bounds, and what errors state."""

import struct

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError, TruncatedError
from blkmig_cli.schemas.constants import SectionType
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import (
    CommandEvent,
    Conclusion,
    Configuration,
    DeviceState,
    Eof,
    Eos,
    Footer,
    Header,
    Payload,
    SectionHeader,
    Subsection,
    VmDescription,
)
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Run
from tests.support import raw
from tests.support.feed import events, in_file, piped

pytestmark = pytest.mark.usefixtures("engine")

HEAD = raw.HEADER + raw.configuration()
BLOCKS = raw.start(1, "block", 1, raw.EOS) + raw.footer(1)


def command(number: int, data: bytes = b"") -> bytes:
    return b"\x08" + struct.pack(">HH", number, len(data)) + data


def package(length: int) -> bytes:
    return command(7, struct.pack(">I", length))


def state(number: int, payload: bytes, name: str = "dev", instance: int = 0) -> bytes:
    head = b"\4" + struct.pack(">I", number) + raw.name(name) + struct.pack(">II", instance, 2)
    return head + payload + raw.footer(number)


def description(text: bytes) -> bytes:
    return b"\6" + struct.pack(">I", len(text)) + text


def refused(data: bytes) -> StreamError:
    """The error of a stream, the same from a file and a pipe."""
    found = []
    for source in (in_file(data), piped(data)):
        with pytest.raises(StreamError) as error:
            list(Decoder(source))
        found.append(error.value)
    assert str(found[0]) == str(found[1])
    return found[0]


def subsection(name: str, body: bytes, version: int = 1) -> bytes:
    return b"\5" + raw.name(f"configuration/{name}") + struct.pack(">I", version) + body


def test_the_fields_of_each() -> None:
    data = (
        raw.HEADER
        + raw.configuration("pc")
        + subsection("target-page-bits", struct.pack(">I", 12), 4)
        + command(2, b"ping")
        + b"\1" + struct.pack(">I", 9) + raw.name("block") + struct.pack(">II", 3, 1) + raw.EOS
        + raw.footer(9)
        + raw.part(9, raw.EOS)
        + raw.footer(9)
        + raw.part(9, raw.EOS, kind=3)
        + raw.footer(9)
        + state(8, b"state", instance=5)
        + raw.EOF
        + description(b"{}")
    )  # fmt: skip
    bits = Subsection("configuration/target-page-bits", 4, 12)
    assert list(Decoder(in_file(data))) == [
        Header(0, 8, None, 3),
        Configuration(8, 47, None, "pc", (bits,)),
        CommandEvent(55, 9, None, 2, b"ping"),
        SectionHeader(64, 19, "block", SectionType.START, 9, 3, 1),
        Eos(83, 8, "block", 2),
        Footer(91, 5, "block", 9),
        SectionHeader(96, 5, "block", SectionType.PART, 9, 3, 1),
        Eos(101, 8, "block", 2),
        Footer(109, 5, "block", 9),
        SectionHeader(114, 5, "block", SectionType.END, 9, 3, 1),
        Eos(119, 8, "block", 2),
        Footer(127, 5, "block", 9),
        SectionHeader(132, 17, "dev", SectionType.FULL, 8, 5, 2),
        DeviceState(149, 5, "dev", "footer"),
        Footer(154, 5, "dev", 8),
        Eof(159, 1, None),
        VmDescription(160, 7, None, Payload(165, 2)),
    ]


REFUSED = {
    "an old version": (
        b"QEVM" + struct.pack(">I", 2), "stream version 2 (obsolete) is not supported, only 3", 0,
        "malformed"),
    "a new version": (
        b"QEVM" + struct.pack(">I", 4), "stream version 4 is not supported, only 3", 0,
        "malformed"),
    "a long machine": (
        raw.HEADER + raw.configuration("x" * 4097), "the machine type is 4097 bytes long", 8,
        "malformed"),
    "pages of 512 bytes": (
        HEAD + subsection("target-page-bits", struct.pack(">I", 9)), "the page size is 2**9 bytes",
        8, "malformed"),
    "pages of 2 MiB": (
        HEAD + subsection("target-page-bits", struct.pack(">I", 21)),
        "the page size is 2**21 bytes", 8, "malformed"),
    "a subsection twice": (
        HEAD + subsection("uuid", bytes(16)) * 2,
        "configuration subsection 'configuration/uuid' is unknown or repeated", 8, "malformed"),
    "an unknown subsection": (
        HEAD + subsection("x", b""),
        "configuration subsection 'configuration/x' is unknown or repeated", 8, "malformed"),
    "a configuration later": (
        HEAD + raw.configuration(), "section type 0x07 is unknown", 17, "unknown-section"),
    "a footer alone": (HEAD + raw.footer(1), "section type 0x7e is unknown", 17,
                       "unknown-section"),
    "section type 5": (
        HEAD + command(1) + b"\5", "section type 0x05 is unknown", 22, "unknown-section"),
    "command 0": (HEAD + command(0), "command 0 is unknown", 17, "unknown-command"),
    "command 12": (HEAD + command(12), "command 12 is unknown", 17, "unknown-command"),
    "an id twice": (HEAD + BLOCKS + state(1, b""), "section id 1 is used twice", 49, "malformed"),
    "no start": (
        HEAD + BLOCKS + raw.part(2, b""), "section id 2 was never started", 49,
        "unknown-section"),
    "another footer": (
        HEAD + BLOCKS[:-5] + raw.footer(2), "footer of section 2, expected 1", 44, "footer"),
    "no footer": (
        HEAD + BLOCKS[:-5] + raw.EOF, "a section's footer is missing", 44, "footer"),
    "no second footer": (
        raw.HEADER + BLOCKS + raw.part(1, raw.EOS) + raw.EOF, "a section's footer is missing",
        53, "footer"),
    "no second footer, a part": (
        raw.HEADER + BLOCKS + raw.part(1, raw.EOS) * 2, "a section's footer is missing", 53,
        "footer"),
    "advice of 15 bytes": (
        HEAD + command(3, bytes(15)), "the command postcopy-advise has 15 bytes of data", 17,
        "malformed"),
    "advice of 17 bytes": (
        HEAD + command(3, bytes(17)), "the command postcopy-advise has 17 bytes of data", 17,
        "malformed"),
    "a package of 5 bytes": (
        HEAD + command(7, bytes(5)), "a package command is malformed or inside a package", 17,
        "malformed"),
    "a package in a package": (
        HEAD + package(9) + package(0), "a package command is malformed or inside a package", 26,
        "malformed"),
    "an end in a package": (
        HEAD + package(2) + raw.EOF, "the stream ends inside a package", 26, "malformed"),
    "a package that ends inside": (
        HEAD + package(4) + command(1) + raw.EOF, "a package ends at byte 30, inside a section",
        31, "malformed"),
    "a long description": (
        HEAD + raw.EOF + b"\6" + struct.pack(">I", limits.DESCRIPTION_MAX + 1),
        "the description is 16777217 bytes long", 18, "malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    data, message, offset, check = REFUSED[name]
    error = refused(data)
    assert isinstance(error, MalformedError)
    assert (error.message, error.offset, error.check) == (message, offset, check)


ACCEPTED = {
    "a long machine": raw.HEADER + raw.configuration("x" * 4096),
    "pages of 1 KiB": HEAD + subsection("target-page-bits", struct.pack(">I", 10)),
    "pages of 1 MiB": HEAD + subsection("target-page-bits", struct.pack(">I", 20)),
    "command 1": HEAD + command(1),
    "command 11": HEAD + command(11),
    "advice without data": HEAD + command(3),
    "advice": HEAD + command(3, bytes(16)),
    "a package": HEAD + package(5) + command(1),
    "an empty package": HEAD + package(0),
    "two packages": HEAD + (package(5) + command(1)) * 2,
    "a package after an empty one": HEAD + package(0) + package(5) + command(1),
    "no footers, no configuration": raw.HEADER + BLOCKS[:-5] + raw.part(1, raw.EOS),
    "footers, no configuration": raw.HEADER + BLOCKS + raw.part(1, raw.EOS) + raw.footer(1),
    "nothing": raw.HEADER,
}


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("source", [in_file, piped])
def test_accepted(name: str, source: type) -> None:
    data = ACCEPTED[name] + raw.EOF
    found, error = events(source(data))
    assert error is None
    assert found[-1] == Eof(len(data) - 1, 1, None)


CUT = {
    "the header": raw.HEADER[:7],
    "the end": HEAD,
    "a machine": HEAD[:-1],
    "a command": HEAD + command(2, b"ping")[:-1],
    "a section's head": HEAD + BLOCKS[:9],
    "a footer": HEAD + BLOCKS[:-1],
    "no footer": HEAD + BLOCKS[:-5],
    "no footer, and no configuration": raw.HEADER + BLOCKS[:-5],
    "a description": HEAD + raw.EOF + description(b"{}")[:-1],
    "the description's length": HEAD + raw.EOF + b"\6\0\0",
}


@pytest.mark.parametrize("name", CUT)
def test_cut(name: str) -> None:
    error = refused(CUT[name])
    assert isinstance(error, TruncatedError)
    assert (error.offset, error.check) == (len(CUT[name]), "truncated")


@pytest.mark.parametrize("most", [1, 2, 3])
def test_so_many_sections(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECTIONS_MAX", most)
    data = HEAD + b"".join(state(number, b"") for number in (1, 2, 3)) + raw.EOF
    found, error = events(in_file(data))
    if most == 3:
        assert error is None
    else:
        assert sum(isinstance(event, DeviceState) for event in found) == most
        assert refused(data).message == f"over {most} sections"
        assert refused(data).check == "limit"


def test_the_length_of_a_package() -> None:
    data = HEAD + package(5) + command(11) + command(7, struct.pack(">I", 0x01020304))
    found, _ = events(in_file(data))
    assert [event.package for event in found if isinstance(event, CommandEvent)] == [
        5, None, 0x01020304
    ]  # fmt: skip


@pytest.mark.parametrize("length", [0, 1, 5, 8])
def test_state_up_to_the_end_of_a_package(length: int) -> None:
    """Its footer may be the package's last bytes; what looks like one behind it is not."""
    inner = state(3, b"x" * length)
    data = HEAD + package(len(inner)) + inner + b"\x55" + raw.footer(3) + raw.EOF
    found, error = events(in_file(data))
    sizes = [event.length for event in found if isinstance(event, DeviceState)]
    assert sizes == [length]
    assert error is not None
    assert "section type 0x55 is unknown" in error


def conclusion(data: bytes, **options: object) -> Conclusion:
    decoder = Decoder(in_file(data), **options)  # type: ignore[arg-type]
    assert decoder.conclusion().container in (None, "qemu", "none")
    list(decoder)
    return decoder.conclusion()


def test_conclusions() -> None:
    bare = raw.block(0, 8) + raw.EOS
    assert conclusion(raw.qemu()) == Conclusion("qemu", None, {}, {})
    assert conclusion(bare) == Conclusion("none", None, {}, {})
    assert conclusion(raw.block(0, 0, rest=bytes(raw.CHUNK)) + raw.EOS).dialect == "classic"
    bits = [raw.block(at, 0x28, rest=raw.v1(("b", bytes(n)))) for at, n in ((0, 256), (2048, 8))]
    data = b"".join(bits) + raw.block(0, 8, "x" * 250) + raw.EOS
    assert conclusion(data, hints=Hints({}, {(None, "b"): 512})) == Conclusion(
        "none", "v1", {"d": (2049 * 512, 2112 * 512)}, {("d", "b"): (512,)}
    )


def test_a_conclusion_before_the_first_event() -> None:
    decoder = Decoder(in_file(raw.qemu()))
    assert decoder.conclusion() == Conclusion(None, None, {}, {})
    assert Decoder(in_file(b""), container="none", dialect="v2").conclusion() == Conclusion(
        "none", "v2", {}, {}
    )


def test_page_bits_of_the_configuration() -> None:
    decoder = Decoder(
        in_file(HEAD + subsection("target-page-bits", struct.pack(">I", 14)) + raw.EOF)
    )
    list(decoder)
    assert decoder.context.ram.page_size == 1 << 14
    assert decoder.context.configured


def test_a_copy_of_the_context_is_independent() -> None:
    decoder = Decoder(in_file(HEAD + BLOCKS + command(3, struct.pack(">QQ", 7, 0)) + raw.EOF))
    list(decoder)
    copy = decoder.context.copy()
    assert copy == decoder.context
    assert copy.ram.page_sizes == 7
    copy.sections.clear()
    copy.open.clear()
    copy.ram.page_sizes = 0
    assert (set(decoder.context.sections), decoder.context.open) == ({1}, {1})
    assert decoder.context.ram.page_sizes == 7


def test_damage_of_the_input_comes_before_its_end() -> None:
    """What made it end too early is the error; not where the bytes before it are wrong."""
    damage = TruncatedError("the archive is cut")
    for data, raised in ((HEAD + BLOCKS[:-1], True), (HEAD + b"\x55", False)):
        source = piped(data)
        source.damage = damage
        decoder = Decoder(source)
        for _ in range(2):
            with pytest.raises(StreamError) as error:
                list(decoder)
            assert (error.value is damage) is raised


def test_pieces_are_the_events_one_by_one_or_in_runs() -> None:
    data = raw.block(0, 8) * 100 + raw.EOS
    decoder = Decoder(in_file(data))
    assert sum(len(piece) if isinstance(piece, Run) else 1 for piece in decoder.pieces()) == 101
    assert list(decoder.pieces()) == []
    with pytest.raises(StopIteration):
        decoder.piece()
    cut = Decoder(in_file(data[:-1])).pieces()
    with pytest.raises(TruncatedError):
        list(cut)
