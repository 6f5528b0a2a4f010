"""Peers on a socket, ``tcp:HOST:PORT`` or ``unix:PATH``: readers listen for one, writers connect.

The time to connect and the time without data are limited (``limits.py``), so that a program never
waits endlessly for a peer.  Sockets are blocking, so that their descriptors can be written directly.
"""

import errno
import io
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, UsageError, failing, reason
from blkmig_cli.system.address import Address
from blkmig_cli.text import count, escape

#: Shows a message to the user while the program waits.
Say = Callable[[str], None]


class PeerReader(io.RawIOBase):
    """The data from a peer, as a raw file; a read that waits too long raises OSError."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        """Read the available bytes into ``target``; returns their number, 0 at the end."""
        try:
            return self._peer.recv_into(target)
        except BlockingIOError:
            text = f"no data from the peer for {count(limits.PEER_SILENT, 'second')}"
            raise TimeoutError(errno.ETIMEDOUT, text) from None


@contextmanager
def accepted(address: Address, say: Say) -> Iterator[PeerReader]:
    """Listen at ``address`` for one peer, and give a reader of its data.

    Raises UsageError where the address names no host to listen at, FailureError where no peer
    connects in time, OSError.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(address, stack))
        listener.listen(1)
        listener.settimeout(limits.PEER_WAIT)
        say(f"waiting for a stream at {_name(address, listener)}")
        try:
            peer, _ = listener.accept()
        except TimeoutError:
            text = f"no connection within {count(limits.PEER_WAIT, 'second')}"
            raise FailureError(f"{address}: {text}") from None
        stack.close()  # a second peer is refused from here on
        with peer:
            _bound_silence(peer)
            yield PeerReader(peer)


@contextmanager
def called(address: Address) -> Iterator[socket.socket]:
    """Connect to the peer that listens at ``address``; raises FailureError."""
    with ExitStack() as stack:
        with failing(address.text, hint="start the reader first"):
            if address.scheme == "unix":
                peer = stack.enter_context(socket.socket(socket.AF_UNIX))
                peer.connect(address.path)
            else:
                end = (address.host or "localhost", address.port)
                peer = stack.enter_context(socket.create_connection(end, limits.PEER_WAIT))
        _bound_silence(peer)
        yield peer


def finish(address: Address, peer: socket.socket, sent: int) -> bytes:
    """End the stream of ``sent`` bytes, wait until the peer closes, and return what it answered.

    Raises FailureError where the peer closes with bytes unread, or does not close in time.
    """
    answer = b""
    try:
        peer.shutdown(socket.SHUT_WR)
        while more := peer.recv(4096):
            # An answer is a few bytes; any further data is dropped.
            answer = (answer + more)[: limits.PEER_ANSWER_MAX]
    except BlockingIOError:
        raise FailureError(
            f"{address}: the peer has not closed the connection {limits.PEER_SILENT} seconds after "
            f"the last of {sent} bytes"
        ) from None
    except OSError as error:
        raise FailureError(
            f"{address}: the peer closed the connection before it took all of {sent} bytes"
        ) from error
    return answer


def _listener(address: Address, stack: ExitStack) -> socket.socket:
    """Return a socket bound to ``address``; ``stack`` removes its path, if it has one."""
    if address.scheme == "tcp":
        if not address.host:
            raise UsageError(
                f"{address}: no address to listen at is specified",
                hint="use tcp:0.0.0.0:PORT for all",
            )
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, *_, end = found[0]
        return socket.create_server(end[:2], family=family)
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    try:
        listener.bind(address.path)
    except OSError as error:
        # Do not connect to test whether a program listens there: it would accept that as its peer.
        there = os.path.exists(address.path)
        hint = "remove it, if no program listens there" if there else None
        raise FailureError(f"{address}: {reason(error)}", hint=hint) from error
    stack.callback(os.unlink, address.path)
    # Anyone who can write to the socket controls what is written to the disks.
    os.chmod(address.path, stat.S_IRUSR | stat.S_IWUSR)
    return listener


def _name(address: Address, listener: socket.socket) -> str:
    """Return the address, escaped, with the port that the system chose for port 0."""
    if address.scheme == "unix":
        return str(address)
    return f"{escape(address.text.rpartition(':')[0])}:{listener.getsockname()[1]}"


def _bound_silence(peer: socket.socket) -> None:
    peer.settimeout(None)
    span = struct.pack("@ll", limits.PEER_SILENT, 0)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)
