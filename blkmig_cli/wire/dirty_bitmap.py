"""The decoder of the ``dirty-bitmap`` section; it enforces every rule that QEMU enforces.

On most of what is refused here, QEMU aborts, loops, or drops bitmaps without an error (QEMU 7.2,
migration/block-dirty-bitmap.c: dirty_bitmap_load_header, dirty_bitmap_load_start,
dirty_bitmap_load_bits).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.schemas import dirty_bitmap as schema
from blkmig_cli.schemas.constants import (
    DIRTY_BITMAP_BITS_MAX,
    SECTOR_SIZE,
    START_ATTRIBUTES,
    WORD_BITS,
    BitmapFlag,
)
from blkmig_cli.text import decode_name, quote
from blkmig_cli.wire.events import BitmapBits, BitmapComplete, BitmapEos, BitmapStart, Event
from blkmig_cli.wire.runs.columns import Numbers, Piece
from blkmig_cli.wire.runs.repeats import Repeats
from blkmig_cli.wire.runs.template import Names
from blkmig_cli.wire.schema_io import Reader

# As plain ints: an operation on an enum takes as long as reading a record.
_BITMAP_NAME = int(BitmapFlag.BITMAP_NAME)
_BITS = int(BitmapFlag.BITS)
_COMPLETE = int(BitmapFlag.COMPLETE)
_DEVICE_NAME = int(BitmapFlag.DEVICE_NAME)
_EOS = int(BitmapFlag.EOS)
_EXTRA_FLAGS = int(BitmapFlag.EXTRA_FLAGS)
_START = int(BitmapFlag.START)
_ZEROES = int(BitmapFlag.ZEROES)
_ATTRIBUTES = int(START_ATTRIBUTES)


class DirtyBitmapDecoder:
    """Decodes chunks; keeps the last names, and which bitmaps have begun and ended, across parts."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._device: str | None = None
        self._bitmap: str | None = None
        self._open: dict[tuple[str, str], int] = {}
        self._started: set[tuple[str, str]] = set()
        self._repeats = Repeats(reader.source, {BitmapBits: self})

    def know(self, other: "DirtyBitmapDecoder") -> None:
        """Copy from ``other`` which bitmaps have begun and ended."""
        self._open, self._started = dict(other._open), set(other._started)

    def payload(self) -> Iterator[Piece]:
        """Yield the chunks of one part of the section, up to the one with EOS.

        Raises TruncatedError, MalformedError.
        """
        while True:
            reader = self._reader
            offset = reader.begin()
            flags, extra = self._flags()
            if flags & _DEVICE_NAME:
                self._device = self._name("device")
            if flags & _BITMAP_NAME:
                self._bitmap = self._name("bitmap")
            chunk: Event | None = None
            if flags & (_START | _COMPLETE | _BITS):
                chunk = self._body(offset, flags, extra)
                yield chunk
            elif flags & _EOS:
                yield BitmapEos(offset, reader.length(), reader.section, flags, extra)
            else:
                reader.fail(f"chunk flags {flags:#x} are neither start, bits, complete nor end")
            if flags & _EOS:
                return
            if isinstance(chunk, BitmapBits):
                yield from self._repeats.record(chunk)
            else:
                self._repeats.clear()

    def repeatable(self, event: BitmapBits) -> bool:
        """See ``scanner.Rules``."""
        return (event.device, event.bitmap) in self._open and not event.flags & _EOS

    @property
    def names(self) -> Names:
        """See ``scanner.Rules``."""
        if self._device is None:
            return ()
        return (self._device,) if self._bitmap is None else (self._device, self._bitmap)

    def needs(self, event: BitmapBits) -> Names:
        """See ``scanner.Rules``; a chunk may name its bitmap, its device, both or none."""
        device, bitmap = event.flags & _DEVICE_NAME, event.flags & _BITMAP_NAME
        if bitmap:
            return () if device else (event.device,)
        return event.device, event.bitmap

    def leaves(self, event: BitmapBits) -> Names:
        """See ``scanner.Rules``."""
        return event.device, event.bitmap

    def admits(
        self, event: BitmapBits, sectors: Numbers, counts: Numbers | None
    ) -> NDArray[np.bool_]:
        """See ``scanner.Rules``."""
        assert counts is not None
        most, word = limits.DISK_MAX // SECTOR_SIZE, WORD_BITS * event.granularity // SECTOR_SIZE
        good: NDArray[np.bool_] = (counts > 0) & (sectors >= 0) & (sectors <= most - counts)
        good &= sectors % word == 0
        if event.bits is None:
            return good
        exact = schema.bits_length(counts, event.granularity)
        good &= (exact <= event.bits.length) & (event.bits.length <= schema.padded_length(exact))
        return good

    def took(self, event: BitmapBits, top: int) -> None:
        """See ``scanner.Rules``."""
        self._device, self._bitmap = event.device, event.bitmap

    def _flags(self) -> tuple[int, bytes]:
        """Return the effective flags, and the flag bytes before them.

        QEMU uses the last byte only (QEMU 7.2, migration/block-dirty-bitmap.c:
        qemu_get_bitmap_flags).
        """
        reader = self._reader
        flags: int = reader.take(schema.ChunkFlags)[0]
        extra = b""
        if flags & _EXTRA_FLAGS:
            extra += bytes([flags])
            flags = reader.take(schema.ChunkFlags)[0]
            if flags & _EXTRA_FLAGS:
                extra += bytes([flags])
                high, flags = divmod(reader.take(schema.MoreFlags)[0], 256)
                if high:
                    reader.fail(f"chunk flags {high:#x}00 are unknown")
                extra += bytes([high])
        return flags, extra

    def _name(self, what: str) -> str:
        name = decode_name(self._reader.take(schema.Alias)[0])
        if not name:
            self._reader.fail(f"the {what}'s name is empty", check="bitmap-name")
        return name

    def _body(self, offset: int, flags: int, extra: bytes) -> Event:
        reader, device, bitmap = self._reader, self._device, self._bitmap
        if device is None or bitmap is None:
            reader.fail("the first chunk names no device and bitmap")
        key = (device, bitmap)
        if flags & _START:
            granularity, attributes = self._start(key)
            return BitmapStart(
                offset,
                reader.length(),
                reader.section,
                device,
                bitmap,
                flags,
                extra,
                granularity,
                attributes,
            )
        if key not in self._open:
            state = "has ended" if key in self._started else "was never started"
            reader.fail(f"bitmap {quote(bitmap)} {state}", device=device)
        if flags & _COMPLETE:
            del self._open[key]
            return BitmapComplete(
                offset, reader.length(), reader.section, device, bitmap, flags, extra
            )
        return self._bits(offset, flags, extra, device, bitmap)

    def _start(self, key: tuple[str, str]) -> tuple[int, int]:
        reader = self._reader
        granularity, attributes = reader.take(schema.Start)
        fault, check = schema.granularity_fault(granularity), "bitmap-granularity"
        if fault is None and key in self._started:
            fault, check = "it starts a second time", "bitmap-restart"
        reserved = attributes & ~_ATTRIBUTES
        if fault is None and reserved:
            fault, check = f"reserved flags {reserved:#x} are set", "bitmap-flags"
        if fault is not None:
            reader.fail(f"bitmap {quote(key[1])}: {fault}", device=key[0], check=check)
        if len(self._started) == limits.BITMAPS_MAX:
            reader.fail(f"over {limits.BITMAPS_MAX} bitmaps", check="limit")
        self._started.add(key)
        self._open[key] = granularity
        return granularity, attributes

    def _bits(self, offset: int, flags: int, extra: bytes, device: str, bitmap: str) -> BitmapBits:
        reader = self._reader
        granularity = self._open[device, bitmap]
        sector, sectors = reader.take(schema.Range)
        bits = None
        fault, check = None, "bitmap-length"
        if sectors == 0:
            fault, check = "a range of 0 sectors (QEMU would loop endlessly)", "bitmap-range"
        elif (sector + sectors) * SECTOR_SIZE > limits.DISK_MAX:
            fault, check = f"its range ends past {limits.DISK_MAX} bytes", "bitmap-range"
        elif sector * SECTOR_SIZE % (WORD_BITS * granularity):
            fault, check = "its range does not start on a word of bits", "bitmap-start"
        elif not flags & _ZEROES:
            (length,) = reader.take(schema.BitsLength)
            exact = schema.bits_length(sectors, granularity)
            if length > DIRTY_BITMAP_BITS_MAX:
                fault = f"{length} bytes of bits in one chunk, {DIRTY_BITMAP_BITS_MAX} are allowed"
            elif not exact <= length <= schema.padded_length(exact):
                fault = f"{length} bytes of bits for {sectors} sectors, {exact} are needed"
            else:
                bits = reader.payload(length)
        if fault is not None:
            reader.fail(
                f"bitmap {quote(bitmap)}: {fault}", device=device, sector=sector, check=check
            )
        return BitmapBits(
            offset,
            reader.length(),
            reader.section,
            device,
            bitmap,
            flags,
            extra,
            sector,
            sectors,
            granularity,
            bits,
        )
