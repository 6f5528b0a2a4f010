"""Consumers take any neighbouring events as a run, and find what they find in them one by one.

Records of a run are of whole chunks, or of zeros past the disk's end.
"""

import struct
from collections.abc import Sequence
from typing import Any

import pytest

from blkmig_cli.checks.checker import Checker
from blkmig_cli.contents.accounts import Accounts
from blkmig_cli.contents.final_layout import EndStates
from blkmig_cli.contents.state import StreamState
from blkmig_cli.schemas.constants import SectionType
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import SectionHeader
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Consumer
from tests.support import raw
from tests.support.feed import in_file
from tests.support.runs import run_of

MIB = 1 << 20
DATA = b"\1" * MIB
OTHER = b"QFI\xfb".ljust(MIB, b"\2")
EMPTY, EMPTY_BITMAPS = raw.EOS, b"\1"


def word(number: int) -> bytes:
    return (number * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(8, "little")


def zeros(*sectors: int, device: str = "d") -> list[bytes]:
    return [raw.block(sector, 8, device) + raw.EOS for sector in sectors]


def data(*sectors: int, device: str = "d", content: bytes = DATA) -> list[bytes]:
    return [raw.block(sector, 0, device, content) + raw.EOS for sector in sectors]


def v1(*sectors: int, flags: int = 0x28, size: int = 8) -> list[bytes]:
    return [
        raw.block(at, flags, rest=raw.v1(("b", word(at + 1) * (size // 8)))) + raw.EOS
        for at in sectors
    ]


def v2(*sectors: int, granularity: int = 65536, flags: int = 0x68) -> list[bytes]:
    """Records of chunks with a bitmap, which is clean in every third, and of changing flags."""
    return [
        raw.block(at, flags, rest=raw.v2(2048, ("b", at // 4096 % 2 * 3, granularity, bits)))
        + raw.EOS
        for at in sectors
        for bits in [word(at) if at // 2048 % 3 else b""]
    ]


def bits(*chunks: int) -> list[bytes]:
    """Chunks of the section for bitmaps, by the number of their word; every third is clean."""
    return [
        b"\x42" + struct.pack(">QI", at * 8192, 8192) + b"\1"
        if at % 3 == 2
        else raw.bitmap_bits(at * 8192, 8192, word(at + 1)) + b"\1"
        for at in chunks
    ]


def progress(*percents: int) -> list[bytes]:
    return [raw.progress(percent) + raw.EOS for percent in percents]


def within(*records: bytes) -> list[bytes]:
    """Several records in one part."""
    return [b"".join(record.removesuffix(raw.EOS) for record in records) + raw.EOS]


CHUNK = 2048
CHUNKS = [at * CHUNK for at in range(8)]
UP, DOWN = CHUNKS, CHUNKS[::-1]
MIXED = [0, 4096, 2048, 8192, 8192, 6144, 0, 12288]
#: What: parts, in which the section of a payload is that of bitmaps if it ends so, and hints.
STREAMS: dict[str, tuple[list[bytes], dict[str, Any]]] = {
    "up": (zeros(*UP), {}),
    "down": (zeros(*DOWN), {}),
    "in any order": (zeros(*MIXED), {}),
    "off the grid": (zeros(0, 100, 2048, 2100, 5000), {}),
    "data": (data(0, 2048, 6144, 4096, 2048), {}),
    "data down": (data(6144, 4096, 2048, 0), {}),
    "data and zeros": (data(0) + zeros(0, 2048) + data(2048, 4096) + zeros(6144, 4096), {}),
    "two disks": (
        zeros(0, 2048) + zeros(0, device="e") + zeros(4096) + data(2048, 0, device="e"), {}),
    "past the end": (zeros(0, 6144, 2048, 6144, 4096, 8192, 0), {"sizes": {"d": 2 * MIB}}),
    "past the end, of which a range was sent": (
        v2(4096) + zeros(0, 4096, 6144, 4096, 6144, 4096), {"sizes": {"d": 2 * MIB}}),
    "without a name": (
        data(2048, 0, device="") + zeros(0, 2048, 0, device="")
        + data(0, device="", content=OTHER), {}),
    "progress": (
        progress(0) + zeros(0, 2048) + progress(1, 101) + zeros(4096) + progress(3, 200, 4), {}),
    "progress in parts": (
        within(*zeros(0), *progress(0), *zeros(2048)) + within(*progress(1, 2), *zeros(6144))
        + within(*progress(3), *zeros(4096), *progress(4)) + zeros(8192), {}),
    "empty parts": (
        [EMPTY, EMPTY, EMPTY_BITMAPS, *zeros(0), EMPTY, *progress(1), EMPTY_BITMAPS, EMPTY,
         EMPTY_BITMAPS, *data(2048), EMPTY], {}),
    "empty parts, those of bitmaps first": ([EMPTY_BITMAPS, EMPTY] * 4, {}),
    "v1": (v1(*UP), {"granularities": {(None, "b"): 16384}}),
    "v1, coarse": (v1(*DOWN), {"granularities": {(None, "b"): 1 << 20}}),
    "v1, off the grid": (
        v1(0, 2148, 1000, 5000), {"granularities": {(None, "b"): 16384}, "sizes": {"d": 9 * MIB}}),
    "v1, bits alone": (v1(*MIXED, flags=0x20), {"granularities": {(None, "b"): 1 << 16}}),
    "v1, unknown": (v1(*UP), {"sizes": {"d": 8 * MIB}}),
    "v2": (v2(*UP), {}),
    "v2 down": (v2(*DOWN), {}),
    "v2 in any order": (v2(*MIXED), {}),
    "v2, bits alone": (v2(*MIXED, flags=0x60), {}),
    "v2, fine": (v2(*UP, granularity=1 << 14), {}),
    "v2, coarse": (v2(*UP, granularity=1 << 22), {}),
    "v2, one granule a chunk": (v2(*DOWN, granularity=1 << 20), {}),
    "bits": (bits(0, 1, 2, 3, 2, 5), {}),
    "bits and blocks": (bits(0) + zeros(0) + bits(1, 2) + zeros(2048) + [EMPTY], {}),
}  # fmt: skip


def stream(payloads: Sequence[bytes]) -> bytes:
    """Return a stream with one part for each payload."""
    out = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    out += raw.start(2, "dirty-bitmap", 1, raw.bitmap_start() + b"\1") + raw.footer(2)
    for payload in payloads:
        number = 1 if payload.endswith(raw.EOS) else 2
        out += raw.part(number, payload) + raw.footer(number)
    out += raw.part(1, raw.progress(100) + raw.EOS, kind=3) + raw.footer(1)
    return out + raw.part(2, raw.COMPLETE + b"\1", kind=3) + raw.footer(2) + raw.EOF


def described(state: StreamState) -> list[Any]:
    """All that a state holds, in plain values."""
    found: list[Any] = [state.end, state.block_started, state.block_ended, state.progress]
    for disk in state.disks.values():
        found.append((disk.name, disk.chunks, disk.zero_chunks, disk.repeated_chunks, disk.top))
        found.append((disk.top_offset, disk.stated, disk.least))
        found.append((list(disk.covered), list(disk.bitmaps_covered)))
    for bitmap in state.bitmaps.values():
        found.append((bitmap.name, bitmap.granularity, bitmap.recording, bitmap.persistent))
        found.append((bitmap.ended, list(bitmap.covered), bitmap.candidates))
        content = bitmap.content
        found.append(None if content is None else list(content.ranges(None)))
    return found


class Taken:
    """What consumers find in a stream of which some neighbouring events come in a run."""

    def __init__(self, payloads: list[bytes], hints: dict[str, Any]) -> None:
        self.source = in_file(stream(payloads))
        self.hints = Hints(**hints)
        self.decoder = Decoder(self.source, hints=self.hints)
        self.events = list(self.decoder)
        kinds = [event.kind if isinstance(event, SectionHeader) else None for event in self.events]
        #: The events that may come in a run: those of parts.
        self.parts = range(kinds.index(SectionType.PART), kinds.index(SectionType.END))

    def found(self, start: int, end: int) -> list[Any]:
        """Return all that is found where the events [start, end) are one run."""
        checker, places, accounts = Checker(self.hints), EndStates(), Accounts()
        consumers: list[Consumer] = [checker, places, accounts]
        for consumer in consumers:
            for event in self.events[:start]:
                consumer.feed(event, self.source)
            if start < end:
                consumer.feed_run(run_of(self.events[start:end], self.source), self.source)
            for event in self.events[end:]:
                consumer.feed(event, self.source)
        report = checker.finish("s", self.decoder)
        # Of each disk, its end cuts the last chunk.
        accounts.settle({disk.name: disk.top * 512 + 700 for disk in checker.state.disks.values()})
        layouts = {
            name: (list(layout.repeated), [
                (at, None if stretch.offset is None else stretch.place(at)[0])
                for stretch in layout
                for at in range(stretch.start, stretch.end, CHUNK)
            ])
            for name, layout in places.disks.items()
        }  # fmt: skip
        return [
            described(checker.state),
            report.findings,
            layouts,
            accounts.kinds,
            accounts.sections,
        ]


@pytest.mark.parametrize("what", STREAMS)
def test_any_events_as_a_run(what: str) -> None:
    taken = Taken(*STREAMS[what])
    expected = taken.found(0, 0)
    first, end = taken.parts.start, taken.parts.stop
    for cut in range(first + 1, end + 1):
        assert taken.found(first, cut) == expected, ("up to", cut)
        assert taken.found(cut - 1, end) == expected, ("from", cut)


@pytest.mark.parametrize("what", STREAMS)
def test_a_state_after_a_run(what: str) -> None:
    """It is up to date at once."""
    taken = Taken(*STREAMS[what])
    first, end = taken.parts.start, taken.parts.stop
    for cut in range(first + 1, end + 1):
        by_runs, by_events = StreamState(), StreamState()
        for event in taken.events[:first]:
            by_runs.feed(event, taken.source)
        by_runs.feed_run(run_of(taken.events[first:cut], taken.source), taken.source)
        for event in taken.events[:cut]:
            by_events.feed(event, taken.source)
        assert described(by_runs) == described(by_events)
