"""The client against an NBD server that is made of bytes alone, and the bytes that it sends."""

import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from blkmig_cli.disks.nbd.image import NbdImage, image_on
from blkmig_cli.errors import FailureError

SIZE = 1 << 20
HELLO = b"NBDMAGICIHAVEOPT\0\3"
ACK, INFO, META, UNSUPPORTED = 1, 3, 4, 0x80000001
GO, STRUCTURED, LIST, SET = 7, 8, 9, 10
BASE = b"base:allocation"
DEPTH, DIRTY = b"qemu:allocation-depth", b"qemu:dirty-bitmap:b"
#: The flags of an export: it has some, and may be flushed, discarded, zeroed.
FLAGS = 0x01 | 0x04 | 0x20 | 0x40


def answer(option: int, kind: int, data: bytes = b"") -> bytes:
    return bytes.fromhex("0003e889045565a9") + struct.pack(">III", option, kind, len(data)) + data


def context(number: int, name: bytes, option: int = SET) -> bytes:
    return answer(option, META, struct.pack(">I", number) + name)


def start(
    *contexts: bytes,
    flags: int = FLAGS,
    structured: bool = True,
    blocks: bytes = b"",
    size: int = SIZE,
) -> bytes:
    """All that the server says in the handshake."""
    export = struct.pack(">HQH", 0, size, flags)
    said = HELLO + answer(STRUCTURED, ACK if structured else UNSUPPORTED)
    if structured:
        said += b"".join(contexts or (context(7, BASE),)) + answer(SET, ACK)
    return said + answer(GO, INFO, export) + blocks + answer(GO, ACK)


def option(number: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def queries(number: int, *names: bytes) -> bytes:
    return option(number, text(b"x") + struct.pack(">I", len(names)) + b"".join(map(text, names)))


ASKED_GO = option(GO, text(b"x") + struct.pack(">HH", 1, 3))
DISC = bytes.fromhex("25609513") + struct.pack(">HHQQI", 0, 2, 0, 0, 0)


def request(command: int, cookie: int, offset: int, length: int, data: bytes = b"") -> bytes:
    head = bytes.fromhex("25609513") + struct.pack(">HHQQI", 0, command, cookie, offset, length)
    return head + data


def simple(cookie: int, error: int = 0, data: bytes = b"") -> bytes:
    return bytes.fromhex("67446698") + struct.pack(">IQ", error, cookie) + data


def chunk(cookie: int, kind: int, data: bytes = b"", *, done: bool = True) -> bytes:
    head = bytes.fromhex("668e33ef") + struct.pack(">HHQI", done, kind, cookie, len(data))
    return head + data


def status(cookie: int, number: int, *extents: tuple[int, int], done: bool = True) -> bytes:
    rows = b"".join(struct.pack(">II", *extent) for extent in extents)
    return chunk(cookie, 5, struct.pack(">I", number) + rows, done=done)


def talk(
    said: bytes, use: Callable[[NbdImage], object] = lambda image: None, **options: object
) -> tuple[object, bytes]:
    """What ``use`` makes of the image, and all that the client has sent."""
    ours, theirs = socket.socketpair()
    heard = bytearray()

    def listen() -> None:
        with suppress(OSError):  # a client that has left
            theirs.sendall(said)
            while data := theirs.recv(1 << 16):
                heard.extend(data)

    listening = threading.Thread(target=listen)
    listening.start()
    try:
        image = image_on(ours, "x", "the disk", **{"writable": False, "patience": 10} | options)  # type: ignore[arg-type]
        try:
            found = use(image)
        finally:
            image.close()
    finally:
        ours.close()
        listening.join()
        theirs.close()
    return found, bytes(heard)


def after(handshake: bytes, heard: bytes) -> bytes:
    """What was sent behind the handshake."""
    assert heard.startswith(handshake)
    return heard[len(handshake) :]


SHOOK = b"\0\0\0\3" + option(STRUCTURED) + queries(SET, BASE) + ASKED_GO
SHOOK_SIMPLE = b"\0\0\0\3" + option(STRUCTURED) + ASKED_GO


def test_the_handshake() -> None:
    found, heard = talk(start(), lambda image: image.size)
    assert (found, heard) == (SIZE, SHOOK + DISC)
    assert talk(start(structured=False))[1] == SHOOK_SIMPLE + DISC
    assert talk(HELLO[:-1] + b"\1" + start()[len(HELLO) :])[1][:4] == b"\0\0\0\1"


def test_the_contexts() -> None:
    wanted = [context(7, BASE), context(8, DEPTH), context(9, DIRTY)]
    found, heard = talk(
        start(*wanted), lambda image: image.bitmap_names(), own_layer=True, bitmaps=["b"]
    )
    assert found == ["b"]
    assert queries(SET, BASE, DEPTH, DIRTY) in heard
    listed = context(0, DIRTY, LIST) + context(0, b"qemu:other", LIST) + answer(LIST, ACK)
    said = start(context(7, BASE), context(9, DIRTY))
    at = said.index(context(7, BASE))
    found, heard = talk(
        said[:at] + listed + said[at:], lambda image: image.bitmap_names(), bitmaps="all"
    )
    assert found == ["b"]
    assert queries(LIST, b"qemu:dirty-bitmap:") + queries(SET, BASE, DIRTY) in heard


REFUSALS = {
    0x80000001: "it does not support it",
    0x80000002: "its policy forbids it",
    0x80000003: "it calls it invalid",
    0x80000004: "its platform does not support it",
    0x80000007: "it is shutting down",
    0x80000008: "it requires block sizes to be respected",
    0x80000009: "the request is too large for it",
    0x8000000A: "error 0x8000000a",
}


@pytest.mark.parametrize("number", REFUSALS)
def test_refusals(number: int) -> None:
    said = HELLO + answer(STRUCTURED, UNSUPPORTED) + answer(GO, number, b"why")
    with pytest.raises(FailureError) as error:
        talk(said)
    assert error.value.message == f"the disk: the server refused GO: {REFUSALS[number]} (why)"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (0x80000005, "the disk: the server requires TLS"),
        (0x80000006, "the disk: the server has no export 'x'"),
    ],
)
def test_other_refusals(number: int, message: str) -> None:
    with pytest.raises(FailureError) as error:
        talk(HELLO + answer(STRUCTURED, UNSUPPORTED) + answer(GO, number))
    assert error.value.message == message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (0x04, None),
        (0x04 | 0x02, "the disk is a read-only export"),
        (
            0x01,
            "the disk: the server cannot flush, so that nothing written to it would be safe",
        ),
    ],
)
def test_exports_that_may_be_written(flags: int, message: str | None) -> None:
    if message is None:
        talk(start(flags=flags), writable=True)
        return
    with pytest.raises(FailureError) as error:
        talk(start(flags=flags), writable=True)
    assert error.value.message == message


@pytest.mark.parametrize(
    ("minimum", "maximum", "good"),
    [
        (1, 1 << 20, True), (65536, 1 << 20, True), (131072, 1 << 20, False), (0, 1 << 20, False),
        (3, 1 << 20, False), (1, 512, True), (1, 511, False), (4096, 4096, True),
        (4096, 2048, False), (4096, 4097, False), (4096, 0xFFFFFFFF, True),
    ],
)  # fmt: skip
def test_block_sizes(minimum: int, maximum: int, good: bool) -> None:
    blocks = answer(GO, INFO, struct.pack(">HIII", 3, minimum, 4096, maximum))
    if good:
        talk(start(blocks=blocks))
    else:
        with pytest.raises(FailureError, match="are not possible"):
            talk(start(blocks=blocks))


DATA = bytes(range(256)) * 4
#: Of an export that is so small that it is read in one piece.
SMALL = {True: start(size=len(DATA)), False: start(size=len(DATA), structured=False)}
ASKED = request(0, 1, 0, len(DATA)) + DISC


def read(image: NbdImage) -> bytes:
    return image.read(0, len(DATA))


def test_reading() -> None:
    """From a server with simple replies, and in chunks: data, holes, an end by itself."""
    assert talk(SMALL[False] + simple(1, 0, DATA), read) == (DATA, SHOOK_SIMPLE + ASKED)
    whole = chunk(1, 1, bytes(8) + DATA)
    assert talk(SMALL[True] + whole, read) == (DATA, SHOOK + ASKED)
    parts = (
        chunk(1, 1, struct.pack(">Q", 512) + DATA[512:], done=False)
        + chunk(1, 2, struct.pack(">QI", 0, 512), done=False)
        + chunk(1, 0)
    )
    assert talk(SMALL[True] + parts, read) == (bytes(512) + DATA[512:], SHOOK + ASKED)


MEANINGS = {
    1: os.strerror(1), 5: os.strerror(5), 12: os.strerror(12), 22: os.strerror(22),
    28: os.strerror(28), 75: os.strerror(75), 95: os.strerror(95),
    108: "the server is shutting down", 99: "error 99",
}  # fmt: skip


@pytest.mark.parametrize("number", MEANINGS)
def test_errors(number: int) -> None:
    """In a simple reply, and in chunks of both types."""
    message = struct.pack(">IH", number, 3) + b"why"
    for said in (
        SMALL[False] + simple(1, number),
        SMALL[True] + chunk(1, 0x8001, message),
        SMALL[True] + chunk(1, 0x8002, message + struct.pack(">Q", 600)),
    ):
        with pytest.raises(FailureError) as error:
            talk(said, read)
        assert error.value.message.endswith(f"failed: {MEANINGS[number]}")


def test_the_state_of_blocks() -> None:
    """Zeros are in no extent, holes in no layer of their own; dirty is what has the lowest bit."""
    rows = ((4096, 0), (4096, 1), (4096, 2), (4096, 3), (SIZE - 16384, 1))
    found, heard = talk(start() + status(1, 7, *rows), lambda image: list(image.extents()))
    assert found == [(0, 8192), (16384, SIZE - 16384)]
    assert after(SHOOK, heard) == request(7, 1, 0, SIZE) + DISC
    dirty = ((4096, 0), (4096, 1), (4096, 2), (SIZE - 12288, 3))
    said = start(context(7, BASE), context(9, DIRTY)) + status(1, 9, *dirty)
    found, _ = talk(said, lambda image: list(image.dirty_ranges("b")), bitmaps=["b"])
    assert found == [(4096, 4096), (12288, SIZE - 12288)]


def test_an_own_layer() -> None:
    depths = ((4096, 0), (4096, 1), (4096, 2), (SIZE - 12288, 1))
    base = ((SIZE - 4096, 0), (4096, 2))
    said = start(context(7, BASE), context(8, DEPTH))
    said += status(1, 8, *depths, done=False) + status(1, 7, *base)
    found, _ = talk(said, lambda image: list(image.extents()), own_layer=True)
    assert found == [(4096, 4096), (12288, SIZE - 12288)]


def test_writing() -> None:
    def use(image: NbdImage) -> None:
        image.write(0, memoryview(DATA))
        image.flush()
        image.discard([(4096, 512)])
        image.zero_all([(8192, 512)])

    said = start() + b"".join(simple(cookie) for cookie in range(1, 5))
    _, heard = talk(said, use, writable=True)
    assert after(SHOOK, heard) == (
        request(1, 1, 0, 1024, DATA)
        + request(3, 2, 0, 0)
        + request(4, 3, 4096, 512)
        + request(6, 4, 8192, 512)
        + DISC
    )


@pytest.mark.parametrize(("flags", "sent"), [(0x05, b""), (0x25, request(4, 1, 4096, 512))])
def test_discarding(flags: int, sent: bytes) -> None:
    """Only where the server takes it."""
    _, heard = talk(
        start(flags=flags) + simple(1), lambda image: image.discard([(4096, 512)]), writable=True
    )
    assert after(SHOOK, heard) == sent + DISC
