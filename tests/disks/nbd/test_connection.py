"""Requests over a connection whose channel does what a test wants."""

from collections.abc import Callable

import pytest

from blkmig_cli.disks.nbd.channel import LATE, BrokenError, Data
from blkmig_cli.disks.nbd.connection import Connection
from blkmig_cli.disks.nbd.handshake import Export
from blkmig_cli.disks.nbd.replies import Request
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas import nbd as schema
from blkmig_cli.schemas.nbd import Command, ErrorNumber
from blkmig_cli.system.nbd_uri import NbdUri
from blkmig_cli.wire.schema_io import build
from tests.support.nbd_bytes import SIZE, WRITABLE, simple


class Scripted:
    """A channel with the answers of a server.

    ``busy``: it takes a request after so many tries; ``failure``: or it fails so.
    """

    sends_files = True

    def __init__(
        self, answers: bytes = b"", busy: int = 0, failure: BaseException | None = None
    ) -> None:
        self.answers = answers
        self.failure = failure
        self.busy = busy
        self.sent: list[object] = []
        self.closed = False

    def receive(self, view: memoryview, deadline: float, *, waits: bool = True) -> bool:
        if not self.answers:
            if waits:
                raise BrokenError(LATE)
            return False
        view[:], self.answers = self.answers[: len(view)], self.answers[len(view) :]
        return True

    def send(self, data: Data, deadline: float, meanwhile: Callable[[], None]) -> None:
        for _ in range(self.busy):
            meanwhile()
        if self.failure is not None:
            raise self.failure
        self.sent.append(bytes(data) if isinstance(data, memoryview) else data)

    def start_tls(self, uri: NbdUri, deadline: float) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def connected(channel: Scripted, patience: float | None = 60) -> Connection:
    return Connection(channel, Export(SIZE, WRITABLE), "the\ndisk", patience)


def head(command: Command, cookie: int, offset: int = 0, length: int = 0) -> bytes:
    return build(schema.Request, schema.REQUEST_MAGIC, 0, command, cookie, offset, length)


def read_of(length: int, offset: int = 0) -> Request:
    return Request(Command.READ, offset, length, memoryview(bytearray(length)))


def test_requests_are_numbered() -> None:
    channel = Scripted(simple(1) + simple(2, data=b"abcd"))
    connection = connected(channel)
    connection.ask(Request(Command.WRITE, 512, 3), memoryview(b"xyz"))
    read = read_of(4, 1024)
    connection.ask(read)
    assert channel.sent == [
        head(Command.WRITE, 1, 512, 3), b"xyz", head(Command.READ, 2, 1024, 4),
    ]  # fmt: skip
    assert bytes(read.view) == b"abcd"
    assert connection.sends_files


def test_answers_in_any_order() -> None:
    channel = Scripted(simple(2, data=b"cd") + simple(1, data=b"ab"))
    connection = connected(channel)
    first, second = read_of(2), read_of(2)
    connection.send(first)
    connection.send(second)
    connection.wait(first)
    assert (first.done, second.done) == (True, True)
    connection.wait(second)
    assert (bytes(first.view), bytes(second.view)) == (b"ab", b"cd")


def test_a_sender_takes_answers_but_waits_for_none() -> None:
    """Of a server that takes no request, and has nothing to say or an answer."""
    channel = Scripted(busy=2)
    connection = connected(channel)
    connection.send(read_of(2))
    channel.answers = simple(1, data=b"ab")
    second = read_of(2)
    connection.send(second)
    assert not channel.answers
    channel.answers = simple(2, data=b"cd")
    connection.wait(second)
    assert bytes(second.view) == b"cd"


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (Request(Command.READ, 512, 2048), "reading 2 KiB at its byte 512"),
        (Request(Command.WRITE, 0, 1), "writing 1 B at its byte 0"),
        (Request(Command.WRITE_ZEROES, 9, 1 << 20), "zeroing 1 MiB at its byte 9"),
        (Request(Command.TRIM, 0, 512), "discarding 512 B at its byte 0"),
        (Request(Command.BLOCK_STATUS, 0, 512), "the block status of 512 B at its byte 0"),
        (Request(Command.FLUSH), "flushing"),
    ],
)
def test_what_failed(request_: Request, what: str) -> None:
    connection = connected(Scripted())
    with pytest.raises(FailureError) as caught:
        connection.ask(request_)
    assert str(caught.value) == f"the\\x0adisk: {what} failed: {LATE}"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (ErrorNumber.ENOSPC, "No space left on device"),
        (ErrorNumber.EPERM, "Operation not permitted"),
        (ErrorNumber.ESHUTDOWN, "the server is shutting down"),
        (2, "error 2"),
    ],
)
def test_errors_of_the_server(number: int, text: str) -> None:
    """The connection can be used after them."""
    connection = connected(Scripted(simple(1, number) + simple(2)))
    with pytest.raises(FailureError, match=f"flushing failed: {text}$"):
        connection.ask(Request(Command.FLUSH))
    connection.ask(Request(Command.FLUSH))


def test_the_first_reason_stays() -> None:
    channel = Scripted()
    connection = connected(channel)
    request = Request(Command.FLUSH)
    error = connection.fail(request, "it makes no sense")
    assert str(error) == "the\\x0adisk: flushing failed: it makes no sense"
    connection.fail(request, "another reason")
    for use in (connection.send, connection.wait, connection.ask):
        with pytest.raises(FailureError, match=r"flushing failed: it makes no sense$"):
            use(Request(Command.FLUSH))
    assert channel.sent == []


def test_a_request_that_cannot_be_sent() -> None:
    connection = connected(Scripted(failure=BrokenError("Broken pipe")))
    request = Request(Command.WRITE, 0, 512)
    for _ in range(2):
        with pytest.raises(FailureError, match=r"writing 512 B at its byte 0 failed: Broken pipe$"):
            connection.send(request, memoryview(bytes(512)))
    assert not request.done


@pytest.mark.parametrize(
    ("failure", "why"),
    [(KeyboardInterrupt(), "the connection was interrupted"), (MemoryError("no room"), "no room")],
)
def test_an_interruption(failure: BaseException, why: str) -> None:
    """Where a request has been sent in part, no other one can be."""
    connection = connected(Scripted(failure=failure))
    with pytest.raises(type(failure)):
        connection.send(Request(Command.FLUSH))
    with pytest.raises(FailureError, match=f"flushing failed: {why}$"):
        connection.send(Request(Command.FLUSH))


def test_no_patience() -> None:
    connection = connected(Scripted(simple(1)), patience=-1)
    with pytest.raises(FailureError, match=f"flushing failed: {LATE}$"):
        connection.ask(Request(Command.FLUSH))


def test_taking_leave() -> None:
    """After the answers to what is in flight."""
    channel = Scripted(simple(1) + simple(2))
    connection = connected(channel)
    requests = [Request(Command.FLUSH), Request(Command.FLUSH)]
    for request in requests:
        connection.send(request)
    connection.close()
    assert all(request.done for request in requests)
    assert channel.sent[2:] == [head(Command.DISC, 0)]
    assert (channel.closed, channel.answers) == (True, b"")
    with pytest.raises(FailureError, match=r"the connection is closed$"):
        connection.ask(Request(Command.FLUSH))


def test_no_leave_of_a_server_that_does_not_answer() -> None:
    channel = Scripted()
    connection = connected(channel)
    connection.send(Request(Command.FLUSH))
    connection.close()
    assert channel.sent == [head(Command.FLUSH, 1)]
    assert channel.closed


def test_abandoning() -> None:
    channel = Scripted(simple(1))
    connection = connected(channel)
    connection.send(Request(Command.FLUSH))
    connection.abandon()
    assert channel.sent == [head(Command.FLUSH, 1)]
    assert (channel.closed, bool(channel.answers)) == (True, True)
