"""For any stream that can be sent: cuts change nothing, encoding inverts decoding, replay inverts send."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli import limits
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.hints import Hints
from tests.conftest import Run
from tests.support.feed import events, in_file, piped
from tests.support.long import examples
from tests.support.strategies import MIB, Sent, bitmaps, contents, streams

SLOW = settings(max_examples=examples(17, 400))


def hints(sent: Sent) -> Hints:
    return Hints(
        {disk.device: disk.size for disk in sent.disks},
        {(disk.device, b.name): b.granularity for disk in sent.disks for b in disk.bitmaps},
    )


@pytest.mark.scaled
@SLOW
@given(streams(), st.lists(st.integers(1, 5000), max_size=200))
def test_any_cut_gives_the_same_events(sent: Sent, sizes: list[int]) -> None:
    whole = events(in_file(sent.data), hints=hints(sent))
    assert whole[1] is None
    assert events(piped(sent.data, sizes), hints=hints(sent)) == whole
    assert sum(event.length for event in whole[0]) == len(sent.data)


@pytest.mark.scaled
@SLOW
@given(streams(most=MIB, devices=1), st.integers(0, 1 << 40))
def test_a_truncated_stream_gives_a_prefix(sent: Sent, place: int) -> None:
    """With all hints; the error gives the byte at which the input ends."""
    known = hints(sent)
    whole, _ = events(in_file(sent.data), hints=known)
    cut = place % len(sent.data)
    for source in (in_file(sent.data[:cut]), piped(sent.data[:cut], [7] * 20)):
        found, error = events(source, hints=known)
        ends = [event.offset + event.length for event in whole]
        assert found == whole[: sum(end <= cut for end in ends)]
        # Without what comes behind its end, a stream is not shorter than others are.
        end = "eos" if sent.options.container == "none" else "eof"
        at_end = found and found[-1].type == end and found[-1].offset + found[-1].length == cut
        assert error is None if at_end else error is not None and f"at byte {cut}" in error


@pytest.mark.scaled
@SLOW
@given(streams(most=MIB))
def test_layouts_found_without_hints_are_the_true_ones(sent: Sent) -> None:
    """Without hints, a v1 layout is the true one, or the stream is refused."""
    whole, _ = events(in_file(sent.data), hints=hints(sent))
    with pytest.MonkeyPatch.context() as patch:
        # A stream whose bits look like names takes seconds to be refused at the true bound.
        patch.setattr(limits, "READINGS_TRIED_MAX", examples(1 << 14, limits.READINGS_TRIED_MAX))
        found, error = events(in_file(sent.data))
    places = [(event.offset, event.length, event.type) for event in found]
    assert places == [(event.offset, event.length, event.type) for event in whole[: len(found)]]
    if error is not None:
        assert sent.options.dialect == "v1"
        assert error.startswith(("UndecidableError", "TruncatedError"))
    else:
        assert len(found) == len(whole)


@pytest.mark.scaled
@SLOW
@given(streams(most=2 * MIB))
def test_encoder_inverts_decoder(sent: Sent) -> None:
    source = piped(sent.data)
    out = [
        piece if isinstance(piece, bytes) else bytes(source.view(piece))
        for event in Decoder(source, hints=hints(sent))
        for piece in encode(event)
    ]
    assert b"".join(out) == sent.data


def expected_bitmap(bitmap: DirtyBitmap, size: int, dialect: str) -> dict[str, object]:
    flags = (True, False) if dialect == "v1" else (bitmap.recording, bitmap.persistent)
    return {"granularity": bitmap.granularity, "ranges": bitmap.ranges(size), "flags": flags}


@pytest.mark.scaled
@SLOW
@given(sent=streams())
def test_replay_inverts_send(
    sent: Sent, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("replay")
    stream = folder / "s.bin"
    stream.write_bytes(sent.data)
    words = []
    for disk in sent.disks:
        words += [f"--image={disk.device}={folder / disk.device}"]
        words += [f"--device-size={disk.device}={disk.size}"]
        words += [f"--granularity={disk.device}:{b.name}={b.granularity}" for b in disk.bitmaps]
    content = {event.device for event in events(in_file(sent.data), hints=hints(sent))[0]
               if hasattr(event, "device")}  # fmt: skip
    if {disk.device for disk in sent.disks} != content:
        return  # a device of which nothing is in the stream cannot be asked for
    options = ["--incremental"] if sent.options.skip_unallocated else []
    outcome = run("replay", stream, "--create", *options, *words)
    assert outcome.status == 0, outcome.out + outcome.err
    for disk in sent.disks:
        image = folder / disk.device
        if image.exists():
            assert image.read_bytes() == disk.image.read(0, disk.size)
        else:
            assert not sent.options.disks or sent.options.skip_unallocated
        side = Path(f"{image}.bitmaps.json")
        assert side.exists() == bool(disk.bitmaps)
        if disk.bitmaps:
            found = read_bitmaps(str(side)).bitmaps
            assert {
                name: expected_bitmap(bitmap, disk.size, "") for name, bitmap in found.items()
            } == {
                bitmap.name: expected_bitmap(bitmap, disk.size, sent.options.dialect)
                for bitmap in disk.bitmaps
            }


@pytest.mark.scaled
@SLOW
@given(content=contents(MIB), data=st.data())
def test_bitmap_files_round_trip(content: bytes, data: st.DataObject,
                                 tmp_path_factory: pytest.TempPathFactory) -> None:  # fmt: skip
    size = len(content)
    found = {name: data.draw(bitmaps(size, name)) for name in ("one", "two\udc80")}
    path = str(tmp_path_factory.mktemp("bitmaps") / "x.json")
    write_bitmaps(path, BitmapFile(size, found))
    back = read_bitmaps(path)
    assert back.size == size
    assert {n: expected_bitmap(b, size, "") for n, b in back.bitmaps.items()} == {
        n: expected_bitmap(b, size, "") for n, b in found.items()
    }
