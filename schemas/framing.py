"""The container: QEMU's savevm stream (header, configuration, sections, commands, description).

Each object of the container opens with its type byte, so that a schema's size is the object's.
"""

from construct import (
    Bytes,
    Const,
    Construct,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Int32ub,
    Prefixed,
    PrefixedArray,
    Struct,
)

from .constants import MAGIC

#: A u8 length, then that many bytes, no terminator.  Bytes first: names on the wire may be anything.
CountedString = Prefixed(Int8ub, GreedyBytes)

FileHeader = Struct("magic" / Const(MAGIC, Int32ub), "version" / Int32ub)

#: The machine type follows, ``length`` bytes of it.
ConfigurationHead = Struct("type" / Int8ub, "length" / Int32ub)

#: After the machine type; the body follows, by name.
SubsectionHead = Struct("type" / Int8ub, "name" / CountedString, "version" / Int32ub)

#: Bodies of the configuration's subsections.  An unknown one cannot be sized.
SUBSECTION_BODIES: dict[bytes, Construct] = {
    b"configuration/target-page-bits": Struct("bits" / Int32ub),
    b"configuration/capabilities": Struct("names" / PrefixedArray(Int32ub, CountedString)),
    b"configuration/uuid": Struct("uuid" / Bytes(16)),
}

#: Section start (iterable state begins) and section full (a device's whole state).
SectionHead = Struct(
    "type" / Int8ub,
    "id" / Int32ub,
    "name" / CountedString,
    "instance" / Int32ub,
    "version" / Int32ub,
)

#: Section part, section end, and footer: the type byte and the section's id.
SectionReference = Struct("type" / Int8ub, "id" / Int32ub)

#: ``length`` bytes of data follow.
CommandHead = Struct("type" / Int8ub, "command" / Int16ub, "length" / Int16ub)

#: Data of command 7: the package's length; the package follows outside the command.
PackageLength = Struct("length" / Int32ub)

#: What a destination sends back after command 1; ``length`` bytes of data follow.
ReturnPathHead = Struct("type" / Int16ub, "length" / Int16ub)

#: Data of the message SHUT, a destination's last: 0 if it has loaded everything.
ReturnPathShut = Struct("status" / Int32ub)

#: ``length`` bytes of JSON text follow, up to the end of the stream.
DescriptionHead = Struct("type" / Int8ub, "length" / Int32ub)

#: A single type byte: the end of the sections.
TypeByte = Struct("type" / Int8ub)


def subsection_overhead(name: bytes) -> int:
    """Bytes that a vmstate subsection called ``name`` takes in a device's state beside its fields."""
    return len(SubsectionHead.build({"type": 0, "name": name, "version": 0}))
