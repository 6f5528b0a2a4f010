"""How long the bits of a v1 record are, when the wire does not say: inference by landing.

v1 writes bits without a length.  Their length follows from granularity and disk size, and only a
right guess makes the next record land where it should.  A *world* is one consistent belief about
both; a *reading* is one way to read a record in a world.  All readings of a record are followed
into the records behind it until those that survive agree on the record's lengths.  Where they go
on disagreeing, the stream is refused: nothing is ever guessed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, TruncatedError, UndecidableError
from blkmig_cli.schemas import block as schema
from blkmig_cli.schemas.constants import (
    CHUNK_SECTORS,
    GRANULARITY_MAX,
    SECTOR_SIZE,
    WORD_BITS,
    WORD_SIZE,
    BlockFlag,
)
from blkmig_cli.schemas.dialects import V1, V2
from blkmig_cli.text import decode_name, human_size
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.lookahead import Ahead
from blkmig_cli.wire.schema_io import Input, Reader

# As plain numbers: an operation on an enum takes as long as reading a record should.
_DEVICE_BLOCK = int(BlockFlag.DEVICE_BLOCK)
_EOS = int(BlockFlag.EOS)
_PROGRESS = int(BlockFlag.PROGRESS)
_HAS_BITMAPS = int(BlockFlag.HAS_BITMAPS)


class After(Enum):
    """What stands after a record that ends the payload, or why a reading goes no further.

    EDGE: the record is whole, and there the input ends too early.  CUT: it ends inside the record.
    """

    RECORDS = "records"
    END = "end"
    NONSENSE = "nonsense"
    EDGE = "edge"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class World:
    """One consistent belief.

    ``full``: bytes of bits per full chunk by (device, bitmap).  ``tails``: where a device's disk is
    known to end inside a chunk: (sector, least and most sectors).  ``tops``: highest sector seen.
    """

    full: Mapping[tuple[str, str], int]
    tails: Mapping[str, tuple[int, int, int]]
    tops: Mapping[str, int]

    def key(self) -> tuple[object, ...]:
        """The same for worlds that believe the same."""
        return tuple(frozenset(belief.items()) for belief in (self.full, self.tails, self.tops))

    def sectors(self, device: str, sector: int, size: int | None) -> tuple[int, int] | None:
        """Least and most sectors that a record at ``sector`` covers; None: it cannot stand there."""
        if size is not None:
            left = -(-size // SECTOR_SIZE) - sector
            return None if left <= 0 else (min(CHUNK_SECTORS, left),) * 2
        tail = self.tails.get(device)
        if tail is not None and sector >= tail[0]:
            return tail[1:] if sector == tail[0] else None
        if tail is not None or self.tops.get(device, -1) > sector:
            return (CHUNK_SECTORS, CHUNK_SECTORS)
        return (1, CHUNK_SECTORS)

    def after(
        self, device: str, sector: int, low: int, high: int, *, sized: bool
    ) -> "World | None":
        """This world after a record of ``low`` to ``high`` sectors at ``sector``; None: contradiction.

        ``sized``: the disk's size is known, so that no record needs to show its end.
        """
        tail = self.tails.get(device)
        if tail is not None and sector > tail[0]:
            return None
        top = self.tops.get(device, -1)
        tails = self.tails
        if high < CHUNK_SECTORS and not sized:
            if top > sector:
                return None
            tails = {**tails, device: (sector, low, high)}
        tops = self.tops if top >= sector else {**self.tops, device: sector}
        return World(self.full, tails, tops)


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a record: where it ends, its bits' lengths, its sectors, the world after it.

    ``fate`` is None where records follow.
    """

    end: int
    world: World
    lengths: tuple[int, ...] = ()
    sectors: tuple[int, int] = (CHUNK_SECTORS, CHUNK_SECTORS)
    fate: After | None = None


class Layouts:
    """The worlds that are still possible, and the lengths that they give to each record."""

    def __init__(self, source: Input, hints: Hints, after_eos: Callable[[int], After]) -> None:
        self._source = source
        self._hints = hints
        self._after_eos = after_eos
        self._followed = 0
        self.worlds: list[World] = [World({}, {}, {})]

    def note(self, device: str, sector: int) -> bool:
        """A record without bitmaps stands at ``sector``; False if no world allows it."""
        sized = self._hints.size(device) is not None
        after = [
            world.after(device, sector, CHUNK_SECTORS, CHUNK_SECTORS, sized=sized)
            for world in self.worlds
        ]
        self.worlds = _distinct(world for world in after if world is not None)
        return bool(self.worlds)

    def admits(self, event: Block, sectors: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See ``scan.Rules``: which records can be read in one way only, that of ``event``."""
        device = event.device
        tails = [world.tails[device][0] for world in self.worlds if device in world.tails]
        good, none = np.ones(len(sectors), np.bool_), np.zeros(len(sectors), np.bool_)
        if tails:
            good &= sectors < min(tails)
        if not event.flags & _HAS_BITMAPS:
            return good
        if len(self.worlds) > 1:
            return none
        (world,) = self.worlds
        if tails or self._hints.size(device) is not None:
            return good
        top = world.tops.get(device, -1)
        if event.sectors_min == event.sectors:
            return good & (sectors < top)
        # Each may be the disk's last, and cut: that leaves one reading only where a cut chunk
        # has as many bits as a whole one.
        if any(world.full[device, part.name] != WORD_SIZE for part in event.bitmaps):
            return none
        return good & (np.diff(sectors, prepend=top) >= 0)

    def decide(self, offset: int, section: str | None) -> Reading:
        """The reading of the record at ``offset`` (its word), agreed on by all that survive.

        Raises MalformedError if none survives, UndecidableError if they disagree for as far as is
        looked ahead, TruncatedError if the input's end is what keeps them apart.
        """
        roots = [root for world in self.worlds for root in self._read(world, offset)]
        survivors = self._survivors(roots, offset, section)
        lengths = {root.lengths for root in survivors}
        if any(root.fate is After.CUT for root in survivors):
            raise TruncatedError(
                f"the stream ends inside or just after a record that began at byte {offset}",
                offset=self._input_end(offset),
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
        self.worlds = _distinct(root.world for root in survivors)
        low = min(root.sectors[0] for root in survivors)
        high = max(root.sectors[1] for root in survivors)
        return replace(survivors[0], sectors=(low, high))

    def granularities(self, device: str, bitmap: str) -> list[int]:
        """Granularities in bytes that the layout leaves possible, ascending; empty: none seen."""
        told = self._hints.granularity(device, bitmap)
        if told is not None:
            return [told]
        possible: set[int] = set()
        for world in self.worlds:
            length = world.full.get((device, bitmap))
            if length is not None:
                exact = schema.v1_granularity(length)
                possible.update(_COARSE if exact is None else (exact,))
        return sorted(possible)

    def all_granularities(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """:meth:`granularities` of every bitmap seen, by device and name."""
        seen = {key for world in self.worlds for key in world.full}
        return {key: tuple(self.granularities(*key)) for key in sorted(seen)}

    def tails(self) -> dict[str, tuple[int, int]]:
        """Least and most bytes of the disks whose end a record showed, by device."""
        devices = set.intersection(*(set(world.tails) for world in self.worlds))
        found = {}
        for device in devices:
            known = [world.tails[device] for world in self.worlds]
            found[device] = (
                min(sector + low for sector, low, _ in known) * SECTOR_SIZE,
                max(sector + high for sector, _, high in known) * SECTOR_SIZE,
            )
        return found

    def _survivors(self, roots: list[Reading], offset: int, section: str | None) -> list[Reading]:
        """The roots that can be followed, until their lengths agree or looking ahead ends."""
        paths = [(root, root) for root in roots]
        while len({root.lengths for root, _ in paths}) > 1:
            onward = []
            for root, tip in paths:
                if tip.fate is not None or tip.end - offset > limits.LOOKAHEAD_MAX:
                    onward.append((root, tip))
                else:
                    onward.extend((root, child) for child in self._read(tip.world, tip.end))
            # Whoever needs more bytes than there are is right only if the stream was cut.
            if any(tip.fate is After.END for _, tip in onward):
                onward = [path for path in onward if path[1].fate not in _SHORT]
            if onward == paths:
                break
            paths = onward
            self._followed += len(paths)
            _bounded(len(paths), limits.READINGS_MAX, offset)
            _bounded(self._followed - offset, limits.FOLLOWED_MAX, offset)
        if len({root.lengths for root, _ in paths}) > 1 and all(
            tip.fate in _SHORT for _, tip in paths
        ):
            raise TruncatedError(
                f"the stream ends too early to tell how long the bitmaps of the record at byte "
                f"{offset} are",
                offset=self._input_end(offset),
                section=section,
                hint="give --granularity and --device-size",
            )
        return list({id(root): root for root, _ in paths}.values())

    def _read(self, world: World, offset: int) -> list[Reading]:
        """Every way to read the record at ``offset`` in ``world``."""
        reader = Reader(Ahead(self._source, offset))
        try:
            return list(self._read_record(reader, world))
        except TruncatedError:
            return [Reading(offset, world, fate=After.CUT)]
        except MalformedError:
            return []

    def _read_record(self, reader: Reader, world: World) -> Iterator[Reading]:
        upper, flags = schema.split_word(reader.take(schema.RecordWord)[0])
        if V1.fault(flags) is not None:
            if flags & _DEVICE_BLOCK and V2.fault(flags) is None:
                yield from self._other_dialect(reader, world)
            return
        if not flags & _DEVICE_BLOCK:
            if upper <= (100 if flags & _PROGRESS else 0):
                yield from self._ended(Reading(reader.source.offset, world), flags)
            return
        device = decode_name(reader.take(schema.DeviceName)[0])
        if upper * SECTOR_SIZE > limits.DISK_MAX or "\0" in device:
            return
        parts = [Reading(reader.source.offset, world)]
        if flags & _HAS_BITMAPS:
            sectors = world.sectors(device, upper, self._hints.size(device))
            if sectors is None:
                return
            (number,) = reader.take(schema.V1BitmapCount)
            if number > limits.V1_BITMAPS_MAX:
                return
            parts = [Reading(reader.source.offset, world, sectors=sectors)]
            for _ in range(number):
                parts = [longer for part in parts for longer in self._read_bitmap(part, device)]
                if not parts:
                    return
                _bounded(len(parts), limits.READINGS_MAX, reader.start)
        data = V1.data_length(flags)
        for part in parts:
            if part.fate is None:
                yield from self._with_data(part, device, upper, flags, data)
            else:
                yield part

    def _other_dialect(self, reader: Reader, world: World) -> Iterator[Reading]:
        """A v2 record of a known device: not ours to read, but no nonsense either."""
        if decode_name(reader.take(schema.DeviceName)[0]) in world.tops:
            yield Reading(reader.source.offset, world, fate=After.END)

    def _with_data(
        self, part: Reading, device: str, sector: int, flags: int, data: int
    ) -> Iterator[Reading]:
        sized = self._hints.size(device) is not None
        after = part.world.after(device, sector, *part.sectors, sized=sized)
        if after is None:
            return
        if Ahead(self._source, part.end).available(data) < data:
            yield replace(part, fate=After.CUT)
            return
        ended = Reading(part.end + data, after, part.lengths, part.sectors)
        yield from self._ended(ended, flags)

    def _ended(self, reading: Reading, flags: int) -> Iterator[Reading]:
        """``reading``, which is whole, with its fate."""
        after = self._after_eos(reading.end) if flags & _EOS else After.RECORDS
        if after is After.RECORDS:
            yield reading
        elif after is not After.NONSENSE:
            yield replace(reading, fate=after)

    def _read_bitmap(self, part: Reading, device: str) -> Iterator[Reading]:
        """``part`` with one more bitmap, once for every length that its bits may have."""
        if part.fate is not None:
            yield part
            return
        reader = Reader(Ahead(self._source, part.end))
        try:
            (raw,) = reader.take(schema.V1BitmapHead)
        except TruncatedError:
            yield replace(part, fate=After.CUT)
            return
        if not raw or 0 in raw:
            return
        name = decode_name(raw)
        told = self._hints.granularity(device, name)
        known = part.world.full.get((device, name))
        if known is None and len(part.world.full) == limits.V1_BITMAPS_MAX:
            return
        fulls = schema.V1_FULL_LENGTHS if known is None else (known,)
        if told is not None:
            fulls = (schema.v1_full_length(told),)
        start = reader.source.offset
        for full in fulls:
            world = part.world
            if known is None:
                full_of = {**world.full, (device, name): full}
                world = World(full_of, world.tails, world.tops)
            for length, sectors in _bits_lengths(full, told, part.sectors):
                there = Ahead(self._source, start).available(length)
                fate = None if there == length else After.CUT
                yield Reading(start + length, world, (*part.lengths, length), sectors, fate)

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
            hint=_TELL,
        )


_TELL = "give --granularity [DEVICE:]NAME=SIZE and --device-size [DEVICE=]SIZE"
_SHORT = (After.CUT, After.EDGE)
# What 8 bytes of bits per full chunk can mean.
_COARSE = tuple(1 << shift for shift in range(14, GRANULARITY_MAX.bit_length()))


def _bits_lengths(
    full: int, told: int | None, sectors: tuple[int, int]
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Lengths in bytes that bits may have, each with the sectors that it leaves possible.

    ``full`` is the length for a full chunk, ``told`` the granularity in bytes if known.
    """
    granularity = told or schema.v1_granularity(full)
    low, high = sectors
    if granularity is None or full == WORD_SIZE:
        yield WORD_SIZE, sectors
        return
    span = WORD_BITS * granularity // SECTOR_SIZE
    for words in range(-(-low // span), -(-high // span) + 1):
        yield words * WORD_SIZE, (max(low, (words - 1) * span + 1), min(high, words * span))


def _bounded(number: int, most: int, offset: int) -> None:
    """Too many readings to follow: refuse."""
    if number > most:
        raise UndecidableError(
            f"over {most} layouts of the bitmaps are possible here",
            offset=offset,
            hint=_TELL,
        )


def _distinct(worlds: Iterator[World]) -> list[World]:
    return list({world.key(): world for world in worlds}.values())


def describe(granularities: Sequence[int]) -> str:
    """Candidates (powers of two, ascending) in a few words: ``16 KiB, 32 KiB or 64 KiB``."""
    sizes = [human_size(size) for size in granularities]
    if not sizes:
        return "unknown (its records contradict each other)"
    if len(sizes) > 3 and granularities[-1] == granularities[0] << len(sizes) - 1:
        return f"anything from {sizes[0]} to {sizes[-1]}"
    return sizes[0] if len(sizes) == 1 else f"{', '.join(sizes[:-1])} or {sizes[-1]}"
