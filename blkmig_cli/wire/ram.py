"""The ``ram`` section, skipped record by record, as its payload states no length.

Source: QEMU 7.2, migration/ram.c (ram_load_precopy); QEMU 10.0, migration/ram.c (parse_ramblock).
"""

from collections.abc import Iterator
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas import ram as schema
from blkmig_cli.schemas.constants import (
    CAP_IGNORE_SHARED,
    CAP_MAPPED_RAM,
    PAGE_SIZE_DEFAULT,
    RamFlag,
)
from blkmig_cli.text import decode_name
from blkmig_cli.wire.events import Payload, Ram, RamBlock
from blkmig_cli.wire.runs.columns import Numbers, Piece
from blkmig_cli.wire.runs.repeats import Repeats
from blkmig_cli.wire.runs.template import Names
from blkmig_cli.wire.schema_io import Reader

# As plain numbers: operations on enums are slow.
_CONTINUE = int(RamFlag.CONTINUE)
_EOS = int(RamFlag.EOS)
_MEM_SIZE = int(RamFlag.MEM_SIZE)
_PAGE = int(RamFlag.PAGE)
_ZERO = int(RamFlag.ZERO)
_HEADS = {int(flag): head for flag, head in schema.RECORD_HEADS.items()}
_BARE = frozenset(map(int, schema.BARE_RECORDS))

_PAGE_SIZES = (PAGE_SIZE_DEFAULT, 2 * PAGE_SIZE_DEFAULT)
# Bytes to examine after a page: a word, and a name with its length.
_LOOK = 8 + 1 + 255
_OFFSET_MAX = 1 << 52


@dataclass(slots=True)
class RamContext:
    """The properties of RAM known from the input and from earlier parts of the stream.

    ``origin``: see ``schema_io.Input``.  ``page_size``: None until it is known from the configuration
    or from the first page.  ``page_sizes``: the OR of all blocks' page sizes, from command 3; 0
    without it.
    """

    origin: int = 0
    page_size: int | None = None
    capabilities: frozenset[str] = field(default_factory=frozenset)
    page_sizes: int = 0


class RamDecoder:
    """Decodes records; pages that repeat others are taken in runs."""

    #: See ``scanner.Rules``: pages refer to a block by its name, but are skipped all the same.
    names: Names = ()

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._page_size = PAGE_SIZE_DEFAULT
        self._repeats = Repeats(reader.source, {Ram: self})

    def payload(self, context: RamContext) -> Iterator[Piece]:
        """Yield the records of one part of the section, up to the one with EOS.

        Raises TruncatedError, MalformedError.
        """
        reader = self._reader
        self._repeats.clear()
        while True:
            offset = reader.begin()
            (word,) = reader.take(schema.RamWord)
            self._page_size = context.page_size or PAGE_SIZE_DEFAULT
            bits = word & (self._page_size - 1)
            flag = bits & ~_CONTINUE
            block: str | None = None
            head: tuple[int, ...] = ()
            data: Payload | None = None
            blocks: tuple[RamBlock, ...] = ()
            if flag == _MEM_SIZE:
                blocks = tuple(_mem_size(reader, context, word - bits))
            elif flag in _HEADS:
                if not bits & _CONTINUE:
                    block = decode_name(reader.take(schema.BlockName)[0])
                head, data = _page(reader, context, flag)
            elif flag not in _BARE:
                reader.fail(f"RAM record flags {bits:#x} are unknown")
            length, start = reader.length(), word - bits
            event = Ram(offset, length, reader.section, bits, block, start, head, data, blocks)
            yield event
            if flag == _EOS:
                return
            if flag in _HEADS:
                yield from self._repeats.record(event)
            else:
                self._repeats.clear()

    def repeatable(self, event: Ram) -> bool:
        """See ``scanner.Rules``."""
        return event.is_page

    def needs(self, event: Ram) -> Names:
        """See ``scanner.Rules``."""
        return ()

    def leaves(self, event: Ram) -> Names | None:
        """See ``scanner.Rules``."""
        return None

    def admits(self, event: Ram, starts: Numbers, counts: Numbers | None) -> NDArray[np.bool_]:
        """See ``scanner.Rules``; where pages are large, more bits are flags than those of the template."""
        good: NDArray[np.bool_] = (starts >= 0) & (starts % self._page_size == 0)
        return good

    def took(self, event: Ram, top: int) -> None:
        """See ``scanner.Rules``."""


def _page(reader: Reader, context: RamContext, flag: int) -> tuple[tuple[int, ...], Payload | None]:
    head = reader.take(_HEADS[flag])
    if flag == _ZERO:
        return head, None
    if flag == _PAGE:
        if context.page_size is None:
            context.page_size = _page_size(reader)
        return head, reader.payload(context.page_size)
    most = context.page_size or _PAGE_SIZES[-1]
    if head[-1] > most + limits.COMPRESSED_PAGE_SLACK:
        reader.fail(f"a compressed page of {head[-1]} bytes is larger than a page")
    return head, reader.payload(head[-1])


def _page_size(reader: Reader) -> int:
    """Return the size of the page that begins here: the least one that is followed by a record.

    Only targets with a fixed page size omit it from the configuration: 4 KiB, or 8 KiB for sparc64
    and alpha (QEMU 7.2, target/*/cpu-param.h: TARGET_PAGE_BITS).
    """
    for size in _PAGE_SIZES:
        if _record_begins(reader.source.peek_at(reader.source.offset + size, _LOOK)):
            return size
    return PAGE_SIZE_DEFAULT


def _record_begins(data: bytes) -> bool:
    """Return whether ``data`` may be the start of a RAM record."""
    if len(data) < 8:
        return False
    word = int.from_bytes(data[:8], "big")
    bits = word & (PAGE_SIZE_DEFAULT - 1)
    flag = bits & ~_CONTINUE
    if flag in _BARE:
        return word == bits
    if flag not in _HEADS or word >= _OFFSET_MAX:
        return False
    name = data[9 : 9 + data[8]] if len(data) > 8 else b"x"
    return bool(bits & _CONTINUE) or (bool(name) and all(0x20 <= b < 0x7F for b in name))


def _mem_size(reader: Reader, context: RamContext, total: int) -> Iterator[RamBlock]:
    number = 0
    while total > 0:
        number += 1
        if number > limits.RAM_BLOCKS_MAX:
            reader.fail(f"over {limits.RAM_BLOCKS_MAX} RAM blocks", check="limit")
        raw, length = reader.take(schema.MemSizeEntry)
        if length > total:
            reader.fail(f"the RAM blocks are {length - total} bytes larger than their total")
        total -= length
        page_size = address = mapped = pages = None
        if context.page_sizes and _page_size_follows(reader, context.page_sizes):
            (page_size,) = reader.take(schema.MemSizePageSize)
        if CAP_IGNORE_SHARED in context.capabilities:
            (address,) = reader.take(schema.MemSizeAddress)
        if CAP_MAPPED_RAM in context.capabilities:
            mapped = reader.take(schema.MappedRamHeader)
            here, target = reader.source.offset, mapped[-1] + length - context.origin
            if target < here:
                reader.fail(
                    f"mapped RAM ends at byte {target}, before its own header",
                    hint="if the stream begins later in a file, use file:PATH,offset=N",
                )
            reader.skip(target - here)
            pages = Payload(here, target - here)
        yield RamBlock(decode_name(raw), length, page_size, address, mapped, pages)


def _page_size_follows(reader: Reader, page_sizes: int) -> bool:
    """Return whether the next be64 is a page size.

    It is present only for blocks whose page size is not the host's, which the stream does not state
    (QEMU 10.0, migration/ram.c: parse_ramblock).  A page size is a single high bit out of
    ``page_sizes``; neither a block's name (whose first byte is its length, never 0) nor a record's
    word (which has a low flag bit) has that form.
    """
    if page_sizes & (page_sizes - 1) == 0:
        return False
    value = int.from_bytes(reader.source.peek(8), "big")
    return value > 0xFFF and value & (value - 1) == 0 and bool(value & page_sizes)
