"""The only module that calls construct: it reads and builds plain values by the schemas.

A read has three outcomes: a tuple of the schema's values (and the input is advanced),
TruncatedError (the input ends too early), MalformedError (the schema does not match).  No construct
object leaves this module.
"""

import io
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, NoReturn, Protocol

from construct import Construct, ConstructError, FormatField, Renamed, Struct
from construct import StreamError as EndOfData

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, StreamError, TruncatedError
from blkmig_cli.schemas.framing import CountedString
from blkmig_cli.wire.events import Payload


class Input(Protocol):
    """The bytes of a file or a pipe."""

    offset: int
    """The next unread byte."""

    @property
    def size(self) -> int | None:
        """Size in bytes; None where it is known only at the end."""

    @property
    def seekable(self) -> bool:
        """Whether it can be read again and at any offset."""

    @property
    def held(self) -> int:
        """Bytes from the current place on that can be had without waiting; in a file all of them."""

    @property
    def origin(self) -> int:
        """The offset of the input in its file; offsets in mapped RAM are relative to the file."""

    @property
    def damage(self) -> StreamError | None:
        """The error that made the input end too early, or shows that it is incomplete; set at its end."""

    def peek(self, length: int) -> bytes:
        """Return the next ``length`` bytes, fewer only at the end; nothing is consumed."""

    def peek_at(self, offset: int, length: int) -> bytes:
        """Return the bytes at ``offset``: anywhere in a file, ahead within limits in a pipe."""

    def available(self, length: int) -> int:
        """Return how many of the next ``length`` bytes exist; a pipe reads and holds them."""

    def advance(self, length: int) -> None:
        """Consume bytes that are known to exist; they can be read until :meth:`release`."""

    def discard(self, length: int) -> int:
        """Skip up to ``length`` bytes without holding them; returns how many there were."""

    def release(self) -> None:
        """Release the bytes that have been consumed."""

    def view(self, payload: Payload) -> memoryview:
        """Return the bytes of a payload of the current event; valid until the next call."""


_STEP = 1 << 20
_COUNT = struct.Struct(">" + CountedString.lengthfield.fmtstr[1:])


@cache
def _fixed(schema: Construct) -> struct.Struct | None:
    """Return the ``struct`` of a schema that is a flat run of big-endian numbers, else None.

    Such schemas (words, footers, section references) are the most frequent ones, and ``struct`` reads
    them ten times as fast as construct.
    """
    formats = []
    for field in schema.subcons:
        number = field.subcon if isinstance(field, Renamed) else field
        if not isinstance(number, FormatField) or number.fmtstr[0] != ">":
            return None
        formats.append(number.fmtstr[1:])
    return struct.Struct(">" + "".join(formats))


@cache
def _named(schema: Construct) -> struct.Struct | None:
    """Return the numbers behind the counted string that ``schema`` begins with, if it is no more.

    That are the names of the devices and bitmaps of every record, read as fast as by :func:`_fixed`.
    """
    first, *others = schema.subcons
    if not isinstance(first, Renamed) or first.subcon is not CountedString:
        return None
    return _fixed(Struct(*others))


def build(schema: Construct, *values: Any) -> bytes:
    """Return the bytes of ``schema`` with ``values`` for its fields, in order.

    Raises ValueError, naming the field, where a value does not fit.
    """
    fixed = _fixed(schema)
    try:
        if fixed is not None:
            return fixed.pack(*values)
        named = _named(schema)
        if named is not None:
            counted: bytes = values[0]
            return _COUNT.pack(len(counted)) + counted + named.pack(*values[1:])
        names = [field.name for field in schema.subcons]
        built: bytes = schema.build(dict(zip(names, values, strict=True)))
    except (struct.error, ConstructError):
        for field, value in zip(schema.subcons, values, strict=True):
            try:
                field.build(value)
            except ConstructError:
                shown = value if isinstance(value, int) else f"{len(value)} bytes"
                raise ValueError(f"{field.name}: {shown} does not fit the format") from None
        raise
    return built


def parse(schema: Struct, data: bytes | bytearray | memoryview) -> tuple[Any, ...] | None:
    """Return the values of ``schema``'s fields, in order; None where ``data`` do not match it.

    Of a schema that is a flat run of numbers, ``data`` must be no more and no less.
    """
    fixed = _fixed(schema)
    if fixed is not None:
        return fixed.unpack(data) if len(data) == fixed.size else None
    try:
        parsed = schema.parse(data)
    except ConstructError:
        return None
    return tuple(parsed[field.name] for field in schema.subcons)


def parse_rows(schema: Struct, data: bytes | memoryview) -> Iterator[tuple[Any, ...]]:
    """Return the values of each ``schema``, a flat run of numbers, of the many in ``data``.

    Raises ValueError where the last one is incomplete.
    """
    fixed = _fixed(schema)
    assert fixed is not None
    if len(data) % fixed.size:
        raise ValueError(f"{len(data)} bytes are no whole number of rows of {fixed.size}")
    return fixed.iter_unpack(data)


def size_of(schema: Struct) -> int:
    """Return the size in bytes of a ``schema`` that always has the same."""
    size: int = schema.sizeof()
    return size


class Reader:
    """Reads an input; errors state the current object."""

    def __init__(self, source: Input, *, keep: bool = False) -> None:
        """``keep``: bytes that are skipped can be read, too, until the next object."""
        self.source = source
        self._keep = keep
        self.section: str | None = None
        self.start = source.offset

    def begin(self) -> int:
        """Start an object (an event) here; return its offset in bytes."""
        self.source.release()
        self.start = self.source.offset
        return self.start

    def length(self) -> int:
        """Return the number of bytes read since the object began."""
        return self.source.offset - self.start

    def take(self, schema: Construct) -> tuple[Any, ...]:
        """Read ``schema``; return the values of its fields, in order.

        Raises TruncatedError, MalformedError.
        """
        fixed = _fixed(schema)
        if fixed is None:
            named = _named(schema)
            return self._take_variable(schema) if named is None else self._take_named(named)
        data = self.source.peek(fixed.size)
        if len(data) < fixed.size:
            self.truncated(len(data))
        self.source.advance(fixed.size)
        return fixed.unpack(data)

    def _take_named(self, behind: struct.Struct) -> tuple[Any, ...]:
        """Read a counted string, and the numbers ``behind`` it."""
        size = _COUNT.size
        head = self.source.peek(size)
        end = size + _COUNT.unpack(head)[0] if len(head) == size else size
        length = end + behind.size
        data = self.source.peek(length)
        if len(data) < length:
            self.truncated(len(data))
        self.source.advance(length)
        return data[size:end], *behind.unpack_from(data, end)

    def _take_variable(self, schema: Struct) -> tuple[Any, ...]:
        window = 512
        while True:
            data = self.source.peek(window)
            stream = io.BytesIO(data)
            try:
                parsed = schema.parse_stream(stream)
            except EndOfData:
                if len(data) < window:
                    self.truncated(len(data))
                if window >= limits.HEAD_MAX:
                    self.fail(
                        f"a {self.section or 'header'} object is over {limits.HEAD_MAX} bytes"
                    )
                window *= 16
            except ConstructError as error:
                self.fail(" ".join(str(error).split()))
            else:
                self.source.advance(stream.tell())
                return tuple(parsed[field.name] for field in schema.subcons)

    def take_bytes(self, length: int) -> bytes:
        """Read the next ``length`` bytes; raises TruncatedError."""
        data = self.source.peek(length)
        if len(data) < length:
            self.truncated(len(data))
        self.source.advance(length)
        return data

    def payload(self, length: int) -> Payload:
        """Skip ``length`` bytes that belong to this event; raises TruncatedError."""
        offset = self.source.offset
        there = self.source.available(length)
        if there < length:
            self.truncated(there)
        self.source.advance(length)
        return Payload(offset, length)

    def pass_over(self, length: int) -> int:
        """Skip up to ``length`` bytes, at most to the input's end; return how many."""
        if not self._keep:
            return self.source.discard(length)
        passed = 0
        while passed < length:
            there = self.source.available(min(_STEP, length - passed))
            if there == 0:
                break
            self.source.advance(there)
            passed += there
        return passed

    def skip(self, length: int) -> None:
        """Skip ``length`` bytes that are not needed; raises TruncatedError."""
        if self.pass_over(length) < length:
            self.truncated(0)

    def truncated(self, there: int) -> NoReturn:
        """Raise TruncatedError: the input ends after ``there`` more bytes."""
        end = self.source.offset + there
        raise TruncatedError(
            f"stream truncated at byte {end}, inside the record at byte {self.start}",
            offset=end,
            section=self.section,
        )

    def fail(self, message: str, **where: Any) -> NoReturn:
        """Raise MalformedError: the current object breaks a rule."""
        where.setdefault("offset", self.start)
        raise MalformedError(message, section=self.section, **where)
