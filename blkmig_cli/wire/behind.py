"""Reading what follows a stream's end in its input: nothing, a further stream, or other bytes.

Padding with zeros may precede a further stream.  Other bytes are read up to a limit, as a peer may
send them without end.
"""

from collections.abc import Generator

from blkmig_cli import limits
from blkmig_cli.wire.events import Undecoded
from blkmig_cli.wire.recognition import HEADER, stream_behind
from blkmig_cli.wire.schema_io import Reader

_WINDOW = 1 << 16


def behind_end(reader: Reader) -> Generator[Undecoded, None, int | None]:
    """Yield the bytes after the stream's end, where ``reader`` is, as an event.

    Returns the offset of a further stream, at which the input then is; None if there is none.
    Raises the input's ``damage``, if it has any.
    """
    source, offset = reader.source, reader.begin()
    if stream_behind(source):
        return offset
    length = _pass_zeros(reader)
    if source.peek(len(HEADER)) == HEADER:
        reason = "padding between the stream's end and a further stream"
        yield Undecoded(offset, length, None, reason, behind=True)
        return source.offset
    length += reader.pass_over(limits.BEHIND_MAX - length)
    if source.damage is not None:
        raise source.damage
    if length:
        more = length == limits.BEHIND_MAX and source.peek(1)
        only = f", of which {length >> 20} MiB were read" if more else ""
        reason = f"other bytes after the stream's end{only}"
        yield Undecoded(offset, length, None, reason, behind=True)
    return None


def _pass_zeros(reader: Reader) -> int:
    """Skip zeros, up to the length that padding may have; return how many there were."""
    passed, zeros = 0, _WINDOW
    while zeros == _WINDOW and passed < limits.BEHIND_MAX:
        data = reader.source.peek(_WINDOW)
        zeros = len(data) - len(data.lstrip(b"\0"))
        passed += reader.pass_over(zeros)
    return passed
