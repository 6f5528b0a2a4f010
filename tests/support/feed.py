"""Inputs for a decoder made of bytes: a pipe, a file, in pieces."""

import os
import weakref
from collections.abc import Iterable
from typing import Any

from blkmig_cli.errors import SeveralStreamsError, StreamError
from blkmig_cli.transport.inputs import FileInput, PipeInput
from blkmig_cli.transport.payloads import ImageRange
from blkmig_cli.transport.target import resolve_content
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import Event

#: A stream in pieces: bytes, or a number of zeros.
Pieces = list[bytes | int]


def piped(
    data: bytes, sizes: Iterable[int] | None = None, kind: type[PipeInput] = PipeInput
) -> PipeInput:
    """Return ``data`` as a pipe with reads of ``sizes`` bytes, then of as many as are asked for."""
    at = 0
    left = iter(sizes or ())

    def readinto(target: memoryview) -> int:
        nonlocal at
        count = min(len(target), next(left, len(target)), len(data) - at)
        target[:count] = data[at : at + count]
        at += count
        return count

    return kind(readinto)


def in_file(data: bytes | Pieces, kind: type[FileInput] = FileInput) -> FileInput:
    """Return ``data`` as a file in memory, closed with the input; numbers in it stand for holes."""
    fd, size = os.memfd_create("stream"), 0
    for piece in [data] if isinstance(data, bytes) else data:
        if isinstance(piece, bytes):
            os.pwrite(fd, piece, size)
        size += len(piece) if isinstance(piece, bytes) else piece
    os.ftruncate(fd, size)
    found = kind(fd, size)
    weakref.finalize(found, os.close, fd)
    return found


class BySchemas(FileInput):
    """A file that is not scanned: every record is parsed by the schemas."""

    rows = None  # type: ignore[assignment]


class NarrowPipe(PipeInput):
    """A pipe whose small buffer often moves and grows."""

    first_room = 16


def events(source: Any, **options: Any) -> tuple[list[Event], str | None]:
    """Return all events, and the error that ended them."""
    found: list[Event] = []
    try:
        found.extend(Decoder(source, **options))
    except (StreamError, SeveralStreamsError) as error:
        return found, f"{type(error).__name__}: {error}"
    return found, None


def encoded(stream: Iterable[Event]) -> bytes:
    """Return the bytes of events that hold their payloads themselves."""
    pieces = []
    for event in stream:
        for piece in encode(event):
            if isinstance(piece, bytes):
                pieces.append(piece)
            elif isinstance(piece, ImageRange):
                content = piece.image.read(piece.offset, piece.length - piece.padding)
                pieces.append(content + bytes(piece.padding))
            else:
                pieces += [bytes(part) for part in resolve_content(piece)]
    return b"".join(pieces)
