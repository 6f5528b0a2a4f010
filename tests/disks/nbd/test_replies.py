"""Replies of a server, read from bytes: what is put into requests, and what breaks the protocol."""

import random
from itertools import pairwise

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.nbd.channel import BrokenError
from blkmig_cli.disks.nbd.replies import Replies, Request
from blkmig_cli.schemas.nbd import Chunk, Command
from tests.support.nbd_bytes import (
    chunk,
    data_chunk,
    error_chunk,
    hole_chunk,
    simple,
    status_chunk,
)

PARTS_MAX = 1024


def read_of(length: int, offset: int = 0) -> Request:
    return Request(Command.READ, offset, length, memoryview(bytearray(b"\xff" * length)))


def take(data: bytes, *requests: Request, structured: bool = True) -> int:
    """Take all replies in ``data`` to ``requests``, 1 and so on; return how many are open then."""
    flying = dict(enumerate(requests, 1))
    replies, at = Replies(flying, structured=structured), 0

    def receive(view: memoryview) -> None:
        nonlocal at
        assert len(view) <= len(data) - at
        view[:] = data[at : at + len(view)]
        at += len(view)

    while at < len(data):
        receive(replies.head)
        replies.take(receive)
    return len(flying)


@pytest.mark.parametrize("seed", range(8))
def test_parts_of_a_read_in_any_order(seed: int) -> None:
    """Data and holes of any lengths."""
    chance = random.Random(seed)
    content = chance.randbytes(40)
    edges = sorted({0, 40, *chance.sample(range(1, 40), 12)})
    parts = list(pairwise(edges))
    chance.shuffle(parts)
    expected, replies = bytearray(content), []
    for number, (low, high) in enumerate(parts):
        done = number == len(parts) - 1
        if number % 3:
            replies.append(data_chunk(1, 100 + low, content[low:high], done=done))
        else:
            replies.append(hole_chunk(1, 100 + low, high - low, done=done))
            expected[low:high] = bytes(high - low)
    request = read_of(40, 100)
    assert take(b"".join(replies), request) == 0
    assert request.done
    assert bytes(request.view) == expected


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ([(0, 9)], 9),
        ([(1, 10)], 0),
        ([(0, 4), (5, 10)], 4),
        ([(5, 10), (0, 4)], 4),
        ([(0, 4), (3, 9)], 4),
        ([(5, 10), (0, 3), (0, 2)], 2),
        ([], 0),
    ],
)
def test_reads_that_are_not_answered_wholly(parts: list[tuple[int, int]], missing: int) -> None:
    replies = [data_chunk(1, 100 + low, bytes(high - low), done=False) for low, high in parts]
    request = read_of(10, 100)
    message = f"^the server answered a read of 10 bytes at 100 without those at {100 + missing}$"
    with pytest.raises(BrokenError, match=message):
        take(b"".join(replies) + chunk(1, Chunk.NONE), request)
    assert not request.done


@pytest.mark.parametrize(
    ("offset", "length"), [(99, 1), (110, 1), (109, 2), (100, 11), (98, 4), (0, 10)]
)
def test_bytes_that_were_not_asked_for(offset: int, length: int) -> None:
    message = (
        f"^the server sent bytes {offset} to {offset + length} in answer to a read of 10 bytes"
    )
    for reply in (data_chunk(1, offset, bytes(length)), hole_chunk(1, offset, length)):
        with pytest.raises(BrokenError, match=message):
            take(reply, read_of(10, 100))


def test_a_hole_of_no_bytes() -> None:
    with pytest.raises(BrokenError, match=r"^the server sent bytes 100 to 100 in answer"):
        take(hole_chunk(1, 100, 0), read_of(10, 100))


def test_more_bytes_than_were_asked_for() -> None:
    data = data_chunk(1, 0, bytes(6), done=False)
    with pytest.raises(BrokenError, match=r"^the server sent bytes 0 to 6 in answer"):
        take(data + data, read_of(10))


@pytest.mark.parametrize("more", [0, 1])
def test_the_most_parts_out_of_order(more: int) -> None:
    number = PARTS_MAX + more
    order = [*range(1, number, 2), *range(0, number, 2)]
    replies = [data_chunk(1, at, b"x", done=at == order[-1]) for at in order]
    request = read_of(number)
    if more:
        with pytest.raises(BrokenError, match=r"^the server sent a read in over 1024 parts out of"):
            take(b"".join(replies), request)
    else:
        assert take(b"".join(replies), request) == 0
    # In order, they may be as many as there are bytes.
    request = read_of(2000)
    replies = [data_chunk(1, at, b"x", done=at == 1999) for at in range(2000)]
    assert take(b"".join(replies), request) == 0


READ, WRITE = read_of(8), Request(Command.WRITE, 0, 8)
STATUS = Request(Command.BLOCK_STATUS, 0, 512, contexts=(7,))


@pytest.mark.parametrize(
    ("request_", "reply", "words"),
    [
        (WRITE, data_chunk(1, 0, b"x"), "a chunk of type 0x1 with 9 bytes in answer to WRITE"),
        (WRITE, hole_chunk(1, 0, 8), "a chunk of type 0x2 with 12 bytes in answer to WRITE"),
        (STATUS, hole_chunk(1, 0, 8), "a chunk of type 0x2 with 12 bytes in answer to BLOCK_STATUS"),
        (READ, status_chunk(1, (1, 0)), "a chunk of type 0x5 with 12 bytes in answer to READ"),
        (READ, chunk(1, Chunk.OFFSET_DATA, bytes(8)), "type 0x1 with 8 bytes in answer to READ"),
        (READ, chunk(1, Chunk.OFFSET_HOLE, bytes(13)), "type 0x2 with 13 bytes in answer to READ"),
        (READ, chunk(1, Chunk.NONE, b"x"), "a chunk of type 0x0 with 1 bytes in answer to READ"),
        (WRITE, chunk(1, Chunk.NONE, done=False), "type 0x0 with 0 bytes in answer to WRITE"),
        (WRITE, chunk(1, 0x8001, bytes(5)), "type 0x8001 with 5 bytes in answer to WRITE"),
        (WRITE, chunk(1, 0x8001, b"\0\0\0\5" + bytes(8189)), "type 0x8001 with 8193 bytes"),
        (WRITE, error_chunk(1, 0), "an error without a number"),
        (WRITE, chunk(1, 99), "a chunk of type 0x63 with 0 bytes in answer to WRITE"),
        (READ, simple(1, data=bytes(8)), "a simple reply to a read"),
        (WRITE, bytes(16), "a reply of the unknown kind 0x0"),
        (STATUS, status_chunk(1), "a block status of 4 bytes"),
        (STATUS, chunk(1, Chunk.BLOCK_STATUS, bytes(13)), "a block status of 13 bytes"),
        (STATUS, status_chunk(1, (1, 0), number=7, done=False) + status_chunk(1, (1, 0)),
         "the block status of context 7 twice"),
    ],
)  # fmt: skip
def test_what_breaks_the_protocol(request_: Request, reply: bytes, words: str) -> None:
    request = Request(request_.command, 0, request_.length, request_.view, request_.contexts)
    with pytest.raises(BrokenError, match=words):
        take(reply, request)


def test_replies_to_nothing() -> None:
    for reply in (simple(2), chunk(2, Chunk.NONE)):
        with pytest.raises(
            BrokenError, match=r"^the server answered the request 2, which is not op"
        ):
            take(reply, WRITE)


def test_a_structured_reply_that_was_not_agreed_on() -> None:
    with pytest.raises(
        BrokenError, match=r"^the server sent a reply of the unknown kind 0x668e33ef"
    ):
        take(chunk(1, Chunk.NONE), WRITE, structured=False)


def test_simple_replies() -> None:
    read, write, failed = read_of(3), Request(Command.WRITE, 0, 3), read_of(5)
    replies = simple(3, 5) + simple(2) + simple(1, data=b"abc")
    assert take(replies, read, write, failed, structured=False) == 0
    assert (bytes(read.view), read.error, write.error, failed.error) == (b"abc", 0, 0, 5)
    assert (read.done, write.done, failed.done) == (True, True, True)


def test_the_first_error_counts() -> None:
    """What has been read until then may have gaps."""
    request = read_of(8)
    replies = [
        data_chunk(1, 4, b"x", done=False), error_chunk(1, 28, b"full", done=False),
        error_chunk(1, 5, done=False), chunk(1, Chunk.NONE),
    ]  # fmt: skip
    assert take(b"".join(replies), request) == 0
    assert (request.error, request.done) == (28, True)
    request = Request(Command.WRITE, 0, 1)
    assert take(chunk(1, 0x8001, b"\0\0\0\5" + bytes(8188)), request) == 0
    assert request.error == 5


def test_block_status() -> None:
    """Other contexts are passed over, however long they are."""
    request = Request(Command.BLOCK_STATUS, 0, 512, contexts=(7, 8))
    many = [(1, 0)] * ((64 << 10) // 8 + 1)
    replies = [
        status_chunk(1, (512, 3), number=8, done=False), status_chunk(1, *many, number=9, done=False),
        status_chunk(1, (1, 0), (511, 2), number=7),
    ]  # fmt: skip
    assert take(b"".join(replies), request) == 0
    assert {number: len(rows) for number, rows in request.status.items()} == {8: 8, 7: 16}
    request = Request(Command.BLOCK_STATUS, 5, 512, contexts=(7, 8))
    with pytest.raises(BrokenError, match=r"^the server left out the block status at byte 5$"):
        take(status_chunk(1, (512, 3), number=8), request)


@pytest.mark.parametrize("more", [0, 1])
def test_the_longest_block_status(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NBD_STATUS_MAX", 24)
    request = Request(Command.BLOCK_STATUS, 0, 512, contexts=(7,))
    reply = status_chunk(1, *[(1, 0)] * (3 + more))
    if more:
        with pytest.raises(BrokenError, match=r"^the server sent a block status of 36 bytes$"):
            take(reply, request)
    else:
        assert take(reply, request) == 0
