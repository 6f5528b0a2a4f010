"""Reading back what was written: what is compared, and what is said where it differs."""

import pytest

from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay import verify
from blkmig_cli.operations.replay.place import Place
from blkmig_cli.operations.replay.verify import Verifier
from tests.support.strategies import MemoryImage

PLACE = Place("d", 5, 77)
CONTENT = bytes(range(1, 101))


class Medium(MemoryImage):
    """Notes what is done to it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.done: list[object] = []

    def read(self, offset: int, length: int) -> bytes:
        self.done.append((offset, length))
        return super().read(offset, length)

    def flush(self) -> None:
        self.done.append("flush")

    def uncache(self) -> None:
        self.done.append("uncache")


def written(image: MemoryImage, start: int, end: int, data: bytes | None) -> Verifier:
    verifier = Verifier()
    verifier.wrote(PLACE, image, start, end, None if data is None else memoryview(data))  # type: ignore[arg-type]
    return verifier


@pytest.mark.parametrize(
    ("start", "end", "reads"),
    [
        (3, 4, [(3, 1)]),
        (0, 10, [(0, 10)]),
        (5, 16, [(5, 10), (15, 1)]),
        (0, 30, [(0, 10), (10, 10), (20, 10)]),
    ],
)
def test_data_is_read_in_pieces(
    monkeypatch: pytest.MonkeyPatch, start: int, end: int, reads: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(verify, "_PIECE", 10)
    image = Medium(CONTENT)
    written(image, start, end, CONTENT[start:end]).check()
    assert image.done == ["flush", "uncache", *reads]


@pytest.mark.parametrize("at", [3, 9, 10, 15])
@pytest.mark.parametrize("data", [True, False])
def test_a_byte_that_differs(monkeypatch: pytest.MonkeyPatch, at: int, data: bool) -> None:
    monkeypatch.setattr(verify, "_PIECE", 10)
    image = Medium(CONTENT if data else bytes(100))
    verifier = written(image, 3, 16, CONTENT[3:16] if data else None)
    image.content[at] ^= 128
    with pytest.raises(FailureError) as error:
        verifier.check()
    assert str(error.value) == (
        "memory reads back other than it was written, in bytes 3-16 "
        "(at byte 77, section 'block', device 'd', sector 5); "
        "the medium, or a layer above it, is faulty"
    )


@pytest.mark.parametrize("at", [2, 16])
@pytest.mark.parametrize("data", [True, False])
def test_a_byte_beside_what_was_written(at: int, data: bool) -> None:
    image = Medium(CONTENT if data else bytes(100))
    verifier = written(image, 3, 16, CONTENT[3:16] if data else None)
    image.content[at] ^= 128
    verifier.check()


def test_each_image_is_flushed_once_and_all_of_it_forgotten() -> None:
    verifier, one, other = Verifier(), Medium(CONTENT), Medium(bytes(100))
    for start in (0, 50):
        verifier.wrote(PLACE, one, start, start + 5, memoryview(CONTENT[start : start + 5]))  # type: ignore[arg-type]
        verifier.wrote(PLACE, other, start, start + 5, None)  # type: ignore[arg-type]
    verifier.check()
    assert one.done == ["flush", "uncache", (0, 5), (50, 5)]
    assert other.done == ["flush", "uncache"]
    one.done.clear()
    one.content[0] ^= 1
    verifier.check()
    assert one.done == []


def test_ranges_that_are_to_be_read_back() -> None:
    """Those of each image; after the check, none."""
    verifier, one, other = Verifier(), Medium(CONTENT), Medium(CONTENT)
    steps = [
        (one, 10, 20, False),
        (one, 20, 30, False),
        (one, 0, 10, False),
        (other, 10, 20, False),
        (one, 29, 40, True),
        (one, 39, 41, True),
        (other, 19, 20, True),
        (other, 20, 21, False),
    ]
    for image, start, end, touched in steps:
        assert verifier.touches(image, start, end) is touched  # type: ignore[arg-type]
    verifier.check()
    assert not verifier.touches(one, 10, 20)  # type: ignore[arg-type]
