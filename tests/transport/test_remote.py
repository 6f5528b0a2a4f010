"""Which ranges of an object are requested, together or one by one; with a store in memory that counts."""

import io
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed (the extra remote)")

import fsspec

from blkmig_cli import limits
from blkmig_cli.errors import FailureError
from blkmig_cli.system.address import parse_address
from blkmig_cli.transport import remote as module
from blkmig_cli.transport.remote import RangeReader, Remote, RemoteInput, first_bytes
from blkmig_cli.transport.store import ObjectVersion
from blkmig_cli.wire.events import Payload
from tests.support import raw
from tests.support.feed import events, in_file

DATA = random.Random(4).randbytes(1000)
Ranges = list[tuple[int, int]]


class Kept:
    """An object in memory."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.size: int | None = len(data)
        self.asked: list[Ranges] = []
        self.checks = 0

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.asked.append(list(ranges))
        return [self.data[start:end] for start, end in ranges]

    def check_unchanged(self) -> None:
        self.checks += 1

    def take(self) -> list[Ranges]:
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 10 bytes, of which 3 are read at the same time."""
    for name, value in {"_PIECE": 10, "_PIECES": 3, "_GAP": 4, "_LEAST": 6}.items():
        monkeypatch.setattr(module, name, value)


def read(first: int = 0, data: bytes = DATA) -> tuple[RemoteInput, Kept]:
    kept: Any = Kept(data)
    return RemoteInput(kept, data[:first]), kept


@pytest.mark.parametrize(
    ("first", "offset", "length", "asked"),
    [
        (0, 0, 5, [[(0, 5)]]),
        (0, 3, 10, [[(3, 13)]]),
        (0, 3, 11, [[(3, 13), (13, 14)]]),
        (0, 0, 30, [[(0, 10), (10, 20), (20, 30)]]),
        (0, 5, 31, [[(5, 15), (15, 25), (25, 35)], [(35, 36)]]),
        (0, 0, 65, [[(0, 10), (10, 20), (20, 30)], [(30, 40), (40, 50), (50, 60)], [(60, 65)]]),
        (8, 3, 5, []),
        (7, 3, 5, [[(3, 8)]]),
        (20, 0, 30, [[(20, 30)]]),
        (0, 5, 0, []),
    ],
)
def test_what_is_read_from_end_to_end(
    first: int, offset: int, length: int, asked: list[Ranges]
) -> None:
    """In pieces at the same time, but for the bytes that were read first."""
    source, kept = read(first)
    target = memoryview(bytearray(length))
    source.read_into(target, offset)
    assert bytes(target) == DATA[offset : offset + length]
    assert kept.take() == asked


@pytest.mark.parametrize(
    ("first", "pieces", "asked"),
    [
        (0, [(0, 2), (6, 2)], [(0, 8)]),
        (0, [(0, 2), (7, 2)], [(0, 2), (7, 9)]),
        (0, [(0, 2), (6, 4)], [(0, 10)]),
        (0, [(0, 2), (6, 5)], [(0, 2), (6, 11)]),
        (0, [(0, 2), (2, 2), (5, 1)], [(0, 6)]),
        (0, [(0, 4), (4, 4), (8, 4), (12, 4)], [(0, 8), (8, 16)]),
        (0, [(0, 15), (16, 1)], [(0, 15), (16, 17)]),
        (4, [(0, 4), (5, 1), (6, 1)], [(5, 7)]),
        (4, [(0, 5), (7, 1)], [(0, 8)]),
        (9, [(0, 4), (8, 1)], None),
    ],
)
def test_ranges_close_to_each_other(first: int, pieces: Ranges, asked: Ranges | None) -> None:
    """Are one request, up to a length."""
    source, kept = read(first)
    rows = source.rows(0, 100, pieces, 1)
    assert rows.tobytes() == b"".join(DATA[at : at + length] for at, length in pieces)
    assert kept.take() == ([] if asked is None else [asked])


def test_rows() -> None:
    source, kept = read(20)
    rows = source.rows(5, 50, [(0, 3), (10, 2)], 4)
    assert rows.dtype == np.uint8
    assert [bytes(row) for row in rows] == [
        DATA[at : at + 3] + DATA[at + 10 : at + 12] for at in range(5, 205, 50)
    ]
    assert kept.take() == [
        [(55, 58), (65, 67), (105, 108), (115, 117), (155, 158), (165, 167)]
    ]  # fmt: skip
    assert source.rows(5, 10, [(0, 10)], 3).tobytes() == DATA[5:35]
    assert source.rows(995, 50, [(0, 3)], 3).shape == (0, 3)


def test_what_is_read_where_few_bytes_are_needed() -> None:
    """At least so many; where reads are contiguous, several pieces at the same time."""
    source, kept = read()
    assert source.peek(2) == DATA[:2]
    assert kept.take() == [[(0, 6)]]
    source.advance(900)
    assert source.peek(8) == DATA[900:908]
    assert kept.take() == [[(900, 908)]]
    source.offset = 998
    assert source.peek(8) == DATA[998:]
    assert kept.take() == [[(998, 1000)]]
    assert source.peek_at(1000, 5) == b""
    data = bytes(1 << 20)
    source, kept = read(0, data)
    lengths = []
    for _ in range(12):
        source.peek(1)
        lengths.append(sum(end - start for asked in kept.take() for start, end in asked))
        source.offset += lengths[-1]
    assert lengths == [6] * 6 + [30] * 6


def test_an_input_again() -> None:
    source, kept = read(100)
    source.discard(50)
    other = source.again()
    assert isinstance(other, RemoteInput)
    assert (other.offset, other.size, other.in_place) == (0, 1000, False)
    assert other.peek(9) == DATA[:9]
    assert kept.take() == []
    assert other.peek_at(200, 5) == DATA[200:205]
    assert source.version() == (0, 0)


@pytest.mark.parametrize("first", [0, 100, 1 << 21])
def test_records_whose_length_is_inferred(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """Of v1 the next records are looked at, which are far from what is read ahead."""
    monkeypatch.undo()
    chunks = [
        raw.block(2048 * at, 0x30, rest=raw.v1(("b", DATA[at : at + 8])) + bytes([at]) * raw.CHUNK)
        for at in range(5)
    ]
    stream = raw.qemu(*chunks)
    source, _ = read(first, stream)
    assert events(source) == events(in_file(stream))
    assert events(read(first, stream)[0])[1] is None


def test_bytes_at_a_place() -> None:
    """No more than are asked for, wherever they are."""
    source, _ = read(20)
    source.peek(5)
    for at in (0, 4, 15, 40, 900, 997):
        assert source.peek_at(at, 3) == DATA[at : at + 3]


def test_a_payload_is_given_to_a_pipe() -> None:
    source, _ = read()
    ours, theirs = os.pipe()
    assert source.give_to(theirs, Payload(100, 500)) == 500
    assert os.read(ours, 1000) == DATA[100:600]
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("first", [0, 7, 30, 35, 1000])
@pytest.mark.parametrize("length", [1, 9, 64])
def test_an_object_that_is_read_once(first: int, length: int) -> None:
    """From its start; at the end, it must be as it was."""
    kept: Any = Kept()
    reader = RangeReader(kept, DATA[:first])
    assert reader.readable()
    found = b""
    while len(found) < len(DATA):
        assert kept.checks == 0
        buffer = bytearray(length)
        count = reader.readinto(buffer)
        assert count > 0
        found += buffer[:count]
    assert found == DATA
    for _ in range(2):
        assert reader.readinto(bytearray(9)) == 0
        assert kept.checks == 1
    asked = [part for parts in kept.take() for part in parts]
    assert asked[0] == (first, first + 10) if first < 1000 else not asked
    assert sum(end - start for start, end in asked) == 1000 - first


@pytest.mark.parametrize(("size", "asked"), [(0, []), (5, [[(0, 5)]]), (20, [[(0, 20)]]),
                                              (21, [[(0, 20)]])])  # fmt: skip
def test_the_first_bytes(monkeypatch: pytest.MonkeyPatch, size: int, asked: list[Ranges]) -> None:
    monkeypatch.setattr(module, "_FIRST", 20)
    kept: Any = Kept(DATA[:size])
    assert first_bytes(kept) == DATA[: min(size, 20)]
    assert kept.take() == asked


# -- an object in a store


class Stated:
    """A store of one object, of which it says ``info``."""

    def __init__(self, info: dict[str, Any], data: bytes = DATA) -> None:
        self.stated = info
        self.data = data
        self.requests: list[Ranges] = []
        self.answer: Callable[[int, int], Any] = lambda start, end: self.data[start:end]

    def info(self, path: str) -> dict[str, Any]:
        return self.stated

    def invalidate_cache(self) -> None:
        pass

    def cat_ranges(
        self, paths: list[str], starts: list[int], ends: list[int], on_error: str
    ) -> list[Any]:
        assert (set(paths), on_error) == ({"/o"}, "return")
        self.requests.append(list(zip(starts, ends, strict=True)))
        return [self.answer(start, end) for start, end in self.requests[-1]]

    def open(self, path: str, mode: str, block_size: int) -> Any:
        assert (path, mode, block_size) == ("/o", "rb", 0)
        return io.BytesIO(self.data)


@pytest.fixture
def stated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Remote, Stated]]]:
    def make(data: bytes = DATA, **info: Any) -> tuple[Remote, Stated]:
        store = Stated({"type": "file", "size": len(data)} | info, data)
        monkeypatch.setattr(fsspec, "url_to_fs", lambda _: (store, "/o"))
        return Remote(parse_address("memory://o")), store

    return make  # type: ignore[return-value]


Make = Callable[..., tuple[Remote, Stated]]


def test_an_object(stated: Make) -> None:
    found, store = stated(ETag='"a"')
    assert (found.size, found.moved, found.requests) == (1000, 0, 1)
    assert found.version == ObjectVersion('"a"', None, 1000)
    assert found.fetch([(0, 5), (10, 20)]) == [DATA[:5], DATA[10:20]]
    assert (found.moved, found.requests) == (15, 3)
    assert store.requests == [[(0, 5), (10, 20)]]
    reader = found.read()
    assert reader.readable()
    assert reader.read(10) == DATA[:10]
    assert reader.read() == DATA[10:]
    assert found.moved == 1015
    reader.close()
    found.check_unchanged()
    found.close()


@pytest.mark.parametrize(("partial", "size"), [(None, 1000), (True, 1000), (False, None)])
def test_an_object_without_ranges(stated: Make, partial: bool | None, size: int | None) -> None:
    """The store says so; then it is read from end to end."""
    found, _ = stated(partial=partial)
    assert found.size == size


def test_a_folder(stated: Make) -> None:
    with pytest.raises(FailureError) as error:
        stated(type="directory")
    assert str(error.value) == "memory://o: is a directory; add a slash to its name"


@pytest.mark.parametrize(
    ("key", "counts"),
    [
        ("etag", True),
        ("ETag", True),
        ("last-modified", True),
        ("LastModified", True),
        ("mtime", True),
        ("updated", True),
        ("size", True),
        ("generation", True),
        ("atime", False),
    ],
)
def test_an_object_that_changed(stated: Make, key: str, counts: bool) -> None:
    found, store = stated(**{key: 1})
    found.check_unchanged()
    store.stated = store.stated | {key: 2}
    if not counts:
        found.check_unchanged()
        return
    with pytest.raises(FailureError) as error:
        found.check_unchanged()
    assert str(error.value) == "memory://o: the object changed while it was read"


def test_a_store_that_sends_less(stated: Make) -> None:
    found, store = stated()
    store.answer = lambda start, end: DATA[start : end - (start == 50)]
    with pytest.raises(FailureError) as error:
        found.fetch([(0, 10), (50, 60)])
    assert str(error.value) == "memory://o: the store sent 9 bytes of 10 (at byte 50)"


class RefusedError(Exception):
    """A request is one of too many."""

    status = 429

    def __init__(self) -> None:
        super().__init__("refused")
        self.headers = {"Retry-After": "0"}


def test_ranges_that_are_refused_are_requested_again(
    stated: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those; each time that one comes, the patience is new."""
    monkeypatch.setattr(limits, "THROTTLED_TRIES", 2)
    found, store = stated()
    left = {0: 1, 20: 2, 40: 3, 60: 1}

    def answer(start: int, end: int) -> Any:
        if left.get(start, 0) > 0:
            left[start] -= 1
            return RefusedError()
        return DATA[start:end]

    store.answer = answer
    ranges = [(0, 10), (10, 20), (20, 30), (40, 50)]
    assert found.fetch(ranges) == [DATA[start:end] for start, end in ranges]
    again = [ranges, [(0, 10), (20, 30), (40, 50)], [(20, 30), (40, 50)], [(40, 50)]]
    assert store.requests == again
    assert (found.moved, found.requests) == (40, 1 + 4 + 3 + 2 + 1)
    left[60] = 2
    with pytest.raises(FailureError, match=r"429|refused"):
        found.fetch([(60, 70)])
    assert store.requests[4:] == [[(60, 70)], [(60, 70)]]


def test_each_failure_but_a_refusal_is_raised(stated: Make) -> None:
    found, store = stated()
    store.answer = lambda start, end: RefusedError() if start else ValueError("broken")
    with pytest.raises(FailureError, match="memory://o: broken"):
        found.fetch([(5, 10), (0, 5)])
    assert len(store.requests) == 1
