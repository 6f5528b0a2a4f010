"""Writes docs/format.md from the schemas: their docstrings, enums, structures and comments.

Usage: python docs/make_format.py
"""

import inspect
import re
from enum import IntEnum
from pathlib import Path
from types import ModuleType

from construct import (
    Bytes,
    Const,
    Construct,
    FormatField,
    GreedyBytes,
    Prefixed,
    Renamed,
    Struct,
)

from blkmig_cli.schemas import block, constants, dialects, dirty_bitmap, framing, libvirt, ram
from blkmig_cli.schemas.constants import BlockFlag
from blkmig_cli.schemas.dialects import DIALECTS

TARGET = Path(__file__).with_name("format.md")
_NUMBERS = {"B": "u8", "H": "be16", "L": "be32", "I": "be32", "Q": "be64"}


def type_name(schema: Construct) -> str:
    """Return the name of a field's type in the format."""
    if isinstance(schema, Renamed):
        return type_name(schema.subcon)
    if isinstance(schema, FormatField):
        name = _NUMBERS[schema.fmtstr[1:]]
        return name if schema.fmtstr[0] == ">" else name.replace("be", "le")
    if schema is framing.CountedString:
        return "counted string (u8 length, bytes)"
    if isinstance(schema, Const):
        return f"{type_name(schema.subcon)}, always {schema.value:#x}"
    if isinstance(schema, Prefixed) and schema.subcon is GreedyBytes:
        return f"{type_name(schema.lengthfield)} length, bytes"
    if isinstance(schema, Bytes):
        return f"{schema.length} bytes"
    return "be32 count, counted strings"  # construct's PrefixedArray is a closure without a type


def structure(name: str, schema: Struct, comment: str) -> list[str]:
    """Return a structure as a heading, its comment, and a table of fields."""
    lines = [f"### {name}", ""]
    if comment:
        lines += [comment, ""]
    if schema.subcons:
        lines += ["| field | type |", "| --- | --- |"]
        lines += [f"| {field.name} | {type_name(field)} |" for field in schema.subcons]
        lines.append("")
    else:
        lines += ["No fields.", ""]
    return lines


def comments(module: ModuleType) -> dict[str, str]:
    """Return the ``#:`` comments above a module's names."""
    found = {}
    pattern = re.compile(r"((?:^#: .*\n)+)^(\w+)", re.MULTILINE)
    for text, name in pattern.findall(inspect.getsource(module)):
        found[name] = " ".join(line[3:].strip() for line in text.splitlines())
    return found


def module_part(module: ModuleType) -> list[str]:
    """Return a schema module: its docstring, its structures in order, its rules."""
    doc = inspect.getdoc(module) or ""
    lines = [f"## {doc.splitlines()[0]}", "", *doc.splitlines()[2:], ""]
    known = comments(module)
    for name, value in vars(module).items():
        if isinstance(value, Struct):
            lines += structure(name, value, known.get(name, ""))
        elif isinstance(value, dict) and all(isinstance(item, Struct) for item in value.values()):
            lines += [f"{known.get(name, '')}", ""]
            for key, item in value.items():
                label = key.decode() if isinstance(key, bytes) else key.name
                lines += structure(f"{name}: {label}", item, "")
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__ and not name.startswith("_"):
            text = " ".join((inspect.getdoc(function) or "").split())
            code = inspect.getsource(function).rstrip()
            lines += [f"### Rule {name}", "", text, "", "```python", code, "```", ""]
    return lines


def constants_part() -> list[str]:
    """Return all enumerations, as tables."""
    lines = ["## Numbers", "", inspect.getdoc(constants) or "", ""]
    for _, kind in inspect.getmembers(constants, inspect.isclass):
        if issubclass(kind, IntEnum) or kind.__name__.endswith(("Flag", "Attribute")):
            if kind.__module__ != constants.__name__:
                continue
            doc = " ".join((inspect.getdoc(kind) or "").split())
            lines += [f"### {kind.__name__}", "", doc, "", "| name | value |", "| --- | --- |"]
            lines += [f"| {name} | {value:#04x} |" for name, value in kind.__members__.items()]
            lines.append("")
    numbers = {
        name: value
        for name, value in vars(constants).items()
        if name.isupper() and type(value) in (int, str)
    }
    lines += ["### Sizes and limits", "", "| name | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in numbers.items()]
    return [*lines, ""]


def dialects_part() -> list[str]:
    """Return which flags and pieces each dialect of the block record has."""
    lines = ["## Dialects", "", inspect.getdoc(dialects) or "", ""]
    lines += ["| dialect | flags | data follows | bitmaps |", "| --- | --- | --- | --- |"]
    for name, dialect in DIALECTS.items():
        if name == "qemu":
            continue
        flags = ", ".join(flag.name or "" for flag in BlockFlag if dialect.flags & flag)
        data = "always" if dialect.data_flag is None else f"with {dialect.data_flag.name}"
        bitmaps = (
            "none"
            if not dialect.flags & BlockFlag.HAS_BITMAPS
            else "before the data, with HAS_BITMAPS"
        )
        lines.append(f"| {name} | {flags} | {data}, but not with ZERO_BLOCK | {bitmaps} |")
    return [*lines, ""]


def document() -> str:
    """Return the whole page."""
    lines = [
        "# The wire formats",
        "",
        "Made by `make docs` from `schemas/`, which the decoder and the encoder use.",
        "Integers are big-endian (be) or, in libvirt's header, little-endian (le);",
        "a sector is 512 bytes, a chunk 1 MiB. Other terms: [glossary](glossary.md).",
        "[blkmig.ksy](blkmig.ksy) describes the stream for [Kaitai Struct](https://kaitai.io), whose",
        "compiler makes parsers of it in many languages, and whose Web IDE shows a file's structure;",
        "what it leaves out, it says itself. [blkmig.lua](blkmig.lua) is a dissector for Wireshark,",
        "which shows the stream in a capture of `migrate tcp:`.",
        "",
    ]
    for module in (framing, block):
        lines += module_part(module)
    lines += dialects_part()
    for module in (dirty_bitmap, ram, libvirt):
        lines += module_part(module)
    lines += constants_part()
    text = "\n".join(lines)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(document())
