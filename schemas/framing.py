"""The container: QEMU's savevm stream (header, configuration, sections, commands, description).

Source: QEMU 7.2, migration/savevm.c (qemu_loadvm_state, qemu_loadvm_state_main).  The schema of each
object includes its type byte, so that a schema's size is the object's.
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

#: A u8 length, then that many bytes, no terminator.  As bytes: names may be invalid UTF-8.
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

#: Section start (iterable state begins) and section full (a device's complete state).
#: (QEMU 7.2, migration/savevm.c: qemu_loadvm_section_start_full)
SectionHead = Struct(
    "type" / Int8ub,
    "id" / Int32ub,
    "name" / CountedString,
    "instance" / Int32ub,
    "version" / Int32ub,
)

#: Section part, section end, and footer: the type byte and the section's id (QEMU 7.2,
#: migration/savevm.c: qemu_loadvm_section_part_end, check_section_footer).
SectionReference = Struct("type" / Int8ub, "id" / Int32ub)

#: ``length`` bytes of data follow.
CommandHead = Struct("type" / Int8ub, "command" / Int16ub, "length" / Int16ub)

#: Data of command 7: the package's length; the package follows outside the command.
PackageLength = Struct("length" / Int32ub)

#: A message of the destination on the return path, which command 1 opens; ``length`` bytes of data
#: follow.
ReturnPathHead = Struct("type" / Int16ub, "length" / Int16ub)

#: Data of the message SHUT, a destination's last: 0 if it has loaded everything.
ReturnPathShut = Struct("status" / Int32ub)

#: ``length`` bytes of JSON text follow, up to the end of the stream.
DescriptionHead = Struct("type" / Int8ub, "length" / Int32ub)

#: A single type byte: the end of the sections.
TypeByte = Struct("type" / Int8ub)


def subsection_overhead(name: bytes) -> int:
    """Return the bytes of a vmstate subsection called ``name`` without those of its fields."""
    return len(SubsectionHead.build({"type": 0, "name": name, "version": 0}))
