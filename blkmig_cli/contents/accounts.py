"""Accounts of a stream's bytes, by kind and by section, with its version and machine.

Every byte of every event is of one kind, so that the kinds add up to the bytes read.
"""

from dataclasses import field

from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas.constants import CHUNK_SIZE, SECTOR_SIZE
from blkmig_cli.wire.events import (
    BitmapBits,
    BitmapChunk,
    BitmapEos,
    Block,
    Configuration,
    DeviceState,
    Eos,
    Event,
    Header,
    Progress,
    Ram,
    RamStretch,
    SectionHeader,
    Undecoded,
)
from blkmig_cli.wire.runs.columns import Run
from blkmig_cli.wire.schema_io import Input

#: The kinds of bytes in the order in which they are shown, each with its description.
KINDS = {
    "data": "content of disks",
    "padding": "the rest of last chunks that a disk's end cuts",
    "bitmaps": "bits of dirty bitmaps",
    "records": "heads of blocks and bitmaps, progress",
    "framing": "sections, commands, the description of the machine",
    "ram": "the machine's memory",
    "devices": "the state of devices",
    "undecoded": "what nothing explains",
}


@dataclass(slots=True)
class Section:
    """The sections of one name: number of section heads (start, parts and end each count), and bytes."""

    parts: int = 0
    size: int = 0


@dataclass(slots=True)
class _Top:
    """A disk's highest sector with data, and its number of records with data."""

    sector: int = -1
    records: int = 0


@dataclass(slots=True)
class Accounts:
    """A consumer of all events of a stream that adds up their bytes.

    ``sections``: by name, "" for bytes outside of sections.  ``version`` is that of the stream's header.
    """

    kinds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    sections: dict[str, Section] = field(default_factory=dict)
    version: int | None = None
    configuration: Configuration | None = None
    _tops: dict[str, _Top] = field(default_factory=dict)

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event."""
        self._count(event, 1)
        if isinstance(event, Block) and event.data is not None:
            self._top(event.device, event.sector, 1)
        elif isinstance(event, Configuration):
            self.configuration = event
        elif isinstance(event, Header):
            self.version = event.version

    def feed_run(self, run: Run, source: Input) -> None:
        """Take a run of events."""
        for column in run.columns:
            self._count(column.event, column.rows)
            if isinstance(column.event, Block) and column.event.data is not None:
                assert column.numbers is not None
                top = int(column.numbers.max())
                self._top(column.event.device, top, int((column.numbers == top).sum()))

    def settle(self, sizes: dict[str, int]) -> None:
        """Separate padding from data, with the known ``sizes`` of disks in bytes."""
        for device, size in sizes.items():
            top = self._tops.get(device)
            cut = 0 if top is None else top.sector * SECTOR_SIZE + CHUNK_SIZE - size
            if top is not None and 0 < cut < CHUNK_SIZE:
                self._move("data", "padding", cut * top.records)

    @property
    def total(self) -> int:
        """Bytes of all events."""
        return sum(self.kinds.values())

    @property
    def overhead(self) -> float | None:
        """Bytes of bitmaps and of records' heads for each byte of data; None where there is none."""
        data = self.kinds["data"]
        return (self.kinds["bitmaps"] + self.kinds["records"]) / data if data else None

    def _count(self, event: Event, rows: int) -> None:
        section = self.sections.setdefault(event.section or "", Section())
        section.size += event.length * rows
        section.parts += rows * isinstance(event, SectionHeader)
        kind = _kind(event)
        self.kinds[kind] += event.length * rows
        if isinstance(event, Block):
            data = 0 if event.data is None else event.data.length
            bits = sum(part.bits.length for part in event.bitmaps)
            self._move(kind, "data", data * rows)
            self._move(kind, "bitmaps", bits * rows)
        elif isinstance(event, BitmapBits) and event.bits is not None:
            self._move(kind, "bitmaps", event.bits.length * rows)

    def _move(self, kind: str, to: str, size: int) -> None:
        self.kinds[kind] -= size
        self.kinds[to] += size

    def _top(self, device: str, sector: int, records: int) -> None:
        top = self._tops.setdefault(device, _Top())
        if sector > top.sector:
            top.sector, top.records = sector, 0
        if sector == top.sector:
            top.records += records


def _kind(event: Event) -> str:
    match event:
        case Block() | Progress() | Eos() | BitmapChunk() | BitmapEos():
            return "records"
        case Ram() | RamStretch():
            return "ram"
        case DeviceState():
            return "devices"
        case Undecoded():
            return "undecoded"
    return "framing"
