"""Ranges by block status, from servers that answer in pieces of any lengths."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import pytest

from blkmig_cli.disks.nbd.connection import Connection
from blkmig_cli.disks.nbd.handshake import Export
from blkmig_cli.disks.nbd.status import ranges
from blkmig_cli.errors import FailureError
from blkmig_cli.schemas.nbd import Command
from tests.support.nbd_bytes import WRITABLE, Answering, status_chunk

#: Flags of each block of 512 bytes in two contexts.
BLOCK = 512
ONE = [0, 0, 1, 1, 1, 0, 3, 3, 0, 0, 1, 0]
TWO = [0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1]
SIZE = len(ONE) * BLOCK
CONTEXTS = {7: ONE, 8: TWO}


def rows(flags: list[int], first: int, end: int) -> Iterator[tuple[int, int]]:
    for value, group in groupby(flags[first:end]):
        yield len(list(group)) * BLOCK, value


class Serving(Answering):
    """A server that tells the first ``most`` rows of what it is asked for."""

    command = Command.BLOCK_STATUS

    def __init__(self, most: int, change: Callable[[list[Any]], list[Any]] = list) -> None:
        super().__init__()
        self._most = most
        self._change = change

    def answer(self, cookie: int, offset: int, length: int) -> bytes:
        out = b""
        for number, flags in CONTEXTS.items():
            found = list(rows(flags, offset // BLOCK, (offset + length) // BLOCK))[: self._most]
            out += status_chunk(cookie, *self._change(found), number=number, done=number == 8)
        return out


def asked(channel: Serving, minimum: int = BLOCK, size: int = SIZE) -> Connection:
    export = Export(size, WRITABLE, minimum, structured=True, contexts={"a": 7, "b": 8})
    return Connection(channel, export, "disk", 60)


#: Which flags are wanted, by name: the contexts that are asked for, and a function of their flags.
WANTED: dict[str, tuple[tuple[int, ...], Callable[[tuple[int, ...]], bool]]] = {
    "one": ((7, 8), lambda flags: flags[0] == 1),
    "both": ((7, 8), lambda flags: bool(flags[0] and flags[1])),
    "either": ((7, 8), lambda flags: bool(flags[0] or flags[1])),
    "in the other order": ((8, 7), lambda flags: flags == (0, 3)),
    "all": ((7, 8), lambda _: True),
    "none": ((7, 8), lambda _: False),
}


@pytest.mark.parametrize("what", WANTED)
@pytest.mark.parametrize("most", [1, 2, 99])
def test_against_blocks(what: str, most: int) -> None:
    contexts, wanted = WANTED[what]
    states = list(zip(*(CONTEXTS[number] for number in contexts), strict=True))
    places = [0, 1, 511, 512, 513, 1024, 1300, 2560, 3000, 5000, SIZE - 1, SIZE]
    for start in places:
        for end in places:
            if start >= end:
                continue
            dirty = {at for at in range(start, end) if wanted(states[at // BLOCK])}
            connection = asked(Serving(most))
            found = list(ranges(connection, contexts, start, end, wanted))
            assert {at for low, length in found for at in range(max(low, start), low + length)} == (
                dirty
            ), (start, end)
            ends = [low + length for low, length in found]
            assert all(end < low for end, (low, _) in zip(ends, found[1:], strict=False))


@pytest.mark.parametrize(
    ("minimum", "start", "end", "request_"),
    [
        (512, 0, 512, (0, 512)),
        (512, 0, 513, (0, 1024)),
        (512, 511, 512, (0, 512)),
        (1024, 1023, 1025, (0, 2048)),
        (4096, 100, SIZE, (0, SIZE)),
        (512, 1024, SIZE, (1024, SIZE - 1024)),
    ],
)
def test_whole_blocks_are_asked_for(
    minimum: int, start: int, end: int, request_: tuple[int, int]
) -> None:
    """Not past the end of the export."""
    channel = Serving(1)
    connection = asked(channel, minimum)
    next(ranges(connection, (7, 8), start, end, lambda _: True))
    assert channel.asked[0] == request_


def test_a_large_export() -> None:
    channel = Serving(0, lambda _: [(1 << 30, 0)])
    connection = asked(channel, size=5 << 30)
    assert list(ranges(connection, (7, 8), 0, 5 << 30, lambda _: True)) == [(0, 5 << 30)]
    assert channel.asked == [
        (0, 1 << 31), (1 << 30, 1 << 31), (2 << 30, 1 << 31), (3 << 30, 1 << 31),
        (4 << 30, 1 << 30),
    ]  # fmt: skip


@pytest.mark.parametrize("length", [0, SIZE + 512])
def test_lengths_that_make_no_sense(length: int) -> None:
    connection = asked(Serving(1, lambda _: [(length, 0)]))
    with pytest.raises(
        FailureError, match=f"the server sent the state of {length} bytes at byte 0"
    ):
        list(ranges(connection, (7, 8), 0, SIZE, lambda _: True))
    with pytest.raises(FailureError, match="the server sent the state of"):
        list(ranges(connection, (7, 8), 0, SIZE, lambda _: True))
