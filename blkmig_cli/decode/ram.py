"""The ``ram`` section, stepped over record by record: its payload has no length of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from blkmig_cli import limits
from blkmig_cli.events import Event, Ram
from blkmig_cli.parse import Reader
from blkmig_cli.schemas import ram as schema
from blkmig_cli.schemas.constants import (
    CAP_IGNORE_SHARED,
    CAP_MAPPED_RAM,
    PAGE_SIZE_DEFAULT,
    RamFlag,
)
from blkmig_cli.text import decode_name


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
        flag = bits & ~RamFlag.CONTINUE
        block = None
        if flag == RamFlag.MEM_SIZE:
            _mem_size(reader, context, word - bits)
        elif flag in schema.RECORD_HEADS:
            if not bits & RamFlag.CONTINUE:
                block = decode_name(reader.take(schema.BlockName)[0])
            _page(reader, context, RamFlag(flag))
        elif flag not in schema.BARE_RECORDS:
            reader.fail(f"RAM record flags {bits:#x} are unknown")
        yield Ram(offset, reader.length(), reader.section, bits, block, word - bits)
        if flag == RamFlag.EOS:
            return


def _page(reader: Reader, context: RamContext, flag: RamFlag) -> None:
    head = reader.take(schema.RECORD_HEADS[flag])
    if flag == RamFlag.PAGE:
        reader.payload(context.page_size)
    elif flag != RamFlag.ZERO:
        length = head[-1]
        if length > context.page_size + limits.COMPRESSED_PAGE_SLACK:
            reader.fail(f"a compressed page of {length} bytes is larger than a page")
        reader.payload(length)


def _mem_size(reader: Reader, context: RamContext, total: int) -> None:
    while total > 0:
        _, length = reader.take(schema.MemSizeEntry)
        if length > total:
            reader.fail(f"RAM blocks add up to {length - total} bytes more than announced")
        total -= length
        if context.page_sizes and _page_size_follows(reader, context.page_sizes):
            reader.take(schema.MemSizePageSize)
        if CAP_IGNORE_SHARED in context.capabilities:
            reader.take(schema.MemSizeAddress)
        if CAP_MAPPED_RAM in context.capabilities:
            pages_offset = reader.take(schema.MappedRamHeader)[-1]
            target = pages_offset + length
            if target < reader.source.offset:
                reader.fail(f"mapped RAM ends at byte {target}, before its own header")
            reader.skip(target - reader.source.offset)


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
