"""Events as JSON objects: kebab-case keys, exact names (surrogates for invalid bytes)."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from blkmig_cli.output.run_lines import Lines, joined_lines
from blkmig_cli.schemas.constants import BitmapAttribute, BitmapFlag, BlockFlag, Command, RamFlag
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapChunk,
    BitmapEos,
    BitmapStart,
    Block,
    BlockBitmap,
    CommandEvent,
    Configuration,
    DeviceState,
    Eos,
    Event,
    Footer,
    Header,
    Payload,
    Progress,
    Ram,
    RamStretch,
    SectionHeader,
    Undecoded,
    VmDescription,
)
from blkmig_cli.wire.runs.columns import Bytes, Column, Numbers, Run
from blkmig_cli.wire.schema_io import Input

Json = dict[str, Any]
# Bitmaps of a record whose objects are made one by one.
_MANY = 1 << 7

_ENCODERS: dict[str, Callable[[memoryview], str]] = {
    "sha256": lambda view: hashlib.sha256(view).hexdigest(),
    "hex": lambda view: view.hex(),
    "base64": lambda view: base64.b64encode(view).decode(),
}


def flag_names(kind: type[BlockFlag] | type[BitmapFlag] | type[RamFlag], value: int) -> list[str]:
    """Return the set flags of ``value``, in kebab-case."""
    return [(flag.name or "").lower().replace("_", "-") for flag in kind if value & flag]


class EventJson:
    """Converts events to the objects of ``dump``; ``payload`` is none, sha256, hex or base64."""

    def __init__(self, source: Input, payload: str = "none") -> None:
        self._source = source
        self._encode = _ENCODERS.get(payload)
        self._key = payload

    def __call__(self, event: Event) -> Json:
        """Return the object of one event, which must be the decoder's current one."""
        found: Json = {
            "offset": event.offset,
            "length": event.length,
            "section": event.section,
            "type": event.type,
        }
        found.update(self._details(event))
        return found

    def text(self, event: Event) -> str:
        """Return the text of the object of one event.

        A record may have many bitmaps, whose objects would take ten times the memory of their text.
        """
        if not isinstance(event, Block) or len(event.bitmaps) < _MANY:
            return json.dumps(self(event))
        bitmaps = ", ".join(json.dumps(self._bitmap(part)) for part in event.bitmaps)
        found = json.dumps(self(replace(event, bitmaps=())))
        return found.replace('"bitmaps": []', f'"bitmaps": [{bitmaps}]', 1)

    def _details(self, event: Event) -> Json:
        match event:
            case Block():
                return self._block(event)
            case Progress():
                return {"percent": event.percent} | _flags(BlockFlag, event.flags)
            case Eos():
                return {"value": event.value}
            case SectionHeader():
                return {"id": event.id, "instance": event.instance, "version": event.version}
            case Footer():
                return {"id": event.id}
            case Header():
                return {"version": event.version}
            case Configuration():
                return _configuration(event)
            case CommandEvent():
                found: Json = {"command": Command(event.command).name.lower().replace("_", "-")}
                found |= {"command-value": event.command, "data": event.data.hex()}
                return found if event.package is None else found | {"package": event.package}
            case BitmapChunk():
                return self._bitmap_chunk(event)
            case BitmapEos():
                return _flags(BitmapFlag, event.flags)
            case Ram():
                return {"block": event.block, "address": event.offset_in_block} | _flags(
                    RamFlag, event.flags
                )
            case RamStretch():
                return {"records": event.records}
            case DeviceState():
                return {"sized-by": event.sized_by} | self._whole(event)
            case Undecoded():
                return {"reason": event.reason} | self._whole(event)
            case VmDescription():
                return self._payload(event.payload)
        return {}

    def _block(self, event: Block) -> Json:
        zero = event.flags & BlockFlag.ZERO_BLOCK
        data = "payload" if event.data is not None else "zero" if zero else "none"
        found: Json = {"device": event.device, "sector": event.sector, "sectors": event.sectors}
        if event.sectors_min != event.sectors:
            found["sectors-min"] = event.sectors_min
        found |= _flags(BlockFlag, event.flags)
        found |= {"data": data, "bitmaps": [self._bitmap(part) for part in event.bitmaps]}
        return found if event.data is None else found | self._payload(event.data)

    def _bitmap(self, part: BlockBitmap) -> Json:
        bits = self._source.view(part.bits)
        dirty = int.from_bytes(bits, "little").bit_count()
        found: Json = {
            "name": part.name,
            "granularity": part.granularity,
            "count": None if part.granularity is None else dirty * part.granularity,
            "length": part.bits.length,
        }
        if part.attributes is not None:
            found |= _attributes(part.attributes)
        return found | self._payload(part.bits)

    def _bitmap_chunk(self, event: BitmapChunk) -> Json:
        found: Json = {"device": event.device, "bitmap": event.bitmap}
        found |= _flags(BitmapFlag, event.flags)
        if isinstance(event, BitmapStart):
            found |= {"granularity": event.granularity} | _attributes(event.attributes)
        elif isinstance(event, BitmapBits):
            found |= {"sector": event.sector, "sectors": event.sectors}
            if event.bits is not None:
                bits = self._source.view(event.bits)
                dirty = int.from_bytes(bits, "little").bit_count()
                found |= {"count": dirty * event.granularity, "bits-length": event.bits.length}
                found |= self._payload(event.bits)
            else:
                found |= {"count": 0, "bits-length": 0}
        return found

    def _whole(self, event: Event) -> Json:
        """Return the bytes of an event as a payload."""
        return self._payload(Payload(event.offset, event.length))

    def _payload(self, payload: Payload) -> Json:
        if self._encode is None:
            return {}
        return {self._key: self._encode(self._source.view(payload))}


def _flags(kind: type[BlockFlag] | type[BitmapFlag] | type[RamFlag], value: int) -> Json:
    return {"flags": flag_names(kind, value), "flags-value": value}


def _attributes(value: int) -> Json:
    return {
        "recording": bool(value & BitmapAttribute.ENABLED),
        "persistent": bool(value & BitmapAttribute.PERSISTENT),
        "attributes-value": value,
    }


def _configuration(event: Configuration) -> Json:
    found: Json = {"machine": event.machine}
    if event.target_page_bits is not None:
        found["target-page-bits"] = event.target_page_bits
    if event.capabilities is not None:
        found["capabilities"] = list(event.capabilities)
    if event.uuid is not None:
        found["uuid"] = event.uuid.hex()
    return found


# Dirty bits in a byte.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)


def run_texts(run: Run, as_json: Callable[[Any], Json], between: str = "\n") -> Iterator[str]:
    """Yield the texts of the events of ``run``, some joined by ``between``.

    ``as_json`` makes an object without payloads.
    """
    return joined_lines(run, [_texts(column, as_json) for column in run.columns], between)


def _texts(column: Column, as_json: Callable[[Any], Json]) -> Lines:
    event, found = column.event, as_json(column.event)
    numbers = {"offset": column.offsets}
    if column.numbers is not None:
        names = {Progress: "percent", Ram: "address"}
        numbers[names.get(type(event), "sector")] = column.numbers
    if column.counts is not None:
        numbers["sectors"] = column.counts
    if isinstance(event, BitmapBits) and column.bits:
        numbers["count"] = _dirty(column.bits[0]) * event.granularity
    shown: Json = {key: _Hole() if key in numbers else value for key, value in found.items()}
    values: list[Numbers] = [numbers[key] for key in found if key in numbers]
    if isinstance(event, Block):
        for part, bits in zip(found["bitmaps"], column.bits, strict=True):
            if part["granularity"] is not None:
                part["count"] = _Hole()
                values.append(_dirty(bits) * part["granularity"])
    return Lines(_pattern(shown), values)


class _Hole:
    """A place at which each event has its own number."""


def _pattern(value: Any) -> str:
    """Return ``json.dumps`` of ``value`` as a pattern for ``%``, with a number for every hole."""
    if isinstance(value, _Hole):
        return "%d"
    if isinstance(value, dict):
        items = (f"{_pattern(key)}: {_pattern(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_pattern, value)) + "]"
    return json.dumps(value).replace("%", "%%")


def _dirty(bits: Bytes) -> Numbers:
    """Return the number of dirty bits in each row of ``bits``."""
    found: Numbers = _BITS[bits].sum(axis=1, dtype=np.int64)
    return found
