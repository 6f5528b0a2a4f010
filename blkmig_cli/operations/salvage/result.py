"""What salvaging a stream gives."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from blkmig_cli.contents.final_layout import EndState
from blkmig_cli.contents.stream_disk import StreamDisk
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
    """What is intact of a disk: its content, where that stands in the stream, and its bitmaps.

    ``size_known``: the size of ``image`` is the disk's, not only where its last chunk ends.
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
    """A disk of which nothing is left; ``size`` in bytes, if it is known."""

    device: str
    size: int | None


@dataclass(frozen=True, slots=True)
class LostBitmap:
    """A bitmap that is left out, and why."""

    device: str
    name: str
    why: str


@dataclass(slots=True)
class Salvaged:
    """What is intact in a stream of ``size`` bytes.

    ``unconfirmed``: by device, sectors of records beside damage that were left out.  ``outdated``: the
    lost records may have contained newer versions of chunks, or other disks.  ``other_missing``: bytes that
    progress records prove to be missing beside those of the disks.  ``failure``: what the reading
    ended with, where it could not even begin; ``written``: bytes of the new stream.
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
        """0: intact, 1: something is lost, 3: nothing is left."""
        return 3 if not self.disks else int(bool(self.gaps or self.lost_disks or self.lost_bitmaps))
