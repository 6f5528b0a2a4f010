"""The store of a bitmap's words against an array, around the edges of its segments."""

from itertools import product

import numpy as np
import pytest

from blkmig_cli.disks.bitmap_words import Room, Words, WordStore
from blkmig_cli.errors import LimitError

SEGMENT = 1024
END = 4 * SEGMENT
EDGES = [0, 1, 3, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT - 1, 2 * SEGMENT, 2 * SEGMENT + 5]
RANGES = [(first, end - first) for first, end in product(EDGES, [*EDGES, END]) if first < end]


def dense() -> Words:
    """Words that all differ."""
    return np.random.default_rng(5).integers(1, 1 << 63, END, np.uint64)


def sparse() -> Words:
    """Few changes, on both sides of the segments' edges, and a segment that is clean."""
    words = np.zeros(END, np.uint64)
    words[5:9] = 7
    words[SEGMENT - 3 : SEGMENT + 2] = 7
    words[SEGMENT + 2 : SEGMENT + 4] = 8
    words[3 * SEGMENT - 1] = 1 << 63
    words[3 * SEGMENT] = 1
    words[END - 1] = 9
    return words


def full() -> Words:
    return np.full(END, (1 << 64) - 1, np.uint64)


def mixed() -> Words:
    """A segment of each kind: dense, clean, sparse, full."""
    words = dense()
    words[SEGMENT : 2 * SEGMENT] = 0
    words[2 * SEGMENT : 3 * SEGMENT] = sparse()[:SEGMENT]
    words[3 * SEGMENT :] = full()[3 * SEGMENT :]
    return words


KINDS = {"dense": dense, "sparse": sparse, "full": full, "mixed": mixed}


def stored(words: Words, room: Room | None = None) -> WordStore:
    store = WordStore(room or Room())
    store.write(0, words.tobytes())
    return store


def check(store: WordStore, words: Words) -> None:
    """The store holds exactly ``words``."""
    assert np.array_equal(store.read(0, len(words)), words)
    nonzero = np.flatnonzero(words)
    assert store.end == (nonzero[-1] + 1 if len(nonzero) else 0)
    parts = list(store.parts())
    numbers = [number for part, _ in parts for number in part.tolist()]
    values = [value for _, part in parts for value in part.tolist()]
    assert numbers == nonzero.tolist()
    assert values == words[nonzero].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_reading(kind: str) -> None:
    words = KINDS[kind]()
    store = stored(words)
    check(store, words)
    for first, count in RANGES:
        assert np.array_equal(store.read(first, count), words[first : first + count])
    assert not store.read(END - 1, 2)[1]
    assert store.read(5 * SEGMENT, 2000).tolist() == [0] * 2000
    assert len(store.read(3, 0)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_parts_up_to_a_word(kind: str) -> None:
    words = KINDS[kind]()
    store = stored(words)
    for end in (*EDGES, 3 * SEGMENT, 3 * SEGMENT + 1, END - 1, END, END + 1, 9 * SEGMENT):
        found = [pair for part in store.parts(end) for pair in zip(*map(np.ndarray.tolist, part),
                                                                   strict=True)]  # fmt: skip
        nonzero = np.flatnonzero(words[:end])
        assert found == list(zip(nonzero.tolist(), words[nonzero].tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["clear", "fill", "dense", "sparse", "zeros"])
def test_writing_over(kind: str, what: str) -> None:
    """And the room that was taken is given back when all is clear."""
    for first, count in RANGES:
        room, words = Room(), KINDS[kind]()
        store = stored(words, room)
        if what == "clear":
            store.clear(first, count)
            words[first : first + count] = 0
        elif what == "fill":
            store.fill(first, count)
            words[first : first + count] = (1 << 64) - 1
        else:
            new = np.zeros(END, np.uint64) if what == "zeros" else KINDS[what]()[::-1]
            store.write(first, new[:count].tobytes())
            words[first : first + count] = new[:count]
        check(store, words)
        store.clear(0, END)
        assert (room.left, store.end, list(store.parts())) == (Room().left, 0, [])


@pytest.mark.parametrize(("one", "two"), [*product(KINDS, KINDS)])
def test_equality(one: str, two: str) -> None:
    store, other = stored(KINDS[one]()), stored(KINDS[two]())
    assert store.equals(other) == (one == two)
    if one == two:
        other.write(SEGMENT + 3, b"\x17" + bytes(7))
        assert not store.equals(other)
        other.write(SEGMENT + 3, store.read(SEGMENT + 3, 1).tobytes())
        assert store.equals(other)
        assert other.equals(store)


def test_equal_words_that_were_written_in_other_steps() -> None:
    """Each is then held in another way."""
    words = sparse()
    store, other = stored(words), stored(dense())
    for at in range(END - 1, -1, -1):
        other.write(at, words[at : at + 1].tobytes())
    check(other, words)
    assert store.equals(other)
    assert other.equals(store)


def test_what_is_clean() -> None:
    store = WordStore(Room())
    store.write(SEGMENT + 5, b"\1" + bytes(7))
    cases = {
        (0, SEGMENT): True, (0, SEGMENT + 1): False, (SEGMENT - 1, 1): True, (SEGMENT, 1): False,
        (2 * SEGMENT - 1, 1): False, (2 * SEGMENT, 1): True, (2 * SEGMENT, 99 * SEGMENT): True,
        (0, 9 * SEGMENT): False,
    }  # fmt: skip
    assert {case: store.is_clean(*case) for case in cases} == cases


def test_room() -> None:
    """Nothing is taken where it is not enough."""
    room = Room(100)
    room.take(100)
    assert room.left == 0
    with pytest.raises(LimitError, match=r"^bitmaps of over 1024 MiB of bits$"):
        room.take(1)
    room.take(-5)
    assert room.left == 5
    room = Room(2 * 8192)
    store = stored(dense()[: 2 * SEGMENT], room)
    assert room.left == 0
    with pytest.raises(LimitError):
        store.write(2 * SEGMENT, b"\1" + bytes(7))
    with pytest.raises(LimitError):
        store.fill(0, 3 * SEGMENT)
    store.fill(0, 2 * SEGMENT)
    store.clear(0, SEGMENT)
    assert room.left == 8192
    store.write(0, dense()[:SEGMENT].tobytes())
    assert room.left == 0
