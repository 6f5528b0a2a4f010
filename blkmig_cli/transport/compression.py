"""gzip, zstd and xz: recognised by their first bytes when read, by the file's name when written.

Only what is asked for is decompressed, and in limited memory, however much there is.
"""

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, Protocol, cast

from blkmig_cli import limits
from blkmig_cli.errors import LimitError, StreamError, TruncatedError

_MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz"}
_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".xz": "xz"}

# The messages of liblzma and libzstd for a memory limit that is too low.
_TOO_LARGE = ("Memory usage limit exceeded", "Frame requires too much memory")
_PACKED = 1 << 18

#: Bytes at the start of a stream that show its compression.
MAGIC_SIZE = max(map(len, _MAGICS))


class _Unpacking(Protocol):
    def readinto(self, target: memoryview, /) -> int: ...

    def close(self) -> None: ...


class Packer(Protocol):
    """Compresses a stream piece by piece."""

    def compress(self, data: memoryview, /) -> bytes:
        """Take more of the stream; return the compressed bytes that are ready."""

    def flush(self) -> bytes:
        """End the stream; return the rest of the compressed bytes."""


def by_magic(first: bytes) -> str | None:
    """Return the compression of a stream that begins with ``first``; None if there is none."""
    return next((kind for magic, kind in _MAGICS.items() if first.startswith(magic)), None)


def by_suffix(path: str) -> str | None:
    """Return the compression that the name of a new file asks for; None if it asks for none."""
    return next((kind for suffix, kind in _SUFFIXES.items() if path.endswith(suffix)), None)


def packer(kind: str) -> Packer:
    """Return a compressor of ``kind``, at the default level of its own tool."""
    if kind == "gzip":
        return cast(Packer, zlib.compressobj(wbits=31))
    if kind == "xz":
        return lzma.LZMACompressor()
    import zstandard  # noqa: PLC0415 (slow to load; as below)

    return zstandard.ZstdCompressor(write_checksum=True).compressobj()


@contextmanager
def unpacked(kind: str, file: BinaryIO) -> Iterator[Callable[[memoryview], int]]:
    """What reads into a buffer, as ``readinto``, the bytes that ``file`` unpacks to.

    It raises TruncatedError, StreamError where the packed data is damaged, LimitError where it
    takes too much memory.
    """
    opened: _Unpacking
    damage: tuple[type[Exception], ...]
    if kind == "gzip":
        opened, damage = _Gzip(fileobj=file), (gzip.BadGzipFile, zlib.error)
    elif kind == "xz":
        opened, damage = _Xz(file), (lzma.LZMAError,)
    else:
        import zstandard  # noqa: PLC0415

        unpacking = zstandard.ZstdDecompressor(max_window_size=limits.UNPACKING_MAX)
        reader = unpacking.stream_reader(file, read_across_frames=True)
        opened, damage = cast(_Unpacking, reader), (zstandard.ZstdError,)

    def readinto(target: memoryview) -> int:
        try:
            return opened.readinto(target)
        except EOFError:
            raise TruncatedError(f"the {kind} data ends too early") from None
        except damage as error:
            if any(words in str(error) for words in _TOO_LARGE):
                most = limits.UNPACKING_MAX >> 20
                raise LimitError(
                    f"unpacking the {kind} data takes over {most} MiB of memory",
                    hint=f"unpack it with {kind}, and read that",
                ) from None
            raise StreamError(f"the {kind} data is damaged: {error}") from None

    with closing(opened):
        yield readinto


class _Gzip(gzip.GzipFile):
    """Gives what it has before it says that the rest is missing."""

    def readinto(self, target: Any) -> int:
        return self.readinto1(target)


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
        """Nothing is held."""
