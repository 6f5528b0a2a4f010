"""What a stream adds up to is a fold over its events: it can be pickled, and pieces can be merged."""

import contextlib
import pickle

from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.contents.state import StreamState
from blkmig_cli.errors import StreamError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Event, Footer
from blkmig_cli.wire.hints import Hints
from tests.conftest import Capture, each_record
from tests.support.feed import in_file
from tests.support.strategies import Repetitive, repetitive


def table(state: StreamState) -> object:
    """All that a concluded state says."""
    return (
        [
            (
                disk.name,
                list(disk.covered),
                disk.chunks,
                disk.zero_chunks,
                disk.repeated_chunks,
                disk.top,
                disk.top_offset,
                list(disk.bitmaps_covered),
                disk.stated,
            )
            for disk in state.disks.values()
        ],
        [
            (
                key,
                bitmap.granularity,
                bitmap.recording,
                bitmap.persistent,
                bitmap.ended,
                list(bitmap.covered),
                bitmap.candidates,
                bitmap.content and bitmap.content.ranges(),
            )
            for key, bitmap in sorted(state.bitmaps.items())
        ],
        (state.progress.percent, state.progress.final, state.progress.least),
        (state.progress.total, state.progress.tops, state.machine, state.end),
        (state.block_started, state.block_ended, state.undecoded),
        [state.proven_size(device) for device in state.disks],
    )


def events_of(decoder: Decoder) -> list[Event]:
    """The events of a stream up to its end, or to what is damaged."""
    found: list[Event] = []
    with contextlib.suppress(StreamError):
        found.extend(decoder)
    return found


def folded(decoder: Decoder, events: list[Event]) -> StreamState:
    state = StreamState()
    for event in events:
        state.feed(event, decoder.source)
    return state


def check(data: bytes, hints: Hints, cuts: list[int]) -> None:
    """The whole stream's state is that of its pieces, each pickled, merged in their order."""
    decoder = Decoder(in_file(data), hints=hints)
    events = events_of(decoder)
    whole = folded(decoder, events)
    merged = StreamState()
    for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        piece = pickle.loads(pickle.dumps(folded(decoder, events[start:end])))
        merged.merge(piece)
    for state in (whole, merged):
        state.conclude(decoder.conclusion(), hints, proper_end=True)
    assert table(merged) == table(whole)


@given(repetitive(), st.data())
def test_pieces_add_up_to_the_whole(made: Repetitive, data: st.DataObject) -> None:
    decoder = Decoder(in_file(made.data), hints=made.hints)
    events = events_of(decoder)
    between = [at + 1 for at, event in enumerate(events) if isinstance(event, Footer)]
    if decoder.container == "none":
        between = list(range(1, len(events)))
    cuts = sorted(data.draw(st.sets(st.sampled_from(between or [0]), max_size=4)))
    check(made.data, made.hints, cuts)


@each_record
def test_captures_in_pieces(capture: Capture) -> None:
    if capture.path.stat().st_size > 20 << 20:
        return
    decoder = Decoder(in_file(capture.data))
    events = events_of(decoder)
    between = [at + 1 for at, event in enumerate(events) if isinstance(event, Footer)]
    step = max(len(between) // 5, 1)
    check(capture.data, Hints(), between[step - 1 :: step][:6])
