"""Reading back what has been written, as far as possible from the medium, and comparing it."""

import hashlib
import threading

from blkmig_cli.disks.image import Image
from blkmig_cli.errors import FailureError
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.schemas.constants import BLOCK_SECTION
from blkmig_cli.text import escape
from blkmig_cli.wire.events import Block

_PIECE = 1 << 20


class Verifier:
    """Holds digests of what has been written since the last :meth:`check`; threads may tell it."""

    def __init__(self) -> None:
        self._written: list[tuple[Block, Image, int, int, bytes | None]] = []
        self._ranges: dict[int, IntervalSet] = {}
        self._lock = threading.Lock()

    def touches(self, image: Image, start: int, end: int) -> bool:
        """Are any of the bytes [start, end) to be read back already?  They are from now on."""
        ranges = self._ranges.setdefault(id(image), IntervalSet())
        touched = ranges.touches(start, end)
        ranges.add(start, end)
        return touched

    def wrote(
        self, event: Block, image: Image, start: int, end: int, data: memoryview | None
    ) -> None:
        """``data``, or zeros (None), were written to bytes [start, end) because of ``event``."""
        digest = None if data is None else hashlib.sha256(data).digest()
        with self._lock:
            self._written.append((event, image, start, end, digest))

    def check(self) -> None:
        """Read it all back; raises FailureError where something else is there."""
        for image in {id(image): image for _, image, *_ in self._written}.values():
            image.flush()
            image.uncache()
        for event, image, start, end, digest in self._written:
            if not _holds(image, start, end, digest):
                raise FailureError(
                    f"{escape(image.path)} reads back other than it was written, "
                    f"in bytes {start}-{end}",
                    offset=event.offset,
                    section=BLOCK_SECTION,
                    device=event.device,
                    sector=event.sector,
                    hint="the medium, or what lies before it, is faulty",
                )
        self._written.clear()
        self._ranges.clear()


def _holds(image: Image, start: int, end: int, digest: bytes | None) -> bool:
    if digest is None:
        return image.is_zero(start, end - start)
    found = hashlib.sha256()
    for at in range(start, end, _PIECE):
        found.update(image.read(at, min(_PIECE, end - at)))
    return found.digest() == digest
