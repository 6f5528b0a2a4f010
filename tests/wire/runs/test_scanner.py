"""The scanner gives what the schemas give: events, errors, totals, lines; and it does find runs."""

import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.checks.checker import Checker
from blkmig_cli.checks.survey import read_stream
from blkmig_cli.errors import FailureError, StreamError
from blkmig_cli.output.documents import report_json
from blkmig_cli.output.events_json import EventJson, run_texts
from blkmig_cli.progress import no_tick
from blkmig_cli.transport.inputs import FileInput, PipeInput
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block, Event
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs import repeats
from blkmig_cli.wire.runs.columns import Piece, Run, expand
from blkmig_cli.wire.schema_io import Input
from tests.conftest import get_capture
from tests.support import raw
from tests.support.feed import BySchemas, Pieces, in_file, piped
from tests.support.long import examples
from tests.support.strategies import Repetitive, chunks, irregular, repetitive, streams


def pieces(decoder: Decoder) -> Iterator[Piece]:
    """What ``decoder`` gives, runs whole, up to an error."""
    try:
        while True:
            yield decoder.piece()
    except (StopIteration, StreamError):
        return


def read(source: FileInput, hints: Hints, *, runs: bool) -> list[object]:
    """All that a stream gives: events, lines, the report, with every bitmap's content."""
    decoder = Decoder(source, hints=hints)
    checker = Checker(hints)
    as_json = EventJson(source)
    found: list[Event] = []
    lines: list[str] = []

    class Lines:
        def feed(self, event: Event, source: Input) -> None:
            found.append(event)
            lines.append(json.dumps(as_json(event)))

        def feed_run(self, run: Run, source: Input) -> None:
            if not runs:
                for event in run:
                    self.feed(event, source)
                    checker.feed(event, source)
                return
            found.extend(run)
            lines.extend("\n".join(run_texts(run, as_json)).split("\n"))
            checker.feed_run(run, source)

    class Single:
        def feed(self, event: Event, source: Input) -> None:
            checker.feed(event, source)

        def feed_run(self, run: Run, source: Input) -> None:
            pass

    failure = read_stream(decoder, no_tick, Lines(), Single())
    report = checker.finish("s", decoder, failure)
    contents = [
        verdict.bitmap.content.ranges(None)
        for verdict in report.bitmaps
        if verdict.bitmap.content is not None
    ]
    tops = [(disk.top, disk.top_offset) for disk in checker.state.disks.values()]
    covered = [list(bitmap.covered) for bitmap in checker.state.bitmaps.values()]
    return [found, lines, report_json(report), contents, tops, covered, checker.state.end]


def same(data: bytes | Pieces, hints: Hints) -> None:
    expected = read(in_file(data, BySchemas), hints, runs=False)
    assert read(in_file(data), hints, runs=True) == expected


@pytest.mark.scaled
@settings(max_examples=examples(17, 1000))
@given(repetitive())
def test_repetitions(stream: Repetitive) -> None:
    same(stream.data, stream.hints)


@pytest.mark.scaled
@settings(max_examples=examples(17, 1000))
@given(irregular())
def test_any_order(stream: Repetitive) -> None:
    with patch.object(repeats, "_MIXED_FIRST", 4):
        same(stream.data, stream.hints)


@pytest.mark.scaled
@settings(max_examples=examples(17, 1000))
@given(chunks())
def test_chunks_of_bitmaps(stream: Repetitive) -> None:
    with patch.object(repeats, "_MIXED_FIRST", 4):
        same(stream.data, stream.hints)


@pytest.mark.scaled
@settings(max_examples=examples(15, 500))
@given(st.one_of(repetitive(), irregular(), chunks()))
def test_where_runs_are_rare(stream: Repetitive) -> None:
    """Not all items are examined then."""
    with patch.multiple(repeats, _MIXED_FIRST=4, _IDLE_MAX=30, _CYCLE=40, _EXAMINED=20):
        same(stream.data, stream.hints)


@pytest.mark.scaled
@settings(max_examples=examples(20, 500))
@given(streams(), st.integers(0), st.integers(0, 7))
def test_what_send_makes_with_a_bit_flipped(sent: object, place: int, bit: int) -> None:
    data = bytearray(sent.data)  # type: ignore[attr-defined]
    data[place % len(data)] ^= 1 << bit
    same(bytes(data), Hints())


Sectors = list[int]


def up(count: int, start: int = 0, step: int = 2048) -> Sectors:
    return [start + step * at for at in range(count)]


def down(count: int, start: int = 0) -> Sectors:
    return up(count, start)[::-1]


def bits(seed: int, length: int = 8) -> bytes:
    """Bits that differ from record to record."""
    return bytes((seed * 37 + at * 101) % 256 for at in range(length))


def zeros(sectors: Sectors, device: str = "d") -> bytes:
    return b"".join(raw.block(sector, 8, device) for sector in sectors)


def v1(sectors: Sectors, length: int = 8, flags: int = 0x28, *, clean: bool = False) -> bytes:
    return b"".join(
        raw.block(s, flags, rest=raw.v1(("b", bytes(length) if clean else bits(at + 1, length))))
        for at, s in enumerate(sectors)
    )


def v2(sectors: Sectors, granularity: int = 65536, covered: int = 2048, length: int = 8) -> bytes:
    return b"".join(
        raw.block(s, 0x60, rest=raw.v2(covered, ("b", 1, granularity, bits(at + 1, length))))
        for at, s in enumerate(sectors)
    )


def v1_of_two(number: int) -> bytes:
    """v1 records whose layout is certain, with bits that fit several granularities."""
    dice = random.Random(7)
    names = "daily", "weekly"
    return b"".join(
        raw.block(s, 0x28, "drive0", raw.v1(*((name, dice.randbytes(8)) for name in names)))
        for s in up(number)
    )


def turns(*columns: tuple[int, Sectors]) -> bytes:
    """v1 records of one device in turns, each column with flags of its own."""
    flags, sectors = zip(*columns, strict=True)
    rows = zip(*sectors, strict=True)
    return b"".join(
        raw.block(s, flag, rest=raw.v1(("b", bits(at * 2 + flag))))
        for at, row in enumerate(rows)
        for flag, s in zip(flags, row, strict=True)
    )


def hints_of(granularity: int, size: int | None = None) -> Hints:
    return Hints({} if size is None else {None: size}, {(None, "b"): granularity})


PROGRESSES = raw.progress(1) * 3
EMPTY = (raw.part(1, raw.EOS) + raw.footer(1) + raw.part(2, raw.word(0, 0x10)) + raw.footer(2)) * 9
SECTIONS = raw.start(2, "ram", 4, raw.word(0, 0x10)) + raw.footer(2)
OLD = raw.HEADER + raw.start(1, "block", 1, raw.EOS) + raw.part(1, raw.EOS) * 9

#: Streams in which a run must end at the right row, or leave the right state: bytes, hints.
CASES: dict[str, tuple[bytes, Hints]] = {
    "v2-over-the-end": (v2([20480], covered=100) + v2(up(12)), Hints()),
    "v2-unaligned": (v2([*up(4), 8197, 10240]), Hints()),
    "v2-another-word": (v2([*up(5, step=4096), 22528], 32768, 4096), Hints()),
    "v2-reach": (v2(up(10)) + v2([2048], covered=100), Hints()),
    "v2-stated-again": (v2([20480] * 6, covered=100) + v2([22528]), Hints()),
    "v2-two-chunks": (v2(up(9, step=4096), 1 << 20, 4096), Hints()),
    "v2-shared-granules": (v2(up(20), 4 << 20) + v2(down(30), 4 << 20), Hints()),
    "v2-shared-words": (v2(up(20)) + v2(down(31, 2048)), Hints()),
    "v2-fine": (v2(up(9), 8192, length=16) + v2(down(20), 8192, length=16), Hints()),
    "v2-clears": (v2(up(20)) + v2(up(9, 4096), length=0), Hints()),
    "v2-after-zeros": (zeros(up(10)) + v2([2048], covered=100), Hints()),
    "v1-past-a-tail": (
        v1([20480], 16, clean=True) + v1(up(13), 256, clean=True) + raw.EOS, hints_of(512)),
    "v1-zeros-past-a-tail": (v1([20480], 16, clean=True) + zeros(up(13)) + raw.EOS, hints_of(512)),
    "v1-many-layouts": (
        raw.block(0, 0x28, rest=raw.v1(("b" * 240, b"\xff" * 8))) * 9 + zeros(up(3)), Hints()),
    "v1-below-the-top-then-above": (v1([*down(12), 61440, 4096]), hints_of(65536)),
    "v1-up-then-below": (v1([*up(9), 2048, 4096]), hints_of(65536)),
    "v1-ambiguous-last": (
        b"".join(raw.block(at, 0x28, rest=raw.v1(("bits", b"\xff" * 32))) for at in up(9))
        + raw.block(18432, 0x28, rest=raw.v1(("bits", bytes(8) + PROGRESSES))), Hints()),
    "v1-after-zeros": (zeros(up(10)) + v1([10240, 2048]), hints_of(65536)),
    "v1-too-far": (raw.progress(0) + v1(up(20, (1 << 54) - 20480)), hints_of(65536)),
    "far": (zeros(up(40, (1 << 54) - 30 * 2048)) + zeros(down(9, (1 << 55) - 20480)), Hints()),
    "far-unaligned": (zeros(up(40, (1 << 55) - 50000, 1001)) + zeros([5]), Hints()),
    "v2-far": (v2(up(3)) + zeros(up(40, (1 << 54) - 20480)), Hints()),
    "v2-far-bits": (v2(up(40, (1 << 54) - 20480)), Hints()),
    "v1-hints": (v1(up(9), 64) + v1(down(12), 64), hints_of(2048, 12 << 20)),
    "v1-hints-coarse": (v1(up(30)) + v1(down(20)), hints_of(65536, 30 << 20)),
    "v1-hints-past-the-end": (v1(up(30)), hints_of(65536, 20 << 20)),
    "v1-two-columns": (
        turns((0x28, [*up(5, step=4096), 204800]), (0x20, up(6, 2048, 4096))), hints_of(65536)),
    "v1-two-columns-of-a-word": (
        turns((0x28, up(9)), (0x20, up(9, 2048))), hints_of(65536, 20 << 20)),
    "up-and-down": (zeros([*up(9), *down(8), *up(9)]), Hints()),
    "partly-repeated": (zeros([*up(3), *up(3, 12288), *up(12)]), Hints()),
    "all-repeated": (zeros([*up(20), *up(10, 2048)]), Hints()),
    "highest-inside": (zeros([*up(9), 2048, 4096]), Hints()),
    "progress": (b"".join(map(raw.progress, [*range(10), 101, 102, 50])) + zeros([0]), Hints()),
    "two-devices": (b"".join(zeros([s]) + zeros([s], "e") for s in [*up(9), 9, 5]), Hints()),
    "parts-of-runs": (
        raw.qemu(zeros(up(2)), raw.EOS + raw.footer(1), EMPTY.replace(raw.part(2, b""), b""),
                 raw.part(1, b""), zeros(up(9))), Hints()),
    "progress-between": (
        b"".join(raw.progress(at) + zeros([s]) for at, s in enumerate(up(9))), Hints()),
    "cut-pair": (
        raw.qemu(zeros([0]) + zeros([0], "ee") + zeros([2048]), raw.EOS + raw.footer(1)
                 + raw.part(1, b""), zeros([2048], "ee") + zeros([4096])), Hints()),
    "old-machine": (OLD + raw.EOF, Hints()),
    "old-machine-footer": (OLD + raw.footer(1), Hints()),
    "old-machine-cut": (OLD, Hints()),
    "empty-parts": (raw.qemu(raw.EOS + raw.footer(1), SECTIONS, EMPTY, raw.part(1, b"")), Hints()),
    "empty-parts-end": (
        raw.qemu(raw.EOS + raw.footer(1), SECTIONS, EMPTY)[:-50], Hints()),
    "package": (
        raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
        + b"\x08\0\x07\0\x04" + struct.pack(">I", 50) + (raw.part(1, raw.EOS) + raw.footer(1)) * 9,
        Hints()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    data, hints = CASES[name]
    if not data.startswith(raw.HEADER) and not data.endswith(raw.EOS):
        data += raw.EOS
    same(data, hints)


def test_a_record_before_the_dialect_is_no_template() -> None:
    decoder = Decoder(in_file(zeros([0]) + v1([2048]) + raw.EOS), hints=hints_of(65536))
    undecided, block, _ = list(decoder)
    assert isinstance(undecided, Block)
    assert isinstance(block, Block)
    assert not decoder.block.repeatable(undecided)
    assert decoder.block.repeatable(block)


@pytest.mark.parametrize("name", ["v1-many-layouts", "v1-ambiguous-last", "v1-too-far"])
def test_no_runs_while_layouts_are_open(name: str) -> None:
    data, hints = CASES[name]
    assert not any(isinstance(p, Run) for p in pieces(Decoder(in_file(data), hints=hints)))


def is_contained(data: bytes) -> bool:
    return data.startswith(raw.HEADER)


def ended(data: bytes) -> bytes:
    """Records as a stream."""
    return data if is_contained(data) else data + raw.EOS


def shuffled(*kinds: list[bytes]) -> bytes:
    """Records of several kinds in no order, each kind in its own."""
    dice = random.Random(7)
    owners = [at for at, records in enumerate(kinds) for _ in records]
    dice.shuffle(owners)
    left = [iter(records) for records in kinds]
    return b"".join(next(left[at]) for at in owners)


def each(make: Callable[..., bytes], sectors: Sectors, *rest: Any, **more: Any) -> list[bytes]:
    """The records that ``make`` makes, one by one."""
    return [make([sector], *rest, **more) for sector in sectors]


def clean(sector: int, sectors: int) -> bytes:
    """A chunk of the dirty-bitmap section that clears bits."""
    return b"\x42" + struct.pack(">QI", sector, sectors)


def in_section(*chunks: bytes) -> bytes:
    return raw.qemu(bitmaps=raw.bitmap_start(granularity=512) + b"".join(chunks) + raw.COMPLETE)


def of_three_bitmaps(number: int) -> bytes:
    """Chunks of three bitmaps of two devices in no order, each with the names that it needs, or more."""
    dice, out, last = random.Random(7), [], ("", "")
    for at in range(number):
        names = dice.choice([("d", "b"), ("d", "c"), ("e", "b")])
        names = dice.choice([names, last, last]) if at else names
        with_device = names[0] != last[0] or dice.random() < 0.1
        with_bitmap = with_device or names != last or dice.random() < 0.2
        head = bytes([0x42 | with_device << 3 | with_bitmap << 2])
        head += raw.name(names[0]) * with_device + raw.name(names[1]) * with_bitmap
        out.append(head + struct.pack(">QI", 64 * dice.randrange(1 << 20), 1 + at % 500))
        last = names
    starts = [raw.bitmap_start(device, name, 512) for device, name in ("db", "dc", "eb")]
    return raw.qemu(bitmaps=b"".join([*starts, *out]) + raw.COMPLETE)


WORDS = [raw.bitmap_bits(64 * (at * 7 % 200), 64 - at % 3, bits(at)) for at in range(200)]
CLEAN = [clean(128 * (200 - at), 1 + at) for at in range(200)]
#: The records of parts, some of a few kinds in no order in each.
SHORT = [
    shuffled(each(zeros, up(at % 5, at * 2048)), [raw.progress(at % 100)] * (at * at % 7))
    for at in random.Random(7).sample(range(200), 200)
]
MIXED: dict[str, tuple[bytes, Hints]] = {
    "zeros-of-two-devices": (
        shuffled(each(zeros, up(200)), each(zeros, down(200), "ee")), Hints()),
    "progress": (
        shuffled(each(zeros, up(200)), [raw.progress(at // 2) for at in range(200)]), Hints()),
    "v1": (
        shuffled(each(v1, down(200), 256), each(zeros, up(200), "e")), hints_of(512, 400 << 20)),
    "v2": (
        shuffled(each(v2, up(200)), each(v2, up(200), length=0), each(zeros, up(99))), Hints()),
    "parts": (
        raw.qemu(raw.EOS + raw.footer(1), raw.start(2, "dirty-bitmap", 1, b"\1") + raw.footer(2),
                 shuffled([raw.part(1, raw.EOS) + raw.footer(1)] * 300,
                          [raw.part(2, b"\1") + raw.footer(2)] * 300,
                          [raw.part(1, zeros([s]) + raw.EOS) + raw.footer(1) for s in up(90)]),
                 raw.part(1, b"")), Hints()),
    "past-the-end": (
        shuffled(each(zeros, up(300)), each(zeros, down(200, 1 << 20), "e")),
        Hints({None: 100 << 20})),
    "short-parts": (
        raw.qemu(raw.EOS + raw.footer(1),
                 *(raw.part(1, part + raw.EOS) + raw.footer(1) for part in SHORT),
                 raw.part(1, b"")), Hints()),
    "chunks-of-bitmaps": (in_section(shuffled(WORDS, CLEAN)), Hints()),
    "chunks-of-three-bitmaps": (of_three_bitmaps(400), Hints()),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_records_in_any_order_are_taken(name: str) -> None:
    data, hints = MIXED[name]
    data = ended(data)
    found = list(pieces(Decoder(in_file(data), hints=hints)))
    assert sum(len(piece) for piece in found if isinstance(piece, Run)) >= 250
    assert any(isinstance(p, Run) and len({column.rows for column in p.columns}) > 1 for p in found)
    same(data, hints)
    by_pipe = list(pieces(Decoder(piped(data, [1000, 13, 4096] * 500), hints=hints)))
    assert list(expand(by_pipe)) == list(expand(found))
    assert any(isinstance(piece, Run) for piece in by_pipe)


DATA = bytes(raw.CHUNK)
TAKEN: dict[str, tuple[bytes, Hints]] = {
    "zero": (zeros(up(400)), Hints()),
    "zero-backwards": (zeros(down(400)), Hints()),
    "zero-past-the-end": (zeros(down(400)), Hints({None: 100 << 20})),
    "zero-two-devices": (b"".join(zeros([s]) + zeros([s], "e") for s in up(200)), Hints()),
    "data": (b"".join(raw.block(s, 0, rest=DATA) for s in up(40)), Hints()),
    "progress": (raw.progress(7) * 400, Hints()),
    "v1-hints": (v1(up(400), 256), hints_of(512, 400 << 20)),
    "v1-coarse": (v1(up(400)), hints_of(65536)),
    "v1-unaligned": (v1([*range(5, 400 * 2048, 2048)]), hints_of(65536)),
    "v1-of-unknown-granularity": (v1_of_two(400), Hints({None: 400 << 20})),
    "v1-below-the-top": (v1(down(400), 256, clean=True), Hints()),
    "v2": (v2(up(400)), Hints()),
    "v2-ranges": (v2(up(400, step=1 << 17), 1 << 20, 1 << 17), Hints()),
    "v2-clean": (v2(up(400), length=0), Hints()),
    "words-of-a-bitmap": (in_section(*WORDS * 2), Hints()),
    "clean-chunks": (in_section(*CLEAN * 2), Hints()),
    "bitmaps-in-turns": (
        raw.qemu(
            bitmaps=raw.bitmap_start(bitmap="a")
            + raw.bitmap_start()
            + b"".join(
                b"\x46" + raw.name(name) + struct.pack(">QI", at << 13, 1 + at)
                for at in range(200)
                for name in "ab"
            )
        ),
        Hints(),
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_runs_are_taken(name: str) -> None:
    data, hints = TAKEN[name]
    data = ended(data)
    found = list(pieces(Decoder(in_file(data), hints=hints)))
    rows = sum(len(piece) for piece in found if isinstance(piece, Run))
    assert rows >= 36
    # Beside them, there are those by which they were found, and what is around them.
    assert sum(not isinstance(piece, Run) for piece in found) <= (30 if is_contained(data) else 6)
    same(data, hints)


@pytest.mark.parametrize("name", ["bitmaps-5.2", "bitmaps-10.0"])
def test_empty_parts_are_taken(name: str, unpacked: Path) -> None:
    """Hundreds of thousands of events, nearly all of them in runs of whole sections."""
    path = get_capture(name, unpacked).path
    with open(path, "rb") as file:
        found = list(pieces(Decoder(FileInput(file.fileno(), path.stat().st_size))))
    assert len(found) < 200
    assert any(isinstance(piece, Run) and len(piece.columns) == 6 for piece in found)


@pytest.mark.parametrize("name", [name for name in TAKEN if name != "data"])
@pytest.mark.parametrize("sizes", [[], [1] * 50 + [1000, 13, 4096] * 500])
def test_pipes_give_runs_of_what_is_there(name: str, sizes: list[int]) -> None:
    data, hints = TAKEN[name]
    data = ended(data)
    expected = list(Decoder(in_file(data), hints=hints))
    found = list(pieces(Decoder(piped(data, sizes), hints=hints)))
    assert list(expand(found)) == expected
    assert sum(len(piece) for piece in found if isinstance(piece, Run)) >= 36
    assert len(found) < 250


def test_runs_that_begin_late() -> None:
    """They are found even if many attempts have failed, as each record came alone."""
    dice = random.Random(3)
    records = [raw.block(at * 2048, 8, dice.choice("abc")) for at in range(2000)]
    whole = raw.qemu(b"".join(records))
    cut = whole.index(records[1000])
    left = [whole[: whole.index(records[0])], *records[:1000], whole[cut:]]

    def readinto(target: memoryview) -> int:
        data = left.pop(0) if left else b""
        target[: len(data)] = data
        return len(data)

    with patch.multiple(
        repeats, _MIXED_FIRST=4, _IDLE_MAX=30, _CYCLE=40, _EXAMINED=20, _PATIENCE_MAX=64
    ):
        found = list(pieces(Decoder(PipeInput(readinto))))
    assert [each.sector for each in expand(found) if isinstance(each, Block)] == [
        2048 * at for at in range(2000)
    ]
    assert sum(len(piece) for piece in found if isinstance(piece, Run)) > 800


def test_data_from_a_pipe_come_one_by_one() -> None:
    found = list(pieces(Decoder(piped(TAKEN["data"][0] + raw.EOS))))
    assert not any(isinstance(piece, Run) for piece in found)


def test_a_pipe_that_waits_has_given_what_came() -> None:
    """The run of the rows that are there comes before the read that has to wait."""
    data, given = TAKEN["zero"][0], 0

    def readinto(target: memoryview) -> int:
        nonlocal given
        if given:
            raise BlockingIOError
        given = len(data) // 2
        target[:given] = data[:given]
        return given

    found: list[Piece] = []
    with pytest.raises(FailureError):
        found.extend(pieces(Decoder(PipeInput(readinto))))
    assert isinstance(found[-1], Run)
    assert given - found[-1].end < len(data) // 400


@pytest.mark.parametrize("name", ["zero", "data"])
def test_a_file_that_shrinks(name: str, tmp_path: Path) -> None:
    """What is cut off between opening and reading is a failure of the file, reported with its offset."""
    data = TAKEN[name][0]
    path = tmp_path / "s.bin"
    path.write_bytes(data[: len(data) // 2])
    with open(path, "rb") as file:
        decoder = Decoder(FileInput(file.fileno(), len(data)))
        with pytest.raises(FailureError, match="became shorter"):
            list(expand(pieces(decoder)))


def test_a_file_that_changes_under_a_run() -> None:
    """Rows are taken as they are when they are read; the place goes on from there."""
    data = TAKEN["zero"][0]
    with os.fdopen(os.memfd_create("s"), "r+b") as file:
        file.write(data)
        file.flush()
        decoder = Decoder(FileInput(file.fileno(), len(data)))
        seen: list[Event] = []
        while len(seen) < 100:
            seen.append(next(decoder))
        os.pwrite(file.fileno(), b"\xff" * len(data), 0)
        with pytest.raises(StreamError, match="unknown"):
            seen.extend(decoder)
    assert [event.sector for event in seen if isinstance(event, Block)] == up(len(seen))
