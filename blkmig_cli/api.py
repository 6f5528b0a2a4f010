"""The library's front door: what ``import blkmig_cli`` offers.

Nothing in here knows a format: it puts together what the other modules do.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from blkmig_cli.bitmap import DirtyBitmap
from blkmig_cli.checks import Report
from blkmig_cli.decode import Decoder
from blkmig_cli.errors import UsageError
from blkmig_cli.events import Event
from blkmig_cli.hints import Hints
from blkmig_cli.images import RawImage, open_raw
from blkmig_cli.runs import Piece
from blkmig_cli.sinks import open_target, resolve_content, write_events
from blkmig_cli.source import Disk, SendOptions, send_events
from blkmig_cli.streamdisk import Contents, StreamDisk, read_contents
from blkmig_cli.text import escape, quote
from blkmig_cli.ticks import no_tick
from blkmig_cli.transport import Stream, open_stream


class DiskFile(io.RawIOBase):
    """A disk as its stream leaves it: a file to be read, of ``size`` bytes.

    Reads and seeks as any binary file (``io.BufferedReader`` makes small reads fast); nothing is
    unpacked, and no more of the stream is read than is asked for.  What never came reads as zeros:
    ``Report.devices`` tells which ranges are ``missing``.
    """

    def __init__(self, disk: StreamDisk) -> None:
        self._disk = disk
        self._at = 0

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self._disk.size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to byte ``offset``, counted as ``whence`` says; returns the new position.

        Raises ValueError for one before the disk's start.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the disk's start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` from the position on; returns the bytes read, 0 at the disk's end.

        Raises FailureError where the stream's file fails.
        """
        target = memoryview(buffer).cast("B")
        count = max(min(len(target), self.size - self._at), 0)
        target[:count] = self._disk.read(self._at, count)
        self._at += count
        return count


class StreamReader:
    """An open stream; made by :func:`open`.

    A stream in a file can be read as often as is wanted; one from a pipe, or compressed, once.
    """

    def __init__(self, stream: Stream, hints: Hints, dialect: str, container: str) -> None:
        self._stream = stream
        self._hints = hints
        self._how = (dialect, container)
        self._contents: Contents | None = None
        self._used = False

    @property
    def size(self) -> int | None:
        """Bytes of the stream; None for a pipe."""
        return self._stream.input.size

    def events(self) -> Iterator[Event]:
        """Every event of the stream (``blkmig_cli.events``), in order; they are contiguous.

        Raises StreamError where the stream is malformed or ends too early, after all that is sound;
        FailureError where the input fails.
        """
        yield from self._decoder()

    def runs(self) -> Iterator[Piece]:
        """The same stream in larger steps: an event, or a ``blkmig_cli.runs.Run`` of many as arrays.

        ``Run.columns`` have the first row's event and, as int64 of shape (rows,), the sectors of
        blocks.  Iterating a run gives its events.  Raises as :meth:`events`.
        """
        decoder = self._decoder()
        while True:
            try:
                piece = decoder.piece()
            except StopIteration:
                return
            yield piece

    def report(self) -> Report:
        """What ``blkmig validate`` finds: devices, bitmaps, ``complete``, ``valid``, ``findings``.

        A damaged stream is told in its ``failure``, not raised.  Raises FailureError where the
        input fails.
        """
        return self._read().report

    @property
    def devices(self) -> list[str]:
        """Names of the devices that have disks or bitmaps in the stream."""
        return [found.disk.name for found in self.report().devices]

    def disk(self, device: str | None = None, size: int | None = None) -> DiskFile:
        """The disk of ``device`` (None: the only one), ``size`` bytes of it (None: all).

        Where its size is not known, it ends with the last chunk that came.  Raises UsageError for a
        device that is not there, and for a pipe, whose data cannot be read a second time.
        """
        contents = self._read()
        disks = [found.disk.name for found in contents.report.devices if found.disk.has_blocks]
        if device is None and len(disks) == 1:
            device = disks[0]
        if device is None or device not in disks:
            raise UsageError(f"the stream has {', '.join(map(quote, disks)) or 'no disks'}")
        return DiskFile(contents.disk(device, size))

    def bitmaps(self, device: str | None = None) -> dict[str, DirtyBitmap]:
        """The whole bitmaps of ``device`` (None: the only one), by name.

        Left out are those that never ended, and v1 bitmaps whose granularity stays open: see
        ``report().bitmaps``.  Raises UsageError for a device that is not there.
        """
        owners = {found.bitmap.device for found in self.report().bitmaps} | set(self.devices)
        if device is None and len(owners) == 1:
            (device,) = owners
        if device is None or device not in owners:
            raise UsageError(f"the stream has {', '.join(map(quote, sorted(owners))) or 'nothing'}")
        return {
            found.bitmap.name: found.bitmap.content
            for found in self.report().bitmaps
            if found.bitmap.device == device
            and found.bitmap.content is not None
            and found.complete is not False
        }

    def _decoder(self) -> Decoder:
        source = self._stream.input
        if self._used and not self._stream.seekable:
            raise UsageError(f"{escape(self._stream.name)} can be read only once")
        self._used, source.offset = True, 0 if self._stream.seekable else source.offset
        dialect, container = self._how
        return Decoder(source, dialect=dialect, container=container, hints=self._hints)  # type: ignore[arg-type]

    def _read(self) -> Contents:
        if self._contents is None:
            self._contents = read_contents(self._stream, self._decoder(), self._hints, no_tick)
        return self._contents


@contextmanager
def open(  # noqa: A001 (as gzip.open)
    stream: str,
    *,
    sizes: Mapping[str | None, int] | None = None,
    granularities: Mapping[tuple[str | None, str], int] | None = None,
    dialect: str = "auto",
    container: str = "auto",
) -> Iterator[StreamReader]:
    """Open the STREAM called ``stream``: a path, ``-``, or a URI as on the command line.

    ``sizes`` of disks in bytes, by device (None: every device); ``granularities`` of v1 bitmaps in
    bytes, by device and name.  Raises FailureError where it is missing, UsageError for a bad URI.
    """
    hints = Hints(dict(sizes or {}), dict(granularities or {}))
    with open_stream(stream) as opened:
        yield StreamReader(opened, hints, dialect, container)


def send(
    disks: Iterable[Disk],
    *,
    dialect: str = "qemu",
    container: str = "qemu",
    machine: str = "none",
    content: bool = True,
) -> Iterator[Event]:
    """The events of a stream of ``disks``, as ``blkmig send`` makes it; for :func:`write`.

    ``content``: the disks' data travel, not only their bitmaps.  Sizes must be multiples of 512
    bytes.  Raises FailureError where an image fails while it is read.
    """
    options = SendOptions(dialect, container, machine, disks=content)
    return send_events(list(disks), options)


def write(events: Iterable[Event], target: str) -> int:
    """Encode ``events``, such as those of :func:`send`, into the TARGET called ``target``.

    That is a path, or a URI; returns the bytes written.  A file gets its name when all is written.
    Raises FailureError where the target fails, ValueError where a value has no place on the wire,
    TypeError for data that is in a stream and not at hand.
    """
    with open_target(target, []) as sink:
        write_events(events, sink, resolve_content)
    return sink.written


@contextmanager
def open_image(path: str) -> Iterator[RawImage]:
    """Open the raw disk image at ``path`` for reading, locked as QEMU locks it.

    Raises FailureError where it is missing, in use, or of another format.
    """
    image = open_raw(path, writable=False)
    try:
        yield image
    finally:
        image.close()
