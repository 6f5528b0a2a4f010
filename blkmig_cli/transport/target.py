"""Where a stream goes to: TARGET, which never looks finished unless it is.

Files are written under a temporary name beside their own, and renamed when all is written; packed
where the name asks for it (.gz, .zst, .xz).
"""

import io
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from blkmig_cli.disks.image import Readable
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.system import sockets
from blkmig_cli.system.address import path_of
from blkmig_cli.system.atomic import replacing
from blkmig_cli.system.pipes import widen, write_all
from blkmig_cli.text import escape
from blkmig_cli.transport import compression
from blkmig_cli.transport.payloads import FileRange, Fill, ImageRange, Literal
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import Event, Payload
from blkmig_cli.wire.return_path import loaded

if TYPE_CHECKING:
    from blkmig_cli.transport.inputs import FileInput, PipeInput
    from blkmig_cli.wire.runs import Run

_BUFFER = 1 << 18
_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)

#: Gives the bytes of a payload in pieces.
Resolve = Callable[[Payload], Iterable[bytes | memoryview]]


class Sink:
    """Takes a stream's bytes for the descriptor ``fd``; ``written`` counts them.

    Small pieces are gathered.  (Not io.BufferedWriter, which writes again what failed when it goes.)
    ``sparse``: zeros cost nothing.
    """

    sparse = False

    def __init__(self, name: str, fd: int) -> None:
        self._name = name
        self._fd = fd
        self._held = bytearray()
        self._is_pipe = widen(fd)
        self.written = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write all of ``data``; raises FailureError, or BrokenPipeError on stdout."""
        if len(self._held) + len(data) < _BUFFER:
            self._held += data
        else:
            self.flush()
            self._write(memoryview(data))
        self.written += len(data)

    def copy(self, image: Readable, offset: int, length: int) -> None:
        """Write ``length`` bytes of ``image`` from ``offset``; raises as :meth:`write`."""
        self.flush()
        with self._failing():
            image.copy_to(self._fd, offset, length, pipe=self._is_pipe)
        self.written += length

    def zeros(self, length: int) -> None:
        """Write ``length`` zeros, as a hole where that can be had; raises as :meth:`write`."""
        for at in range(0, length, _PIECE):
            self.write(memoryview(_ZEROS)[: length - at])

    def flush(self) -> None:
        """Hand on everything written; raises as :meth:`write`."""
        held, self._held = self._held, bytearray()
        self._write(memoryview(held))

    def finish(self) -> None:
        """As :meth:`flush`; nothing follows."""
        self.flush()

    def _write(self, data: memoryview) -> None:
        with self._failing():
            write_all(self._fd, data)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """What the system says of a write becomes an error of ours."""
        try:
            yield
        except (BrokenPipeError, ConnectionResetError) as error:
            if self._name == "-":
                raise
            raise self._failed("the reader hung up") from error
        except BlockingIOError as error:
            raise self._failed("the reader has taken nothing for a long time,") from error
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error

    def _failed(self, what: str) -> FailureError:
        return FailureError(f"{escape(self._name)}: {what} after {self.written} bytes")


class _Through(Sink):
    """All bytes pass through our hands, those of images too."""

    def copy(self, image: Readable, offset: int, length: int) -> None:
        for at in range(0, length, _PIECE):
            self.write(image.read(offset + at, min(_PIECE, length - at)))


class _PackedSink(_Through):
    """Packs the bytes on their way; ``written`` counts them as they were."""

    def __init__(self, name: str, fd: int, packer: compression.Packer) -> None:
        super().__init__(name, fd)
        self._packer = packer

    def finish(self) -> None:
        self.flush()
        super()._write(memoryview(self._packer.flush()))

    def _write(self, data: memoryview) -> None:
        super()._write(memoryview(self._packer.compress(data)))


class _ObjectSink(_Through):
    """Writes into a binary file of the caller's."""

    def __init__(self, file: BinaryIO) -> None:
        self._name = str(getattr(file, "name", "(file)"))
        self._held = bytearray()
        self._file = file
        self.written = 0

    def _write(self, data: memoryview) -> None:
        with self._failing():
            while data:
                data = data[self._file.write(data) :]


@contextmanager
def adopt_target(file: BinaryIO) -> Iterator[Sink]:
    """Write into a binary file that the caller has opened, and closes.  Raises FailureError."""
    sink = _ObjectSink(file)
    yield sink
    sink.finish()


@contextmanager
def open_target(
    name: str | None, inputs: Iterable[str], *, confirmed: bool = False
) -> Iterator[Sink]:
    """Open the TARGET called ``name`` (None: stdout), which must be none of the ``inputs``.

    Leaving without an exception finishes it.  ``confirmed``: the stream asks a QEMU at the other
    end of a socket for its word that it has loaded everything.  Raises UsageError, FailureError.
    """
    scheme, colon, rest = (name or "-").partition(":")
    if name in (None, "-"):
        if sys.stdout.isatty():
            raise UsageError("this does not go to a terminal", hint="say --to FILE, or pipe it")
        sys.stdout.flush()
        with _sink("-", sys.stdout.fileno()) as sink:
            yield sink
    elif colon and scheme == "exec":
        with _command(rest) as sink:
            yield sink
    elif colon and scheme == "fd" and rest.isascii() and rest.isdigit():
        with _sink(name or "", int(rest)) as sink:
            yield sink
    elif is_socket(name):
        with _peer(name or "", confirmed=confirmed) as sink:
            yield sink
    else:
        path = rest if colon and scheme == "file" else name or ""
        if any(same_file(path, other) for other in inputs):
            raise UsageError(f"{escape(path)} is read already; it cannot be the target")
        with _file(path) as sink:
            yield sink


def write_events(events: Iterable["Event | Run"], sink: Sink, resolve: Resolve) -> None:
    """Encode ``events``, one by one or in runs without data, into ``sink``.

    Raises FailureError, ValueError where a value has no place on the wire.
    """
    from blkmig_cli.wire.run_encoder import encode_run  # noqa: PLC0415 (numpy is slow to load)
    from blkmig_cli.wire.runs import Run  # noqa: PLC0415

    for event in events:
        if isinstance(event, Run):
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
    """The bytes of a payload that is in no stream (``payloads.py``); raises FailureError."""
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
            raise TypeError("data in a stream that is not being read")


def resolving(source: "FileInput | PipeInput") -> Resolve:
    """Resolves the payloads of the stream that is read from ``source``, and those of none.

    What it gives raises FailureError, and ValueError for what a pipe does not hold any more.
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
    try:
        with open(payload.path, "rb") as file:
            file.seek(payload.offset)
            left = payload.length
            while left:
                data = file.read(min(left, _PIECE))
                if not data:
                    raise FailureError(
                        f"{escape(payload.path)} ends before byte {payload.offset + payload.length}"
                    )
                left -= len(data)
                yield data
    except OSError as error:
        raise FailureError(f"{escape(payload.path)}: {error.strerror or error}") from error


def is_socket(name: str | None) -> bool:
    """Is the TARGET called ``name`` a peer on a socket?"""
    return (name or "").partition(":")[0] in sockets.SCHEMES and ":" in (name or "")


@contextmanager
def _peer(uri: str, *, confirmed: bool) -> Iterator[Sink]:
    with sockets.called(uri) as peer:
        with _sink(uri, peer.fileno()) as sink:
            yield sink
        answer = sockets.finish(uri, peer, sink.written)
        if confirmed and not loaded(answer):
            raise FailureError(
                f"{escape(uri)}: the QEMU there has not loaded the stream, though it took all of "
                f"{sink.written} bytes",
                hint="it says why on its stderr",
            )


@contextmanager
def _sink(name: str, fd: int, packed: str | None = None, kind: type[Sink] = Sink) -> Iterator[Sink]:
    sink = kind(name, fd) if packed is None else _PackedSink(name, fd, compression.packer(packed))
    yield sink
    sink.finish()


class _NewFile(Sink):
    """A file that nobody has written to before: zeros need no space."""

    sparse = True

    def zeros(self, length: int) -> None:
        self.flush()
        with self._failing():
            os.lseek(self._fd, length, os.SEEK_CUR)
        self.written += length

    def finish(self) -> None:
        self.flush()
        with self._failing():
            os.ftruncate(self._fd, self.written)


@contextmanager
def _command(command: str) -> Iterator[Sink]:
    process = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, bufsize=0)
    pipe = cast(io.FileIO, process.stdin)
    name = f"exec:{command}"
    try:
        sink = Sink(name, pipe.fileno())
        yield sink
        sink.flush()
    except BaseException:
        pipe.close()
        process.terminate()
        process.wait()
        raise
    pipe.close()
    status = process.wait()
    if status:
        raise FailureError(f"{escape(name)} ended with status {status}")


@contextmanager
def _file(path: str) -> Iterator[Sink]:
    packed = compression.by_suffix(path)
    try:
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "wb", buffering=0) as file, _sink(path, file.fileno(), packed) as sink:
                yield sink
        else:
            with replacing(path) as fd, _sink(path, fd, packed, _NewFile) as sink:
                yield sink
    except OSError as error:
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error


def same_file(path: str, other: str | None) -> bool:
    """Does the STREAM or TARGET called ``other`` name the file ``path``, be it there or not?"""
    named = None if other is None else path_of(other)
    if named is None:
        return False
    try:
        return os.path.samefile(path, named)
    except OSError:
        return os.path.realpath(path) == os.path.realpath(named)
