"""Searching for the place at which reading continues after damage.

A place is accepted where a record, or a part of a section, is followed by intact ones over more than
two chunks, or up to the stream's end, so that a disk that itself contains a stream or records is not
mistaken for one.
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
    CHUNK_SECTORS,
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
from blkmig_cli.wire.runs.columns import Piece, Run, expand

_WINDOW = 1 << 20
_WORD = RecordWord.sizeof()
_HEAD_MIN = _WORD + 1
_HEAD_MAX = _HEAD_MIN + 255
_CONFIRMED = 2 * CHUNK_SIZE + (1 << 12)
# The most candidates of a kind that are tried in one window, as some garbage consists of them.
_TRIALS = 1 << 9
# The flags of block records, of any dialect.
_FLAGS = [
    flags
    for flags in range(1 << 8)
    if flags & BlockFlag.DEVICE_BLOCK
    and not flags & (BlockFlag.EOS | BlockFlag.PROGRESS)
    and any(dialect.fault(flags) is None for dialect in DIALECTS.values())
]
_IS_FLAGS = np.isin(np.arange(1 << 8), _FLAGS)


class Search:
    """Searches ``source`` for a place at which reading can continue; ``hints`` limit the disks."""

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
        """Return the decoder that continues between the bytes ``start`` and ``stop``, if one can.

        ``before`` is the decoder that failed; ``dialect`` is that of the intact records, or ``auto``,
        and ``known`` are the devices that they name.  The source is then at that place.  Raises
        FailureError.
        """
        for at in range(start, stop, _WINDOW):
            end = min(at + _WINDOW, stop)
            trials = {"record": 0, "unaligned": 0, "part": 0}
            failed: set[int] = set()  # offsets of records that are not followed by enough others
            for offset, kind in self._candidates(before, known, at, end):
                if offset in failed or trials[kind] == _TRIALS:
                    continue
                between = kind == "part"
                trial = ResumedDecoder(before, offset, dialect, between=between)
                if self._is_confirmed(trial, offset, failed):
                    return ResumedDecoder(before, offset, dialect, between=between)
                trials[kind] += 1
            tick(end)
        return None

    def parts(self, piece: Piece) -> Iterator[Piece]:
        """Yield ``piece``, or its events if a record in it is past the end of a disk."""
        return expand([piece]) if self.is_past_end(piece) else iter([piece])

    def is_past_end(self, piece: Piece) -> bool:
        """Return whether any record of ``piece`` is past the end of its disk, or of any disk."""
        if not isinstance(piece, Run):
            return isinstance(piece, Block) and self._is_past(piece.device, piece.sector)
        return any(
            self._is_past(column.event.device, int(column.numbers.max()))
            for column in piece.columns
            if isinstance(column.event, Block) and column.numbers is not None
        )

    def _is_past(self, device: str, sector: int) -> bool:
        size = self._hints.size(device)
        return sector * SECTOR_SIZE >= (limits.GROWTH_MAX if size is None else size)

    def is_truncated_at(self, offset: int, known: Container[str]) -> bool:
        """Return whether the input ends within what may follow a record that ends at ``offset``.

        Fewer bytes than a word are no proof, as that many may have been lost inside the record; nor is
        the name of a device that is not ``known``.
        """
        data = self._source.peek_at(offset, min(_HEAD_MAX, self._size - offset))
        if len(data) < _WORD:
            return False
        upper, flags = split_word(int.from_bytes(data[:_WORD], "big"))
        if flags in _FLAGS:
            name = data[_HEAD_MIN : _HEAD_MIN + data[_WORD]] if len(data) > _WORD else b""
            device = decode_name(name)
            return device in known and not self._is_past(device, upper)
        return flags in (BlockFlag.EOS, BlockFlag.PROGRESS) and upper <= 100

    def _candidates(
        self, before: Decoder, known: Container[str], start: int, end: int
    ) -> Iterator[tuple[int, str]]:
        """Yield the offsets in [start, end) at which a record or a part of a section may begin.

        Each with its kind: ``record``, ``unaligned`` (a record whose sector is not on the grid of chunks),
        or ``part``.
        """
        data = self._source.peek_at(start, min(end - start + _HEAD_MAX, self._size - start))
        heads = sorted(
            (place, "part")
            for head in part_heads(before, (BLOCK_SECTION, DIRTY_BITMAP_SECTION))
            for place in _places(data, head)
        )
        for place, kind in merge(self._records(data, known), heads):
            if start + place >= end:
                break
            yield start + place, kind

    def _records(self, data: bytes, known: Container[str]) -> Iterator[tuple[int, str]]:
        """Yield the places in ``data`` where a block record may begin."""
        raw = np.frombuffer(data, np.uint8)
        count = max(len(raw) - _HEAD_MIN + 1, 0)

        def byte(number: int) -> NDArray[np.uint8]:
            return raw[number : number + count]

        # A word without its flags is a byte number of the disk, whose first bytes are mostly 0.
        sizes = [limits.GROWTH_MAX, *self._hints.sizes.values()]
        first, second = divmod(max(sizes) >> 48, 256)
        may = (byte(0) <= first) & (byte(6) & 1 == 0) & _IS_FLAGS[byte(7)]
        if not first:
            may &= byte(1) <= second
        for place in np.flatnonzero(may).tolist():
            head = data[place : place + _HEAD_MAX]
            sector, _ = split_word(int.from_bytes(head[:_WORD], "big"))
            device = decode_name(head[_HEAD_MIN : _HEAD_MIN + head[_WORD]])
            named = device in known or (device != "" and device.isprintable())
            if named and not self._is_past(device, sector):
                yield place, "unaligned" if sector % CHUNK_SECTORS else "record"

    def _is_confirmed(self, decoder: Decoder, start: int, failed: set[int]) -> bool:
        """Return whether the stream from byte ``start`` is intact over two chunks, or to the end.

        If not, the offsets of all records that were read are added to ``failed``.
        """
        path: list[int] = []
        end = start
        try:
            while end - start <= _CONFIRMED:
                for part in self.parts(decoder.piece()):
                    if isinstance(part, Run):
                        first, end, bad = part.start, part.end, False
                        for column in part.columns:
                            offsets = column.offsets
                            path += offsets[offsets < start + _CONFIRMED].tolist()
                    else:
                        first, end = part.offset, part.offset + part.length
                        path.append(first)
                        bad = may_hide_records(part) or self.is_past_end(part)
                    if bad or first in failed:
                        failed.update(path)
                        return False
        except StopIteration:
            pass
        except (StreamError, SeveralStreamsError):
            failed.update(path)
            return False
        return True


def may_hide_records(event: Event) -> bool:
    """Return whether ``event`` may be damage that hides records."""
    by_footer = isinstance(event, DeviceState) and event.sized_by == "footer"
    return isinstance(event, Undecoded) or (by_footer and event.length > CHUNK_SIZE)


def _places(data: bytes, wanted: bytes) -> Iterator[int]:
    """Yield the places of ``wanted`` in ``data``."""
    place = data.find(wanted)
    while place >= 0:
        yield place
        place = data.find(wanted, place + 1)
