"""Disks with contents in which a wrong byte shows, and bitmaps on them."""

import random
from collections.abc import Callable
from pathlib import Path

from blkmig_cli.disks.bitmap import DirtyBitmap

MIB = 1 << 20


def patterned(size: int) -> bytes:
    """Return sectors filled with their own numbers."""
    return b"".join(number.to_bytes(4, "big") * 128 for number in range(size // 512))


def noisy(size: int) -> bytes:
    """Return random bytes, the same in every run."""
    return random.Random(size).randbytes(size)


def empty(size: int) -> bytes:
    """Return zeros."""
    return bytes(size)


def mixed(size: int) -> bytes:
    """Return random bytes, more than a chunk of zeros, numbered sectors, and random bytes again."""
    middle = bytes(3 * MIB // 2) + patterned(MIB)
    rest = size - len(middle)
    if rest <= 0:
        return patterned(size)
    return noisy(rest // 2) + middle + noisy(rest - rest // 2)


#: By name: the content, and the disk's size in bytes.
DISKS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "patterned": (patterned, 3 * MIB),
    "noisy, no whole MiB": (noisy, 5 * MIB + 3 * 512),
    "mixed, all but a sector": (mixed, 7 * MIB - 512),
    "empty": (empty, 4 * MIB),
    "empty, no whole MiB": (empty, 4 * MIB + 4096),
    "below a MiB, empty": (empty, 300 << 10),
}


def make(path: Path, name: str) -> Path:
    """Write the disk called ``name`` to ``path``."""
    content, size = DISKS[name]
    path.write_bytes(content(size))
    return path


def bitmap(name: str, granularity: int, size: int) -> DirtyBitmap:
    """Return a bitmap of a disk of ``size`` bytes with scattered, adjacent and last granules dirty."""
    made = DirtyBitmap(name, granularity)
    granules = -(-size // granularity)
    third = granules // 3 * granularity
    made.set_range(third, granules // 2 * granularity - third)
    chosen = random.Random(granularity).sample(range(granules), min(granules, 40))
    for granule in (0, granules - 1, *chosen):
        start = granule * granularity
        made.set_range(start, min(granularity, size - start))
    return made
