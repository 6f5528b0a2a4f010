"""Hypothesis strategies that tests share: disks, bitmaps, streams of every dialect."""

import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.disk import Disk
from blkmig_cli.operations.send.stream import SendOptions, send_events
from blkmig_cli.wire.events import Event
from blkmig_cli.wire.hints import Hints
from tests.support import raw
from tests.support.feed import encoded

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

    def copy_to(self, target: int, offset: int, length: int, *, pipe: bool = False) -> None:
        os.write(target, self.read(offset, length))

    def places(self, offset: int, length: int) -> tuple[()]:
        return ()

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

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        yield from ()

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def uncache(self) -> None:
        pass

    def close(self) -> None:
        pass


class LaidOut(MemoryImage):
    """A disk of ``size`` bytes, of which some ranges (start, end) in sectors are allocated.

    ``zeros``: those that are known to be zeros.
    """

    def __init__(
        self,
        size: int,
        *extents: tuple[int, int],
        zeros: tuple[tuple[int, int], ...] = (),
        head: bytes = b"",
    ) -> None:
        super().__init__(head)
        self._size = size
        self._extents = extents
        self._zeros = zeros

    @property
    def size(self) -> int:
        return self._size

    def extents(self) -> Iterator[tuple[int, int]]:
        for start, end in self._extents:
            yield start * 512, (end - start) * 512

    def known_zeros(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        for start, end in self._zeros:
            low, high = max(start * 512, offset), min(end * 512, offset + length)
            if low < high:
                yield low, high - low


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


class Shown:
    """A dataclass that hypothesis shows by its ``repr``, as its fields may be megabytes."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


@dataclass(frozen=True)
class Sent(Shown):
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
    """Return the events of ``send`` for the disks."""
    return list(send_events(disks, options))


@dataclass(frozen=True)
class Repetitive(Shown):
    """A stream in which records repeat, perhaps damaged, and the hints for its decoder."""

    hints: Hints
    data: bytes
    kind: str

    def __repr__(self) -> str:
        return f"Repetitive({self.kind}, {len(self.data)} bytes, {self.hints})"


@st.composite
def sector_runs(draw: st.DrawFn, chunks: int = 1) -> list[int]:
    """Sectors as a sender may send them: up, down, with gaps, the same ones, far out, or any."""
    start = draw(st.sampled_from([0, 2048, 20480, 7, 2048 << 20, (1 << 54) - (9 << 11)]))
    step = 2048 * chunks * draw(st.sampled_from([1, 1, 1, -1, -1, 2, 0]))
    count = draw(st.integers(1, 40))
    if draw(st.integers(0, 5)) == 0:
        return [2048 * draw(st.integers(0, 30)) for _ in range(count)]
    run = [start + step * at for at in range(count)]
    return [sector for sector in run if 0 <= sector < 1 << 55]


def _bits(draw: st.DrawFn, length: int) -> bytes:
    """Mostly clean bits, as a v1 layout could not be inferred from others; seldom any."""
    if draw(st.booleans()):
        return bytes(length)
    return draw(st.binary(min_size=length, max_size=length))


def repetitive() -> st.SearchStrategy[Repetitive]:
    """Streams in which records of any dialect repeat, in a fixed order or in any."""
    return st.one_of(in_turns(), in_turns(), irregular(), chunks())


@st.composite
def in_turns(draw: st.DrawFn) -> Repetitive:
    """Block records of any dialect in runs, also of several devices in turns, and empty parts."""
    kind = draw(st.sampled_from(["classic", "v1", "v2"]))
    names = draw(st.sampled_from([["d"], ["d", "drive1"], ["", "d", "d"]]))
    shifts = st.lists(st.integers(9, 31), max_size=2)
    maps = {
        name: [(f"b{at}", 1 << shift) for at, shift in enumerate(draw(shifts))] for name in names
    }
    size = draw(st.sampled_from([None, None, 20 * MIB, 2048 * 512 * 35, 1 << 50]))
    hints = Hints()
    if size is not None:
        hints.sizes[None] = size
    if kind == "v1" and draw(st.booleans()):
        hints.granularities = {(d, n): g for d, found in maps.items() for n, g in found}

    def record(device: str, sector: int, flags: int, chunks: int) -> bytes:
        rest = b""
        if kind == "v1" and flags & 0x20:
            sectors = 2048 if size is None else max(min(2048, size // 512 - sector), 1)
            bits = {n: 8 * ((sectors * 512 - 1) // g // 64 + 1) for n, g in maps[device]}
            rest = raw.v1(*[(n, _bits(draw, length)) for n, length in bits.items()])
        elif kind == "v2" and flags & 0x20:
            covered = 2048 * chunks
            entries = []
            for n, g in maps[device]:
                words = ((sector + covered) * 512 - 1) // g // 64 - sector * 512 // g // 64 + 1
                clean = clear.get((device, n), False)
                entries.append((n, 1, g, b"" if clean else _bits(draw, 8 * words)))
            rest = raw.v2(covered, *entries)
        data = bytes(raw.CHUNK) if (kind == "classic" and not flags & 8) or flags & 0x10 else b""
        return raw.block(sector, flags, device, rest + data)

    groups: list[bytes] = []
    for _ in range(draw(st.integers(1, 4))):
        flags = {
            "classic": [8, 8, 8, 0],
            "v1": [0x28, 0x28, 0x20, 8, 0x30],
            "v2": [0x68, 0x68, 0x60, 8, 0x10],
        }[kind]
        flag = draw(st.sampled_from(flags))
        chunks = 1 if kind != "v2" or flag != 0x60 else draw(st.sampled_from([1, 1, 2, 64]))
        clear = {(d, n): draw(st.booleans()) for d, found in maps.items() for n, _ in found}
        run = draw(sector_runs(chunks))
        if flag in (0, 0x10, 0x30):
            run = run[:5]
        every = draw(st.sampled_from([0, 0, 0, 1, 3]))
        for at, sector in enumerate(run):
            if every and at % every == 0:
                groups.append(raw.progress(draw(st.integers(0, 101)) if every == 1 else 50))
            groups.append(b"".join(record(name, sector, flag, chunks) for name in names))
    data = _contained(draw, groups)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        data = damaged(draw, data)
    return Repetitive(hints, data, kind)


@st.composite
def irregular(draw: st.DrawFn) -> Repetitive:
    """Records of a few kinds in any order, in parts of any length among empty ones, perhaps damaged."""
    dice = draw(st.randoms(use_true_random=False))
    kind = draw(st.sampled_from(["classic", "v1", "v2"]))
    names = draw(st.lists(st.sampled_from(["d", "", "drive1", "e"]), min_size=1, max_size=3))
    size = draw(st.sampled_from([None, None, 3 * MIB, 30 * MIB, 1 << 50]))
    hints = Hints() if size is None else Hints({None: size})
    shift = draw(st.integers(9, 22))
    flags = {"classic": [8], "v1": [8, 0x28, 0x20], "v2": [8, 0x68, 0x60]}[kind]
    flags = draw(st.lists(st.sampled_from(flags), min_size=1, max_size=3))
    if kind == "v1" and draw(st.booleans()):
        hints.granularities = {(None, "b"): 1 << shift}
    chunks = draw(st.sampled_from([4, 28, 28, 1 << 20, 1 << 43]))
    step = draw(st.sampled_from([2048, 2048, 2048, 2048, 7]))
    words = ((1 << 20) - 1 >> shift) // 64 + 1
    clean = draw(st.booleans())

    def record() -> bytes:
        if dice.random() < 0.2:
            return raw.progress(dice.randrange(103))
        flag, device, sector = dice.choice(flags), dice.choice(names), dice.randrange(chunks) * step
        bits = bytes(8 * words) if clean else dice.randbytes(8 * words)
        rest = b""
        if flag & 0x20 and kind == "v1":
            rest = raw.v1(("b", bits))
        elif flag & 0x20:
            words_of = ((sector + 2048 << 9) - 1 >> shift) // 64 - (sector << 9 >> shift) // 64 + 1
            rest = raw.v2(2048, ("b", 1, 1 << shift, (bits * 2)[: 8 * words_of]))
        return raw.block(sector, flag, device, rest)

    groups = [record() for _ in range(draw(st.sampled_from([20, 150, 300])))]
    data = _contained(draw, groups, dice=dice)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        data = damaged(draw, data)
    return Repetitive(hints, data, f"irregular {kind}")


@st.composite
def chunks(draw: st.DrawFn) -> Repetitive:
    """Chunks of the dirty-bitmap section, in turns or in any order, in parts of any length."""
    dice = draw(st.randoms(use_true_random=False))
    bitmaps = draw(st.sampled_from([1, 1, 2, 3]))
    shifts = [draw(st.integers(9, 31)) for _ in range(bitmaps)]
    kinds = [
        (
            dice.randrange(bitmaps),
            dice.choice([0, 0, 1, 2, 5]),  # words; 0: clean
            draw(st.sampled_from([0, 0, 0, 8, 24])),  # bytes of padding
            draw(st.booleans()),  # names its bitmap, though it may be the last one
        )
        for _ in range(draw(st.integers(1, 4)))
    ]
    reach = draw(st.sampled_from([3, 20, 1 << 20, 1 << 43]))
    whole = draw(st.booleans())
    last: tuple[str, str] | None = None

    def chunk(kind: tuple[int, int, int, bool]) -> bytes:
        nonlocal last
        number, words, padding, named = kind
        names = "de"[number % 2], f"b{number}"
        word = 64 << shifts[number] - 9  # sectors
        sectors = word * (words or dice.randint(1, 3))
        if not whole:
            sectors -= dice.randrange(word)
        sectors = min(sectors, (1 << 32) - 1)
        flags, rest = 0x40, b""
        if named or last is None or last[0] != names[0]:
            flags, rest = flags | 0x08, raw.name(names[0])
        if flags & 0x08 or last != names:
            flags, rest = flags | 0x04, rest + raw.name(names[1])
        last = names
        rest += struct.pack(">QI", dice.randrange(reach) * word % (1 << 64), sectors)
        if not words:
            return bytes([flags | 0x02]) + rest
        length = 8 * (-(-sectors // word))
        length = min(length + padding, -(-length // 32) * 32)
        bits = b"".join(dice.choice([bytes(8), dice.randbytes(8)]) for _ in range(4))
        return bytes([flags]) + rest + struct.pack(">Q", length) + (bits * 9)[:length]

    count = draw(st.sampled_from([20, 150, 300]))
    shuffle = draw(st.booleans())
    groups = [
        chunk(dice.choice(kinds) if shuffle else kinds[at % len(kinds)]) for at in range(count)
    ]
    out = raw.qemu()[: -len(raw.EOF)]
    starts = b"".join(
        raw.bitmap_start("de"[at % 2], f"b{at}", 1 << shift) for at, shift in enumerate(shifts)
    )
    out += raw.start(2, "dirty-bitmap", 1, starts + b"\1") + raw.footer(2)
    each = draw(st.sampled_from([1 << 20, 40, 1]))
    for at in range(0, count, each):
        out += raw.part(2, b"".join(groups[at : at + each]) + b"\1") + raw.footer(2)
    ends = b"".join(b"\x2c" + raw.name("de"[at % 2]) + raw.name(f"b{at}") for at in range(bitmaps))
    data = out + raw.part(2, ends + b"\1", kind=3) + raw.footer(2) + raw.EOF
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        data = damaged(draw, data)
    return Repetitive(Hints(), data, "chunks of bitmaps")


def _contained(draw: st.DrawFn, groups: list[bytes], dice: random.Random | None = None) -> bytes:
    """``groups`` as a stream, bare or in parts; with ``dice`` the parts are irregular."""
    if draw(st.booleans()):
        each = draw(st.sampled_from([1 << 20, 30, 2]))
        return b"".join(
            b"".join(groups[at : at + each]) + raw.EOS for at in range(0, len(groups), each)
        )
    out = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    ram = struct.pack(">Q", 0x10)
    out += raw.start(2, "ram", 4, ram) + raw.footer(2)
    out += raw.start(3, "dirty-bitmap", 1, b"\x01") + raw.footer(3)
    empty = raw.part(1, raw.EOS) + raw.footer(1)
    if draw(st.booleans()):
        empty += raw.part(2, ram) + raw.footer(2)
    if draw(st.booleans()):
        empty += raw.part(3, b"\x01") + raw.footer(3)
    each = draw(st.sampled_from([1 << 20, 1, 2, 30]))
    between = draw(st.sampled_from([0, 0, 1, 40]))
    at = 0
    while at < len(groups):
        number = each if dice is None else dice.randint(1, each)
        out += raw.part(1, b"".join(groups[at : at + number]) + raw.EOS) + raw.footer(1)
        out += empty * (between if dice is None else dice.randint(0, between))
        at += number
    return out + raw.part(1, raw.progress(100) + raw.EOS, kind=3) + raw.footer(1) + raw.EOF


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with a bit flipped, cut, or a piece of itself put in or taken out."""
    at = draw(st.integers(0, len(data) - 1))
    length = draw(st.integers(1, 40))
    how = draw(st.sampled_from(["flip", "flip", "cut", "insert", "remove"]))
    if how == "flip":
        bit = 1 << draw(st.integers(0, 7))
        return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
    if how == "cut":
        return data[: max(at, 1)]
    if how == "insert":
        return data[:at] + data[max(at - length, 0) : at] + data[at:]
    return data[:at] + data[at + length :] or data
