"""Why v1 records cannot be read: what errors state, and how far and how often reading ahead goes."""

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError, TruncatedError, UndecidableError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.hints import Hints
from tests.support import raw
from tests.support.feed import in_file, piped

HEAD = raw.HEADER + raw.configuration() + raw.start(7, "block", 1, raw.EOS) + raw.footer(7)
TOP = raw.block(4096, 8)
#: 16 bytes of bits, or 8 and a record; no other length makes sense.
OPEN = raw.block(0, 0x20, rest=raw.v1(("b", bytes(8) + raw.progress(1))))
FILL = raw.block(2048, 8, "dd") * 40
END = raw.EOS + raw.footer(7) + raw.EOF
AT = len(HEAD + raw.part(7, TOP))
HINT = "specify --granularity [DEVICE:]NAME=SIZE and --device-size [DEVICE=]SIZE"


def stream(*records: bytes) -> bytes:
    return HEAD + raw.part(7, TOP + b"".join(records))


def refused(data: bytes, hints: Hints | None = None) -> StreamError:
    """The error of a stream, the same from a file and a pipe."""
    found = []
    for source in (in_file(data), piped(data)):
        with pytest.raises(StreamError) as error:
            list(Decoder(source, hints=hints))
        found.append(error.value)
    assert str(found[0]) == str(found[1])
    return found[0]


def lengths(data: bytes) -> list[list[int]]:
    blocks = [event for event in Decoder(in_file(data)) if isinstance(event, Block)]
    return [[part.bits.length for part in block.bitmaps] for block in blocks if block.bitmaps]


def test_two_layouts() -> None:
    error = refused(stream(OPEN, FILL, END))
    assert isinstance(error, UndecidableError)
    assert error.message == "2 layouts of the bitmaps fit, with bits of (8) or (16) bytes"
    assert (error.offset, error.section, error.hint) == (AT, "block", HINT)


def test_layouts_of_several_bitmaps() -> None:
    """Those of the second, for each of the first."""
    record = raw.block(0, 0x20, rest=raw.v1(("a", bytes(8)), ("b", bytes(8) + raw.progress(1))))
    error = refused(stream(record, FILL, END))
    assert error.message == "2 layouts of the bitmaps fit, with bits of (8, 8) or (8, 16) bytes"


def test_a_record_that_is_cut() -> None:
    hints = Hints({}, {(None, "b"): 512})
    data = stream(raw.block(0, 0x20, rest=raw.v1(("b", bytes(255)))))
    error = refused(data, hints)
    assert isinstance(error, TruncatedError)
    assert error.message == (
        f"the stream ends at byte {len(data)}, inside or just after the record at byte {AT}"
    )
    assert (error.offset, error.section, error.hint) == (len(data), "block", None)


def test_too_short_to_tell() -> None:
    data = stream(OPEN, FILL)
    error = refused(data)
    assert isinstance(error, TruncatedError)
    assert error.message == (
        f"the stream ends at byte {len(data)}, too early to tell how long the bitmaps of the record at "
        f"byte {AT} are"
    )
    assert (error.offset, error.section) == (len(data), "block")
    assert error.hint == "specify --granularity and --device-size"


def test_no_layout() -> None:
    error = refused(stream(OPEN[:-8], b"\xff" * 300))
    assert isinstance(error, MalformedError)
    assert error.message == (
        "no layout of the bitmaps makes sense here: damaged, or a granularity or device size that "
        "does not fit"
    )
    assert (error.offset, error.section, error.check) == (AT, "block", "bitmap-layout")
    assert error.hint == "check --granularity, --device-size and --dialect"


def test_how_far_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong behind the limit decides nothing."""
    wrong = raw.progress(101)
    data = stream(OPEN, FILL, wrong, END)
    ahead = len(OPEN + FILL)
    for most, decided in ((ahead - 1, False), (ahead, True), (ahead + 9, True)):
        monkeypatch.setattr(limits, "LOOKAHEAD_MAX", most)
        if decided:
            assert lengths(data) == [[8]]
        else:
            error = refused(data)
            assert isinstance(error, UndecidableError)
            assert "2 layouts" in error.message


@pytest.mark.parametrize("most", range(1, 8))
def test_how_many_readings_are_followed(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six for a bitmap; those that are left are two."""
    monkeypatch.setattr(limits, "READINGS_MAX", most)
    data = stream(OPEN, FILL, END)
    error = refused(data)
    assert isinstance(error, UndecidableError)
    if most >= 6:
        assert "2 layouts" in error.message
    else:
        assert error.message == f"over {most} layouts of the bitmaps are possible here"
        assert (error.offset, error.hint) == (AT, HINT)


def test_how_many_readings_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more for each 16 bytes of the stream before."""
    data = stream(OPEN, FILL, raw.progress(101), END)
    tried = next(most for most in range(1000) if readable(data, most, monkeypatch))
    assert tried > 2 * 40
    later = HEAD + raw.part(7, TOP + raw.progress(7) * 20 + data[AT:])
    assert readable(later, tried - 10, monkeypatch)
    assert not readable(later, tried - 11, monkeypatch)
    monkeypatch.setattr(limits, "READINGS_TRIED_MAX", tried - 1)
    error = refused(data)
    assert error.message == f"over {tried - 1} layouts of the bitmaps are possible here"
    assert (error.offset, error.hint) == (AT, HINT)


def readable(data: bytes, tried: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(limits, "READINGS_TRIED_MAX", tried)
    try:
        return lengths(data) == [[8]]
    except UndecidableError:
        return False
