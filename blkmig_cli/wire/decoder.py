"""The container, and the one decoder over all sections: bytes in, events out, nothing else.

Iterating gives events that tile the stream.  It ends at the stream's proper end; otherwise it
raises one of the StreamErrors, and goes on raising it: a decoder that has failed stays failed.
An input that ends in device state whose size nothing tells gives one last ``Undecoded``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from blkmig_cli import limits
from blkmig_cli.errors import (
    BlkmigError,
    NotAStreamError,
    TruncatedError,
    UndecidableError,
)
from blkmig_cli.schemas import block as block_schema
from blkmig_cli.schemas import constants as c
from blkmig_cli.schemas import framing as schema
from blkmig_cli.schemas import ram as ram_schema
from blkmig_cli.schemas.constants import SectionType
from blkmig_cli.schemas.dialects import DIALECTS, V2
from blkmig_cli.text import decode_name, quote
from blkmig_cli.wire.block import BlockDecoder
from blkmig_cli.wire.dirty_bitmap import DirtyBitmapDecoder
from blkmig_cli.wire.events import (
    CommandEvent,
    Conclusion,
    Configuration,
    DeviceState,
    Eof,
    Event,
    Footer,
    Header,
    SectionHeader,
    Subsection,
    Undecoded,
    VmDescription,
)
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.ram import RamContext, ram_payload
from blkmig_cli.wire.resync import FOOTER_SIZE, footer_bytes, plausible, seek_footer
from blkmig_cli.wire.runs import Piece, Run
from blkmig_cli.wire.scanner import Repeats
from blkmig_cli.wire.schema_io import Input, Reader
from blkmig_cli.wire.v1_layout import After
from blkmig_cli.wire.vm_description import Description, find_description

Container = Literal["auto", "qemu", "none"]

# Sections that hold what this project is about: their end must be found.
_OURS = (c.BLOCK_SECTION, c.DIRTY_BITMAP_SECTION)
_TO_THE_END = 1 << 63


@dataclass(slots=True)
class Context:
    """What a stream has said so far that the meaning of later bytes depends on.

    ``sections``: starts by section id; ``open``: ids of sections that have not ended; ``footers``:
    whether sections have footers, None until the first one ends; ``description``: None where the
    stream has none, or it cannot be reached.
    """

    sections: dict[int, SectionHeader] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    footers: bool | None = None
    configured: bool = False
    ram: RamContext = field(default_factory=RamContext)
    page_size_known: bool = False
    description: Description | Literal["unread"] | None = "unread"

    def copy(self) -> "Context":
        """Return a copy that further reading of the other one does not change."""
        return replace(
            self, sections=dict(self.sections), open=set(self.open), ram=replace(self.ram)
        )


class Decoder:
    """Events of the stream that ``source`` holds from its current offset.

    ``dialect``: a name from ``--dialect``, or ``auto``; ``container`` likewise.  ``keep_state``:
    device state from a pipe can be viewed, and so is held in memory.  After the events
    (or while they come) ``container`` and ``block.dialect`` say what was found.
    """

    def __init__(
        self,
        source: Input,
        *,
        dialect: str = "auto",
        container: Container = "auto",
        hints: Hints | None = None,
        keep_state: bool = False,
    ) -> None:
        self._reader = Reader(source, keep=keep_state)
        self.source = source
        self.hints = hints or Hints()
        self.container: Container = container
        self.context = Context()
        self.block = BlockDecoder(self._reader, DIALECTS.get(dialect), self.hints, self._after_eos)
        self.bitmaps = DirtyBitmapDecoder(self._reader)
        self._current = 0
        self._lost = False
        self._package_end: int | None = None
        self._failure: BlkmigError | None = None
        self._pieces = self._decode()
        self._run: Iterator[Event] = iter(())
        self._repeats = Repeats(self.block.scanner)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        for event in self._run:
            return event
        piece = self.piece()
        if not isinstance(piece, Run):
            return piece
        self._run = iter(piece)
        return next(self._run)

    def piece(self) -> Piece:
        """The next event, or run of events: the same stream, in larger steps.

        Raises StopIteration at the end, as ``next``; not to be mixed with it.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._pieces)
        except BlkmigError as error:
            self._failure = error
            raise

    def conclusion(self) -> Conclusion:
        """What is known at this point of the stream and no event says; final after the last event."""
        dialect, layouts = self.block.dialect, self.block.layouts
        return Conclusion(
            None if self.container == "auto" else self.container,
            None if dialect is None else dialect.name,
            layouts.tails(),
            layouts.all_granularities(),
        )

    def _decode(self) -> Iterator[Piece]:
        if self.container == "auto":
            self.container = self._detect()
        if self.container == "none":
            yield from self._bare()
            return
        yield from self._preamble()
        yield from self._sections_to_the_end()

    def _sections_to_the_end(self) -> Iterator[Piece]:
        while True:
            self._package_edge()
            kind = self.source.peek(1)
            self._reader.section = None
            self._reader.begin()
            if not kind:
                self._reader.truncated(0)
            if kind[0] == SectionType.EOF:
                break
            if kind[0] == SectionType.COMMAND:
                yield self._command()
            elif SectionType.START <= kind[0] <= SectionType.FULL:
                yield from self._repeats.section(self._section(), self._package_end)
                if self._lost:
                    return
            else:
                self._reader.fail(f"{kind[0]:#04x} opens no section", check="unknown-section")
        yield from self._end()

    def _detect(self) -> Container:
        head = self.source.peek(8)
        if head[:4] == c.MAGIC.to_bytes(4, "big"):
            return "qemu"
        if not head:
            raise TruncatedError("the input is empty", offset=0)
        if len(head) < 8:
            raise TruncatedError("the input is too short to be a stream", offset=len(head))
        upper, flags = block_schema.split_word(int.from_bytes(head, "big"))
        sector = upper if flags & c.BlockFlag.DEVICE_BLOCK else 0
        bare = (
            V2.flags & flags == flags
            and flags & (c.BlockFlag.DEVICE_BLOCK | c.BlockFlag.EOS | c.BlockFlag.PROGRESS)
            and (flags & c.BlockFlag.DEVICE_BLOCK or upper <= 100)
            and sector * c.SECTOR_SIZE < limits.BARE_DISK_MAX
        )
        if bare:
            return "none"
        raise NotAStreamError(
            "this is no migration stream: neither QEVM nor a block record stands at its start",
            offset=0,
        )

    def _bare(self) -> Iterator[Piece]:
        yield from self.block.payload()
        while self.source.peek(1):
            yield from self.block.payload()

    def _preamble(self) -> Iterator[Event]:
        reader = self._reader
        offset = reader.begin()
        _, version = reader.take(schema.FileHeader)
        if version != c.VERSION:
            old = " (obsolete)" if version == c.VERSION_OBSOLETE else ""
            reader.fail(f"stream version {version}{old}; only version {c.VERSION} is known")
        yield Header(offset, reader.length(), None, version)
        if reader.source.peek(1) == bytes([SectionType.CONFIGURATION]):
            self.context.configured = True
            yield self._configuration()

    def _configuration(self) -> Configuration:
        reader = self._reader
        offset = reader.begin()
        _, length = reader.take(schema.ConfigurationHead)
        if length > limits.MACHINE_MAX:
            reader.fail(f"a machine type of {length} bytes")
        machine = decode_name(reader.take_bytes(length))
        subsections: dict[str, Subsection] = {}
        while reader.source.peek(1) == bytes([SectionType.SUBSECTION]):
            _, raw, version = reader.take(schema.SubsectionHead)
            name = decode_name(raw)
            body = schema.SUBSECTION_BODIES.get(raw)
            if body is None or name in subsections:
                reader.fail(f"configuration subsection {quote(name)} is unknown, or came before")
            (value,) = reader.take(body)
            if isinstance(value, list):
                value = tuple(decode_name(capability) for capability in value)
            subsections[name] = Subsection(name, version, value)
        found = Configuration(offset, reader.length(), None, machine, tuple(subsections.values()))
        bits = found.target_page_bits
        if bits is not None:
            if not 10 <= bits <= 20:
                reader.fail(f"pages of 2**{bits} bytes")
            self.context.ram.page_size, self.context.page_size_known = 1 << bits, True
        self.context.ram.capabilities = frozenset(found.capabilities or ())
        return found

    def _end(self) -> Iterator[Event]:
        reader = self._reader
        reader.take(schema.TypeByte)
        if self._package_end is not None:
            reader.fail("the stream ends inside a package")
        yield Eof(reader.start, 1, None)
        offset = reader.begin()
        if reader.source.peek(1) == bytes([SectionType.VMDESCRIPTION]):
            _, length = reader.take(schema.DescriptionHead)
            if length > limits.DESCRIPTION_MAX:
                reader.fail(f"a description of {length} bytes")
            payload = reader.payload(length)
            yield VmDescription(offset, reader.length(), None, payload)
            offset = reader.begin()
        if reader.source.peek(1):
            rest = reader.pass_over(_TO_THE_END)
            yield Undecoded(offset, rest, None, "bytes after the stream's end")

    def _command(self) -> CommandEvent:
        reader = self._reader
        offset = reader.start
        _, number, length = reader.take(schema.CommandHead)
        data = reader.take_bytes(length)
        package = None
        if number not in set(c.Command):
            reader.fail(f"command {number} is unknown", check="unknown-command")
        if number == c.Command.PACKAGED:
            if len(data) != schema.PackageLength.sizeof() or self._package_end is not None:
                reader.fail("a package's command is damaged, or stands inside a package")
            package = int.from_bytes(data, "big")
            self._package_end = self.source.offset + package
        elif number == c.Command.POSTCOPY_ADVISE and data:
            if len(data) != ram_schema.PostcopyAdvise.sizeof():
                reader.fail(f"postcopy advice of {length} bytes")
            self.context.ram.page_sizes = int.from_bytes(data[:8], "big")
        return CommandEvent(offset, reader.length(), None, number, data, package)

    def _package_edge(self) -> None:
        if self._package_end is not None and self.source.offset >= self._package_end:
            if self.source.offset > self._package_end:
                self._reader.fail(
                    f"a package ends at byte {self._package_end}, inside a section",
                    offset=self.source.offset,
                )
            self._package_end = None

    def _section(self) -> Iterator[Piece]:
        header = self._section_header()
        reader = self._reader
        reader.section = header.section
        yield header
        yield from self._payload(header)
        if self._lost:
            return
        if header.kind == SectionType.END:
            self.context.open.discard(header.id)
        reader.begin()
        footer = self._footer(header.id)
        if footer is not None:
            yield footer

    def _section_header(self) -> SectionHeader:
        reader = self._reader
        offset = reader.start
        kind = SectionType(reader.source.peek(1)[0])
        if kind in (SectionType.START, SectionType.FULL):
            _, section_id, raw, instance, version = reader.take(schema.SectionHead)
            name: str | None = decode_name(raw)
            if section_id in self.context.sections:
                reader.fail(f"section id {section_id} is used a second time")
            if len(self.context.sections) == limits.SECTIONS_MAX:
                reader.fail(f"over {limits.SECTIONS_MAX} sections", check="limit")
        else:
            _, section_id = reader.take(schema.SectionReference)
            started = self.context.sections.get(section_id)
            if started is None:
                reader.fail(f"section id {section_id} was never started", check="unknown-section")
            name, instance, version = started.section, started.instance, started.version
        header = SectionHeader(offset, reader.length(), name, kind, section_id, instance, version)
        if kind in (SectionType.START, SectionType.FULL):
            self.context.sections[section_id] = header
            if kind == SectionType.START:
                self.context.open.add(section_id)
        return header

    def _payload(self, header: SectionHeader) -> Iterator[Piece]:
        known = (header.section, header.version)
        self._current = header.id
        if known == (c.BLOCK_SECTION, c.BLOCK_VERSION):
            yield from self.block.payload()
        elif known == (c.DIRTY_BITMAP_SECTION, c.DIRTY_BITMAP_VERSION):
            yield from self.bitmaps.payload()
        elif known == (c.RAM_SECTION, c.RAM_VERSION):
            yield from ram_payload(self._reader, self._ram_context())
        else:
            yield from self._state(header)

    def _ram_context(self) -> RamContext:
        if not self.context.page_size_known:
            self.context.page_size_known = True
            description = self._described()
            if description is not None and description.page_size is not None:
                self.context.ram.page_size = description.page_size
        return self.context.ram

    def _described(self) -> Description | None:
        if self.context.description == "unread":
            self.context.description = find_description(self.source)
        return self.context.description

    def _state(self, header: SectionHeader) -> Iterator[Event]:
        """A payload that only the description or a footer can size."""
        reader, source = self._reader, self.source
        offset = reader.begin()
        size = None
        description = self._described()
        if header.kind == SectionType.FULL and description is not None and header.section:
            size = description.sizes.get((header.section, header.instance))
        if size is not None:
            behind = source.peek_at(offset + size, FOOTER_SIZE)
            if self.context.footers is not False and behind != footer_bytes(header.id):
                reader.fail(
                    f"the description says {size} bytes of state, but no footer stands there",
                    check="device-state",
                )
            reader.skip(size)
            yield DeviceState(offset, size, reader.section, "description")
            return
        if self.context.footers is not False:
            found = seek_footer(reader, header.id, self.context.sections, self._package_end)
            length = source.offset - offset
            if found:
                yield DeviceState(offset, length, reader.section, "footer")
                return
        length = source.offset - offset + reader.pass_over(_TO_THE_END)
        self._lost = True
        yield Undecoded(offset, length, reader.section, "nothing tells where this state ends")
        if self.context.footers:
            raise TruncatedError(
                "the stream ends inside a section's state: its footer never came",
                offset=source.offset,
                section=header.section,
            )
        unfinished = [self.context.sections[number].section for number in self.context.open]
        if any(name in _OURS for name in unfinished):
            raise UndecidableError(
                "nothing tells where this section ends, and blocks or bitmaps had not ended yet",
                offset=offset,
                section=header.section,
            )

    def _footer(self, section_id: int) -> Footer | None:
        reader = self._reader
        kind = reader.source.peek(1)
        if kind == bytes([SectionType.FOOTER]):
            _, found = reader.take(schema.SectionReference)
            if found != section_id:
                reader.fail(f"footer of section {found}, expected {section_id}", check="footer")
            self.context.footers = True
            return Footer(reader.start, reader.length(), reader.section, section_id)
        if not kind:
            reader.truncated(0)
        if self.context.footers or (self.context.footers is None and self.context.configured):
            reader.fail("a section's footer is missing", check="footer")
        self.context.footers = False
        return None

    def _after_eos(self, offset: int) -> After:
        """What stands at ``offset``, if a payload's records end there."""
        if self.container == "none":
            return After.RECORDS if self.source.peek_at(offset, 1) else After.END
        data = self.source.peek_at(offset, FOOTER_SIZE + 6 + 255)
        if self.context.footers or (
            self.context.footers is None and data[:1] == bytes([SectionType.FOOTER])
        ):
            footer = footer_bytes(self._current)
            if len(data) <= FOOTER_SIZE:
                return After.EDGE if footer.startswith(data) else After.NONSENSE
            if not data.startswith(footer):
                return After.NONSENSE
            data = data[FOOTER_SIZE:]
        if not data:
            return After.EDGE
        return After.END if plausible(data, self.context.sections) else After.NONSENSE
