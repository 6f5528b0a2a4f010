"""Maps of a stream's disks (data, zeros, repeated chunks, gaps) and of its dirty bitmaps.

They are exact, as extents, or for display, as cells of equal width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from blkmig_cli.checks.names import Names
from blkmig_cli.checks.report import BitmapVerdict, DeviceVerdict
from blkmig_cli.checks.survey import Contents
from blkmig_cli.contents.final_layout import EndState, Stretch
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.errors import BlkmigError
from blkmig_cli.operations.reading import Reading
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE

#: The kinds of parts of a disk.  A cell with several kinds shows the first of them.
KINDS = {
    "missing": "not sent",
    "repeated": "data, sent more than once",
    "data": "data",
    "zero": "zeros",
}
#: The kinds of parts of a bitmap.
SHADES = {"dirty": "dirty", "partly": "partly dirty", "clean": "clean"}


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes [start, end) of a disk, of one of ``KINDS`` (except that "repeated" is a flag here).

    Data begins at byte ``offset`` of the stream, and each further MiB of it ``stride`` bytes later.
    """

    start: int
    end: int
    kind: str
    repeated: bool = False
    offset: int | None = None
    stride: int | None = None


@dataclass(frozen=True, slots=True)
class DiskMap:
    """A device's disk: its extents cover its ``size`` bytes, as far as known, without gaps."""

    verdict: DeviceVerdict
    size: int
    extents: list[Extent]
    bitmaps: list[BitmapVerdict]

    def cells(self, number: int) -> list[str]:
        """Return the kind of each of up to ``number`` cells of equal width."""
        edges = cell_edges(self.size, number)
        found = np.full(len(edges) - 1, len(KINDS), np.int64)
        for rank, kind in enumerate(KINDS):
            ours = [(e.start, e.end) for e in self.extents if _shown(e) == kind]
            inside = coverage(_sectors(ours), edges)
            found[(inside > 0) & (found == len(KINDS))] = rank
        names = [*KINDS, "zero"]
        return [names[rank] for rank in found.tolist()]

    def amounts(self) -> dict[str, int]:
        """Return the bytes of every kind."""
        found = dict.fromkeys(KINDS, 0)
        for extent in self.extents:
            found[_shown(extent)] += extent.end - extent.start
        return found


def _shown(extent: Extent) -> str:
    return "repeated" if extent.repeated and extent.kind == "data" else extent.kind


def cell_edges(size: int, number: int) -> NDArray[np.int64]:
    """Return the sectors at which up to ``number`` cells of ``size`` bytes begin, and the last one ends.

    Shape (cells + 1,), in sectors, as the bytes of the largest disk do not fit into int64.
    """
    sectors = -(-size // SECTOR_SIZE)
    number = max(min(number, sectors), 1)
    return np.array([sectors * at // number for at in range(number + 1)], np.int64)


def _sectors(ranges: list[tuple[int, int]]) -> NDArray[np.int64]:
    """Return ranges (start, end) in bytes as ranges of sectors, shape (n, 2), rounded outwards."""
    sectors = [(start // SECTOR_SIZE, -(-end // SECTOR_SIZE)) for start, end in ranges]
    return np.array(sectors, np.int64).reshape(-1, 2)


def coverage(ranges: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how much of ``ranges`` lies between each two ``edges``.

    ``ranges``: (start, end), ascending, not adjacent, shape (n, 2); ``edges``: ascending, shape (m,).
    The result has shape (m - 1,); all in the same unit.
    """
    if not len(ranges):
        return np.zeros(len(edges) - 1, np.int64)
    starts, ends = ranges[:, 0], ranges[:, 1]
    before = np.concatenate([[0], np.cumsum(ends - starts)])
    at = np.searchsorted(starts, edges, "right")
    over = np.where(at > 0, np.maximum(ends[at - 1] - edges, 0), 0)
    inside: NDArray[np.int64] = np.diff(before[at] - over)
    return inside


def bitmap_cells(bitmap: DirtyBitmap, size: int, number: int) -> list[str]:
    """Return the shade of each of up to ``number`` cells of a disk of ``size`` bytes."""
    edges = cell_edges(size, number)
    ranges = _sectors([(start, start + length) for start, length in bitmap.ranges(size)])
    inside, widths = coverage(ranges, edges), np.diff(edges)
    return [
        "clean" if not dirty else "dirty" if dirty >= width else "partly"
        for dirty, width in zip(inside.tolist(), widths.tolist(), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class StreamMap:
    """The maps of a stream's disks and bitmaps; ``failure``: the error that ended the reading, if any."""

    stream: str
    disks: list[DiskMap]
    failure: BlkmigError | None = None


def map_stream(stream: str, reading: Reading, device: str | None = None) -> StreamMap:
    """Return the maps of all disks and bitmaps of the STREAM, or of one ``device``.

    Raises UsageError for a device that a stream does not have, FailureError where the input fails.
    """
    with reading.contents(stream) as contents:
        names = Names.of(contents.report)
        names.check_devices("--device", [device])
        names.check_hints(reading.hints)
        return StreamMap(stream, map_disks(contents, device), contents.report.failure)


def map_disks(contents: Contents, device: str | None = None) -> list[DiskMap]:
    """Return the maps of all disks and bitmaps of a stream, or of one ``device``."""
    maps = []
    for verdict in contents.report.devices:
        name = verdict.disk.name
        if device is not None and name != device:
            continue
        bitmaps = [found for found in contents.report.bitmaps if found.bitmap.device == name]
        state = contents.states.disks.get(name, EndState())
        covered = [found.bitmap.covered.end for found in bitmaps]
        least = max(verdict.size.least, SECTOR_SIZE * max([state.end, *covered]))
        size = verdict.size.exact if verdict.size.exact is not None else least
        extents = list(_extents(state, size)) if verdict.disk.has_blocks else []
        maps.append(DiskMap(verdict, size, extents, bitmaps))
    return maps


def _extents(state: EndState, size: int) -> Iterator[Extent]:
    """Yield the extents of a disk of ``size`` bytes, in order; adjacent ones of a kind are joined."""
    last: Extent | None = None
    for extent in _parts(state, size):
        both = None if last is None else _joined(last, extent)
        if both is None and last is not None:
            yield last
        last = extent if both is None else both
    if last is not None:
        yield last


def _joined(first: Extent, after: Extent) -> Extent | None:
    same = (first.kind, first.repeated) == (after.kind, after.repeated)
    if not same or first.kind == "data":
        return None  # data elsewhere in the stream is a separate extent
    return Extent(first.start, after.end, first.kind, first.repeated)


def _parts(state: EndState, size: int) -> Iterator[Extent]:
    at, last = 0, -(-size // SECTOR_SIZE)
    for stretch in state.between(0, last):
        if at < stretch.start:
            yield _extent("missing", at, stretch.start, size)
        edges = sorted(
            {stretch.start, stretch.end}
            | {
                edge
                for low, high in state.repeated.between(stretch.start, stretch.end)
                for edge in (low, high)
            }
        )
        for low, high in pairwise(edges):
            repeated = state.repeated.covers(low, high)
            if stretch.offset is None:
                yield _extent("zero", low, high, size, repeated)
            else:
                yield from _data(stretch, low, high, size, repeated)
        at = stretch.end
    if at < last:
        yield _extent("missing", at, last, size)


def _data(stretch: Stretch, low: int, high: int, size: int, repeated: bool) -> Iterator[Extent]:
    """Return sectors [low, high) of a stretch; a chunk without its start is a separate extent."""
    while low < high:
        offset, sectors = stretch.place(low)
        end = low + sectors if sectors < CHUNK_SECTORS else high
        end = min(end, high)
        several = end - low > CHUNK_SECTORS
        found = _extent("data", low, end, size, repeated)
        stride = stretch.step if several else None
        yield Extent(found.start, found.end, "data", repeated, offset, stride)
        low = end


def _extent(kind: str, low: int, high: int, size: int, repeated: bool = False) -> Extent:
    return Extent(low * SECTOR_SIZE, min(high * SECTOR_SIZE, size), kind, repeated)
