"""Where reading can go on behind damage.

A place is taken where a record or a section's part stands whose successors are sound, over more than
two chunks or up to the stream's end: so that a disk which itself holds a stream, or records, does
not pass for one.
"""

from collections.abc import Container, Iterator
from heapq import merge

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import SeveralStreamsError, StreamError
from blkmig_cli.progress import Tick
from blkmig_cli.schemas.block import RecordWord, split_word
from blkmig_cli.schemas.constants import (
    BLOCK_SECTION,
    CHUNK_SIZE,
    DIRTY_BITMAP_SECTION,
    SECTOR_SIZE,
    BlockFlag,
)
from blkmig_cli.schemas.dialects import DIALECTS
from blkmig_cli.text import decode_name
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block, DeviceState, Event, Undecoded
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.resume import ResumedDecoder, part_heads
from blkmig_cli.wire.runs import Column, Piece, Run, expand

_WINDOW = 1 << 20
_WORD = RecordWord.sizeof()
_HEAD_MIN = _WORD + 1
_HEAD_MAX = _HEAD_MIN + 255
_CONFIRMED = 2 * CHUNK_SIZE + (1 << 12)
# So many candidates are tried in one window, then the next one's: some garbage is made of them.
_TRIALS = 1 << 9
# The flags of block records, of any dialect.
_FLAGS = [
    flags
    for flags in range(1 << 8)
    if flags & BlockFlag.DEVICE_BLOCK
    and not flags & (BlockFlag.EOS | BlockFlag.PROGRESS)
    and any(dialect.fault(flags) is None for dialect in DIALECTS.values())
]


class Onward:
    """Searches ``source``; ``hints`` bound the disks."""

    def __init__(self, source: FileInput, hints: Hints) -> None:
        self._source = source
        self._size = source.size or 0
        self._hints = hints

    def find(
        self,
        before: Decoder,
        dialect: str,
        known: Container[str],
        start: int,
        stop: int,
        tick: Tick,
    ) -> Decoder | None:
        """The decoder that goes on between the bytes ``start`` and ``stop``, the input being there.

        ``before`` is the one that failed; ``dialect`` is what sound records speak, or ``auto``, and
        ``known`` the devices that they name.  Raises FailureError.
        """
        for at in range(start, stop, _WINDOW):
            end = min(at + _WINDOW, stop)
            trials = 0
            doomed: set[int] = set()  # where what led to a dead end stands
            for offset, between in self._candidates(before, known, at, end):
                if offset in doomed:
                    continue
                trial = ResumedDecoder(before, offset, dialect, between=between)
                if self._leads_on(trial, offset, doomed):
                    return ResumedDecoder(before, offset, dialect, between=between)
                trials += 1
                if trials == _TRIALS:
                    break
            tick(end)
        return None

    def parts(self, piece: Piece) -> Iterator[Piece]:
        """``piece`` as it is; a run of which a record is ``beyond`` as its events."""
        return expand([piece]) if self.beyond(piece) else iter([piece])

    def beyond(self, piece: Piece) -> bool:
        """Is any record of ``piece`` past the end of its device's disk, or of any disk?"""
        columns = piece.columns if isinstance(piece, Run) else (Column(piece),)
        return any(
            self._past(
                column.event.device,
                column.event.sector if column.numbers is None else int(column.numbers.max()),
            )
            for column in columns
            if isinstance(column.event, Block)
        )

    def _past(self, device: str, sector: int) -> bool:
        told = self._hints.size(device)
        return sector * SECTOR_SIZE >= (limits.GROWTH_MAX if told is None else told)

    def is_cut(self, offset: int, known: Container[str]) -> bool:
        """Does the input end within what may follow a record that ends at byte ``offset``?

        Fewer bytes than a word tell nothing: as many may have been lost inside the record.  Nor does
        a name that is not ``known``.
        """
        data = self._source.peek_at(offset, min(_HEAD_MAX, self._size - offset))
        if len(data) < _WORD:
            return False
        upper, flags = split_word(int.from_bytes(data[:_WORD], "big"))
        if flags in _FLAGS:
            name = data[_HEAD_MIN : _HEAD_MIN + data[_WORD]] if len(data) > _WORD else b""
            device = decode_name(name)
            return device in known and not self._past(device, upper)
        return flags in (BlockFlag.EOS, BlockFlag.PROGRESS) and upper <= 100

    def _candidates(
        self, before: Decoder, known: Container[str], start: int, end: int
    ) -> Iterator[tuple[int, bool]]:
        """Where a record, or (True) a part's head may stand in [start, end), in this order."""
        data = self._source.peek_at(start, min(end - start + _HEAD_MAX, self._size - start))
        records = ((place, False) for place in self._records(data, known))
        heads = sorted(
            (place, True)
            for head in part_heads(before, (BLOCK_SECTION, DIRTY_BITMAP_SECTION))
            for place in _places(data, head)
        )
        for place, between in merge(records, heads):
            if start + place >= end:
                break
            yield start + place, between

    def _records(self, data: bytes, known: Container[str]) -> Iterator[int]:
        """Places in ``data`` where the head of a block record may stand."""
        raw = np.frombuffer(data, np.uint8)
        count = max(len(raw) - _HEAD_MIN + 1, 0)

        def byte(number: int) -> NDArray[np.uint8]:
            return raw[number : number + count]

        # A chunk's sector leaves the lowest bits of its word to the flags.
        may = (byte(0) == 0) & (byte(6) == 0) & (byte(5) & 0x0F == 0) & np.isin(byte(7), _FLAGS)
        for place in np.flatnonzero(may).tolist():
            if self._plausible(data[place : place + _HEAD_MAX], known):
                yield place

    def _plausible(self, head: bytes, known: Container[str]) -> bool:
        """May ``head`` begin a record, of a device that is known or has a name that one may have?"""
        sector, _ = split_word(int.from_bytes(head[:_WORD], "big"))
        device = decode_name(head[_HEAD_MIN : _HEAD_MIN + head[_WORD]])
        named = device in known or (device != "" and device.isprintable())
        return named and not self._past(device, sector)

    def _leads_on(self, decoder: Decoder, start: int, doomed: set[int]) -> bool:
        """Is what begins at byte ``start`` sound over more than two chunks, or to the end?

        If not, the places of all records on the way join ``doomed``: starting there leads no further.
        """
        path: list[int] = []
        end = start
        try:
            while end - start <= _CONFIRMED:
                for part in self.parts(decoder.piece()):
                    if isinstance(part, Run):
                        first, end, odd = part.columns[0].event.offset, part.end, False
                        far = min(end, start + _CONFIRMED)
                        for column in part.columns:
                            path.extend(range(column.event.offset, far, part.stride))
                    else:
                        first, end = part.offset, part.offset + part.length
                        path.append(first)
                        odd = suspicious(part) or self.beyond(part)
                    if odd or first in doomed:
                        doomed.update(path)
                        return False
        except StopIteration:
            pass
        except (StreamError, SeveralStreamsError):
            doomed.update(path)
            return False
        return True


def suspicious(event: Event) -> bool:
    """May ``event`` be damage that has swallowed records?"""
    swallowed = isinstance(event, DeviceState) and event.sized_by == "footer"
    return isinstance(event, Undecoded) or (swallowed and event.length > CHUNK_SIZE)


def _places(data: bytes, wanted: bytes) -> Iterator[int]:
    """Where ``wanted`` stands in ``data``."""
    place = data.find(wanted)
    while place >= 0:
        yield place
        place = data.find(wanted, place + 1)
