"""Do two things leave the same disks and bitmaps behind?  Streams in files, and disk images.

What never came in a stream is no zeros: it is told apart, and is not the same as anything.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from blkmig_cli.checks.survey import Contents
from blkmig_cli.contents.stream_disk import Piece, StreamDisk
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import default_path, read_bitmaps
from blkmig_cli.disks.raw import RawImage
from blkmig_cli.operations.image_comparison import differing_sectors
from blkmig_cli.progress import Tick
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import SECTOR_SIZE

_PIECE = 1 << 20

#: Device and name, and the bitmap; None where a v1 layout leaves its granularity open.
Bitmaps = dict[tuple[str, str], DirtyBitmap | None]


@dataclass(slots=True)
class Side:
    """One of the two: its name, its disks by device, its bitmaps (None: it cannot have any).

    ``bounds``: least and most bytes of disks whose size is not known.
    """

    name: str
    kind: str
    disks: dict[str, StreamDisk | RawImage]
    bitmaps: Bitmaps | None
    bounds: dict[str, tuple[int, int | None]] = field(default_factory=dict)


@dataclass(slots=True)
class DiskDifference:
    """How a device's disks compare; ranges are (start, end) in bytes.

    ``sizes``: bytes on either side, None where the device is not there at all.  ``missing``: what
    never came on that side, but did on the other.
    """

    device: str
    sizes: tuple[int | None, int | None]
    differing: IntervalSet = field(default_factory=IntervalSet)
    missing: tuple[IntervalSet, IntervalSet] = field(
        default_factory=lambda: (IntervalSet(), IntervalSet())
    )

    def same(self, *, strict: bool, incremental: bool) -> bool:
        """``strict``: sizes count; ``incremental``: what never came does not."""
        if None in self.sizes or self.differing:
            return False
        if strict and self.sizes[0] != self.sizes[1]:
            return False
        return incremental or not any(self.missing)


@dataclass(frozen=True, slots=True)
class BitmapDifference:
    """What is different of a bitmap, in words; nothing if it is the same."""

    device: str
    name: str
    differences: list[str]


@dataclass(slots=True)
class Comparison:
    """Everything, disk by disk and bitmap by bitmap; ``bitmaps`` is None where they had no place."""

    sides: tuple[Side, Side]
    disks: list[DiskDifference]
    bitmaps: list[BitmapDifference] | None

    def same(self, *, strict: bool, incremental: bool) -> bool:
        """Is the end state the same?"""
        return all(disk.same(strict=strict, incremental=incremental) for disk in self.disks) and (
            not any(bitmap.differences for bitmap in self.bitmaps or ())
        )


def stream_side(contents: Contents, only: str | None = None) -> Side:
    """A stream, or what it has of the device ``only``; raises UsageError where it is a pipe."""
    devices = [
        device
        for device in contents.report.devices
        if device.disk.has_blocks and only in (None, device.disk.name)
    ]
    return Side(
        contents.stream.name,
        "stream",
        {device.disk.name: contents.disk(device.disk.name) for device in devices},
        {
            (verdict.bitmap.device, verdict.bitmap.name): verdict.bitmap.content
            if verdict.complete is not False
            else None
            for verdict in contents.report.bitmaps
            if only in (None, verdict.bitmap.device)
        },
        {
            device.disk.name: (device.size.least, device.size.most)
            for device in devices
            if device.size.exact is None
        },
    )


def image_side(device: str, image: RawImage) -> Side:
    """An image that stands for ``device``, with the bitmaps beside it; raises FailureError."""
    path = default_path(image.path)
    bitmaps: Bitmaps | None = None
    if os.path.exists(path):
        held = read_bitmaps(path).bitmaps
        bitmaps = {(device, name): bitmap for name, bitmap in held.items()}
    return Side(image.path, "image", {device: image}, bitmaps)


def compare_sides(ours: Side, theirs: Side, tick: Tick) -> Comparison:
    """Compare disk by disk; ``tick`` is told how many bytes of disks have been passed.

    Raises FailureError where an image or a stream's file fails.
    """
    disks, passed = [], 0
    for device in dict.fromkeys([*ours.disks, *theirs.disks]):
        a, b = ours.disks.get(device), theirs.disks.get(device)
        _settle(device, ours, b)
        _settle(device, theirs, a)
        a, b = ours.disks.get(device), theirs.disks.get(device)
        sizes = (None if a is None else a.size, None if b is None else b.size)
        found = DiskDifference(device, sizes)
        if a is not None and b is not None:
            for at in _compare(a, b, found):
                tick(passed + at)
            passed += max(a.size, b.size)
        disks.append(found)
    bitmaps = None
    if ours.bitmaps is not None and theirs.bitmaps is not None:
        bitmaps = list(_compare_bitmaps(ours, theirs))
    return Comparison((ours, theirs), disks, bitmaps)


def _settle(device: str, side: Side, other: StreamDisk | RawImage | None) -> None:
    """A disk whose size is open has the other one's, if that can be."""
    bounds, disk = side.bounds.get(device), side.disks.get(device)
    if bounds is None or other is None or not isinstance(disk, StreamDisk):
        return
    least, most = bounds
    if least <= other.size <= (other.size if most is None else most):
        side.disks[device] = disk.resized(other.size)


def _pieces(disk: StreamDisk | RawImage) -> Iterator[Piece]:
    """A disk in pieces that touch, data in pieces of up to a MiB."""
    if isinstance(disk, StreamDisk):
        yield from disk.pieces()
        return
    at = 0
    for start, length in disk.extents():
        if at < start:
            yield Piece(at, start, "zero")
        for low in range(start, start + length, _PIECE):
            yield Piece(low, min(low + _PIECE, start + length), "data")
        at = start + length
    if at < disk.size:
        yield Piece(at, disk.size, "zero")


def _compare(
    a: StreamDisk | RawImage, b: StreamDisk | RawImage, found: DiskDifference
) -> Iterator[int]:
    """Fill in ``found``; yields how far it is, in bytes.  Behind a disk's end there are zeros."""
    end = max(a.size, b.size)
    both = [_padded(_pieces(disk), disk.size, end) for disk in (a, b)]
    ours, theirs = next(both[0], None), next(both[1], None)
    at = 0
    while ours is not None and theirs is not None:
        stop = min(ours.end, theirs.end)
        _compare_piece((a, ours), (b, theirs), at, stop, found)
        at = stop
        yield at
        ours = next(both[0], None) if ours.end == stop else ours
        theirs = next(both[1], None) if theirs.end == stop else theirs


def _padded(pieces: Iterator[Piece], size: int, end: int) -> Iterator[Piece]:
    yield from pieces
    if size < end:
        yield Piece(size, end, "zero")


def _compare_piece(
    ours: tuple[StreamDisk | RawImage, Piece],
    theirs: tuple[StreamDisk | RawImage, Piece],
    start: int,
    end: int,
    found: DiskDifference,
) -> None:
    kinds = (ours[1].kind, theirs[1].kind)
    if "missing" in kinds:
        for kind, other, ranges in zip(kinds, reversed(kinds), found.missing, strict=True):
            if kind == "missing" != other:
                ranges.add(start, end)
        return
    if "data" not in kinds:
        return
    for at in range(start, end, _PIECE):
        length = min(_PIECE, end - at)
        a, b = (
            disk.read(at, length) if piece.kind == "data" else bytes(length)
            for disk, piece in (ours, theirs)
        )
        for low, high in differing_sectors(a, b):
            found.differing.add(at + low * SECTOR_SIZE, min(at + high * SECTOR_SIZE, end))


def _compare_bitmaps(ours: Side, theirs: Side) -> Iterator[BitmapDifference]:
    assert ours.bitmaps is not None
    assert theirs.bitmaps is not None
    for device, name in dict.fromkeys([*ours.bitmaps, *theirs.bitmaps]):
        key = (device, name)
        if key not in ours.bitmaps or key not in theirs.bitmaps:
            where = theirs.name if key not in theirs.bitmaps else ours.name
            yield BitmapDifference(device, name, [f"not in {where}"])
            continue
        a, b = ours.bitmaps[key], theirs.bitmaps[key]
        if a is None or b is None:
            where = ours.name if a is None else theirs.name
            yield BitmapDifference(
                device, name, [f"not whole, or its granularity open, in {where}"]
            )
            continue
        disk = ours.disks.get(device) or theirs.disks.get(device)
        size = None if disk is None else disk.size
        differences = [
            f"{what} {x} and {y}"
            for what, x, y in (
                ("granularity", a.granularity, b.granularity),
                ("recording", a.recording, b.recording),
                ("persistent", a.persistent, b.persistent),
            )
            if x != y
        ]
        if a.ranges(size) != b.ranges(size):
            differences.append(f"dirty {a.count(size)} and {b.count(size)} bytes, or elsewhere")
        yield BitmapDifference(device, name, differences)
