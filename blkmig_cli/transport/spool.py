"""What comes once, kept in a temporary file without a name, so that it can be read again.

Zeros become holes, and some room of the file system is left to others: what a small compressed file
unpacks to must not fill a disk.
"""

import os
import tempfile
from contextlib import ExitStack

from blkmig_cli import limits
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.errors import FailureError, StreamError
from blkmig_cli.system.pipes import write_all
from blkmig_cli.text import escape
from blkmig_cli.transport.inputs import FileInput, PipeInput

_PIECE = 1 << 20
_HOLE = 1 << 16
_CHECK = 64 << 20  # so many bytes from one look at the room to the next
# As qemu-img: /tmp is often in memory.
_FOLDER = "/var/tmp"  # noqa: S108


def keep(source: PipeInput, stack: ExitStack) -> tuple[FileInput, StreamError | None]:
    """All that ``source`` has to give, as a file that goes with ``stack``.

    With it comes what ended the unpacking too early, if anything did: what came before is there.
    Raises FailureError where the input fails, or there is no room.
    """
    folder = os.environ.get("TMPDIR", _FOLDER)
    try:
        file = stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))  # noqa: SIM115
        size, failure = _copy(source, file.fileno(), folder)
    except OSError as error:
        raise FailureError(
            f"keeping the stream in {escape(folder)}: {error.strerror or error}",
            hint="set TMPDIR to a folder with room, or unpack the stream to a file yourself",
        ) from error
    return FileInput(file.fileno(), size), failure


def _copy(source: PipeInput, fd: int, folder: str) -> tuple[int, StreamError | None]:
    buffer, size, checked = memoryview(bytearray(_PIECE)), 0, -_CHECK
    failure = None
    while True:
        if size - checked >= _CHECK:
            _check_room(fd, folder)
            checked = size
        try:
            count = source.take(buffer)
        except StreamError as error:
            failure = error
            break
        if not count:
            break
        for at in range(0, count, _HOLE):
            piece = buffer[at : min(at + _HOLE, count)]
            if is_zero(piece):
                os.lseek(fd, len(piece), os.SEEK_CUR)
            else:
                write_all(fd, piece)
        size += count
    os.ftruncate(fd, size)
    return size, failure


def _check_room(fd: int, folder: str) -> None:
    found = os.fstatvfs(fd)
    if found.f_bavail * limits.ROOM_LEFT < found.f_blocks:
        raise FailureError(
            f"keeping the stream in {escape(folder)} would leave less than 1/{limits.ROOM_LEFT} of "
            "its file system free",
            hint="set TMPDIR to a folder with room, or unpack the stream to a file yourself",
        )
