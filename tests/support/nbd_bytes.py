"""The bytes of an NBD server that says whatever a test wants, made by the schemas."""

from collections.abc import Callable, Sequence
from typing import Any

from blkmig_cli.disks.nbd.channel import Data
from blkmig_cli.schemas import nbd as schema
from blkmig_cli.schemas.nbd import Chunk, ChunkFlag, Command, ExportFlag, Info, Option, OptionReply
from blkmig_cli.system.nbd_uri import NbdUri
from blkmig_cli.wire.schema_io import build, parse

SIZE = 1 << 20
WRITABLE = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH
#: The id of base:allocation.
BASE = 7


def greeting(flags: int = 3) -> bytes:
    return build(schema.Greeting, schema.GREETING_MAGIC, schema.OPTION_MAGIC, flags)


def answer(option: int, kind: int, data: bytes = b"") -> bytes:
    """An answer to an option."""
    head = build(schema.OptionReplyHead, schema.OPTION_REPLY_MAGIC, option, kind, len(data))
    return head + data


def ack(option: Option) -> bytes:
    return answer(option, OptionReply.ACK)


def context(number: int, name: str, option: Option = Option.SET_META_CONTEXT) -> bytes:
    data = build(schema.MetaContext, number, name.encode())
    return answer(option, OptionReply.META_CONTEXT, data)


def info(layout: Any, *values: int) -> bytes:
    return answer(Option.GO, OptionReply.INFO, build(layout, *values))


def size_info(size: int = SIZE, flags: int = WRITABLE) -> bytes:
    return info(schema.InfoExport, Info.EXPORT, size, flags)


def block_info(minimum: int, maximum: int) -> bytes:
    return info(schema.InfoBlockSize, Info.BLOCK_SIZE, minimum, max(minimum, 512), maximum)


def hello(
    *infos: bytes, contexts: Sequence[tuple[int, str]] = ((BASE, schema.BASE_ALLOCATION),)
) -> bytes:
    """All that a server with structured replies says up to the first request."""
    return (
        greeting()
        + ack(Option.STRUCTURED_REPLY)
        + b"".join(context(number, name) for number, name in contexts)
        + ack(Option.SET_META_CONTEXT)
        + b"".join(infos or [size_info()])
        + ack(Option.GO)
    )


def hello_simple(*infos: bytes) -> bytes:
    """The same of a server without structured replies."""
    refusal = answer(Option.STRUCTURED_REPLY, OptionReply.ERR_UNSUP)
    return greeting() + refusal + b"".join(infos or [size_info()]) + ack(Option.GO)


def simple(cookie: int, error: int = 0, data: bytes = b"") -> bytes:
    return build(schema.SimpleReply, schema.SIMPLE_REPLY_MAGIC, error, cookie) + data


def chunk(cookie: int, kind: int, data: bytes = b"", *, done: bool = True) -> bytes:
    flags = ChunkFlag.DONE if done else 0
    head = build(schema.ChunkHead, schema.STRUCTURED_REPLY_MAGIC, flags, kind, cookie)
    return head + build(schema.ChunkLength, len(data)) + data


def data_chunk(cookie: int, offset: int, data: bytes, *, done: bool = True) -> bytes:
    return chunk(cookie, Chunk.OFFSET_DATA, build(schema.OffsetData, offset) + data, done=done)


def hole_chunk(cookie: int, offset: int, length: int, *, done: bool = True) -> bytes:
    return chunk(cookie, Chunk.OFFSET_HOLE, build(schema.OffsetHole, offset, length), done=done)


def status_chunk(
    cookie: int, *extents: tuple[int, int], number: int = BASE, done: bool = True
) -> bytes:
    rows = b"".join(build(schema.Extent, *extent) for extent in extents)
    return chunk(cookie, Chunk.BLOCK_STATUS, build(schema.BlockStatus, number) + rows, done=done)


def error_chunk(cookie: int, error: int, message: bytes = b"", *, done: bool = True) -> bytes:
    data = build(schema.ChunkError, error, len(message)) + message
    return chunk(cookie, Chunk.ERROR, data, done=done)


class Answering:
    """A channel to a server that answers each request at once; ``asked``: the ranges in bytes."""

    sends_files = False
    #: The only command that is expected.
    command: Command

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self._answers = b""

    def answer(self, cookie: int, offset: int, length: int) -> bytes:
        """Return the answer to a request."""
        raise NotImplementedError

    def receive(self, view: memoryview, deadline: float, *, waits: bool = True) -> bool:
        view[:], self._answers = self._answers[: len(view)], self._answers[len(view) :]
        return True

    def send(self, data: Data, deadline: float, meanwhile: Callable[[], None]) -> None:
        assert isinstance(data, memoryview)
        request = parse(schema.Request, bytes(data))
        assert request is not None
        _, _, command, cookie, offset, length = request
        assert command == self.command
        self.asked.append((offset, length))
        self._answers += self.answer(cookie, offset, length)

    def start_tls(self, uri: NbdUri, deadline: float) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass
