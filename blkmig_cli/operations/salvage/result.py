"""The result of salvaging a stream."""

from collections.abc import Iterator
from dataclasses import field

from blkmig_cli.contents.final_layout import EndState
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.errors import StreamError
from blkmig_cli.ranges import IntervalSet


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes [start, end) of a stream that could not be read, and why."""

    start: int
    end: int
    why: str


@dataclass(slots=True)
class SalvagedDisk:
    """The intact part of a disk: its content, its layout in the stream, and its bitmaps.

    ``size_known``: the size of ``image`` is the disk's, not only the end of its last chunk.
    """

    device: str
    image: StreamDisk
    layout: EndState
    size_known: bool
    bitmaps: list[DirtyBitmap]

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.image.size

    def missing(self) -> Iterator[tuple[int, int]]:
        """Return the ranges (start, end) in bytes that are lost, or were not sent."""
        return ((p.start, p.end) for p in self.image.pieces() if p.kind == "missing")


@dataclass(frozen=True, slots=True)
class LostDisk:
    """A disk that is completely lost; ``size`` in bytes, if known."""

    device: str
    size: int | None


@dataclass(frozen=True, slots=True)
class LostBitmap:
    """A bitmap that is omitted, and the reason."""

    device: str
    name: str
    why: str


@dataclass(slots=True)
class Salvaged:
    """The intact part of a stream of ``size`` bytes.

    ``unconfirmed``: by device, sectors of records next to damage that were omitted.  ``outdated``: the
    lost records may have contained newer versions of chunks, or other disks.  ``other_missing``: bytes that
    progress records prove to be missing in addition to those of the disks.  ``failure``: the error
    with which the reading ended, if it could not begin at all; ``written``: bytes of the new stream.
    """

    stream: str
    size: int
    gaps: list[Gap] = field(default_factory=list)
    unconfirmed: dict[str, IntervalSet] = field(default_factory=dict)
    disks: list[SalvagedDisk] = field(default_factory=list)
    lost_disks: list[LostDisk] = field(default_factory=list)
    lost_bitmaps: list[LostBitmap] = field(default_factory=list)
    outdated: bool = False
    other_missing: int = 0
    failure: StreamError | None = None
    written: int | None = None

    @property
    def intact(self) -> bool:
        """Whether there is no damage."""
        return not self.gaps

    @property
    def exit_status(self) -> int:
        """The exit status: 0 if intact, 1 if something is lost, 3 if nothing is intact."""
        return 3 if not self.disks else int(bool(self.gaps or self.lost_disks or self.lost_bitmaps))
