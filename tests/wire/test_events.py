"""Events: what each is called, and what its properties say."""

import struct

import pytest

from blkmig_cli.schemas.constants import SectionType
from blkmig_cli.wire import events as e
from blkmig_cli.wire.encoder import encode
from tests.support import raw
from tests.support.feed import events, in_file

HERE = (0, 1, None)
BITS = e.Payload(9, 8)
CHUNK = (*HERE, "d", "b")

NAMED = {
    "header": e.Header(*HERE, 3),
    "configuration": e.Configuration(*HERE, "none"),
    "section-start": e.SectionHeader(*HERE, SectionType.START, 1, 0, 1),
    "section-part": e.SectionHeader(*HERE, SectionType.PART, 1, 0, 1),
    "section-end": e.SectionHeader(*HERE, SectionType.END, 1, 0, 1),
    "section-full": e.SectionHeader(*HERE, SectionType.FULL, 1, 0, 1),
    "section-footer": e.Footer(*HERE, 1),
    "command": e.CommandEvent(*HERE, 1, b""),
    "eof": e.Eof(*HERE),
    "vm-description": e.VmDescription(*HERE, BITS),
    "block": e.Block(*HERE, "d", 0, 2048, 2048, 9, None, None, ()),
    "progress": e.Progress(*HERE, 50, 4),
    "eos": e.Eos(*HERE, 2),
    "bitmap-start": e.BitmapStart(*CHUNK, 0x1C, b"", 65536, 1),
    "bitmap-bits": e.BitmapBits(*CHUNK, 0x40, b"", 0, 128, 65536, BITS),
    "bitmap-complete": e.BitmapComplete(*CHUNK, 0x20, b""),
    "bitmap-eos": e.BitmapEos(*HERE, 1),
    "ram": e.Ram(*HERE, 0x10, None, 0),
    "raw": e.Raw(*HERE, BITS),
    "device-state": e.DeviceState(*HERE, "footer"),
    "undecoded": e.Undecoded(*HERE, "why"),
}


@pytest.mark.parametrize("name", NAMED)
def test_types(name: str) -> None:
    """What each is called, and that it has bytes."""
    event = NAMED[name]
    assert event.type == name
    assert list(encode(event))


def test_all_ram_of_a_part_is_called_ram() -> None:
    assert e.RamStretch(*HERE, 7).type == "ram"


def test_what_is_not_said() -> None:
    """The values of fields that are left out."""
    assert NAMED["command"] == e.CommandEvent(*HERE, 1, b"", None)
    assert NAMED["vm-description"] == e.VmDescription(*HERE, BITS, frozenset(), ())
    assert NAMED["bitmap-eos"] == e.BitmapEos(*HERE, 1, b"")
    assert NAMED["undecoded"] == e.Undecoded(*HERE, "why", behind=False)
    assert NAMED["ram"] == e.Ram(*HERE, 0x10, None, 0, (), None, ())
    assert e.RamBlock("a", 1) == e.RamBlock("a", 1, None, None, None, None)
    assert e.Conclusion() == e.Conclusion(None, None, {}, {})


def test_a_configuration_without_subsections() -> None:
    found = e.Configuration(*HERE, "none")
    assert found.subsections == ()
    assert (found.target_page_bits, found.capabilities, found.uuid) == (None, None, None)


@pytest.mark.parametrize(("stated", "on_wire"), [(None, 8), (0, 0), (9, 9)])
def test_the_length_on_the_wire(stated: int | None, on_wire: int) -> None:
    assert e.Payload(0, 8, stated).on_wire == on_wire


@pytest.mark.parametrize(
    ("flags", "data", "content"),
    [(0x09, None, True), (0x01, BITS, True), (0x11, BITS, True), (0x21, None, False)],
)
def test_records_with_content(flags: int, data: e.Payload | None, content: bool) -> None:
    """Data or zeros; not bitmaps alone."""
    record = e.Block(*HERE, "d", 0, 2048, 2048, flags, "v1", data, ())
    assert record.has_content is content


def test_events_of_a_stream() -> None:
    """Their types as they come, in a stream with all parts."""
    command = b"\x08\0\x02" + struct.pack(">H", 4) + b"ping"
    whole = raw.qemu(
        raw.block(0, 8),
        bitmaps=raw.bitmap_start() + raw.bitmap_bits(0, 128, bytes(8)) + raw.COMPLETE,
    )
    head = raw.HEADER + raw.configuration()
    state = raw.start(3, "dev", 1, b"state", kind=4) + raw.footer(3)
    memory = raw.start(4, "ram", 4, raw.word(0, 0x10)) + raw.footer(4)
    description = b"\6\0\0\0\2{}"
    data = head + command + whole[len(head) : -1] + state + memory + raw.EOF + description + b"x"
    found, error = events(in_file(data))
    assert error is None
    assert [event.type for event in found] == [
        "header", "configuration", "command",
        "section-start", "eos", "section-footer",
        "section-start", "bitmap-eos", "section-footer",
        "section-part", "block", "eos", "section-footer",
        "section-end", "progress", "eos", "section-footer",
        "section-end", "bitmap-start", "bitmap-bits", "bitmap-complete", "bitmap-eos",
        "section-footer",
        "section-full", "device-state", "section-footer",
        "section-start", "ram", "section-footer",
        "eof", "vm-description", "undecoded",
    ]  # fmt: skip
