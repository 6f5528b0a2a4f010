"""The compression of a stream: by the first bytes when reading, by the file name when writing."""

_MAGICS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x50\x2a\x4d\x18": "zstd",  # a skippable frame, as pzstd writes it before each other
    b"\xfd7zXZ\0": "xz",
}
_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".xz": "xz"}


def by_magic(first: bytes) -> str | None:
    """Return the compression of a stream that begins with ``first``; None if uncompressed."""
    return next((kind for magic, kind in _MAGICS.items() if first.startswith(magic)), None)


def by_suffix(path: str) -> str | None:
    """Return the compression for a file named ``path``; None if uncompressed."""
    return next((kind for suffix, kind in _SUFFIXES.items() if path.endswith(suffix)), None)
