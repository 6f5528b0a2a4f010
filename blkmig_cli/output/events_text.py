"""Events as lines of text, with long runs of empty parts as one line."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas.constants import BlockFlag, Command, RamFlag, SectionType, without
from blkmig_cli.text import bitmap_name, count, device_name, escape, human_size
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapChunk,
    BitmapEos,
    BitmapStart,
    Block,
    CommandEvent,
    Configuration,
    DeviceState,
    Eos,
    Event,
    Footer,
    Header,
    Progress,
    Ram,
    RamStretch,
    SectionHeader,
    Undecoded,
)
from blkmig_cli.wire.runs.columns import Column, Piece, Run


@dataclass(frozen=True, slots=True)
class EmptyParts(Event):
    """``number`` consecutive section parts that have only an end."""

    type = "empty-parts"
    number: int


def fold_ram(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Return the pieces, with the RAM records of one part as a single ``RamStretch``."""
    stretch: RamStretch | None = None
    for piece in pieces:
        first = piece.columns[0].event if isinstance(piece, Run) else piece
        if isinstance(first, Ram):  # so are the others of a run, which is within a part
            if stretch is None:
                stretch = RamStretch(first.offset, 0, first.section, 0)
            run = piece if isinstance(piece, Run) else None
            end, records = (run.end, len(run)) if run else (first.offset + first.length, 1)
            stretch = replace(
                stretch, length=end - stretch.offset, records=stretch.records + records
            )
            continue
        if stretch is not None:
            yield stretch
            stretch = None
        yield _folded(piece) if isinstance(piece, Run) else piece
    if stretch is not None:
        yield stretch


def _folded(run: Run) -> Run:
    """Return ``run``, in which every RAM record is the only one of its part, with stretches."""
    columns = [
        replace(column, event=RamStretch(event.offset, event.length, event.section, 1))
        if isinstance(event := column.event, Ram)
        else column
        for column in run.columns
    ]
    return replace(run, columns=tuple(columns))


def fold_empty(pieces: Iterable[Piece], least: int = 3) -> Iterator[Piece]:
    """Return the pieces (of :func:`fold_ram`), with ``least`` or more empty parts in a row as one."""
    folding = _Folding(least)
    for piece in pieces:
        if not isinstance(piece, Run):
            yield from folding.take(piece)
            continue
        heads, empty = _parts(piece)
        if empty and empty == heads and all(map(_is_framing, piece.columns)):
            folding.take_parts(piece, empty)
        elif empty:
            for event in piece:
                yield from folding.take(event)
        else:
            yield from folding.flush()
            yield piece
    yield from folding.flush()


class _Folding:
    """Empty parts in a row, which ``least`` or more of are one event; and the part that may be next."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._empty: list[Event] = []
        self._number = 0
        self._part: list[Event] = []

    def take(self, event: Event) -> Iterator[Event]:
        """Take the next event; return those that are not folded."""
        if len(self._part) == 1 and _is_empty(event):
            self._part.append(event)
            return
        if len(self._part) == 2:
            has_footer = isinstance(event, Footer)
            self._add([*self._part, event] if has_footer else self._part, 1)
            self._part = []
            if has_footer:
                return
        begins = isinstance(event, SectionHeader) and event.kind == SectionType.PART
        if self._part or not begins:
            yield from self.flush()
        if begins:
            self._part = [event]
        else:
            yield event

    def take_parts(self, run: Run, number: int) -> None:
        """Take a run of nothing but ``number`` empty parts."""
        start = run.columns[0].event.offset
        parts: list[Event] = [EmptyParts(start, run.end - start, None, number)]
        self._add(parts if self._number + number >= self._least else list(run), number)

    def flush(self) -> Iterator[Event]:
        """Return all that is held."""
        if len(self._part) == 2:
            self._add(self._part, 1)
            self._part = []
        yield from self._empty
        yield from self._part
        self._empty, self._part, self._number = [], [], 0

    def _add(self, events: list[Event], number: int) -> None:
        self._empty += events
        self._number += number
        if self._number >= self._least:
            # Of what is folded, only the extent is shown.
            extent = _extent(self._empty)
            self._empty = [EmptyParts(self._empty[0].offset, extent, None, self._number)]


def _extent(run: list[Event]) -> int:
    return run[-1].offset + run[-1].length - run[0].offset


def _is_empty(event: Event) -> bool:
    return isinstance(event, Eos | BitmapEos) or (
        isinstance(event, RamStretch) and event.records == 1
    )


def _is_framing(column: Column) -> bool:
    return isinstance(column.event, SectionHeader | Footer) or _is_empty(column.event)


def _parts(run: Run) -> tuple[int, int]:
    """Return the number of parts that begin in ``run``, and of those that have only an end."""
    heads = np.array([isinstance(c.event, SectionHeader) for c in run.columns])
    if not heads.any():
        return 0, 0
    ends = np.array([_is_empty(column.event) for column in run.columns])
    order = run.order()
    empty = heads[order[:-1]] & ends[order[1:]]
    return int(np.count_nonzero(heads[order])), int(np.count_nonzero(empty))


def line(event: Event) -> str:
    """Return ``event`` as one line: offset, size, section, description."""
    section = "-" if event.section is None else escape(event.section)
    size = human_size(event.length)
    return f"{event.offset:>{OFFSET_WIDTH}}  {size:>9}  {section:<12}  {describe(event)}"


#: Characters of an offset, at least.
OFFSET_WIDTH = 13
HEADING = f"{'OFFSET':>{OFFSET_WIDTH}}  {'SIZE':>9}  {'SECTION':<12}  RECORD"


def describe(event: Event) -> str:
    """Return a short description of an event."""
    match event:
        case Block():
            return _block(event)
        case Progress():
            return f"progress {event.percent} %"
        case SectionHeader():
            version = f", version {event.version}" if event.kind != SectionType.PART else ""
            return f"{event.type} #{event.id}{version}"
        case Footer():
            return f"footer #{event.id}"
        case Header():
            return f"QEVM version {event.version}"
        case Configuration():
            more = f", capabilities {', '.join(map(escape, event.capabilities or ()))}"
            return f"machine {escape(event.machine)}{more if event.capabilities else ''}"
        case CommandEvent():
            name = Command(event.command).name.lower().replace("_", "-")
            package = (
                "" if event.package is None else f", {human_size(event.package)} of package follow"
            )
            return f"command {name}{package}"
        case BitmapStart():
            name = bitmap_name(event.device, event.bitmap)
            return f"{name}: starts, granularity {human_size(event.granularity)}"
        case BitmapBits():
            kind = "clean" if event.bits is None else f"{human_size(event.bits.length)} of bits"
            name = bitmap_name(event.device, event.bitmap)
            return f"{name}: sectors {event.sector}+{event.sectors}, {kind}"
        case BitmapChunk():
            return f"{bitmap_name(event.device, event.bitmap)}: complete"
        case EmptyParts():
            return count(event.number, "empty part")
        case RamStretch():
            return count(event.records, "record")
        case Ram():
            flag = without(event.flags, RamFlag.CONTINUE)
            name = (RamFlag(flag).name or hex(flag)).lower().replace("_", "-")
            block = "" if event.block is None else f" {escape(event.block)}"
            return f"{name}{block} {event.offset_in_block:#x}"
        case DeviceState():
            return f"device state, sized by its {event.sized_by}"
        case Undecoded():
            return f"undecoded: {event.reason}"
    return event.type


def _block(event: Block) -> str:
    zero = event.flags & BlockFlag.ZERO_BLOCK
    data = "data" if event.data is not None else "zeros" if zero else "no data"
    sectors = f"{event.sector}+{event.sectors}"
    bitmaps = f", {count(len(event.bitmaps), 'bitmap')}" if event.bitmaps else ""
    return f"{device_name(event.device)}: sectors {sectors}, {data}{bitmaps}"
