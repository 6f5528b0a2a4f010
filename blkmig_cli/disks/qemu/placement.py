"""Where the data of an image lies in its file, as qemu-img map tells it, so that it is read from there.

That is several times as fast as through a server.  The image must be locked against writers, and be a
single file without a backing file.
"""

import json
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

from blkmig_cli.disks.qemu.create import PACKAGE, PROGRAM
from blkmig_cli.errors import FailureError
from blkmig_cli.system.children import start_child
from blkmig_cli.text import escape

# Extents that are known before they are needed.
_AHEAD = 64
_SHOWN = 400


class Placement:
    """The places of the data of the image at ``path``, described to QEMU by ``options``, ascending.

    :meth:`extents` reads them one by one; :meth:`split` knows those around the last ones it was given.
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self._path = path
        self._options = options
        # The start, end, and offset in the file (None: compressed) of extents, ascending.
        self._known: deque[tuple[int, int, int | None]] = deque()
        self._used = 0

    def extents(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, length) with data, in bytes; raises FailureError."""
        self._known.clear()
        self._used = 0
        waiting: deque[tuple[int, int]] = deque()
        for start, length, offset in self._map():
            while self._known and self._known[0][1] <= self._used:
                self._known.popleft()
            self._known.append((start, start + length, offset))
            waiting.append((start, length))
            if len(waiting) > _AHEAD:
                yield waiting.popleft()
        yield from waiting

    def split(self, offset: int, length: int) -> Iterator[tuple[int, int, int | None]]:
        """Yield the parts (start, length, place) of a range; place None: not in the file, or not known."""
        end = offset + length
        self._used = offset - length  # the last chunk of a disk may begin before that of its end
        for start, stop, place in self._known:
            if stop <= offset:
                continue
            if start >= end:
                break
            if offset < start:
                yield offset, start - offset, None
                offset = start
            part = min(stop, end) - offset
            yield offset, part, None if place is None else place + offset - start
            offset += part
        if offset < end:
            yield offset, end - offset, None

    def _map(self) -> Iterator[tuple[int, int, int | None]]:
        """Yield start, length and offset of the data that qemu-img map lists, one entry on a line."""
        words = [PROGRAM, "map", "--output=json", f"json:{json.dumps(self._options)}"]
        with ExitStack() as stack:
            errors = stack.enter_context(tempfile.TemporaryFile())
            process = stack.enter_context(start_child(words, PACKAGE, errors))
            stack.callback(process.kill)
            assert process.stdout is not None
            for line in process.stdout:
                with suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line.strip(b"[], \r\n"))
                    if not entry["zero"]:
                        yield int(entry["start"]), int(entry["length"]), entry.get("offset")
            if process.wait():
                errors.seek(0)
                lines = errors.read().decode("utf-8", "replace").strip().splitlines() or ["failed"]
                text = lines[-1].removeprefix(f"{PROGRAM}: ")[:_SHOWN]
                raise FailureError(f"{escape(self._path)}: {PROGRAM} map: {escape(text)}")
