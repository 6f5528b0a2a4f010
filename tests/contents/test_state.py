"""What a stream adds up to is a fold over its events: it can be pickled, and pieces can be merged."""

import contextlib
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.contents.bitmaps import BitmapState
from blkmig_cli.contents.state import StreamState
from blkmig_cli.contents.v1_granularity import Observations
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_words import Room
from blkmig_cli.errors import StreamError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Event, Footer
from blkmig_cli.wire.hints import Hints
from tests.conftest import MANY_PARTS, NAMES, Capture
from tests.support.feed import in_file
from tests.support.long import examples
from tests.support.strategies import Repetitive, repetitive


def table(state: StreamState, *, repeated: bool = True) -> object:
    """All that a concluded state says; ``repeated``: with the number of repeated chunks."""
    return (
        [
            (
                disk.name,
                list(disk.covered),
                disk.chunks,
                disk.zero_chunks,
                disk.repeated_chunks if repeated else None,
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


def check(data: bytes, hints: Hints, cuts: list[int], *, repeated: bool = True) -> None:
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
    assert table(merged, repeated=repeated) == table(whole, repeated=repeated)


@pytest.mark.scaled
@settings(max_examples=examples(40, 500))
@given(repetitive(), st.data())
def test_pieces_add_up_to_the_whole(made: Repetitive, data: st.DataObject) -> None:
    decoder = Decoder(in_file(made.data), hints=made.hints)
    events = events_of(decoder)
    between = [at + 1 for at, event in enumerate(events) if isinstance(event, Footer)]
    if decoder.container == "none":
        between = list(range(1, len(events)))
    cuts = sorted(data.draw(st.sets(st.sampled_from(between or [0]), max_size=4)))
    # Records that overlap off the grid may be counted otherwise.
    check(made.data, made.hints, cuts, repeated=False)


@pytest.mark.parametrize(
    "capture",
    [pytest.param(name, marks=pytest.mark.long if name in MANY_PARTS else []) for name in NAMES],
    indirect=True,
)
def test_captures_in_pieces(capture: Capture) -> None:
    if capture.path.stat().st_size > 20 << 20:
        return
    decoder = Decoder(in_file(capture.data))
    events = events_of(decoder)
    between = [at + 1 for at, event in enumerate(events) if isinstance(event, Footer)]
    step = max(len(between) // 5, 1)
    check(capture.data, Hints(), between[step - 1 :: step][:6])


def test_a_granularity_that_only_the_later_piece_knows() -> None:
    """Its bits and those of the earlier piece are both there, also after the end is known."""
    room = Room()
    first = BitmapState("d", "b", None, open=Observations())
    assert first.open is not None
    first.covered.add(0, 2048)
    first.open.add(0, memoryview(b"\1".ljust(128, b"\0")))
    later = BitmapState("d", "b", 1024, content=DirtyBitmap("b", 1024, room=room))
    assert later.content is not None
    later.covered.add(2048, 4096)
    later.content.write_words(16, b"\3".ljust(128, b"\0"))
    first.merge(later, room)
    first.settle([1024], None, room)
    assert first.content is not None
    assert first.content.ranges(None) == [(0, 1024), (1 << 20, 2048)]
    assert list(first.covered) == [(0, 4096)]
