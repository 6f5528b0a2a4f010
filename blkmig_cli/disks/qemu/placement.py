"""Where the data of an image lies in its file, as qemu-img map tells it, so that it is read from there.

That is several times as fast as through a server.  The image must be locked against writers, and be a
single file without a backing file.
"""

import io
import json
import subprocess
import tempfile
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from operator import itemgetter
from typing import IO, Any, NamedTuple, cast

from blkmig_cli.disks.qemu.create import PACKAGE, PROGRAM
from blkmig_cli.errors import FailureError
from blkmig_cli.system.children import start_child
from blkmig_cli.text import escape

# Extents that are known before they are needed.
_AHEAD = 64
# Extents that may be passed over before the first range that is asked for, and before each; and those kept.
_PASSED, _EACH, _KEPT = 1 << 12, 64, 1 << 16
# Ranges around which places stay known: the chunks of a section part are all read before the second reading
# begins.
_RECENT = 16
_SHOWN = 400
_READ = 1 << 16
_UNEXPECTED = "its output is not what was expected"


class Placement:
    """The places of the data of the image at ``path``, described to QEMU by ``options``, ascending.

    :meth:`extents` reads them one by one; :meth:`split` knows those around the last ones it was given.  After
    :meth:`follow`, they are read as far as ranges are asked for.  Both wait less after :meth:`begin`.
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self._path = path
        self._options = options
        # The start, end, and offset in the file (None: compressed) of extents, ascending; none are left out
        # from byte ``_used`` on, as far as the map has been read.
        self._known: list[tuple[int, int, int | None]] = []
        self._used = 0
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._following: Generator[tuple[int, int, int | None], None, None] | None = None
        self._left = self._reached = 0
        self._begun: _Process | None = None

    def begin(self) -> None:
        """Start qemu-img map, whose output is read later; raises FailureError."""
        self._begun = self._start()

    def extents(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, length) with data, in bytes; raises FailureError."""
        self._forget()
        waiting: deque[tuple[int, int]] = deque()
        for start, length, offset in self._map():
            while self._known and self._known[0][1] <= self._used:
                self._known.pop(0)
            self._known.append((start, start + length, offset))
            waiting.append((start, length))
            if len(waiting) > _AHEAD:
                yield waiting.popleft()
        yield from waiting

    def follow(self) -> None:
        """Know the places in the ranges that :meth:`data` is asked for, which ascend.

        This ends where the image has far more extents than ranges are asked for.
        """
        self._forget()
        self._following, self._left, self._reached = self._map(), _PASSED, 0

    def close(self) -> None:
        """Forget all places, and end qemu-img if it runs."""
        self._forget()
        if self._begun is not None:
            self._begun.stack.close()
            self._begun = None

    def _forget(self) -> None:
        self._known.clear()
        self._recent.clear()
        self._used = 0
        if self._following is not None:
            self._following.close()
            self._following = None

    def data(self, offset: int, length: int) -> list[tuple[int, int]] | None:
        """Return the parts (start, length) of a range with data, None if not known; raises FailureError."""
        self._advance(offset, length)
        if self._following is None or offset < self._used:
            return None
        return [(start, part) for start, part, _ in self._within(offset, offset + length)]

    def _advance(self, offset: int, length: int) -> None:
        """Read the extents as far as the end of a range, if they are followed."""
        if self._following is None:
            return
        self._left += _EACH
        if len(self._known) > _KEPT:
            self._used = max(self._used, self._known[_KEPT // 2 - 1][1])
            del self._known[: _KEPT // 2]
        while self._reached < offset + length:
            entry = next(self._following, None)
            if entry is None:
                self._reached = 1 << 64
                break
            start, size, place = entry
            self._reached = start + size
            self._left -= 1
            if not self._left:
                self._forget()
                break
            self._known.append((start, self._reached, place))

    def split(self, offset: int, length: int) -> Iterator[tuple[int, int, int | None]]:
        """Yield the parts (start, length, place) of a range; place None: not in the file, or not known."""
        end = offset + length
        if self._following is None:
            # The last chunk of a disk may begin before that of its end.
            self._recent.append(offset - length)
            self._used = min(self._recent)
        for start, part, place in self._within(offset, end):
            if offset < start:
                yield offset, start - offset, None
            yield start, part, place
            offset = start + part
        if offset < end:
            yield offset, end - offset, None

    def _within(self, low: int, high: int) -> Iterator[tuple[int, int, int | None]]:
        """Yield the known extents in bytes [low, high): start, length, and offset in the file."""
        at = max(bisect_right(self._known, low, key=itemgetter(0)) - 1, 0)
        for start, end, place in self._known[
            at : bisect_left(self._known, high, key=itemgetter(0))
        ]:
            first = max(start, low)
            if first < end:
                part = min(end, high) - first
                yield first, part, None if place is None else place + first - start

    def _map(self) -> Generator[tuple[int, int, int | None], None, None]:
        """Yield start, length and offset of the data that qemu-img map lists; raises FailureError."""
        (stack, process, errors), self._begun = self._begun or self._start(), None
        last = b""
        with stack:
            for lines in _lines(cast(io.BufferedReader, process.stdout)):
                yield from self._entries(lines)
                last = lines
            if process.wait():
                errors.seek(0)
                said = errors.read().strip().splitlines()[-1:] or [b"failed"]
                raise self._failed(said[0].decode("utf-8", "replace")[:_SHOWN])
        if not last.endswith(b"]"):
            raise self._failed(_UNEXPECTED)

    def _entries(self, lines: bytes) -> list[tuple[int, int, int | None]]:
        """Return start, length and offset of the data in ``lines`` of an array, an entry on each."""
        try:
            return [
                (int(entry["start"]), int(entry["length"]), entry.get("offset"))
                for entry in json.loads(b"[%b]" % lines.strip(b"[], \r\n"))
                if not entry["zero"]
            ]
        except (ValueError, KeyError, TypeError):
            raise self._failed(_UNEXPECTED) from None

    def _failed(self, text: str) -> FailureError:
        text = text.removeprefix(f"{PROGRAM}: ")
        return FailureError(f"{escape(self._path)}: {PROGRAM} map: {escape(text)}")

    def _start(self) -> "_Process":
        words = [PROGRAM, "map", "--output=json", f"json:{json.dumps(self._options)}"]
        with ExitStack() as stack:
            errors = stack.enter_context(tempfile.TemporaryFile())
            process = stack.enter_context(start_child(words, PACKAGE, errors))
            stack.callback(process.kill)
            return _Process(stack.pop_all(), process, errors)


class _Process(NamedTuple):
    """A process that runs until ``stack`` is closed, and its stderr."""

    stack: ExitStack
    process: subprocess.Popen[bytes]
    errors: IO[bytes]


def _lines(output: io.BufferedReader) -> Iterator[bytes]:
    """Yield whole lines, as many as one read gives; a last one without end is not yielded."""
    rest = b""
    while data := output.read1(_READ):
        lines, end, data = (rest + data).rpartition(b"\n")
        rest = data
        if end:
            yield lines
