"""Conversion between events and records of a spec: the fields of each type of record.

A spec is JSON Lines: ``{"blkmig-spec": 1}``, then one record per line.
"""

import base64
from typing import Any

from blkmig_cli.errors import SpecError
from blkmig_cli.schemas.constants import BlockFlag, Command, SectionType
from blkmig_cli.spec import fields as f
from blkmig_cli.spec.fields import Field
from blkmig_cli.text import brief
from blkmig_cli.wire import events as e
from blkmig_cli.wire.schema_io import Input

VERSION = 1
KEY = "blkmig-spec"

_DEVICE = [Field("device", "device", f.NAME), Field("bitmap", "bitmap", f.NAME)]
_CHUNK_FLAGS = [
    Field("flags", "flags", f.BITMAP_FLAGS),
    Field("extra-flags", "extra_flags", f.HEX, b""),
]
_RANGE = [Field("sector", "sector", f.INT), Field("sectors", "sectors", f.INT)]
_ID = Field("id", "id", f.INT)
_STARTED = [
    Field("name", "section", f.NAME),
    _ID,
    Field("instance", "instance", f.INT, 0),
    Field("version", "version", f.INT),
]


def _command(value: Any) -> int:
    if isinstance(value, str):
        try:
            return Command[value.upper().replace("-", "_")]
        except KeyError:
            raise ValueError(f"{brief(value)} is not a command") from None
    number: int = f.INT.read(value)
    return number


_COMMAND = f.Kind(
    lambda value, _: (
        Command(value).name.lower().replace("_", "-") if value in set(Command) else value
    ),
    _command,
)

#: The event and the fields of every type of record.
FIELDS: dict[str, tuple[type[e.Event], list[Field]]] = {
    "header": (e.Header, [Field("version", "version", f.INT)]),
    "configuration": (
        e.Configuration,
        [
            Field("machine", "machine", f.NAME),
            Field("subsections", "subsections", f.SUBSECTIONS, ()),
        ],
    ),
    "section-start": (e.SectionHeader, _STARTED),
    "section-part": (e.SectionHeader, [_ID]),
    "section-end": (e.SectionHeader, [_ID]),
    "section-full": (e.SectionHeader, _STARTED),
    "section-footer": (e.Footer, [_ID]),
    "command": (
        e.CommandEvent,
        [Field("command", "command", _COMMAND), Field("data", "data", f.HEX, b"")],
    ),
    "eof": (e.Eof, []),
    "vm-description": (e.VmDescription, [Field("payload", "payload", f.PAYLOAD)]),
    "block": (
        e.Block,
        [
            Field("dialect", "dialect", f.OPTIONAL_NAME, None),
            Field("device", "device", f.NAME),
            Field("sector", "sector", f.INT),
            Field("sectors", "sectors", f.INT, 0),
            Field("flags", "flags", f.BLOCK_FLAGS),
            Field("bitmaps", "bitmaps", f.BITMAPS, ()),
            Field("data", "data", f.OPTIONAL_PAYLOAD, None),
        ],
    ),
    "progress": (
        e.Progress,
        [
            Field("percent", "percent", f.INT),
            Field("flags", "flags", f.BLOCK_FLAGS, BlockFlag.PROGRESS),
        ],
    ),
    "eos": (e.Eos, [Field("value", "value", f.INT, BlockFlag.EOS)]),
    "bitmap-start": (
        e.BitmapStart,
        [
            *_DEVICE,
            *_CHUNK_FLAGS,
            Field("granularity", "granularity", f.INT),
            Field("attributes", "attributes", f.INT),
        ],
    ),
    "bitmap-bits": (
        e.BitmapBits,
        [*_DEVICE, *_CHUNK_FLAGS, *_RANGE, Field("bits", "bits", f.OPTIONAL_PAYLOAD, None)],
    ),
    "bitmap-complete": (e.BitmapComplete, [*_DEVICE, *_CHUNK_FLAGS]),
    "bitmap-eos": (e.BitmapEos, _CHUNK_FLAGS),
    "ram": (
        e.Ram,
        [
            Field("flags", "flags", f.RAM_FLAGS),
            Field("address", "offset_in_block", f.INT, 0),
            Field("block", "block", f.OPTIONAL_NAME, None),
            Field("head", "head", f.INTS, ()),
            Field("blocks", "blocks", f.RAM_BLOCKS, ()),
            Field("data", "data", f.OPTIONAL_PAYLOAD, None),
        ],
    ),
    "device-state": (e.Raw, [Field("payload", "payload", f.PAYLOAD)]),
    "undecoded": (e.Raw, [Field("payload", "payload", f.PAYLOAD)]),
    "raw": (e.Raw, [Field("payload", "payload", f.PAYLOAD)]),
}

_KINDS = {name: kind for kind, name in e.SECTION_NAMES.items()}
_SMALL = 64


class RecordWriter:
    """Converts events of the stream in ``source`` to records.

    ``reference``: the file to reference for payloads over 64 bytes, None to write them as base64.
    """

    def __init__(self, source: Input, reference: str | None) -> None:
        self._source = source
        self._reference = reference

    def __call__(self, event: e.Event) -> dict[str, Any]:
        """Return the record of one event, which must be the decoder's current one."""
        record: dict[str, Any] = {"type": event.type}
        if isinstance(event, e.DeviceState | e.Undecoded):
            whole = e.Payload(event.offset, event.length)
            return record | {"payload": self._payload(whole)}
        shown = f.show_fields(event, FIELDS[event.type][1], self._payload)
        if isinstance(event, e.Block) and not event.flags & BlockFlag.HAS_BITMAPS:
            shown.pop("sectors", None)  # not on the wire
        return record | shown

    def _payload(self, payload: e.Payload) -> dict[str, Any]:
        view = self._source.view(payload)
        if len(view) and view == _filled(view[0], len(view)):
            return {"fill": view[0], "length": len(view)}
        if self._reference is not None and len(view) > _SMALL:
            place = {"offset": payload.offset, "length": payload.length}
            return {"file": self._reference, **place}
        return {"base64": base64.b64encode(view).decode()}


def read_record(record: Any, where: str) -> e.Event:
    """Return the event that a record describes; ``where`` is its place in the spec.

    Raises SpecError, naming place and field.
    """
    try:
        if not isinstance(record, dict):
            raise ValueError("a record is an object")
        given = dict(record)
        kind = given.pop("type", None)
        if not isinstance(kind, str) or kind not in FIELDS:
            raise ValueError(f"type: {brief(kind)} is unknown; known are {', '.join(FIELDS)}")
        made, fields = FIELDS[kind]
        attributes = f.read_fields(given, fields)
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from None
    attributes.setdefault("section", None)
    if made is e.SectionHeader:
        attributes["kind"] = SectionType(_KINDS[kind])
        attributes.setdefault("instance", 0)
        attributes.setdefault("version", 0)
    elif made is e.Block:
        attributes["sectors_min"] = attributes["sectors"]
    elif made is e.BitmapBits:
        attributes["granularity"] = 0  # not on the wire
    return made(offset=0, length=0, **attributes)


_FILLS: dict[tuple[int, int], bytes] = {}


def _filled(byte: int, length: int) -> bytes:
    """Return ``length`` times ``byte``; recent results are cached, as streams repeat them."""
    key = (byte, length)
    if key not in _FILLS:
        if len(_FILLS) >= 8:
            _FILLS.clear()
        _FILLS[key] = bytes([byte]) * length
    return _FILLS[key]
