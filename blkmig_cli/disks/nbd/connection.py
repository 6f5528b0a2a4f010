"""Requests to an NBD server, many in flight on one connection, from any number of threads.

A thread sends its request as a unit; of those that wait for answers, one at a time reads the answers to
all.  A server that does not answer in time, hangs up or breaks the protocol breaks the connection: from
then on all requests fail, for that reason.
"""

import itertools
import os
import threading
import time
from contextlib import suppress

from blkmig_cli import limits
from blkmig_cli.disks.nbd.channel import LATE, BrokenError, Channel, Data
from blkmig_cli.disks.nbd.handshake import Export
from blkmig_cli.disks.nbd.replies import Replies, Request
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas import nbd as schema
from blkmig_cli.schemas.nbd import Command, ErrorNumber
from blkmig_cli.text import escape, human_size
from blkmig_cli.wire.schema_io import build

# While another thread reads the answers, a sender looks so often whether it can go on.
_LOOK = 0.01
# Seconds after which a thread that receives always looks whether the connection is closed.
_IDLE = 0.1
# Seconds for what is in flight when the connection is closed.
_LEAVE = 1.0
_NOUNS = {
    Command.READ: "reading",
    Command.WRITE: "writing",
    Command.WRITE_ZEROES: "zeroing",
    Command.TRIM: "discarding",
    Command.BLOCK_STATUS: "the block status of",
}
_ERRORS = frozenset(ErrorNumber)


class Connection:
    """A connection after its handshake, which gave ``export``; ``name`` is its name in messages.

    ``patience``: seconds to wait for an answer, None: those of ``limits.py``.
    """

    def __init__(
        self, channel: Channel, export: Export, name: str, patience: float | None = None
    ) -> None:
        self.export = export
        self.name = name
        self._patience = patience
        self._channel = channel
        self._flying: dict[int, Request] = {}
        self._replies = Replies(self._flying, structured=export.structured)
        self._cookies = itertools.count(1)
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._receiving = False
        self._broken: str | None = None

    @property
    def sends_files(self) -> bool:
        """Whether the data of a write may be a part of a file."""
        return self._channel.sends_files

    def send(self, request: Request, data: Data = None) -> None:
        """Send a request, and the ``data`` of a write.

        Raises FailureError.
        """
        deadline = self._deadline()
        with self._sending:
            self._check(request)
            cookie = next(self._cookies)
            head = build(
                schema.Request,
                schema.REQUEST_MAGIC,
                0,
                request.command,
                cookie,
                request.offset,
                request.length,
            )
            with self._changed:
                self._flying[cookie] = request
                self._changed.notify_all()
            try:
                for part in (memoryview(head), data):
                    if part is not None:
                        self._channel.send(
                            part, deadline, lambda: self._meanwhile(request, deadline)
                        )
            except BrokenError as error:
                raise self.fail(request, str(error)) from error
            except BaseException as error:
                self._break(error)
                raise

    def wait(self, request: Request) -> None:
        """Wait for all of the answer to a request; raises FailureError, also for an error in it."""
        deadline = self._deadline()
        while not request.done:
            self._check(request)
            if not self._begin_receiving(request, deadline):
                continue
            try:
                while not request.done:
                    self._receive(request, deadline)
            finally:
                self._end_receiving()
        if request.error:
            raise self._failure(request, _error_text(request.error))

    def ask(self, request: Request, data: Data = None) -> None:
        """Send a request and wait for its answer; raises FailureError."""
        self.send(request, data)
        self.wait(request)

    def fail(self, request: Request, why: str) -> FailureError:
        """Break the connection because of what the server answered; return the error to raise."""
        self._break(BrokenError(why))
        return self._failure(request, why)

    def close(self) -> None:
        """Take leave of the server, after its answers to what is in flight, and close the connection.

        No thread may be waiting.  Answers that do not come at once are not waited for.
        """
        deadline = time.monotonic() + _LEAVE
        with self._sending, suppress(BrokenError, FailureError):
            while self._flying and self._broken is None:
                self._receive(next(iter(self._flying.values())), deadline)
            if self._broken is None:
                head = build(schema.Request, schema.REQUEST_MAGIC, 0, Command.DISC, 0, 0, 0)
                self._channel.send(memoryview(head), deadline, lambda: None)
        self.abandon()

    def receive_always(self) -> None:
        """Have a thread receive answers as they come, until the connection is closed or fails.

        So the server never waits for this process, however long that does something else.
        """
        threading.Thread(target=self._receive_all, daemon=True).start()

    def _receive_all(self) -> None:
        while self._broken is None:
            with self._changed:
                flying = list(self._flying.values())
                if not flying:
                    self._changed.wait(_IDLE)
                    continue
            with suppress(FailureError):  # who has sent the request is told
                self.wait(flying[0])

    def abandon(self) -> None:
        """Close the connection without a word; no thread may be waiting."""
        self._break(BrokenError("the connection is closed"))
        self._channel.close()

    def _begin_receiving(self, request: Request, deadline: float) -> bool:
        """Become the thread that receives, or wait until an answer has been received."""
        with self._changed:
            if not self._receiving:
                self._receiving = True
                return True
            if not request.done and not self._changed.wait(deadline - time.monotonic()):
                self._break(BrokenError(LATE))
            return False

    def _end_receiving(self) -> None:
        with self._changed:
            self._receiving = False
            self._changed.notify_all()

    def _meanwhile(self, request: Request, deadline: float) -> None:
        """Receive an answer that keeps the server from taking the request that is being sent."""
        with self._changed:
            if self._receiving:
                self._changed.wait(_LOOK)
                return
            self._receiving = True
        try:
            self._receive(request, deadline, waits=False)
        finally:
            self._end_receiving()

    def _receive(self, request: Request, deadline: float, *, waits: bool = True) -> None:
        """Receive an answer, or a part of one, of any request; without ``waits`` only if there is any.

        ``request`` is what the thread does, for the message of a failure.
        """
        try:
            if time.monotonic() > deadline:
                raise BrokenError(LATE)
            if not self._channel.receive(self._replies.head, deadline, waits=waits):
                return
            self._replies.take(lambda view: self._channel.receive(view, deadline))
        except BrokenError as error:
            raise self.fail(request, str(error)) from error
        except BaseException as error:
            self._break(error)
            raise
        with self._changed:
            self._changed.notify_all()

    def _break(self, error: BaseException) -> None:
        """Note why the connection is of no use any more; the first reason stays."""
        with self._changed:
            if self._broken is None:
                self._broken = str(error) or "the connection was interrupted"
            self._changed.notify_all()

    def _deadline(self) -> float:
        """Return until when an answer is waited for."""
        patience = limits.NBD_ANSWER_WAIT if self._patience is None else self._patience
        return time.monotonic() + patience

    def _check(self, request: Request) -> None:
        if self._broken is not None:
            raise self._failure(request, self._broken)

    def _failure(self, request: Request, why: str) -> FailureError:
        what = "flushing"
        if request.command != Command.FLUSH:
            what = f"{_NOUNS[request.command]} {human_size(request.length)} at its byte {request.offset}"
        return FailureError(f"{escape(self.name)}: {what} failed: {why}")


def _error_text(number: int) -> str:
    """Return the meaning of an error in a reply; the specification has only some of the system's."""
    if number == ErrorNumber.ESHUTDOWN:
        return "the server is shutting down"
    return os.strerror(number) if number in _ERRORS else f"error {number}"
