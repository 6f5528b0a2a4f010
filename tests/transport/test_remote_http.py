"""Ranges of an HTTP server, with a store that stands for it: what is requested, and how many at a time."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed (the extra remote)")

import fsspec
from fsspec.asyn import get_loop

from blkmig_cli import limits
from blkmig_cli.errors import FailureError
from blkmig_cli.system.address import parse_address
from blkmig_cli.transport import remote as module
from blkmig_cli.transport.remote import Remote

DATA = random.Random(4).randbytes(1000)


class File:
    """The file of an HTTP store: sends ranges, or fails at some."""

    def __init__(self, *, ranges: bool = True) -> None:
        self.ranges = ranges
        self.asked: list[tuple[int, int]] = []
        self.now = self.most = 0
        self.fault: Callable[[int], Exception | None] = lambda _: None
        self.closed = False

    async def async_fetch_range(self, start: int, end: int) -> bytes:
        self.asked.append((start, end))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            fault = self.fault(start)
            if fault is not None:
                raise fault
            if not self.ranges:
                raise ValueError("got more bytes than requested")
            return DATA[start:end]
        finally:
            self.now -= 1

    def close(self) -> None:
        self.closed = True


class HttpStore:
    """A store of one object."""

    def __init__(self, file: File, info: dict[str, Any]) -> None:
        self.loop = get_loop()
        self.file = file
        self.stated = info
        self.opened: list[tuple[str, str, str]] = []

    def info(self, _: str) -> dict[str, Any]:
        return self.stated

    def invalidate_cache(self) -> None:
        pass

    def open(self, path: str, mode: str, cache_type: str) -> File:
        self.opened.append((path, mode, cache_type))
        return self.file


Make = Callable[..., tuple[Remote, File, HttpStore]]


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(
        url: str = "https://h/o", *, first: int = 2000, ranges: bool = True, **info: Any
    ) -> tuple[Remote, File, HttpStore]:
        file = File(ranges=ranges)
        store = HttpStore(file, {"type": "file", "size": 1000} | info)
        monkeypatch.setattr(fsspec, "url_to_fs", lambda _: (store, "/o"))
        monkeypatch.setattr(module, "_FIRST", first)
        return Remote(parse_address(url)), file, store

    return make


@pytest.mark.parametrize("url", ["https://h/o", "http://h/o"])
def test_ranges(remote: Make, url: str) -> None:
    found, file, store = remote(url)
    assert store.opened == [("/o", "rb", "none")]
    assert file.asked == []
    assert found.fetch([(0, 5), (10, 20)]) == [DATA[:5], DATA[10:20]]
    assert sorted(file.asked) == [(0, 5), (10, 20)]
    assert (found.moved, found.requests, found.size) == (15, 3, 1000)
    found.close()
    assert file.closed


@pytest.mark.parametrize(
    ("first", "ranges", "size", "asked"),
    [
        (1000, True, 1000, []),
        (1000, False, 1000, []),
        (999, True, 1000, [(999, 1000)]),
        (999, False, None, [(999, 1000)]),
    ],
)
def test_whether_the_server_sends_ranges(
    remote: Make, first: int, ranges: bool, size: int | None, asked: list[tuple[int, int]]
) -> None:
    """It is asked for the last byte of an object that is longer than what is read first."""
    found, file, _ = remote(first=first, ranges=ranges)
    assert found.size == size
    assert file.asked == asked
    assert (found.requests, found.moved) == (1 + len(asked), len(asked) if ranges else 0)


def test_a_server_that_says_it_sends_none(remote: Make) -> None:
    found, file, store = remote(partial=False)
    assert (found.size, file.asked, store.opened) == (None, [], [])
    found, file, store = remote(size=None)
    assert (found.size, file.asked, store.opened) == (None, [], [])


@pytest.mark.parametrize("most", [1, 3, 100])
def test_how_many_at_a_time(remote: Make, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(limits, "REQUESTS_MAX", most)
    found, file, _ = remote()
    ranges = [(at, at + 5) for at in range(0, 100, 10)]
    assert found.fetch(ranges) == [DATA[start:end] for start, end in ranges]
    assert file.most == min(most, 10)


def test_a_range_that_fails(remote: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those after it are not requested."""
    monkeypatch.setattr(limits, "REQUESTS_MAX", 1)
    found, file, _ = remote()
    file.fault = lambda start: OSError("broken") if start == 10 else None
    with pytest.raises(FailureError, match="https://h/o: broken"):
        found.fetch([(0, 5), (10, 15), (20, 25), (30, 35)])
    assert file.asked == [(0, 5), (10, 15)]


class RefusedError(Exception):
    """A request is one of too many."""

    status = 429

    def __init__(self) -> None:
        super().__init__("refused")
        self.headers = {"Retry-After": "0"}


def test_a_range_that_is_refused(remote: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is requested again, with those after it."""
    monkeypatch.setattr(limits, "REQUESTS_MAX", 1)
    found, file, _ = remote()
    left = [RefusedError()]
    file.fault = lambda start: left.pop() if start == 10 and left else None
    ranges = [(0, 5), (10, 15), (20, 25)]
    assert found.fetch(ranges) == [DATA[start:end] for start, end in ranges]
    assert file.asked == [(0, 5), (10, 15), (10, 15), (20, 25)]
    assert (found.requests, found.moved) == (5, 15)
