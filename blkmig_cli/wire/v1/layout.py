"""Inferring the length of the bits in v1 records, which the stream does not state, by reading ahead.

The length follows from granularity and disk size, and only the right one leads to a valid next record.
A *layout* is one set of assumptions about both that nothing contradicts; a *reading* is one way to
read a record under a layout.  All readings of a record are continued with the records after it until
the remaining ones agree on its lengths.  Where they never agree, the stream is refused: nothing is
guessed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, TruncatedError, UndecidableError
from blkmig_cli.schemas import block as schema
from blkmig_cli.schemas.constants import (
    BLOCK_FLAG_MASK,
    GRANULARITY_MAX,
    SECTOR_SIZE,
    WORD_SIZE,
    BlockFlag,
)
from blkmig_cli.schemas.dialects import V1, V2
from blkmig_cli.text import decode_name, human_size
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.schema_io import Input, Reader
from blkmig_cli.wire.v1.reading import UNKNOWN, After, Ahead, Layout, Reading, bits_lengths, top_key

# As plain ints: an operation on an enum takes as long as reading a record.
_DEVICE_BLOCK = int(BlockFlag.DEVICE_BLOCK)
_EOS = int(BlockFlag.EOS)
_PROGRESS = int(BlockFlag.PROGRESS)
_HAS_BITMAPS = int(BlockFlag.HAS_BITMAPS)

# By the flags of a word: whether it begins a record of v1, and else a record of v2.
_OURS = [V1.fault(flags) is None for flags in range(BLOCK_FLAG_MASK + 1)]
_THEIRS = [
    bool(flags & _DEVICE_BLOCK) and V2.fault(flags) is None for flags in range(BLOCK_FLAG_MASK + 1)
]
_WORD = schema.RecordWord.sizeof()

_HINT = "specify --granularity [DEVICE:]NAME=SIZE and --device-size [DEVICE=]SIZE"
_SHORT = (After.CUT, After.EDGE)
# The granularities for which a full chunk has 8 bytes of bits.
_COARSE = tuple(1 << shift for shift in range(14, GRANULARITY_MAX.bit_length()))
# For each so many bytes of the stream, one more reading than READINGS_TRIED_MAX may be tried.
_BYTES_A_READING = 16
_NO_TAILS = [UNKNOWN]


class Layouts:
    """The layouts that are still possible, and the lengths of each record in them."""

    def __init__(self, source: Input, hints: Hints, after_eos: Callable[[int], After]) -> None:
        self._source = source
        self._ahead = Ahead(source, 0)
        self._reader = Reader(self._ahead)
        self._hints = hints
        self._after_eos = after_eos
        self._tried = 0
        self._possible: list[Layout] = _NO_TAILS
        # The highest sector of each device so far, and its contribution to the keys of all layouts.
        self._tops: dict[str, int] = {}
        self._tops_key = 0
        # Offsets with keys of layouts from which the end of the records has been reached.
        self._ending: set[tuple[int, int]] = set()

    def note(self, device: str, sector: int) -> bool:
        """Take a record without bitmaps at ``sector``; return whether any layout allows it."""
        if self._possible is not _NO_TAILS and any(layout.tails for layout in self._possible):
            remaining = [
                layout
                for layout in self._possible
                if sector <= layout.tails.get(device, (sector,))[0]
            ]
            if not remaining:
                return False
            self._possible = remaining
        self._note_top(device, sector)
        return True

    def admits(self, event: Block, sectors: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See ``scanner.Rules``: the records whose only possible reading is that of ``event``."""
        device = event.device
        tails = [layout.tails[device][0] for layout in self._possible if device in layout.tails]
        good, none = np.ones(len(sectors), np.bool_), np.zeros(len(sectors), np.bool_)
        if tails:
            good &= sectors < min(tails)
        if not event.flags & _HAS_BITMAPS:
            return good
        if len(self._possible) > 1:
            return none
        (layout,) = self._possible
        if tails or self._hints.size(device) is not None:
            return good
        top = self._tops.get(device, -1)
        if event.sectors_min == event.sectors:
            return good & (sectors < top)
        # Each may be the disk's partial last chunk, which must have as many bits as a full one.
        if any(layout.full[device, part.name] != WORD_SIZE for part in event.bitmaps):
            return none
        return good & (np.diff(sectors, prepend=top) >= 0)

    def decide(self, offset: int, section: str | None) -> Reading:
        """Return the reading of the record at ``offset`` (its word) on which all remaining ones agree.

        Raises MalformedError if none remains, UndecidableError if they still disagree at the limit of
        reading ahead or are too many, TruncatedError if they disagree because the input ends.
        """
        roots = [
            root
            for layout in self._possible
            for root in self._read(Reading(offset, layout), offset)
        ]
        left = self._continued(roots, offset, section)
        lengths = {root.lengths for root in left}
        if any(root.outcome is After.CUT for root in left):
            end = self._input_end(offset)
            raise TruncatedError(
                f"the stream ends at byte {end}, inside or just after the record at byte {offset}",
                offset=end,
                section=section,
            )
        if not lengths:
            raise MalformedError(
                "no layout of the bitmaps makes sense here: damaged, or a granularity or device "
                "size that does not fit",
                offset=offset,
                section=section,
                hint="check --granularity, --device-size and --dialect",
                check="bitmap-layout",
            )
        if len(lengths) > 1:
            self._undecidable(lengths, offset, section)
        self._take(root.layout for root in left)
        low = min(root.sectors[0] for root in left)
        high = max(root.sectors[1] for root in left)
        return left[0].covering((low, high))

    def granularities(self, device: str, bitmap: str) -> list[int]:
        """Return the granularities in bytes that the layout allows, ascending; empty without records."""
        known = self._hints.granularity(device, bitmap)
        if known is not None:
            return [known]
        possible: set[int] = set()
        for length in {layout.full.get((device, bitmap)) for layout in self._possible}:
            if length is not None:
                exact = schema.v1_granularity(length)
                possible.update(_COARSE if exact is None else (exact,))
        return sorted(possible)

    def all_granularities(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """Return the :meth:`granularities` of every bitmap so far, by device and name."""
        seen = {key for layout in self._possible for key in layout.full}
        return {key: tuple(self.granularities(*key)) for key in sorted(seen)}

    def tails(self) -> dict[str, tuple[int, int]]:
        """Return the least and most bytes of the disks whose end is known from a record, by device."""
        devices = set.intersection(*(set(layout.tails) for layout in self._possible))
        found = {}
        for device in devices:
            known = [layout.tails[device] for layout in self._possible]
            found[device] = (
                min(sector + low for sector, low, _ in known) * SECTOR_SIZE,
                max(sector + high for sector, _, high in known) * SECTOR_SIZE,
            )
        return found

    def _take(self, layouts: Iterable[Layout]) -> None:
        """Keep these layouts, which agree on the record that was read ahead."""
        found = list(dict.fromkeys(layouts))
        changed = 0
        for device, sector in found[0].tops.items():
            changed ^= top_key(device, self._tops.get(device, -1), sector)
            self._note_top(device, sector)
        self._possible = [
            Layout(layout.full, layout.tails, {}, layout.key ^ changed) for layout in found
        ]

    def _note_top(self, device: str, sector: int) -> None:
        top = self._tops.get(device, -1)
        if sector > top:
            self._tops[device] = sector
            self._tops_key ^= top_key(device, top, sector)

    def _top(self, layout: Layout, device: str) -> int:
        """Return the highest sector of a record of ``device`` so far; -1 if there was none."""
        found = layout.tops.get(device)
        return self._tops.get(device, -1) if found is None else found

    def _continued(self, roots: list[Reading], offset: int, section: str | None) -> list[Reading]:
        """Return the readings ``roots`` that can be continued until they agree or reading ahead ends."""
        paths = [(root, root) for root in roots]
        while len({root.lengths for root, _ in paths}) > 1:
            further: dict[object, tuple[Reading, Reading]] = {}
            ends = live = False
            for root, tip in paths:
                far = tip.end - offset > limits.LOOKAHEAD_MAX
                # Reading on from a known state would give the same result.
                for child in [tip] if tip.outcome or far else self._read(tip, offset):
                    place = child.outcome or far or (child.end, child.layout)
                    further.setdefault((id(root), place), (root, child))
                    ends |= self._leads_to_end(child)
                    live |= child.outcome is None and not far
            paths = list(further.values())
            # A reading that needs more bytes than exist is right only if the stream is truncated.
            if ends:
                paths = [path for path in paths if path[1].outcome not in _SHORT]
            if not live:
                break
            _bounded(len(paths), limits.READINGS_MAX, offset)
        if len({root.lengths for root, _ in paths}) > 1 and all(
            tip.outcome in _SHORT for _, tip in paths
        ):
            end = self._input_end(offset)
            raise TruncatedError(
                f"the stream ends at byte {end}, too early to tell how long the bitmaps of the record "
                f"at byte {offset} are",
                offset=end,
                section=section,
                hint="specify --granularity and --device-size",
            )
        return list({id(root): root for root, _ in paths}.values())

    def _leads_to_end(self, tip: Reading) -> bool:
        """Return whether the end of the records is known to be reached from ``tip``; record its path."""
        if tip.outcome is None:
            return (tip.end, tip.layout.key ^ self._tops_key) in self._ending
        if tip.outcome is not After.END:
            return False
        before = tip.before
        while before is not None:
            self._ending.add((before.end, before.layout.key ^ self._tops_key))
            before = before.before
        return True

    def _read(self, before: Reading, decided: int) -> list[Reading]:
        """Return all readings of the record after ``before``; ``decided``: offset of the one to decide."""
        offset = before.end
        raw = self._source.peek_at(offset, _WORD)
        self._count(decided)
        if len(raw) == _WORD:
            upper, flags = schema.split_word(int.from_bytes(raw, "big"))
            if not (_OURS[flags] or _THEIRS[flags]):
                return []
            self._ahead.offset = offset + _WORD
            try:
                return list(self._read_record(before, upper, flags, decided))
            except TruncatedError:
                pass
            except MalformedError:
                return []
        return [Reading(offset, before.layout, outcome=After.CUT, before=before)]

    def _read_record(
        self, before: Reading, upper: int, flags: int, decided: int
    ) -> Iterator[Reading]:
        layout, ahead = before.layout, self._ahead
        if not _OURS[flags]:
            # A v2 record of a known device ends the v1 records, but is valid.
            if self._top(layout, self._take_name(schema.DeviceName)) >= 0:
                yield Reading(ahead.offset, layout, outcome=After.END, before=before)
            return
        if not flags & _DEVICE_BLOCK:
            if upper <= (100 if flags & _PROGRESS else 0):
                yield from self._ended(Reading(ahead.offset, layout, before=before), flags)
            return
        device = self._take_name(schema.DeviceName)
        if upper * SECTOR_SIZE > limits.DISK_MAX or "\0" in device:
            return
        top = self._top(layout, device)
        risen = layout.risen(device, upper, top)
        parts = [Reading(ahead.offset, risen, before=before)]
        if flags & _HAS_BITMAPS:
            sectors = layout.sectors(device, upper, top, self._hints.size(device))
            if sectors is None:
                return
            (number,) = self._reader.take(schema.V1BitmapCount)
            if number > limits.BITMAPS_MAX:
                return
            parts = [Reading(ahead.offset, risen, sectors=sectors, before=before)]
            for _ in range(number):
                parts = [
                    longer for part in parts for longer in self._read_bitmap(part, device, decided)
                ]
                if not parts:
                    return
                _bounded(len(parts), limits.READINGS_MAX, decided)
        yield from self._with_data(parts, device, upper, top, flags)

    def _with_data(
        self, parts: list[Reading], device: str, sector: int, top: int, flags: int
    ) -> Iterator[Reading]:
        """Yield ``parts`` with the data and the end of the record."""
        data, sized = V1.data_length(flags), self._hints.size(device) is not None
        for part in parts:
            if part.outcome is not None:
                yield part
                continue
            layout = part.layout.after(device, sector, top, *part.sectors, sized=sized)
            if layout is None:
                continue
            if data and self._available(part.end, data) < data:
                yield part.ended(After.CUT)
                continue
            whole = part.complete(data, layout)
            if flags & _EOS:
                yield from self._ended(whole, flags)
            else:
                yield whole

    def _ended(self, reading: Reading, flags: int) -> Iterator[Reading]:
        """Yield the complete ``reading`` with its outcome."""
        after = self._after_eos(reading.end) if flags & _EOS else After.RECORDS
        if after is After.RECORDS:
            yield reading
        elif after is not After.NONSENSE:
            yield reading.ended(after)

    def _read_bitmap(self, part: Reading, device: str, decided: int) -> Iterator[Reading]:
        """Yield ``part`` with one more bitmap, once for every length that its bits may have."""
        if part.outcome is not None:
            yield part
            return
        self._count(decided)
        self._ahead.offset = part.end
        try:
            name = self._take_name(schema.V1BitmapHead)
        except TruncatedError:
            yield part.ended(After.CUT)
            return
        if not name or "\0" in name:
            return
        start = self._ahead.offset
        granularity = self._hints.granularity(device, name)
        known = part.layout.full.get((device, name))
        if known is None and len(part.layout.full) == limits.BITMAPS_MAX:
            return
        fulls: Sequence[int] = schema.V1_FULL_LENGTHS if known is None else (known,)
        if granularity is not None:
            fulls = (schema.v1_full_length(granularity),)
        for full in fulls:
            layout = part.layout
            if known is None:
                layout = layout.knowing(device, name, full)
                self._count(decided, 1 + len(layout.full) // 64)
            possible = bits_lengths(full, part.sectors)
            most = possible[-1][0]
            there = self._available(start, most)
            for length, sectors in possible:
                if there < most:
                    there = self._available(start, length)
                cut = After.CUT if there < length else None
                lengths = (*part.lengths, length)
                yield Reading(start + length, layout, lengths, sectors, cut, part.before)

    def _take_name(self, counted: object) -> str:
        return decode_name(self._reader.take(counted)[0])

    def _available(self, offset: int, length: int) -> int:
        self._ahead.offset = offset
        return self._ahead.available(length)

    def _count(self, decided: int, tried: int = 1) -> None:
        """Count ``tried`` more readings for the record at ``decided``; raise UndecidableError at a limit."""
        self._tried += tried
        tried, most = self._tried - decided // _BYTES_A_READING, limits.READINGS_TRIED_MAX
        if tried > most:
            _bounded(tried, most, decided)

    def _input_end(self, offset: int) -> int:
        if self._source.size is not None:
            return self._source.size
        return offset + len(self._source.peek_at(offset, limits.LOOKAHEAD_MAX * 2))

    def _undecidable(self, found: set[tuple[int, ...]], offset: int, section: str | None) -> None:
        layouts = [", ".join(map(str, lengths)) for lengths in sorted(found)[:8]]
        raise UndecidableError(
            f"{len(found)} layouts of the bitmaps fit, with bits of "
            + " or ".join(f"({layout})" for layout in layouts)
            + " bytes",
            offset=offset,
            section=section,
            hint=_HINT,
        )


def _bounded(number: int, most: int, offset: int) -> None:
    """Raise UndecidableError where ``number`` readings are too many to follow."""
    if number > most:
        raise UndecidableError(
            f"over {most} layouts of the bitmaps are possible here",
            offset=offset,
            hint=_HINT,
        )


def describe(granularities: Sequence[int]) -> str:
    """Return candidates (powers of two, ascending) as text, such as ``16 KiB, 32 KiB or 64 KiB``."""
    sizes = [human_size(size) for size in granularities]
    if not sizes:
        return "unknown (its records contradict each other)"
    if len(sizes) > 3 and granularities[-1] == granularities[0] << len(sizes) - 1:
        return f"anything from {sizes[0]} to {sizes[-1]}"
    return sizes[0] if len(sizes) == 1 else f"{', '.join(sizes[:-1])} or {sizes[-1]}"
