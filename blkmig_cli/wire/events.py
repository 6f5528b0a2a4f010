"""The events of a stream, as the decoder yields them and the encoder takes them.

Events are contiguous: each begins where the preceding one ended.  An event is yielded only when all
its bytes are available.  Offsets and lengths are bytes of the uncompressed stream; sectors are 512
bytes; names are text with undecodable bytes represented as surrogates.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar

from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas.constants import BlockFlag, SectionType

# As a plain number: operations on enums are slow.
_ZERO_BLOCK = int(BlockFlag.ZERO_BLOCK)


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes of the stream that an event describes but does not contain.

    ``stated`` is the length stated in the stream where it is not the actual one: only in events that
    are invalid on purpose.  Other kinds of payload, for events not read from a stream, are in
    ``transport/payloads.py``.
    """

    offset: int
    length: int
    stated: int | None = None

    @property
    def on_wire(self) -> int:
        """The length stated in the stream."""
        return self.length if self.stated is None else self.stated


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events: offset, length, and section (None: the container itself)."""

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
    """A subsection of the configuration; ``value`` is a number, names, or bytes, depending on its name."""

    name: str
    version: int
    value: int | tuple[str, ...] | bytes


@dataclass(frozen=True, slots=True)
class Configuration(Event):
    """The machine type, and the subsections in order."""

    type = "configuration"
    machine: str
    subsections: tuple[Subsection, ...] = ()

    @property
    def target_page_bits(self) -> int | None:
        """Log2 of the page size, if stated."""
        return next((part.value for part in self.subsections if isinstance(part.value, int)), None)

    @property
    def capabilities(self) -> tuple[str, ...] | None:
        """The capabilities, if stated."""
        return next(
            (part.value for part in self.subsections if isinstance(part.value, tuple)), None
        )

    @property
    def uuid(self) -> bytes | None:
        """The machine's UUID, if stated."""
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
    """The head of a section, part or end; instance and version are those of the section's start."""

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
    """Device state at ``offset``: its length, and that stated in the description, in bytes."""

    offset: int
    section: str
    length: int
    described: int


@dataclass(frozen=True, slots=True)
class VmDescription(Event):
    """The JSON description of the devices' state.

    ``confirmed``: offsets of the DeviceState events whose length matches the description;
    ``mismatches``: those of which it does not.
    """

    type = "vm-description"
    payload: Payload
    confirmed: frozenset[int] = frozenset()
    mismatches: tuple[StateMismatch, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockBitmap:
    """A bitmap's entry in a block record.

    ``granularity`` is in bytes, None where the layout of v1 does not determine it; ``attributes``
    are the flags of v2, None in v1.  ``bits`` of length 0 (v2) mean that the range is clean.
    """

    name: str
    granularity: int | None
    attributes: int | None
    bits: Payload


@dataclass(frozen=True, slots=True)
class Block(Event):
    """A DEVICE_BLOCK record.

    ``sectors`` is the number that the record covers: 2048 except in a last chunk whose length is
    known; in v1 with the disk's size unknown, ``sectors_min`` is the least number that fits the
    record's length.  ``dialect`` is None for a zero block without further flags, which is the same
    in all dialects.
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
        """Whether the record has the content of its chunk (data or zeros), not only bitmaps."""
        return self.data is not None or bool(self.flags & _ZERO_BLOCK)


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """A PROGRESS record; ``flags`` may include EOS."""

    type = "progress"
    percent: int
    flags: int


@dataclass(frozen=True, slots=True)
class Eos(Event):
    """A separate EOS record in ``block``; ``value`` is that of the upper bits."""

    type = "eos"
    value: int


@dataclass(frozen=True, slots=True)
class BitmapChunk(Event):
    """Base of the chunks of the ``dirty-bitmap`` section.

    ``flags`` is the effective flag byte; ``extra_flags`` are those before it, which QEMU never writes.
    """

    device: str
    bitmap: str
    flags: int
    extra_flags: bytes


@dataclass(frozen=True, slots=True)
class BitmapStart(BitmapChunk):
    """START: a bitmap begins; ``granularity`` is in bytes."""

    type = "bitmap-start"
    granularity: int
    attributes: int


@dataclass(frozen=True, slots=True)
class BitmapBits(BitmapChunk):
    """BITS: bits of ``sectors`` sectors from ``sector``; ``bits`` is None where all are clean."""

    type = "bitmap-bits"
    sector: int
    sectors: int
    granularity: int
    bits: Payload | None


@dataclass(frozen=True, slots=True)
class BitmapComplete(BitmapChunk):
    """COMPLETE: a bitmap ends."""

    type = "bitmap-complete"


@dataclass(frozen=True, slots=True)
class BitmapEos(Event):
    """A separate EOS chunk in ``dirty-bitmap``."""

    type = "bitmap-eos"
    flags: int
    extra_flags: bytes = b""


@dataclass(frozen=True, slots=True)
class RamBlock:
    """An entry of MEM_SIZE: a RAM block's length in bytes, and the fields that some capabilities add.

    ``mapped``: the values of the mapped-ram header; ``pages``: the bytes up to the next record.
    """

    name: str
    length: int
    page_size: int | None = None
    address: int | None = None
    mapped: tuple[int, ...] | None = None
    pages: Payload | None = None


@dataclass(frozen=True, slots=True)
class Ram(Event):
    """A RAM record, whose page is skipped; ``offset_in_block`` is in bytes (MEM_SIZE: the total).

    ``head`` is the numbers that its flag announces (fill; encoding, length; length), ``data`` the
    page or its compressed form, ``blocks`` the entries of MEM_SIZE.
    """

    type = "ram"
    flags: int
    block: str | None
    offset_in_block: int
    head: tuple[int, ...] = ()
    data: Payload | None = None
    blocks: tuple[RamBlock, ...] = ()

    @property
    def is_page(self) -> bool:
        """Whether it is a page, also a compressed one."""
        return bool(self.head) or self.data is not None


@dataclass(frozen=True, slots=True)
class RamStretch(Event):
    """All RAM records of one part, as a single event."""

    type = "ram"
    records: int


@dataclass(frozen=True, slots=True)
class Raw(Event):
    """Bytes of any content; written by ``build``, never decoded."""

    type = "raw"
    payload: Payload


@dataclass(frozen=True, slots=True)
class DeviceState(Event):
    """A device's state; ``sized_by`` is how its end was found.

    It is ``footer``, or ``description`` in a stream without footers.
    """

    type = "device-state"
    sized_by: str


@dataclass(frozen=True, slots=True)
class Undecoded(Event):
    """Bytes up to the end of the input, or to a further stream, that could not be decoded.

    ``behind``: they are not part of the stream, but follow its end.
    """

    type = "undecoded"
    reason: str
    behind: bool = False


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What the decoder knows at its end that is not part of any single event.

    ``container``: ``qemu``, ``none``, or None where it is unknown; ``dialect``: that of the block
    records, None where no record decided it.  ``tails``: by device, the least and most bytes of a
    disk whose end is known from the bits of a v1 record.  ``granularities``: of v1's bitmaps, by
    device and name, those in bytes that their layout allows, ascending.
    """

    container: str | None = None
    dialect: str | None = None
    tails: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    granularities: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
