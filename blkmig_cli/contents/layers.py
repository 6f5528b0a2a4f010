"""Streams on top of each other: the last content of each sector of their disks, and where it is.

The streams are placed one behind the other in a space of offsets of its own.
"""

from bisect import bisect_right
from collections.abc import Mapping

from blkmig_cli.contents.final_layout import EndState
from blkmig_cli.schemas.constants import SECTOR_SIZE
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.wire.events import Payload


class LayeredInput:
    """The inputs of several streams as one; no range that is read reaches from one to the next."""

    def __init__(self) -> None:
        self._inputs: list[FileInput] = []
        self._starts: list[int] = []
        self._end = 0

    def add(self, source: FileInput, end: int) -> int:
        """Add an input whose stream ends at byte ``end``; return the offset at which it is placed."""
        start = self._end
        self._inputs.append(source)
        self._starts.append(start)
        self._end += end
        return start

    def read_into(self, target: memoryview, offset: int) -> None:
        """See ``FileInput``."""
        source, at = self._find(offset)
        source.read_into(target, at)

    def give_to(self, pipe: int, payload: Payload) -> int:
        """See ``FileInput``."""
        source, at = self._find(payload.offset)
        return source.give_to(pipe, Payload(at, payload.length))

    def place_of(self, offset: int) -> tuple[int, int]:
        """See ``FileInput``."""
        source, at = self._find(offset)
        return source.place_of(at)

    def _find(self, offset: int) -> tuple[FileInput, int]:
        number = bisect_right(self._starts, offset) - 1
        return self._inputs[number], offset - self._starts[number]


class Layers:
    """The merged layouts of the disks of several streams, by device; the last stream added counts."""

    def __init__(self) -> None:
        self.source = LayeredInput()
        self.disks: dict[str, EndState] = {}

    def add(
        self,
        source: FileInput,
        end: int,
        layouts: Mapping[str, EndState],
        sizes: Mapping[str, int],
        complete: frozenset[str],
    ) -> None:
        """Add a stream that ends at byte ``end`` of ``source``, with the ``layouts`` of its disks.

        ``sizes``: those of its disks in bytes; other disks are dropped.  ``complete``: the devices whose
        disks it has completely, so that layers below no longer count.  Raises LimitError.
        """
        start = self.source.add(source, end)
        merged: dict[str, EndState] = {}
        for device, size in sizes.items():
            sectors = -(-size // SECTOR_SIZE)
            below = None if device in complete else self.disks.get(device)
            found = merged[device] = below or EndState()
            if found.end > sectors:
                found.remove(sectors, found.end)
            for part in layouts.get(device, EndState()).parts(0, sectors):
                data = part[:, 2] >= 0
                part[data, 2] += start
                found.put_all(part)
        self.disks = merged
