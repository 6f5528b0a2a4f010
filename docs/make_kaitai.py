"""Writes docs/blkmig.ksy, a description of the stream for Kaitai Struct, from the schemas.

The structures, enumerations and flags are from the schemas; the order in which structures follow
one another, which the decoder knows, is from docs/blkmig.ksy.in.

Usage: python docs/make_kaitai.py
"""

import re
from enum import IntEnum, IntFlag
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Any

import yaml
from construct import (
    Bytes,
    Const,
    Construct,
    FocusedSeq,
    FormatField,
    GreedyBytes,
    Prefixed,
    Rebuild,
    Renamed,
    Struct,
)
from make_format import comments

from blkmig_cli.schemas import block, constants, dirty_bitmap, framing, ram
from blkmig_cli.schemas.constants import (
    BLOCK_FLAG_BITS,
    BitmapAttribute,
    BitmapFlag,
    BlockFlag,
    Command,
    RamFlag,
    SectionType,
)

TARGET = Path(__file__).with_name("blkmig.ksy")
ORDER = Path(__file__).with_name("blkmig.ksy.in")
_MODULES = (framing, block, dirty_bitmap, ram)
_NUMBERS = {"B": "u1", "H": "u2", "L": "u4", "I": "u4", "Q": "u8"}
# Fields whose numbers are named, and fields of flags.
_ENUMS: dict[tuple[ModuleType, str, str], type[IntEnum]] = {
    (framing, "type", "u1"): SectionType,
    (framing, "command", "u2"): Command,
}
_FLAGS: dict[Construct, type[IntFlag]] = {
    dirty_bitmap.ChunkFlags: BitmapFlag,
    dirty_bitmap.MoreFlags: BitmapFlag,
    dirty_bitmap.Start: BitmapAttribute,
    block.V2BitmapHead: BitmapAttribute,
}

Mapping = dict[str, Any]


def identifier(name: str) -> str:
    """Return a name of the code or of the format as Kaitai spells it: lower case, with underscores."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"\W+", "_", parted).lower()


def literal(name: bytes) -> str:
    """Return bytes as an expression."""
    return f"[{', '.join(f'{byte:#04x}' for byte in name)}]"


def number(schema: FormatField) -> str:
    """Return the type of a big-endian integer."""
    order, kind = schema.fmtstr
    assert order == ">"
    return _NUMBERS[kind]


def fields(name: str, schema: Construct) -> list[Mapping]:
    """Return the fields that ``schema``, named ``name``, consists of.

    Raises TypeError for a kind of schema that has no equivalent here.
    """
    if isinstance(schema, Renamed | Rebuild):
        return fields(name, schema.subcon)
    if schema is framing.CountedString:
        return [{"id": name, "type": "counted_string"}]
    if isinstance(schema, FormatField):
        return [{"id": name, "type": number(schema)}]
    if isinstance(schema, Const):
        (field,) = fields(name, schema.subcon)
        return [field | {"valid": schema.value}]
    if isinstance(schema, Bytes):
        return [{"id": name, "size": schema.length}]
    if isinstance(schema, FocusedSeq):  # construct's PrefixedArray
        count, items = schema.subcons
        (element,) = fields(name, items.subcon.subcon)
        repeated = {"repeat": "expr", "repeat-expr": f"{name}_count"}
        return [*fields(f"{name}_count", count), element | repeated]
    raise TypeError(f"{name}: {schema} has no equivalent in Kaitai Struct")


def structure(module: ModuleType, schema: Struct, comment: str) -> Mapping:
    """Return a structure as a type."""
    found: Mapping = {"doc": comment} if comment else {}
    found["seq"] = []
    for part in schema.subcons:
        for field in fields(part.name, part):
            kind = _ENUMS.get((module, field["id"], field.get("type", "")))
            found["seq"].append(field | ({"enum": identifier(kind.__name__)} if kind else {}))
    flags = _FLAGS.get(schema)
    if flags is not None:
        found["instances"] = {
            flag.name.lower(): {"value": f"flags & {flag:#04x} != 0"} for flag in flags
        }
    return found


def record_word() -> Mapping:
    """Return the word of a block record as bits.

    Not as one number: programs in JavaScript have no bit operations on 64 bits.
    """
    (field,) = block.RecordWord.subcons
    assert number(field.subcon) == "u8"
    high, low = 32, 32 - BLOCK_FLAG_BITS
    named = {flag.bit_length() - 1: flag.name.lower() for flag in BlockFlag}
    bits = [
        {"id": named.get(bit, f"unknown_{bit}"), "type": "b1"}
        for bit in reversed(range(BLOCK_FLAG_BITS))
    ]
    upper = [{"id": "upper_high", "type": f"b{high}"}, {"id": "upper_low", "type": f"b{low}"}]
    return {
        "doc": comments(block)["RecordWord"].partition(":")[0],
        "seq": [*upper, *bits],
        "instances": {
            "upper": {
                "value": f"upper_high.as<u8> * {1 << low} + upper_low",
                "doc": "A sector, or a percentage.",
            }
        },
    }


def structures() -> Mapping:
    """Return all structures of the schemas, by name."""
    prefix = framing.CountedString
    assert isinstance(prefix, Prefixed)
    assert prefix.subcon is GreedyBytes
    length = {"id": "length", "type": number(prefix.lengthfield)}
    found: Mapping = {
        "counted_string": {"seq": [length, {"id": "value", "size": "length"}]},
        "record_word": record_word(),
    }
    for module in _MODULES:
        known = comments(module)
        for name, value in vars(module).items():
            if isinstance(value, Struct) and value is not block.RecordWord:
                found[identifier(name)] = structure(module, value, known.get(name, ""))
    for name, body in framing.SUBSECTION_BODIES.items():
        found[identifier(name.decode())] = structure(framing, body, "")
    for flag, head in ram.RECORD_HEADS.items():
        found[f"ram_{identifier(flag.name)}"] = structure(ram, head, "")
    return found


def enumeration(kind: type[IntEnum] | type[IntFlag]) -> Mapping:
    """Return an enumeration's names, by number."""
    # CONTINUE accompanies others, and is a keyword of many languages.
    return {int(member): member.name.lower() for member in kind if member is not RamFlag.CONTINUE}


def _subsections() -> dict[str, str]:
    """Return the bodies of the configuration's subsections, as the order needs them."""
    lines, names = [], []
    for name in framing.SUBSECTION_BODIES:
        kind, condition = identifier(name.decode()), f"head.name.value == {literal(name)}"
        field = kind.removeprefix("configuration_")
        lines += [f"      - id: {field}", f"        type: {kind}", f"        if: {condition}"]
        names.append(condition)
    return {"subsection_bodies": "\n".join(lines), "subsection_is_known": " or ".join(names)}


def _ram_heads() -> dict[str, str]:
    """Return what follows the block's name in a record of RAM, as the order needs it."""
    lines = []
    for flag, head in ram.RECORD_HEADS.items():
        name, condition = flag.name.lower(), f"kind == ram_flag::{flag.name.lower()}"
        if head.subcons:
            lines += [f"      - id: {name}", f"        type: ram_{name}"]
            lines.append(f"        if: {condition}")
        length = "page_size" if flag is RamFlag.PAGE else f"{name}.length"
        if flag is RamFlag.PAGE or "length" in [field.name for field in head.subcons]:
            lines += [f"      - id: {name}_data", f"        size: {length}"]
            lines.append(f"        if: {condition}")
    pages = " or ".join(f"kind == ram_flag::{flag.name.lower()}" for flag in ram.RECORD_HEADS)
    return {"ram_heads": "\n".join(lines), "ram_has_page": pages}


def values() -> dict[str, str]:
    """Return the numbers and expressions that the order refers to, by name."""
    found = {
        name: str(value) for name, value in vars(constants).items() if type(value) in (int, str)
    }
    for kind in (BitmapFlag, RamFlag):
        found |= {f"{kind.__name__}_{flag.name}": f"{flag:#04x}" for flag in kind}
    names = (constants.BLOCK_SECTION, constants.DIRTY_BITMAP_SECTION, constants.RAM_SECTION)
    found |= {f"{identifier(name)}_name": literal(name.encode()) for name in names}
    for name in framing.SUBSECTION_BODIES:
        found[identifier(name.decode().partition("/")[2])] = literal(name)
    found["header_size"] = str(framing.FileHeader.sizeof())
    found["page_bits_default"] = str(constants.PAGE_SIZE_DEFAULT.bit_length() - 1)
    return found | _subsections() | _ram_heads()


def document() -> str:
    """Return the description."""
    order = Template(ORDER.read_text()).substitute(values())
    available = structures()
    used = {name for name in available if re.search(rf"\btype: {name}$", order, re.MULTILINE)}
    used |= {
        field["type"]
        for name in used
        for field in available[name]["seq"]
        if field.get("type") in available
    }
    types = {name: value for name, value in available.items() if name in used}
    enums = {
        identifier(kind.__name__): enumeration(kind) for kind in (SectionType, Command, RamFlag)
    }
    made = yaml.safe_dump(types, sort_keys=False, width=96)
    return (
        order
        + "  # -- generated from schemas/\n"
        + re.sub("^(?=.)", "  ", made, flags=re.MULTILINE)
        + yaml.safe_dump({"enums": enums}, sort_keys=False)
    )


if __name__ == "__main__":
    TARGET.write_text(document())
