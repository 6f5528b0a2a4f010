"""The fields of a spec's records: conversion between values of events and JSON, both ways.

A ``Kind`` converts a value of an event to JSON and back; for invalid JSON it raises ValueError, to
which the caller adds the record and the field.
"""

import base64
import binascii
from collections.abc import Callable
from enum import IntFlag
from typing import Any

from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas.constants import BitmapFlag, BlockFlag, RamFlag
from blkmig_cli.text import brief
from blkmig_cli.transport.payloads import FileRange, Fill, literal
from blkmig_cli.wire.events import BlockBitmap, Payload, RamBlock, Subsection

#: Converts a payload to JSON, with its bytes or a reference to them.
ShowPayload = Callable[[Payload], Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: ``show`` converts it to JSON, ``read`` converts it back."""

    show: Callable[[Any, ShowPayload], Any]
    read: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A key of a record, the event's attribute, its kind, and its default if omitted."""

    key: str
    attribute: str
    kind: Kind
    default: Any = ...


def _plain(read: Callable[[Any], Any]) -> Kind:
    return Kind(lambda value, _: value, read)


def _int(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise ValueError(f"{brief(value)} is not a whole number from 0 to 2**64 - 1")
    return value


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{brief(value)} is not a string")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{brief(value)} is not a list")
    return value


def _dict(value: Any, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{brief(value)} is not an object")
    for key in value:
        if key not in keys:
            raise ValueError(
                f"{brief(key)} is not a field here; expected one of {', '.join(sorted(keys))}"
            )
    return value


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _bytes(value: Any) -> bytes:
    try:
        return bytes.fromhex(_str(value))
    except ValueError:
        raise ValueError(f"{brief(value)} is not hex") from None


def _payload(value: Any) -> Payload:
    keys = {"fill", "length", "base64", "hex", "file", "offset", "stated"}
    given = _dict(value, keys)
    stated = _int(given["stated"]) if "stated" in given else None
    if "fill" in given:
        byte, length = _int(given["fill"]), _int(given.get("length"))
        if byte > 255:
            raise ValueError(f"fill {byte} is not a byte")
        return Fill(0, length, stated, byte)
    if "base64" in given:
        try:
            return literal(base64.b64decode(_str(given["base64"]), validate=True), stated)
        except (binascii.Error, ValueError):
            raise ValueError("base64 is damaged") from None
    if "hex" in given:
        return literal(_bytes(given["hex"]), stated)
    if "file" in given:
        offset, length = _int(given.get("offset", 0)), _int(given.get("length"))
        return FileRange(offset, length, stated, _str(given["file"]))
    raise ValueError("a payload is fill and length, base64, hex, or file, offset and length")


def flags(kind: type[IntFlag]) -> Kind:
    """Return the kind of flags: a list of names, or a number where a bit has no name."""
    names = {(flag.name or "").lower().replace("_", "-"): int(flag) for flag in kind}
    known = sum(names.values())  # a plain int, so that ~ preserves unknown bits

    def show(value: int, _: ShowPayload) -> Any:
        if value & ~known:
            return int(value)
        return [name for name, bit in names.items() if value & bit]

    def read(value: Any) -> int:
        if isinstance(value, list):
            for name in value:
                if not isinstance(name, str) or name not in names:
                    raise ValueError(
                        f"{brief(name)} is not a flag; expected one of {', '.join(names)}"
                    )
            return sum({names[name] for name in value})
        return _int(value)

    return Kind(show, read)


INT = _plain(_int)
OPTIONAL_INT = _plain(_optional(_int))
NAME = _plain(_str)
OPTIONAL_NAME = _plain(_optional(_str))
HEX = Kind(lambda value, _: value.hex(), _bytes)
PAYLOAD = Kind(lambda value, show: show(value), _payload)
OPTIONAL_PAYLOAD = Kind(
    lambda value, show: None if value is None else show(value), _optional(_payload)
)
INTS = Kind(lambda value, _: list(value), lambda value: tuple(_int(item) for item in _list(value)))
BLOCK_FLAGS = flags(BlockFlag)
BITMAP_FLAGS = flags(BitmapFlag)
RAM_FLAGS = flags(RamFlag)


def _nested(make: Callable[..., Any], fields: list[Field]) -> Kind:
    """Return the kind of a list of objects, each with ``fields``."""

    def show(value: Any, payload: ShowPayload) -> Any:
        return [show_fields(item, fields, payload) for item in value]

    def read(value: Any) -> Any:
        return tuple(make(**read_fields(item, fields)) for item in _list(value))

    return Kind(show, read)


def show_fields(value: Any, fields: list[Field], payload: ShowPayload) -> dict[str, Any]:
    """Return the JSON of an object's fields without those that have their default."""
    shown = {}
    for field in fields:
        found = getattr(value, field.attribute)
        if field.default is ... or found != field.default:
            shown[field.key] = field.kind.show(found, payload)
    return shown


def read_fields(value: Any, fields: list[Field]) -> dict[str, Any]:
    """Return the attributes in a JSON object.

    Raises ValueError, naming the field.
    """
    given = _dict(value, {field.key for field in fields})
    found = {}
    for field in fields:
        if field.key in given:
            try:
                found[field.attribute] = field.kind.read(given[field.key])
            except ValueError as error:
                raise ValueError(f"{field.key}: {error}") from None
        elif field.default is ...:
            raise ValueError(f"{field.key}: is missing")
        else:
            found[field.attribute] = field.default
    return found


def _subsection_value(value: Any) -> int | tuple[str, ...] | bytes:
    if isinstance(value, list):
        return tuple(_str(item) for item in value)
    return _bytes(value) if isinstance(value, str) else _int(value)


SUBSECTIONS = _nested(
    Subsection,
    [
        Field("name", "name", NAME),
        Field("version", "version", INT, 1),
        Field(
            "value",
            "value",
            Kind(
                lambda value, _: (
                    value.hex()
                    if isinstance(value, bytes)
                    else list(value)
                    if isinstance(value, tuple)
                    else value
                ),
                _subsection_value,
            ),
        ),
    ],
)
BITMAPS = _nested(
    BlockBitmap,
    [
        Field("name", "name", NAME),
        Field("granularity", "granularity", OPTIONAL_INT, None),
        Field("attributes", "attributes", OPTIONAL_INT, None),
        Field("bits", "bits", PAYLOAD),
    ],
)
RAM_BLOCKS = _nested(
    RamBlock,
    [
        Field("name", "name", NAME),
        Field("length", "length", INT),
        Field("page-size", "page_size", OPTIONAL_INT, None),
        Field("address", "address", OPTIONAL_INT, None),
        Field("mapped", "mapped", _plain(lambda value: tuple(map(_int, _list(value)))), None),
        Field("pages", "pages", OPTIONAL_PAYLOAD, None),
    ],
)
