"""The inputs of a decoder, call by call: what is read, what is held, and where errors are."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, LimitError, TruncatedError
from blkmig_cli.transport import inputs
from blkmig_cli.transport.inputs import FileInput, PipeInput
from blkmig_cli.wire.events import Payload
from tests.support.feed import in_file, piped

DATA = random.Random(2).randbytes(2000)


@contextmanager
def file_of(data: bytes, base: int = 0) -> Iterator[tuple[FileInput, int]]:
    """Give ``data`` in a file, behind ``base`` other bytes; and the descriptor."""
    fd = os.memfd_create("stream")
    os.write(fd, b"x" * base + data)
    try:
        yield FileInput(fd, base + len(data), base), fd
    finally:
        os.close(fd)


class Reads:
    """The reads that the system is asked for: offset and length."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[int, int]] = []
        original = os.pread

        def pread(fd: int, length: int, offset: int) -> bytes:
            self.done.append((offset, length))
            return original(fd, length, offset)

        monkeypatch.setattr(os, "pread", pread)

    def take(self) -> list[tuple[int, int]]:
        done, self.done = self.done, []
        return done


# -- a file


@pytest.mark.parametrize("base", [0, 7])
def test_bytes_of_a_file(base: int) -> None:
    with file_of(DATA, base) as (source, fd):
        assert (source.size, source.origin, source.seekable) == (2000, base, True)
        assert source.place_of(5) == (fd, base + 5)
        assert source.peek(10) == DATA[:10]
        source.advance(1000)
        assert source.peek(10) == DATA[1000:1010]
        assert source.peek_at(3, 10) == DATA[3:13]
        assert source.peek_at(1990, 30) == DATA[1990:]
        assert source.peek_at(2000, 5) == source.peek_at(2100, 5) == b""
        assert (source.available(1000), source.available(1001)) == (1000, 1000)
        assert source.discard(900) == 900
        assert source.peek(200) == DATA[1900:]
        assert source.discard(900) == 100
        assert source.offset == 2000
        assert source.peek(1) == b""
        source.complete()
        other = source.again()
        assert (other.offset, other.size, other.origin) == (0, 2000, base)
        assert other.peek(9) == DATA[:9]


def test_a_file_that_begins_behind_its_end() -> None:
    source = FileInput(0, 5, 9)
    assert source.size == 0
    assert source.available(1) == 0


def test_the_damage_of_a_file_stays() -> None:
    damage = TruncatedError("cut")
    source = FileInput(0, 5, 0, damage)
    assert source.damage is damage
    assert source.again().damage is damage
    assert FileInput(0, 5).damage is None


def test_the_version_of_a_file() -> None:
    with file_of(DATA) as (source, fd):
        before = source.version()
        assert before == (2000, os.fstat(fd).st_mtime_ns)
        os.write(fd, b"x")
        assert source.version()[0] == 2001
        source.in_place = False
        assert source.version() == (0, 0)
    with pytest.raises(FailureError) as error:
        FileInput(987, 1).version()
    assert str(error.value) == "the stream: Bad file descriptor"


def test_what_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """More while reads are contiguous, at least what is asked for; nothing that is held."""
    reads = Reads(monkeypatch)
    data = bytes(1 << 20)
    with file_of(data) as (source, _):
        source.peek(10)
        source.advance(1000)
        source.peek(25)
        source.advance(20)
        source.peek(5)
        assert reads.take() == [(0, 1024), (1000, 2048)]
        source.offset = 1000
        source.peek(2048)
        assert reads.take() == []
        source.peek(2049)
        assert reads.take() == [(1000, 4096)]
        # Behind a short payload it is contiguous, not behind a longer one.
        source.offset = 1000 + 4096 + 512
        source.peek(1)
        assert reads.take() == [(5608, 8192)]
        source.offset = 5608 + 8192 + 513
        source.peek(1)
        assert reads.take() == [(14313, 512)]
        source.offset = 14312
        source.peek(1)
        assert reads.take() == [(14312, 512)]
        source.peek(5000)
        assert reads.take() == [(14312, 5000)]
        source.peek_at(14313, 4999)
        source.peek_at(14312, 5000)
        assert reads.take() == []
        source.peek_at(14311, 1)
        source.peek_at(14312, 5001)
        assert reads.take() == [(14311, 1), (14312, 5001)]
    with file_of(data) as (source, _):
        for _ in range(12):
            source.offset = sum(length for _, length in reads.done)
            source.peek(1)
        assert [length for _, length in reads.take()][:10] == [512 << at for at in range(1, 10)] + [
            1 << 18
        ]


def test_a_file_that_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may return less than was asked for."""
    pread, preadv = os.pread, os.preadv

    def some(fd: int, length: int, offset: int) -> bytes:
        return pread(fd, min(length, 7), offset)

    def some_into(fd: int, buffers: list[memoryview], offset: int) -> int:
        return preadv(fd, [buffers[0][:7]], offset)

    monkeypatch.setattr(os, "pread", some)
    monkeypatch.setattr(os, "preadv", some_into)
    with file_of(DATA, 3) as (source, _):
        assert source.peek(100) == DATA[:100]
        assert source.peek_at(1500, 50) == DATA[1500:1550]
        assert source.peek_at(1990, 50) == DATA[1990:]
        assert bytes(source.view(Payload(5, 100))) == DATA[5:105]
        assert source.rows(7, 20, [(0, 20)], 9).tobytes() == DATA[7:187]


def test_views_of_a_file() -> None:
    with file_of(DATA) as (source, _):
        assert bytes(source.view(Payload(5, 100))) == DATA[5:105]
        assert bytes(source.view(Payload(50, 10))) == DATA[50:60]
        assert source.offset == 0
        with pytest.raises(FailureError, match=r"became shorter .* \(at byte 2000\)"):
            source.view(Payload(1990, 11))


@pytest.mark.parametrize("base", [0, 9])
@pytest.mark.parametrize(
    ("offset", "stride", "pieces", "most", "count"),
    [
        (0, 10, [(0, 10)], 5, 5),
        (0, 10, [(0, 10)], 999, 200),
        (1, 10, [(0, 10)], 999, 199),
        (5, 10, [(0, 4), (8, 2)], 999, 199),
        (5, 10, [(0, 4), (8, 2)], 3, 3),
        (1991, 10, [(0, 10)], 5, 0),
        (1991, 10, [(0, 5)], 5, 0),
        (1990, 10, [(0, 10)], 5, 1),
        (3000, 10, [(0, 10)], 5, 0),
        (3000, 10, [(0, 5)], 5, 0),
    ],
)
def test_rows_of_a_file(
    base: int, offset: int, stride: int, pieces: list[tuple[int, int]], most: int, count: int
) -> None:
    with file_of(DATA, base) as (source, _):
        rows = source.rows(offset, stride, pieces, most)
        assert rows.shape == (count, sum(length for _, length in pieces))
        assert [bytes(row) for row in rows] == [
            b"".join(DATA[at + start : at + start + length] for start, length in pieces)
            for at in range(offset, offset + count * stride, stride)
        ]


def test_a_file_that_becomes_shorter() -> None:
    """The error tells how far it could be read."""
    said = r"the stream's file became shorter while it was read \(at byte {}\)"
    with file_of(DATA, 5) as (source, fd):
        os.ftruncate(fd, 1000)
        with pytest.raises(FailureError, match=said.format(995)):
            source.peek_at(500, 1000)
        with pytest.raises(FailureError, match=said.format(995)):
            source.rows(0, 10, [(0, 10)], 999)
        with pytest.raises(FailureError, match=said.format(100)):
            source.rows(100, 10, [(0, 5)], 999)


def test_a_file_that_cannot_be_read() -> None:
    source = FileInput(987, 2000)
    for read in (
        lambda: source.peek_at(7, 5),
        lambda: source.rows(7, 10, [(0, 10)], 9),
        lambda: source.rows(7, 10, [(0, 5)], 9),
        lambda: source.view(Payload(7, 5)),
    ):
        with pytest.raises(FailureError) as error:
            read()
        assert str(error.value) == "reading the stream failed: Bad file descriptor (at byte 7)"


def test_a_payload_is_given_to_a_pipe() -> None:
    with file_of(DATA, 3) as (source, _):
        ours, theirs = os.pipe()
        assert source.give_to(theirs, Payload(100, 500)) == 500
        assert os.read(ours, 1000) == DATA[100:600]
        os.close(ours)
        os.close(theirs)


# -- a pipe


class Small(PipeInput):
    first_room = 16


def test_bytes_of_a_pipe() -> None:
    source = piped(DATA, [7] * 1000, Small)
    assert (source.size, source.origin, source.seekable, source.in_place) == (None, 0, False, False)
    assert source.damage is None
    assert source.peek(10) == DATA[:10]
    assert source.peek_at(3, 10) == DATA[3:13]
    assert source.available(20) == 20
    source.advance(15)
    assert bytes(source.view(Payload(2, 5))) == DATA[2:7]
    source.release()
    with pytest.raises(ValueError, match="was requested after its event"):
        source.view(Payload(14, 1))
    assert bytes(source.view(Payload(15, 1))) == DATA[15:16]
    assert source.peek(30) == DATA[15:45]
    assert source.discard(1000) == 1000
    assert source.peek(5) == DATA[1015:1020]
    assert source.available(5000) == 985
    assert source.discard(5000) == 985
    assert source.offset == 2000
    assert source.peek(1) == b""
    source.close()
    assert source.available(1) == 0


@pytest.mark.parametrize("length", [1, 15, 16, 17, 100])
@pytest.mark.parametrize("sizes", [[1] * 5000, [16] * 500, []])
def test_what_a_pipe_passes(length: int, sizes: list[int]) -> None:
    """Whatever room it begins with, and whatever comes at a time."""
    source = piped(DATA, sizes, Small)
    at = 0
    while at < len(DATA):
        assert source.peek(length) == DATA[at : at + length]
        step = min(length, len(DATA) - at)
        if at % 3:
            assert source.discard(step) == step
        else:
            source.advance(step)
            assert bytes(source.view(Payload(at, step))) == DATA[at : at + step]
            source.release()
        at += step
        assert source.offset == at


def test_taking_from_a_pipe() -> None:
    """What was only looked at comes first."""
    source = piped(DATA, [10, 5, 300])
    assert source.peek(8) == DATA[:8]
    buffer = memoryview(bytearray(6))
    assert source.take(buffer) == 6
    assert bytes(buffer) == DATA[:6]
    assert (source.take(buffer), bytes(buffer[:4])) == (4, DATA[6:10])
    assert (source.take(buffer), bytes(buffer[:5])) == (5, DATA[10:15])
    assert (source.take(buffer), bytes(buffer)) == (6, DATA[15:21])
    assert source.offset == 21
    source = piped(b"")
    assert source.take(buffer) == 0


def test_an_object_that_is_too_large_for_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PIPE_EVENT_MAX", 1 << 20)
    source = piped(bytes(3 << 20), kind=Small)
    source.discard(10)
    assert source.available(1 << 20) == 1 << 20
    source.advance(1)
    with pytest.raises(LimitError) as error:
        source.available(1 << 20)
    assert str(error.value) == (
        "an object needs over 1 MiB of memory from a pipe (at byte 10); "
        "save the stream to a file and read that"
    )
    source.release()
    assert source.available(1 << 20) == 1 << 20


def test_room_grows_with_what_comes() -> None:
    """Not with a length that a stream states."""
    asked: list[int] = []

    def readinto(target: memoryview) -> int:
        asked.append(len(target))
        return min(len(target), 4) if len(asked) < 9 else 0

    source = Small(readinto)
    assert source.available(1 << 20) == 32
    assert asked == [16, 12, 8, 4, 16, 12, 8, 4, 32]


def failing_pipe(at: int) -> PipeInput:
    left = iter(range(at))

    def readinto(target: memoryview) -> int:
        if next(left, None) is None:
            raise OSError(5, "Input/output error")
        target[:10] = DATA[:10]
        return 10

    return PipeInput(readinto)


def test_a_pipe_that_fails() -> None:
    said = r"reading the stream failed: Input/output error \(at byte 20\)"
    source = failing_pipe(2)
    assert source.available(20) == 20
    with pytest.raises(FailureError, match=said):
        source.available(21)
    source = failing_pipe(2)
    buffer = memoryview(bytearray(20))
    assert (source.take(buffer), source.take(buffer)) == (10, 10)
    with pytest.raises(FailureError, match=said):
        source.take(buffer)


@pytest.mark.parametrize(
    ("offset", "stride", "pieces", "most", "count"),
    [
        (0, 10, [(0, 10)], 5, 5),
        (0, 10, [(0, 10)], 999, 10),
        (0, 101, [(0, 101)], 9, 1),
        (0, 10, [(0, 9)], 5, 0),
        (10, 10, [(0, 4), (4, 6)], 3, 3),
        (95, 10, [(0, 10)], 3, 0),
        (300, 10, [(0, 10)], 3, 0),
    ],
)
def test_rows_of_a_pipe(
    offset: int, stride: int, pieces: list[tuple[int, int]], most: int, count: int
) -> None:
    """Those that are there; it waits where not even one is."""
    source = piped(DATA, [100, 50, 50])
    assert source.peek(1) == DATA[:1]
    rows = source.rows(offset, stride, pieces, most)
    assert rows.shape == (count, sum(length for _, length in pieces))
    assert rows.tobytes() == DATA[offset : offset + count * stride]


def test_rows_before_the_next_byte_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many bytes are still there."""
    monkeypatch.setattr(inputs, "_HISTORY", 20)
    source = piped(DATA, [100] * 20, Small)
    source.discard(60)
    source.peek(40)
    source.discard(40)
    assert source.rows(95, 5, [(0, 5)], 1).tobytes() == DATA[95:100]
    source.available(30)
    assert source.rows(80, 10, [(0, 10)], 2).tobytes() == DATA[80:100]
    assert len(source.rows(0, 10, [(0, 10)], 2)) == 0


def test_a_file_in_memory_is_as_a_pipe() -> None:
    """For a decoder: the same bytes by the same calls."""
    sources: list[Any] = [in_file(DATA), piped(DATA, [9] * 900, Small)]
    for length in (5, 100, 0, 700, 1195, 5):
        assert sources[0].peek(length) == sources[1].peek(length)
        assert sources[0].available(length) == sources[1].available(length)
        done = [source.discard(length) for source in sources]
        assert done[0] == done[1]
        for source in sources:
            source.release()
        assert sources[0].offset == sources[1].offset
