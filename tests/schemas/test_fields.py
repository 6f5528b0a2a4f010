"""The fields of each schema, in order, with their sizes in bytes; ``?`` where it is in the stream."""

import struct
from typing import Any

import pytest
from construct import Construct, SizeofError, Struct

from blkmig_cli.schemas import block, dirty_bitmap, framing, libvirt, nbd, ram

FIELDS: dict[Any, dict[str, str]] = {
    block: {
        "RecordWord": "word:8",
        "DeviceName": "device:?",
        "V1BitmapCount": "count:4",
        "V1BitmapHead": "name:?",
        "V2Range": "sectors:4 count:4",
        "V2BitmapHead": "name:? flags:1 granularity:4 length:4",
    },
    framing: {
        "FileHeader": "magic:4 version:4",
        "ConfigurationHead": "type:1 length:4",
        "SubsectionHead": "type:1 name:? version:4",
        "SectionHead": "type:1 id:4 name:? instance:4 version:4",
        "SectionReference": "type:1 id:4",
        "CommandHead": "type:1 command:2 length:2",
        "PackageLength": "length:4",
        "ReturnPathHead": "type:2 length:2",
        "ReturnPathShut": "status:4",
        "DescriptionHead": "type:1 length:4",
        "TypeByte": "type:1",
    },
    ram: {
        "RamWord": "word:8",
        "BlockName": "block:?",
        "MemSizeEntry": "block:? length:8",
        "MemSizePageSize": "page_size:8",
        "MemSizeAddress": "address:8",
        "MappedRamHeader": "version:4 page_size:8 bitmap_offset:8 pages_offset:8",
        "PostcopyAdvise": "page_sizes:8 target_page_size:8",
    },
    dirty_bitmap: {
        "ChunkFlags": "flags:1",
        "MoreFlags": "flags:2",
        "Alias": "name:?",
        "Start": "granularity:4 flags:1",
        "Range": "sector:8 sectors:4",
        "BitsLength": "length:8",
    },
    nbd: {
        "Greeting": "magic:8 option_magic:8 flags:2",
        "ClientFlags": "flags:4",
        "OptionHead": "magic:8 option:4 length:4",
        "OptionReplyHead": "magic:8 option:4 type:4 length:4",
        "GoData": "export:? infos:?",
        "MetaContextData": "export:? queries:?",
        "MetaContext": "id:4 name:?",
        "InfoType": "type:2",
        "InfoExport": "type:2 size:8 flags:2",
        "InfoBlockSize": "type:2 minimum:4 preferred:4 maximum:4",
        "Request": "magic:4 flags:2 type:2 cookie:8 offset:8 length:4",
        "ReplyMagic": "magic:4",
        "SimpleReply": "magic:4 error:4 cookie:8",
        "ChunkHead": "magic:4 flags:2 type:2 cookie:8",
        "ChunkLength": "length:4",
        "OffsetData": "offset:8",
        "OffsetHole": "offset:8 length:4",
        "BlockStatus": "context:4",
        "Extent": "length:4 flags:4",
        "ChunkError": "error:4 length:2",
    },
    libvirt: {
        "SaveHeader": "magic:16 version:4 data_length:4 was_running:4 format:4 cookie_offset:4 "
        "unused:56",
        "SaveHeaderBigEndian": "magic:16 version:4 data_length:4 was_running:4 format:4 "
        "cookie_offset:4 unused:56",
    },
}


def shown(schema: Construct) -> str:
    """The fields of a schema as in the table."""
    found = []
    for field in schema.subcons:
        try:
            found.append(f"{field.name}:{field.sizeof()}")
        except SizeofError:
            found.append(f"{field.name}:?")
    return " ".join(found)


@pytest.mark.parametrize("module", FIELDS, ids=lambda module: module.__name__)
def test_fields(module: Any) -> None:
    schemas = {name: value for name, value in vars(module).items() if isinstance(value, Struct)}
    assert {name: shown(value) for name, value in schemas.items()} == FIELDS[module]


def test_subsections_of_the_configuration() -> None:
    assert {name: shown(body) for name, body in framing.SUBSECTION_BODIES.items()} == {
        b"configuration/target-page-bits": "bits:4",
        b"configuration/capabilities": "names:?",
        b"configuration/uuid": "uuid:16",
    }


def test_heads_of_ram_records() -> None:
    assert {int(flag): shown(head) for flag, head in ram.RECORD_HEADS.items()} == {
        0x02: "fill:1", 0x08: "", 0x40: "encoding:1 length:2", 0x100: "length:4"
    }  # fmt: skip
    assert set(map(int, ram.BARE_RECORDS)) == {0x10, 0x80, 0x200}


def test_strings_and_lists() -> None:
    assert framing.CountedString.build(b"abc") == b"\3abc"
    assert nbd.String.build(b"abc") == b"\0\0\0\3abc"
    infos = struct.pack(">HHH", 2, 0, 3)
    assert nbd.GoData.build({"export": b"x", "infos": [0, 3]}) == b"\0\0\0\1x" + infos
    queries = struct.pack(">II", 1, 1) + b"q"
    assert nbd.MetaContextData.build({"export": b"x", "queries": [b"q"]}) == (
        b"\0\0\0\1x" + queries
    )
    names = framing.SUBSECTION_BODIES[b"configuration/capabilities"]
    assert names.build({"names": [b"a"]}) == b"\0\0\0\1\1a"


def test_numbers_of_save_images() -> None:
    """In the byte order of their host; all others are big-endian."""
    words = dict.fromkeys(("version", "data_length", "was_running", "format", "cookie_offset"), 1)
    header = {"magic": bytes(16), "unused": bytes(56)} | words
    assert libvirt.SaveHeader.build(header) == bytes(16) + struct.pack("<5I", *[1] * 5) + bytes(56)
    assert libvirt.SaveHeaderBigEndian.build(header) == (
        bytes(16) + struct.pack(">5I", *[1] * 5) + bytes(56)
    )
    assert framing.FileHeader.build({"magic": 0x5145564D, "version": 3}) == b"QEVM\0\0\0\3"


@pytest.mark.parametrize("name", [b"", b"abc", b"x" * 255])
def test_bytes_of_a_subsection_without_its_fields(name: bytes) -> None:
    assert framing.subsection_overhead(name) == 1 + 1 + len(name) + 4
