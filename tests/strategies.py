"""Hypothesis strategies that tests share: disks, bitmaps, streams of every dialect."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

from blkmig_cli.bitmap import DirtyBitmap
from blkmig_cli.events import Event
from blkmig_cli.source import Disk, SendOptions, send_events
from tests.feed import encoded

MIB = 1 << 20
GRANULARITIES = [1 << shift for shift in range(9, 32)]


class MemoryImage:
    """An image in memory; holes are where whole 4 KiB are zero."""

    path = "memory"

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def is_zero(self, offset: int, length: int) -> bool:
        return not any(self.content[offset : offset + length])

    def copy_to(self, target: int, offset: int, length: int) -> None:
        os.write(target, self.read(offset, length))

    def write(self, offset: int, data: memoryview) -> None:
        self.content[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.content[offset : offset + length] = bytes(length)

    def resize(self, size: int) -> None:
        self.content = self.content[:size].ljust(size, b"\0")

    def extents(self) -> Iterator[tuple[int, int]]:
        for at in range(0, self.size, 4096):
            piece = self.content[at : at + 4096]
            if any(piece):
                yield at, len(piece)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


@st.composite
def contents(draw: st.DrawFn, most: int = 3 * MIB) -> bytes:
    """A disk's bytes: a multiple of 512, mostly zeros, with patterns here and there."""
    sectors = draw(
        st.one_of(
            st.integers(1, most // 512),
            st.sampled_from([1, 2047, 2048, 2049, 4095, 4096, 6144]),
        )
    )
    content = bytearray(sectors * 512)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, sectors - 1)) * 512
        pattern = draw(st.binary(min_size=1, max_size=8))
        length = draw(st.integers(1, 400_000))
        piece = (pattern * (length // len(pattern) + 1))[:length][: len(content) - at]
        content[at : at + len(piece)] = piece
    return bytes(content)


@st.composite
def bitmaps(draw: st.DrawFn, size: int, name: str) -> DirtyBitmap:
    """A bitmap of a disk of ``size`` bytes."""
    bitmap = DirtyBitmap(
        name,
        draw(st.sampled_from(GRANULARITIES)),
        draw(st.booleans()),
        draw(st.booleans()),
    )
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, size - 1))
        bitmap.set_range(start, draw(st.integers(1, size - start)))
    return bitmap


@dataclass(frozen=True)
class Sent:
    """Disks, how they are sent, and the stream's bytes."""

    disks: list[Disk]
    options: SendOptions
    data: bytes

    def __repr__(self) -> str:
        disks = [
            (d.device, d.size, [(b.name, b.granularity) for b in d.bitmaps]) for d in self.disks
        ]
        return f"Sent({disks}, {self.options})"


@st.composite
def streams(draw: st.DrawFn, *, most: int = 3 * MIB, devices: int = 2) -> Sent:
    """A stream as ``send`` makes it, of any dialect and container."""
    dialect = draw(st.sampled_from(["qemu", "classic", "v1", "v2"]))
    container = draw(st.sampled_from(["qemu", "none"]))
    can = not (dialect == "classic" or (dialect == "qemu" and container == "none"))
    disks = []
    for number in range(draw(st.integers(1, devices))):
        image = MemoryImage(draw(contents(most)))
        names = draw(
            st.lists(st.sampled_from(["a", "bitmap", "é", "\udcff"]), unique=True, max_size=3)
        )
        maps = [draw(bitmaps(image.size, name)) for name in names] if can else []
        disks.append(Disk(f"drive{number}", image, maps))
    only = can and any(disk.bitmaps for disk in disks) and draw(st.booleans())
    options = SendOptions(
        dialect,
        container,
        zero_blocks=draw(st.booleans()),
        disks=not only,
        skip_unallocated=not only and draw(st.booleans()),
    )
    return Sent(disks, options, encoded(stream_events(disks, options)))


def stream_events(disks: list[Disk], options: SendOptions) -> list[Event]:
    """What ``send`` makes of the disks."""
    return list(send_events(disks, options))
