"""The public interface of the library, as ``import blkmig_cli`` provides it.

This module knows no format: it combines the other modules, none of which imports it.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import BinaryIO, Literal, get_args

from blkmig_cli.checks.names import Names
from blkmig_cli.checks.report import Report
from blkmig_cli.checks.survey import Contents, read_contents
from blkmig_cli.contents.stream_disk import Piece as DiskPiece
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.disks import open as disks
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.disks.formats import check_format
from blkmig_cli.disks.image import Image
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.convert.convert import ConvertOptions, ConvertResult
from blkmig_cli.operations.convert.convert import convert as convert_stream
from blkmig_cli.operations.extract import find_disk
from blkmig_cli.operations.fold import fold as fold_streams
from blkmig_cli.operations.live.request import LiveReport, LiveRequest
from blkmig_cli.operations.reading import Reading
from blkmig_cli.operations.replay.received import resume_token as token_of_images
from blkmig_cli.operations.replay.replay import replay as replay_stream
from blkmig_cli.operations.replay.request import ReplayRequest, ReplayResult
from blkmig_cli.operations.resume_token import parse_token
from blkmig_cli.operations.send.changes import ALL, SendChanges
from blkmig_cli.operations.send.identity import RANDOM, SendIdentity
from blkmig_cli.operations.send.requirements import check_disks, check_images
from blkmig_cli.operations.send.send import SendBitmaps, SendResult
from blkmig_cli.operations.send.send import send as send_images
from blkmig_cli.operations.send.stream import SendOptions, send_events
from blkmig_cli.operations.validate import ValidateOptions, validate_stream
from blkmig_cli.progress import no_tick
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.text import devices_text, escape, quote
from blkmig_cli.transport.source import Stream, adopt_stream, open_stream
from blkmig_cli.transport.target import (
    adopt_target,
    open_target,
    resolve_content,
    resolving,
    write_events,
)
from blkmig_cli.wire.decoder import Container, Decoder
from blkmig_cli.wire.events import Event, Payload
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import Piece, expand
from blkmig_cli.wire.schema_io import Input
from blkmig_cli.wire.several import decoder_of

Dialect = Literal["auto", "classic", "v1", "v2", "qemu"]


class StreamReader:
    """An open stream, as returned by :func:`open`; a context manager that closes it.

    A stream in a file can be read any number of times, also simultaneously; one from a pipe, or
    compressed, only once.  Methods raise ValueError after it was closed.
    """

    def __init__(
        self,
        stream: Stream,
        held: ExitStack,
        hints: Hints,
        dialect: Dialect,
        container: Container,
        number: int | None,
    ) -> None:
        self._stream = stream
        self._held = held
        self._hints = hints
        self._dialect = dialect
        self._container = container
        self._number = number
        self._contents: Contents | None = None
        self._used = False
        self._closed = False

    def __enter__(self) -> "StreamReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._held.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the stream and all its disks; a file object of the caller remains open.

        Raises FailureError where the command of an ``exec:`` stream ended with a failure.
        """
        self.__exit__(None, None, None)

    @property
    def closed(self) -> bool:
        """Whether the stream is closed."""
        return self._closed

    @property
    def size(self) -> int | None:
        """The size of the stream in bytes; None for a pipe."""
        return self._stream.input.size

    def events(self) -> Iterator[Event]:
        """Return all events of the stream (``blkmig_cli.wire.events``), in order and contiguous.

        Raises, after the intact events, StreamError where the stream is malformed or ends too early;
        FailureError where the input fails; UsageError for a pipe that has been read.
        """
        return expand(self.runs())

    def runs(self) -> Iterator[Piece]:
        """Yield the events, with many repeated ones as a ``blkmig_cli.wire.runs.columns.Run`` of arrays.

        ``Run.columns`` have the first row's event and, as int64 of shape (rows,), the sectors of
        blocks and of bits.  Iterating over a run yields its events.  Raises as :meth:`events`.
        """
        decoder = self._decoder(self._input())
        while True:
            try:
                piece = decoder.piece()
            except StopIteration:
                return
            yield piece
            self._check_open()

    def read(self, payload: Payload) -> bytes:
        """Return the bytes of the ``payload`` of an event, such as ``Block.data``.

        From a pipe, only those of the current event can be read.  Raises FailureError where the input
        fails, UsageError for bytes that a pipe does not hold.
        """
        self._check_open()
        try:
            return b"".join(map(bytes, resolving(self._stream.input)(payload)))
        except ValueError:
            name = escape(self._stream.name)
            raise UsageError(f"{name} is read once, and has gone past these bytes") from None

    def report(self) -> Report:
        """Return the report of ``blkmig validate``: devices, bitmaps, ``complete``, ``findings``.

        The error of a damaged stream is its ``failure``, and is not raised.  Raises FailureError where the
        input fails, UsageError for a pipe that has been read.
        """
        return self._read().report

    @property
    def devices(self) -> list[str]:
        """The names of the devices with disks or bitmaps in the stream; raises as :meth:`report`."""
        return [found.disk.name for found in self.report().devices]

    def disk(self, device: str | None = None, *, allow_incomplete: bool = False) -> "DiskFile":
        """Return the disk of ``device`` (None: the only one) as a file.

        A disk of unknown size ends with its last chunk.  ``allow_incomplete``: chunks that were not
        sent read as zeros; without it, raises IncompleteError where chunks are missing, and the
        StreamError of a damaged stream.  Raises UsageError for a missing device, and for a pipe,
        whose data cannot be read a second time; IncompleteError where a record lies past the
        disk's end, or the disk cannot end with its last chunk.
        """
        found = find_disk(self._read(), device, allow_incomplete=allow_incomplete)
        return DiskFile(found.disk, self)

    def bitmaps(self, device: str | None = None) -> dict[str, DirtyBitmap]:
        """Return the complete bitmaps of ``device`` (None: the only one), by name.

        Incomplete ones and v1 bitmaps of unknown granularity are omitted: see
        ``report().bitmaps``.  Raises UsageError for a missing device, else as :meth:`report`.
        """
        devices = self.devices
        if device is None and len(devices) == 1:
            (device,) = devices
        if device not in devices:
            raise UsageError(f"the stream has {devices_text(devices)}")
        return {
            found.bitmap.name: found.bitmap.content
            for found in self.report().bitmaps
            if found.bitmap.device == device
            and found.bitmap.content is not None
            and found.complete is not False
        }

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the stream is closed")

    def _input(self) -> Stream:
        """Return the stream at its start, independent of other readers of it."""
        self._check_open()
        if self._stream.input.seekable:
            return replace(self._stream, input=self._stream.input.again())
        if self._used:
            raise UsageError(f"{escape(self._stream.name)} can be read only once")
        self._used = True
        return self._stream

    def _decoder(self, stream: Stream) -> Decoder:
        return decoder_of(
            stream.input,
            self._number,
            hints=self._hints,
            dialect=self._dialect,
            container=self._container,
        )

    def _read(self) -> Contents:
        if self._contents is None:
            stream = self._input()
            self._contents = read_contents(stream, self._decoder(stream), self._hints, no_tick)
        return self._contents


class DiskFile(io.RawIOBase):
    """The final content of a disk in a stream, as returned by :meth:`StreamReader.disk`: a file.

    It can be read and seeked as any binary file (``io.BufferedReader`` makes small reads fast); only
    the requested bytes of the stream are read, and nothing is extracted to a file.
    """

    def __init__(self, disk: StreamDisk, stream: StreamReader) -> None:
        self._disk = disk
        self._stream = stream
        self._at = 0

    @property
    def size(self) -> int:
        """The size of the disk in bytes."""
        return self._disk.size

    def pieces(self) -> Iterator[DiskPiece]:
        """Return the disk as contiguous pieces, each with ``start`` and ``end`` in bytes and ``kind``.

        The kind is ``data`` (at most 1 MiB, with its ``offset`` in the stream), ``zero``, or
        ``missing`` (not sent; it reads as zeros).
        """
        return self._disk.pieces()

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to byte ``offset``, relative to ``whence``; returns the new position.

        Raises ValueError for one before the disk's start.
        """
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}
        if whence not in bases:
            raise ValueError(f"whence is {whence}, not 0, 1 or 2")
        if bases[whence] + offset < 0:
            raise ValueError("a position before the disk's start")
        self._at = bases[whence] + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` from the position on; returns the bytes read, 0 at the disk's end.

        Raises FailureError where the stream's file fails, ValueError where it is closed.
        """
        if self.closed or self._stream.closed:
            raise ValueError("the disk, or its stream, is closed")
        target = memoryview(buffer).cast("B")
        target = target[: max(self.size - self._at, 0)]
        self._disk.read_into(target, self._at)
        self._at += len(target)
        return len(target)


def open(  # noqa: A001 (as gzip.open)
    stream: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    sizes: Mapping[str | None, int] | None = None,
    granularities: Mapping[tuple[str | None, str], int] | None = None,
    dialect: Dialect = "auto",
    container: Container = "auto",
    number: int | None = None,
) -> StreamReader:
    """Open a stream, for use with ``with``.

    ``stream`` is its name, as STREAM on the command line: a path, ``-`` for stdin, or a URI such as
    ``tcp:HOST:PORT``.  As ``exec:COMMAND`` runs a command, pass untrusted names as
    ``pathlib.Path``, which is never treated as a URI.  Or it is the stream itself: bytes, or an open
    binary file.  A file with a descriptor is read in place, from its position; any other (of a
    socket, a decompressor) once, as a pipe.

    ``sizes`` of disks in bytes, by device (None: every device); ``granularities`` of v1 bitmaps in
    bytes, by device (None: every device) and name.  ``dialect`` and ``container`` as on the command
    line.  ``number``: that of several streams in a file, from 1; without it, reading such a
    file to the end of its first stream raises SeveralStreamsError, a UsageError.  Raises
    FailureError where it is missing, UsageError for an invalid URI or argument.
    """
    _check_words(dialect, container)
    hints = Hints(dict(sizes or {}), dict(granularities or {}))
    with ExitStack() as stack:
        opened = stack.enter_context(_opened(stream))
        return StreamReader(opened, stack.pop_all(), hints, dialect, container, number)


def open_image(
    path: str | os.PathLike[str], image_format: str | None = None
) -> AbstractContextManager[Image]:
    """Open the disk image ``path`` for reading, locked as by QEMU; for use with ``with``.

    It is a path, or the URI of an NBD export.  ``image_format``: as -f on the command line; None: by
    the suffix, which the content must match.  Raises FailureError where it is missing, in use, or not
    of this format.
    """
    if image_format is not None:
        check_format(image_format)
    return closing(disks.open_image(os.fspath(path), image_format=image_format))


def events_of(
    disks: Iterable[Disk],
    *,
    dialect: Literal["classic", "v1", "v2", "qemu"] = "qemu",
    container: Literal["qemu", "none"] = "qemu",
    machine: str = "none",
    content: bool = True,
) -> Iterator[Event]:
    """Return the events of a stream of ``disks``, as ``blkmig send`` writes it; for :func:`write`.

    ``dialect`` and ``container`` as on the command line; ``machine``: the machine type to state;
    ``content``: send the disks' data, not only their bitmaps.  Raises FailureError for a disk whose
    size is not a multiple of 512 bytes, or that fails while it is read; UsageError for names or
    bitmaps that cannot be sent.
    """
    _check_words(dialect, container)
    sent = list(disks)
    options = SendOptions(dialect, container, machine, disks=content)
    check_images({disk.device: disk.image for disk in sent})
    check_disks(sent, options)
    return send_events(sent, options)


def write(
    events: Iterable[Event],
    target: str | os.PathLike[str] | BinaryIO,
    *,
    source: StreamReader | None = None,
) -> int:
    """Encode ``events`` into ``target``; returns the bytes written.

    ``events``: those of :func:`events_of`, or those of the stream ``source``, which has their data:
    all, some, or changed.  ``target``: its name, as TARGET on the command line (as in :func:`open`,
    URIs can run commands; a file is renamed when it is complete), or a binary file to write to.

    Raises UsageError where the target is the stream itself; FailureError where the target or the
    data fail; ValueError where a value does not fit its field, or a pipe no longer holds an event's
    data; TypeError for data without a ``source``.
    """
    resolve = resolve_content if source is None else resolving(source._stream.input)
    uses = FileUses()
    if source is not None and source._stream.file is not None:
        uses.add("the stream", source._stream.file, writes=False)
    with (
        open_target(_name(target), uses)
        if isinstance(target, (str, os.PathLike))
        else adopt_target(target, uses)
    ) as sink:
        write_events(events, sink, resolve)
    return sink.written


def validate(
    stream: str | os.PathLike[str] | bytes | BinaryIO,
    options: ValidateOptions | None = None,
    *,
    sizes: Mapping[str | None, int] | None = None,
    granularities: Mapping[tuple[str | None, str], int] | None = None,
    dialect: Dialect = "auto",
    container: Container = "auto",
    number: int | None = None,
) -> Report:
    """Return the report of ``blkmig validate`` on ``stream``.

    ``options``: images and a manifest to compare with, and what else to check.  ``sizes``,
    ``granularities`` (in bytes), ``dialect``, ``container``, ``number`` as in :func:`open`.  Damage
    is in the report's ``failure``.  Raises FailureError where the input or an image
    fails, UsageError for an image or a size of a device that the stream does not have.
    """
    _check_words(dialect, container)
    chosen = options or ValidateOptions()
    hints = Hints(dict(sizes or {}), dict(granularities or {}))

    def decoder(source: Input, known: Hints) -> Decoder:
        return decoder_of(source, number, hints=known, dialect=dialect, container=container)

    with _opened(stream, again=chosen.reads_data) as opened:
        report = validate_stream(opened, hints, decoder, no_tick, chosen)
        Names.of(report).check_hints(hints)
        return report


def replay(
    stream: str | os.PathLike[str] | bytes | BinaryIO | None, request: ReplayRequest
) -> ReplayResult:
    """Apply ``stream`` to disk images, as ``blkmig replay`` does with the options in ``request``.

    None: accept images that an earlier replay left incomplete (``--resume --allow-incomplete``).
    If the stream cannot be applied, the reasons are in the report of the result, whose ``accepted`` is
    then False.  Raises UsageError and FailureError as the command does, for a stream in a file before
    anything is written.
    """
    if stream is None:
        return replay_stream(None, request)
    with _opened(stream) as opened:
        return replay_stream(opened, request)


def resume_token(request: ReplayRequest) -> str:
    """Return what the images of an interrupted replay have received, as ``replay --print-token`` does.

    ``request``: that of the replay.  The token is for :func:`send`, which makes the rest of the stream, and
    that for :func:`replay` with ``resume``.  Nothing is changed.  Raises UsageError where the images are not
    specified one by one; FailureError where one fails or is in use, or nothing was received.
    """
    return str(token_of_images(request))


def send(
    images: Mapping[str, str | os.PathLike[str]],
    target: str | os.PathLike[str],
    options: SendOptions | None = None,
    *,
    bitmaps: SendBitmaps | None = None,
    identity: SendIdentity | None = RANDOM,
    changes: SendChanges = ALL,
    token: str | None = None,
    manifest: str | os.PathLike[str] | None = None,
) -> SendResult:
    """Send ``images``, paths by device name, to ``target``, as ``blkmig send`` does.

    ``options``: how to send; ``bitmaps``: which bitmaps to send with them, None for none;
    ``identity``: the id of the stream and its base, None to state none; ``changes``: of an increment, the
    bitmaps that select what is sent, and those to create and remove; ``token``: that of
    :func:`resume_token`, to send only the rest; ``manifest``: the file to which the digests of the disks
    are written.  Raises UsageError for contradictory options or missing
    bitmaps, FailureError where an image, a bitmap or the target fails or does not fit.
    """
    return send_images(
        {device: os.fspath(path) for device, path in images.items()},
        _name(target),
        options,
        bitmaps=bitmaps,
        identity=identity,
        changes=changes,
        token=None if token is None else parse_token("token", token),
        manifest=None if manifest is None else os.fspath(manifest),
    )


def live(
    monitor: str,
    target: str | os.PathLike[str],
    request: LiveRequest | None = None,
    options: SendOptions | None = None,
    *,
    manifest: str | os.PathLike[str] | None = None,
) -> LiveReport:
    """Write the disks of a running QEMU to ``target``, as ``blkmig live`` does; call it in the main thread.

    ``monitor``: ``qmp:unix:PATH``; ``request``: what to capture and how, None: all disks in passes;
    ``options``: the form of the stream; ``manifest``: the file for the digests of what is in the stream.
    What is made in QEMU is removed, and a guest that was running runs on.  Sizes in the report are bytes.
    Raises UsageError for a disk or a bitmap that is not there, or contradictory options; FailureError where
    QEMU, a disk or the target fails or is in use, or changes meanwhile.
    """
    from blkmig_cli.operations.live.live import capture  # noqa: PLC0415 (asyncio is slow to load)

    return capture(
        monitor,
        _name(target),
        request,
        options,
        manifest=None if manifest is None else os.fspath(manifest),
    )


def convert(
    stream: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: ConvertOptions | None = None,
    *,
    sizes: Mapping[str | None, int] | None = None,
    granularities: Mapping[tuple[str | None, str], int] | None = None,
    bitmaps_from: Mapping[str | None, str] | None = None,
) -> ConvertResult:
    """Write ``stream`` to ``target`` in another dialect, as ``blkmig convert`` does.

    ``options``: how to convert; ``sizes`` and ``granularities`` in bytes, as in :func:`open`;
    ``bitmaps_from``: files of bitmaps to add, by device (None: the only one).  Raises StreamError
    for a damaged stream, IncompleteError where chunks or bits are missing, UsageError and FailureError
    as the command does.
    """
    reading = Reading(Hints(dict(sizes or {}), dict(granularities or {})))
    return convert_stream(
        _name(stream),
        _name(target),
        options,
        reading=reading,
        bitmaps_from=None if bitmaps_from is None else dict(bitmaps_from),
    )


def fold(
    streams: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    options: ConvertOptions | None = None,
    *,
    granularities: Mapping[tuple[str | None, str], int] | None = None,
    manifests: Sequence[str | os.PathLike[str]] = (),
) -> ConvertResult:
    """Write ``streams``, a base and its increments in order, to ``target`` as one stream.

    As ``blkmig fold`` does.  ``options``: dialect, container and machine of the new stream;
    ``granularities`` in bytes, as in :func:`open`; ``manifests``: none, or that of each stream, which has
    the identity of a stream without description.  Raises IncompleteError where a stream is not the base
    of the next one, and as :func:`convert`.
    """
    return fold_streams(
        list(map(_name, streams)),
        _name(target),
        options or ConvertOptions(),
        Reading(Hints({}, dict(granularities or {}))),
        manifests=list(map(_name, manifests)),
    )


@contextmanager
def _opened(
    stream: str | os.PathLike[str] | bytes | BinaryIO, *, again: bool = False
) -> Iterator[Stream]:
    """Open a stream by its name, or use one that is open or in memory."""
    with (
        open_stream(_name(stream), again=again)
        if isinstance(stream, (str, os.PathLike))
        else adopt_stream(stream)
    ) as opened:
        yield opened


def _check_words(dialect: str, container: str) -> None:
    for word, known in ((dialect, get_args(Dialect)), (container, get_args(Container))):
        if word not in known:
            raise UsageError(f"{quote(word)} is none of {', '.join(known)}")


def _name(name: str | os.PathLike[str]) -> str:
    """Return the address of a stream, which for a path object is never a URI."""
    return name if isinstance(name, str) else os.path.join(os.curdir, os.fspath(name))
