"""Reading an export in pieces, of which several are in flight.

Of an image that is only read, sequential readers find the next pieces there already.  What is read
ahead is as old as its request: :meth:`ReadAhead.drop` forgets it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.nbd.connection import Connection
from blkmig_cli.disks.nbd.replies import Request
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas.constants import CHUNK_SIZE
from blkmig_cli.schemas.nbd import Command

#: Bytes of a piece, where the server takes so many at once.
PIECE = 512 << 10
#: Pieces that are there or in flight, except for those that are kept: 4 MiB.
WINDOW = 8
#: Extents that are known before they are read, so that more than one small one is read ahead.
PLANNED = 4
#: Pieces of a range that is kept for a second reading: those of a chunk that begins anywhere.
_KEPT = CHUNK_SIZE // PIECE + 1
#: Pieces of all that is kept: those of the chunks of a section part, which are all read before the second
#: reading begins.
_KEPT_ALL = 8 * _KEPT

#: Takes a part of what is read, which is valid until it returns; returns whether more is wanted.
Take = Callable[[memoryview], bool]


@dataclass(slots=True)
class _Piece:
    request: Request
    buffer: bytearray


class ReadAhead:
    """Reads the export of ``connection``; may be used by several threads, one of which reads at a time.

    ``ahead``: read more than what is asked for.
    """

    def __init__(self, connection: Connection, *, ahead: bool) -> None:
        export = connection.export
        self._connection = connection
        self._size = export.size
        self._step = block_pieces(export.minimum, export.maximum)
        self._ahead = ahead
        self._lock = threading.Lock()
        self._pieces: dict[int, _Piece] = {}
        self._kept: dict[int, None] = {}
        self._free: list[bytearray] = []
        self._next = 0  # after the last piece that was read
        self._plan = deque([range(-(-self._size // self._step))], PLANNED + 1)

    def expect(self, start: int, length: int) -> None:
        """Read ahead in the chunks of this extent, too, which is behind those announced before."""
        end = min(-(-(start + length) // CHUNK_SIZE) * CHUNK_SIZE, self._size)
        first = self._number(start // CHUNK_SIZE * CHUNK_SIZE)
        with self._lock:
            self._plan.append(range(first, self._number(end - 1) + 1))

    def read(self, offset: int, length: int, take: Take, *, again: bool = False) -> bool:
        """Give the bytes of a range to ``take``, part by part; return whether it wanted all of them.

        ``again``: keep what is read, if it is not much more than a chunk, as it will be read again.
        Raises FailureError.
        """
        end = offset + length
        if not 0 <= offset <= end <= self._size:
            raise ValueError("a read past the disk's end")
        if not length:
            return True
        first, last = self._number(offset), self._number(end - 1)
        with self._reading():
            wanted_all = self._read(first, last, range(offset, end), take, again)
            if not self._ahead:
                self._trim(None)
            return wanted_all

    def drop(self, *, plan: bool = False) -> None:
        """Forget what has been read ahead; ``plan``: and read ahead only what is expected from now on."""
        with self._reading():
            self._trim(None)
            if plan:
                self._plan.clear()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One thread at a time; after an error, nothing is kept."""
        with self._lock:
            try:
                yield
            except BaseException:
                # Buffers of requests that are still in flight must not be used again.
                self._pieces.clear()
                self._kept.clear()
                raise

    def _read(self, first: int, last: int, wanted: range, take: Take, again: bool) -> bool:
        """Give the part of the pieces ``first`` to ``last`` that is ``wanted`` to ``take``."""
        keeps = again and last - first < _KEPT
        ahead = self._ahead and (first in self._pieces or first in (self._next, self._next - 1))
        self._trim(first, again=keeps)
        for number in range(first, last + 1):
            self._fill(number, last, ahead=ahead)
            if keeps:
                self._keep(range(number, last + 1))
            piece = self._pieces[number]
            self._connection.wait(piece.request)
            base = number * self._step
            low, high = max(wanted.start - base, 0), min(wanted.stop - base, self._step)
            if not take(memoryview(piece.buffer)[low:high]):
                return False
            self._next = number + 1
            if not keeps and wanted.stop >= base + piece.request.length:
                self._release(number)
                self._fill(number + 1, last, ahead=ahead)
        return True

    def _number(self, offset: int) -> int:
        return offset // self._step

    def _trim(self, first: int | None, *, again: bool = False) -> None:
        """Release the pieces that were asked for before the piece ``first``; None: all.

        ``again``: but for those that are kept.
        """
        for number in list(self._pieces):
            if number == first:
                return
            if not again or number not in self._kept:
                self._release(number)

    def _keep(self, numbers: range) -> None:
        """Keep pieces for a second reading, if they have been asked for."""
        self._kept |= {number: None for number in numbers if number in self._pieces}
        while len(self._kept) > _KEPT_ALL:
            self._release(next(iter(self._kept)))

    def _release(self, number: int) -> None:
        piece = self._pieces.pop(number)
        self._kept.pop(number, None)
        with suppress(FailureError):  # of what nobody has read
            self._connection.wait(piece.request)
        if piece.request.done:
            self._free.append(piece.buffer)

    def _fill(self, number: int, last: int, *, ahead: bool) -> None:
        """Ask for the pieces from ``number`` to ``last``, and for those that follow, if ``ahead``."""
        while number <= last:
            if number not in self._pieces:
                self._ask(number)
            number += 1
            if self._coming >= WINDOW:
                return
        if ahead:
            newest = max(self._pieces, default=last)
            while self._coming < WINDOW:
                following = self._following(newest)
                if following is None:
                    return
                self._ask(following)
                newest = following

    @property
    def _coming(self) -> int:
        """The number of pieces that have not been read."""
        return len(self._pieces) - len(self._kept)

    def _following(self, number: int) -> int | None:
        """Return the next piece after ``number`` that is expected to be read."""
        for part in self._plan:
            if number + 1 < part.stop:
                return max(part.start, number + 1)
        return None

    def _ask(self, number: int) -> None:
        offset = number * self._step
        length = min(self._step, self._size - offset)
        buffer = self._free.pop() if self._free else bytearray(self._step)
        request = Request(Command.READ, offset, length, memoryview(buffer)[:length])
        self._connection.send(request)
        self._pieces[number] = _Piece(request, buffer)


def block_pieces(minimum: int, maximum: int, wanted: int = PIECE) -> int:
    """Return the bytes of a piece for a server with these block sizes: a multiple of ``minimum``."""
    return max(min(wanted, maximum) // minimum, 1) * minimum
