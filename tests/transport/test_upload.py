"""Writing an object: parts that grow, and what becomes of one that is not complete."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed (the extra remote)")

import fsspec

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.system.address import parse_address
from blkmig_cli.transport.upload import Upload

MIB = 1 << 20


class Length:
    """Stands for so many bytes."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


class File:
    """A new object, and what is done to it."""

    def __init__(self, blocksize: int) -> None:
        self.blocksize = blocksize
        self.forced = False
        self.done: list[object] = []
        self.fault: Callable[[], None] | None = None

    def write(self, data: Any) -> None:
        self.done.append(len(data))

    def close(self) -> None:
        if self.fault is not None:
            self.fault()
        self.done.append(("close", self.forced))

    def commit(self) -> None:
        self.done.append("commit")

    def discard(self) -> None:
        self.done.append("discard")


class Objects:
    """A store that takes one object."""

    def __init__(self, *, fixed: bool | None = None, writes: bool = True) -> None:
        if fixed is not None:
            self.fixed_upload_size = fixed
        self.writes = writes
        self.file = File(0)

    def open(self, path: str, mode: str, block_size: int, autocommit: bool) -> File:
        assert (path, mode, autocommit) == ("/o", "wb", False)
        if not self.writes:
            raise NotImplementedError
        self.file = File(block_size)
        return self.file


@pytest.fixture
def upload(monkeypatch: pytest.MonkeyPatch) -> Callable[[Objects], Upload]:
    def make(store: Objects, url: str = "memory://o") -> Upload:
        monkeypatch.setattr(fsspec, "url_to_fs", lambda _: (store, "/o"))
        return Upload(parse_address(url))

    return make


Make = Callable[..., Upload]


def write(made: Upload, length: int) -> None:
    made.write(Length(length))  # type: ignore[arg-type]


@pytest.mark.parametrize("fixed", [None, False])
def test_parts_grow(upload: Make, fixed: bool | None) -> None:
    """After a thousand of a size, the next are twice as large, up to the most: 10,000 hold 3.4 TiB."""
    store = Objects(fixed=fixed)
    made = upload(store)
    sizes = []
    for _ in range(10_000):
        sizes.append(store.file.blocksize)
        write(made, sizes[-1])
    expected = [32 << min(at // 1000, 4) for at in range(10_000)]
    assert [size // MIB for size in sizes] == expected
    assert sum(sizes) > 3.38 * 2**40


def test_parts_of_a_store_that_takes_only_one_size(upload: Make) -> None:
    store = Objects(fixed=True)
    made = upload(store)
    for _ in range(5000):
        write(made, 32 * MIB)
    assert store.file.blocksize == 32 * MIB


def test_a_part_that_is_larger_than_what_is_left(upload: Make) -> None:
    store = Objects()
    made = upload(store)
    write(made, 32_000 * MIB - 1)
    assert store.file.blocksize == 32 * MIB
    write(made, 1)
    assert store.file.blocksize == 64 * MIB
    write(made, 64_000 * MIB - 1)
    assert store.file.blocksize == 64 * MIB
    write(made, 64 * MIB)
    assert store.file.blocksize == 128 * MIB


def test_an_object_that_is_complete(upload: Make) -> None:
    store = Objects()
    with upload(store) as made:
        made.write(b"123")
        made.complete()
    assert store.file.done == [3, ("close", False), "commit"]


@pytest.mark.parametrize("raises", [True, False])
def test_an_object_that_is_not_complete(upload: Make, raises: bool) -> None:
    """It is discarded, without its last part."""
    store = Objects()

    def go_on() -> None:
        with upload(store) as made:
            made.write(b"123")
            if raises:
                raise ValueError("broken off")

    if raises:
        with pytest.raises(ValueError, match="broken off") as error:
            go_on()
        assert not getattr(error.value, "__notes__", [])
    else:
        go_on()
    assert store.file.done == [3, ("close", True), "discard"]


def test_an_object_that_cannot_be_discarded(upload: Make) -> None:
    store = Objects()

    def fault() -> None:
        raise OSError("gone\naway")

    def go_on() -> None:
        with upload(store):
            store.file.fault = fault
            raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off") as error:
        go_on()
    assert error.value.__notes__ == ["what was sent could not be discarded: gone away"]
    with upload(store):
        store.file.fault = fault


def test_a_store_that_does_not_answer(upload: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DISCARD_WAIT", 0.01)
    store, gate = Objects(), threading.Event()

    def fault() -> None:
        gate.wait(60)

    def go_on() -> None:
        with upload(store):
            store.file.fault = fault
            raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off") as error:
        go_on()
    assert error.value.__notes__ == [
        "what was sent could not be discarded: the store does not answer"
    ]
    gate.set()


def test_where_nothing_can_be_written(upload: Make) -> None:
    with pytest.raises(UsageError) as error:
        upload(Objects(writes=False))
    assert str(error.value) == "memory://o: streams cannot be written to such a URL"
    with pytest.raises(FailureError) as failure:
        upload(Objects(), "memory://o/")
    assert str(failure.value) == "memory://o/: is a directory; add the name of an object"
