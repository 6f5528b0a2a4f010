"""Unpacking, call by call: members, padding, and each end that is none."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import LimitError, StreamError, TruncatedError
from blkmig_cli.transport import compression
from blkmig_cli.transport.compression import packer, unpacked
from blkmig_cli.transport.compression_kind import by_magic, by_suffix
from tests.support import zstd

DATA = bytes(range(256)) * 300
KINDS: dict[str, Any] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def unpack(kind: str, data: bytes, size: int = 1000) -> bytes:
    found = b""
    readinto = unpacked(kind, io.BufferedReader(io.BytesIO(data)))
    while count := readinto(buffer := memoryview(bytearray(size))):
        found += buffer[:count]
    assert readinto(memoryview(bytearray(9))) == 0
    return found


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"\x1f\x8b", "gzip"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x1f", None),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x28\xb5\x2f\xfc", None),
        (b"\x50\x2a\x4d\x18", "zstd"),
        (b"\x51\x2a\x4d\x18", None),
        (b"\xfd7zXZ\0", "xz"),
        (b"\xfd7zXZ", None),
        (b"BZh9", None),
        (b"", None),
    ],
)
def test_the_first_bytes(first: bytes, kind: str | None) -> None:
    assert by_magic(first) == kind


@pytest.mark.parametrize(
    ("path", "kind"),
    [("s.gz", "gzip"), ("s.zst", "zstd"), ("s.xz", "xz"), ("s.bz2", None), ("gz", None),
     ("s.gz.bin", None), ("s.GZ", None)],
)  # fmt: skip
def test_suffixes(path: str, kind: str | None) -> None:
    assert by_suffix(path) == kind


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd"])
def test_packing(kind: str) -> None:
    made = packer(kind)
    parts = [made.compress(memoryview(DATA)[:1000]), made.compress(memoryview(DATA)[1000:])]
    data = b"".join([*parts, made.flush()])
    assert by_magic(data) == kind
    assert unpack(kind, data) == DATA
    damaged = data[:-1] + bytes([data[-1] ^ 1])  # it has a check sum
    with pytest.raises(StreamError):
        unpack(kind, damaged)


@every_kind
@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_members(kind: str, size: int) -> None:
    """One after the other, with nothing between them, or zeros."""
    pack = KINDS[kind]
    data = DATA[:3000] if size == 1 else DATA
    half = len(data) // 2
    assert unpack(kind, pack(data), size) == data
    assert unpack(kind, pack(data[:half]) + pack(b"") + pack(data[half:]), size) == data
    assert unpack(kind, pack(data) + bytes(20), size) == data
    assert unpack(kind, pack(data[:half]) + bytes(20) + pack(data[half:]), size) == data


def test_skippable_frames() -> None:
    """As of pzstd, and an unfinished one."""
    frame = b"\x50\x2a\x4d\x18\4\0\0\0abcd"
    data = frame + zstd.compress(DATA[:1000]) + frame + zstd.compress(DATA[1000:]) + frame
    assert unpack("zstd", data) == DATA
    for left in (1, 4, 7, 11):
        with pytest.raises(TruncatedError):
            unpack("zstd", data[:-left])


@every_kind
@pytest.mark.parametrize("left", [1, 4, 9])
def test_what_is_cut_off(kind: str, left: int) -> None:
    data = KINDS[kind](DATA)
    with pytest.raises(TruncatedError) as error:
        unpack(kind, data[: len(data) - left])
    assert str(error.value) == f"the {kind} data is truncated"


@every_kind
def test_what_is_damaged(kind: str) -> None:
    data = bytearray(KINDS[kind](DATA))
    data[len(data) // 2] ^= 255
    data[-1] ^= 255
    with pytest.raises(StreamError) as error:
        unpack(kind, bytes(data))
    assert str(error.value).startswith(f"the {kind} data is damaged: ")
    assert not isinstance(error.value, TruncatedError)
    with pytest.raises(StreamError, match=f"the {kind} data is damaged: "):
        unpack(kind, KINDS[kind](DATA) + b"something else, which is no member")


@pytest.mark.parametrize("more", [0, 1])
def test_how_much_padding_is_read(monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    """What is behind more of it is no member any more."""
    monkeypatch.setattr(limits, "BEHIND_MAX", 1000)
    monkeypatch.setattr(compression, "_PACKED", 100)
    first = gzip.compress(DATA)
    behind = bytes(1000 - len(first) % 100 + 100 * more)
    found = unpack("gzip", first + behind + gzip.compress(b"second"))
    assert found == DATA + (b"" if more else b"second")


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed stream that needs more of it than is allowed."""
    monkeypatch.setattr(limits, "UNPACKING_MAX", 1 << 20)
    data = lzma.compress(DATA, preset=6)
    with pytest.raises(LimitError) as error:
        unpack("xz", data)
    assert str(error.value) == (
        "unpacking the xz data takes over 1 MiB of memory; unpack it with xz, and read that"
    )
    data = zstd.wide(DATA, 23)
    with pytest.raises(LimitError) as large:
        unpack("zstd", data)
    assert str(large.value) == (
        "unpacking the zstd data takes over 1 MiB of memory; unpack it with zstd, and read that"
    )


def read_all(readinto: Callable[[memoryview], int]) -> None:
    while readinto(memoryview(bytearray(9))):
        pass


class Failing(io.RawIOBase):
    """A file that fails after some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read1(self, _: int) -> bytes:
        if not self._data:
            raise OSError(5, "Input/output error")
        data, self._data = self._data, b""
        return data


@every_kind
def test_a_file_that_fails(kind: str) -> None:
    """It is no damage of the data."""
    packed: Any = Failing(KINDS[kind](DATA)[:20])
    readinto = unpacked(kind, packed)
    with pytest.raises(OSError, match="Input/output error"):
        read_all(readinto)
