"""Comparing the disks and bitmaps of two streams, or of a stream and a disk image.

The final content of disks is compared, by their stretches and extents; a record that a later one
replaces is never read.  Chunks that were not sent are not treated as zeros: they are listed separately.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

import numpy as np

from blkmig_cli.checks.names import Names, find_device
from blkmig_cli.checks.survey import Contents
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.contents.stream_disk import Piece, StreamDisk
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import default_path, read_bitmaps
from blkmig_cli.disks.image import Image
from blkmig_cli.disks.open import open_image
from blkmig_cli.errors import NotAStreamError, UsageError
from blkmig_cli.operations.reading import Reading
from blkmig_cli.progress import Tick
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.system.nbd_uri import is_nbd
from blkmig_cli.text import escape, names_text

_PIECE = 1 << 20

#: By device and name; None for a bitmap that is incomplete, or of unknown granularity (v1).
Bitmaps = dict[tuple[str, str], DirtyBitmap | None]


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How to compare.

    ``strict``: sizes must be equal, too; ``incremental``: chunks that were not sent are ignored.
    ``image_format``: the second one is an image of this format, regardless of its first bytes;
    ``shared``: see ``open.open_image``.
    """

    strict: bool = False
    incremental: bool = False
    image_format: str | None = None
    shared: bool = False


@dataclass(slots=True)
class Side:
    """One side: its name, its disks by device, its bitmaps (None: it cannot have any).

    ``kind``: ``stream`` or ``image``; ``bounds``: those of the disks whose size is unknown.
    ``stores``: an image in which bitmaps are stored, all of them as persistent ones.
    """

    name: str
    kind: str
    disks: dict[str, StreamDisk | Image]
    bitmaps: Bitmaps | None
    bounds: dict[str, SizeBounds] = field(default_factory=dict)
    stores: bool = False


@dataclass(slots=True)
class DiskDifference:
    """The differences between the disks of a device; ranges are (start, end) in bytes.

    ``sizes``: bytes on each side, None where the device is missing.  ``missing``: the ranges that
    were not sent on that side, but exist on the other one.
    """

    device: str
    sizes: tuple[int | None, int | None]
    differing: IntervalSet = field(default_factory=IntervalSet)
    missing: tuple[IntervalSet, IntervalSet] = field(
        default_factory=lambda: (IntervalSet(), IntervalSet())
    )

    def is_same(self, options: CompareOptions) -> bool:
        """Return whether the disks are the same according to ``options``."""
        if None in self.sizes or self.differing:
            return False
        if options.strict and self.sizes[0] != self.sizes[1]:
            return False
        return options.incremental or not any(self.missing)


@dataclass(frozen=True, slots=True)
class BitmapDifference:
    """The differences of a bitmap as text; empty if it is the same on both sides."""

    device: str
    name: str
    differences: list[str]


@dataclass(slots=True)
class Comparison:
    """The result for each disk and each bitmap.

    ``bitmaps`` is None where one side is an image without a file of bitmaps.
    """

    sides: tuple[Side, Side]
    options: CompareOptions
    disks: list[DiskDifference]
    bitmaps: list[BitmapDifference] | None

    @property
    def same(self) -> bool:
        """Whether both sides have the same disks and bitmaps."""
        return all(disk.is_same(self.options) for disk in self.disks) and not any(
            bitmap.differences for bitmap in self.bitmaps or ()
        )


def compare(
    first: tuple[str | None, str],
    second: tuple[str | None, str],
    reading: Reading,
    options: CompareOptions,
    second_number: int | None = None,
) -> Comparison:
    """Compare A and B, each a device and a path, or None and the name of a STREAM or image.

    One of them may be an image: that with a device, an NBD URI, or the one that is not a stream; with
    ``options.image_format`` the second.  ``second_number``: that of several streams in B, None: as in A.
    With an image, only the device that it is compared with is compared.  Raises the StreamError of a
    damaged stream, UsageError where neither is a stream or the image's device is not in it,
    FailureError where a file fails.
    """
    with ExitStack() as stack:
        opened: list[Contents | tuple[str | None, Image]] = []
        for device, path in (first, second):
            contents = None
            if opened and second_number is not None:
                reading = replace(reading, number=second_number)
            is_image = is_nbd(path) or (len(opened) == 1 and options.image_format is not None)
            if device is None and not is_image:
                contents = _stream(path, reading, stack)
            reading.log(f"{escape(path)}: {'an image' if contents is None else 'a stream'}")
            if contents is not None:
                opened.append(contents)
                continue
            image = open_image(path, image_format=options.image_format, shared=options.shared)
            opened.append((device, stack.enter_context(closing(image))))
        streams = [side for side in opened if isinstance(side, Contents)]
        if not streams:
            raise UsageError(
                f"neither {escape(first[1])} nor {escape(second[1])} is a stream",
                hint="compare images with qemu-img compare",
            )
        Names.of(*(side.report for side in streams)).check_hints(reading.hints)
        named = next((side[0] for side in opened if isinstance(side, tuple)), None)
        only = _device(named, streams[0]) if len(streams) == 1 else None
        found = next((side[1] for side in opened if isinstance(side, tuple)), None)
        sizes = {}
        if found is not None and found.is_file and only is not None:
            sizes[only] = found.size
        ours, theirs = (
            stream_side(side, only, sizes)
            if isinstance(side, Contents)
            else image_side(only, side[1])
            for side in opened
        )
        total = sum(disk.size for disk in ours.disks.values())
        with reading.progress("comparing", total) as tick:
            return compare_sides(ours, theirs, options, tick)


def _stream(name: str, reading: Reading, stack: ExitStack) -> Contents | None:
    """Return the contents of the STREAM ``name``; None if it is not a stream."""
    contents = stack.enter_context(reading.contents(name, again=True))
    failure = contents.report.failure
    if failure is not None and not isinstance(failure, NotAStreamError):
        raise failure
    return contents if failure is None else None


def _device(named: str | None, contents: Contents) -> str:
    """Return the device to compare with an image: ``named``, or the stream's only one."""
    devices = [found.disk.name for found in contents.report.devices if found.disk.has_blocks]
    if named is not None:
        find_device("DEVICE=IMAGE", named, devices)
    elif len(devices) != 1:
        raise UsageError(
            f"the stream has the disks {names_text(devices)}", hint="specify DEVICE=IMAGE"
        )
    return devices[0] if named is None else named


def stream_side(
    contents: Contents, only: str | None = None, sizes: Mapping[str, int] | None = None
) -> Side:
    """Return a stream as a side, restricted to the device ``only``; raises UsageError for a pipe.

    ``sizes`` of disks in bytes, as far as they are known from the other side.
    """
    sizes = sizes or {}
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
            if verdict.complete_for(sizes.get(verdict.bitmap.device, 0))
            else None
            for verdict in contents.report.bitmaps
            if only in (None, verdict.bitmap.device)
        },
        {device.disk.name: device.size for device in devices if device.size.exact is None},
    )


def image_side(device: str | None, image: Image) -> Side:
    """Return an image of ``device`` as a side, with its bitmaps; raises FailureError."""
    name = device or ""
    path = default_path(image.path)
    bitmaps: Bitmaps | None = None
    stored = image.bitmaps()
    if stored is not None:
        bitmaps = {
            (name, found.name): None if found.fault else image.read_bitmap(found.name)
            for found in stored
        }
    elif image.is_file and os.path.exists(path):
        beside = read_bitmaps(path).bitmaps
        bitmaps = {(name, bitmap): content for bitmap, content in beside.items()}
    return Side(image.path, "image", {name: image}, bitmaps, stores=stored is not None)


def compare_sides(ours: Side, theirs: Side, options: CompareOptions, tick: Tick) -> Comparison:
    """Compare two sides; ``tick`` gets the bytes of disks compared so far.

    Raises FailureError where an image or a stream's file fails.
    """
    disks, done = [], 0
    for device in dict.fromkeys([*ours.disks, *theirs.disks]):
        a, b = ours.disks.get(device), theirs.disks.get(device)
        if a is None or b is None:
            sizes = (None if a is None else a.size, None if b is None else b.size)
            disks.append(DiskDifference(device, sizes))
            continue
        a = _sized(a, b, ours.bounds.get(device))
        b = _sized(b, a, theirs.bounds.get(device))
        found = DiskDifference(device, (_bytes(a, b), _bytes(b, a)))
        end = max(_bytes(a, b), _bytes(b, a))
        for at in _compare(a, b, end, found):
            tick(done + at)
        done += end
        disks.append(found)
    bitmaps = None
    if ours.bitmaps is not None and theirs.bitmaps is not None:
        bitmaps = list(_compare_bitmaps(ours, theirs))
    return Comparison((ours, theirs), options, disks, bitmaps)


def differing_ranges(disk: StreamDisk, image: Image, tick: Tick) -> IntervalSet:
    """Return the bytes, in ranges of sectors, in which ``image`` differs from ``disk``.

    They are compared up to the end of the shorter one, without ranges that were not sent.  ``tick``
    gets the bytes of the disk compared so far.  Raises FailureError where either fails.
    """
    found = DiskDifference("", (disk.size, image.size))
    for at in _compare(disk, image, min(disk.size, image.size), found):
        tick(at)
    return found.differing


def _sized(
    disk: StreamDisk | Image,
    other: StreamDisk | Image,
    bounds: SizeBounds | None,
) -> StreamDisk | Image:
    """Return ``disk``, with the size of ``other`` if only the ``bounds`` of its own are known."""
    if bounds is None or not isinstance(disk, StreamDisk) or _is_device(other):
        return disk
    return disk.resized(other.size) if bounds.allows(other.size) else disk


def _bytes(disk: StreamDisk | Image, other: StreamDisk | Image) -> int:
    """Return the size of ``disk``, for a block device at most that of the ``other`` disk."""
    return min(disk.size, other.size) if _is_device(disk) else disk.size


def _is_device(disk: StreamDisk | Image) -> bool:
    return not (isinstance(disk, StreamDisk) or disk.is_file)


def _compare(
    a: StreamDisk | Image, b: StreamDisk | Image, end: int, found: DiskDifference
) -> Iterator[int]:
    """Add the differences up to byte ``end`` to ``found``; yields the bytes compared so far.

    Bytes after a disk's end are treated as zeros.
    """
    all_ours, all_theirs = _pieces(a, end), _pieces(b, end)
    ours, theirs = next(all_ours, None), next(all_theirs, None)
    at = 0
    while ours is not None and theirs is not None:
        stop = min(ours.end, theirs.end)
        _compare_piece((a, ours), (b, theirs), at, stop, found)
        at = stop
        yield at
        ours = next(all_ours, None) if ours.end == stop else ours
        theirs = next(all_theirs, None) if theirs.end == stop else theirs


def _pieces(disk: StreamDisk | Image, end: int) -> Iterator[Piece]:
    """Return bytes [0, end) of a disk as contiguous pieces, in order."""
    stop = min(disk.size, end)
    if isinstance(disk, StreamDisk):
        yield from disk.pieces(0, stop)
    else:
        yield from _image_pieces(disk.extents(), stop)
    if stop < end:
        yield Piece(stop, end, "zero")


def _image_pieces(extents: Iterable[tuple[int, int]], end: int) -> Iterator[Piece]:
    at = 0
    for start, length in extents:
        stop = min(start + length, end)
        if start >= end:
            break
        if at < start:
            yield Piece(at, start, "zero")
        yield Piece(start, stop, "data")
        at = stop
    if at < end:
        yield Piece(at, end, "zero")


def _compare_piece(
    ours: tuple[StreamDisk | Image, Piece],
    theirs: tuple[StreamDisk | Image, Piece],
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


def differing_sectors(ours: bytes, theirs: bytes) -> Iterator[tuple[int, int]]:
    """Return the ranges (start, end) of sectors in which two pieces of equal length differ."""
    if ours == theirs:
        return
    length = len(ours)
    differ = np.zeros(-(-length // SECTOR_SIZE) * SECTOR_SIZE, np.bool_)
    differ[:length] = np.frombuffer(ours, np.uint8) != np.frombuffer(theirs, np.uint8)
    sectors = differ.reshape(-1, SECTOR_SIZE).any(axis=1).view(np.int8)
    edges = np.flatnonzero(np.diff(sectors, prepend=np.int8(0), append=np.int8(0)))
    yield from ((int(low), int(high)) for low, high in edges.reshape(-1, 2))


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
            text = f"incomplete, or of unknown granularity, in {where}"
            yield BitmapDifference(device, name, [text])
            continue
        disk = ours.disks.get(device) or theirs.disks.get(device)
        size = None if disk is None else disk.size
        differences = _bitmap_differences(a, b, size, stored=ours.stores or theirs.stores)
        yield BitmapDifference(device, name, differences)


def _bitmap_differences(
    a: DirtyBitmap, b: DirtyBitmap, size: int | None, *, stored: bool
) -> list[str]:
    """Return the differences as text; ``stored``: one is in an image, where each is persistent."""
    differences = [
        f"{what} {ours} and {theirs}"
        for what, ours, theirs in (
            ("granularity", a.granularity, b.granularity),
            ("recording", a.recording, b.recording),
            ("persistent", a.persistent, b.persistent),
        )
        if ours != theirs and not (stored and what == "persistent")
    ]
    if a.ranges(size) != b.ranges(size):
        ours, theirs = a.count(size), b.count(size)
        elsewhere = " in other places" if ours == theirs else ""
        differences.append(f"dirty {ours} and {theirs} bytes{elsewhere}")
    return differences
