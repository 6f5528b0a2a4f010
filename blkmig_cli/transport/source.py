"""Opening a STREAM: a path, ``-``, or a URI in QEMU's syntax; compressed or not.

The stream in a libvirt save image is read according to its header.  Files, commands and descriptors
are opened only if the command line names them, never because of the content of a stream.
"""

import errno
import io
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import FailureError, StreamError, reason
from blkmig_cli.schemas.constants import PARTIAL_MAGIC, SAVE_MAGIC
from blkmig_cli.system import sockets
from blkmig_cli.system.address import Address, parse_address, shown_address
from blkmig_cli.system.pipes import read_some, widen, write_all
from blkmig_cli.system.sockets import Say
from blkmig_cli.text import count, escape
from blkmig_cli.transport import compression
from blkmig_cli.transport.background import Reading
from blkmig_cli.transport.compression_kind import by_magic
from blkmig_cli.transport.inputs import FileInput, PipeInput
from blkmig_cli.transport.save_image import HEADER_SIZE, save_image
from blkmig_cli.transport.spool import spool

if TYPE_CHECKING:
    from blkmig_cli.transport.remote import Remote


def stream_name(argument: str, number: int) -> str:
    """Return the name for reports of the stream ``number``, from 1, in the STREAM ``argument``."""
    return argument if number == 1 else f"{argument} (stream {number})"


@dataclass(frozen=True, slots=True)
class Stream:
    """An open STREAM: its name and its input.

    ``number``: its number among the streams in the input, from 1.  ``file``: the path or the
    descriptor that it is read from, None where there is none.  ``remote``: that of a URL.
    """

    argument: str
    input: FileInput | PipeInput
    number: int = 1
    file: str | int | None = None
    remote: "Remote | None" = None

    @property
    def name(self) -> str:
        """The name for reports."""
        return stream_name(shown_address(self.argument), self.number)

    def __str__(self) -> str:
        size = self.input.size
        kind = "a pipe" if size is None else f"a file of {count(size, 'byte')}"
        return f"{escape(self.name)}: {kind}"

    @property
    def seekable(self) -> bool:
        """Whether it can be read a second time."""
        return self.input.seekable

    @property
    def path(self) -> str | None:
        """The file to which the stream's offsets refer; None if there is none."""
        plain = self.input.in_place and self.input.origin == 0
        path = self.file if isinstance(self.file, str) and plain else None
        return path if path is not None and os.path.isfile(path) else None

    def following(self) -> "Stream":
        """Return the stream after this one, at whose start the input is."""
        return replace(self, number=self.number + 1)


def _silent(_: str) -> None:
    """Show nothing."""


@contextmanager
def open_stream(
    name: str,
    say: Say = _silent,
    *,
    again: bool = False,
    by_range: bool = False,
    folder: str | None = None,
) -> Iterator[Stream]:
    """Open the STREAM called ``name``; ``say`` is called when the program waits for a peer.

    ``again``: it must be seekable, so that a pipe is copied to a temporary file (``spool.py``).
    ``by_range``: an object at a URL is read where it is needed, without its data, not from end to end.
    ``folder``: that of a relative path, if it is not the working directory.
    Raises FailureError where it is missing or fails, UsageError for an invalid URI, StreamError for
    a libvirt save image that is not supported.
    """
    with ExitStack() as stack:
        try:
            address = parse_address(name)
            if folder is not None:
                address = replace(address, path=os.path.join(folder, address.path))
            remote = None
            if address.scheme == "url":
                from blkmig_cli.transport.remote import Remote  # noqa: PLC0415 (only with a URL)

                remote = Remote(address)
                stack.callback(remote.close)
                source = _of_remote(remote, stack, by_range=by_range and not again)
            else:
                source = _open(address, stack, say)
            if again and not source.seekable:
                source = spool(source, stack)
            stream = Stream(name, source, file=address.file(writes=False), remote=remote)
        except OSError as error:
            raise FailureError(f"{address}: {reason(error)}") from error
        yield stream


@contextmanager
def adopt_stream(source: bytes | BinaryIO) -> Iterator[Stream]:
    """Open a stream in memory, or in a binary file that the caller has opened, and closes.

    A file of the system is read in place, from its position; any other file once, as a pipe.
    Raises FailureError where it fails, TypeError for a text file.
    """
    with ExitStack() as stack:
        if isinstance(source, bytes):
            fd = os.memfd_create("blkmig")
            stack.callback(os.close, fd)
            write_all(fd, memoryview(source))
            yield Stream("(bytes)", _of_fd(fd, stack, 0))
            return
        if not hasattr(source, "readinto"):
            raise TypeError("a stream is bytes, or a file that is open in binary mode")
        name = str(getattr(source, "name", "(file)"))
        try:
            if isinstance(getattr(source, "raw", source), io.FileIO) and source.seekable():
                fd = source.fileno()
                stream = Stream(name, _of_fd(fd, stack, source.tell()), file=fd)
            else:
                stream = Stream(name, _of_pipe(cast(io.RawIOBase, source), stack))
        except OSError as error:
            raise FailureError(f"{escape(name)}: {reason(error)}") from error
        yield stream


def _open(address: Address, stack: ExitStack, say: Say) -> FileInput | PipeInput:
    match address.scheme:
        case "exec":
            return _of_command(address.command, stack)
        case "-":
            return _of_fd(0, stack)
        case "fd":
            return _of_fd(address.descriptor, stack)
        case "tcp" | "unix":
            return _of_pipe(stack.enter_context(sockets.accepted(address, say)), stack)
        case "file":
            return _of_path(address.path, address.offset or 0, stack)
        case "url":
            raise AssertionError("a URL is opened by open_stream")


def _of_remote(remote: "Remote", stack: ExitStack, *, by_range: bool) -> FileInput | PipeInput:
    from blkmig_cli.transport.remote import RangeReader, RemoteInput, first_bytes  # noqa: PLC0415

    if remote.size is None:
        return _of_pipe(stack.enter_context(remote.read()), stack)
    head = first_bytes(remote)
    plain = save_image(head[:HEADER_SIZE]) is None and by_magic(head) is None
    if by_range and plain:
        return RemoteInput(remote, head)
    return _of_pipe(RangeReader(remote, head), stack)


def _of_path(path: str, base: int, stack: ExitStack) -> FileInput | PipeInput:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return _of_fd(fd, stack, base)


def _of_fd(fd: int, stack: ExitStack, base: int | None = None) -> FileInput | PipeInput:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        widen(fd)
        raw = stack.enter_context(io.FileIO(fd, closefd=False))
        return _of_pipe(raw, stack)
    if base is None:
        base = os.lseek(fd, 0, os.SEEK_CUR)
    size = os.lseek(fd, 0, os.SEEK_END)
    head = os.pread(fd, HEADER_SIZE, base)
    image = save_image(head)
    if image is not None and image.compression is None:
        return FileInput(fd, size, base + image.start, image.damage)
    if image is None and by_magic(head) is None:
        return FileInput(fd, size, base)
    os.lseek(fd, base, os.SEEK_SET)
    return _of_pipe(stack.enter_context(io.FileIO(fd, closefd=False)), stack)


def _of_command(command: str, stack: ExitStack) -> PipeInput:
    # QEMU's exec: runs /bin/sh -c; the command is the user's own, from the command line.
    process = subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, env=os.environ)
    output = cast(io.BufferedReader, process.stdout)

    def finish(kind: type[BaseException] | None, *_: object) -> None:
        output.close()
        if kind is not None:
            process.terminate()
        status = process.wait()
        # A command that ends because its output is no longer read has not failed.
        if status and kind is None and status not in (-signal.SIGPIPE, 128 + signal.SIGPIPE):
            raise FailureError(f"exec:{escape(command)} ended with status {status}")

    stack.push(finish)
    widen(output.fileno())
    return _of_pipe(cast(io.RawIOBase, output.raw), stack)


def _of_pipe(raw: io.RawIOBase, stack: ExitStack) -> PipeInput:
    fd = raw.fileno() if isinstance(raw, io.FileIO) else None
    return _of_first_bytes(_Pipe(partial(read_some, raw), fd), stack)


def _of_first_bytes(pipe: "_Pipe", stack: ExitStack, *, unpack: bool = True) -> PipeInput:
    """Return an input for the bytes of ``pipe``, chosen by the first ones.

    ``unpack``: it may be compressed.
    """
    head = pipe.peek(len(SAVE_MAGIC))
    if head in (SAVE_MAGIC, PARTIAL_MAGIC):
        head = pipe.peek(HEADER_SIZE)
    image = save_image(head)
    if image is not None:
        pipe.skip(image.start)
        if image.compression is None:
            return _input(_ahead(pipe.readinto, pipe, stack), stack, image.start, image.damage)
        return _input(_unpacked(image.compression, pipe, stack), stack, damage=image.damage)
    kind = by_magic(head) if unpack else None
    if kind is None:
        return _input(_ahead(pipe.readinto, pipe, stack), stack)
    unpacked = _unpacked(kind, pipe, stack)
    return _of_first_bytes(_Pipe(unpacked.readinto, ready=unpacked.ready), stack, unpack=False)


def _input(
    source: "Reading | _Pipe",
    stack: ExitStack,
    origin: int = 0,
    damage: StreamError | None = None,
) -> PipeInput:
    made = PipeInput(source.readinto, origin, damage, source.ready)
    stack.callback(made.close)  # a decoder of it may be kept until garbage is collected
    return made


def _unpacked(kind: str, pipe: "_Pipe", stack: ExitStack) -> "Reading | _Pipe":
    packed = stack.enter_context(io.BufferedReader(pipe, 1 << 18))
    return _ahead(compression.unpacked(kind, packed), pipe, stack)


def _ahead(
    readinto: Callable[[memoryview], int], pipe: "_Pipe", stack: ExitStack
) -> "Reading | _Pipe":
    """Return a reader of ``readinto``, which reads from ``pipe``, with a thread that reads ahead."""
    if pipe.fd is None:
        return _Pipe(readinto, ready=pipe.ready)
    reading = Reading(readinto, pipe.fd)
    stack.callback(reading.close)
    pipe.wait = reading.wait
    return reading


class _Pipe(io.RawIOBase):
    """A pipe whose next bytes can be examined; ``read_into`` consumes them.

    ``fd``: the descriptor that it reads, if that is a file or a pipe; ``wait`` is called before.
    ``ready`` returns whether ``read_into`` need not wait.
    """

    def __init__(
        self,
        read_into: Callable[[memoryview], int],
        fd: int | None = None,
        ready: Callable[[], bool] = lambda: False,
    ) -> None:
        self._read_into = read_into
        self.fd = fd
        self.ready = ready
        self.wait: Callable[[], None] | None = None
        self._left = b""
        self._failure: StreamError | None = None

    def peek(self, length: int) -> bytes:
        """Return the next ``length`` bytes, fewer only at the end, or before damaged data."""
        buffer = memoryview(bytearray(length))
        try:
            while len(self._left) < length and (
                more := self._read_into(buffer[: length - len(self._left)])
            ):
                self._left += buffer[:more]
        except StreamError as error:
            self._failure = error
        return self._left[:length]

    def skip(self, length: int) -> None:
        """Skip the next ``length`` bytes, at most to the end."""
        buffer = memoryview(bytearray(min(length, 1 << 16)))
        while length and (passed := self.readinto(buffer[:length])):
            length -= passed

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        if self._left:
            count = min(len(self._left), len(target))
            target[:count], self._left = self._left[:count], self._left[count:]
            return count
        if self._failure is not None:
            raise self._failure
        if self.wait is not None:
            self.wait()
        return self._read_into(target)
