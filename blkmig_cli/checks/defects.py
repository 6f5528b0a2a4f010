"""Detecting the known defects of QEMU in the events of one stream.

The decoder refuses what breaks a rule of the format; these defects are in streams that can be decoded.
"""

from collections.abc import Iterator
from dataclasses import field
from operator import attrgetter

import numpy as np

from blkmig_cli.checks.catalogue import CHECKS, Finding, Found
from blkmig_cli.contents.padding import leaked, padding
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.formats import other_format
from blkmig_cli.schemas.constants import CHUNK_SIZE, SECTOR_SIZE, RamFlag, SectionType
from blkmig_cli.text import brief, count, quote
from blkmig_cli.wire.events import (
    BitmapChunk,
    BitmapEos,
    Block,
    DeviceState,
    Eos,
    Event,
    Footer,
    Payload,
    Progress,
    Ram,
    SectionHeader,
    StateMismatch,
    VmDescription,
)
from blkmig_cli.wire.runs.columns import Column, Run, in_order, moved
from blkmig_cli.wire.schema_io import Input

# More empty parts than a slow disk explains.
_MANY_PARTS = 1000
# Progress records out of range that are reported one by one.
_PROGRESS_SHOWN = 16
_UNNAMED = ""


def _ends_payload(event: Event) -> bool:
    """Return whether ``event`` is the only one in an empty part."""
    return isinstance(event, Eos | BitmapEos) or (
        isinstance(event, Ram) and event.flags == RamFlag.EOS
    )


# What an event is to a part: its head, its footer, the end of its payload, or content.
_HEAD, _FOOT, _END, _CONTENT = range(4)


def _role(event: Event) -> int:
    if isinstance(event, SectionHeader) and event.kind == SectionType.PART:
        return _HEAD
    if isinstance(event, Footer):
        return _FOOT
    return _END if _ends_payload(event) else _CONTENT


@dataclass(slots=True)
class _Tail:
    """The records at a disk's highest sector; offsets of their data where the padding is unknown."""

    sector: int
    offset: int
    uncounted: list[int] = field(default_factory=list)


class Defects:
    """A consumer of events that finds defects in them.

    ``merged`` becomes true at the record that proves a disk and its own file to be mixed.
    """

    def __init__(self) -> None:
        self.merged = False
        self._merged_at = 0
        self._unnamed: Block | None = None
        self._unnamed_repeats = 0
        self._formats: set[str | None] = set()
        self._leaks: dict[str, tuple[int, int]] = {}
        self._tails: dict[str, _Tail] = {}
        self._header: SectionHeader | None = None
        self._empty: dict[str, int] = {}
        self._empty_from = 0
        self.progress: list[Finding] = []
        self._resynchronised: set[int] = set()
        self._mismatches: list[StateMismatch] = []

    def feed(self, event: Event, source: Input) -> None:
        """Take the next event."""
        if isinstance(event, BitmapChunk):
            self._header = None
            return
        if isinstance(event, Progress):
            if event.percent > 100:
                self._progress(event.percent, event.offset)
        elif isinstance(event, DeviceState) and event.sized_by == "footer":
            self._resynchronised.add(event.offset)
        elif isinstance(event, VmDescription):
            self._mismatches += event.mismatches
            self._resynchronised -= event.confirmed
            self._resynchronised -= {state.offset for state in event.mismatches}
        if isinstance(event, SectionHeader):
            self._header = event if event.kind == SectionType.PART else None
        elif isinstance(event, Footer):
            if self._header is not None:
                self._empty_part(self._header)
        elif isinstance(event, Block):
            self._header = None
            self._feed_block(event, source)
        elif self._header is not None and not _ends_payload(event):
            self._header = None

    def feed_run(self, run: Run, source: Input) -> None:
        """Take a run of events."""
        self._feed_parts(run)
        progress = [column for column in run.columns if isinstance(column.event, Progress)]
        if progress:
            percents, offsets = in_order(progress)
            for row in np.flatnonzero(percents > 100)[:_PROGRESS_SHOWN].tolist():
                self._progress(int(percents[row]), int(offsets[row]))
        blocks = [event for column in run.columns for event in self._telling(column)]
        for event in sorted(blocks, key=attrgetter("offset")):
            self._feed_block(event, source)

    def tail(self, device: str, size: int, source: Input) -> Iterator[Found]:
        """Yield the defects of the last chunk of a disk of ``size`` bytes or fewer."""
        leaks, offset = self._leaks.get(device, (0, None))
        tail = self._tails.get(device)
        inside = CHUNK_SIZE if tail is None else size - tail.sector * SECTOR_SIZE
        cut = 0 < inside < CHUNK_SIZE
        if tail is not None and cut and source.seekable:
            # A pipe no longer has the payload; if the size was known in time, it has been counted.
            for start in tail.uncounted:
                leaks += leaked(Payload(start + inside, CHUNK_SIZE - inside), source)
                offset = tail.offset
        if leaks:
            text = f"{count(leaks, 'byte')} of other data after the disk's end"
            yield "padding-leak", f"{text}; blkmig scrub zeroes them", offset
        if tail is not None and cut:
            text = "the disk's end cuts the last chunk, which QEMU 2.10 to 9.0 fails to load"
            yield "partial-tail", text, tail.offset

    def findings(self) -> Iterator[Found]:
        """Yield the defects of the entire stream."""
        if self.merged:
            text = "a disk and the file that holds it are mixed under an empty name"
            yield "merged-devices", f"{text}; neither can be recovered", self._merged_at
        elif self._unnamed is not None:
            text = "a disk without a name: no QEMU loads it"
            if self._unnamed_repeats:
                text += f"; {count(self._unnamed_repeats, 'first chunk')} more sent: several disks?"
            yield "unnamed-device", text, self._unnamed.offset
        total = sum(self._empty.values())
        if total >= _MANY_PARTS:
            names = ", ".join(self._empty)
            yield "empty-parts", f"{count(total, 'empty part')} ({names})", self._empty_from
        for state in self._mismatches:
            text = (
                f"the state of {quote(state.section)} is {count(state.length, 'byte')} long, the "
                f"description says {state.described:,}"
            )
            yield "device-state", text, state.offset
        if self._resynchronised:
            number = count(len(self._resynchronised), "section")
            text = f"the state of {number} was sized by its footer"
            yield "resynchronised", text, min(self._resynchronised)

    def _progress(self, percent: int, offset: int) -> None:
        check = "progress-range"
        if len(self.progress) < _PROGRESS_SHOWN:
            text = f"progress of {brief(percent)} percent"
            self.progress.append(Finding(check, CHECKS[check][0], text, offset))

    def _empty_part(self, header: SectionHeader, number: int = 1) -> None:
        """Count empty parts, of which the first one begins with ``header``."""
        if not self._empty:
            self._empty_from = header.offset
        name = header.section or ""
        self._empty[name] = self._empty.get(name, 0) + number
        self._header = None

    def _feed_block(self, event: Block, source: Input) -> None:
        if event.device == _UNNAMED:
            self._feed_unnamed(event, source)
        if event.data is not None:
            self._feed_tail(event, event.data, source)

    def _feed_unnamed(self, event: Block, source: Input) -> None:
        if self._unnamed is None:
            self._unnamed = event
        if event.sector != 0:
            return
        found = None
        if event.data is not None:
            found = other_format(bytes(source.view(Payload(event.data.offset, SECTOR_SIZE))))
        self._unnamed_repeats += bool(self._formats)
        self._formats.add(found)
        if len(self._formats) > 1 and not self.merged:
            self.merged, self._merged_at = True, event.offset

    def _telling(self, column: Column) -> Iterator[Block]:
        """Yield those records of ``column`` that may show a defect."""
        event, sectors = column.event, column.numbers
        if not isinstance(event, Block) or sectors is None:
            return
        if event.device != _UNNAMED and event.data is None:
            return
        wanted = np.zeros(len(sectors), bool)
        if event.device == _UNNAMED:
            wanted |= sectors == 0
            wanted[0] |= self._unnamed is None
        if event.data is not None:
            # The disk's end may cut only those at the highest sector so far.
            tail = self._tails.get(event.device)
            wanted |= sectors == max(int(sectors.max()), -1 if tail is None else tail.sector)
        for row in np.flatnonzero(wanted).tolist():
            by = int(column.offsets[row]) - event.offset
            yield moved(event, by, int(sectors[row]))

    def _feed_parts(self, run: Run) -> None:
        """Take the sections of a run."""
        roles = np.array([_role(column.event) for column in run.columns])
        if not np.any((roles == _HEAD) | (roles == _FOOT)):
            if np.any(roles == _CONTENT):
                self._header = None
            return
        order = run.order()
        order = order[roles[order] != _END]
        found = roles[order]
        # A part is empty if its footer follows its head, but for the end of its payload.
        empty = np.flatnonzero((found[:-1] == _HEAD) & (found[1:] == _FOOT))
        if found[0] == _FOOT and self._header is not None:
            self._empty_part(self._header)
        heads, firsts, numbers = np.unique(order[empty], return_index=True, return_counts=True)
        for at in np.argsort(firsts).tolist():
            column = run.columns[int(heads[at])]
            row = int(np.count_nonzero(order[: empty[firsts[at]]] == heads[at]))
            head = column.part(slice(row, row + 1)).event
            assert isinstance(head, SectionHeader)
            self._empty_part(head, int(numbers[at]))
        self._header = None
        last = run.columns[int(order[-1])].part(slice(-1, None)).event
        if found[-1] == _HEAD and isinstance(last, SectionHeader):
            self._header = last

    def _feed_tail(self, event: Block, data: Payload, source: Input) -> None:
        tail = self._tails.get(event.device)
        if tail is None or event.sector > tail.sector:
            tail = self._tails[event.device] = _Tail(event.sector, event.offset)
        part = padding(event, None)
        if part is not None:
            number, _ = self._leaks.get(event.device, (0, 0))
            found = leaked(part, source)
            if found:
                self._leaks[event.device] = (number + found, event.offset)
        elif event.sector == tail.sector:
            tail.uncounted.append(data.offset)
