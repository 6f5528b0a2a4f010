"""How large the disks are: what is told, what the stream states, and what its progress bounds.

The device's size is not on the wire.  QEMU's PROGRESS is floor(100 * done / total) over all
devices, where done is the start of the chunk last submitted, and a finished device counts only to
the start of its last chunk.  So each record bounds the total: done is at least the starts of the
chunks seen before it (no chunk comes before it was submitted), and at the last record of the bulk
phase at most the starts of the highest chunks of the whole stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from blkmig_cli.schemas.constants import CHUNK_SECTORS, SECTOR_SIZE


@dataclass(frozen=True, slots=True)
class SizeBounds:
    """Least and most bytes of a disk; ``most`` is None where nothing bounds it.

    ``source``: ``told`` (by an option or an image), ``stream`` (stated on the wire),
    ``bitmap-layout`` (a v1 tail), ``progress``, or ``none``.
    """

    least: int
    most: int | None
    source: str

    @property
    def exact(self) -> int | None:
        """The size in bytes, if there is no room for another."""
        return self.least if self.least == self.most else None

    def allows(self, size: int) -> bool:
        """Return whether a disk of ``size`` bytes is within the bounds."""
        return self.least <= size and (self.most is None or size <= self.most)


@dataclass(slots=True)
class ProgressBounds:
    """Bounds of the sum of all disks, in sectors, from PROGRESS records and the chunks around them.

    ``percent`` is the last of the bulk phase (the 100 of the section's end is not one of them);
    ``final`` says whether that 100 came.
    """

    percent: int | None = None
    final: bool = False
    least: int = 0

    def record(self, percent: int, starts: Mapping[str, int], *, in_end: bool) -> None:
        """A PROGRESS record, after chunks whose highest start sectors are ``starts``."""
        if in_end:
            self.final = percent == 100
            return
        self.percent = percent
        self.least = max(self.least, 100 * sum(starts.values()) // (percent + 1) + 1)

    def most(self, starts: Mapping[str, int]) -> int | None:
        """Most sectors of all disks, with ``starts`` those of the whole stream; None: no bound.

        A bound that the chunks themselves exceed (incremental streams have such) is none.
        """
        if not self.percent:
            return None
        most = 100 * sum(starts.values()) // self.percent
        return most if most >= sum(start + 1 for start in starts.values()) else None

    def device(self, name: str, starts: Mapping[str, int]) -> tuple[int, int | None]:
        """Least and most sectors of the device ``name``; others take at least what came of them."""
        others = sum(start + 1 for other, start in starts.items() if other != name)
        most = self.most(starts)
        least = starts[name] + 1
        if len(starts) == 1 and (most is None or self.least <= most):
            least = max(least, self.least)
        return least, None if most is None else most - others

    def never_sent(self, starts: Mapping[str, int]) -> int:
        """Sectors that are proven to exist beyond the last chunks of all devices; 0 if none are."""
        return max(self.least - sum(start + CHUNK_SECTORS for start in starts.values()), 0)

    def bulk_ended(self, starts: Mapping[str, int], sizes: Mapping[str, int | None]) -> bool | None:
        """Did the bulk phase reach the end of all disks?  None: nothing tells.

        ``sizes`` of the disks in bytes, None where unknown.  A finished disk counts at least to the
        start of its last chunk, also where an incremental stream leaves its last chunks out.
        """
        if self.percent is None or not starts:
            return None
        total = sum(-(-(size or 0) // SECTOR_SIZE) for size in sizes.values())
        if None in sizes.values() or not total:
            # The larger the disks, the less are their last chunks: the least total excuses most.
            total = max(self.least, sum(start + 1 for start in starts.values()))
            last = total - len(starts) * CHUNK_SECTORS
        else:
            ends = [-(-(size or 0) // SECTOR_SIZE) for size in sizes.values()]
            last = sum((end - 1) // CHUNK_SECTORS * CHUNK_SECTORS for end in ends if end)
        return self.percent >= 100 * max(last, 0) // total
