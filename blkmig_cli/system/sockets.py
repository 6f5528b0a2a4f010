"""Peers on a socket, ``tcp:HOST:PORT`` or ``unix:PATH``: readers wait for one, writers call one.

Both end by themselves: a peer that does not come, or is silent, fails the work after a while
(``limits.py``).  Sockets stay blocking, so that whatever writes to their descriptors may be plain.
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
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.text import count, escape

SCHEMES = ("tcp", "unix")

#: Told what a person at the terminal should know while the program waits.
Say = Callable[[str], None]


class PeerReader(io.RawIOBase):
    """What a peer sends, as a raw file; silence for too long is an OSError."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        """Fill ``target`` as far as bytes have come; 0 at the end."""
        try:
            return self._peer.recv_into(target)
        except BlockingIOError:
            text = f"the peer was silent for {count(limits.PEER_SILENT, 'second')}"
            raise TimeoutError(errno.ETIMEDOUT, text) from None


@contextmanager
def accepted(uri: str, say: Say) -> Iterator[PeerReader]:
    """Listen at ``uri``, and give what the one peer that calls sends.

    Raises UsageError where the URI is off, FailureError where nobody calls; OSError.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(uri, stack))
        listener.listen(1)
        listener.settimeout(limits.PEER_WAIT)
        say(f"waiting for a stream at {escape(_name(uri, listener))}")
        try:
            peer, _ = listener.accept()
        except TimeoutError:
            text = f"nobody called within {count(limits.PEER_WAIT, 'second')}"
            raise FailureError(f"{escape(uri)}: {text}") from None
        stack.close()  # a second peer is refused from here on
        with peer:
            _bound_silence(peer)
            yield PeerReader(peer)


@contextmanager
def called(uri: str) -> Iterator[socket.socket]:
    """Call the peer at ``uri``.

    Raises UsageError where the URI is off, FailureError where nobody listens.
    """
    try:
        if uri.startswith("unix:"):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(uri.removeprefix("unix:"))
        else:
            host, port = _host_port(uri)
            peer = socket.create_connection((host or "localhost", port), limits.PEER_WAIT)
    except OSError as error:
        raise FailureError(
            f"{escape(uri)}: {error.strerror or error}", hint="start the reader first"
        ) from error
    with peer:
        _bound_silence(peer)
        yield peer


def finish(uri: str, peer: socket.socket, sent: int) -> bytes:
    """All has been sent: wait until the peer has taken it and closed; returns what it answered.

    Raises FailureError where it closed with bytes unread, or does not close.
    """
    answer = b""
    try:
        peer.shutdown(socket.SHUT_WR)
        while more := peer.recv(4096):
            # A peer that talks without end is cut short: an answer is a few bytes.
            answer = (answer + more)[: limits.PEER_ANSWER_MAX]
    except BlockingIOError:
        raise FailureError(
            f"{escape(uri)}: the peer has not closed, {limits.PEER_SILENT} seconds after the last "
            f"of {sent} bytes"
        ) from None
    except OSError as error:
        raise FailureError(
            f"{escape(uri)}: the reader hung up before it took all of {sent} bytes"
        ) from error
    return answer


def _listener(uri: str, stack: ExitStack) -> socket.socket:
    """A socket bound to ``uri``; its path, if any, goes with ``stack``."""
    if uri.startswith("tcp:"):
        host, port = _host_port(uri)
        if not host:
            raise UsageError(
                f"{escape(uri)}: say at which address to listen", hint="tcp:0.0.0.0:PORT for all"
            )
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    path = uri.removeprefix("unix:")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    try:
        listener.bind(path)
    except OSError as error:
        # Trying whether somebody listens would take his one peer's place.
        hint = "remove it, if no program listens there" if os.path.exists(path) else None
        raise FailureError(f"{escape(uri)}: {error.strerror or error}", hint=hint) from error
    stack.callback(os.unlink, path)
    # Whoever may write to the socket decides what is written to the disks.
    os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
    return listener


def _host_port(uri: str) -> tuple[str, int]:
    host, colon, port = uri.removeprefix("tcp:").rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"{escape(uri)}: say tcp:HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _name(uri: str, listener: socket.socket) -> str:
    """``uri``, with the port that was found for port 0."""
    if uri.startswith("unix:"):
        return uri
    return f"{uri.rpartition(':')[0]}:{listener.getsockname()[1]}"


def _bound_silence(peer: socket.socket) -> None:
    peer.settimeout(None)
    span = struct.pack("@ll", limits.PEER_SILENT, 0)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)
