"""What a stream consists of: the events that the decoder gives, and everything else takes.

Events are disjoint and contiguous: each begins where the one before ended.  An event is given only
when its bytes are all there.  Offsets and lengths are bytes of the uncompressed stream; sectors are
512 bytes; names are text with undecodable bytes kept as surrogates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from blkmig_cli.schemas.constants import BlockFlag, SectionType

# As a plain number: operations on enums are slow.
_ZERO_BLOCK = int(BlockFlag.ZERO_BLOCK)


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes of the stream that an event describes but does not hold.

    ``stated`` is the length that the wire says, where it is not the real one: only in events that
    are wrong on purpose.  Other kinds of payload, for events not read from a stream, are in
    ``transport/payloads.py``.
    """

    offset: int
    length: int
    stated: int | None = None

    @property
    def on_wire(self) -> int:
        """The length that the wire says."""
        return self.length if self.stated is None else self.stated


@dataclass(frozen=True, slots=True)
class Event:
    """Common to all: where it stands, and the section it belongs to (None: the container itself)."""

    type: ClassVar[str]
    offset: int
    length: int
    section: str | None


@dataclass(frozen=True, slots=True)
class Header(Event):
    """The stream's magic and version."""

    type = "header"
    version: int


@dataclass(frozen=True, slots=True)
class Subsection:
    """A subsection of the configuration; ``value`` is a number, names, or bytes, as its body says."""

    name: str
    version: int
    value: int | tuple[str, ...] | bytes


@dataclass(frozen=True, slots=True)
class Configuration(Event):
    """Machine type, and the subsections in their order."""

    type = "configuration"
    machine: str
    subsections: tuple[Subsection, ...] = ()

    @property
    def target_page_bits(self) -> int | None:
        """Log2 of the page size, if it is there."""
        return next((part.value for part in self.subsections if isinstance(part.value, int)), None)

    @property
    def capabilities(self) -> tuple[str, ...] | None:
        """The capabilities, if they are there."""
        return next(
            (part.value for part in self.subsections if isinstance(part.value, tuple)), None
        )

    @property
    def uuid(self) -> bytes | None:
        """The machine's UUID, if it is there."""
        return next(
            (part.value for part in self.subsections if isinstance(part.value, bytes)), None
        )


SECTION_NAMES = {
    SectionType.START: "section-start",
    SectionType.PART: "section-part",
    SectionType.END: "section-end",
    SectionType.FULL: "section-full",
}


@dataclass(frozen=True, slots=True)
class SectionHeader(Event):
    """A section's head; instance and version are those of the section's start."""

    kind: SectionType
    id: int
    instance: int
    version: int

    @property
    def type(self) -> str:  # type: ignore[override]
        """``section-start``, ``section-part``, ``section-end`` or ``section-full``."""
        return SECTION_NAMES[self.kind]


@dataclass(frozen=True, slots=True)
class Footer(Event):
    """The footer after a section's payload."""

    type = "section-footer"
    id: int


@dataclass(frozen=True, slots=True)
class CommandEvent(Event):
    """A command to the destination; for a package, ``package`` is its length in bytes."""

    type = "command"
    command: int
    data: bytes
    package: int | None = None


@dataclass(frozen=True, slots=True)
class Eof(Event):
    """The end of the sections."""

    type = "eof"


@dataclass(frozen=True, slots=True)
class StateMismatch:
    """Device state at byte ``offset``: its length, and the one in the description, in bytes."""

    offset: int
    section: str
    length: int
    described: int


@dataclass(frozen=True, slots=True)
class VmDescription(Event):
    """The JSON description of the devices' state.

    ``confirmed``: offsets of the DeviceState events whose length is the one in the description;
    ``mismatches``: those of another length.
    """

    type = "vm-description"
    payload: Payload
    confirmed: frozenset[int] = frozenset()
    mismatches: tuple[StateMismatch, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockBitmap:
    """A bitmap's part in a block record.

    ``granularity`` in bytes, None where a v1 layout leaves it open; ``attributes`` the flags of
    v2, None in v1.  ``bits`` of length 0 (v2) says that the range is clean.
    """

    name: str
    granularity: int | None
    attributes: int | None
    bits: Payload


@dataclass(frozen=True, slots=True)
class Block(Event):
    """A DEVICE_BLOCK record.

    ``sectors`` is what the record covers: 2048 but for a last chunk whose length is known; in v1
    with the disk's size unknown, ``sectors_min`` is the least that fits the record's length.
    ``dialect`` is None for a bare zero block, which all dialects share.
    """

    type = "block"
    device: str
    sector: int
    sectors: int
    sectors_min: int
    flags: int
    dialect: str | None
    data: Payload | None
    bitmaps: tuple[BlockBitmap, ...]

    @property
    def has_content(self) -> bool:
        """Whether the record holds what its chunk contains: data or zeros, not bitmaps alone."""
        return self.data is not None or bool(self.flags & _ZERO_BLOCK)


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """A PROGRESS record; ``flags`` may hold EOS as well."""

    type = "progress"
    percent: int
    flags: int


@dataclass(frozen=True, slots=True)
class Eos(Event):
    """An EOS record of its own, in ``block``; upper bits are kept in ``value``."""

    type = "eos"
    value: int


@dataclass(frozen=True, slots=True)
class BitmapChunk(Event):
    """Common to the chunks of the ``dirty-bitmap`` section.

    ``flags`` is what counts; ``extra_flags`` the flag bytes before it, which QEMU never writes.
    """

    device: str
    bitmap: str
    flags: int
    extra_flags: bytes


@dataclass(frozen=True, slots=True)
class BitmapStart(BitmapChunk):
    """A bitmap begins; granularity in bytes."""

    type = "bitmap-start"
    granularity: int
    attributes: int


@dataclass(frozen=True, slots=True)
class BitmapBits(BitmapChunk):
    """Bits of ``sectors`` sectors from ``sector``; ``bits`` is None where all are clean."""

    type = "bitmap-bits"
    sector: int
    sectors: int
    granularity: int
    bits: Payload | None


@dataclass(frozen=True, slots=True)
class BitmapComplete(BitmapChunk):
    """A bitmap has been sent to its end."""

    type = "bitmap-complete"


@dataclass(frozen=True, slots=True)
class BitmapEos(Event):
    """An EOS chunk of its own, in ``dirty-bitmap``."""

    type = "bitmap-eos"
    flags: int
    extra_flags: bytes = b""


@dataclass(frozen=True, slots=True)
class RamBlock:
    """An entry of MEM_SIZE: a RAM block's length in bytes, and what some capabilities add.

    ``mapped`` are the values of the mapped-ram header; ``pages`` what lies up to the next record.
    """

    name: str
    length: int
    page_size: int | None = None
    address: int | None = None
    mapped: tuple[int, ...] | None = None
    pages: Payload | None = None


@dataclass(frozen=True, slots=True)
class Ram(Event):
    """A RAM record, stepped over; ``offset_in_block`` in bytes (MEM_SIZE: the total).

    ``head`` holds the numbers that its flag announces (fill; encoding, length; length), ``data`` the
    page or its compressed form, ``blocks`` the entries of MEM_SIZE.
    """

    type = "ram"
    flags: int
    block: str | None
    offset_in_block: int
    head: tuple[int, ...] = ()
    data: Payload | None = None
    blocks: tuple[RamBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class RamStretch(Event):
    """All RAM records of one part, for those who do not want each of them."""

    type = "ram"
    records: int


@dataclass(frozen=True, slots=True)
class Raw(Event):
    """Bytes as they are; never decoded, only built."""

    type = "raw"
    payload: Payload


@dataclass(frozen=True, slots=True)
class DeviceState(Event):
    """A device's state; ``sized_by`` says how its end was found.

    That is ``footer``, or ``description`` in a stream without footers.
    """

    type = "device-state"
    sized_by: str


@dataclass(frozen=True, slots=True)
class Undecoded(Event):
    """A stretch up to the end of the input, or to a further stream, that could not be decoded.

    ``behind``: it is no part of the stream, but stands behind its end.
    """

    type = "undecoded"
    reason: str
    behind: bool = False


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What the decoder knows when it stops and no single event says.

    ``container``: ``qemu``, ``none``, or None where it was not found out; ``dialect``: that of the
    block records, None where none decided it.  ``tails``: by device, least and most bytes of a disk
    whose end the bits of a v1 record showed.  ``granularities``: of v1's bitmaps, by device and name,
    those in bytes that their layout leaves possible, ascending.
    """

    container: str | None = None
    dialect: str | None = None
    tails: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    granularities: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
