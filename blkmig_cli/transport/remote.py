"""Streams at a URL, which fsspec reads (the extra ``remote``): by ranges of bytes, many at the same time.

Of an uncompressed stream only the records are read, which the scanner predicts: it asks for the heads of many
chunks at once.  What is read from end to end is read in pieces at the same time.
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, StreamError, UsageError
from blkmig_cli.system.address import Address
from blkmig_cli.system.pipes import write_all
from blkmig_cli.text import escape
from blkmig_cli.transport.inputs import FileInput
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
_URL = re.compile(r"\w[\w+.-]*://\S*")


class Store:
    """The store of the URL ``address``.

    Raises UsageError where nothing reads such URLs, FailureError where it fails.
    """

    def __init__(self, address: Address) -> None:
        self._name = str(address)
        try:
            import fsspec  # noqa: PLC0415 (an extra)
        except ImportError:
            raise FailureError(
                f"{self._name}: fsspec is missing", hint="install blkmig[remote]"
            ) from None
        scheme = address.text.partition("::")[0].partition("://")[0]
        if scheme not in fsspec.available_protocols():
            raise UsageError(f"{self._name}: URLs of '{escape(scheme)}' are not supported")
        with self.failing():
            self._store, self._path = fsspec.url_to_fs(address.text)

    def find(self) -> list[str]:
        """Return the URLs of the objects that match the path, a glob, or are below it, sorted."""
        with self.failing():
            if "*" in self._path or "[" in self._path or "?" in self._path:
                found = self._store.glob(self._path)
            else:
                found = self._store.find(self._path)
            return sorted(map(self._store.unstrip_protocol, found))

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Turn an error of the store into a FailureError, which does not tell credentials."""
        try:
            yield
        except (FailureError, UsageError, StreamError):
            raise
        except ImportError as error:
            raise FailureError(
                f"{self._name}: {escape(_plain(str(error)))}", hint="install blkmig[remote]"
            ) from None
        except Exception as error:  # noqa: BLE001 (each store raises errors of its own libraries)
            raise FailureError(f"{self._name}: {escape(_plain(_text(error)))}") from None


class Remote(Store):
    """The object at the URL ``address``; ``size`` in bytes, None where it is read from end to end.

    ``moved`` and ``requests``: the bytes and the requests so far.  Raises as :class:`Store`.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.moved = 0
        self.requests = 0
        self._version, info = self._examine()
        if info.get("type") == "directory":
            raise FailureError(f"{self._name}: is a directory", hint="add a slash to its name")
        self.size: int | None = None if info.get("partial") is False else info.get("size")
        self._file: Any = None
        if self.size is not None and address.text.startswith(("http://", "https://")):
            # The file of an HTTP server checks that no more is sent than was requested.
            with self.failing():
                self._file = self._store.open(self._path, "rb", cache_type="none")
            if self.size > _FIRST and not self._serves_ranges():
                self.size = None

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each of ``ranges`` (start, end); raises FailureError."""
        self.requests += len(ranges)
        with self.failing():
            if self._file is not None:
                found = self._fetch_http(ranges)
            else:
                starts, ends = ([one[side] for one in ranges] for side in (0, 1))
                found = self._store.cat_ranges(
                    [self._path] * len(ranges), starts, ends, on_error="raise"
                )
        self.moved += sum(map(len, found))
        for (start, end), data in zip(ranges, found, strict=True):
            if len(data) != end - start:
                raise FailureError(
                    f"{self._name}: the store sent {len(data)} bytes of {end - start}", offset=start
                )
        return found

    def _serves_ranges(self) -> bool:
        """Return whether the HTTP server sends a part of the object, which its headers need not tell."""
        from fsspec.asyn import sync  # noqa: PLC0415 (only with an HTTP server)

        assert self.size is not None
        self.requests += 1
        with self.failing():
            try:
                last = sync(
                    self._store.loop, self._file.async_fetch_range, self.size - 1, self.size
                )
            except ValueError:  # it sends all of it
                return False
        self.moved += len(last)
        return True

    def _fetch_http(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        import asyncio  # noqa: PLC0415 (as the next: only with an HTTP server)

        from fsspec.asyn import sync  # noqa: PLC0415

        async def one(room: asyncio.Semaphore, start: int, end: int) -> bytes:
            async with room:
                data: bytes = await self._file.async_fetch_range(start, end)
                return data

        async def every() -> list[bytes]:
            room = asyncio.Semaphore(limits.REQUESTS_MAX)
            return await asyncio.gather(*(one(room, start, end) for start, end in ranges))

        found: list[bytes] = sync(self._store.loop, every)
        return found

    def read(self) -> io.RawIOBase:
        """Return a file that reads the object once, from its start; raises FailureError."""
        with self.failing():
            opened = self._store.open(self._path, "rb", block_size=0)
        return _Counted(self, opened)

    def check_unchanged(self) -> None:
        """Raise FailureError where the object is not that which was opened."""
        if self._examine()[0] != self._version:
            raise FailureError(f"{self._name}: the object changed while it was read")

    def close(self) -> None:
        """Forget the open file."""
        if self._file is not None:
            self._file.close()

    def _examine(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the version of the object, and what the store says of it."""
        self.requests += 1
        with self.failing():
            self._store.invalidate_cache()
            info = self._store.info(self._path)
        return {key: info[key] for key in info if key.lower() in _VERSIONS}, info


def find_objects(address: Address) -> list[str]:
    """Return the URLs of the objects that match ``address``, a glob, or are below it; sorted.

    Raises as :class:`Remote`.
    """
    store = Store(address)
    return store.find()


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
        self._input = RemoteInput(remote, first)
        self._size = remote.size
        self._at = 0
        self._left = memoryview(first)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, target: Any) -> int:
        """Read the next bytes into ``target``; raises FailureError."""
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


def _text(error: Exception) -> str:
    """Return the message of an error of a store."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        return _text(error.__cause__)  # fsspec's HTTP store reports every failure as a missing file
    response = getattr(error, "response", None)  # botocore's ClientError
    if isinstance(response, dict) and "Error" in response:
        return "{Code}: {Message}".format_map({"Code": "", "Message": "", **response["Error"]})
    if hasattr(error, "status") and hasattr(error, "message"):  # aiohttp's ClientResponseError
        return f"HTTP status {error.status} {error.message}"
    if isinstance(error, FileNotFoundError):
        return "No such file or object"
    if isinstance(error, OSError) and error.errno and error.strerror:
        return os.strerror(error.errno) if error.errno > 0 else error.strerror
    return str(error) or type(error).__name__


def _plain(text: str) -> str:
    """Return ``text`` on one line, without URLs, which may hold credentials."""
    return " ".join(_URL.sub("(URL)", text).split())
