"""Block records: the ``block`` section's payload, and streams of bare records.

Decides the dialect, sizes v1's bits (``v1/layout.py``), and checks v2's rules (``v2_rules.py``).
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.schemas import block as schema
from blkmig_cli.schemas.constants import CHUNK_SECTORS, NAME_WRAP, SECTOR_SIZE, BlockFlag, without
from blkmig_cli.schemas.dialects import CLASSIC, V1, V2, Dialect, dialect_of
from blkmig_cli.text import decode_name
from blkmig_cli.wire.events import Block, BlockBitmap, Eos, Event, Payload, Progress
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.runs.columns import NEAR, Numbers, Piece
from blkmig_cli.wire.runs.repeats import Repeats
from blkmig_cli.wire.runs.template import Names
from blkmig_cli.wire.schema_io import Reader, build
from blkmig_cli.wire.v1.layout import Layouts
from blkmig_cli.wire.v1.reading import After
from blkmig_cli.wire.v2_rules import V2Rules

# As plain numbers: operations on enums are slow.
_DEVICE_BLOCK = int(BlockFlag.DEVICE_BLOCK)
_EOS = int(BlockFlag.EOS)
_PROGRESS = int(BlockFlag.PROGRESS)
_HAS_BITMAPS = int(BlockFlag.HAS_BITMAPS)


@dataclass(frozen=True, slots=True)
class _FirstRecord:
    """A device's first record: the name, and the text after it, which may be more of the name."""

    name: bytes
    behind: bytes


class BlockDecoder:
    """Decodes block records; its state lasts across the section's parts.

    ``dialect`` is None until a record decides it.
    """

    def __init__(
        self,
        reader: Reader,
        dialect: Dialect | None,
        hints: Hints,
        after_eos: Callable[[int], After],
    ) -> None:
        self._reader = reader
        self._fixed = dialect is not None
        self._decided_at = 0
        self._bitmaps_seen = False
        self._not_v2: int | None = None
        self._devices: set[str] = set()
        self._first: _FirstRecord | None = None
        self._hints = hints
        self.dialect = dialect
        self.layouts = Layouts(reader.source, hints, after_eos)
        self.v2 = V2Rules(reader)
        self._repeats = Repeats(reader.source, {Block: self})

    def payload(self) -> Iterator[Piece]:
        """Yield the records of one part of the section, up to the one with EOS.

        Raises TruncatedError, MalformedError, UndecidableError.
        """
        while True:
            event, last = self.record()
            yield event
            if last:
                return
            if runs := self._repeats.record(event):
                yield from runs

    #: See ``scanner.Rules``: each record has its device's name.
    names: Names = ()

    def needs(self, event: Block) -> Names:
        """See ``scanner.Rules``."""
        return ()

    def leaves(self, event: Block) -> Names | None:
        """See ``scanner.Rules``."""
        return None

    def repeatable(self, event: Block) -> bool:
        """See ``scanner.Rules``; False for a partial chunk, and where the dialect has changed.

        Zeros past the disk's end, which cover nothing, may be taken as well.
        """
        dialect = None if self.dialect is None else self.dialect.name
        past = not event.sectors
        return (
            event.dialect == dialect
            and not event.flags & _EOS
            and event.sectors % CHUNK_SECTORS == 0
            and not (past and (event.data or event.flags & _HAS_BITMAPS))
            and all(
                part.attributes is not None
                or part.granularity == self._v1_granularity(event.device, part.name)
                for part in event.bitmaps
            )
        )

    def admits(
        self, event: Block, sectors: Numbers, counts: Numbers | None = None
    ) -> NDArray[np.bool_]:
        """See ``scanner.Rules``."""
        # Bits are placed by byte numbers; where these do not fit in 63 bits, records are read one by one.
        good = sectors <= NEAR if event.bitmaps else np.ones(len(sectors), np.bool_)
        v2 = self.dialect is V2
        size = self._hints.size(event.device)
        if size is not None and not (v2 and event.flags & _HAS_BITMAPS):
            end = -(-size // SECTOR_SIZE)
            good &= sectors <= end - CHUNK_SECTORS if event.sectors else sectors >= end
        if v2:
            return good & self.v2.admits(event, np.minimum(sectors, NEAR))
        return good & self.layouts.admits(event, sectors)

    def took(self, event: Block, top: int) -> None:
        """See ``scanner.Rules``."""
        if self.dialect is V2:
            self.v2.took(event, top)
            return
        if not event.flags & BlockFlag.HAS_BITMAPS:
            self.v2.note(event.device, top)
        self.layouts.note(event.device, top)

    def record(self) -> tuple[Event, bool]:
        """Read one record; return it, and whether it ends the payload."""
        reader = self._reader
        offset = reader.begin()
        (word,) = reader.take(schema.RecordWord)
        upper, flags = schema.split_word(word)
        if flags & _DEVICE_BLOCK:
            self._choose_dialect(flags)
        # Before a dialect is decided, classic's rule is the one that all share.
        fault = (self.dialect or CLASSIC).fault(flags)
        if fault is not None:
            self._fail_if_wrapped()
            reader.fail(fault, check="unknown-flags", hint=self._hint())
        self._first = None
        last = bool(flags & _EOS)
        if flags & _DEVICE_BLOCK:
            return self._block(offset, upper, flags), last
        length, section = reader.length(), reader.section
        if flags & _PROGRESS:
            return Progress(offset, length, section, upper, flags), last
        return Eos(offset, length, section, word), last

    def _fail_if_wrapped(self) -> None:
        """Raise MalformedError if a device's name is longer than its length byte states.

        QEMU writes the length modulo 256 and all of the name (QEMU 7.2, migration/block.c:
        blk_send), so that the record after the device's first one is a multiple of 256 bytes late.
        """
        first = self._first
        if first is None:
            return
        for extra in range(NAME_WRAP, len(first.behind) + 1, NAME_WRAP):
            if self._record_at(self._reader.start + extra, first.name, first.behind[:extra]):
                self._reader.fail(
                    f"the device's name is {extra} bytes longer than its length byte says",
                    device=decode_name(first.name),
                    hint="QEMU does this to names over 255 bytes; capture again with a shorter one",
                    check="name-wrapped",
                )

    def _record_at(self, offset: int, name: bytes, rest: bytes) -> bool:
        """Return whether a record of the device ``name`` and ``rest``, or an end, is at ``offset``."""
        source, head = self._reader.source, schema.RecordWord.sizeof()
        raw = source.peek_at(offset, head)
        if len(raw) < head:
            return False
        upper, flags = schema.split_word(int.from_bytes(raw, "big"))
        if (self.dialect or CLASSIC).fault(flags) is not None:
            return False
        if flags & _DEVICE_BLOCK:
            wanted = build(schema.DeviceName, name) + rest
            return source.peek_at(offset + head, len(wanted)) == wanted
        return upper <= 100

    def _note_first(self, name: bytes) -> None:
        """Record what follows the name in a device's first record, as far as it may belong to the name.

        QEMU's ids consist of letters, digits and "-", ".", "_" (QEMU 7.2, util/id.c: id_wellformed).
        """
        data = self._reader.source.peek(limits.NAME_MAX)
        text = next((at for at, byte in enumerate(data) if byte <= 0x20 or byte == 0x7F), len(data))
        self._first = _FirstRecord(name, data[:text])

    def _hint(self) -> str | None:
        if self._fixed or self.dialect is None:
            return None
        return (
            f"dialect {self.dialect.name} was detected at byte {self._decided_at}; "
            "set another with --dialect"
        )

    def _choose_dialect(self, flags: int) -> None:
        """Decide the dialect at the first record that shows it; change v1 to v2 if the flags require it."""
        if self._fixed:
            return
        spoken = dialect_of(flags)
        if self.dialect is None:
            if spoken is not None:
                self.dialect, self._decided_at = spoken, self._reader.start
        elif spoken is V2 and self.dialect is V1 and not self._bitmaps_seen:
            if self._not_v2 is not None:
                self._contradiction(spoken, self._not_v2)
            self.dialect, self._decided_at = V2, self._reader.start
        elif spoken is not None and without(spoken.flags, self.dialect.flags):
            self._contradiction(spoken, self._decided_at)
        if self.dialect is V1:
            if V2.fault(flags) is not None and self._not_v2 is None:
                self._not_v2 = self._reader.start
            self._bitmaps_seen |= bool(flags & _HAS_BITMAPS)

    def _contradiction(self, spoken: Dialect, other: int) -> None:
        assert self.dialect is not None
        self._fail_if_wrapped()
        self._reader.fail(
            f"this record has dialect {spoken.name}, but the one at byte {other} has "
            f"dialect {self.dialect.name}",
            hint="choose one with --dialect",
            check="dialect",
        )

    def _block(self, offset: int, sector: int, flags: int) -> Block:
        reader = self._reader
        (name,) = reader.take(schema.DeviceName)
        device = decode_name(name)
        if device not in self._devices:
            self._devices.add(device)
            if len(self._devices) > limits.DEVICES_MAX:
                reader.fail(f"over {limits.DEVICES_MAX} devices", check="limit")
            self._note_first(name)
        dialect = self.dialect or CLASSIC
        bitmaps: tuple[BlockBitmap, ...] = ()
        low = high = self._covered(device, sector)
        if dialect is V2:
            stated, bitmaps = self.v2.record(device, sector, flags)
            # A record without a range covers the rest of the disk, if the disk's size is known.
            low = high = stated if flags & _HAS_BITMAPS else min(stated, high)
        elif flags & _HAS_BITMAPS:
            low, high, bitmaps = self._v1_bitmaps(offset, device, sector)
        else:
            self.v2.note(device, sector)
            if not self.layouts.note(device, sector):
                reader.fail("a block past the disk's end", device=device, sector=sector)
        length = dialect.data_length(flags)
        data = reader.payload(length) if length else None
        return Block(
            offset,
            reader.length(),
            reader.section,
            device,
            sector,
            high,
            low,
            flags,
            None if self.dialect is None else dialect.name,
            data,
            bitmaps,
        )

    def _covered(self, device: str, sector: int) -> int:
        """Return the sectors of the disk that a chunk at ``sector`` covers; 2048 without a size."""
        size = self._hints.size(device)
        if size is None:
            return CHUNK_SECTORS
        return max(min(CHUNK_SECTORS, -(-size // SECTOR_SIZE) - sector), 0)

    def _v1_granularity(self, device: str, bitmap: str) -> int | None:
        """Return the only granularity (bytes) that the layout allows; None if there are several."""
        possible = self.layouts.granularities(device, bitmap)
        return possible[0] if len(possible) == 1 else None

    def _v1_bitmaps(
        self, offset: int, device: str, sector: int
    ) -> tuple[int, int, tuple[BlockBitmap, ...]]:
        reader = self._reader
        size = self._hints.size(device)
        if size is not None and sector * SECTOR_SIZE >= size:
            reader.fail(
                "bitmaps past the disk's end have no length",
                device=device,
                sector=sector,
                hint="check --device-size",
            )
        reading = self.layouts.decide(offset, reader.section)
        reader.take(schema.V1BitmapCount)
        found: list[tuple[str, Payload]] = []
        for length in reading.lengths:
            name = decode_name(reader.take(schema.V1BitmapHead)[0])
            found.append((name, reader.payload(length)))
        bitmaps = []
        for name, bits in found:
            bitmaps.append(BlockBitmap(name, self._v1_granularity(device, name), None, bits))
        return *reading.sectors, tuple(bitmaps)
