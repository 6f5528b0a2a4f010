"""Maps of a stream's disks (data, zeros, repeated chunks, gaps) and of its dirty bitmaps.

They are exact, as extents, or for display, as cells of equal width.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.checks.names import Names
from blkmig_cli.checks.report import BitmapVerdict, DeviceVerdict
from blkmig_cli.checks.survey import Contents
from blkmig_cli.contents.final_layout import EndState
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.errors import BlkmigError
from blkmig_cli.operations.reading import Reading
from blkmig_cli.ranges import IntervalSet, Table, distinct
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE

#: The kinds of parts of a disk.  A cell with several kinds shows the first of them: see ``cells``.
KINDS = {
    "missing": "not sent",
    "repeated": "data, sent more than once",
    "data": "data",
    "zero": "zeros",
}
_MISSING, _REPEATED, _DATA, _ZERO = range(len(KINDS))
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
    extents: "Extents"
    bitmaps: list[BitmapVerdict]

    @property
    def continues(self) -> bool:
        """Whether the disk may be larger than ``size``."""
        most = self.verdict.size.most
        return bool(self.extents) and (most is None or self.size < most)

    def cells(self, number: int) -> list[str]:
        """Return the kind of each of up to ``number`` cells of equal width.

        In an increment, what was not sent comes last of the kinds, as it is most of the disk.
        """
        edges = cell_edges(self.size, number)
        inside = np.zeros((len(KINDS), len(edges) - 1), np.int64)
        for part in self.extents.parts():
            shown = part.shown()
            for rank in range(len(KINDS)):
                inside[rank] += coverage(part.ranges[shown == rank], edges)
        names = [*KINDS, "zero"]
        if self.verdict.intended:
            names.insert(len(KINDS) - 1, names.pop(_MISSING))
            inside = np.roll(inside, -1, axis=0)
        found = np.where(inside.any(axis=0), (inside > 0).argmax(axis=0), len(KINDS))
        return [names[rank] for rank in found.tolist()]

    def amounts(self) -> dict[str, int]:
        """Return the bytes of every kind."""
        found = dict.fromkeys(KINDS, 0)
        for part in self.extents.parts():
            shown, lengths = part.shown(), part.ranges[:, 1] - part.ranges[:, 0]
            for rank, kind in enumerate(KINDS):
                found[kind] += SECTOR_SIZE * int(lengths[shown == rank].sum())
            past = int(part.ranges[-1, 1]) * SECTOR_SIZE - self.size
            found[list(KINDS)[int(shown[-1])]] -= max(past, 0)
        return found


def cell_edges(size: int, number: int) -> NDArray[np.int64]:
    """Return the sectors at which up to ``number`` cells of ``size`` bytes begin, and the last one ends.

    Shape (cells + 1,), in sectors, as the bytes of the largest disk do not fit into int64.
    """
    sectors = -(-size // SECTOR_SIZE)
    number = max(min(number, sectors), 1)
    return np.array([sectors * at // number for at in range(number + 1)], np.int64)


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
    inside, widths = np.zeros(len(edges) - 1, np.int64), np.diff(edges)
    for part in bitmap.range_parts(size):
        low, high = part[:, 0] // SECTOR_SIZE, -(-(part[:, 0] + part[:, 1]) // SECTOR_SIZE)
        inside += coverage(np.stack((low, high), axis=1).astype(np.int64), edges)
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
    owned: dict[str, list[BitmapVerdict]] = {}
    for found in contents.report.bitmaps:
        owned.setdefault(found.bitmap.device, []).append(found)
    for verdict in contents.report.devices:
        name = verdict.disk.name
        if device is not None and name != device:
            continue
        bitmaps = owned.get(name, [])
        state = contents.states.disks.get(name, EndState())
        covered = [found.bitmap.covered.end for found in bitmaps]
        least = max(verdict.size.least, SECTOR_SIZE * max([state.end, *covered]))
        size = verdict.size.exact if verdict.size.exact is not None else least
        shown = size if verdict.disk.has_blocks else 0
        extents = Extents(state, shown, placed=contents.layers is None)
        maps.append(DiskMap(verdict, size, extents, bitmaps))
    return maps


def rows_of(maps: list[DiskMap]) -> int:
    """Return the number of disks and bitmaps in ``maps``: the rows of their display."""
    return sum(1 + len(disk.bitmaps) for disk in maps)


def first_rows(maps: list[DiskMap]) -> Iterator[DiskMap]:
    """Yield the maps up to the row ``limits.SHOWN_MAX``."""
    left = limits.SHOWN_MAX
    for disk in maps:
        if left <= 0:
            return
        yield replace(disk, bitmaps=disk.bitmaps[: left - 1])
        left -= 1 + len(disk.bitmaps)


class Extents:
    """The extents of a disk of ``size`` bytes, in order; they are computed anew by each iteration.

    ``placed``: they are of one stream, in which they have places, and may be repeated; of several
    streams, data on top of other data is not.
    """

    def __init__(self, state: EndState, size: int, *, placed: bool = True) -> None:
        self._state = state
        self._size = size
        self._placed = placed

    def __bool__(self) -> bool:
        return self._size > 0

    def __iter__(self) -> Iterator[Extent]:
        names, placed = list(KINDS), self._placed
        for part in self.parts():
            columns = (part.ranges[:, 0], part.ranges[:, 1], part.kinds, part.repeated)
            more = (part.offsets, part.strides)
            rows = zip(*(column.tolist() for column in columns + more), strict=True)
            for low, high, kind, repeated, offset, stride in rows:
                yield Extent(
                    low * SECTOR_SIZE,
                    min(high * SECTOR_SIZE, self._size),
                    names[kind],
                    repeated,
                    offset if placed and kind == _DATA else None,
                    stride if placed and kind == _DATA and high - low > CHUNK_SECTORS else None,
                )

    def parts(self) -> Iterator["ExtentPart"]:
        """Yield the extents in parts of bounded length."""
        at, last = 0, -(-self._size // SECTOR_SIZE)
        repeated = self._state.repeated if self._placed else IntervalSet()
        again = repeated.table()
        for rows in self._state.parts(0, last):
            yield _extents(rows, at, int(rows[-1, 1]), again)
            at = int(rows[-1, 1])
        if at < last:
            yield _extents(np.empty((0, 5), np.int64), at, last, again)


@dataclass(frozen=True, slots=True)
class ExtentPart:
    """Some extents of a disk, in order, one in each row of the arrays.

    ``ranges``: sectors, start and end, shape (extents, 2).  ``kinds``: numbers of ``KINDS``, except
    that ``repeated`` is a flag.  ``offsets`` and ``strides`` are valid only for data.
    """

    ranges: NDArray[np.int64]
    kinds: NDArray[np.int8]
    repeated: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    strides: NDArray[np.int64]

    def shown(self) -> NDArray[np.int8]:
        """Return the number of the kind that is shown in a cell."""
        return np.where(self.repeated & (self.kinds == _DATA), np.int8(_REPEATED), self.kinds)


def _extents(rows: Table, start: int, end: int, again: Table) -> ExtentPart:
    """Return the extents of the sectors [start, end), of which ``rows`` are all stretches.

    ``rows`` are as in ``EndState.put_all``; ``again``: the ranges that were sent more than once.
    """
    again = again[np.searchsorted(again[:, 1], start, "right") :]
    again = again[: np.searchsorted(again[:, 0], end)]
    edges = np.concatenate(([start, end], rows[:, :2].reshape(-1), again.reshape(-1)))
    edges = distinct(edges.clip(start, end))
    owners = _owners(rows, edges[:-1])
    data = (owners >= 0) & (rows[owners, 2] >= 0) if len(rows) else owners >= 0
    if data.any():
        # A chunk without its start is a separate extent.
        firsts = rows[owners[data], 3]
        inside = (edges[:-1][data] - firsts) % CHUNK_SECTORS
        cut = edges[:-1][data] - inside + CHUNK_SECTORS
        cut = cut[(inside > 0) & (cut < edges[1:][data])]
        edges = np.sort(np.concatenate((edges, cut)))
        owners = _owners(rows, edges[:-1])
    lows = edges[:-1]
    kinds = np.full(len(lows), _MISSING, np.int8)
    offsets = np.zeros(len(lows), np.int64)
    strides = np.zeros(len(lows), np.int64)
    held = np.flatnonzero(owners >= 0)
    found = rows[owners[held]]
    kinds[held] = np.where(found[:, 2] < 0, _ZERO, _DATA)
    chunks, inside = np.divmod(lows[held] - found[:, 3], CHUNK_SECTORS)
    offsets[held] = found[:, 2] + chunks * found[:, 4] + inside * SECTOR_SIZE
    strides[held] = found[:, 4]
    repeated = _owners(again, lows) >= 0
    return ExtentPart(np.stack((lows, edges[1:]), axis=1), kinds, repeated, offsets, strides)


def _owners(rows: Table, sectors: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which of ``rows``, ascending ranges, contains each of ``sectors``; -1: none."""
    if not len(rows):
        return np.full(len(sectors), -1)
    found = np.searchsorted(rows[:, 0], sectors, "right") - 1
    found[sectors >= rows[found, 1]] = -1
    return found
