"""Where a STREAM comes from: a path, ``-``, or a URI in QEMU's spelling; compressed or not.

Only the command line names files, commands and descriptors; nothing in a stream does.
"""

import errno
import io
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from blkmig_cli.errors import FailureError, StreamError
from blkmig_cli.system import sockets
from blkmig_cli.system.address import Address, parse_address
from blkmig_cli.system.pipes import read_some, widen, write_all
from blkmig_cli.system.sockets import Say
from blkmig_cli.text import count, escape
from blkmig_cli.transport import compression
from blkmig_cli.transport.inputs import FileInput, PipeInput
from blkmig_cli.transport.spool import keep


@dataclass(frozen=True, slots=True)
class Stream:
    """An opened STREAM: its input, and the name by which it was called.

    ``damage``: what ended the unpacking of a stream that is kept, if anything did.  ``file``: the
    path or the descriptor that it is read from, None where there is none.
    """

    name: str
    input: FileInput | PipeInput
    damage: StreamError | None = None
    file: str | int | None = None

    def __str__(self) -> str:
        size = self.input.size
        kind = "a pipe" if size is None else f"a file of {count(size, 'byte')}"
        return f"{escape(self.name)}: {kind}"

    @property
    def seekable(self) -> bool:
        """Can it be read twice?"""
        return self.input.size is not None

    @property
    def path(self) -> str | None:
        """Path of the file whose bytes are the stream's, from its start; None where there is none."""
        if not isinstance(self.file, str) or not self.seekable or not os.path.isfile(self.file):
            return None
        return None if parse_address(self.name).offset else self.file


def _silent(_: str) -> None:
    """For those who show nothing."""


@contextmanager
def open_stream(name: str, say: Say = _silent, *, again: bool = False) -> Iterator[Stream]:
    """Open the STREAM called ``name``; ``say`` is told where the program waits for a peer.

    ``again``: its data are read a second time, so that what comes once is kept (``spool.py``).  Raises
    FailureError where it is missing or fails, UsageError where the URI is off.
    """
    with ExitStack() as stack:
        try:
            address = parse_address(name)
            file = address.file(writes=False)
            source = _open(address, stack, say)
            stream = Stream(name, source, file=file)
            if again and isinstance(source, PipeInput):
                stream = Stream(name, *keep(source, stack), file=file)
        except OSError as error:
            raise FailureError(f"{escape(name)}: {error.strerror or error}") from error
        yield stream


@contextmanager
def adopt_stream(source: bytes | BinaryIO) -> Iterator[Stream]:
    """A stream in memory, or in a binary file that the caller has opened, and closes.

    A file of the system is read in place, from where it stands; any other file once, as a pipe.
    Raises FailureError where it fails, TypeError for a file of text.
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
            raise FailureError(f"{escape(name)}: {error.strerror or error}") from error
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


def _of_path(path: str, base: int, stack: ExitStack) -> FileInput | PipeInput:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return _of_fd(fd, stack, base)


def _of_fd(fd: int, stack: ExitStack, base: int | None = None) -> FileInput | PipeInput:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory, no stream")
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        widen(fd)
        raw = stack.enter_context(io.FileIO(fd, closefd=False))
        return _of_pipe(raw, stack)
    if base is None:
        base = os.lseek(fd, 0, os.SEEK_CUR)
    size = os.lseek(fd, 0, os.SEEK_END)
    if compression.by_magic(os.pread(fd, compression.MAGIC_SIZE, base)) is None:
        return FileInput(fd, size, base)
    os.lseek(fd, base, os.SEEK_SET)
    return _of_pipe(stack.enter_context(io.FileIO(fd, closefd=False)), stack)


def _of_command(command: str, stack: ExitStack) -> PipeInput:
    # QEMU's exec: runs /bin/sh -c; the command is the user's own, from the command line.
    process = subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE)
    output = cast(io.BufferedReader, process.stdout)

    def finish(kind: type[BaseException] | None, *_: object) -> None:
        output.close()
        if kind is not None:
            process.terminate()
        status = process.wait()
        # A command that dies of our no longer reading it has not failed: we have had enough.
        if status and kind is None and status not in (-signal.SIGPIPE, 128 + signal.SIGPIPE):
            raise FailureError(f"exec:{escape(command)} ended with status {status}")

    stack.push(finish)
    widen(output.fileno())
    return _of_pipe(cast(io.RawIOBase, output.raw), stack)


def _of_pipe(raw: io.RawIOBase, stack: ExitStack) -> PipeInput:
    head = _Head(raw)
    kind = compression.by_magic(head.first)
    if kind is None:
        return PipeInput(head.readinto)
    packed = cast(BinaryIO, io.BufferedReader(head, 1 << 18))
    return PipeInput(stack.enter_context(compression.unpacked(kind, packed)))


class _Head(io.RawIOBase):
    """A pipe whose first bytes have been looked at."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        begin = memoryview(bytearray(compression.MAGIC_SIZE))
        filled = 0
        while filled < compression.MAGIC_SIZE and (more := read_some(raw, begin[filled:])):
            filled += more
        self.first = self._left = bytes(begin[:filled])

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        if self._left:
            count = min(len(self._left), len(target))
            target[:count], self._left = self._left[:count], self._left[count:]
            return count
        return read_some(self._raw, target)
