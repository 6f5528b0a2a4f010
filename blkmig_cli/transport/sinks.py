"""What takes the bytes of a stream: descriptors and new files; see ``packed_sinks.py`` for others."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from blkmig_cli.disks.image import FilePart, Readable
from blkmig_cli.errors import FailureError, failing, reason
from blkmig_cli.system.atomic import write_back
from blkmig_cli.system.pipes import widen, write_all
from blkmig_cli.text import escape

if TYPE_CHECKING:
    from blkmig_cli.system.overlap import Overlap

_BUFFER = 1 << 18
_PIECE = 1 << 20
# Bytes that a thread copies at once: few enough for the processor's cache.
_COPIED = 256 << 10
_ZEROS = bytes(_PIECE)


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


class ThroughSink(Sink):
    """A sink that passes all bytes through :meth:`write`, those of images too."""

    def copy(self, image: Readable, offset: int, length: int) -> None:
        """See :meth:`Sink.copy`."""
        for at in range(0, length, _PIECE):
            self.write(image.read(offset + at, min(_PIECE, length - at)))


class FileObjectSink(ThroughSink):
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


class NewFile(Sink):
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
        """See :meth:`Sink.copy`."""
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
            part.will_need()
            self._overlap.submit(self, self._at, end, job)
            self._at = end
        self.written += length

    def _copy_part(self, head: bytes, image: Readable, part: FilePart, at: int) -> None:
        """Write ``head``, and a part of an image, to byte ``at`` of the target, in a thread."""
        buffer = getattr(self._buffers, "buffer", None)
        if buffer is None:
            buffer = self._buffers.buffer = memoryview(bytearray(_BUFFER + _COPIED))
        start, before, done = at, len(head), 0
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
        write_back(self._fd, start, at - start)

    def _write(self, data: memoryview) -> None:
        self._write_at(data, self._at)
        self._at += len(data)

    def _write_at(self, data: memoryview, at: int) -> None:
        while data:
            with self._failing():
                written = os.pwrite(self._fd, data, at)
            data, at = data[written:], at + written

    def zeros(self, length: int) -> None:
        """See :meth:`Sink.zeros`."""
        self.flush()
        self._at += length
        self.written += length

    def finish(self) -> None:
        """See :meth:`Sink.finish`."""
        self.flush()
        if self._overlap is not None:
            self._overlap.drain()
        with self._failing():
            os.ftruncate(self._fd, self.written)

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        self._stack.close()
