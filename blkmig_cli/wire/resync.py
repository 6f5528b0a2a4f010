"""Finding the end of a payload that nothing sizes: the footer with the right id, and a sane byte after it.

Used for device state without a description, and for sections unknown to us.  What was found this
way is always said in the event.
"""

import struct
from collections.abc import Container

from blkmig_cli.schemas.constants import Command, SectionType
from blkmig_cli.schemas.framing import SectionReference
from blkmig_cli.wire.schema_io import Reader

FOOTER_SIZE = SectionReference.sizeof()
_WINDOW = 1 << 16
# The longest look behind a footer: type, id, and a name with its length.
_LOOK = 6 + 255


def footer_bytes(section_id: int) -> bytes:
    """The footer of a section."""
    footer: bytes = SectionReference.build({"type": SectionType.FOOTER, "id": section_id})
    return footer


def plausible(data: bytes, known: Container[int]) -> bool:
    """Could ``data`` (what stands between sections, cut anywhere) begin something of the container?

    ``known``: ids of the sections that have been started.
    """
    if not data:
        return False
    kind, rest = data[0], data[1:]
    if kind == SectionType.EOF:
        return not rest or rest[0] == SectionType.VMDESCRIPTION
    if kind in (SectionType.PART, SectionType.END):
        return len(rest) < 4 or struct.unpack(">I", rest[:4])[0] in known
    if kind in (SectionType.START, SectionType.FULL):
        name = rest[5 : 5 + rest[4]] if len(rest) > 4 else b"x"
        return bool(name) and all(0x20 <= byte < 0x7F for byte in name)
    if kind == SectionType.COMMAND:
        return len(rest) < 2 or struct.unpack(">H", rest[:2])[0] in set(Command)
    return False


def seek_footer(reader: Reader, section_id: int, known: Container[int], end: int | None) -> bool:
    """Move to the next footer of ``section_id``, at most to ``end``; False: to the end instead.

    Reads on in windows of bounded size, so that memory does not follow the payload.
    """
    source, footer = reader.source, footer_bytes(section_id)
    while True:
        data = source.peek(_WINDOW)
        if end is not None:
            data = data[: max(end - source.offset, 0)]
        at = data.find(footer)
        while at >= 0:
            behind = source.peek_at(source.offset + at + FOOTER_SIZE, _LOOK)
            at_end = end is not None and source.offset + at + FOOTER_SIZE == end
            if at_end or plausible(behind, known):
                reader.pass_over(at)
                return True
            at = data.find(footer, at + 1)
        if len(data) < _WINDOW:
            reader.pass_over(len(data))
            return False
        reader.pass_over(_WINDOW - FOOTER_SIZE + 1)
