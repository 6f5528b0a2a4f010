"""The bytes of an NBD server that says whatever a test wants, made by the schemas."""

from collections.abc import Sequence
from typing import Any

from blkmig_cli.schemas import nbd as schema
from blkmig_cli.schemas.nbd import Chunk, ChunkFlag, ExportFlag, Info, Option, OptionReply
from blkmig_cli.wire.schema_io import build

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
