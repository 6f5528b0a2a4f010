"""gzip, zstd and xz: known by their first bytes when read, by the end of a name when written."""

import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO, Protocol, cast

from blkmig_cli.errors import StreamError, TruncatedError

_MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz"}
_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".xz": "xz"}

#: Bytes that tell what a stream is packed with.
MAGIC_SIZE = max(map(len, _MAGICS))


class Packer(Protocol):
    """Packs a stream; what it gives are the packed bytes, in pieces as they come."""

    def compress(self, data: memoryview, /) -> bytes:
        """Take more of the stream."""

    def flush(self) -> bytes:
        """The end: nothing follows."""


def by_magic(first: bytes) -> str | None:
    """What packed a stream that begins with ``first``; None for a plain one."""
    return next((kind for magic, kind in _MAGICS.items() if first.startswith(magic)), None)


def by_suffix(path: str) -> str | None:
    """What the name of a file to be written asks for; None for a plain one."""
    return next((kind for suffix, kind in _SUFFIXES.items() if path.endswith(suffix)), None)


def packer(kind: str) -> Packer:
    """What packs with ``kind``, at the level that its own tool takes."""
    if kind == "gzip":
        return cast(Packer, zlib.compressobj(wbits=31))
    if kind == "xz":
        return lzma.LZMACompressor()
    import zstandard  # noqa: PLC0415 (slow to load; as below)

    return zstandard.ZstdCompressor(write_checksum=True).compressobj()


@contextmanager
def unpacked(kind: str, file: BinaryIO) -> Iterator[Callable[[memoryview], int]]:
    """What reads into a buffer, as ``readinto``, the bytes that ``file`` unpacks to.

    It raises TruncatedError, StreamError where the packed data is damaged.
    """
    opened: io.BufferedIOBase
    damage: tuple[type[Exception], ...]
    if kind == "gzip":
        opened, damage = gzip.GzipFile(fileobj=file), (gzip.BadGzipFile, zlib.error)
    elif kind == "xz":
        opened, damage = lzma.LZMAFile(file), (lzma.LZMAError,)  # noqa: SIM115 (closed below)
    else:
        import zstandard  # noqa: PLC0415

        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        opened, damage = cast(io.BufferedIOBase, reader), (zstandard.ZstdError,)

    def readinto(target: memoryview) -> int:
        try:
            return opened.readinto(target)
        except EOFError:
            raise TruncatedError(f"the {kind} data ends too early") from None
        except damage as error:
            raise StreamError(f"the {kind} data is damaged: {error}") from None

    with closing(opened):
        yield readinto
