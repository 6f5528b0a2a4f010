"""Servers that break the protocol, stall or hang up: one FailureError, and nothing is believed after it."""

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.image import FilePart
from blkmig_cli.disks.nbd.channel import SocketChannel
from blkmig_cli.disks.nbd.connection import Connection
from blkmig_cli.disks.nbd.handshake import negotiate
from blkmig_cli.disks.nbd.image import NbdImage, image_on
from blkmig_cli.disks.nbd.replies import Request
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas import nbd as schema
from blkmig_cli.schemas.nbd import Chunk, Command, Option, OptionReply
from tests.support import nbd_bytes as nbd
from tests.support.memory import memory_taken
from tests.support.nbd_bytes import (
    SIZE,
    ack,
    answer,
    chunk,
    context,
    data_chunk,
    error_chunk,
    greeting,
    hello,
    hello_simple,
    hole_chunk,
    simple,
    size_info,
    status_chunk,
)

MIB = 1 << 20
DATA = bytes(range(256)) * 4


@contextmanager
def server(*pieces: bytes, hangs_up: bool = True) -> Iterator[socket.socket]:
    """A peer that has said everything before it is asked."""
    ours, theirs = socket.socketpair()
    said = b"".join(pieces)

    def talk() -> None:
        try:
            theirs.sendall(said)
            if hangs_up:
                theirs.shutdown(socket.SHUT_WR)
        except OSError:  # the client has left
            pass

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        yield ours
    finally:
        ours.close()
        theirs.close()
        talking.join()


@contextmanager
def image(*pieces: bytes, hangs_up: bool = True, writable: bool = False) -> Iterator[NbdImage]:
    with server(*pieces, hangs_up=hangs_up) as peer:
        opened = image_on(peer, "x", "the disk", writable=writable, bitmaps=["b"])
        try:
            yield opened
        finally:
            opened.close()


def fails(*pieces: bytes, words: str, hangs_up: bool = True) -> None:
    """Opening fails with a line that has these words."""
    with server(*pieces, hangs_up=hangs_up) as peer:
        with pytest.raises(FailureError) as caught:
            image_on(peer, "x", "the disk", writable=False, bitmaps=["b"])
        assert peer.fileno() == -1
    one_line(caught.value, words)


def one_line(error: FailureError, words: str) -> None:
    assert words in str(error)
    assert str(error).startswith("the disk: ")
    assert str(error).isprintable()


def block_sizes(minimum: int, maximum: int) -> bytes:
    return hello(size_info(), nbd.block_info(minimum, maximum))


STRUCTURED = greeting() + ack(Option.STRUCTURED_REPLY)
END = ack(Option.SET_META_CONTEXT)
BASE = context(7, "base:allocation")
HANDSHAKES = {
    "nothing": (b"", "closed the connection"),
    "half a greeting": (greeting()[:9], "closed the connection"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "it is not an NBD server"),
    "old style": (
        struct.pack(">QQ", schema.GREETING_MAGIC, 0x420281861253) + bytes(136),
        "does not support the fixed newstyle",
    ),
    "not fixed": (greeting(2), "does not support the fixed newstyle"),
    "no magic": (greeting() + bytes(20), "the answer to STRUCTURED_REPLY is not one of NBD"),
    "another option": (greeting() + ack(Option.GO), "the answer to STRUCTURED_REPLY is not one"),
    "long": (
        greeting() + ack(Option.STRUCTURED_REPLY)[:-4] + b"\xff" * 4,
        "the answers to STRUCTURED_REPLY are over 16 MiB",
    ),
    "an answer without a question": (
        greeting() + answer(Option.STRUCTURED_REPLY, OptionReply.INFO), "type 3 to STRUCTURED_REPLY"),
    "TLS": (
        greeting() + answer(Option.STRUCTURED_REPLY, OptionReply.ERR_TLS_REQD),
        "the server requires TLS; use a URI that begins with nbds",
    ),
    "a context twice": (STRUCTURED + BASE * 2 + END, "selected the context 'base:allocation' unasked"),
    "an id twice": (
        STRUCTURED + BASE + context(7, "qemu:dirty-bitmap:b") + END, "'qemu:dirty-bitmap:b' unasked"),
    "another context": (STRUCTURED + context(1, "b\nc") + END, "selected the context 'b\\x0ac' unasked"),
    "a context without id": (
        STRUCTURED + answer(Option.SET_META_CONTEXT, OptionReply.META_CONTEXT, b"abc") + END,
        "of 3 bytes"),
    "a context without name": (STRUCTURED + context(1, "") + END, "empty or too long"),
    "a long context": (STRUCTURED + context(1, "a" * 4097) + END, "empty or too long"),
    "no size": (hello(nbd.block_info(1, 1 << 20)), "did not state the size"),
    "a short size": (
        STRUCTURED + END + answer(Option.GO, OptionReply.INFO, b"\0" * 11) + ack(Option.GO),
        "an answer of 11 bytes",
    ),
    "an empty info": (
        STRUCTURED + END + answer(Option.GO, OptionReply.INFO) + ack(Option.GO),
        "an answer of 0 bytes",
    ),
    "a huge disk": (hello(size_info(1 << 63)), "more than any disk"),
    "blocks of nothing": (block_sizes(0, 1 << 20), "block sizes of 0 to"),
    "blocks of no power": (block_sizes(513, 513 << 10), "block sizes of 513 to"),
    "large blocks": (block_sizes(1 << 17, 1 << 20), "block sizes of 131072 to"),
    "small most": (block_sizes(4096, 2048), "block sizes of 4096 to 2048"),
    "tiny most": (block_sizes(1, 1), "block sizes of 1 to 1"),
    "most of no blocks": (block_sizes(4096, 4097), "block sizes of 4096 to 4097"),
    "refused": (
        hello_simple()[:18] + answer(Option.STRUCTURED_REPLY, OptionReply.ERR_UNSUP)
        + answer(Option.GO, OptionReply.ERR_POLICY, b"not\nyou " + b"!" * 999),
        "the server refused GO: its policy forbids it (not\\x0ayou !",
    ),
    "no export": (
        hello_simple()[:18] + answer(Option.STRUCTURED_REPLY, OptionReply.ERR_UNSUP)
        + answer(Option.GO, OptionReply.ERR_UNKNOWN), "the server has no export 'x'"),
    "unknown error": (
        hello_simple()[:18] + answer(Option.STRUCTURED_REPLY, OptionReply.ERR_UNSUP)
        + answer(Option.GO, 0x80001234), "the server refused GO: error 0x80001234"),
}  # fmt: skip


@pytest.mark.parametrize("name", HANDSHAKES)
def test_handshakes(name: str) -> None:
    said, words = HANDSHAKES[name]
    fails(said, words=words)


@pytest.mark.parametrize("option", [Option.SET_META_CONTEXT, Option.GO])
def test_answers_without_end(monkeypatch: pytest.MonkeyPatch, option: Option) -> None:
    """Up to a bound, in number and in bytes."""
    monkeypatch.setattr(limits, "NBD_HANDSHAKE_MAX", 100_000)
    kind = OptionReply.INFO if option == Option.GO else OptionReply.META_CONTEXT
    begin = STRUCTURED + (END if option == Option.GO else b"")
    for data in (b"\0\3" + bytes(65000), b"\0\3"):
        endless = answer(option, kind, data) * 5000
        fails(begin, endless[:200_000], words=f"the answers to {option.name} are over 97.66 KiB")


def test_a_peer_that_stalls_in_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NBD_CONNECT_WAIT", 0.05)
    for said in (b"", greeting(), STRUCTURED, hello()[:-1]):
        fails(said, words="did not answer in time", hangs_up=False)


def test_a_peer_that_talks_and_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says keeps the socket readable; what it should hear is more than the socket holds."""
    monkeypatch.setattr(limits, "NBD_CONNECT_WAIT", 0.05)
    names = [f"{at:1000}" for at in range(8000)]
    talking = server(STRUCTURED, bytes(MIB), hangs_up=False)
    with talking as peer, pytest.raises(FailureError, match="did not answer in time"):
        image_on(peer, "x", "the disk", writable=False, bitmaps=names)


def reads(found: NbdImage) -> object:
    return found.read(0, 1024)


def asks(found: NbdImage) -> object:
    return list(found.extents())


Act = Callable[[NbdImage], object]
#: What the server says to the first request, which has the cookie 1: a read of all, or block status.
LIES: dict[str, tuple[Act, bytes, str]] = {
    "hangs up": (reads, b"", "the server closed the connection"),
    "half a reply": (reads, simple(1)[:9], "the server closed the connection"),
    "half the data": (
        reads, data_chunk(1, 0, bytes(SIZE // 2))[:-1], "the server closed the connection"),
    "no magic": (reads, bytes(16), "a reply of the unknown kind 0x0"),
    "another cookie": (reads, data_chunk(99, 0, DATA), "the request 99, which is not open"),
    "simple to a read": (reads, simple(1, 0, bytes(SIZE)), "a simple reply to a read"),
    "more than asked": (reads, data_chunk(1, 0, bytes(SIZE)), "sent bytes 0 to 1048576 in answer to"),
    "before": (reads, data_chunk(2, 0, DATA), "sent bytes 0 to 1024 in answer to"),
    "behind": (reads, data_chunk(1, 1 << 63, DATA), f"sent bytes {1 << 63} to"),
    "a large hole": (reads, hole_chunk(1, 0, 1 << 31), "sent bytes 0 to 2147483648 in answer to"),
    "an empty hole": (reads, hole_chunk(1, 0, 0), "sent bytes 0 to 0 in answer to"),
    "no data": (reads, data_chunk(1, 0, b""), "a chunk of type 0x1 with 8 bytes in answer to READ"),
    "a short hole": (reads, chunk(1, Chunk.OFFSET_HOLE, bytes(8)), "type 0x2 with 8 bytes"),
    "a part": (reads, data_chunk(1, 0, DATA), "without those at 1024"),
    "twice": (
        reads,
        hole_chunk(1, 0, 300 << 10, done=False) + hole_chunk(1, 0, 212 << 10),
        "without those at 217088",
    ),
    "too much in parts": (
        reads,
        hole_chunk(1, 0, 300 << 10, done=False) + hole_chunk(1, 200 << 10, 300 << 10),
        "sent bytes 204800 to 512000",
    ),
    "parts out of order": (
        reads,
        b"".join(hole_chunk(1, 2 * at, 1, done=False) for at in range(2000)),
        "in over 1024 parts out of order",
    ),
    "nothing": (reads, chunk(1, Chunk.NONE), "without those at 0"),
    "nothing without end": (reads, chunk(1, Chunk.NONE, done=False), "type 0x0 with 0 bytes"),
    "an unknown chunk": (reads, chunk(1, 77, b"abc"), "a chunk of type 0x4d with 3 bytes"),
    "status to a read": (reads, status_chunk(1, (SIZE, 0)), "a chunk of type 0x5 with 12 bytes"),
    "data to status": (asks, data_chunk(1, 0, DATA), "type 0x1 with 1032 bytes in answer to BLOCK"),
    "an error without number": (reads, error_chunk(1, 0), "an error without a number"),
    "a short error": (reads, chunk(1, Chunk.ERROR, bytes(5)), "type 0x8001 with 5 bytes"),
    "a long error": (reads, chunk(1, Chunk.ERROR, bytes(9000)), "type 0x8001 with 9000 bytes"),
    "no status": (asks, chunk(1, Chunk.NONE), "left out the block status at byte 0"),
    "simple to status": (asks, simple(1), "left out the block status at byte 0"),
    "empty status": (asks, status_chunk(1), "a block status of 4 bytes"),
    "an extent of nothing": (asks, status_chunk(1, (0, 0)), "the state of 0 bytes at byte 0"),
    "a later extent of nothing": (
        asks, status_chunk(1, (512, 0), (0, 0)), "the state of 0 bytes at byte 512"),
    "past the end": (asks, status_chunk(1, (SIZE + 1, 0)), "the state of 1048577 bytes at byte 0"),
    "half an extent": (
        asks, chunk(1, Chunk.BLOCK_STATUS, bytes(10)), "a block status of 10 bytes"),
    "huge status": (
        asks,
        chunk(1, Chunk.BLOCK_STATUS)[:-4] + struct.pack(">I", 0xFFFFFFFC),
        "a block status of 4294967292 bytes",
    ),
    "status twice": (
        asks,
        status_chunk(1, (512, 0), done=False) + status_chunk(1, (512, 0)),
        "the block status of context 7 twice",
    ),
    "another context": (asks, status_chunk(1, (SIZE, 0), number=8), "left out the block status"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_lies(name: str) -> None:
    """The first request fails with the reason, and so do all that follow."""
    act, said, words = LIES[name]
    behind = hello() + said
    with image(behind) as found:
        for _ in range(2):
            for what in (act, reads, asks):
                with pytest.raises(FailureError) as caught:
                    what(found)
                one_line(caught.value, words)


def test_status_in_pieces() -> None:
    """A server may say less than it is asked; another context is passed over."""
    said = status_chunk(1, (512, 0), (512, 2), done=False) + status_chunk(1, (9, 9), number=8)
    rest = status_chunk(2, (SIZE - 1024, 0))
    with image(hello(), said, rest) as found:
        assert list(found.extents()) == [(0, 512), (1024, SIZE - 1024)]


def test_a_read_in_parts() -> None:
    half = SIZE // 4
    said = data_chunk(1, half, b"b" * half, done=False) + hole_chunk(1, 0, half, done=False)
    end = chunk(1, Chunk.NONE) + data_chunk(2, 2 * half, b"c" * half * 2)
    with image(hello(), said, end) as found:
        assert found.read(0, SIZE) == bytes(half) + b"b" * half + b"c" * half * 2


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EIO, "Input/output error"),
        (errno.EINVAL, "Invalid argument"),
        (errno.ENOSPC, "No space left on device"),
        (108, "the server is shutting down"),
        (0xFFFFFFFF, "error 4294967295"),
    ],
)
def test_errors(number: int, words: str) -> None:
    """They are those of one request."""
    half, ones = SIZE // 2, b"\1" * (SIZE // 2)
    good = data_chunk(3, 0, bytes(half)) + data_chunk(4, half, bytes(half))
    late = hole_chunk(1, 0, 512, done=False) + error_chunk(1, number, done=False)
    bad = {
        "chunk": hello() + error_chunk(1, number, b"why\n") + data_chunk(2, half, ones) + good,
        "late": hello() + late + error_chunk(1, 5, done=False) + chunk(1, Chunk.NONE)
        + data_chunk(2, half, ones) + good,
        "simple": hello_simple() + simple(1, number) + simple(2, 0, ones)
        + simple(3, 0, bytes(half)) + simple(4, 0, bytes(half)),
    }  # fmt: skip
    for said in bad.values():
        with image(said) as found:
            with pytest.raises(FailureError) as caught:
                found.read(0, SIZE)
            one_line(caught.value, f"reading 512 KiB at its byte 0 failed: {words}")
            assert not any(found.read(0, SIZE))


def test_a_server_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    with image(hello(), simple(1)[:10], hangs_up=False) as found:
        monkeypatch.setattr(limits, "NBD_ANSWER_WAIT", 0.05)
        for _ in range(2):
            with pytest.raises(FailureError) as caught:
                found.read(0, 100)
            one_line(
                caught.value,
                "reading 512 KiB at its byte 0 failed: the server did not answer in time",
            )


def test_a_server_that_does_not_take_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with image(hello_simple(size_info(1 << 30)), hangs_up=False, writable=True) as found:
        monkeypatch.setattr(limits, "NBD_ANSWER_WAIT", 0.05)
        with pytest.raises(FailureError) as caught:
            found.write(0, memoryview(bytes(8 * MIB)))
        one_line(caught.value, "failed: the server did not answer in time")


def test_a_server_that_does_not_take_a_part_of_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"x" * 8 * MIB)
    with (
        image(hello_simple(size_info(1 << 30)), hangs_up=False, writable=True) as found,
        (tmp_path / "f").open("rb") as file,
    ):
        monkeypatch.setattr(limits, "NBD_ANSWER_WAIT", 0.05)
        with pytest.raises(FailureError) as caught:
            found.write_part(0, FilePart(file.fileno(), 0, 8 * MIB))
        one_line(caught.value, "failed: the server did not answer in time")


@pytest.mark.parametrize(
    ("number", "words"),
    [(None, "the file that is written from became shorter"), (errno.EIO, "Input/output error")],
)
def test_a_part_of_a_file_that_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int | None, words: str
) -> None:
    """The server has been told how much comes: the connection is of no use any more."""
    (tmp_path / "f").write_bytes(b"x" * 10_000)

    def fails(fd: int, length: int, offset: int) -> bytes:
        if number is not None and offset > 0:
            raise OSError(number, os.strerror(number))
        return original(fd, length, offset)

    original = os.pread
    monkeypatch.setattr(os, "pread", fails)
    with (
        image(hello_simple(size_info(1 << 30)), hangs_up=False, writable=True) as found,
        (tmp_path / "f").open("rb") as file,
    ):
        for _ in range(2):
            with pytest.raises(FailureError) as caught:
                found.write_part(0, FilePart(file.fileno(), 0, 10_240))
            one_line(caught.value, "writing 10 KiB at its byte 0 failed: ")
            one_line(caught.value, words)


def test_a_server_that_talks_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that do not end a reply: each is answered in time, the reply is not."""
    endless = error_chunk(1, 5, b"x" * 4000, done=False) * 5000
    with image(hello(), endless, hangs_up=False) as found:
        monkeypatch.setattr(limits, "NBD_ANSWER_WAIT", 0.02)
        with pytest.raises(FailureError) as caught:
            found.read(0, 100)
        one_line(caught.value, "did not answer in time")


def test_the_state_of_a_huge_disk_takes_no_memory() -> None:
    """A few bytes each for a disk of 8 EiB."""
    size = limits.DISK_MAX
    rows = [(512, 0), (512, 2)] * 1000
    said = b"".join(status_chunk(cookie, *rows) for cookie in range(1, 60))
    with image(hello(size_info(size)), said) as found:
        extents = found.extents()
        taken, number = memory_taken(lambda: sum(1 for _ in islice(extents, 50_000)))
        assert number == 50_000
        assert taken < 20 * MIB


def test_a_lie_that_another_request_finds() -> None:
    """A read that is answered in part is never done, whoever took the answer."""
    with server(hello(), data_chunk(1, 0, DATA), data_chunk(2, 0, DATA)) as peer:
        channel = SocketChannel(peer)
        connection = Connection(channel, negotiate(channel, "x", "the disk"), "the disk")
        first, second = (
            Request(Command.READ, 0, length, memoryview(bytearray(length)))
            for length in (2 * len(DATA), len(DATA))
        )
        connection.send(first)
        connection.send(second)
        for request in (second, first):
            with pytest.raises(FailureError, match="without those at 1024"):
                connection.wait(request)


def test_an_info_that_is_not_known() -> None:
    unknown = answer(Option.GO, OptionReply.INFO, struct.pack(">H", 99) + b"abc")
    with image(hello(unknown, size_info(12_345))) as found:
        assert found.size == 12_345


@pytest.mark.parametrize("answered", [True, False])
def test_leave_is_taken_behind_the_answers(answered: bool) -> None:
    """Of a server that has answered all requests; one that breaks off is left at once."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(hello_simple(size_info()))
        opened = image_on(ours, "x", "the disk", writable=False)
        said = theirs.recv(1 << 16)
        opened._connection.send(Request(Command.READ, 0, 512, memoryview(bytearray(512))))
        said = theirs.recv(1 << 16)
        (cookie,) = struct.unpack(">Q", said[-20:-12])
        if answered:
            theirs.sendall(simple(cookie, 0, bytes(512)))
        else:
            theirs.shutdown(socket.SHUT_WR)
        opened.close()
        left = theirs.recv(1 << 16)
        expected = struct.pack(">IHHQQI", schema.REQUEST_MAGIC, 0, Command.DISC, 0, 0, 0)
        assert left == (expected if answered else b"")
