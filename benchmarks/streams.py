"""Disks and streams for the benchmarks; numpy makes those of millions of records."""

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from tests.support import raw

MIB = 1 << 20
_BATCH = 1 << 18
_CAPTURES = Path(__file__).parents[1] / "tests" / "captures"
#: Captures of a few MB at most, unpacked.
SMALL = (
    *("classic-incremental-5.2", "classic-none", "classic-tail"),
    *("v1-bitmaps-only", "v1-blocks-and-bitmaps", "v1-no-bitmaps"),
)
_BITMAPS = ("bitmap0", "daily", "weekly")
_BITS = bytes(range(1, 9))

ZERO = raw.block(0, 8, "drive0")
V1 = raw.block(0, 0x28, "drive0", raw.v1(*[(name, _BITS) for name in _BITMAPS]))
V2 = raw.block(0, 0x68, "drive0", raw.v2(2048, *[(name, 1, 65536, _BITS) for name in _BITMAPS]))


def disk(path: Path, size: int) -> None:
    """Make a raw disk of ``size`` bytes: random bytes, and the third quarter a hole."""
    quarter = size // 4
    with open(path, "wb") as file:
        for number in range(4):
            file.seek(number * quarter)
            if number != 2:
                for _ in range(quarter // (4 * MIB)):
                    file.write(os.urandom(4 * MIB))
        file.truncate(size)


def records(record: bytes, number: int, times: int = 1) -> Callable[[IO[bytes]], None]:
    """Return a writer of ``number`` records like ``record``, for chunk after chunk, ``times`` times."""

    def write(file: IO[bytes]) -> None:
        flags = int.from_bytes(record[:8], "big") & 511
        for first in [*range(0, number, _BATCH)] * times:
            rows = min(_BATCH, number - first)
            table = np.tile(np.frombuffer(record, np.uint8), (rows, 1))
            sectors = np.arange(first, first + rows, dtype=np.uint64) * np.uint64(2048)
            words = (sectors << np.uint64(9)) | np.uint64(flags)
            table[:, :8] = words.astype(">u8").view(np.uint8).reshape(-1, 8)
            file.write(table.tobytes())

    return write


def sparse_data(number: int) -> Callable[[IO[bytes]], None]:
    """Return a writer of ``number`` chunks of data whose bytes are holes in the stream's file."""

    def write(file: IO[bytes]) -> None:
        for chunk in range(number):
            file.write(raw.block(chunk * 2048, 0, "drive0"))
            file.seek(raw.CHUNK, 1)

    return write


def stream(path: Path, content: Callable[[IO[bytes]], None]) -> Path:
    """Make a stream with ``content`` as its only part."""
    with open(path, "wb") as file:
        file.write(raw.HEADER + raw.configuration())
        file.write(raw.start(1, "block", 1, raw.EOS) + raw.footer(1) + raw.part(1, b""))
        content(file)
        file.write(raw.EOS + raw.footer(1))
        file.write(raw.part(1, raw.progress(100) + raw.EOS, kind=3) + raw.footer(1) + raw.EOF)
    return path


def packed(name: str) -> Path:
    """Return the compressed file of a capture of the tests."""
    return _CAPTURES / f"{name}.bin.gz"


def capture(folder: Path, name: str) -> Path:
    """Unpack a capture of the tests."""
    path = folder / f"{name}.bin"
    with gzip.open(packed(name)) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target)
    return path
