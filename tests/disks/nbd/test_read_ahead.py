"""Pieces that are asked for before they are read: which, when, and how many."""

import pytest

from blkmig_cli.disks.nbd.connection import Connection
from blkmig_cli.disks.nbd.handshake import Export
from blkmig_cli.disks.nbd.read_ahead import PIECE, PLANNED, WINDOW, ReadAhead, block_pieces
from blkmig_cli.schemas.nbd import Command
from tests.support.nbd_bytes import WRITABLE, Answering, simple

MIB = 1 << 20
SIZE = 20 * MIB + 1000


def content(offset: int, length: int) -> bytes:
    """Return the bytes of the export: each sector has its number."""
    first, end = offset // 512, -(-(offset + length) // 512)
    sectors = b"".join(number.to_bytes(8, "big") * 64 for number in range(first, end))
    return sectors[offset % 512 : offset % 512 + length]


class Serving(Answering):
    """A server of the export."""

    command = Command.READ

    def answer(self, cookie: int, offset: int, length: int) -> bytes:
        return simple(cookie, data=content(offset, length))

    def taken(self) -> list[int]:
        """Return the numbers of the pieces that have been asked for since."""
        asked, self.asked = self.asked, []
        for offset, length in asked:
            assert offset % PIECE == 0
            assert length == min(PIECE, SIZE - offset)
        return [offset // PIECE for offset, _ in asked]


class Reader:
    """Reads the export of a server."""

    def __init__(self, *, ahead: bool) -> None:
        self.server = Serving()
        connection = Connection(self.server, Export(SIZE, WRITABLE), "disk", 60)
        self.ahead = ReadAhead(connection, ahead=ahead)

    def read(self, offset: int, length: int, *, again: bool = False) -> list[int]:
        """Read a range, and return the pieces that are asked for meanwhile."""
        found = bytearray()

        def take(view: memoryview) -> bool:
            found.extend(view)
            return True

        assert self.ahead.read(offset, length, take, again=again)
        assert found == content(offset, length)
        return self.server.taken()


@pytest.mark.parametrize(
    ("offset", "length", "pieces"),
    [
        (0, 1, [0]),
        (PIECE - 1, 1, [0]),
        (PIECE - 1, 2, [0, 1]),
        (PIECE, PIECE, [1]),
        (3 * PIECE + 5, 2 * PIECE, [3, 4, 5]),
        (SIZE - 1, 1, [40]),
        (0, 0, []),
        (SIZE, 0, []),
    ],
)
def test_only_what_is_read(offset: int, length: int, pieces: list[int]) -> None:
    reader = Reader(ahead=False)
    assert reader.read(offset, length) == pieces
    # Nothing of it is kept.
    assert reader.read(offset, length) == pieces


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1)])
def test_past_the_end(offset: int, length: int) -> None:
    reader = Reader(ahead=True)
    with pytest.raises(ValueError, match="a read past the disk's end"):
        reader.read(offset, length)
    assert reader.server.asked == []


@pytest.mark.parametrize("ahead", [False, True])
def test_not_too_much_at_once(ahead: bool) -> None:
    """Of a long range, and of all that is expected."""
    reader = Reader(ahead=ahead)
    sizes: list[int] = []

    def take(view: memoryview) -> bool:
        sizes.append(len(reader.server.asked))
        return True

    assert reader.ahead.read(0, SIZE, take)
    assert len(sizes) == 41
    assert max(asked - read for read, asked in enumerate(sizes)) == WINDOW
    assert reader.server.taken() == list(range(41))


def test_what_follows_is_asked_for() -> None:
    reader = Reader(ahead=True)
    assert reader.read(0, 5) == list(range(WINDOW))
    assert reader.read(5, 5) == []
    assert reader.read(10, PIECE - 10) == [WINDOW]
    assert reader.read(PIECE, PIECE) == [WINDOW + 1]
    # Somewhere else, nothing is read ahead before it goes on there.
    assert reader.read(30 * PIECE, 5) == [30]
    assert reader.read(30 * PIECE + 5, 5) == list(range(31, 38))
    reader.ahead.drop()
    assert reader.read(30 * PIECE, 5) == list(range(30, 38))


def test_what_is_wanted_no_more() -> None:
    reader = Reader(ahead=False)
    assert not reader.ahead.read(0, 3 * PIECE, lambda _: False)
    assert reader.server.taken() == [0, 1, 2]
    assert reader.read(2 * PIECE, 5) == [2]


def test_extents_that_are_expected() -> None:
    """Whole chunks of them, and nothing between or behind them."""
    reader = Reader(ahead=True)
    reader.ahead.drop(plan=True)
    reader.ahead.expect(0, 1)
    reader.ahead.expect(3 * MIB + 5, 1)
    reader.ahead.expect(20 * MIB + 9, 1)
    assert reader.read(0, 5) == [0, 1, 6, 7, 40]
    assert reader.read(3 * MIB, MIB) == []
    assert reader.read(20 * MIB, 1000) == []
    assert PLANNED == 4


@pytest.mark.parametrize("again", [False, True])
def test_a_chunk_that_is_read_twice(again: bool) -> None:
    reader = Reader(ahead=True)
    assert reader.read(0, MIB, again=again) == list(range(WINDOW + 2))
    assert reader.read(0, MIB) == ([] if again else [0, 1])


@pytest.mark.parametrize(
    ("minimum", "maximum", "wanted", "size"),
    [
        (1, 32 * MIB, PIECE, PIECE),
        (512, PIECE - 1, PIECE, PIECE - 512),
        (512, PIECE, PIECE, PIECE),
        (4096, 4096, PIECE, 4096),
        (4096, 5000, PIECE, 4096),
        (3 * 4096, MIB, PIECE, 42 * 3 * 4096),
        (MIB, MIB, PIECE, MIB),
        (512, MIB, 1000, 512),
    ],
)
def test_pieces_by_the_servers_block_sizes(
    minimum: int, maximum: int, wanted: int, size: int
) -> None:
    assert block_pieces(minimum, maximum, wanted) == size
