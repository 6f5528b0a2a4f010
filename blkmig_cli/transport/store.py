"""An object store: what fsspec (the extra ``remote``) says of a URL, and errors that tell no credentials.

A request that a store refuses because there are too many is made again, within bounds.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from blkmig_cli import limits
from blkmig_cli.dataclass import dataclass
from blkmig_cli.errors import FailureError, StreamError, UsageError
from blkmig_cli.system.address import Address
from blkmig_cli.system.logs import keep_off_stderr
from blkmig_cli.text import escape

R = TypeVar("R")

_URL = re.compile(r"\w[\w+.-]*://\S*")
# What a store may call the time of the last change.
_CHANGED = ("last-modified", "lastmodified", "last_modified", "mtime", "updated")
# Seconds before the second try of a refused request, doubled for each further one; the most.
_FIRST_DELAY, _DELAY_MAX = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """What a store says of the content of an object: two objects of one version are the same.

    ``etag``: None where there is no strong one; then ``mtime_ns``, the time of the last change in ns, and
    ``size`` in bytes count.
    """

    etag: str | None = None
    mtime_ns: int | None = None
    size: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether it tells one content from another."""
        return self.etag is not None or None not in (self.mtime_ns, self.size)


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
        scheme = address.text.partition("::")[0].partition("://")[0].lower()
        if scheme not in fsspec.available_protocols():
            raise UsageError(f"{self._name}: URLs of '{escape(scheme)}' are not supported")
        keep_off_stderr("asyncio", "fsspec", "s3fs", "aiobotocore", "botocore")
        with self.failing():
            self._store, self._path = fsspec.url_to_fs(address.text)

    def find(self) -> dict[str, ObjectVersion]:
        """Return the objects that match the path, a glob, or are below it: their URLs, in order."""
        is_glob = any(sign in self._path for sign in "*[?")
        find = self._store.glob if is_glob else self._store.find
        found = self.patiently(lambda: find(self._path, detail=True))
        return {
            self._store.unstrip_protocol(path): version_of(found[path])
            for path in sorted(found)
            if found[path].get("type") != "directory"
        }

    def find_version(self) -> ObjectVersion:
        """Return the version that the object has now."""
        return version_of(self._info())

    def _info(self) -> dict[str, Any]:
        """Return what the store says of the object."""

        def ask() -> dict[str, Any]:
            self._store.invalidate_cache()
            info: dict[str, Any] = self._store.info(self._path)
            return info

        return self.patiently(ask)

    def patiently(self, request: Callable[[], R]) -> R:
        """Return the result of ``request``, made again where the store refuses it as one of too many."""
        patience = Patience()
        with self.failing():
            while True:
                try:
                    return request()
                except Exception as error:  # noqa: BLE001 (each store raises errors of its own libraries)
                    time.sleep(patience.delay(error))

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Turn an error of the store into a FailureError, which does not tell credentials."""
        try:
            yield
        except (FailureError, UsageError, StreamError):
            raise
        except ImportError as error:
            raise FailureError(
                f"{self._name}: {escape(message(error))}", hint="install blkmig[remote]"
            ) from None
        except Exception as error:  # noqa: BLE001 (as above)
            raise FailureError(f"{self._name}: {escape(message(error))}") from None


class Patience:
    """How long, and how often, a request is made again that the store refuses as one of too many."""

    def __init__(self) -> None:
        self._tries = 0
        self._until = 0.0

    def delay(self, error: Exception) -> float:
        """Return the seconds after which the request that failed with ``error`` is to be made again.

        Raises ``error`` where it is not.
        """
        delay = _FIRST_DELAY * 2**self._tries
        now = time.monotonic()
        if not self._tries:
            self._until = now + limits.THROTTLED_WAIT
        self._tries += 1
        stated = _retry_after(error)
        delay = min(delay, _DELAY_MAX) if stated is None else stated
        refused = is_refused(error) and self._tries < limits.THROTTLED_TRIES
        if not refused or now + delay > self._until:
            raise error
        return delay


def is_refused(error: BaseException) -> bool:
    """Return whether a store refused a request because there are too many."""
    for cause in _causes(error):
        status, headers = _response(cause)
        if status == 429:
            return True
        if status == 503:
            # S3 says so when it is to be slowed down; other servers also when they are broken.
            return "retry-after" in headers or hasattr(cause, "response")
    return False


def version_of(info: dict[str, Any]) -> ObjectVersion:
    """Return the version of an object in what its store says of it."""
    known = {key.lower(): value for key, value in info.items()}
    etag = known.get("etag")
    if not isinstance(etag, str) or etag.startswith(
        "W/"
    ):  # of the same meaning, not of the same bytes
        etag = None
    size = known.get("size")
    times = [_time_ns(known[key]) for key in _CHANGED if key in known]
    return ObjectVersion(
        etag or None, next(iter(times), None), size if isinstance(size, int) else None
    )


def _time_ns(value: object) -> int | None:
    """Return a time that a store states, in ns since 1970; None where it is none."""
    try:
        if isinstance(value, str):
            value = _date(value)
        if isinstance(value, datetime):
            value = value if value.tzinfo else value.replace(tzinfo=UTC)
            return round(value.timestamp() * 1_000_000) * 1000
        if isinstance(value, int | float):
            return round(value * 1e9)
    except (ValueError, OverflowError, TypeError):
        pass
    return None


def _date(text: str) -> datetime:
    """Return the time in ``text``, as ISO 8601 or as HTTP writes it; raises ValueError."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return parsedate_to_datetime(text)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it comes from; libraries wrap those of their servers."""
    for _ in range(8):
        yield error
        if error.__cause__ is None:
            return
        error = error.__cause__


def _response(error: BaseException) -> tuple[int | None, dict[str, str]]:
    """Return the HTTP status and the headers, by names in lower case, that an error is about."""
    response = getattr(error, "response", None)  # botocore's ClientError
    if isinstance(response, dict):
        about = response.get("ResponseMetadata", {})
        status, headers = about.get("HTTPStatusCode"), about.get("HTTPHeaders")
    else:  # aiohttp's ClientResponseError
        status, headers = getattr(error, "status", None), getattr(error, "headers", None)
    found = {str(name).lower(): str(value) for name, value in dict(headers or {}).items()}
    return status if isinstance(status, int) else None, found


def _retry_after(error: BaseException) -> float | None:
    """Return the seconds after which a request may be made again, as the server says; None if it does not."""
    for cause in _causes(error):
        text = _response(cause)[1].get("retry-after", "")
        if text.isascii() and text.isdigit():
            return float(text[:9])
        at = _time_ns(text)
        if at is not None:
            return max(at / 1e9 - time.time(), 0.0)
    return None


def _text(error: BaseException) -> str:
    """Return the message of an error of a store."""
    for cause in _causes(error):  # where there is one, it is more exact
        response = getattr(cause, "response", None)  # botocore's ClientError
        if isinstance(response, dict) and "Error" in response:
            return "{Code}: {Message}".format_map({"Code": "", "Message": "", **response["Error"]})
        if hasattr(cause, "status") and hasattr(cause, "message"):  # aiohttp's ClientResponseError
            return f"HTTP status {cause.status} {cause.message}"
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return _text(error.__cause__)  # fsspec's HTTP store reports every failure as a missing file
    if isinstance(error, FileNotFoundError):
        return "No such file or object"
    if isinstance(error, OSError) and error.errno and error.strerror:
        return os.strerror(error.errno) if error.errno > 0 else error.strerror
    return str(error) or type(error).__name__


def message(error: BaseException) -> str:
    """Return the message of an error of a store, on one line, without URLs, which may hold credentials."""
    return " ".join(_URL.sub("(URL)", _text(error)).split())
