"""The only door to construct: schemas and an input in, plain values or our own errors out; and back.

Three outcomes of a read: a tuple of the schema's values (the input moved on), TruncatedError (the
input ended inside), MalformedError (the schema refused).  No construct object leaves this module.
"""

import io
import struct
from functools import cache
from typing import Any, NoReturn, Protocol

from construct import Construct, ConstructError, FormatField, Renamed, StreamError, Struct

from blkmig_cli import limits
from blkmig_cli.errors import MalformedError, TruncatedError
from blkmig_cli.schemas.framing import CountedString
from blkmig_cli.wire.events import Payload


class Input(Protocol):
    """Where bytes come from: a file or a pipe, however it delivers them."""

    offset: int
    """Byte at which the next unread byte stands."""
    size: int | None
    """Bytes in all; None where that shows only at the end."""

    def peek(self, length: int) -> bytes:
        """The next ``length`` bytes, fewer only at the end; nothing is consumed."""

    def peek_at(self, offset: int, length: int) -> bytes:
        """Bytes at ``offset``: anywhere in a file, ahead within limits in a pipe."""

    def available(self, length: int) -> int:
        """How many of the next ``length`` bytes there are; a pipe holds them from now on."""

    def advance(self, length: int) -> None:
        """Consume bytes that are known to be there; they stay readable until :meth:`release`."""

    def discard(self, length: int) -> int:
        """Pass over up to ``length`` bytes without holding them; returns how many there were."""

    def release(self) -> None:
        """Forget what has been consumed."""

    def view(self, payload: Payload) -> memoryview:
        """The bytes of a payload of the current event; valid until the next call."""


_STEP = 1 << 20
_COUNT = struct.Struct(">" + CountedString.lengthfield.fmtstr[1:])


@cache
def _fixed(schema: Construct) -> struct.Struct | None:
    """The ``struct`` of a schema that is a flat run of numbers, made from its own fields.

    Such schemas (words, footers, section references) are most of a stream, and this reads them
    ten times as fast as construct does.
    """
    formats = []
    for field in schema.subcons:
        number = field.subcon if isinstance(field, Renamed) else field
        if not isinstance(number, FormatField):
            return None
        formats.append(number.fmtstr[1:])
    return struct.Struct(">" + "".join(formats))


@cache
def _counted(schema: Construct) -> bool:
    """Is ``schema`` one counted string, as the name of every record's device is?"""
    fields = [field.subcon if isinstance(field, Renamed) else field for field in schema.subcons]
    return fields == [CountedString]


def build(schema: Construct, *values: Any) -> bytes:
    """The bytes of ``schema`` with ``values`` for its fields, in order.

    Raises ValueError, naming the field, where a value does not fit.
    """
    fixed = _fixed(schema)
    try:
        if fixed is not None:
            return fixed.pack(*values)
        if _counted(schema):
            counted: bytes = values[0]
            return _COUNT.pack(len(counted)) + counted
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


class Reader:
    """An input, and the place in it: what errors need to say where they are."""

    def __init__(self, source: Input, *, keep: bool = False) -> None:
        """``keep``: even what is only passed over stays readable until the next object."""
        self.source = source
        self._keep = keep
        self.section: str | None = None
        self.start = source.offset

    def begin(self) -> int:
        """Start an object (an event) here; returns its offset in bytes."""
        self.source.release()
        self.start = self.source.offset
        return self.start

    def length(self) -> int:
        """Bytes read since the object began."""
        return self.source.offset - self.start

    def take(self, schema: Construct) -> tuple[Any, ...]:
        """The values of ``schema``'s fields, in order.

        Raises TruncatedError, MalformedError.
        """
        fixed = _fixed(schema)
        if fixed is None:
            return self._take_name() if _counted(schema) else self._take_variable(schema)
        data = self.source.peek(fixed.size)
        if len(data) < fixed.size:
            self.truncated(len(data))
        self.source.advance(fixed.size)
        return fixed.unpack(data)

    def _take_name(self) -> tuple[bytes]:
        size = _COUNT.size
        head = self.source.peek(size)
        length = size + _COUNT.unpack(head)[0] if len(head) == size else size
        data = self.source.peek(length)
        if len(data) < length:
            self.truncated(len(data))
        self.source.advance(length)
        return (data[size:],)

    def _take_variable(self, schema: Struct) -> tuple[Any, ...]:
        window = 512
        while True:
            data = self.source.peek(window)
            stream = io.BytesIO(data)
            try:
                parsed = schema.parse_stream(stream)
            except StreamError:
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
        """The next ``length`` bytes; raises TruncatedError."""
        data = self.source.peek(length)
        if len(data) < length:
            self.truncated(len(data))
        self.source.advance(length)
        return data

    def payload(self, length: int) -> Payload:
        """Step over ``length`` bytes that belong to this event; raises TruncatedError."""
        offset = self.source.offset
        there = self.source.available(length)
        if there < length:
            self.truncated(there)
        self.source.advance(length)
        return Payload(offset, length)

    def pass_over(self, length: int) -> int:
        """Step over up to ``length`` bytes, to the input's end at most; returns how many."""
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
        """Step over ``length`` bytes that nobody needs; raises TruncatedError."""
        if self.pass_over(length) < length:
            self.truncated(0)

    def truncated(self, there: int) -> NoReturn:
        """The input ends ``there`` bytes from here: say so."""
        raise TruncatedError(
            f"the stream ends inside an object that began at byte {self.start}",
            offset=self.source.offset + there,
            section=self.section,
        )

    def fail(self, message: str, **where: Any) -> NoReturn:
        """The object begun last breaks a rule: say so."""
        where.setdefault("offset", self.start)
        raise MalformedError(message, section=self.section, **where)
