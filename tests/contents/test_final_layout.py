"""The places of a disk's content in its stream, compared with a table of sectors and with replay."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.checks.survey import read_contents
from blkmig_cli.contents.final_layout import EndState, EndStates, Stretch
from blkmig_cli.errors import StreamError
from blkmig_cli.progress import no_tick
from blkmig_cli.transport.source import Stream, open_stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Run as Rows
from tests.conftest import Capture, Run
from tests.support import raw
from tests.support.feed import in_file
from tests.support.long import examples
from tests.support.strategies import Repetitive, Sent, repetitive, streams

CHUNK = 2048
DATA = b"\1" * raw.CHUNK
STRETCHES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 12).map(lambda at: at * CHUNK), st.integers(0, 12 * CHUNK)),
        st.sampled_from([CHUNK, CHUNK, 2 * CHUNK, 4 * CHUNK, 700]),
        st.sampled_from([None, 1 << 20, -(1 << 20), 1 << 21]),
    ),
    max_size=14,
)


#: Sectors between those that are looked at: wherever stretches begin, the same ones.
GRID = 64


def table(stretches: Iterable[Stretch]) -> dict[int, int | None]:
    """For each sector of the grid that came, the byte of the stream that holds it."""
    found: dict[int, int | None] = {}
    for stretch in stretches:
        for sector in range(-(-stretch.start // GRID) * GRID, stretch.end, GRID):
            found[sector] = None if stretch.offset is None else stretch.place(sector)[0]
    return found


@pytest.mark.scaled
@settings(max_examples=examples(28, 500))
@given(STRETCHES)
def test_the_last_record_of_a_sector_counts(puts: list[tuple[int, int, int | None]]) -> None:
    state, expected = EndState(), dict[int, int | None]()
    for number, (start, sectors, step) in enumerate(puts):
        base = (number + 1) << 32
        new = Stretch(start, start + sectors, base if step else None, start, step or 0)
        state.put(new)
        for sector in range(start, start + sectors):
            chunk, inside = divmod(sector - start, CHUNK)
            expected[sector] = base + chunk * step + 512 * inside if step else None
    spans = [(stretch.start, stretch.end) for stretch in state]
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert {at for low, high in spans for at in range(low, high)} == set(expected)
    assert table(state) == {at: byte for at, byte in expected.items() if at % GRID == 0}


def test_chunks_in_order_are_one_stretch_both_ways() -> None:
    for sectors in (range(0, 20 * CHUNK, CHUNK), range(19 * CHUNK, -1, -CHUNK)):
        state = EndState()
        for number, sector in enumerate(sectors):
            state.put(Stretch(sector, sector + CHUNK, 1000 + number * 2000, sector))
        (stretch,) = state
        assert (stretch.start, stretch.end) == (0, 20 * CHUNK)
        assert abs(stretch.step) == 2000


@pytest.mark.scaled
@settings(max_examples=examples(28, 500))
@given(repetitive())
def test_runs_and_events_give_the_same(made: Repetitive) -> None:
    whole, single = EndStates(), EndStates()
    for states, by_runs in ((whole, True), (single, False)):
        decoder = Decoder(in_file(made.data), hints=made.hints)
        try:
            while True:
                piece = decoder.piece() if by_runs else next(decoder)
                if isinstance(piece, Rows):
                    states.feed_run(piece, decoder.source)
                else:
                    states.feed(piece, decoder.source)
        except (StopIteration, StreamError):
            pass
    assert {name: table(state) for name, state in whole.disks.items()} == {
        name: table(state) for name, state in single.disks.items()
    }


def test_runs_of_data_and_zeros_of_one_disk() -> None:
    """The later record counts, in whichever column of the run it is."""
    data = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    expected: dict[int, int | None] = {}
    for at in range(
        40
    ):  # zeros of a chunk that was sent, or data over the zeros of the part before
        sectors = (at * CHUNK, (at - at % 2) * CHUNK)
        records = [raw.block(sectors[0], 8), raw.block(sectors[1], 0, rest=DATA)]
        payload = b"".join(records) + raw.EOS
        expected[sectors[0]] = None
        data += raw.part(1, payload) + raw.footer(1)
        expected[sectors[1]] = len(data) - len(raw.EOS + raw.footer(1)) - raw.CHUNK
    decoder = Decoder(in_file(data))
    states, rows = EndStates(), 0
    try:
        while True:
            piece = decoder.piece()
            if isinstance(piece, Rows):
                rows += len(piece)
                states.feed_run(piece, decoder.source)
            else:
                states.feed(piece, decoder.source)
    except (StopIteration, StreamError):
        pass
    assert rows > 40
    found = {
        sector: None if stretch.offset is None else stretch.place(sector)[0]
        for stretch in states.disks["d"]
        for sector in range(stretch.start, stretch.end, CHUNK)
    }
    assert found == expected


@pytest.mark.scaled
@settings(max_examples=examples(28, 500))
@given(streams())
def test_a_disk_is_read_from_its_stream(sent: Sent) -> None:
    if not sent.options.disks or sent.options.skip_unallocated:
        return
    source = in_file(sent.data)
    hints = Hints({disk.device: disk.size for disk in sent.disks}, {
        (disk.device, bitmap.name): bitmap.granularity
        for disk in sent.disks
        for bitmap in disk.bitmaps
    })  # fmt: skip
    contents = read_contents(Stream("s", source), Decoder(source, hints=hints), hints, no_tick)
    for disk in sent.disks:
        held = contents.disk(disk.device)
        assert held.size == disk.size
        assert held.read(0, disk.size) == disk.image.read(0, disk.size)
        length = min(3000, disk.size - 100)
        assert held.read(100, length) == disk.image.read(100, length)
        assert held.is_zero(0, disk.size) == disk.image.is_zero(0, disk.size)
        pieces = [(piece.start, piece.end) for piece in held.pieces()]
        assert [0, *(end for _, end in pieces)] == [*(start for start, _ in pieces), disk.size]
        assert not any(piece.kind == "missing" for piece in held.pieces())


def test_captures_are_read_as_replay_writes_them(
    capture: Capture, run: Run, tmp_path: Path
) -> None:
    if capture.path.stat().st_size > 100 << 20:
        return
    words = [f"--image={name}={tmp_path / name}" for name in capture.truth["devices"]]
    run("replay", capture.path, *capture.hints(), *words, "--create", "--allow-incomplete", "-q")
    hints = Hints({name: disk["size"] for name, disk in capture.truth["devices"].items()})
    for bitmap in capture.truth["bitmaps"]:
        hints.granularities[bitmap["device"], bitmap["name"]] = bitmap["granularity"]
    with open_stream(str(capture.path)) as stream:
        contents = read_contents(stream, Decoder(stream.input, hints=hints), hints, no_tick)
        for name in contents.states.disks:
            disk = contents.disk(name)
            assert disk.read(0, disk.size) == (tmp_path / name).read_bytes()


def test_sectors_that_were_not_sent_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "s"
    data = bytes([7]) * raw.CHUNK
    file.write_bytes(raw.block(2048, 1, "d", data) + raw.block(6144, 9, "d") + raw.EOS)
    hints = Hints({None: 5 << 20})
    with open_stream(str(file)) as stream:
        contents = read_contents(stream, Decoder(stream.input, hints=hints), hints, no_tick)
        disk = contents.disk("d")
        kinds = [(piece.start >> 20, piece.end >> 20, piece.kind) for piece in disk.pieces()]
        assert kinds == [(0, 1, "missing"), (1, 2, "data"), (2, 3, "missing"), (3, 4, "zero"),
                         (4, 5, "missing")]  # fmt: skip
        assert list(disk.extents()) == [(1 << 20, 1 << 20)]


def rows(state: EndState) -> list[tuple[int, int, int | None, int, int]]:
    return [(each.start, each.end, each.offset, each.first, each.step) for each in state]


#: What: stretches (start, end, offset, first, step) as they came, and those that are made of them.
JOINED: dict[str, tuple[list[Stretch], list[tuple[int, int, int | None, int, int]]]] = {
    "one": ([Stretch(5, 7, 100, 5)], [(5, 7, 100, 5, 0)]),
    "nothing": ([Stretch(5, 5, 100, 5)], []),
    "zeros that touch": ([Stretch(0, 5), Stretch(5, 9)], [(0, 9, None, 0, 0)]),
    "zeros with a gap": ([Stretch(0, 5), Stretch(6, 9)], [(0, 5, None, 0, 0), (6, 9, None, 0, 0)]),
    "zeros and data": (
        [Stretch(0, CHUNK), Stretch(CHUNK, 2 * CHUNK, 9, CHUNK), Stretch(2 * CHUNK, 3 * CHUNK)],
        [(0, CHUNK, None, 0, 0), (CHUNK, 2 * CHUNK, 9, CHUNK, 0),
         (2 * CHUNK, 3 * CHUNK, None, 0, 0)]),
    "data at the first byte, and zeros": (
        [Stretch(0, CHUNK, 0, 0), Stretch(CHUNK, 2 * CHUNK)],
        [(0, CHUNK, 0, 0, 0), (CHUNK, 2 * CHUNK, None, 0, 0)]),
    "two chunks": (
        [Stretch(0, CHUNK, 100, 0), Stretch(CHUNK, 2 * CHUNK, 3100, CHUNK)],
        [(0, 2 * CHUNK, 100, 0, 3000)]),
    "downwards": (
        [Stretch(CHUNK, 2 * CHUNK, 100, CHUNK), Stretch(0, CHUNK, 3100, 0)],
        [(0, 2 * CHUNK, 3100, 0, -3000)]),
    "two stretches that continue": (
        [Stretch(0, 2 * CHUNK, 100, 0, 50), Stretch(2 * CHUNK, 4 * CHUNK, 200, 2 * CHUNK, 50)],
        [(0, 4 * CHUNK, 100, 0, 50)]),
    "two stretches of other steps": (
        [Stretch(0, 2 * CHUNK, 100, 0, 50), Stretch(2 * CHUNK, 4 * CHUNK, 200, 2 * CHUNK, 51)],
        [(0, 2 * CHUNK, 100, 0, 50), (2 * CHUNK, 4 * CHUNK, 200, 2 * CHUNK, 51)]),
    "a stretch that ends within a chunk": (
        [Stretch(0, 5, 100, 0), Stretch(5, CHUNK, 200, 5)],
        [(0, 5, 100, 0, 0), (5, CHUNK, 200, 5, 0)]),
    "sectors within a chunk that are sent again": (
        [Stretch(0, CHUNK, 100, 0), Stretch(10, 20)],
        [(0, 10, 100, 0, 0), (10, 20, None, 0, 0), (20, CHUNK, 100, 0, 0)]),
    "all sent again": (
        [Stretch(0, CHUNK, 100, 0), Stretch(0, CHUNK, 900, 0)], [(0, CHUNK, 900, 0, 0)]),
}  # fmt: skip


@pytest.mark.parametrize("what", JOINED)
def test_stretches_that_are_joined(what: str) -> None:
    came, expected = JOINED[what]
    state = EndState()
    for stretch in came:
        state.put(stretch)
    assert rows(state) == expected
    assert state.end == (expected[-1][1] if expected else 0)
    assert repr(state) == f"<EndState of {len(expected)} stretches>"


@pytest.mark.parametrize(
    ("puts", "repeated"),
    [
        ([(0, 5), (5, 9)], []),
        ([(0, 5), (4, 9)], [(4, 5)]),
        ([(0, 9), (0, 9), (0, 9)], [(0, 9)]),
        ([(0, 2), (4, 6), (1, 5)], [(1, 2), (4, 5)]),
        ([(0, 9), (2, 3), (3, 4), (6, 7)], [(2, 4), (6, 7)]),
    ],
)
def test_what_was_sent_more_than_once(
    puts: list[tuple[int, int]], repeated: list[tuple[int, int]]
) -> None:
    """Also if it is removed, but removing counts not as sending."""
    state = EndState()
    for start, end in puts:
        state.put(Stretch(start, end))
    state.remove(0, 9)
    assert list(state.repeated) == repeated
    assert (rows(state), state.end) == ([], 0)
    state.put(Stretch(0, 9))
    assert list(state.repeated) == repeated


def test_a_part_of_a_layout() -> None:
    state = EndState()
    state.put(Stretch(0, 2 * CHUNK, 100, 0, 50))
    state.put(Stretch(3 * CHUNK, 3 * CHUNK + 9))
    state.put(Stretch(4 * CHUNK, 5 * CHUNK, 900, 4 * CHUNK))
    found = [(each.start, each.end) for each in state.between(2 * CHUNK - 1, 4 * CHUNK + 1)]
    assert found == [
        (2 * CHUNK - 1, 2 * CHUNK), (3 * CHUNK, 3 * CHUNK + 9), (4 * CHUNK, 4 * CHUNK + 1),
    ]  # fmt: skip
    assert list(state.between(2 * CHUNK, 3 * CHUNK)) == []
    assert list(state.between(3 * CHUNK + 9, 4 * CHUNK)) == []
    assert list(state.between(5 * CHUNK, 9 * CHUNK)) == []
    (first,) = state.between(CHUNK + 3, CHUNK + 4)
    assert first.place(CHUNK + 3) == (150 + 3 * 512, 1)
    (first,) = state.between(0, 2 * CHUNK)
    assert first.place(0) == (100, CHUNK)
    assert first.place(CHUNK - 1) == (100 + (CHUNK - 1) * 512, 1)
    assert first.place(CHUNK) == (150, CHUNK)
    sent, data = state.ranges(0, 9 * CHUNK)
    assert sent.tolist() == [[0, 2 * CHUNK], [3 * CHUNK, 3 * CHUNK + 9], [4 * CHUNK, 5 * CHUNK]]
    assert data.tolist() == [[0, 2 * CHUNK], [4 * CHUNK, 5 * CHUNK]]
    assert [array.tolist() for array in state.ranges(5 * CHUNK, 6 * CHUNK)] == [[], []]
    assert state.every(2).tolist() == [0, 4 * CHUNK]


def test_many_stretches_are_read_in_parts() -> None:
    """Of 4,096 each."""
    state = EndState()
    for at in range(8193):
        state.put(Stretch(2 * at, 2 * at + 1))
    parts = list(state.parts(0, 1 << 20))
    assert [len(part) for part in parts] == [4096, 4096, 1]
    assert [each.start for each in state] == list(range(0, 2 * 8193, 2))
    # What is read is a copy.
    parts[0][:] = 0
    assert state.every(4096).tolist() == [0, 8192, 16384]
