"""Events as lines of text, with long runs of empty parts as one line."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

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
from blkmig_cli.wire.runs import Piece, Run


@dataclass(frozen=True, slots=True)
class EmptyParts(Event):
    """``number`` consecutive section parts that have only an end."""

    type = "empty-parts"
    number: int


def fold_ram(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Return the pieces, with the RAM records of one part as a single ``RamStretch``."""
    stretch: RamStretch | None = None
    for piece in pieces:
        if isinstance(piece, Ram):
            if stretch is None:
                stretch = RamStretch(piece.offset, 0, piece.section, 0)
            stretch = replace(
                stretch, length=stretch.length + piece.length, records=stretch.records + 1
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


def fold_empty(events: Iterable[Event], least: int = 3) -> Iterator[Event]:
    """Return the events (of :func:`fold_ram`), with ``least`` or more consecutive empty parts as one."""
    part: list[Event] = []
    run: list[Event] = []
    number = 0
    for event in chain(events, [None]):
        if len(part) == 1 and event is not None and _is_empty(event):
            part.append(event)
            continue
        if len(part) == 2:
            footer = isinstance(event, Footer)
            run.extend([*part, event] if event is not None and footer else part)
            part, number = [], number + 1
            if number >= least:
                # Only the extent of folded parts is shown, so that nothing else is stored.
                run = [EmptyParts(run[0].offset, _extent(run), None, number)]
            if footer:
                continue
        if not part and isinstance(event, SectionHeader) and event.kind == SectionType.PART:
            part = [event]
            continue
        yield from run
        yield from part
        run, part, number = [], [], 0
        if isinstance(event, SectionHeader) and event.kind == SectionType.PART:
            part = [event]
        elif event is not None:
            yield event


def _extent(run: list[Event]) -> int:
    return run[-1].offset + run[-1].length - run[0].offset


def _is_empty(event: Event) -> bool:
    return isinstance(event, Eos | BitmapEos) or (
        isinstance(event, RamStretch) and event.records == 1
    )


def line(event: Event) -> str:
    """Return ``event`` as one line: offset, size, section, description."""
    section = "-" if event.section is None else escape(event.section)
    size = human_size(event.length)
    return f"{event.offset:>13}  {size:>9}  {section:<12}  {describe(event)}"


HEADING = f"{'OFFSET':>13}  {'SIZE':>9}  {'SECTION':<12}  RECORD"


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
