"""Lines of a spec whose bytes are known from a line before: the same one, or one of another sector.

Most lines of a long spec are such.  A line is known only after it was read and encoded as any other.
"""

import re
from typing import Any

from blkmig_cli.schemas.block import RecordWord, join_word
from blkmig_cli.transport.payloads import Literal
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import Block, Event

# As dump --spec writes it.  A number of so many digits fits the record's word.
_SECTOR = re.compile(rb'"sector": (0|[1-9][0-9]{0,15}), ')
_WORD = RecordWord.sizeof()
# Bytes of a line, and of what it encodes to, and lines that are held.
_BYTES_MAX = 1 << 10
_LINES_MAX = 1 << 8


class KnownLines:
    """The bytes that lines stand for; for blocks, also those of the same line with another sector."""

    def __init__(self) -> None:
        self._lines: dict[bytes, bytes] = {}
        self._blocks: dict[bytes, tuple[int, bytes]] = {}

    def encoded(self, line: bytes) -> bytes | None:
        """Return the bytes that ``line`` stands for, None if it is not known."""
        found = self._lines.get(line)
        if found is not None:
            return found
        match = _SECTOR.search(line)
        if match is None:
            return None
        start, end = match.span(1)
        block = self._blocks.get(line[:start] + line[end:])
        if block is None:
            return None
        flags, rest = block
        return join_word(int(match[1]), flags).to_bytes(_WORD, "big") + rest

    def note(self, line: bytes, event: Event) -> None:
        """Take ``line``, which stands for ``event``, if lines like it are to be known."""
        encoded = _encoded(event) if len(line) <= _BYTES_MAX else None
        if encoded is None:
            return
        match = _SECTOR.search(line)
        if not isinstance(event, Block) or match is None:
            _make_room(self._lines)
            self._lines[line] = encoded
        elif b"\\" not in line and line.count(b'"sector"') == 1:
            start, end = match.span(1)
            _make_room(self._blocks)
            self._blocks[line[:start] + line[end:]] = (int(event.flags), encoded[_WORD:])


def _make_room(known: dict[bytes, Any]) -> None:
    if len(known) >= _LINES_MAX:
        known.clear()


def _encoded(event: Event) -> bytes | None:
    """Return the bytes of an event, None where they are many, in a file, or have no place."""
    found = b""
    try:
        for piece in encode(event):
            if not isinstance(piece, bytes | Literal):
                return None
            found += piece if isinstance(piece, bytes) else piece.data
            if len(found) > _BYTES_MAX:
                return None
    except ValueError:
        return None
    return found
