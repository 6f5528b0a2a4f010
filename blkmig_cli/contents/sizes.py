"""The sizes of disks: from options, as stated in the stream, and as bounded by its progress.

The device's size is not in the stream.  QEMU's PROGRESS is floor(100 * done / total) over all devices,
where done is the start of the chunk last submitted, and a finished device counts only to the start of
its last chunk (QEMU 7.2, migration/block.c: blk_mig_save_bulked_block).  So each record bounds the
total: done is at least the starts of the chunks seen before it (no chunk comes before it was
submitted), and at the last record of the bulk phase at most the starts of the highest chunks of the
whole stream.

The upper bound holds only where nothing was left out: of a disk whose end is in a shared base, QEMU
counts all, though its last chunks do not come, and of a disk that is all in the base nothing shows
but its progress (mig_save_device_bulk).  QEMU writes a record for each change of the percentage, so
that what was left out shows in the percentages: there are more of them than chunks, they leap, or
they reach 100.
"""

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Literal

from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE

_PERCENT_MAX = 101

SizeSource = Literal["option", "stream", "image", "bitmap-layout", "progress", "none"]


@dataclass(frozen=True, slots=True)
class SizeBounds:
    """The least and most bytes of a disk; ``most`` is None where there is no upper bound.

    ``source``: ``option``, ``stream`` (stated in it), ``image`` (an existing image file),
    ``bitmap-layout`` (bits of a v1 record at the disk's end), ``progress``, or ``none``.
    """

    least: int
    most: int | None
    source: SizeSource

    @property
    def exact(self) -> int | None:
        """The size in bytes, if the bounds allow only one."""
        return self.least if self.least == self.most else None

    def allows(self, size: int) -> bool:
        """Return whether a disk of ``size`` bytes is within the bounds."""
        return self.least <= size and (self.most is None or size <= self.most)


@dataclass(slots=True)
class ProgressBounds:
    """Bounds of the sum of all disks, in sectors, from PROGRESS records and the chunks around them.

    ``percent`` is the last of the bulk phase (not the 100 of the section's end); ``final``: whether
    that 100 was sent.  ``tops``: by device, the highest sector at which a chunk
    starts; ``total``: the sum of them, in which a last chunk that was moved forward to end with its
    disk counts where it would have stood.  ``least``: least sectors of all disks.  ``continues``: other
    chunks were received before the stream, so that its percentages bound nothing.
    """

    percent: int | None = None
    final: bool = False
    least: int = 0
    tops: dict[str, int] = field(default_factory=dict)
    total: int = 0
    continues: bool = False
    _reached: int = 0
    _percentages: set[int] = field(default_factory=set)

    def chunk(self, device: str, sector: int) -> None:
        """Take a chunk of ``device`` at ``sector``."""
        before = self.tops.get(device, -1)
        if sector > before:
            self.tops[device] = sector
            self.total += _grid(sector) - _grid(before)
            self._reached += sector - before

    def record(self, percent: int, *, in_end: bool) -> None:
        """Take a PROGRESS record; ``in_end``: it is in the section's end."""
        if in_end:
            self.final = percent == 100
            return
        if self.continues:
            return
        self.percent = percent
        self._bound(percent)
        self._percentages.add(min(percent, _PERCENT_MAX))

    def _bound(self, percent: int) -> None:
        if percent < _PERCENT_MAX:  # others prove nothing
            self.least = max(self.least, 100 * self.total // (percent + 1) + 1)

    def device(self, name: str, further: Callable[[], int]) -> tuple[int, int | None]:
        """Return the least and most sectors of the device ``name``, given the chunks of the others.

        Most is None without a bound; valid at the stream's end.  There is no bound if the chunks exceed
        it, or if they do not explain the percentages, as in incremental streams.  ``further`` returns
        how many chunks were sent, beyond the first of each disk.
        """
        least = self.tops[name] + 1
        others = self._reached - least
        if not self._consistent(further):
            return least, None
        most = 100 * self.total // self.percent if self.percent else None
        if len(self.tops) == 1 and (most is None or self.least <= most):
            least = max(least, self.least)
        return least, None if most is None else most - others

    def _consistent(self, further: Callable[[], int]) -> bool:
        """Return whether disks of which all was sent have such percentages."""
        if not self.percent:
            return True
        most = 100 * self.total // self.percent
        beyond = self._percentages - {0}
        # A last chunk starts before its disk's end: only what is passed over makes 100.
        if most < self._reached or max(beyond) >= 100:
            return False
        if most < 100 * CHUNK_SECTORS:
            # The first chunk makes 0, each further one another percentage.  Of several disks, the end
            # of one may have been passed over, and a chunk that came later explains the percentage.
            return len(self.tops) == 1 and len(beyond) <= further()
        return len(beyond) == max(beyond)

    def never_sent(self, sizes: Mapping[str, int | None]) -> int:
        """Return how many sectors are proven to exist beyond the devices' ends and last chunks.

        ``sizes`` of the devices in bytes, None where unknown.
        """
        ends = {name: _grid(top) + CHUNK_SECTORS for name, top in self.tops.items()}
        for name, size in sizes.items():
            ends[name] = max(ends.get(name, 0), -(-(size or 0) // SECTOR_SIZE))
        return max(self.least - sum(ends.values()), 0)

    def bulk_ended(self, sizes: Mapping[str, int | None]) -> bool | None:
        """Return whether the bulk phase reached the end of all disks; None if unknown.

        ``sizes`` of the disks in bytes, None where unknown.  A finished disk counts at least to the
        start of its last chunk, also where an incremental stream leaves its last chunks out.
        """
        if self.percent is None or not self.tops:
            return None
        total = sum(-(-(size or 0) // SECTOR_SIZE) for size in sizes.values())
        if None in sizes.values() or not total:
            # The larger the disks, the smaller their last chunks in proportion: the least total allows most.
            total = max(self.least, self._reached)
            last = total - len(self.tops) * CHUNK_SECTORS
        else:
            ends = [-(-(size or 0) // SECTOR_SIZE) for size in sizes.values()]
            last = sum((end - 1) // CHUNK_SECTORS * CHUNK_SECTORS for end in ends if end)
        return self.percent >= 100 * max(last, 0) // total


def _grid(sector: int) -> int:
    """Return the sector on the chunk grid of a chunk that was moved to end with its disk; 0 for -1."""
    return -(-sector // CHUNK_SECTORS) * CHUNK_SECTORS
