"""Opening a TARGET, to which a stream is written.

A file is written under a temporary name in the same folder, and renamed when it is complete; a name
that ends in .gz, .zst or .xz selects compression.
"""

import io
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from blkmig_cli.disks.image import FilePart, Readable
from blkmig_cli.errors import FailureError, UsageError, failing, reason
from blkmig_cli.system import sockets
from blkmig_cli.system.address import Address, parse_target
from blkmig_cli.system.atomic import replacing
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.system.pipes import widen, write_all
from blkmig_cli.text import escape
from blkmig_cli.transport import compression
from blkmig_cli.transport.background import Writing
from blkmig_cli.transport.payloads import FileRange, Fill, ImageRange, Literal
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import Event, Payload
from blkmig_cli.wire.return_path import loaded

if TYPE_CHECKING:
    from blkmig_cli.system.overlap import Overlap
    from blkmig_cli.transport.inputs import FileInput, PipeInput
    from blkmig_cli.wire.runs.columns import Run

_BUFFER = 1 << 18
_PIECE = 1 << 20
# Bytes that a thread copies at once: few enough for the processor's cache.
_COPIED = 256 << 10
_ZEROS = bytes(_PIECE)

#: Yields the bytes of a payload in pieces.
Resolve = Callable[[Payload], Iterable[bytes | memoryview]]


class Sink:
    """Writes a stream to the descriptor ``fd``; ``written`` counts its bytes.

    ``name`` is that of the target in errors; a closed pipe at ``-``, stdout, is not a failure but
    ends the program.  Small pieces are buffered.  (io.BufferedWriter would write failed data again
    when it is collected.)
    """

    #: Whether zeros become holes.
    sparse = False

    def __init__(self, name: str, fd: int) -> None:
        self._name = name
        self._fd = fd
        self._gathered = bytearray()
        self._is_pipe = widen(fd)
        self.written = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write all of ``data``; raises FailureError, or BrokenPipeError on stdout."""
        if len(self._gathered) + len(data) < _BUFFER:
            self._gathered += data
        else:
            self.flush()
            self._write(memoryview(data))
        self.written += len(data)

    def copy(self, image: Readable, offset: int, length: int) -> None:
        """Write ``length`` bytes of ``image`` from byte ``offset``; raises as :meth:`write`."""
        self.flush()
        with self._failing():
            image.copy_to(self._fd, offset, length, pipe=self._is_pipe)
        self.written += length

    def zeros(self, length: int) -> None:
        """Write ``length`` zeros, as a hole in a new file; raises as :meth:`write`."""
        for at in range(0, length, _PIECE):
            self.write(memoryview(_ZEROS)[: length - at])

    def flush(self) -> None:
        """Write the buffered pieces; raises as :meth:`write`."""
        gathered, self._gathered = self._gathered, bytearray()
        self._write(memoryview(gathered))

    def finish(self) -> None:
        """Write all remaining bytes at the stream's end; raises as :meth:`write`."""
        self.flush()

    def close(self) -> None:
        """End all work on the target, whether it is finished or not."""

    def _write(self, data: memoryview) -> None:
        with self._failing():
            write_all(self._fd, data)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn an OSError of a write into a FailureError."""
        try:
            yield
        except (BrokenPipeError, ConnectionResetError) as error:
            if self._name == "-":
                raise BrokenPipeError(*error.args) from error
            raise self._failed("the reader closed its end") from error
        except BlockingIOError as error:
            raise self._failed("the reader does not take any more data") from error
        except OSError as error:
            raise self._failed(reason(error)) from error

    def _failed(self, what: str) -> FailureError:
        return FailureError(f"{escape(self._name)}: {what} (after {self.written} bytes)")


class _Through(Sink):
    """A sink that passes all bytes through :meth:`write`, those of images too."""

    def copy(self, image: Readable, offset: int, length: int) -> None:
        for at in range(0, length, _PIECE):
            self.write(image.read(offset + at, min(_PIECE, length - at)))


class _PackedSink(_Through):
    """A sink that compresses; ``written`` counts the uncompressed bytes."""

    def __init__(self, name: str, fd: int, packer: compression.Packer) -> None:
        super().__init__(name, fd)
        self._packer = packer

    def finish(self) -> None:
        self.flush()
        super()._write(memoryview(self._packer.flush()))

    def _write(self, data: memoryview) -> None:
        super()._write(memoryview(self._packer.compress(data)))


class _NewPackedFile(_PackedSink):
    """A sink for a new regular file, whose bytes are compressed in a thread."""

    def __init__(self, name: str, fd: int, packer: compression.Packer) -> None:
        super().__init__(name, fd, packer)
        self._packing = Writing(super()._write)

    def finish(self) -> None:
        self.flush()
        self._packing.finish()
        super().finish()

    def close(self) -> None:
        self._packing.close()

    def _write(self, data: memoryview) -> None:
        self._packing.write(data)


class _ObjectSink(_Through):
    """A sink that writes to the caller's binary file."""

    def __init__(self, file: BinaryIO) -> None:
        self._name = str(getattr(file, "name", "(file)"))
        self._gathered = bytearray()
        self._file = file
        self.written = 0

    def _write(self, data: memoryview) -> None:
        with self._failing():
            while data:
                data = data[self._file.write(data) :]


class _NewFile(Sink):
    """A sink for a new regular file, in which zeros become holes.

    Bytes whose place in a file is known are copied by threads, while the sink goes on behind them.
    """

    sparse = True

    def __init__(self, name: str, fd: int) -> None:
        super().__init__(name, fd)
        self._stack = ExitStack()
        self._overlap: Overlap | None = None
        self._buffers = threading.local()
        self._at = 0  # of the file's end

    def copy(self, image: Readable, offset: int, length: int) -> None:
        parts = image.places(offset, length)
        if not parts:
            self.flush()
            with self._failing():
                os.lseek(self._fd, self._at, os.SEEK_SET)
            super().copy(image, offset, length)
            self._at += length
            return
        if self._overlap is None:
            from blkmig_cli.system.overlap import Overlap  # noqa: PLC0415 (not always needed)

            self._overlap = self._stack.enter_context(Overlap())
        for part in parts:
            # What was gathered goes along with the first part: writes to a file wait for each other.
            head, self._gathered = bytes(self._gathered), bytearray()
            end = self._at + len(head) + part.length
            job = partial(self._copy_part, head, image, part, self._at)
            self._overlap.submit(self, self._at, end, job)
            self._at = end
        self.written += length

    def _copy_part(self, head: bytes, image: Readable, part: FilePart, at: int) -> None:
        """Write ``head``, and a part of an image, to byte ``at`` of the target, in a thread."""
        buffer = getattr(self._buffers, "buffer", None)
        if buffer is None:
            buffer = self._buffers.buffer = memoryview(bytearray(_BUFFER + _COPIED))
        before, done = len(head), 0
        buffer[:before] = head
        while done < part.length:
            wanted = buffer[before:][: min(part.length - done, _COPIED)]
            with failing(f"{image.path}: reading it at its byte {part.offset + done}"):
                found = os.preadv(part.fd, [wanted], part.offset + done)
            if not found:
                raise FailureError(f"{escape(image.path)} became shorter while it was read")
            self._write_at(buffer[: before + found], at)
            at += before + found
            before, done = 0, done + found

    def _write(self, data: memoryview) -> None:
        self._write_at(data, self._at)
        self._at += len(data)

    def _write_at(self, data: memoryview, at: int) -> None:
        while data:
            with self._failing():
                written = os.pwrite(self._fd, data, at)
            data, at = data[written:], at + written

    def zeros(self, length: int) -> None:
        self.flush()
        self._at += length
        self.written += length

    def finish(self) -> None:
        self.flush()
        if self._overlap is not None:
            self._overlap.drain()
        with self._failing():
            os.ftruncate(self._fd, self.written)

    def close(self) -> None:
        self._stack.close()


@contextmanager
def adopt_target(file: BinaryIO, uses: FileUses) -> Iterator[Sink]:
    """Write to a binary file that the caller has opened, and closes.

    ``uses``, and what is raised: see :func:`open_target`.
    """
    with suppress(AttributeError, io.UnsupportedOperation):  # not a file of the system
        uses.add("the target", file.fileno(), writes=True)
    sink = _ObjectSink(file)
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
    with failing(address.text):
        shell = ["/bin/sh", "-c", address.command]
        process = subprocess.Popen(shell, stdin=subprocess.PIPE, bufsize=0, env=os.environ)
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
    packed = compression.by_suffix(path)
    kinds: tuple[Callable[[str, int], Sink], Callable[[str, int], Sink]] = (Sink, _NewFile)
    if packed is not None:
        packer = compression.packer(packed)
        kinds = partial(_PackedSink, packer=packer), partial(_NewPackedFile, packer=packer)
    if _is_special(path):
        with _special(path) as fd, _sink(path, fd, kinds[0]) as sink:
            yield sink
    else:
        with replacing(path) as fd, _sink(path, fd, kinds[1]) as sink:
            yield sink


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
    from blkmig_cli.wire.runs.columns import Run  # noqa: PLC0415
    from blkmig_cli.wire.runs.encoder import encode_run  # noqa: PLC0415 (numpy is slow to load)

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
