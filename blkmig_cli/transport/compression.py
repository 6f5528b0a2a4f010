"""gzip, xz and zstd (``compression_kind.py`` tells which): packing and unpacking.

bzip2 is read only where the header of a save image specifies it.  Data is unpacked only as it is
requested, in bounded memory.
"""

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Protocol, cast

from blkmig_cli import limits
from blkmig_cli.errors import LimitError, StreamError, TruncatedError

# The messages of liblzma and libzstd where the memory limit is too low.
_TOO_LARGE = ("Memory usage limit exceeded", "Frame requires too much memory")
_PACKED = 1 << 18


class Packed(Protocol):
    """Compressed bytes; as of a binary file."""

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""

    def read1(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, those that come first; none only at the end."""


class Packer(Protocol):
    """Compresses a stream piece by piece."""

    def compress(self, data: memoryview, /) -> bytes:
        """Compress more of the stream; return the compressed bytes available so far, if any."""

    def flush(self) -> bytes:
        """Return the last compressed bytes; no data may follow."""


class _Inflating(Protocol):
    """The decompressor of zlib."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def packer(kind: str) -> Packer:
    """Return a packer for ``kind``, at the default level of the tool of that name."""
    if kind == "gzip":
        return cast(Packer, _deflate().compressobj(wbits=31))
    if kind == "xz":
        return lzma.LZMACompressor()
    zstd = _zstd()
    return cast(Packer, zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1}))


def _zstd() -> Any:
    """Return the module of Python 3.14 and later, or what does the same for earlier ones."""
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415 (not needed without zstd)
    else:
        from backports import zstd  # noqa: PLC0415
    return zstd


@cache
def _deflate() -> Any:
    """Return zlib, or what does the same faster, if it is installed (the extra ``fast``)."""
    try:
        from isal import isal_zlib  # noqa: PLC0415 (not needed without gzip)
    except ImportError:
        return zlib
    return isal_zlib


def unpacked(kind: str, file: Packed) -> Callable[[memoryview], int]:
    """Return a function that reads, like ``readinto``, the unpacked bytes of ``file``.

    ``kind``: ``gzip``, ``xz``, ``zstd`` or ``bzip2``.  The function raises TruncatedError,
    StreamError where the compressed data are damaged, LimitError where they need too much memory.
    """
    members = _Members(file, *_decompressor(kind))

    def readinto(target: memoryview) -> int:
        try:
            return members.readinto(target)
        except EOFError:
            raise TruncatedError(f"the {kind} data is truncated") from None
        except _Damaged as error:
            if any(words in str(error) for words in _TOO_LARGE):
                most = limits.UNPACKING_MAX >> 20
                raise LimitError(
                    f"unpacking the {kind} data takes over {most} MiB of memory",
                    hint=f"unpack it with {kind}, and read that",
                ) from None
            raise StreamError(f"the {kind} data is damaged: {error}") from None

    return readinto


class _Damaged(Exception):  # noqa: N818 (it becomes a StreamError)
    """The compressed data are damaged.  (bz2 raises OSError, as a failing read does.)"""


class _Gunzip:
    """Unpacks one gzip member, in the manner of the decompressors of bz2 and lzma."""

    def __init__(self) -> None:
        self._inner: _Inflating = _deflate().decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        found = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(found) < max_length
        return found


def _decompressor(kind: str) -> tuple[Callable[[], _Decompressor], type[Exception]]:
    """Return what makes a decompressor for one member, and what that raises for damaged data."""
    match kind:
        case "gzip":
            return _Gunzip, _deflate().error
        case "xz":
            # lzma.LZMAFile has no memory limit.
            most = limits.UNPACKING_MAX
            return partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=most), lzma.LZMAError
        case "bzip2":
            return bz2.BZ2Decompressor, OSError
    zstd = _zstd()
    window = {zstd.DecompressionParameter.window_log_max: limits.UNPACKING_MAX.bit_length() - 1}
    return partial(zstd.ZstdDecompressor, options=window), zstd.ZstdError


class _Members:
    """Compressed members, one after the other; ``make`` returns a decompressor for one.

    ``damage``: what that raises for damaged data.
    """

    def __init__(
        self, packed: Packed, make: Callable[[], _Decompressor], damage: type[Exception]
    ) -> None:
        self._packed = packed
        self._make = make
        self._damage = damage
        self._decoder = make()

    def readinto(self, target: memoryview, /) -> int:
        while True:
            packed = b""
            if self._decoder.eof:
                packed = self._behind(self._decoder.unused_data)
                if not packed:
                    return 0
                self._decoder = self._make()
            elif self._decoder.needs_input:
                packed = self._packed.read1(_PACKED)
                if not packed:
                    raise EOFError
            try:
                found = self._decoder.decompress(packed, len(target))
            except self._damage as error:
                raise _Damaged(str(error)) from None
            if found:
                target[: len(found)] = found
                return len(found)

    def _behind(self, packed: bytes) -> bytes:
        """Return the bytes after a member and its padding; ``packed`` of them have been read."""
        padding = 0
        while not packed.strip(b"\0"):
            padding += len(packed)
            packed = self._packed.read1(_PACKED)
            if not packed or padding > limits.BEHIND_MAX:
                return b""
        return packed.lstrip(b"\0")
