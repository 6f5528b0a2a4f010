"""Opening a TARGET, to which a stream is written.

A file is written under a temporary name in the same folder, and renamed when it is complete; an object at a
URL appears when it is complete.  A name that ends in .gz, .zst or .xz selects compression.
"""

import io
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from blkmig_cli.errors import FailureError, UsageError, failing
from blkmig_cli.system.address import Address, parse_target, shown_address
from blkmig_cli.system.atomic import replacing
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import escape
from blkmig_cli.transport.compression_kind import by_suffix
from blkmig_cli.transport.payloads import FileRange, Fill, ImageRange, Literal
from blkmig_cli.transport.sinks import FileObjectSink, NewFile, Sink
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import Event, Payload
from blkmig_cli.wire.return_path import loaded

if TYPE_CHECKING:
    from blkmig_cli.transport.inputs import FileInput, PipeInput
    from blkmig_cli.wire.runs.columns import Run

_PIECE = 1 << 20

#: Yields the bytes of a payload in pieces.
Resolve = Callable[[Payload], Iterable[bytes | memoryview]]


@contextmanager
def adopt_target(file: BinaryIO, uses: FileUses) -> Iterator[Sink]:
    """Write to a binary file that the caller has opened, and closes.

    ``uses``, and what is raised: see :func:`open_target`.
    """
    with suppress(AttributeError, io.UnsupportedOperation):  # not a file of the system
        uses.add("the target", file.fileno(), writes=True)
    sink = FileObjectSink(file)
    yield sink
    sink.finish()


@contextmanager
def open_target(name: str | None, uses: FileUses, *, confirmed: bool = False) -> Iterator[Sink]:
    """Open the TARGET called ``name`` (None: stdout) for writing.

    ``uses`` holds the files that the command reads; the target is added to them.  Leaving without
    an exception finishes the target; with one, no file is left or changed.  ``confirmed``: the
    stream requests the QEMU at the other end of a socket to confirm that it has loaded the stream.

    Raises UsageError where the address is malformed, the target has another use or stdout is a
    terminal; FailureError where the target fails; BrokenPipeError for a closed pipe at stdout.
    """
    address = parse_target(name)
    uses.add_address("the target", address, writes=True)
    match address.scheme:
        case "-":
            opened = _stdout(address)
        case "fd":
            opened = _sink(address.text, address.descriptor)
        case "exec":
            opened = _command(address)
        case "tcp" | "unix":
            opened = _peer(address, confirmed=confirmed)
        case "file":
            opened = _file(address)
        case "url":
            opened = _object(address)
    with opened as sink:
        yield sink


@contextmanager
def _stdout(address: Address) -> Iterator[Sink]:
    if sys.stdout is None:
        raise FailureError("stdout is closed")
    if sys.stdout.isatty():
        raise UsageError(
            "refusing to write binary data to a terminal", hint="use --to FILE, or redirect stdout"
        )
    sys.stdout.flush()
    with _sink(address.text, sys.stdout.fileno()) as sink:
        yield sink


@contextmanager
def _sink(name: str, fd: int, kind: Callable[[str, int], Sink] = Sink) -> Iterator[Sink]:
    with failing(name):
        sink = kind(name, fd)
    try:
        yield sink
        sink.finish()
    finally:
        sink.close()


@contextmanager
def _command(address: Address) -> Iterator[Sink]:
    import subprocess  # noqa: PLC0415 (not always needed)

    with failing(address.text):
        shell = ["/bin/sh", "-c", address.command]
        process = subprocess.Popen(shell, stdin=subprocess.PIPE, env=os.environ)
    assert process.stdin is not None
    try:
        with _sink(address.text, process.stdin.fileno()) as sink:
            yield sink
        process.stdin.close()
        status = process.wait()
    except BaseException:
        process.stdin.close()
        process.terminate()
        process.wait()
        raise
    if status:
        raise FailureError(f"{address} ended with status {status}")


@contextmanager
def _peer(address: Address, *, confirmed: bool) -> Iterator[Sink]:
    from blkmig_cli.system import sockets  # noqa: PLC0415 (not always needed)

    with sockets.called(address) as peer:
        with _sink(address.text, peer.fileno()) as sink:
            yield sink
        answer = sockets.finish(address, peer, sink.written)
        if confirmed and not loaded(answer):
            raise FailureError(
                f"{address}: QEMU has not loaded the stream, though it took all of its "
                f"{sink.written} bytes",
                hint="see the stderr of QEMU for the reason",
            )


@contextmanager
def _file(address: Address) -> Iterator[Sink]:
    path = address.path
    packed = by_suffix(path)
    kinds: tuple[Callable[[str, int], Sink], Callable[[str, int], Sink]] = (Sink, NewFile)
    if packed is not None:
        from blkmig_cli.transport.compression import packer  # noqa: PLC0415 (not always needed)
        from blkmig_cli.transport.packed_sinks import NewPackedFile, PackedSink  # noqa: PLC0415

        made = packer(packed)
        kinds = partial(PackedSink, packer=made), partial(NewPackedFile, packer=made)
    if _is_special(path):
        with _special(path) as fd, _sink(path, fd, kinds[0]) as sink:
            yield sink
    else:
        with replacing(path) as fd, _sink(path, fd, kinds[1]) as sink:
            yield sink


@contextmanager
def _object(address: Address) -> Iterator[Sink]:
    from blkmig_cli.transport.compression import packer  # noqa: PLC0415 (only with a URL)
    from blkmig_cli.transport.packed_sinks import UrlSink  # noqa: PLC0415
    from blkmig_cli.transport.upload import Upload  # noqa: PLC0415

    packed = by_suffix(shown_address(address.text))
    with Upload(address) as upload:
        sink = UrlSink(str(address), upload, None if packed is None else packer(packed))
        try:
            yield sink
            sink.finish()
        finally:
            sink.close()


def _is_special(path: str) -> bool:
    """Return whether ``path`` is a FIFO, a device or a socket; raises FailureError."""
    with failing(path):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return False
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def _special(path: str) -> Iterator[int]:
    """Open a FIFO, which waits for its reader, or a device, which is flushed at the end."""
    with failing(path):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        yield fd
        if stat.S_ISBLK(os.fstat(fd).st_mode):
            with failing(path):
                os.fsync(fd)
    finally:
        os.close(fd)


def write_events(events: Iterable["Event | Run"], sink: Sink, resolve: Resolve) -> None:
    """Encode ``events``, one by one or in runs without data, into ``sink``.

    Raises FailureError, and ValueError for a value that the format cannot hold.
    """
    for event in events:
        if not isinstance(event, Event):
            from blkmig_cli.wire.runs.encoder import encode_run  # noqa: PLC0415 (numpy is slow to load)

            sink.write(encode_run(event))
            continue
        for piece in encode(event):
            if isinstance(piece, bytes):
                sink.write(piece)
            elif isinstance(piece, ImageRange):
                sink.copy(piece.image, piece.offset, piece.length - piece.padding)
                sink.write(bytes(piece.padding))
            else:
                for data in resolve(piece):
                    sink.write(data)


def resolve_content(payload: Payload) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a payload that is not in a stream (``payloads.py``); raises FailureError."""
    match payload:
        case Literal():
            yield payload.data
        case Fill():
            block = bytes([payload.byte]) * min(payload.length, _PIECE)
            for at in range(0, payload.length, _PIECE):
                yield memoryview(block)[: payload.length - at]
        case FileRange():
            yield from _file_range(payload)
        case _:
            raise TypeError("a payload of a stream that is not being read")


def resolving(source: "FileInput | PipeInput") -> Resolve:
    """Return a function that yields the bytes of payloads in the stream ``source``, and of others.

    It raises FailureError, and ValueError for payloads that a pipe no longer holds.
    """

    def resolve(payload: Payload) -> Iterator[bytes | memoryview]:
        if type(payload) is not Payload:
            yield from resolve_content(payload)
            return
        for at in range(0, payload.length, _PIECE):
            length = min(_PIECE, payload.length - at)
            yield source.view(Payload(payload.offset + at, length))

    return resolve


def _file_range(payload: FileRange) -> Iterator[bytes]:
    with failing(payload.path), open(payload.path, "rb") as file:
        file.seek(payload.offset)
        left = payload.length
        while left:
            data = file.read(min(left, _PIECE))
            if not data:
                end = payload.offset + payload.length
                raise FailureError(f"{escape(payload.path)} ends before byte {end}")
            left -= len(data)
            yield data
