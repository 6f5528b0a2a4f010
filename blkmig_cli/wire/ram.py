"""The ``ram`` section, stepped over record by record: its payload has no length of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from blkmig_cli import limits
from blkmig_cli.schemas import ram as schema
from blkmig_cli.schemas.constants import (
    CAP_IGNORE_SHARED,
    CAP_MAPPED_RAM,
    PAGE_SIZE_DEFAULT,
    RamFlag,
    without,
)
from blkmig_cli.text import decode_name
from blkmig_cli.wire.events import Event, Payload, Ram, RamBlock
from blkmig_cli.wire.schema_io import Reader


@dataclass(slots=True)
class RamContext:
    """What earlier parts of the stream say about RAM.

    ``page_sizes``: the OR of all blocks' page sizes, from command 3; 0 without it.
    """

    page_size: int = PAGE_SIZE_DEFAULT
    capabilities: frozenset[str] = field(default_factory=frozenset)
    page_sizes: int = 0


def ram_payload(reader: Reader, context: RamContext) -> Iterator[Event]:
    """The records of one part of the section, its EOS included.

    Raises TruncatedError, MalformedError.
    """
    while True:
        offset = reader.begin()
        (word,) = reader.take(schema.RamWord)
        bits = word & (context.page_size - 1)
        flag = without(bits, RamFlag.CONTINUE)
        block: str | None = None
        head: tuple[int, ...] = ()
        data: Payload | None = None
        blocks: tuple[RamBlock, ...] = ()
        if flag == RamFlag.MEM_SIZE:
            blocks = tuple(_mem_size(reader, context, word - bits))
        elif flag in schema.RECORD_HEADS:
            if not bits & RamFlag.CONTINUE:
                block = decode_name(reader.take(schema.BlockName)[0])
            head, data = _page(reader, context, RamFlag(flag))
        elif flag not in schema.BARE_RECORDS:
            reader.fail(f"RAM record flags {bits:#x} are unknown")
        length = reader.length()
        yield Ram(offset, length, reader.section, bits, block, word - bits, head, data, blocks)
        if flag == RamFlag.EOS:
            return


def _page(
    reader: Reader, context: RamContext, flag: RamFlag
) -> tuple[tuple[int, ...], Payload | None]:
    head = reader.take(schema.RECORD_HEADS[flag])
    if flag == RamFlag.ZERO:
        return head, None
    length = context.page_size if flag == RamFlag.PAGE else head[-1]
    if length > context.page_size + limits.COMPRESSED_PAGE_SLACK:
        reader.fail(f"a compressed page of {length} bytes is larger than a page")
    return head, reader.payload(length)


def _mem_size(reader: Reader, context: RamContext, total: int) -> Iterator[RamBlock]:
    number = 0
    while total > 0:
        number += 1
        if number > limits.RAM_BLOCKS_MAX:
            reader.fail(f"over {limits.RAM_BLOCKS_MAX} blocks of RAM", check="limit")
        raw, length = reader.take(schema.MemSizeEntry)
        if length > total:
            reader.fail(f"RAM blocks add up to {length - total} bytes more than announced")
        total -= length
        page_size = address = mapped = pages = None
        if context.page_sizes and _page_size_follows(reader, context.page_sizes):
            (page_size,) = reader.take(schema.MemSizePageSize)
        if CAP_IGNORE_SHARED in context.capabilities:
            (address,) = reader.take(schema.MemSizeAddress)
        if CAP_MAPPED_RAM in context.capabilities:
            mapped = reader.take(schema.MappedRamHeader)
            here, target = reader.source.offset, mapped[-1] + length
            if target < here:
                reader.fail(f"mapped RAM ends at byte {target}, before its own header")
            reader.skip(target - here)
            pages = Payload(here, target - here)
        yield RamBlock(decode_name(raw), length, page_size, address, mapped, pages)


def _page_size_follows(reader: Reader, page_sizes: int) -> bool:
    """Is the next be64 a page size?

    It is written only for blocks whose pages are not the host's, which the stream does not name.
    A page size is a lone high bit out of ``page_sizes``; neither a block's name (whose first byte
    is its length, never 0) nor a record's word (which has a low flag bit) looks like that.
    """
    if page_sizes & (page_sizes - 1) == 0:
        return False
    value = int.from_bytes(reader.source.peek(8), "big")
    return value > 0xFFF and value & (value - 1) == 0 and bool(value & page_sizes)
