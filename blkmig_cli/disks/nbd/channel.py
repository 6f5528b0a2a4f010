"""The bytes to and from an NBD server, over a socket, plain or in TLS.

One thread sends and one receives at a time (``connection.py``), each until a deadline: a number of
seconds on the monotonic clock.  What fails is a :class:`BrokenError`, after which the channel is of no
use.
"""

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from blkmig_cli.disks.image import FilePart
from blkmig_cli.errors import reason
from blkmig_cli.system.nbd_uri import NbdUri

_PIECE = 256 << 10  # bytes
_UNSENT = 1 << 20  # bytes of a request that the system may hold, if it permits so many

LATE = "the server did not answer in time"


#: What is sent: bytes in memory, or in a file.
Data = memoryview | FilePart | None


class BrokenError(Exception):
    """The connection cannot be used any more; the text says why, to follow the server's name."""


class Channel(Protocol):
    """Bytes in both directions."""

    @property
    def sends_files(self) -> bool:
        """Whether :meth:`send` takes a part of a file."""

    def receive(self, view: memoryview, deadline: float, *, waits: bool = True) -> bool:
        """Fill ``view`` and return True; raises BrokenError.

        Without ``waits``, return False where no byte is there yet.
        """

    def send(
        self, data: memoryview | FilePart, deadline: float, meanwhile: Callable[[], None]
    ) -> None:
        """Send all of ``data``; raises BrokenError.

        ``meanwhile`` is called when the server sends and does not take any bytes: one that does only one
        thing at a time may have to get rid of an answer first.  It waits for little or nothing.
        """

    def start_tls(self, uri: NbdUri, deadline: float) -> None:
        """Go on in TLS as ``uri`` says; raises BrokenError, FailureError for unusable certificates."""

    def close(self) -> None:
        """Close the socket."""


class SocketChannel:
    """A :class:`Channel` over a connected socket, which it owns."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        if peer.family == socket.AF_UNIX:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT)
        else:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = peer
        # In TLS, a socket must not be used by two threads at the same time; it is never waited for in a call.
        self._call: AbstractContextManager[object] = nullcontext()
        self._plain = True
        # What a call raises that would wait, and if it would wait to send; the text of other errors.
        self._would_wait: tuple[type[OSError], ...] = (BlockingIOError,)
        self._would_write: tuple[type[OSError], ...] = ()
        self._reason: Callable[[OSError], str] = reason

    def start_tls(self, uri: NbdUri, deadline: float) -> None:
        """See :class:`Channel`."""
        from blkmig_cli.disks.nbd import tls  # noqa: PLC0415 (ssl is slow to load)

        self._peer.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            self._peer = tls.wrapped(self._peer, uri)
        except (OSError, ValueError) as error:
            raise BrokenError(f"TLS: {tls.reason_of(error)}") from error
        self._plain = False
        self._would_wait += tls.WOULD_WAIT
        self._would_write = tls.WOULD_WRITE
        self._reason = tls.reason_of
        self._peer.setblocking(False)
        self._call = threading.Lock()

    def receive(self, view: memoryview, deadline: float, *, waits: bool = True) -> bool:
        """See :class:`Channel`."""
        while view:
            try:
                with self._call:
                    number = self._peer.recv_into(view)
            except self._would_wait as error:
                if not waits:
                    return False
                writes = isinstance(error, self._would_write)
                self._wait(select.POLLOUT if writes else select.POLLIN, deadline)
                continue
            except OSError as error:
                raise BrokenError(self._reason(error)) from error
            if not number:
                raise BrokenError("the server closed the connection")
            view, waits = view[number:], True
        return True

    @property
    def sends_files(self) -> bool:
        """See :class:`Channel`."""
        return self._plain

    def send(
        self, data: memoryview | FilePart, deadline: float, meanwhile: Callable[[], None]
    ) -> None:
        """See :class:`Channel`."""
        if isinstance(data, FilePart):
            self._send_file(data, deadline, meanwhile)
            return
        view = data
        while view:
            try:
                with self._call:
                    view = view[self._peer.send(view) :]
            except self._would_wait:
                self._wait_to_send(deadline, meanwhile)
            except OSError as error:
                raise BrokenError(self._reason(error)) from error

    def _send_file(self, part: FilePart, deadline: float, meanwhile: Callable[[], None]) -> None:
        """Send bytes of a file, without a copy where the system can."""
        at, end = part.offset, part.offset + part.length
        while at < end:
            try:
                sent = os.sendfile(self._peer.fileno(), part.fd, at, end - at)
            except BlockingIOError:
                self._wait_to_send(deadline, meanwhile)
                continue
            except OSError:
                sent = 0  # not from this file, or the socket has failed: what follows shows which
            at += sent or self._send_read(part.fd, at, end, deadline, meanwhile)

    def _send_read(
        self, fd: int, at: int, end: int, deadline: float, meanwhile: Callable[[], None]
    ) -> int:
        """Send bytes of a file that are read before; return how many."""
        try:
            data = os.pread(fd, min(end - at, _PIECE), at)
        except OSError as error:
            raise BrokenError(f"reading what is to be written: {reason(error)}") from error
        if not data:
            raise BrokenError("the file that is written from became shorter")
        self.send(memoryview(data), deadline, meanwhile)
        return len(data)

    def _wait_to_send(self, deadline: float, meanwhile: Callable[[], None]) -> None:
        if not self._wait(select.POLLIN | select.POLLOUT, deadline) & select.POLLOUT:
            meanwhile()

    def close(self) -> None:
        """See :class:`Channel`."""
        self._peer.close()

    def _wait(self, events: int, deadline: float) -> int:
        """Wait for one of ``events`` and return which came."""
        left = deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._peer, events)
        if left < 0 or not (found := poll.poll(left * 1000)):
            raise BrokenError(LATE)
        return found[0][1]
