"""Adding a run to a stream's totals: as feeding its events one by one would, but by columns."""

import numpy as np

from blkmig_cli.contents.state import BitmapState, StreamState
from blkmig_cli.disks.bitmap import ascending, last_of_each
from blkmig_cli.ranges import tiles
from blkmig_cli.schemas.block import first_word
from blkmig_cli.schemas.constants import (
    CHUNK_SECTORS,
    CHUNK_SIZE,
    SECTOR_SIZE,
    WORD_BITS,
    BlockFlag,
)
from blkmig_cli.wire.events import Block, BlockBitmap, Progress
from blkmig_cli.wire.runs import Bytes, Column, Numbers, Run
from blkmig_cli.wire.schema_io import Input


def feed_run(state: StreamState, run: Run, source: Input) -> None:
    """Add ``run`` to ``state``; ``source`` gives bits."""
    devices = [c.event.device for c in run.columns if isinstance(c.event, Block)]
    progress = any(isinstance(column.event, Progress) for column in run.columns)
    if progress or len(set(devices)) < len(devices):
        # The order within each row counts.
        for event in run:
            state.feed(event, source)
        return
    # The first row makes whatever is not there yet; the others change numbers only.
    for column in run.columns:
        state.feed(column.event, source)
        if isinstance(column.event, Block) and column.numbers is not None and run.rows > 1:
            _add_blocks(state, column.event, column, run.stride)
    state.end = run.end


def _add_blocks(state: StreamState, event: Block, column: Column, stride: int) -> None:
    """Add the rows behind the first one of ``column``."""
    assert column.numbers is not None
    disk, sectors = state.disk(event.device), column.numbers[1:]
    content = event.data is not None or bool(event.flags & BlockFlag.ZERO_BLOCK)
    if content:
        disk.chunks += len(sectors)
        disk.zero_chunks += len(sectors) * (event.data is None)
        highest = int(sectors.argmax())
        if sectors[highest] > disk.top:
            disk.top = int(sectors[highest])
            disk.top_offset = event.offset + (highest + 1) * stride
        disk.repeated_chunks += disk.covered.add_each(sectors, event.sectors)
    if event.flags & BlockFlag.HAS_BITMAPS:
        disk.bitmaps_covered.add_each(sectors, event.sectors)
    for part, bits in zip(event.bitmaps, column.bits, strict=True):
        bitmap = state.bitmaps[event.device, part.name]
        bitmap.covered.add_each(sectors, event.sectors)
        for rows in tiles(sectors, event.sectors):
            _add_bits(bitmap, part, sectors[rows], event.sectors, bits[1:][rows])


def _add_bits(
    bitmap: BitmapState, part: BlockBitmap, tile: Numbers, length: int, bits: Bytes
) -> None:
    """Add ``bits``, shape (rows, bytes), of ranges of ``length`` sectors at ``tile``."""
    content = bitmap.content
    if content is None:
        assert bitmap.open is not None
        bitmap.open.add_rows(tile, bits)
    elif part.attributes is None:
        words = first_word(tile, content.granularity)  # type: ignore[arg-type]
        content.write_rows(np.asarray(words), bits)
    elif length == CHUNK_SECTORS or not bits.shape[1]:
        first, count = _granules(int(tile.min()), int(tile.max()) + length, content.granularity)
        data = _chunk_granules(tile, content.granularity, bits) if bits.shape[1] else b""
        content.write_granules(first, count, data)
    else:
        for sector, row in zip(tile.tolist(), bits, strict=True):
            content.write_granules(
                *_granules(sector, sector + length, content.granularity), row.tobytes()
            )


def _granules(start: int, end: int, granularity: int) -> tuple[int, int]:
    """The granules that touch the sectors [start, end): first, count."""
    first = start * SECTOR_SIZE // granularity
    return first, (end * SECTOR_SIZE - 1) // granularity - first + 1


def _chunk_granules(tile: Numbers, granularity: int, bits: Bytes) -> bytes:
    """Bits of whole chunks (v2) as :meth:`DirtyBitmap.write_granules` takes them.

    From 32 KiB on, a word holds other chunks' granules beside those of its own record, which are
    not to be taken from it; from 2 MiB on, a granule is in several records, and the last counts.
    """
    if granularity * WORD_BITS <= CHUNK_SIZE:
        return ascending(tile, bits).tobytes()
    granules = tile * SECTOR_SIZE // granularity
    kept = last_of_each(granules)
    granules, bits = granules[kept], bits[kept]
    each = max(CHUNK_SIZE // granularity, 1)
    places = granules[:, None] % WORD_BITS + np.arange(each)
    own = np.take_along_axis(np.unpackbits(bits, axis=1, bitorder="little"), places, axis=1)
    lead = int(granules.min()) % WORD_BITS
    flat = ascending(granules, own).reshape(-1)
    padded = np.zeros(-(-(lead + len(flat)) // WORD_BITS) * WORD_BITS, np.uint8)
    padded[lead : lead + len(flat)] = flat
    return np.packbits(padded, bitorder="little").tobytes()
