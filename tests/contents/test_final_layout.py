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
@settings(max_examples=examples(40, 500))
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
@settings(max_examples=examples(40, 500))
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
@settings(max_examples=examples(40, 500))
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
