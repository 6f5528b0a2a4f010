"""Lines of a spec whose bytes are known from a line before: the same one, or one of another sector.

Most lines of a long spec are such.  A line is known only after it was read and encoded as any other.
"""

import re

import numpy as np

from blkmig_cli.schemas.block import RecordWord
from blkmig_cli.schemas.constants import BLOCK_FLAG_BITS
from blkmig_cli.transport.payloads import Literal
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import Block, Event

# As dump --spec writes it.  A number of so many digits fits the record's word.
_SECTOR = re.compile(rb'"sector": (0|[1-9][0-9]{0,15}), ')
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,15}")
_WORD = RecordWord.sizeof()
# Bytes of a line, and of what it encodes to, and lines that are held.
_BYTES_MAX = 1 << 10
_LINES_MAX = 1 << 8


class KnownLines:
    """The bytes that lines stand for; for blocks, also those of the same line with another sector."""

    def __init__(self) -> None:
        self._lines: dict[bytes, bytes] = {}
        self._blocks: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
        # What stands before and behind the sector in the block line that was found last, and several
        # such lines.
        self._around: tuple[bytes, bytes] = (b"\n", b"\n")
        self._several: re.Pattern[bytes] | None = None

    def encoded(self, line: bytes) -> bytes | None:
        """Return the bytes that ``line`` stands for, None if it is not known."""
        before, behind = self._around
        if line.startswith(before) and line.endswith(behind):
            number = line[len(before) : -len(behind)]
        else:
            found = self._lines.get(line)
            match = _SECTOR.search(line) if found is None else None
            if match is None:
                return found
            around = (line[: match.start(1)], line[match.end(1) :])
            if around not in self._blocks:
                return None
            self._set_around(around)
            number = match[1]
        if not _NUMBER.fullmatch(number):
            return None
        flags, rest = self._blocks[self._around]
        return (int(number) << BLOCK_FLAG_BITS | flags).to_bytes(_WORD, "big") + rest

    def encoded_lines(self, text: bytes, start: int) -> tuple[int, int, bytes]:
        """Return the block lines from ``start`` that differ from the last one in their sector only.

        Returns where they end, how many they are, and the bytes that they stand for.
        """
        before, behind = self._around
        if self._several is None or (match := self._several.match(text, start)) is None:
            return start, 0, b""
        # A line feed is only between lines, so that nothing else is replaced.
        digits = match[0][len(before) : -len(behind)].replace(behind + before, b" ")
        numbers = np.fromstring(digits, np.int64, sep=" ")
        flags, rest = self._blocks[self._around]
        found = np.empty((len(numbers), _WORD + len(rest)), np.uint8)
        found[:, :_WORD] = (
            (numbers << BLOCK_FLAG_BITS | flags).astype(">i8").view(np.uint8).reshape(-1, _WORD)
        )
        found[:, _WORD:] = np.frombuffer(rest, np.uint8)
        return match.end(), len(numbers), found.tobytes()

    def _set_around(self, around: tuple[bytes, bytes]) -> None:
        self._around = around
        self._several = re.compile(
            b"(?:%b(?:%b)%b)+" % (re.escape(around[0]), _NUMBER.pattern, re.escape(around[1]))
        )

    def note(self, line: bytes, event: Event) -> None:
        """Take ``line``, which stands for ``event``, if lines like it are to be known."""
        encoded = _encoded(event) if len(line) <= _BYTES_MAX else None
        if encoded is None:
            return
        match = _SECTOR.search(line)
        if not isinstance(event, Block) or match is None:
            if len(self._lines) >= _LINES_MAX:
                self._lines.clear()
            self._lines[line] = encoded
        elif b"\\" not in line and line.count(b'"sector"') == 1:
            if len(self._blocks) >= _LINES_MAX:
                self._blocks.clear()
            self._set_around((line[: match.start(1)], line[match.end(1) :]))
            self._blocks[self._around] = (int(event.flags), encoded[_WORD:])


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
