"""NBD exports as images.

A server that states block sizes gets no other requests: ranges are widened for reading, and a part of a
block is written by reading the block first.
"""

import io
import os
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from blkmig_cli import limits
from blkmig_cli.disks.granularity import granularity_of
from blkmig_cli.disks.image import FilePart, StoredBitmap
from blkmig_cli.disks.nbd.channel import BrokenError, Data, SocketChannel
from blkmig_cli.disks.nbd.connection import Connection
from blkmig_cli.disks.nbd.handshake import Bitmaps, negotiate
from blkmig_cli.disks.nbd.read_ahead import PLANNED, ReadAhead, block_pieces
from blkmig_cli.disks.nbd.replies import Request
from blkmig_cli.disks.nbd.status import Flags, ranges
from blkmig_cli.disks.zeros import is_zero
from blkmig_cli.errors import FailureError, LimitError, failing
from blkmig_cli.schemas import nbd as schema
from blkmig_cli.schemas.nbd import Allocation, Command, ExportFlag
from blkmig_cli.system.nbd_uri import NbdUri
from blkmig_cli.system.pipes import write_all
from blkmig_cli.text import escape, quote

# Plain numbers, as & of enumerations takes several times as long.
_HOLE, _ZERO = int(Allocation.HOLE), int(Allocation.ZERO)
# Bytes that are written in one request, and of which those of a file are looked at before.
_WRITTEN = 1 << 20
_PROBE = 4 << 10
# Requests of one thread in flight, more if they are without data; and bytes that are zeroed or discarded
# in one.
_FLYING = 8
_FLYING_SMALL = 256
_ZEROED = 256 << 20

if TYPE_CHECKING:
    from blkmig_cli.disks.bitmap import DirtyBitmap


class NbdImage:
    """See ``image.Image``.  Created by :func:`open_nbd` and :func:`image_on`.

    Threads may write at the same time; the parts of a range are written in any order.
    """

    def __init__(self, connection: Connection, *, writable: bool, own_layer: bool) -> None:
        self.path = connection.name
        self._connection = connection
        self._export = connection.export
        self._own_layer = own_layer
        self._step = block_pieces(self._export.minimum, self._export.maximum, _WRITTEN)
        # What is read from a writable image may be written meanwhile: nothing is read ahead.
        self._reader = ReadAhead(connection, ahead=not writable)
        self._edges = threading.Lock()

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._export.size

    @property
    def is_file(self) -> bool:
        """Return False: an export may be larger than the disk."""
        return False

    @property
    def is_single_file(self) -> bool:
        """Return False."""
        return False

    def bitmaps(self) -> list[StoredBitmap] | None:
        """See ``image.Image``: those that were asked for, of which the protocol tells only the name."""
        return [StoredBitmap(name, None) for name in self.bitmap_names()] or None

    def read_bitmap(self, name: str) -> "DirtyBitmap":
        """See ``image.Image``; a bitmap that is recording, and not persistent.

        Its granularity is not a part of the protocol; see ``granularity.py``.
        """
        from blkmig_cli.disks.bitmap import DirtyBitmap  # noqa: PLC0415 (numpy is slow to load)

        bitmap = DirtyBitmap(name, granularity_of(self.dirty_ranges(name), self.size))
        try:
            for start, length in self.dirty_ranges(name):
                bitmap.set_range(start, length)
            return bitmap
        except LimitError as error:
            raise FailureError(f"{escape(self.path)}: bitmap {quote(name)}: {error}") from error

    def write_bitmaps(self, bitmaps: "Sequence[DirtyBitmap]") -> NoReturn:
        """See ``image.Image``."""
        raise FailureError(f"{escape(self.path)} is an NBD export, which has no place for bitmaps")

    def add_bitmap(self, name: str, granularity: int) -> NoReturn:
        """See ``image.Image``."""
        self.write_bitmaps([])

    def remove_bitmap(self, name: str) -> NoReturn:
        """See ``image.Image``."""
        raise FailureError(
            f"{escape(self.path)} is an NBD export, whose bitmaps cannot be removed: {quote(name)}"
        )

    @property
    def has_backing(self) -> bool:
        """Whether the server tells which ranges are those of a backing file, and was asked to."""
        return self._own_layer

    def read(self, offset: int, length: int) -> bytes:
        """See ``image.Image``; raises ValueError for a range that ends past the disk."""
        found = io.BytesIO()

        def take(view: memoryview) -> bool:
            found.write(view)
            return True

        self._reader.read(offset, length, take)
        return found.getvalue()

    def is_zero(self, offset: int, length: int) -> bool:
        """See ``image.Image``; what is read of a chunk is kept for :meth:`copy_to`."""
        return self._reader.read(offset, length, is_zero, again=True)

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        """See ``image.Image``."""

        def take(view: memoryview) -> bool:
            write_all(target, view)
            return True

        self._reader.read(offset, length, take)

    def places(self, offset: int, length: int) -> Sequence[FilePart]:
        """See ``image.Image``: not known."""
        return ()

    def extents(self) -> Iterator[tuple[int, int]]:
        """See ``image.Image``; all of the disk where the server cannot tell.

        Of an image's own layer: what it holds.  What has been read ahead is forgotten.
        """
        return self.planned(self._ranges(0, self.size, zeros=False))

    def planned(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield ``ranges`` (start, length), ascending, as they are; only in their chunks is read ahead.

        What has been read ahead before is forgotten.
        """
        self._reader.drop(plan=True)
        coming: deque[tuple[int, int]] = deque()
        for extent in ranges:
            self._reader.expect(*extent)
            coming.append(extent)
            if len(coming) > PLANNED:
                yield coming.popleft()
        yield from coming

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``image.Image``: those of an own layer; otherwise, zeros are in no extent."""
        if self._own_layer:
            yield from self._ranges(offset, offset + length, zeros=True)

    def data_in(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See ``image.Image``."""
        return self._ranges(offset, offset + length, zeros=False)

    def bitmap_names(self) -> list[str]:
        """Return the names of the dirty bitmaps that were asked for and that the export has."""
        prefix = schema.DIRTY_BITMAP
        return [
            context.removeprefix(prefix)
            for context in self._export.contexts
            if context.startswith(prefix)
        ]

    def dirty_ranges(self, name: str) -> Iterator[tuple[int, int]]:
        """See ``image.Image``."""
        context = self._export.contexts.get(schema.DIRTY_BITMAP + name)
        if context is None:
            raise FailureError(f"{escape(self.path)}: the export has no dirty bitmap {quote(name)}")

        def wanted(flags: Flags) -> bool:
            return bool(flags[0] & schema.DIRTY)

        return ranges(self._connection, (context,), 0, self.size, wanted)

    def begin_writing(self) -> None:
        """See ``image.Image``."""

    def end_writing(self) -> None:
        """See ``image.Image``."""

    def write(self, offset: int, data: memoryview) -> None:
        """See ``image.Image``."""
        self._check_end(offset, len(data))
        low, high = self._whole_blocks(offset, offset + len(data))
        self._patch(offset, data[: low - offset])
        self._write_blocks(low, data[low - offset : high - offset])
        self._patch(high, data[high - offset :])

    def write_part(self, offset: int, part: FilePart) -> bool:
        """See ``image.Image``; whole blocks only, which do not begin with zeros."""
        self._check_end(offset, part.length)
        end = offset + part.length
        if not self._connection.sends_files or self._whole_blocks(offset, end) != (offset, end):
            return False
        try:
            if is_zero(memoryview(os.pread(part.fd, _PROBE, part.offset))):
                return False
        except OSError:
            return False  # reading it all tells of the failure
        self._each(
            (
                Request(Command.WRITE, offset + at, length),
                FilePart(part.fd, part.offset + at, length),
            )
            for at in range(0, part.length, self._step)
            for length in [min(self._step, part.length - at)]
        )
        return True

    def zero(self, offset: int, length: int) -> None:
        """See ``image.Image``; what reads as zeros already is left as it is."""
        self._check_end(offset, length)
        for start, part in self._ranges(offset, offset + length, zeros=False):
            self._zero(start, part)

    def _zero(self, offset: int, length: int) -> None:
        """Zero a range; writes zeros to a server that cannot do better."""
        low, high = self._whole_blocks(offset, offset + length)
        self._patch(offset, memoryview(bytes(low - offset)))
        if self._export.has(ExportFlag.SEND_WRITE_ZEROES):
            self._each(_small(Command.WRITE_ZEROES, [(low, high - low)]))
        else:
            zeros = memoryview(bytes(self._step))
            self._each(
                (Request(Command.WRITE, at, len(part)), part)
                for at in range(low, high, self._step)
                for part in [zeros[: high - at]]
            )
        self._patch(high, memoryview(bytes(offset + length - high)))

    def zero_all(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Zero many ranges (start, length), each of whole blocks, with several requests in flight.

        The server must have WRITE_ZEROES.  Raises FailureError.
        """
        self._each(_small(Command.WRITE_ZEROES, ranges), _FLYING_SMALL)

    def discard(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Tell the server that ranges (start, length) are not needed any more, if it takes that."""
        if self._export.has(ExportFlag.SEND_TRIM):
            self._each(_small(Command.TRIM, ranges), _FLYING_SMALL)

    def resize(self, size: int) -> None:
        """Raise FailureError: an export has the size that its server gave it."""
        raise FailureError(f"{escape(self.path)} is an export of {self.size} bytes")

    def flush(self) -> None:
        """See ``image.Image``; raises FailureError where the server cannot promise it."""
        if not self._export.has(ExportFlag.SEND_FLUSH):
            raise _cannot_flush(self.path)
        self._connection.ask(Request(Command.FLUSH))

    def uncache(self) -> None:
        """Forget what has been read ahead; the server's cache is its own."""
        self._reader.drop()

    def close(self) -> None:
        """See ``image.Image``."""
        self._connection.close()

    def receive_always(self) -> None:
        """Receive what was asked for in a thread, so that the server never waits for this process."""
        self._connection.receive_always()

    def abandon(self) -> None:
        """Close the connection without taking leave of the server: for another process that has it open."""
        self._connection.abandon()

    def _ranges(self, start: int, end: int, *, zeros: bool) -> Iterator[tuple[int, int]]:
        """Yield the ranges of extents, or of known zeros within those of an own layer."""
        contexts = self._export.contexts
        base = contexts.get(schema.BASE_ALLOCATION)
        depth = contexts.get(schema.ALLOCATION_DEPTH) if self._own_layer else None

        def in_layer(flags: Flags) -> bool:
            if depth is not None:
                return flags[0] == schema.OWN_LAYER
            return not flags[-1] & _HOLE

        def is_zero_block(flags: Flags) -> bool:
            return bool(flags[-1] & _ZERO)

        def wanted(flags: Flags) -> bool:
            if not self._own_layer:
                return not is_zero_block(flags)
            return in_layer(flags) and (not zeros or is_zero_block(flags))

        used = tuple(context for context in (depth, base) if context is not None)
        if zeros and base is None:
            return
        if used:
            yield from ranges(self._connection, used, start, end, wanted)
        elif start < end:
            yield start, end - start

    def _check_end(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self.size:
            raise ValueError("a write past the disk's end")

    def _whole_blocks(self, start: int, end: int) -> tuple[int, int]:
        """Return the part of [start, end) that is whole blocks; the disk's last block may be shorter."""
        minimum = self._export.minimum
        low = min(-(-start // minimum) * minimum, end)
        high = end if end == self.size else max(end // minimum * minimum, low)
        return low, max(low, high)

    def _patch(self, offset: int, data: memoryview) -> None:
        """Write parts of blocks; the others of each block are read and stay as they are."""
        minimum = self._export.minimum
        while data:
            base = offset // minimum * minimum
            with self._edges:
                block = memoryview(bytearray(min(minimum, self.size - base)))
                self._connection.ask(Request(Command.READ, base, len(block), block))
                part = data[: base + len(block) - offset]
                block[offset - base : offset - base + len(part)] = part
                self._write_blocks(base, block)
            offset, data = offset + len(part), data[len(part) :]

    def _write_blocks(self, offset: int, data: memoryview) -> None:
        self._each(
            (Request(Command.WRITE, offset + at, len(part)), part)
            for at in range(0, len(data), self._step)
            for part in [data[at : at + self._step]]
        )

    def _each(self, requests: Iterator[tuple[Request, Data]], most: int = _FLYING) -> None:
        """Send requests, up to ``most`` in flight at a time, and wait for all."""
        flying: deque[Request] = deque()
        for request, data in requests:
            if len(flying) == most:
                self._connection.wait(flying.popleft())
            self._connection.send(request, data)
            flying.append(request)
        for request in flying:
            self._connection.wait(request)


def _small(command: Command, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[Request, Data]]:
    """Yield requests without data for ranges (start, length), none of which is too large."""
    for start, length in ranges:
        for at in range(start, start + length, _ZEROED):
            yield Request(command, at, min(_ZEROED, start + length - at)), None


def open_nbd(
    uri: NbdUri, *, writable: bool, own_layer: bool = False, bitmaps: Bitmaps = ()
) -> NbdImage:
    """Connect to the export at ``uri``; see :func:`image_on`."""
    with failing(uri.text):
        if uri.socket:
            peer = socket.socket(socket.AF_UNIX)
            peer.settimeout(limits.NBD_CONNECT_WAIT)
            try:
                peer.connect(uri.socket)
            except OSError:
                peer.close()
                raise
        else:
            peer = socket.create_connection((uri.host, uri.port), limits.NBD_CONNECT_WAIT)
    return _image(peer, uri.export, uri.text, uri, writable, own_layer, bitmaps)


def image_on(
    peer: socket.socket,
    export: str,
    name: str,
    *,
    writable: bool,
    own_layer: bool = False,
    bitmaps: Bitmaps = (),
    patience: float | None = None,
) -> NbdImage:
    """Return ``export`` of the NBD server at the other end of ``peer``, which it owns from now on.

    ``name`` is what messages call the image.  ``own_layer``: extents are those that the image itself
    allocates, not its backing files.  ``bitmaps``: the names of dirty bitmaps whose ranges will be read;
    ``"all"``: those that the server lists.  ``patience``: seconds to wait for an answer, None: those of
    ``limits.py``.

    Raises FailureError where there is no such export, it cannot be written or flushed though it is to
    be ``writable``, or the server fails.
    """
    return _image(peer, export, name, None, writable, own_layer, bitmaps, patience)


def _image(
    peer: socket.socket,
    export: str,
    name: str,
    uri: NbdUri | None,
    writable: bool,
    own_layer: bool,
    bitmaps: Bitmaps,
    patience: float | None = None,
) -> NbdImage:
    channel = SocketChannel(peer)
    try:
        found = negotiate(channel, export, name, uri=uri, own_layer=own_layer, bitmaps=bitmaps)
        if writable and found.has(ExportFlag.READ_ONLY):
            raise FailureError(f"{escape(name)} is a read-only export")
        if writable and not found.has(ExportFlag.SEND_FLUSH):
            raise _cannot_flush(name)
    except BrokenError as error:
        channel.close()
        raise FailureError(f"{escape(name)}: {error}") from error
    except BaseException:
        channel.close()
        raise
    connection = Connection(channel, found, name, patience)
    return NbdImage(connection, writable=writable, own_layer=own_layer)


def _cannot_flush(name: str) -> FailureError:
    return FailureError(
        f"{escape(name)}: the server cannot flush, so that nothing written to it would be safe"
    )
