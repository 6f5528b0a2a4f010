"""Packing and unpacking in threads: the same bytes and errors in the same order, and no thread is left."""

import gzip
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.errors import StreamError
from blkmig_cli.transport import background, inputs
from blkmig_cli.transport.background import Reading, Writing
from blkmig_cli.transport.source import open_stream
from tests.support import raw
from tests.support.long import examples
from tests.support.peers import wait_until

BLKMIG = [sys.executable, "-m", "blkmig_cli"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin the threads with the first bytes; check that none is left."""
    monkeypatch.setattr(background, "_BEGIN", 0)
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Source:
    """Gives ``data`` in pieces of these ``sizes``, then raises ``error``, or ends."""

    def __init__(self, data: bytes, sizes: list[int], error: Exception | None = None) -> None:
        self.left = memoryview(data)
        self.sizes = iter(sizes)
        self.error = error

    def __call__(self, target: memoryview) -> int:
        count = min(len(target), len(self.left), next(self.sizes, 1 << 20))
        if not count and self.error is not None:
            raise self.error
        target[:count], self.left = self.left[:count], self.left[count:]
        return count


def take(reading: Reading, sizes: list[int]) -> bytes:
    """Read to the end, in buffers of ``sizes``, over and over."""
    found = bytearray()
    while True:
        for size in sizes:
            buffer = memoryview(bytearray(size))
            count = reading.readinto(buffer)
            if not count:
                return bytes(found)
            found += buffer[:count]


SIZES = st.lists(st.integers(1, 3 << 20), min_size=1, max_size=9)


@settings(max_examples=examples(10, 200), deadline=None)
@given(st.integers(0, 9 << 20), SIZES, SIZES, st.integers(0, 3 << 20))
def test_the_same_bytes(length: int, given_: list[int], wanted: list[int], begin: int) -> None:
    data = random.Random(length).randbytes(length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(background, "_BEGIN", begin)
        for error in None, StreamError("the data is damaged"):
            reading = Reading(Source(data, given_, error), 0)
            try:
                if error is None:
                    assert take(reading, wanted) == data
                    assert not reading.readinto(memoryview(bytearray(9)))
                    continue
                # All that comes before the damage is read, and nothing after it.
                left = len(data)
                while left:
                    left -= reading.readinto(memoryview(bytearray(1 << 20)))
                for _ in range(2):
                    with pytest.raises(StreamError, match="the data is damaged"):
                        reading.readinto(memoryview(bytearray(9)))
            finally:
                reading.close()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("error", [None, StreamError("the data is damaged")])
def test_what_is_there_comes_at_once(error: StreamError | None) -> None:
    """What comes while the reader is busy makes one read, as far as there is room, up to a failure."""
    data = random.Random(3).randbytes(300)
    reading = Reading(Source(data, [100] * 3, error), 0)
    first = memoryview(bytearray(1))
    try:
        assert reading.readinto(first) == 1
        wait_until(lambda: reading._filled.qsize() >= 3)  # two pieces, and the end or the failure
        rest = memoryview(bytearray(1000))
        assert reading.readinto(rest[:150]) == 150
        assert reading.readinto(rest[150:]) == 149
        assert bytes(first) + bytes(rest[:299]) == data
        if error is None:
            assert reading.readinto(rest) == 0
        else:
            with pytest.raises(StreamError, match="the data is damaged"):
                reading.readinto(rest)
    finally:
        reading.close()


@pytest.mark.usefixtures("at_once")
def test_it_stops_where_no_byte_comes() -> None:
    """A pipe that stays open, with less than the next piece: what is there was read before."""
    packed = gzip.compress(raw.qemu(*(raw.block(at * 2048, 9) for at in range(1000))))
    read_end, write_end = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, write_end)
        os.write(write_end, packed[: len(packed) // 2])
        with open_stream(f"fd:{read_end}") as stream:
            stack.callback(os.close, read_end)
            assert stream.input.peek(4) == b"QEVM"
            # The thread waits now.
            assert threading.active_count() > 1


@pytest.mark.usefixtures("at_once")
def test_a_process_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reading, "_threads", True)  # what is changed is changed back
    for threads in (1, 0):
        before = threading.active_count()
        reading = Reading(Source(bytes(9 << 20), []), 0)
        assert reading.readinto(memoryview(bytearray(5))) == 5
        assert threading.active_count() == before + threads
        reading.close()
        Reading.use_no_threads()


@pytest.mark.usefixtures("at_once")
def test_writing_in_order() -> None:
    found = bytearray()
    writing = Writing(found.extend)
    pieces = [random.Random(at).randbytes(at * 70_000) for at in range(30)]
    for piece in pieces:
        writing.write(memoryview(piece))
    writing.finish()
    assert found == b"".join(pieces)
    writing.close()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("early", [True, False])
def test_an_error_of_writing(early: bool) -> None:
    """It is raised by a later call; nothing is written after it."""
    found = bytearray()

    def write(data: memoryview) -> None:
        if len(found) >= (4 << 20 if early else 29 << 20):
            raise OSError("no space")
        found.extend(data)

    writing = Writing(write)

    def write_all() -> None:
        for at in range(30):
            writing.write(memoryview(bytes([at]) * (1 << 20)))
        writing.finish()

    with pytest.raises(OSError, match="no space"):
        write_all()
    assert found == b"".join(bytes([at]) * (1 << 20) for at in range(4 if early else 29))
    writing.close()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("waiting", [0, 3, 4])
def test_a_target_that_blocks(monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    """It is waited for only so long, also where as many pieces wait as there is room for."""
    monkeypatch.setattr(background, "_PIECE", 10)
    begun, gate, written = threading.Event(), threading.Event(), []

    def write(data: memoryview) -> None:
        begun.set()
        gate.wait(60)
        written.append(bytes(data))

    writing = Writing(write)
    before = set(threading.enumerate())
    writing.write(memoryview(b"first piece"[:10]))
    (thread,) = set(threading.enumerate()) - before
    assert begun.wait(60)
    writing.write(memoryview(bytes(10 * waiting)))
    writing.close(0.01)
    assert thread.is_alive()
    gate.set()
    if waiting == 4:
        writing._pieces.put(None)  # for which there was no room
    thread.join(60)
    assert written == [b"first piec"]


@pytest.mark.parametrize("suffix", ["gz", pytest.param("xz", marks=pytest.mark.long), "zst"])
def test_a_full_target(suffix: str, tmp_path: Path) -> None:
    """One line, and no file, where the bytes that do not fit come from a thread."""
    (tmp_path / "d.img").write_bytes(random.Random(7).randbytes(12 << 20))
    done = subprocess.run(
        ["/bin/sh", "-c", f'ulimit -f 4096; exec "$@" --to s.{suffix}', "sh", *BLKMIG, "send", "d.img", "-q"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith(f"blkmig: s.{suffix}: File too large")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["d.img"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_thread_waits(number: int, tmp_path: Path) -> None:
    """A compressed stream of some size from a pipe whose writer goes on for ever."""
    stream = raw.qemu(*(raw.block(at * 2048, 0, rest=bytes(raw.CHUNK)) for at in range(9)))
    packed = gzip.compress(stream[:-200])
    with subprocess.Popen(
        [*BLKMIG, "validate", "-", "-v"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=False
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(packed[:-20])
        process.stdin.flush()
        assert process.stderr.readline()  # it has begun to read
        process.send_signal(number)
        assert process.wait(60) == 128 + number


@pytest.mark.parametrize("ready", [True, False])
def test_rows_are_of_what_is_there(ready: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read on for more rows where that does not wait, as far as there is room."""
    monkeypatch.setattr(inputs, "_ROOM", 1 << 14)
    monkeypatch.setattr(inputs, "_HISTORY", 50)
    monkeypatch.setattr(inputs.PipeInput, "first_room", 1 << 10)
    data = random.Random(5).randbytes(70_000)
    source = inputs.PipeInput(Source(data, [700] * 1000), ready=lambda: ready)
    while source.offset < len(data):
        rows = source.rows(source.offset, 10, [(0, 10)], 1 << 20)
        left = len(data) - source.offset
        if ready:
            assert min(1 << 13, left) // 10 <= len(rows) <= (1 << 14) // 10
        else:
            assert len(rows) <= 70
        found = rows.tobytes() or source.peek(10)
        assert found == data[source.offset :][: len(found)]
        source.advance(len(found))


def test_a_failure_is_raised_behind_the_rows_before_it() -> None:
    error = StreamError("the data is damaged")
    source = inputs.PipeInput(Source(bytes(700), [70] * 10, error), ready=lambda: True)
    assert source.rows(0, 100, [(0, 100)], 50).shape == (7, 100)
    source.advance(700)
    assert not len(source.rows(700, 100, [(0, 100)], 50))
    with pytest.raises(StreamError, match="the data is damaged"):
        source.peek(1)


def test_what_does_not_wait(tmp_path: Path) -> None:
    """A file never does; of a pipe, what the thread has read."""
    path = tmp_path / "f"
    path.write_bytes(bytes(100))
    with open(path, "rb", 0) as file:
        assert Reading(file.readinto, file.fileno()).ready()
    ours, theirs = os.pipe()
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(background, "_BEGIN", 0)
        file = stack.enter_context(open(ours, "rb", 0))
        reading = Reading(file.readinto, ours)
        stack.callback(reading.close)
        stack.callback(os.close, theirs)
        assert not reading.ready()
        os.write(theirs, bytes(100))
        assert reading.readinto(memoryview(bytearray(60))) == 60
        assert reading.ready()
        assert reading.readinto(memoryview(bytearray(60))) == 40
        assert not reading.ready()
    with pytest.raises(ValueError, match="closed"):
        reading.readinto(memoryview(bytearray(60)))


# -- call by call


@pytest.mark.parametrize(("begin", "own"), [(0, 0), (5, 1), (6, 2), (1 << 20, 21)])
def test_the_thread_begins_after_some_bytes(
    monkeypatch: pytest.MonkeyPatch, begin: int, own: int
) -> None:
    """``own``: how often the reader itself reads, before and at the end."""
    monkeypatch.setattr(background, "_BEGIN", begin)
    source, threads = Source(bytes(range(100)), []), []

    def readinto(target: memoryview) -> int:
        threads.append(threading.current_thread())
        return source(target)

    reading = Reading(readinto, 0)
    buffer = memoryview(bytearray(5))
    for at in range(20):
        assert reading.readinto(buffer) == 5
        assert bytes(buffer) == bytes(range(5 * at, 5 * at + 5))
    assert reading.readinto(buffer) == 0
    reading.close()
    assert threads.count(threading.current_thread()) == own


@pytest.mark.usefixtures("at_once")
def test_after_it_was_closed() -> None:
    reading = Reading(Source(bytes(100), [10] * 10), 0)
    assert reading.readinto(memoryview(bytearray(5))) == 5
    reading.close()
    assert not reading.ready()
    for _ in range(2):
        with pytest.raises(ValueError, match="the stream is closed"):
            reading.readinto(memoryview(bytearray(5)))


def test_waiting_in_the_thread_of_the_reader() -> None:
    """It returns at once: only the other thread can be stopped."""
    ours, theirs = os.pipe()
    reading = Reading(Source(b"", []), ours)
    reading.wait()
    os.close(ours)
    os.close(theirs)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("length", "pieces"), [(0, []), (1, [1]), (10, [10]), (11, [10, 1]), (20, [10, 10])]
)
def test_pieces_to_write(monkeypatch: pytest.MonkeyPatch, length: int, pieces: list[int]) -> None:
    """Copies, as the caller may use the buffer again."""
    monkeypatch.setattr(background, "_PIECE", 10)
    found: list[bytes] = []
    writing = Writing(lambda data: found.append(bytes(data)))
    buffer = bytearray(range(length))
    writing.write(memoryview(buffer))
    buffer[:] = bytes(length)
    writing.finish()
    assert list(map(len, found)) == pieces
    assert b"".join(found) == bytes(range(length))
    writing.finish()
    writing.close()
