"""Writes docs/blkmig.lua, a dissector for Wireshark, from the schemas.

The structures, flags and numbers are from the schemas; the order in which structures follow one
another is from docs/blkmig.lua.in.

Usage: python docs/make_wireshark.py
"""

from enum import IntEnum, IntFlag
from pathlib import Path
from string import Template
from typing import Any

from make_kaitai import identifier, structure, structures, values

from blkmig_cli.schemas import block, framing, ram
from blkmig_cli.schemas.constants import BitmapFlag, BlockFlag, Command, RamFlag, SectionType

TARGET = Path(__file__).with_name("blkmig.lua")
ORDER = Path(__file__).with_name("blkmig.lua.in")


def field(found: dict[str, Any]) -> str:
    """Return a field of a structure: its name, and its size in bytes or that its length is counted."""
    if found.get("type") == "counted_string":
        count = f', "{found["repeat-expr"]}"' if "repeat" in found else ""
        return f'{{ "{found["id"]}", "counted"{count} }}'
    size = found["size"] if "size" in found else int(found["type"].removeprefix("u"))
    return f'{{ "{found["id"]}", {size} }}'


def flags(kind: type[IntFlag]) -> str:
    """Return the names of flags, by value."""
    named = ", ".join(f'{{ "{flag.name}", {flag:#04x} }}' for flag in kind)
    return f"    {kind.__name__} = {{ {named} }},"


def numbers(kind: type[IntEnum]) -> str:
    """Return the names of an enumeration, by number."""
    return ", ".join(f'[{int(member)}] = "{member.name}"' for member in kind)


def _subsections() -> str:
    lines = []
    for name, body in framing.SUBSECTION_BODIES.items():
        word = "elseif" if lines else "if"
        kind = identifier(name.decode())
        lines.append(f'        {word} head.name == "{name.decode()}" then')
        lines.append(f'            local body = reader:structure("{kind}")')
        fields = [part.name for part in body.subcons]
        if fields == ["bits"]:
            lines.append("            state.page_bits = body.bits")
        elif fields == ["names"]:
            lines.append("            if body.names_count > 0 then state.plain_ram = false end")
    return "\n".join([*lines, "        else return read.undecoded(reader, state) end"])


def _ram_heads() -> str:
    lines = []
    for flag, head in ram.RECORD_HEADS.items():
        reading = f'reader:structure("ram_{identifier(flag.name)}")'
        if "length" in [part.name for part in head.subcons]:
            reading = f"reader:take({reading}.length)"
        elif flag is RamFlag.PAGE:
            reading = "reader:take(page_size)"
        lines.append(f"        if kind == {flag:#04x} then {reading} end")
    return "\n".join(lines)


def document() -> str:
    """Return the dissector."""
    known = values()
    for kind in (BlockFlag, BitmapFlag, RamFlag, SectionType, Command):
        known |= {f"{kind.__name__}_{member.name}": f"{member:#04x}" for member in kind}
    available = structures() | {"record_word": structure(block, block.RecordWord, "")}
    known["subsections"], known["ram_heads"] = _subsections(), _ram_heads()
    pages = (f"kind == {flag:#04x}" for flag in ram.RECORD_HEADS)
    known["ram_has_page"] = f"({' or '.join(pages)})"
    known["flags"] = "\n".join(map(flags, (BlockFlag, BitmapFlag, RamFlag)))
    order = ORDER.read_text()
    text = order + known["subsections"] + known["ram_heads"]
    used = [name for name in available if f'structure("{name}")' in text]
    known["structures"] = "\n".join(
        f"    {name} = {{ {', '.join(map(field, available[name]['seq']))} }}," for name in used
    )
    known["section_types"] = numbers(SectionType)
    typed = [
        f'    ["{name}.type"] = section_types,'
        for name in used
        if any(part.get("enum") == "section_type" for part in available[name]["seq"])
    ]
    commands = f'    ["command_head.command"] = {{ {numbers(Command)} }},'
    known["names"] = "\n".join([*typed, commands])
    return Template(order).substitute(known)


if __name__ == "__main__":
    TARGET.write_text(document())
