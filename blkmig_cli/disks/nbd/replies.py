"""The replies of an NBD server: each is read and put into the request that it answers.

A reply that breaks a rule of the protocol is a BrokenError: after it nothing that comes is believed.
Memory is only taken for what was asked for.
"""

from collections.abc import Callable
from dataclasses import field
from typing import Any

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.nbd.channel import BrokenError
from blkmig_cli.schemas import nbd as schema
from blkmig_cli.schemas.nbd import Chunk, ChunkFlag, Command
from blkmig_cli.wire.schema_io import parse, size_of

_SIMPLE = size_of(schema.SimpleReply)
_LENGTH = size_of(schema.ChunkLength)
_OFFSET = size_of(schema.OffsetData)
_HOLE = size_of(schema.OffsetHole)
_STATUS = size_of(schema.BlockStatus)
_EXTENT = size_of(schema.Extent)
_ERROR = size_of(schema.ChunkError)
_MAGIC = size_of(schema.ReplyMagic)
_SCRATCH = 64 << 10
#: The most bytes of a chunk with an error: the specification's longest message, and numbers.
_ERROR_MAX = 8 << 10

#: Parts of one read that may be sent out of order.
_PARTS_MAX = 1 << 10

#: Fills a view with the bytes that come next; raises BrokenError.
Receive = Callable[[memoryview], object]


@dataclass(slots=True, eq=False)
class Request:
    """A request of bytes [offset, offset + length) of the export, and what has been answered.

    ``view``: where the data of a read go.  ``contexts``: the ids of those of which the block status is
    wanted, and in ``status`` the rows of each, ``schema.Extent``.  ``error``: the first one of the server.
    """

    command: Command
    offset: int = 0
    length: int = 0
    view: memoryview = field(default_factory=lambda: memoryview(b""))
    contexts: tuple[int, ...] = ()
    status: dict[int, bytes] = field(default_factory=dict)
    error: int = 0
    done: bool = False
    _filled: list[tuple[int, int]] = field(default_factory=list)
    _total: int = 0

    def fill(self, offset: int, length: int) -> memoryview:
        """Return the view of bytes that the server sends for a part of a read; raises BrokenError."""
        start = offset - self.offset
        self._total += length
        if start < 0 or not 0 < length <= self.length - start or self._total > self.length:
            raise BrokenError(
                f"the server sent bytes {offset} to {offset + length} in answer to a read of "
                f"{self.length} bytes at {self.offset}"
            )
        if self._filled and self._filled[-1][1] == start:
            self._filled[-1] = (self._filled[-1][0], start + length)
        else:
            self._filled.append((start, start + length))
            if len(self._filled) > _PARTS_MAX:
                raise BrokenError(f"the server sent a read in over {_PARTS_MAX} parts out of order")
        return self.view[start : start + length]

    def finish(self) -> None:
        """End the request: the server answers no more; raises BrokenError where something is missing.

        ``done`` comes last, as another thread believes what is there when it sees it.
        """
        if not self.error:
            self._check_all_there()
        self.done = True

    def _check_all_there(self) -> None:
        if self.command == Command.READ:
            # No more bytes than the read has, so that any overlap comes with a gap.
            at = 0
            for start, end in sorted(self._filled):
                if start != at:
                    break
                at = end
            if at != self.length:
                raise BrokenError(
                    f"the server answered a read of {self.length} bytes at {self.offset} "
                    f"without those at {self.offset + at}"
                )
        elif any(context not in self.status for context in self.contexts):
            raise BrokenError(f"the server left out the block status at byte {self.offset}")


class Replies:
    """Reads replies to the requests in ``flying``, by their cookies, and removes those that are done."""

    def __init__(self, flying: dict[int, Request], *, structured: bool) -> None:
        self._flying = flying
        self._structured = structured
        self._head = memoryview(bytearray(_SIMPLE))
        self._scratch = memoryview(bytearray(_SCRATCH))

    @property
    def head(self) -> memoryview:
        """Where the first bytes of a reply are to be put before :meth:`take`."""
        return self._head

    def take(self, receive: Receive) -> None:
        """Read the rest of a reply; raises BrokenError."""
        (magic,) = _numbers(schema.ReplyMagic, self._head[:_MAGIC])
        if magic == schema.SIMPLE_REPLY_MAGIC:
            self._take_simple(receive)
        elif magic == schema.STRUCTURED_REPLY_MAGIC and self._structured:
            self._take_chunk(receive)
        else:
            raise BrokenError(f"the server sent a reply of the unknown kind {magic:#x}")

    def _take_simple(self, receive: Receive) -> None:
        _, error, cookie = _numbers(schema.SimpleReply, self._head)
        request = self._request(cookie)
        if not error and request.command == Command.READ:
            if self._structured:
                raise BrokenError("the server sent a simple reply to a read")
            receive(request.fill(request.offset, request.length))
        request.error = request.error or error
        self._finish(cookie, request)

    def _take_chunk(self, receive: Receive) -> None:
        _, flags, kind, cookie = _numbers(schema.ChunkHead, self._head)
        request = self._request(cookie)
        receive(self._scratch[:_LENGTH])
        (length,) = _numbers(schema.ChunkLength, self._scratch[:_LENGTH])
        if kind == Chunk.OFFSET_DATA and length > _OFFSET and request.command == Command.READ:
            receive(self._scratch[:_OFFSET])
            (offset,) = _numbers(schema.OffsetData, self._scratch[:_OFFSET])
            receive(request.fill(offset, length - _OFFSET))
        elif kind == Chunk.OFFSET_HOLE and length == _HOLE and request.command == Command.READ:
            receive(self._scratch[:_HOLE])
            offset, zeros = _numbers(schema.OffsetHole, self._scratch[:_HOLE])
            view = request.fill(offset, zeros)
            view[:] = bytes(zeros)
        elif kind == Chunk.BLOCK_STATUS and request.command == Command.BLOCK_STATUS:
            self._take_status(request, length, receive)
        elif kind & schema.CHUNK_ERROR and _ERROR <= length <= _ERROR_MAX:
            receive(self._scratch[:length])
            error, _ = _numbers(schema.ChunkError, self._scratch[:_ERROR])
            if not error:
                raise BrokenError("the server sent an error without a number")
            request.error = request.error or error
        elif kind != Chunk.NONE or length or not flags & ChunkFlag.DONE:
            raise BrokenError(
                f"the server sent a chunk of type {kind:#x} with {length} bytes in answer to "
                f"{request.command.name}"
            )
        if flags & ChunkFlag.DONE:
            self._finish(cookie, request)

    def _take_status(self, request: Request, length: int, receive: Receive) -> None:
        number = length - _STATUS
        if number < _EXTENT or number % _EXTENT or number > limits.NBD_STATUS_MAX:
            raise BrokenError(f"the server sent a block status of {length} bytes")
        receive(self._scratch[:_STATUS])
        (context,) = _numbers(schema.BlockStatus, self._scratch[:_STATUS])
        if context in request.status:
            raise BrokenError(f"the server sent the block status of context {context} twice")
        if context not in request.contexts:
            while number:
                part = min(number, _SCRATCH)
                receive(self._scratch[:part])
                number -= part
            return
        data = bytearray(number)
        receive(memoryview(data))
        request.status[context] = bytes(data)

    def _request(self, cookie: int) -> Request:
        request = self._flying.get(cookie)
        if request is None:
            raise BrokenError(f"the server answered the request {cookie}, which is not open")
        return request

    def _finish(self, cookie: int, request: Request) -> None:
        del self._flying[cookie]
        request.finish()


def _numbers(layout: Any, data: memoryview) -> tuple[Any, ...]:
    """Return the values of a layout that is a flat run of numbers, from as many bytes as it has."""
    values = parse(layout, data)
    assert values is not None
    return values
