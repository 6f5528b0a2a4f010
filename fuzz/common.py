"""Shared by the targets: the stream that an input represents, its hints, and the loop."""

import re
import sys
from collections.abc import Callable

import atheris

from blkmig_cli import limits
from blkmig_cli.wire.hints import Hints
from tests.support.feed import Pieces

#: The mark in an input that represents this many zeros, so that complete records are short.
HOLES = {b"<chunk>": 1 << 20, b"<page>": 1 << 12, b"<bits>": 1 << 10}
#: The most bytes of an input, which has some sections and some tens of records.
MAX_LENGTH = 512
# Only so many, as a search for a footer reads the zeros, too.
_HOLES_MAX = 6
# A stream from a pipe is held in memory, so that larger ones are not piped.
_PIPED_MAX = 1 << 16

_HOLE = re.compile(b"(" + b"|".join(HOLES) + b")")


def pieces(data: bytes) -> Pieces:
    """Return the stream that ``data`` represents."""
    return [HOLES.get(piece, piece) for piece in _HOLE.split(data, _HOLES_MAX)]


def whole(stream: Pieces) -> bytes | None:
    """Return all bytes of a stream; None where these are too many."""
    if sum(piece if isinstance(piece, int) else len(piece) for piece in stream) > _PIPED_MAX:
        return None
    return b"".join(bytes(piece) for piece in stream)


def told(way: int) -> Hints:
    """Return no hints, or those of the devices and bitmaps of the small seeds."""
    if not way & 1:
        return Hints()
    return Hints({"d": 64 << 20}, {(None, "b"): 65536, (None, "c"): 8192})


def fuzz(target: Callable[[bytes], None]) -> None:
    """Run ``target`` on the inputs of libFuzzer; the arguments are libFuzzer's."""
    limits.READINGS_MAX = 1 << 7  # a lower limit, so that inference ends sooner
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
