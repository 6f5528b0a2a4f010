"""What a store says of an object, and when a request that it refuses is made again."""

import errno
import time
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed (the extra remote)")

import fsspec

from blkmig_cli import limits
from blkmig_cli.errors import FailureError, StreamError, UsageError
from blkmig_cli.system.address import Address, parse_address
from blkmig_cli.transport.store import (
    ObjectVersion,
    Patience,
    Store,
    is_refused,
    message,
    version_of,
)

#: The same time in every form.
NS = 1_700_000_000_123_456_000
TIME = datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)
WHOLE = NS // 10**9 * 10**9


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({}, ObjectVersion()),
        ({"ETag": '"a"', "size": 5}, ObjectVersion('"a"', None, 5)),
        ({"etag": 'W/"a"'}, ObjectVersion()),
        ({"etag": ""}, ObjectVersion()),
        ({"etag": 5}, ObjectVersion()),
        ({"SIZE": 7, "size_": 9}, ObjectVersion(None, None, 7)),
        ({"size": "7"}, ObjectVersion()),
        ({"mtime": TIME}, ObjectVersion(None, NS)),
        ({"mtime": TIME.replace(tzinfo=None)}, ObjectVersion(None, NS)),
        ({"mtime": TIME.astimezone(timezone(timedelta(hours=3)))}, ObjectVersion(None, NS)),
        ({"mtime": TIME.isoformat()}, ObjectVersion(None, NS)),
        ({"mtime": 1_700_000_000}, ObjectVersion(None, WHOLE)),
        ({"mtime": 1_700_000_000.5}, ObjectVersion(None, WHOLE + 500_000_000)),
        ({"Last-Modified": format_datetime(TIME, usegmt=True)}, ObjectVersion(None, WHOLE)),
        ({"LastModified": TIME}, ObjectVersion(None, NS)),
        ({"last_modified": TIME}, ObjectVersion(None, NS)),
        ({"updated": TIME}, ObjectVersion(None, NS)),
        ({"created": TIME}, ObjectVersion()),
        ({"mtime": 5, "Last-Modified": format_datetime(TIME, usegmt=True)},
         ObjectVersion(None, WHOLE)),
        ({"mtime": "yesterday"}, ObjectVersion()),
        ({"mtime": None}, ObjectVersion()),
        ({"mtime": float("inf")}, ObjectVersion()),
    ],
)  # fmt: skip
def test_versions(info: dict[str, Any], version: ObjectVersion) -> None:
    assert version_of(info) == version


def test_a_time_without_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is UTC, wherever this is read."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XYZ-9")
        time.tzset()
        found = version_of({"mtime": TIME.replace(tzinfo=None)})
    time.tzset()
    assert found == ObjectVersion(None, NS)


@pytest.mark.parametrize(
    ("version", "known"),
    [
        (ObjectVersion("a"), True),
        (ObjectVersion(None, 5, 5), True),
        (ObjectVersion(None, 5, None), False),
        (ObjectVersion(None, None, 5), False),
        (ObjectVersion(), False),
        (ObjectVersion(None, 0, 0), True),
    ],
)
def test_versions_that_are_known(version: ObjectVersion, known: bool) -> None:
    assert version.is_known is known


# -- requests that are refused


class HttpError(Exception):
    """As aiohttp raises it."""

    def __init__(self, status: object, headers: dict[str, str] | None = None) -> None:
        super().__init__("http")
        self.status = status
        self.headers = headers
        self.message = "no"


class S3Error(Exception):
    """As botocore raises it."""

    def __init__(self, status: int, headers: dict[str, str] | None = None, **said: str) -> None:
        super().__init__("s3")
        about = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
        self.response = {"ResponseMetadata": about} | ({"Error": said} if said else {})


def caused(*errors: Exception) -> Exception:
    """The first of these, which comes from the next one, and so on."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (ValueError("x"), False),
        (HttpError(429), True),
        (HttpError(428), False),
        (HttpError("429"), False),
        (HttpError(None), False),
        (HttpError(503), False),
        (HttpError(503, {"Retry-After": "1"}), True),
        (S3Error(503), True),
        (S3Error(429), True),
        (S3Error(500), False),
        (caused(OSError("x"), HttpError(429)), True),
        (caused(OSError("x"), ValueError("y"), HttpError(503, {"retry-after": "1"})), True),
        (caused(*(OSError("x") for _ in range(7)), HttpError(429)), True),
        (caused(*(OSError("x") for _ in range(8)), HttpError(429)), False),
    ],
)
def test_refusals(error: Exception, refused: bool) -> None:
    assert is_refused(error) is refused


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still, unless its only item is changed; the time since 1970 is as much."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(limits, "THROTTLED_TRIES", 10)
    monkeypatch.setattr(limits, "THROTTLED_WAIT", 60.0)
    return now


def delays(error: Exception, clock: list[float]) -> list[float]:
    """The delays until the error is raised; each is waited for."""
    patience, found = Patience(), []
    while True:
        try:
            found.append(patience.delay(error))
        except type(error):
            return found
        clock[0] += found[-1]


def test_delays_are_doubled(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a bound each, as long as there is time."""
    assert delays(HttpError(429), clock) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    monkeypatch.setattr(limits, "THROTTLED_WAIT", 400.0)
    assert delays(HttpError(429), clock) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ("0", [0.0] * 9),
        ("7", [7.0] * 8),
        ("59", [59.0]),
        ("60", [60.0]),
        ("61", []),
        ("999999999999", []),
        ("x", [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]),
        ("", [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]),
        ("²", [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]),
        ("-5", [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]),
        (format_datetime(datetime.fromtimestamp(0, UTC), usegmt=True), [0.0] * 9),
        (format_datetime(datetime.fromtimestamp(1007, UTC), usegmt=True), [7.0] + [0.0] * 8),
    ],
)
def test_delays_that_a_server_states(clock: list[float], after: str, found: list[float]) -> None:
    assert delays(HttpError(429, {"Retry-After": after}), clock) == found
    clock[0] = 1000.0
    assert delays(caused(OSError("x"), S3Error(429, {"retry-after": after})), clock) == found


def test_what_is_not_refused_is_raised_at_once(clock: list[float]) -> None:
    assert delays(ValueError("x"), clock) == []
    assert delays(HttpError(500, {"Retry-After": "0"}), clock) == []


# -- messages


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("at s3://key:secret@h/x?y=1 it  \n failed"), "at (URL) it failed"),
        (ValueError(), "ValueError"),
        (FileNotFoundError("/path"), "No such file or object"),
        (caused(FileNotFoundError("/path"), ValueError("broken")), "broken"),
        (caused(FileNotFoundError("/path"), FileNotFoundError("/path")), "No such file or object"),
        (OSError(errno.EACCES, "secret"), "Permission denied"),
        (OSError(errno.EPERM, "secret"), "Operation not permitted"),
        (OSError(-1, "Name unknown"), "Name unknown"),
        (OSError(0, "zero"), "[Errno 0] zero"),
        (OSError(-5, ""), "[Errno -5]"),
        (OSError("words"), "words"),
        (HttpError(404), "HTTP status 404 no"),
        (caused(OSError("x"), HttpError(404)), "HTTP status 404 no"),
        (S3Error(500, Code="Slow", Message="down"), "Slow: down"),
        (S3Error(500, Code="Slow"), "Slow: "),
        (caused(OSError("x"), S3Error(500, Message="down")), ": down"),
        (S3Error(500), "s3"),
    ],
)
def test_messages(error: Exception, said: str) -> None:
    assert message(error) == said.strip()


def stored(monkeypatch: pytest.MonkeyPatch, store: Any, path: str = "/o") -> Store:
    monkeypatch.setattr(fsspec, "url_to_fs", lambda _: (store, path))
    return Store(parse_address("memory://o"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("broken"), "memory://o: broken"),
        (ImportError("no s3fs"), "memory://o: no s3fs; install blkmig[remote]"),
        (FailureError("as it is"), "as it is"),
        (UsageError("as it is"), "as it is"),
        (StreamError("as it is"), "as it is"),
    ],
)
def test_failures(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    made = stored(monkeypatch, None)

    def fail() -> None:
        with made.failing():
            raise error

    with pytest.raises((FailureError, UsageError, StreamError)) as raised:
        fail()
    assert str(raised.value) == said


@pytest.mark.parametrize("url", ["nothing://o", "Nothing::memory://o"])
def test_urls_that_nothing_reads(url: str) -> None:
    with pytest.raises(UsageError) as error:
        Store(Address(url, "url"))
    assert str(error.value).endswith(": URLs of 'nothing' are not supported")


class Listing:
    """A store with some objects, and a folder."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.cached = True

    def _found(self, how: str, path: str) -> dict[str, dict[str, Any]]:
        self.asked.append((how, path))
        return {"/b": {"type": "file", "etag": "e"}, "/c": {"type": "directory"}, "/a": {}}

    def find(self, path: str, detail: bool) -> dict[str, dict[str, Any]]:
        assert detail
        return self._found("find", path)

    def glob(self, path: str, detail: bool) -> dict[str, dict[str, Any]]:
        assert detail
        return self._found("glob", path)

    def unstrip_protocol(self, path: str) -> str:
        return f"memory:/{path}"

    def invalidate_cache(self) -> None:
        self.cached = False

    def info(self, path: str) -> dict[str, Any]:
        assert not self.cached
        return {"etag": path}


@pytest.mark.parametrize("path", ["/o", "/o*", "/o?", "/o[1]"])
def test_objects(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    store = Listing()
    made = stored(monkeypatch, store, path)
    assert list(made.find().items()) == [
        ("memory://a", ObjectVersion()), ("memory://b", ObjectVersion("e"))
    ]  # fmt: skip
    assert store.asked == [("find" if path == "/o" else "glob", path)]
    assert made.find_version() == ObjectVersion(path)


def test_a_request_that_is_refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    made = stored(monkeypatch, None)
    left = [HttpError(429), HttpError(429, {"Retry-After": "3"})]

    def request() -> str:
        if left:
            raise left.pop(0)
        return "done"

    assert made.patiently(request) == "done"
    assert slept == [0.5, 3.0]
