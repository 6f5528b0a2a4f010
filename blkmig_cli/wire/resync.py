"""Finding the end of a payload of unknown size by its footer and a plausible byte after it.

Used for device state, and for sections that are not decoded (footers since QEMU 2.4,
migration/savevm.c: check_section_footer).
"""

import struct
from collections.abc import Callable, Container

from blkmig_cli.schemas.constants import Command, SectionType
from blkmig_cli.schemas.framing import SectionReference
from blkmig_cli.wire.recognition import HEADER
from blkmig_cli.wire.schema_io import Reader, build

FOOTER_SIZE: int = SectionReference.sizeof()
#: Bytes that ``plausible`` examines: a type, an id, and a name with its length.
LOOK_SIZE = 6 + 255
_WINDOW = 1 << 16


def footer_bytes(section_id: int) -> bytes:
    """Return the footer of a section."""
    return build(SectionReference, SectionType.FOOTER, section_id)


def plausible(data: bytes, known: Container[int]) -> bool:
    """Return whether ``data``, of any length, may be the bytes between two sections.

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
        name = (rest[5:] or b"x")[: rest[4] if len(rest) > 4 else 1]
        return bool(name) and all(0x20 <= byte < 0x7F for byte in name)
    if kind == SectionType.COMMAND:
        return len(rest) < 2 or struct.unpack(">H", rest[:2])[0] in set(Command)
    return False


def seek_footer(reader: Reader, section_id: int, known: Container[int], end: int | None) -> bool:
    """Move to the next footer of ``section_id`` before ``end``, else to ``end``; return whether found.

    ``known``: ids of the sections that have been started.
    """

    def followed(offset: int) -> bool:
        return offset == end or plausible(reader.source.peek_at(offset, LOOK_SIZE), known)

    return _seek(reader, footer_bytes(section_id), followed, end)


def seek_header(reader: Reader) -> bool:
    """Move to the next header of a stream, else to the input's end; return whether found."""

    def followed(offset: int) -> bool:
        kind = reader.source.peek_at(offset, 1)
        return kind == bytes([SectionType.CONFIGURATION]) or plausible(
            reader.source.peek_at(offset, LOOK_SIZE), ()
        )

    return _seek(reader, HEADER, followed, None)


def _seek(reader: Reader, wanted: bytes, followed: Callable[[int], bool], end: int | None) -> bool:
    """Move to the next ``wanted`` for which ``followed`` accepts the offset after it.

    Reads in windows of bounded size, so that memory does not grow with the payload.
    """
    source = reader.source
    while True:
        data = source.peek(_WINDOW)
        if end is not None:
            data = data[: max(end - source.offset, 0)]
        at = data.find(wanted)
        while at >= 0:
            if followed(source.offset + at + len(wanted)):
                reader.pass_over(at)
                return True
            at = data.find(wanted, at + 1)
        if len(data) < _WINDOW:
            reader.pass_over(len(data))
            return False
        reader.pass_over(_WINDOW - len(wanted) + 1)
