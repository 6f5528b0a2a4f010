"""Compressed streams: known by their first bytes, unpacked as they are read, in bounded memory.

However much comes out of little, only what is asked for is unpacked.
"""

import gzip
import io
import lzma
import zlib
from typing import BinaryIO, Protocol, cast

import zstandard

from blkmig_cli import limits
from blkmig_cli.errors import LimitError, StreamError, TruncatedError

_MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz"}
#: How many first bytes tell.
MAGIC_SIZE = max(map(len, _MAGICS))
_PACKED = 1 << 18


def compression(first: bytes) -> str | None:
    """What a stream that begins with ``first`` is compressed with; None: not at all."""
    return next((name for magic, name in _MAGICS.items() if first.startswith(magic)), None)


class _Source(Protocol):
    def readinto(self, target: memoryview, /) -> int | None: ...

    def close(self) -> None: ...


class Unpacked:
    """What ``raw``, compressed with ``kind``, holds."""

    def __init__(self, kind: str, raw: io.RawIOBase) -> None:
        self._kind = kind
        packed = cast(BinaryIO, io.BufferedReader(raw, _PACKED))
        self._source: _Source
        if kind == "gzip":
            self._source = gzip.GzipFile(fileobj=packed)
        elif kind == "xz":
            self._source = _Xz(packed)
        else:
            opened = zstandard.ZstdDecompressor(max_window_size=limits.UNPACKING_MAX)
            self._source = opened.stream_reader(packed, read_across_frames=True)

    def readinto(self, target: memoryview) -> int | None:
        """Fill ``target`` with what comes next, or some of it; 0 at the end.  Raises StreamError."""
        try:
            return self._source.readinto(target)
        except EOFError:
            raise TruncatedError(f"the {self._kind} data ends too early") from None
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
            if any(words in str(error) for words in _TOO_LARGE):
                raise LimitError(
                    f"unpacking the {self._kind} data takes over {limits.UNPACKING_MAX >> 20} MiB "
                    "of memory",
                    hint=f"unpack it with {self._kind}, and read that",
                ) from None
            raise StreamError(f"the {self._kind} data is damaged: {error}") from None

    def close(self) -> None:
        """Let go of it."""
        self._source.close()


# How liblzma and libzstd say that they were granted too little.
_TOO_LARGE = ("Memory usage limit exceeded", "Frame requires too much memory")


class _Xz:
    """xz streams, one behind the other.  (lzma.LZMAFile grants them any memory.)"""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._decoder = self._next()

    @staticmethod
    def _next() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.UNPACKING_MAX)

    def readinto(self, target: memoryview, /) -> int:
        while True:
            packed = b""
            if self._decoder.eof:
                packed = self._behind(self._decoder.unused_data)
                if not packed:
                    return 0
                self._decoder = self._next()
            elif self._decoder.needs_input:
                packed = self._packed.read(_PACKED)
                if not packed:
                    raise EOFError
            found = self._decoder.decompress(packed, len(target))
            if found:
                target[: len(found)] = found
                return len(found)

    def _behind(self, packed: bytes) -> bytes:
        """What comes behind a stream, of which ``packed`` has been read, and behind its padding."""
        while not packed.strip(b"\0"):
            packed = self._packed.read(_PACKED)
            if not packed:
                return b""
        return packed.lstrip(b"\0")

    def close(self) -> None:
        self._packed.close()
