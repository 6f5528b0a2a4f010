"""Kaitai Struct's own compiler and runtime, and what they read of a stream, as our events are."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from blkmig_cli.schemas.constants import BlockFlag, RamFlag, SectionType
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapChunk,
    BitmapEos,
    BitmapStart,
    Block,
    CommandEvent,
    Configuration,
    DeviceState,
    Eof,
    Eos,
    Event,
    Footer,
    Header,
    Progress,
    Ram,
    SectionHeader,
    Undecoded,
    VmDescription,
)

ROOT = Path(__file__).parents[2]
_MODULES = ROOT / "build" / "node_modules"
# Compiles standard input; in Python with the positions of all fields.
_COMPILE = """
const compiler = require("kaitai-struct-compiler");
const [language] = process.argv.slice(1);
const text = require("fs").readFileSync(0);
compiler.compile(language, JSON.parse(text), null, language === "python").then(
    files => console.log(Object.values(files)[0]),
    error => { console.error(String(error)); process.exit(1); });
"""
# Reads the stream in a file with a compiled description, and prints all block records.
_READ = """
const KaitaiStream = require("kaitai-struct/KaitaiStream");
const [code, path] = process.argv.slice(1);
const { Blkmig } = require(code);
const data = require("fs").readFileSync(path);
const stream = new Blkmig(new KaitaiStream(new Uint8Array(data).buffer));
const records = stream.objects.flatMap(found => found.blocks ? found.blocks.records : []);
console.log(JSON.stringify(records.filter(record => record.word.deviceBlock).map(
    record => [String.fromCharCode(...record.name.device.value), record.sector])));
"""

#: An offset, the type of what begins there, and its values.
Item = tuple[Any, ...]


def compiled(description: str) -> type[Any]:
    """Return the class that Kaitai's compiler makes of a description."""
    names: dict[str, Any] = {}
    exec(_compiled("python", description), names)
    found: type[Any] = names["Blkmig"]
    return found


def blocks_in_javascript(description: str, stream: Path, folder: Path) -> list[tuple[str, int]]:
    """Return devices and sectors as the compiled description reads them in JavaScript."""
    code = folder / "Blkmig.js"
    code.write_text(_compiled("javascript", description))
    return [(device, sector) for device, sector in json.loads(_node(_READ, code, stream))]


def _compiled(language: str, description: str) -> str:
    """Return the description as a program; skip the test if there is no compiler."""
    if shutil.which("node") is None or not (_MODULES / "kaitai-struct-compiler").exists():
        pytest.skip(
            "no compiler of Kaitai Struct is installed: "
            "npm install --prefix build kaitai-struct-compiler kaitai-struct"
        )
    text = json.dumps(yaml.safe_load(description))
    return _node(_COMPILE, language, text=text)


def _node(script: str, *words: str | Path, text: str | None = None) -> str:
    done = subprocess.run(
        ["node", "-e", script, *map(str, words)], input=text, capture_output=True, text=True,
        check=False, env={**os.environ, "NODE_PATH": str(_MODULES)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def parsed(kind: type[Any], data: bytes) -> tuple[list[Item], int | None]:
    """Return what ``kind`` reads in ``data``, and the offset from which it reads nothing."""
    stream = kind.from_bytes(data)
    stream._read()
    return _Reading(stream).items()


def expected(events: list[Event], end: int | None) -> list[Item]:
    """Return the same of our events, up to ``end``."""
    return [
        item for event in events if end is None or event.offset < end for item in _of_event(event)
    ]


def _of_event(event: Event) -> Iterator[Item]:
    at = event.offset
    match event:
        case Header():
            yield at, "header", event.version
        case Configuration():
            parts = tuple((part.name, part.value) for part in event.subsections)
            yield at, "configuration", event.machine, parts
        case SectionHeader():
            # The name of a part is that of its start.
            begins = event.kind in (SectionType.START, SectionType.FULL)
            named = (event.section, event.instance, event.version) if begins else ()
            yield at, "section", int(event.kind), event.id, *named
        case Footer():
            yield at, "footer", event.id
        case CommandEvent():
            yield at, "command", event.command, event.data
        case Block():
            data = None if event.data is None else (event.data.offset, event.data.length)
            bitmaps = tuple(
                (part.name, part.granularity, part.attributes, part.bits.offset, part.bits.length)
                for part in event.bitmaps
            )
            yield at, "block", event.device, event.sector, event.flags, data, bitmaps
        case Progress():
            yield at, "word", event.percent, event.flags
        case Eos():
            yield at, "word", event.value >> 9, event.value & 0x1FF
        case BitmapChunk():
            names = event.device, event.bitmap
            yield at, "chunk", event.flags, event.extra_flags, *names, _body(event)
        case BitmapEos():
            yield at, "chunk", event.flags, event.extra_flags
        case Ram():
            blocks = tuple((block.name, block.length) for block in event.blocks)
            data = None if event.data is None else (event.data.offset, event.data.length)
            yield (
                at,
                "ram",
                event.offset_in_block,
                event.flags,
                event.block,
                event.head,
                data,
                blocks,
            )
        case DeviceState():
            yield at, "state", event.length
        case Eof():
            yield at, "eof"
        case VmDescription():
            yield at, "description", event.payload.length
        case Undecoded():
            yield at, "undecoded", event.length
        case _:
            raise AssertionError(event)


def _body(event: BitmapChunk) -> Item:
    if isinstance(event, BitmapStart):
        return event.granularity, event.attributes
    if isinstance(event, BitmapBits):
        bits = None if event.bits is None else (event.bits.offset, event.bits.length)
        return event.sector, event.sectors, bits
    return ()


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _value(field: Any) -> str:
    return _text(field.value)


def _span(thing: Any, field: str) -> tuple[int, int]:
    place = thing._debug[field]
    return place["start"], place["end"] - place["start"]


class _Reading:
    """Walks through what Kaitai has read; keeps the names that chunks of bitmaps leave out."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._names = ["", ""]
        self._end: int | None = None

    def items(self) -> tuple[list[Item], int | None]:
        found = list(self._all())
        return found, self._end

    def _all(self) -> Iterator[Item]:
        stream = self._stream
        if not stream.is_container:
            yield from self._records(stream.records)
        else:
            yield 0, "header", stream.header.version
            if stream.has_footers:
                yield self._configuration(stream.configuration)
            for thing, place in zip(stream.objects, stream._debug["objects"]["arr"], strict=True):
                yield from self._object(thing, place["start"])
            if hasattr(stream, "description"):
                at, _ = _span(stream, "description")
                yield at, "description", stream.description.head.length
        if stream.behind:
            assert self._end is None
            yield *_span(stream, "behind")[:1], "undecoded", len(stream.behind)

    def _configuration(self, found: Any) -> Item:
        parts = []
        for part in getattr(found, "subsections", []):
            if hasattr(part, "target_page_bits"):
                value: Any = part.target_page_bits.bits
            elif hasattr(part, "capabilities"):
                value = tuple(map(_value, part.capabilities.names))
            else:
                value = part.uuid.uuid
            parts.append((_value(part.head.name), value))
        return 8, "configuration", _text(found.machine), tuple(parts)

    def _object(self, thing: Any, at: int) -> Iterator[Item]:
        kind = int(thing.kind)
        if thing.is_start:
            head = thing.start
            yield at, "section", kind, head.id, _value(head.name), head.instance, head.version
        elif thing.is_part:
            yield at, "section", kind, thing.reference.id
        elif hasattr(thing, "reference"):
            yield at, "footer", thing.reference.id
        elif hasattr(thing, "command"):
            yield at, "command", int(thing.command.head.command), thing.command.data
        elif hasattr(thing, "eof"):
            yield at, "eof"
        if hasattr(thing, "blocks"):
            yield from self._records(thing.blocks)
        elif hasattr(thing, "bitmaps"):
            yield from self._chunks(thing.bitmaps)
        elif hasattr(thing, "ram"):
            yield from self._ram(thing.ram)
        elif hasattr(thing, "state"):
            yield _span(thing, "state")[0], "state", thing.state.size
        elif hasattr(thing, "undecoded"):
            at, length = _span(thing, "undecoded")
            yield at, "undecoded", length

    def _records(self, payload: Any) -> Iterator[Item]:
        for record, place in zip(payload.records, payload._debug["records"]["arr"], strict=True):
            at, word = place["start"], record.word
            flags = sum(int(flag) for flag in BlockFlag if getattr(word, str(flag.name).lower()))
            flags |= word.unknown_7 << 7 | word.unknown_8 << 8
            if record.is_undecoded:
                self._end = at
                return
            if not word.device_block:
                yield at, "word", word.upper, flags
                continue
            data = _span(record, "data") if record.has_data else None
            bitmaps = tuple(
                (
                    _value(part.head.name),
                    part.head.granularity,
                    part.head.flags,
                    *_span(part, "bits"),
                )
                for part in getattr(record, "bitmaps", ())
            )
            yield at, "block", _value(record.name.device), record.sector, flags, data, bitmaps

    def _chunks(self, payload: Any) -> Iterator[Item]:
        for chunk, place in zip(payload.chunks, payload._debug["chunks"]["arr"], strict=True):
            extra = [
                getattr(chunk, name).flags
                for name in ("first_flags", "second_flags")
                if hasattr(chunk, name)
            ]
            if hasattr(chunk, "third_flags"):
                extra.append(chunk.third_flags.flags >> 8)
            else:
                extra.pop()
            for number, name in enumerate(("device", "bitmap")):
                if hasattr(chunk, name):
                    self._names[number] = _value(getattr(chunk, name).name)
            head = place["start"], "chunk", chunk.flags, bytes(extra)
            body: Item = ()
            if chunk.is_start:
                body = chunk.start.granularity, chunk.start.flags
            elif chunk.is_bits:
                bits = None if chunk.is_clean else _span(chunk, "bits")
                body = chunk.range.sector, chunk.range.sectors, bits
            elif not chunk.is_complete:
                yield head
                continue
            yield *head, *self._names, body

    def _ram(self, payload: Any) -> Iterator[Item]:
        for record, place in zip(payload.records, payload._debug["records"]["arr"], strict=True):
            flag = RamFlag(int(record.kind))
            block = _value(record.block.block) if hasattr(record, "block") else None
            name = str(flag.name).lower()
            head: Item = ()
            if hasattr(record, name):
                fields = getattr(record, name)
                head = tuple(getattr(fields, field) for field in fields.SEQ_FIELDS)
            data = _span(record, f"{name}_data") if hasattr(record, f"{name}_data") else None
            blocks = tuple(
                (_value(part.entry.block), part.entry.length)
                for part in getattr(record, "entries", ())
            )
            offset = record.word.word - record.flags
            yield place["start"], "ram", offset, record.flags, block, head, data, blocks
