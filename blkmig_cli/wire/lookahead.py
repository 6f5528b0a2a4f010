"""An input that reads ahead in another without moving it, for the inference of v1 layouts."""

from blkmig_cli.wire.events import Payload
from blkmig_cli.wire.schema_io import Input


class Ahead:
    """``source``, read from ``offset`` on; see ``schema_io.Input``."""

    def __init__(self, source: Input, offset: int) -> None:
        self._source = source
        self.offset = offset
        self.size = source.size
        self.seekable = source.seekable
        self.origin = source.origin
        self.damage = source.damage

    def peek(self, length: int) -> bytes:
        """See ``schema_io.Input``."""
        return self._source.peek_at(self.offset, length)

    def peek_at(self, offset: int, length: int) -> bytes:
        """See ``schema_io.Input``."""
        return self._source.peek_at(offset, length)

    def available(self, length: int) -> int:
        """See ``schema_io.Input``."""
        if self.size is not None:
            return min(length, self.size - self.offset)
        there = len(self._source.peek_at(self.offset + length - 1, 1)) if length else 0
        return length if there else 0

    def advance(self, length: int) -> None:
        """See ``schema_io.Input``."""
        self.offset += length

    def discard(self, length: int) -> int:
        """See ``schema_io.Input``."""
        there = self.available(length)
        self.offset += there
        return there

    def release(self) -> None:
        """Do nothing: no bytes are held."""

    def view(self, payload: Payload) -> memoryview:
        """See ``schema_io.Input``."""
        return memoryview(self._source.peek_at(payload.offset, payload.length))
