"""Reading back written data, as far as possible from the medium, and comparing it."""

import hashlib
import threading

from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.image import Image
from blkmig_cli.operations.replay.place import Place
from blkmig_cli.ranges import IntervalSet
from blkmig_cli.text import escape

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Written:
    """Bytes [start, end) of an image: their SHA-256, None for zeros; and their record."""

    place: Place
    image: Image
    start: int
    end: int
    digest: bytes | None

    def is_there(self) -> bool:
        """Return whether the image has these bytes."""
        if self.digest is None:
            return self.image.is_zero(self.start, self.end - self.start)
        found = hashlib.sha256()
        for at in range(self.start, self.end, _PIECE):
            found.update(self.image.read(at, min(_PIECE, self.end - at)))
        return found.digest() == self.digest


class Verifier:
    """Collects digests of what was written since the last :meth:`check`; may be used by threads."""

    def __init__(self) -> None:
        self._written: list[_Written] = []
        self._ranges: dict[int, IntervalSet] = {}
        self._lock = threading.Lock()

    def touches(self, image: Image, start: int, end: int) -> bool:
        """Return whether any of the bytes [start, end) are to be read back; they are from now on."""
        ranges = self._ranges.setdefault(id(image), IntervalSet())
        touched = ranges.touches(start, end)
        ranges.add(start, end)
        return touched

    def wrote(
        self, place: Place, image: Image, start: int, end: int, data: memoryview | None
    ) -> None:
        """Add bytes [start, end) of ``image``, which were written: ``data``, or zeros (None)."""
        digest = None if data is None else hashlib.sha256(data).digest()
        with self._lock:
            self._written.append(_Written(place, image, start, end, digest))

    def check(self) -> None:
        """Read everything back; raises FailureError where it differs."""
        for image in {id(written.image): written.image for written in self._written}.values():
            image.flush()
            image.uncache()
        for written in self._written:
            if not written.is_there():
                raise written.place.failed(
                    f"{escape(written.image.path)} reads back other than it was written, "
                    f"in bytes {written.start}-{written.end}",
                    hint="the medium, or a layer above it, is faulty",
                )
        self._written.clear()
        self._ranges.clear()
