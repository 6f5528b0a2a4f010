"""Hand-built streams of every dialect, cut anywhere: pieces change nothing, truncation gives a prefix."""

import struct
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.wire.events import Event
from blkmig_cli.wire.hints import Hints
from tests.conftest import Run
from tests.support import raw
from tests.support.feed import events, in_file, piped

SETTINGS = settings(max_examples=40)
GRANULARITY = 4096
CHUNKS = 3
SIZE = CHUNKS * raw.CHUNK - 5 * 512
HINTS = Hints({None: SIZE}, {(None, "b"): GRANULARITY, (None, "c"): GRANULARITY})


def bits(sector: int, sectors: int, seed: int) -> bytes:
    first = sector * 512 // GRANULARITY // 64
    last = ((sector + sectors) * 512 - 1) // GRANULARITY // 64
    return bytes((seed * (index + 1)) % 256 for index in range(8 * (last - first + 1)))


@st.composite
def records(draw: st.DrawFn, dialect: str) -> bytes:
    """Records of one disk, all small but for at most one with data."""
    out = raw.progress(0)
    data_at = draw(st.integers(-3, CHUNKS - 1))
    for chunk in draw(st.permutations(range(CHUNKS))):
        sector = chunk * 2048
        sectors = min(2048, SIZE // 512 - sector)
        seed = draw(st.integers(1, 255))
        data = bytes([seed]) * raw.CHUNK if chunk == data_at else b""
        if dialect == "classic":
            out += raw.block(sector, 0 if data else 8, rest=data)
            continue
        flags = 0x10 if data else 0x08
        if draw(st.booleans()):
            rest = b""
        elif dialect == "v1":
            flags |= 0x20
            rest = raw.v1(("b", bits(sector, sectors, seed)), ("c", bits(sector, sectors, 1)))
        else:
            flags |= 0x60
            entries = [("b", 1, GRANULARITY, bits(sector, sectors, seed)), ("c", 2, 1 << 20, b"")]
            rest = raw.v2(sectors, *entries)
        out += raw.block(sector, flags, rest=rest + data)
    if dialect == "v2":
        # All bitmaps are named, and the dialect is said, by one record at least.
        named = raw.v2(2048, ("b", 1, GRANULARITY, b""), ("c", 2, 1 << 20, b""))
        out = raw.block(0, 0x60, rest=named) + out
    return out


class Stream(NamedTuple):
    """A stream, short when it is shown."""

    dialect: str
    data: bytes

    def __repr__(self) -> str:
        return f"{self.dialect}, {len(self.data)} bytes, {self.data[:80].hex()}"


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    dialect = draw(st.sampled_from(["classic", "v1", "v2"]))
    payload = draw(records(dialect))
    if draw(st.booleans()):
        return Stream(dialect, payload + raw.progress(100) + raw.EOS)
    chunks = None
    if draw(st.booleans()):
        words = struct.pack("<Q", draw(st.integers(0, 1 << 60)))
        chunks = raw.bitmap_start() + raw.bitmap_bits(0, SIZE // 512, words) + raw.COMPLETE
    return Stream(dialect, raw.qemu(payload, bitmaps=chunks))


def sizes() -> st.SearchStrategy[list[int]]:
    return st.lists(st.one_of(st.integers(1, 20), st.integers(1, 300_000)), max_size=400)


@SETTINGS
@given(streams(), sizes(), st.booleans())
def test_pieces_change_nothing(stream: Stream, pieces: list[int], hinted: bool) -> None:
    dialect, data = stream
    options: dict[str, Any] = {"hints": HINTS} if hinted else {}
    whole = events(in_file(data), **options)
    assert events(piped(data, pieces), **options) == whole
    if whole[1] is None:
        assert sum(event.length for event in whole[0]) == len(data)
    else:
        # Bits may look like names and lengths of others; nothing is guessed then.
        assert not hinted
        assert dialect == "v1"
        assert whole[1].startswith("UndecidableError")


@SETTINGS
@given(streams(), sizes(), st.data())
def test_pieces_change_no_error(stream: Stream, pieces: list[int], choice: st.DataObject) -> None:
    """One byte changed, anywhere: the same events and the same words, however it comes."""
    _, data = stream
    damaged = bytearray(data)
    near = st.integers(0, min(300, len(data) - 1))
    at = choice.draw(st.one_of(near, near.map(lambda back: len(data) - 1 - back)))
    damaged[at] ^= choice.draw(st.integers(1, 255))
    first = events(piped(bytes(damaged)))
    assert events(piped(bytes(damaged), pieces)) == first


def ended_by(found: list[Event], cut: int) -> int:
    return sum(event.offset + event.length <= cut for event in found)


@SETTINGS
@given(streams(), st.data(), st.booleans())
def test_truncation_gives_a_prefix(
    stream: Stream,
    choice: st.DataObject,
    hinted: bool,
) -> None:
    dialect, data = stream
    options: dict[str, Any] = {"hints": HINTS} if hinted else {}
    whole, end = events(in_file(data), **options)
    cut = len(data) - choice.draw(
        st.one_of(st.integers(1, min(400, len(data))), st.integers(1, len(data)))
    )
    for source in (in_file(data[:cut]), piped(data[:cut])):
        found, error = events(source, **options)
        if end is not None and end.startswith("UndecidableError"):
            # A reading that needs the bytes that are cut off yields to one that does not.
            found = found[: len(whole)]
        assert found == whole[: len(found)]
        whole_ones = ended_by(whole, cut)
        if dialect == "v1" and not hinted:
            # What the next record would have shown may keep the last ones back.
            assert len(found) <= whole_ones
        else:
            assert len(found) == whole_ones
        if data[:4] != b"QEVM" and found and found[-1].type == "eos":
            continue  # bare records may end after any EOS
        assert error is not None
        if cut == 0:
            assert error.startswith("NotAStreamError")
        elif dialect == "v1" and not hinted:
            assert error.startswith(("TruncatedError", "UndecidableError"))
        else:
            assert error.startswith("TruncatedError")
            assert f"at byte {cut}" in error


SMALL = raw.qemu(
    raw.block(0, 8),
    bitmaps=raw.bitmap_start() + raw.bitmap_bits(0, 2048, bytes(8)) + raw.COMPLETE,
)
DESCRIPTION = b'{"page_size": 4096, "devices": []}'
DESCRIBED = SMALL + b"\6" + struct.pack(">I", len(DESCRIPTION)) + DESCRIPTION


@pytest.mark.parametrize("source", ["{}", "exec:cat {}"])
def test_every_cut_is_found(run: Run, tmp_path: Path, source: str) -> None:
    """Up to and without the end byte, and inside the description; from a file, and some from a pipe."""
    assert len(SMALL) < 400
    path = tmp_path / "s.bin"
    step = 1 if source == "{}" else 7
    for cut in range(0, len(DESCRIBED) + 1, step):
        path.write_bytes(DESCRIBED[:cut])
        outcome = run("validate", source.format(path), "--output", "json")
        if cut in (len(SMALL), len(DESCRIBED)):
            assert outcome.status == 0, cut
            assert outcome.report["findings"] == []
            assert outcome.report["complete"] is True
            continue
        assert outcome.status == 3, cut
        finding = outcome.report["findings"][0]
        # An empty input is not known to be a stream.
        check = "truncated" if cut else "not-a-stream"
        assert (finding["id"], finding["offset"]) == (check, cut)
        assert finding["severity"] == "error"
        assert not outcome.report["valid"]


def test_streams_that_are_not_cut(run: Run, tmp_path: Path) -> None:
    """The steps of the test above need not include the whole streams."""
    path = tmp_path / "s.bin"
    for data in (SMALL, DESCRIBED):
        path.write_bytes(data)
        assert run("validate", f"exec:cat {path}").status == 0
