"""The handshake with an NBD server, up to the first request.

It ends with an :class:`Export`, or with a BrokenError or FailureError.  What the server says is bounded
in length and number, and an answer to what was not asked is an error.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any, Literal

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.disks.nbd.channel import BrokenError, Channel
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas import nbd as schema
from blkmig_cli.schemas.nbd import ExportFlag, HandshakeFlag, Info, Option, OptionReply
from blkmig_cli.system.nbd_uri import NbdUri
from blkmig_cli.text import decode_name, encode_name, escape, human_size, quote
from blkmig_cli.wire.schema_io import build, parse, size_of

#: The bitmaps whose dirty ranges are wanted: their names, or whatever the export has.
Bitmaps = Sequence[str] | Literal["all"]

_ERRORS = {
    OptionReply.ERR_UNSUP: "it does not support it",
    OptionReply.ERR_POLICY: "its policy forbids it",
    OptionReply.ERR_INVALID: "it calls it invalid",
    OptionReply.ERR_PLATFORM: "its platform does not support it",
    OptionReply.ERR_TLS_REQD: "it requires TLS",
    OptionReply.ERR_UNKNOWN: "there is no such export",
    OptionReply.ERR_SHUTDOWN: "it is shutting down",
    OptionReply.ERR_BLOCK_SIZE_REQD: "it requires block sizes to be respected",
    OptionReply.ERR_TOO_BIG: "the request is too large for it",
}
_MESSAGE_SHOWN = 200
_UNLIMITED = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Export:
    """What was agreed on: ``size``, block sizes in bytes, ``contexts`` of block status with their ids."""

    size: int
    flags: int
    minimum: int = schema.BLOCK_DEFAULT
    maximum: int = schema.PAYLOAD_DEFAULT
    structured: bool = False
    contexts: dict[str, int] = field(default_factory=dict)

    def has(self, flag: ExportFlag) -> bool:
        """Return whether the export has ``flag``."""
        return bool(self.flags & flag)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The error with which the server answered an option, and its message."""

    option: Option
    number: int
    message: str

    def __str__(self) -> str:
        why = _ERRORS.get(OptionReply(self.number)) if self.number in _ERRORS else None
        text = f"the server refused {self.option.name}: {why or f'error {self.number:#x}'}"
        return f"{text} ({self.message})" if self.message else text


def negotiate(
    channel: Channel,
    export: str,
    name: str,
    *,
    uri: NbdUri | None = None,
    own_layer: bool = False,
    bitmaps: Bitmaps = (),
) -> Export:
    """Agree with the server on ``export`` and return what it is.

    ``uri``, where it says so, is reached in TLS.  ``own_layer`` and ``bitmaps`` as in ``image.py``;
    ``name`` is that of the image in messages.  Raises BrokenError, FailureError.
    """
    return _Handshake(channel, encode_name(export), name).run(uri, own_layer, bitmaps)


class _Handshake:
    def __init__(self, channel: Channel, export: bytes, name: str) -> None:
        self._channel = channel
        self._export = export
        self._name = name
        self._deadline = time.monotonic() + limits.NBD_CONNECT_WAIT
        self._left = limits.NBD_HANDSHAKE_MAX

    def run(self, uri: NbdUri | None, own_layer: bool, bitmaps: Bitmaps) -> Export:
        """See :func:`negotiate`."""
        self._greet()
        if uri is not None and uri.tls:
            self._demand(Option.STARTTLS)
            self._channel.start_tls(uri, self._deadline)
        structured = self._ask(Option.STRUCTURED_REPLY, b"") is None
        contexts = self._contexts(own_layer, bitmaps) if structured else {}
        return self._go(structured, contexts)

    def _greet(self) -> None:
        magic, kind, flags = self._take(schema.Greeting)
        if magic != schema.GREETING_MAGIC:
            raise BrokenError("it is not an NBD server: no NBDMAGIC at the start of its answer")
        if kind != schema.OPTION_MAGIC or not flags & HandshakeFlag.FIXED_NEWSTYLE:
            raise BrokenError("the server does not support the fixed newstyle handshake")
        answer = flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
        self._send(build(schema.ClientFlags, answer))

    def _contexts(self, own_layer: bool, bitmaps: Bitmaps) -> dict[str, int]:
        """Select the contexts of block status; return their ids by name."""
        wanted = [schema.BASE_ALLOCATION]
        if own_layer:
            wanted.append(schema.ALLOCATION_DEPTH)
        if bitmaps == "all":
            wanted += self._listed()
        else:
            wanted += dict.fromkeys(schema.DIRTY_BITMAP + bitmap for bitmap in bitmaps)
        queries = [encode_name(context) for context in wanted]
        queries = [query for query in queries if len(query) <= schema.NAME_MAX]
        found: dict[str, int] = {}
        data = build(schema.MetaContextData, self._export, queries)
        for number, context in self._context_answers(Option.SET_META_CONTEXT, data):
            if context not in wanted or context in found or number in found.values():
                raise BrokenError(f"the server selected the context {quote(context)} unasked")
            found[context] = number
        return found

    def _listed(self) -> list[str]:
        """Return the contexts of the export's dirty bitmaps; each must be selected by its whole name."""
        data = build(schema.MetaContextData, self._export, [schema.DIRTY_BITMAP.encode()])
        answers = self._context_answers(Option.LIST_META_CONTEXT, data)
        names = dict.fromkeys(context for _, context in answers)
        return [context for context in names if context.startswith(schema.DIRTY_BITMAP)]

    def _context_answers(self, option: Option, data: bytes) -> Iterator[tuple[int, str]]:
        """Yield the id and the name of each context in the answers; nothing if it is refused."""
        found: list[bytes] = []
        self._ask(option, data, OptionReply.META_CONTEXT, found)
        for answer in found:
            number, context = self._parsed(schema.MetaContext, answer)
            if not 0 < len(context) <= schema.NAME_MAX:
                raise BrokenError("the name of a context is empty or too long")
            yield number, decode_name(context)

    def _go(self, structured: bool, contexts: dict[str, int]) -> Export:
        found: list[bytes] = []
        data = build(schema.GoData, self._export, [Info.BLOCK_SIZE])
        self._demand(Option.GO, data, OptionReply.INFO, found)
        size = flags = None
        minimum, maximum = schema.BLOCK_DEFAULT, schema.PAYLOAD_DEFAULT
        for answer in found:
            (kind,) = self._parsed(schema.InfoType, answer[: size_of(schema.InfoType)])
            if kind == Info.EXPORT:
                _, size, flags = self._parsed(schema.InfoExport, answer)
            elif kind == Info.BLOCK_SIZE:
                _, minimum, _, maximum = self._parsed(schema.InfoBlockSize, answer)
        if size is None or flags is None:
            raise BrokenError("the server did not state the size of the export")
        if size > limits.DISK_MAX:
            raise BrokenError(f"the export has {size} bytes, more than any disk")
        if (
            not 0 < minimum <= schema.BLOCK_MINIMUM_MAX
            or minimum & (minimum - 1)
            or maximum < max(minimum, schema.BLOCK_DEFAULT)
            or (maximum % minimum and maximum != _UNLIMITED)
        ):
            raise BrokenError(f"block sizes of {minimum} to {maximum} bytes are not possible")
        return Export(size, flags, minimum, maximum, structured, contexts)

    def _demand(
        self,
        option: Option,
        data: bytes = b"",
        kind: OptionReply | None = None,
        found: list[bytes] | None = None,
    ) -> None:
        """Send an option that the server must not refuse; as :meth:`_ask`."""
        refusal = self._ask(option, data, kind, found)
        if refusal is None:
            return
        if option == Option.GO and refusal.number == OptionReply.ERR_UNKNOWN:
            shown = quote(decode_name(self._export))
            raise FailureError(f"{escape(self._name)}: the server has no export {shown}")
        raise FailureError(f"{escape(self._name)}: {refusal}")

    def _ask(
        self,
        option: Option,
        data: bytes,
        kind: OptionReply | None = None,
        found: list[bytes] | None = None,
    ) -> _Refusal | None:
        """Send an option, add the data of answers of ``kind`` to ``found``; return why it is refused.

        Raises FailureError where the server refuses everything without TLS, BrokenError.
        """
        head = build(schema.OptionHead, schema.OPTION_MAGIC, option, len(data))
        self._send(head + data)
        while True:
            magic, answered, number, length = self._take(schema.OptionReplyHead)
            if magic != schema.OPTION_REPLY_MAGIC or answered != option:
                raise BrokenError(f"the answer to {option.name} is not one of NBD")
            self._left -= size_of(schema.OptionReplyHead) + length
            if self._left < 0:
                most = human_size(limits.NBD_HANDSHAKE_MAX)
                raise BrokenError(f"the answers to {option.name} are over {most}")
            answer = self._read(length)
            if number == OptionReply.ERR_TLS_REQD:
                raise FailureError(
                    f"{escape(self._name)}: the server requires TLS",
                    hint="use a URI that begins with nbds",
                )
            if number & schema.OPTION_ERROR:
                return _Refusal(option, number, escape(decode_name(answer[:_MESSAGE_SHOWN])))
            if number == OptionReply.ACK:
                return None
            if number != kind or found is None:
                raise BrokenError(f"an answer of type {number} to {option.name} makes no sense")
            found.append(answer)

    def _parsed(self, layout: Any, data: bytes) -> tuple[Any, ...]:
        values = parse(layout, data)
        if values is None:
            raise BrokenError(f"an answer of {len(data)} bytes in the handshake makes no sense")
        return values

    def _take(self, layout: Any) -> tuple[Any, ...]:
        return self._parsed(layout, self._read(size_of(layout)))

    def _read(self, length: int) -> bytes:
        data = bytearray(length)
        self._channel.receive(memoryview(data), self._deadline)
        return bytes(data)

    def _send(self, data: bytes) -> None:
        self._channel.send(memoryview(data), self._deadline, lambda: time.sleep(0.01))
