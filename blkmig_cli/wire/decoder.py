"""The decoder of a complete stream, with the container and all sections: bytes in, events out.

Iteration yields contiguous events.  It stops at the stream's proper end, after which a further
stream may begin; otherwise it raises one of the StreamErrors, and raises it again when called again.
For an input that ends in device state of unknown size, the last event is an ``Undecoded``.

A payload is sized in the same way in a file and in a pipe: by the records of a section and its footer.
The description at the stream's end sizes device state only where a stream has no footers; where
there are both, it is compared with the sizes found by the footers.
"""

from collections.abc import Iterator
from dataclasses import field, replace
from typing import Literal, NoReturn

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import (
    BlkmigError,
    LimitError,
    NotAStreamError,
    SeveralStreamsError,
    StreamError,
    TruncatedError,
    UndecidableError,
)
from blkmig_cli.schemas import constants as c
from blkmig_cli.schemas import framing as schema
from blkmig_cli.schemas import ram as ram_schema
from blkmig_cli.schemas.constants import SectionType
from blkmig_cli.schemas.dialects import DIALECTS
from blkmig_cli.text import decode_name
from blkmig_cli.wire.behind import behind_end
from blkmig_cli.wire.block import BlockDecoder
from blkmig_cli.wire.dirty_bitmap import DirtyBitmapDecoder
from blkmig_cli.wire.events import (
    BitmapBits,
    Block,
    CommandEvent,
    Conclusion,
    Configuration,
    DeviceState,
    Eof,
    Event,
    Footer,
    SectionHeader,
    Undecoded,
    VmDescription,
)
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.preamble import preamble
from blkmig_cli.wire.ram import RamContext, RamDecoder
from blkmig_cli.wire.recognition import HEADER, container_of, may_be_cut, not_a_stream
from blkmig_cli.wire.resync import (
    FOOTER_SIZE,
    LOOK_SIZE,
    footer_bytes,
    plausible,
    seek_footer,
    seek_header,
)
from blkmig_cli.wire.runs.columns import Piece, Run
from blkmig_cli.wire.runs.repeats import Repeats
from blkmig_cli.wire.schema_io import Input, Reader
from blkmig_cli.wire.v1.reading import After
from blkmig_cli.wire.vm_description import StateSizes, compare_sizes, find_description

Container = Literal["auto", "qemu", "none"]

# Sections with disks and bitmaps: their ends must be found.
_OURS = (c.BLOCK_SECTION, c.DIRTY_BITMAP_SECTION)
# Bytes of a stream that allow for another record in no regular order.
_BYTES_EACH = 64
# Of less, no runs may be taken, whatever its order: the peer is slow, or the end is near.
_HELD = 1 << 12


@dataclass(slots=True)
class Context:
    """The parts of a stream read so far on which the decoding of later bytes depends.

    ``start``: offset of the stream in the input.  ``sections``: starts by section id; ``open``: ids
    of sections that have not ended; ``footers``: whether sections have footers, None until the
    first one ends; ``description``: that at the input's end, None where there is none; ``irregular``: the
    number of events outside of runs, and of kinds of events in each run.
    """

    start: int = 0
    sections: dict[int, SectionHeader] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    footers: bool | None = None
    configured: bool = False
    ram: RamContext = field(default_factory=RamContext)
    description: StateSizes | Literal["unread"] | None = "unread"
    irregular: int = 0

    def configure(self, configuration: Configuration) -> None:
        """Apply the configuration."""
        self.configured = True
        bits = configuration.target_page_bits
        self.ram.page_size = None if bits is None else 1 << bits
        self.ram.capabilities = frozenset(configuration.capabilities or ())

    def copy(self) -> "Context":
        """Return an independent copy."""
        return replace(
            self, sections=dict(self.sections), open=set(self.open), ram=replace(self.ram)
        )


class Decoder:
    """Iterator over the events of the stream that begins at the position of ``source``.

    ``dialect``: a value of ``--dialect``; ``container`` likewise.  ``keep_state``: device state from
    a pipe is held in memory, so that it can be viewed.  ``chosen``: further streams may follow in the
    same input; without it, SeveralStreamsError is raised after the last event if one does.

    ``container`` and ``block.dialect`` are what has been detected so far.  ``next_stream`` is the
    offset of a further stream, at which the input then is; None if there is none.
    """

    def __init__(
        self,
        source: Input,
        *,
        dialect: str = "auto",
        container: Container = "auto",
        hints: Hints | None = None,
        keep_state: bool = False,
        chosen: bool = False,
    ) -> None:
        self._reader = Reader(source, keep=keep_state)
        self.source = source
        self.hints = hints or Hints()
        self.container: Container = container
        self.chosen = chosen
        self.next_stream: int | None = None
        self.context = Context(source.offset, ram=RamContext(source.origin))
        self.block = BlockDecoder(self._reader, DIALECTS.get(dialect), self.hints, self._after_eos)
        self.bitmaps = DirtyBitmapDecoder(self._reader)
        self._ram = RamDecoder(self._reader)
        self._current = 0
        self._undecoded = False
        self._package_end: int | None = None
        self._states: dict[tuple[str, int], DeviceState] = {}
        self._failure: BlkmigError | None = None
        self._pieces = self._decode()
        self._run: Iterator[Event] = iter(())
        self._repeats = Repeats(source, {Block: self.block, BitmapBits: self.bitmaps})

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
        """Return the next event, or the next run of events.

        Raises StopIteration at the end, as ``next`` does; do not use both on one decoder.
        """
        if self._failure is not None:
            raise self._failure
        try:
            piece = next(self._pieces)
            self._limit(piece)
            return piece
        except TruncatedError as error:
            self._failure = self.source.damage or error
        except BlkmigError as error:
            self._failure = error
        raise self._failure

    def _limit(self, piece: Piece) -> None:
        """Raise LimitError for too many events that are not in runs, each of which takes time."""
        context, source = self.context, self.source
        if isinstance(piece, Run):
            context.irregular += len(piece.columns)
        elif source.held >= _HELD:
            context.irregular += 1
        if context.irregular > limits.IRREGULAR_MAX:
            most = limits.IRREGULAR_MAX + (source.offset - context.start) // _BYTES_EACH
            if context.irregular > most:
                message = f"over {most} records and headers in no regular order"
                start = piece.start if isinstance(piece, Run) else piece.offset
                raise LimitError(message, offset=start, section=self._reader.section)

    def pieces(self) -> Iterator[Piece]:
        """Return all that :meth:`piece` returns, and raise what it raises."""
        while True:
            try:
                piece = self.piece()
            except StopIteration:
                return
            yield piece

    def conclusion(self) -> Conclusion:
        """Return what is known so far beyond the events; final after the last event."""
        dialect, layouts = self.block.dialect, self.block.layouts
        return Conclusion(
            None if self.container == "auto" else self.container,
            None if dialect is None else dialect.name,
            layouts.tails(),
            layouts.all_granularities(),
        )

    def _decode(self) -> Iterator[Piece]:
        if self.container != "none":
            self.container = self._detect(self.container)
        if self.container == "none":
            yield from self._bare()
            return
        for event in preamble(self._reader):
            if isinstance(event, Configuration):
                self.context.configure(event)
            yield event
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
                if self._undecoded:
                    yield from self._behind()
                    return
            else:
                self._reader.fail(
                    f"section type {kind[0]:#04x} is unknown", check="unknown-section"
                )
        yield from self._end()

    def _detect(self, stated: Container) -> Container:
        head = self.source.peek(len(HEADER))
        found = container_of(head)
        if found == "none" and stated == "qemu":
            raise NotAStreamError(
                "not a migration stream in QEMU's container (no QEVM magic)",
                offset=self.source.offset,
                hint="use --container none for block records without container",
            )
        if found is not None:
            return found
        if 0 < len(head) < len(HEADER) and may_be_cut(head):
            end = self.source.offset + len(head)
            raise TruncatedError(f"stream truncated at byte {end}, inside its header", offset=end)
        raise not_a_stream(self.source)

    def _bare(self) -> Iterator[Piece]:
        yield from self.block.payload()
        while (data := self.source.peek(len(HEADER))) and data != HEADER:
            yield from self.block.payload()
        yield from self._behind()

    def _end(self) -> Iterator[Event]:
        reader = self._reader
        reader.take(schema.TypeByte)
        if self._package_end is not None:
            reader.fail("the stream ends inside a package")
        yield Eof(reader.start, 1, None)
        reader.begin()
        if reader.source.peek(1) == bytes([SectionType.VMDESCRIPTION]):
            yield self._description()
        elif any(state.sized_by == "description" for state in self._states.values()):
            reader.fail(
                "device state was sized by a description that is not this stream's",
                check="device-state",
            )
        yield from self._behind()

    def _description(self) -> VmDescription:
        """Read the description and compare it with the preceding device states."""
        reader = self._reader
        _, length = reader.take(schema.DescriptionHead)
        if length > limits.DESCRIPTION_MAX:
            reader.fail(f"the description is {length} bytes long")
        payload = reader.payload(length)
        confirmed, mismatches = compare_sizes(self._states, self.source.view(payload))
        return VmDescription(reader.start, reader.length(), None, payload, confirmed, mismatches)

    def _behind(self) -> Iterator[Event]:
        """Yield the bytes after the stream's end as an event; detect a further stream."""
        self.next_stream = yield from behind_end(self._reader)
        if self.next_stream is not None and not self.chosen:
            self._refuse()

    def _refuse(self) -> NoReturn:
        """Raise SeveralStreamsError; for a file, with the offsets of all streams."""
        starts, following = [self.context.start], self.next_stream
        while following is not None and len(starts) < limits.STREAMS_MAX:
            starts.append(following)
            if not self.source.seekable:
                break
            decoder = Decoder(self.source, hints=self.hints, chosen=True)
            try:
                while True:
                    decoder.piece()
            except (StopIteration, StreamError):
                following = decoder.next_stream
        raise SeveralStreamsError(starts, counted=self.source.seekable)

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
                reader.fail("a package command is malformed or inside a package")
            package = int.from_bytes(data, "big")
            self._package_end = self.source.offset + package
        elif number == c.Command.POSTCOPY_ADVISE and data:
            if len(data) != ram_schema.PostcopyAdvise.sizeof():
                reader.fail(f"the command postcopy-advise has {length} bytes of data")
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
        if self._undecoded:
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
                reader.fail(f"section id {section_id} is used twice")
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
            yield from self._ram.payload(self.context.ram)
        else:
            yield from self._state(header)

    def _state(self, header: SectionHeader) -> Iterator[Event]:
        """Yield a payload that is sized by its footer or by the description."""
        reader, source = self._reader, self.source
        offset = reader.begin()
        size = self._described(header)
        if size is not None:
            reader.skip(size)
            sized_by = "description"
        elif self.context.footers is not False and seek_footer(
            reader, header.id, self.context.sections, self._package_end
        ):
            sized_by = "footer"
        else:
            yield from self._no_end(header, offset)
            return
        state = DeviceState(offset, source.offset - offset, reader.section, sized_by)
        if header.kind == SectionType.FULL and header.section is not None:
            self._states[header.section, header.instance] = state
        yield state

    def _described(self, header: SectionHeader) -> int | None:
        """Return the plausible size stated in the description, if the stream has no footers."""
        has_footers = self.context.footers or (
            self.context.footers is None and self.context.configured
        )
        if has_footers or header.kind != SectionType.FULL or header.section is None:
            return None
        if self.context.description == "unread":
            self.context.description = find_description(self.source)
        if self.context.description is None:
            return None
        size = self.context.description.get((header.section, header.instance))
        if size is None or size > limits.DESCRIPTION_REACH:
            return None
        behind = self.source.peek_at(self.source.offset + size, LOOK_SIZE)
        if self.context.footers is None and behind.startswith(footer_bytes(header.id)):
            return size
        return size if plausible(behind, self.context.sections) else None

    def _no_end(self, header: SectionHeader, offset: int) -> Iterator[Event]:
        """Yield a payload whose end is unknown: all remaining bytes, up to a further stream."""
        reader, source = self._reader, self.source
        seek_header(reader)
        self._undecoded = True
        reason = "the end of this state is unknown"
        yield Undecoded(offset, source.offset - offset, reader.section, reason)
        if self.context.footers:
            raise TruncatedError(
                f"stream truncated at byte {source.offset}, inside a section's state: its footer "
                "is missing",
                offset=source.offset,
                section=header.section,
            )
        unfinished = [self.context.sections[number].section for number in self.context.open]
        if any(name in _OURS for name in unfinished):
            raise UndecidableError(
                "the end of this section is unknown, and blocks or bitmaps are not complete",
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
        """Return what follows at ``offset`` if a payload's records end there."""
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
