"""The module for zstd of Python 3.14, for earlier versions from its backport."""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["compress", "decompress", "wide"]

compress, decompress = zstd.compress, zstd.decompress


def wide(data: bytes, log: int) -> bytes:
    """Return ``data`` packed so that unpacking it takes a window of 2 ** ``log`` bytes."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
    return packer.compress(data) + packer.flush()
