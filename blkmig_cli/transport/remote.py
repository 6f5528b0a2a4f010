"""Streams at a URL, which fsspec reads (the extra ``remote``): by ranges of bytes, many at the same time.

Of an uncompressed stream only the records are read, which the scanner predicts: it asks for the heads of many
chunks at once.  What is read from end to end is read in pieces at the same time.
"""

import io
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import FailureError
from blkmig_cli.system.address import Address
from blkmig_cli.system.pipes import write_all
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.transport.store import Patience, Store, is_refused, version_of
from blkmig_cli.wire.events import Payload

# Bytes that are read first: of many captures, all.
_FIRST = 8 << 20
# Bytes of a piece of what is read from end to end, and pieces that are read at the same time.
_PIECE, _PIECES = 1 << 20, 8
# Two ranges with a gap of so many bytes are one request: it takes no longer.
_GAP = 64 << 10
# Bytes that are read where few are needed.
_LEAST = 4 << 10
# What tells that an object has changed, by the store.
_VERSIONS = ("etag", "last-modified", "lastmodified", "mtime", "updated", "size", "generation")


class Remote(Store):
    """The object at the URL ``address``; ``size`` in bytes, None where it is read from end to end.

    ``moved`` and ``requests``: the bytes and the requests so far.  ``version``: of the object when it was
    opened.  Raises as :class:`Store`.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.moved = 0
        self.requests = 0
        self._found, info = self._examine()
        self.version = version_of(info)
        if info.get("type") == "directory":
            raise FailureError(f"{self._name}: is a directory", hint="add a slash to its name")
        self.size: int | None = None if info.get("partial") is False else info.get("size")
        self._file: Any = None
        if self.size is not None and address.text.startswith(("http://", "https://")):
            # The file of an HTTP server checks that no more is sent than was requested.
            self._file = self.patiently(
                lambda: self._store.open(self._path, "rb", cache_type="none")
            )
            if self.size > _FIRST and not self._serves_ranges():
                self.size = None

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each of ``ranges`` (start, end); raises FailureError.

        Ranges that the store refuses, as there are too many requests, are requested again.
        """
        found: list[bytes | Exception | None] = [None] * len(ranges)
        left = list(range(len(ranges)))
        patience = Patience()
        with self.failing():
            while left:
                answers = self._request([ranges[number] for number in left])
                failures = [answer for answer in answers if isinstance(answer, Exception)]
                for number, answer in zip(left, answers, strict=True):
                    found[number] = answer
                left = [number for number in left if not isinstance(found[number], bytes)]
                if len(failures) < len(answers):
                    patience = Patience()
                if failures:
                    failures.sort(key=is_refused)  # others come first, and are raised
                    time.sleep(patience.delay(failures[0]))
        pieces = [answer for answer in found if isinstance(answer, bytes)]
        self.moved += sum(map(len, pieces))
        for (start, end), data in zip(ranges, pieces, strict=True):
            if len(data) != end - start:
                raise FailureError(
                    f"{self._name}: the store sent {len(data)} bytes of {end - start}", offset=start
                )
        return pieces

    def _request(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | Exception]:
        """Request ``ranges`` once, many at the same time; return the bytes or the error of each."""
        if self._file is not None:
            return self._request_http(ranges)
        self.requests += len(ranges)
        starts, ends = ([one[side] for one in ranges] for side in (0, 1))
        found: list[bytes | Exception] = self._store.cat_ranges(
            [self._path] * len(ranges), starts, ends, on_error="return"
        )
        return found

    def _request_http(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | Exception]:
        """Request ``ranges`` of an HTTP server; those after one that fails are not, and have its error."""
        import asyncio  # noqa: PLC0415 (as the next: only with an HTTP server)

        from fsspec.asyn import sync  # noqa: PLC0415

        failures: list[Exception] = []

        async def one(room: asyncio.Semaphore, start: int, end: int) -> bytes | Exception:
            async with room:
                if failures:
                    return failures[0]
                self.requests += 1
                try:
                    data: bytes = await self._file.async_fetch_range(start, end)
                except Exception as error:  # noqa: BLE001 (it is raised by fetch)
                    failures.append(error)
                    return error
                return data

        async def every() -> list[bytes | Exception]:
            room = asyncio.Semaphore(limits.REQUESTS_MAX)
            return await asyncio.gather(*(one(room, start, end) for start, end in ranges))

        found: list[bytes | Exception] = sync(self._store.loop, every)
        return found

    def _serves_ranges(self) -> bool:
        """Return whether the HTTP server sends a part of the object, which its headers need not tell."""
        from fsspec.asyn import sync  # noqa: PLC0415 (only with an HTTP server)

        assert self.size is not None
        start, end = self.size - 1, self.size

        def ask() -> bytes | None:
            self.requests += 1
            try:
                last: bytes = sync(self._store.loop, self._file.async_fetch_range, start, end)
            except ValueError:  # it sends all of it
                return None
            return last

        last = self.patiently(ask)
        self.moved += len(last or b"")
        return last is not None

    def read(self) -> io.RawIOBase:
        """Return a file that reads the object once, from its start; raises FailureError."""
        opened = self.patiently(lambda: self._store.open(self._path, "rb", block_size=0))
        return _Counted(self, opened)

    def check_unchanged(self) -> None:
        """Raise FailureError where the object is not that which was opened."""
        if self._examine()[0] != self._found:
            raise FailureError(f"{self._name}: the object changed while it was read")

    def close(self) -> None:
        """Forget the open file."""
        if self._file is not None:
            self._file.close()

    def _examine(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what tells that the object has changed, and all that the store says of it."""
        self.requests += 1
        info = self._info()
        return {key: info[key] for key in info if key.lower() in _VERSIONS}, info


class RemoteInput(FileInput):
    """A stream in a :class:`Remote` object, read by ranges."""

    in_place = False

    def __init__(self, remote: Remote, first: bytes) -> None:
        assert remote.size is not None
        super().__init__(-1, remote.size)
        self._remote = remote
        self._first = first

    def again(self) -> FileInput:
        """See ``FileInput.again``."""
        return RemoteInput(self._remote, self._first)

    def read_into(self, target: memoryview, offset: int) -> None:
        """See ``FileInput.read_into``; pieces at the same time."""
        end = offset + len(target)
        at = offset
        while at < end:
            edges = [*range(at, min(end, at + _PIECES * _PIECE), _PIECE)]
            last = min(end, edges[-1] + _PIECE)
            data = b"".join(self._get([*zip(edges, [*edges[1:], last], strict=True)]))
            target[at - offset : last - offset] = data
            at = last

    def give_to(self, pipe: int, payload: Payload) -> int:
        """See ``FileInput.give_to``."""
        write_all(pipe, self.view(payload))
        return payload.length

    def _read(self, offset: int, length: int, ahead: int = 0) -> bytes:
        # Contiguous reads double what they read ahead; a single one costs a request in any case.
        many = ahead >= 1 << 16
        wanted = max(length, _PIECES * _PIECE if many else _LEAST)
        buffer = bytearray(min(wanted, max((self.size or 0) - offset, 0)))
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def _read_apart(
        self, offset: int, stride: int, pieces: Sequence[tuple[int, int]], count: int
    ) -> NDArray[np.uint8]:
        starts = range(offset, offset + count * stride, stride)
        wanted = [(start + at, start + at + length) for start in starts for at, length in pieces]
        return np.frombuffer(b"".join(self._get(wanted)), np.uint8)

    def _get(self, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of ascending ranges; those close to each other are one request."""
        merged: list[list[int]] = []
        for start, end in wanted:
            if end <= len(self._first):
                continue
            if merged and start - merged[-1][1] <= _GAP and end - merged[-1][0] <= _PIECE:
                merged[-1][1] = end
            else:
                merged.append([start, end])
        found = self._remote.fetch([(start, end) for start, end in merged]) if merged else []
        result, number = [], 0
        for start, end in wanted:
            if end <= len(self._first):
                result.append(self._first[start:end])
                continue
            while end > merged[number][1]:
                number += 1
            base = merged[number][0]
            result.append(found[number][start - base : end - base])
        return result


class RangeReader(io.RawIOBase):
    """A file that reads a :class:`Remote` object once, from its start, in pieces at the same time."""

    def __init__(self, remote: Remote, first: bytes) -> None:
        assert remote.size is not None
        self._remote = remote
        self._input = RemoteInput(remote, first)
        self._size = remote.size
        self._at = 0
        self._left = memoryview(first)
        self._checked = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, target: Any) -> int:
        """Read the next bytes into ``target``; raises FailureError, also where the object has changed."""
        if self._at == self._size and not self._checked:
            self._remote.check_unchanged()
            self._checked = True
        if not self._left and self._at < self._size:
            buffer = bytearray(min(_PIECES * _PIECE, self._size - self._at))
            self._input.read_into(memoryview(buffer), self._at)
            self._left = memoryview(buffer)
        count = min(len(target), len(self._left))
        target[:count], self._left = self._left[:count], self._left[count:]
        self._at += count
        return count


class _Counted(io.RawIOBase):
    """A file of a store, of which it is counted what was read."""

    def __init__(self, remote: Remote, file: Any) -> None:
        self._remote = remote
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        with self._remote.failing():
            data: bytes = self._file.read(len(target))
        self._remote.moved += len(data)
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def first_bytes(remote: Remote) -> bytes:
    """Return the bytes that are read first; raises FailureError."""
    assert remote.size is not None
    return remote.fetch([(0, min(_FIRST, remote.size))])[0] if remote.size else b""
