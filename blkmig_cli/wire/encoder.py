"""Events to bytes, without I/O: the inverse of the decoder, from the same schemas.

``encode`` yields an event as pieces in order: bytes for what the schemas describe, and the event's
payloads as they are, for a caller that has their bytes.  It writes what the event holds without
checks, so that invalid streams can be made on purpose; it raises ValueError, naming the field, only
where a value does not fit its field.
"""

from collections.abc import Iterator

from blkmig_cli.schemas import block, dirty_bitmap, framing, ram
from blkmig_cli.schemas.constants import (
    MAGIC,
    BitmapFlag,
    BlockFlag,
    RamFlag,
    SectionType,
    without,
)
from blkmig_cli.schemas.dialects import V2
from blkmig_cli.text import encode_name
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapChunk,
    BitmapEos,
    BitmapStart,
    Block,
    CommandEvent,
    Configuration,
    DeviceState,
    Eof,
    Eos,
    Event,
    Footer,
    Header,
    Payload,
    Progress,
    Ram,
    Raw,
    SectionHeader,
    Undecoded,
    VmDescription,
)
from blkmig_cli.wire.schema_io import build

Piece = bytes | Payload


def encode(event: Event) -> Iterator[Piece]:
    """Yield the pieces of ``event`` in order.

    Raises ValueError where a value does not fit its field.
    """
    match event:
        case Block():
            yield from _block(event)
        case Progress():
            yield build(block.RecordWord, block.join_word(event.percent, event.flags))
        case Eos():
            yield build(block.RecordWord, event.value)
        case SectionHeader():
            yield _section(event)
        case Footer():
            yield build(framing.SectionReference, SectionType.FOOTER, event.id)
        case BitmapChunk() | BitmapEos():
            yield from _bitmap_chunk(event)
        case Ram():
            yield from _ram(event)
        case DeviceState() | Undecoded():
            yield Payload(event.offset, event.length)
        case Raw():
            yield event.payload
        case _:
            yield from _framing(event)


def encoded_length(event: Event) -> int:
    """Return the number of bytes of ``event`` as :func:`encode` writes it."""
    return sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in encode(event))


def _framing(event: Event) -> Iterator[Piece]:
    match event:
        case Header():
            yield build(framing.FileHeader, MAGIC, event.version)
        case Configuration():
            machine = encode_name(event.machine)
            yield build(framing.ConfigurationHead, SectionType.CONFIGURATION, len(machine))
            yield machine
            for part in event.subsections:
                name = encode_name(part.name)
                value = part.value
                if isinstance(value, tuple):
                    yield build(framing.SubsectionHead, SectionType.SUBSECTION, name, part.version)
                    yield build(
                        framing.SUBSECTION_BODIES[name], [encode_name(item) for item in value]
                    )
                else:
                    yield build(framing.SubsectionHead, SectionType.SUBSECTION, name, part.version)
                    yield build(framing.SUBSECTION_BODIES[name], value)
        case CommandEvent():
            yield build(framing.CommandHead, SectionType.COMMAND, event.command, len(event.data))
            yield event.data
        case Eof():
            yield build(framing.TypeByte, SectionType.EOF)
        case VmDescription():
            length = event.payload.on_wire
            yield build(framing.DescriptionHead, SectionType.VMDESCRIPTION, length)
            yield event.payload
        case _:
            raise TypeError(f"{event.type} has no bytes of its own")


def _section(event: SectionHeader) -> bytes:
    if event.kind in (SectionType.START, SectionType.FULL):
        name = encode_name(event.section or "")
        return build(framing.SectionHead, event.kind, event.id, name, event.instance, event.version)
    return build(framing.SectionReference, event.kind, event.id)


def _block(event: Block) -> Iterator[Piece]:
    yield build(block.RecordWord, block.join_word(event.sector, event.flags))
    yield build(block.DeviceName, encode_name(event.device))
    if event.flags & BlockFlag.HAS_BITMAPS:
        number = len(event.bitmaps)
        sized = event.dialect == V2.name
        if sized:
            yield build(block.V2Range, event.sectors, number)
        else:
            yield build(block.V1BitmapCount, number)
        for bitmap in event.bitmaps:
            name = encode_name(bitmap.name)
            if sized:
                numbers = (bitmap.attributes or 0, bitmap.granularity or 0, bitmap.bits.on_wire)
                yield build(block.V2BitmapHead, name, *numbers)
            else:
                yield build(block.V1BitmapHead, name)
            yield bitmap.bits
    if event.data is not None:
        yield event.data


def _bitmap_chunk(event: BitmapChunk | BitmapEos) -> Iterator[Piece]:
    yield event.extra_flags + build(dirty_bitmap.ChunkFlags, event.flags)
    names = ("", "") if isinstance(event, BitmapEos) else (event.device, event.bitmap)
    for flag, name in zip((BitmapFlag.DEVICE_NAME, BitmapFlag.BITMAP_NAME), names, strict=True):
        if event.flags & flag:
            yield build(dirty_bitmap.Alias, encode_name(name))
    if isinstance(event, BitmapStart):
        yield build(dirty_bitmap.Start, event.granularity, event.attributes)
    elif isinstance(event, BitmapBits):
        yield build(dirty_bitmap.Range, event.sector, event.sectors)
        if event.bits is not None:
            yield build(dirty_bitmap.BitsLength, event.bits.on_wire)
            yield event.bits


def _ram(event: Ram) -> Iterator[Piece]:
    yield build(ram.RamWord, event.offset_in_block | int(event.flags))
    for entry in event.blocks:
        yield build(ram.MemSizeEntry, encode_name(entry.name), entry.length)
        if entry.page_size is not None:
            yield build(ram.MemSizePageSize, entry.page_size)
        if entry.address is not None:
            yield build(ram.MemSizeAddress, entry.address)
        if entry.mapped is not None:
            yield build(ram.MappedRamHeader, *entry.mapped)
        if entry.pages is not None:
            yield entry.pages
    if event.block is not None:
        yield build(ram.BlockName, encode_name(event.block))
    if event.head:
        yield build(ram.RECORD_HEADS[RamFlag(without(event.flags, RamFlag.CONTINUE))], *event.head)
    if event.data is not None:
        yield event.data
