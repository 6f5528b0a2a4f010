"""The rules of dialect v2, checked while its records are read."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas import block as schema
from blkmig_cli.schemas.constants import (
    CHUNK_SECTORS,
    V2_ATTRIBUTES,
    V2_BITMAPS_MAX,
    V2_BITS_MAX,
    WORD_SIZE,
    BlockFlag,
)
from blkmig_cli.schemas.dirty_bitmap import granularity_fault
from blkmig_cli.text import decode_name, quote
from blkmig_cli.wire.events import Block, BlockBitmap
from blkmig_cli.wire.schema_io import Reader

# As plain numbers: operations on enums are slow.
_HAS_BITMAPS = int(BlockFlag.HAS_BITMAPS)
_CONTENT = int(BlockFlag.HAS_BLOCK | BlockFlag.ZERO_BLOCK)
_ATTRIBUTES = int(V2_ATTRIBUTES)


@dataclass(slots=True)
class _Device:
    """The disk size, highest sector and bitmaps of a device's records so far; sizes in sectors."""

    size: int | None = None
    size_at: int = 0
    reach: int = 0
    granularities: dict[str, int] | None = None


class V2Rules:
    """Checks the records of a v2 stream; keeps state across all of them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._devices: dict[str, _Device] = {}
        self._bitmaps = 0

    def note(self, device: str, sector: int) -> None:
        """Note a record at ``sector`` that was read before v2 was detected."""
        known = self._device(device)
        known.reach = max(known.reach, sector + 1)

    def _device(self, device: str) -> _Device:
        known = self._devices.get(device)
        if known is None:
            known = self._devices[device] = _Device()
        return known

    def record(self, device: str, sector: int, flags: int) -> tuple[int, tuple[BlockBitmap, ...]]:
        """Read the fields between device name and data: sectors covered, and the bitmaps.

        Raises TruncatedError, MalformedError.
        """
        known = self._device(device)
        if not flags & _HAS_BITMAPS:
            self._reach(known, device, sector, sector + 1)
            left = CHUNK_SECTORS if known.size is None else known.size - sector
            return min(CHUNK_SECTORS, left), ()
        sectors, number = self._reader.take(schema.V2Range)
        self._range(known, device, sector, sectors, flags)
        if number > V2_BITMAPS_MAX:
            self._fail(
                f"{number} bitmaps in one record, {V2_BITMAPS_MAX} are allowed", device, sector
            )
        first = known.granularities is None
        if known.granularities is None:
            known.granularities = {}
        names: set[str] = set()
        bitmaps = []
        for _ in range(number):
            bitmap = self._bitmap(known.granularities, first, device, sector, sectors)
            if bitmap.name in names:
                self._fail(f"bitmap {quote(bitmap.name)} twice in one record", device, sector)
            names.add(bitmap.name)
            self._bitmaps += first
            if self._bitmaps > limits.BITMAPS_MAX:
                self._reader.fail(f"over {limits.BITMAPS_MAX} bitmaps", check="limit")
            bitmaps.append(bitmap)
        return sectors, tuple(bitmaps)

    def admits(self, event: Block, sectors: Any) -> NDArray[np.bool_]:
        """See ``scanner.Rules``; ``sectors`` (int64) are so small that bytes do not overflow, either."""
        known = self._devices[event.device]
        good = np.ones(len(sectors), np.bool_)
        if known.size is not None:
            good &= sectors <= known.size - event.sectors
        if event.flags & _HAS_BITMAPS:
            good &= sectors % CHUNK_SECTORS == 0
        for granularity, length in {(part.granularity, part.bits.length) for part in event.bitmaps}:
            if length and granularity is not None:
                words = schema.v2_words(sectors, event.sectors, granularity)
                good &= words * WORD_SIZE == length
        return good

    def took(self, event: Block, top: int) -> None:
        """See ``scanner.Rules``."""
        known = self._devices[event.device]
        covered = event.sectors if event.flags & _HAS_BITMAPS else 1
        known.reach = max(known.reach, top + covered)

    def _range(self, known: _Device, device: str, sector: int, sectors: int, flags: int) -> None:
        if sectors == 0:
            self._fail("a range of 0 sectors", device, sector)
        if sector % CHUNK_SECTORS:
            self._fail("the range does not start on a chunk", device, sector)
        if flags & _CONTENT and sectors > CHUNK_SECTORS:
            self._fail(f"data for a range of {sectors} sectors", device, sector)
        end = sector + sectors
        if sectors % CHUNK_SECTORS:
            if known.size is not None and known.size != end:
                self._fail(
                    f"the disk ends at sector {end} here, at {known.size} at byte {known.size_at}",
                    device,
                    sector,
                )
            known.size, known.size_at = end, self._reader.start
        self._reach(known, device, sector, end)

    def _reach(self, known: _Device, device: str, sector: int, end: int) -> None:
        known.reach = max(known.reach, end)
        if known.size is not None and known.reach > known.size:
            self._fail(
                f"records reach sector {known.reach}, but the disk ends at {known.size} "
                f"(stated at byte {known.size_at})",
                device,
                sector,
            )

    def _bitmap(
        self, granularities: dict[str, int], first: bool, device: str, sector: int, sectors: int
    ) -> BlockBitmap:
        raw, attributes, granularity, length = self._reader.take(schema.V2BitmapHead)
        name = decode_name(raw)
        fault, words = granularity_fault(granularity), 0
        if fault is None and length:
            words = schema.v2_words(sector, sectors, granularity)
        if not raw:
            fault = "its name is empty"
        elif fault is not None:
            pass
        elif attributes & ~_ATTRIBUTES:
            fault = f"reserved flags {attributes & ~_ATTRIBUTES:#x} are set"
        elif not first and name not in granularities:
            fault = "it was not named in the device's first record with bitmaps"
        elif granularities.setdefault(name, granularity) != granularity:
            fault = f"granularity {granularity}, it was {granularities[name]} before"
        elif length > V2_BITS_MAX:
            fault = f"{length} bytes of bits, {V2_BITS_MAX} are allowed"
        elif length not in (0, words * WORD_SIZE):
            fault = f"{length} bytes of bits for {sectors} sectors, {words * WORD_SIZE} are needed"
        if fault is not None:
            self._fail(f"bitmap {quote(name)}: {fault}", device, sector)
        return BlockBitmap(name, granularity, attributes, self._reader.payload(length))

    def _fail(self, message: str, device: str, sector: int) -> None:
        self._reader.fail(message, device=device, sector=sector, check="v2-rules")
