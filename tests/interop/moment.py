"""Which moment of a guest that writes a captured disk is of, by the order of the guest's writes."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.interop.guest import Writer

BLOCK = 4096
_MOST = 1 << 20  # writes

Blocks = NDArray[np.uint32]


def writes_in(writer: Writer, before: Sequence[bytes], captured: Sequence[bytes | None]) -> int:
    """Return after how many writes the guest's two disks were as ``captured`` (None: not captured).

    ``before``: the disks without any.  Fails where they were never like that, at the same time.
    """
    for order in ((0, 1), (1, 0)):  # which one is the first for the guest
        found = _number(writer, before, captured, order)
        if found is not None:
            return found
    raise AssertionError("a value on the wrong disk")


def _number(
    writer: Writer,
    before: Sequence[bytes],
    captured: Sequence[bytes | None],
    order: tuple[int, int],
) -> int | None:
    originals = [_blocks(data) for data in before]
    blocks = {disk: _blocks(data) for disk, data in enumerate(captured) if data is not None}
    values: dict[int, tuple[int, int]] = {}
    for disk, rows in blocks.items():
        for number in np.flatnonzero((rows != originals[disk]).any(axis=1)).tolist():
            assert (rows[number] == rows[number, 0]).all(), "a torn write"
            values[int(rows[number, 0])] = (disk, number)
    assert values, "the guest has not written"
    last, left = 0, len(values)
    writes: list[tuple[int, int, int]] = []
    for count, (drive, block, value) in enumerate(itertools.islice(writer.writes(), _MOST), 1):
        writes.append((order[drive], block, value))
        if value in values:
            if values[value] != (order[drive], block):
                return None
            last, left = count, left - 1
            if not left:
                break
    assert not left, "values that the guest has not written"
    state = [rows.copy() for rows in originals]
    for disk, block, value in writes[:last]:
        state[disk][block] = value
    for disk, rows in blocks.items():
        wrong = np.flatnonzero((rows != state[disk]).any(axis=1))
        assert not len(wrong), f"not as after {last} writes: {len(wrong)} blocks of disk {disk}"
    return last


def is_of_last_writes(writer: Writer, last: int, dirty: set[int], granularity: int) -> bool:
    """Return whether ``dirty`` are the granules of all writes since some time, up to write ``last``."""
    writes = list(itertools.islice(writer.writes(), last))
    for drive in (0, 1):
        found: set[int] = set()
        for disk, block, _ in reversed(writes):
            if found == dirty:
                return True
            if disk == drive:
                found.add(block * BLOCK // granularity)
    return False


def _blocks(data: bytes) -> Blocks:
    return np.frombuffer(data[: len(data) // BLOCK * BLOCK], np.uint32).reshape(-1, BLOCK // 4)
