"""Spooling: a stream that can be read only once is copied to an unnamed temporary file.

The copy is made while the stream is read, so that nothing after the stream's end is waited for.
Zeros become holes, and a part of the file system is left free, so that unpacking a small compressed
file cannot fill a disk.
"""

import os
from contextlib import ExitStack

from blkmig_cli import limits
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.errors import FailureError, LimitError, StreamError, reason
from blkmig_cli.system.pipes import write_all
from blkmig_cli.system.temporary import temporary_folder
from blkmig_cli.text import escape
from blkmig_cli.transport.inputs import FileInput, PipeInput

_PIECE = 1 << 20
_HOLE = 1 << 16
_CHECK = 64 << 20  # bytes between two checks of the free space


def spool(source: PipeInput, stack: ExitStack) -> FileInput:
    """Return ``source`` as a seekable input; ``stack`` closes its temporary file.

    An error that ends the unpacking of compressed data becomes the input's ``damage``.  Raises
    FailureError, as do reads of the input, where ``source`` fails or space is insufficient.
    """
    folder = temporary_folder()
    import tempfile  # noqa: PLC0415 (slow to load)

    try:
        file = stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))  # noqa: SIM115
    except OSError as error:
        raise _failed(folder, error) from error
    return _SpooledInput(_Spool(source, file.fileno(), folder))


class _Spool:
    """The temporary file ``fd`` in ``folder``, and the input from which it is filled."""

    def __init__(self, source: PipeInput, fd: int, folder: str) -> None:
        self._source = source
        self._folder = folder
        self._buffer = memoryview(bytearray(_PIECE))
        self._checked = -_CHECK
        self._zeros = 0
        self.fd = fd
        self.origin = source.origin
        self.size = 0
        self.ended = False
        self.damage = source.damage

    def reach(self, wanted: int) -> int:
        """Copy up to byte ``wanted`` at least, or to the input's end; returns the bytes copied.

        Raises FailureError.
        """
        while self.size < wanted and not self.ended:
            try:
                count = self._source.take(self._buffer)
            except StreamError as error:
                self.damage, count = error, 0
            if not count:
                self.ended = True
            else:
                self._append(self._buffer[:count])
        return self.size

    def _append(self, data: memoryview) -> None:
        try:
            if self.size - self._checked >= _CHECK:
                _check_space(self.fd, self._folder)
                self._checked = self.size
            for at in range(0, len(data), _HOLE):
                piece = data[at : at + _HOLE]
                if is_zero(piece):
                    self._zeros += len(piece)
                else:
                    os.lseek(self.fd, self.size + at, os.SEEK_SET)
                    write_all(self.fd, piece)
                    self._zeros = 0
            self.size += len(data)
            os.ftruncate(self.fd, self.size)
        except OSError as error:
            raise _failed(self._folder, error) from error
        if self._zeros > limits.SPOOLED_ZEROS_MAX:
            self.ended = True
            self.damage = LimitError(
                f"over {limits.SPOOLED_ZEROS_MAX >> 30} GiB of zeros in a row are not copied to a "
                "temporary file",
                hint="save the stream to a file and read that",
            )


class _SpooledInput(FileInput):
    """A seekable input over a spool, which it fills up to where it is read."""

    in_place = False

    def __init__(self, filled: _Spool) -> None:
        super().__init__(filled.fd, 0)
        self._spool = filled
        self.origin = filled.origin

    @property
    def size(self) -> int | None:
        return self._spool.size if self._spool.ended else None

    @property
    def held(self) -> int:
        return self._spool.size - self.offset

    @property
    def damage(self) -> StreamError | None:
        return self._spool.damage

    def again(self) -> FileInput:
        return _SpooledInput(self._spool)

    def _end(self, wanted: int) -> int:
        return self._spool.reach(wanted)


def _failed(folder: str, error: OSError) -> FailureError:
    return FailureError(
        f"cannot keep a copy of the stream in {escape(folder)}: {reason(error)}",
        hint="set TMPDIR to a folder with enough space, or unpack the stream to a file yourself",
    )


def _check_space(fd: int, folder: str) -> None:
    found = os.fstatvfs(fd)
    if found.f_bavail * limits.ROOM_LEFT < found.f_blocks:
        raise FailureError(
            f"a copy of the stream in {escape(folder)} would leave less than 1/{limits.ROOM_LEFT} "
            "of its file system free",
            hint="set TMPDIR to a folder with enough space, or unpack the stream to a file yourself",
        )
