"""A catalogue: what was found in many captures, in an SQLite database, so that only changed ones are read.

The standard library reads and writes SQLite, and every language has a client; see docs/many.md for
queries.  A report is kept as the JSON object of ``validate --output json``, which views present as
tables of disks, bitmaps and findings.  A file is unchanged if it has the same size and modification time,
an object at a URL if it has the same etag (or, without one, as a file), and if it is read with the same
options by the same version of blkmig.

The file may come from anywhere: it is used only if it has exactly the tables and views below, and what is
read from it is checked.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from blkmig_cli import limits
from blkmig_cli.checks.report import Report
from blkmig_cli.errors import FailureError, UsageError, failing
from blkmig_cli.json_text import parse_json
from blkmig_cli.operations.many.captures import Capture
from blkmig_cli.output.json_writer import write_json
from blkmig_cli.output.report_reading import kept_report, read_report
from blkmig_cli.system.address import Address, has_query, is_url, parse_address, shown_address
from blkmig_cli.system.atomic import check_neighbour
from blkmig_cli.system.documents import Entry
from blkmig_cli.text import encode_name, escape
from blkmig_cli.transport.source import stream_name
from blkmig_cli.transport.store import ObjectVersion, Store
from blkmig_cli.wire.identity import is_id

_VERSION = 3
# "blkm", which file(1) shows.
_APPLICATION = 0x626C6B6D
_SCHEMA = """
CREATE TABLE captures (
  address PRIMARY KEY, size INTEGER, mtime_ns INTEGER, etag TEXT, options TEXT, checked TEXT
);
CREATE TABLE streams (
  address, number INTEGER, verdict TEXT, complete INTEGER, id TEXT, base TEXT, report TEXT,
  PRIMARY KEY (address, number)
);
CREATE INDEX streams_by_id ON streams (id);
CREATE VIEW disks AS SELECT address, number, json_extract(value, '$.name') AS device,
  json_extract(value, '$.size') AS size, json_extract(value, '$.chunks') AS chunks,
  json_extract(value, '$."zero-chunks"') AS zero_chunks
  FROM streams, json_each(report, '$.devices');
CREATE VIEW bitmaps AS SELECT address, number, json_extract(value, '$.device') AS device,
  json_extract(value, '$.name') AS name, json_extract(value, '$.granularity') AS granularity,
  json_extract(value, '$.count') AS count, json_extract(value, '$.complete') AS complete
  FROM streams, json_each(report, '$.bitmaps');
CREATE VIEW findings AS SELECT address, number, json_extract(value, '$.id') AS id,
  json_extract(value, '$.severity') AS severity, json_extract(value, '$.offset') AS "offset",
  json_extract(value, '$.device') AS device, json_extract(value, '$.message') AS message
  FROM streams, json_each(report, '$.findings');
"""
# A change within this time of an earlier one may leave the modification time as it was; that of an object is
# in seconds, of another clock (RFC 9110, 8.8.2.2).
_SETTLED, _SETTLED_AWAY = 2.0, 60.0
# Captures that are written at once.
_BATCH = 64

# An address in the database: bytes where it is no text.
_Key = (str, bytes)


class Catalogue:
    """The catalogue in the file at ``path``; ``options``: text that says how captures are read.

    It is a context: on leaving it, also by an exception, what was found is stored.  Every method raises
    FailureError where the file fails, or is not a catalogue.
    """

    def __init__(self, path: str, options: str) -> None:
        self._path = path
        self._options = options
        self._seen: dict[str, ObjectVersion] = {}
        self._below: set[str] = set()
        self._waiting: list[tuple[str, list[Report]]] = []
        for name in (path, *(f"{path}-{kind}" for kind in ("journal", "wal", "shm"))):
            check_neighbour(name)
        with failing(path):
            is_new = not os.path.exists(path) or os.stat(path).st_size == 0
        with self._errors():
            self._database = sqlite3.connect(path, timeout=limits.CATALOGUE_WAIT)
        try:
            with self._errors():
                self._database.setlimit(
                    sqlite3.SQLITE_LIMIT_LENGTH, 2 * limits.CATALOGUE_REPORT_MAX
                )
                self._database.execute("PRAGMA trusted_schema = OFF")
                if is_new:
                    self._make()
            self._check()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> "Catalogue":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._store()
        finally:
            self._database.close()

    def find(self, captures: Sequence[Capture]) -> list[bool]:
        """Return for each of ``captures`` whether it is as it was when it was added.

        Stores are asked for the objects that they have not listed, many at the same time.
        """
        self._below |= {capture.below for capture in captures if capture.below is not None}
        return [
            version is not None and self._has(capture.name, version)
            for capture, version in zip(captures, _versions(captures), strict=True)
        ]

    def _has(self, name: str, version: ObjectVersion) -> bool:
        """Return whether ``name`` is known in ``version``."""
        self._seen[name] = version
        with self._errors():
            row = self._database.execute(
                "SELECT etag, mtime_ns, size, options FROM captures WHERE address = ?",
                (_key(name),),
            ).fetchone()
        if row is None or row[3] != self._options or not version.is_known:
            return False
        return bool(
            version.etag == row[0] and (row[0] or (version.mtime_ns, version.size) == row[1:3])
        )

    def results(self, name: str) -> list[Report]:
        """Return the reports on the STREAM ``name`` when it was added, under that name."""
        with self._errors():
            rows = self._database.execute(
                "SELECT report FROM streams WHERE address = ? ORDER BY number", (_key(name),)
            ).fetchall()
        found = []
        try:
            if not rows:
                raise ValueError("a report is missing")
            for number, (text,) in enumerate(rows, 1):
                if not isinstance(text, str):
                    raise ValueError("a report is no text")
                report = read_report(Entry(parse_json(text.encode(), strict=True), "report"))
                found.append(replace(report, stream=stream_name(name, number)))
            return found
        except ValueError as error:
            raise self._fault(str(error)) from None

    def add(self, name: str, reports: list[Report]) -> None:
        """Add the ``reports`` on the streams of the STREAM ``name``, in place of earlier ones."""
        if name in self._seen:
            self._waiting.append((name, reports))
            if len(self._waiting) >= _BATCH:
                self._store()

    def without_base(self) -> list[tuple[str, str]]:
        """Return the addresses of increments whose base is no stream of the catalogue, with its id.

        Files that no longer exist are removed first, and objects that are no longer below a URL.
        """
        self._store()
        seen = set(map(_key, self._seen))
        below = tuple(shown_address(url) for url in self._below)
        with self._errors(), self._database:
            addresses = self._database.execute("SELECT address FROM captures").fetchall()
            gone = [row for row in addresses if row[0] not in seen and _is_gone(row[0], below)]
            for table in ("captures", "streams"):
                self._database.executemany(f"DELETE FROM {table} WHERE address = ?", gone)  # noqa: S608
            rows = self._database.execute(
                "SELECT address, base FROM streams WHERE base IS NOT NULL AND base NOT IN"
                " (SELECT id FROM streams WHERE id IS NOT NULL) ORDER BY address, number"
            ).fetchall()
        for address, base in rows:
            if not isinstance(address, _Key) or not isinstance(base, str) or not is_id(base):
                raise self._fault("an invalid address or id")
        return [(os.fsdecode(address), base) for address, base in rows]

    def _store(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        with self._errors(), self._database:
            for name, reports in waiting:
                self._store_one(name, reports)

    def _store_one(self, name: str, reports: list[Report]) -> None:
        key, database = _key(name), self._database
        for table in ("captures", "streams"):
            database.execute(f"DELETE FROM {table} WHERE address = ?", (key,))  # noqa: S608
        if any(report.verdict == "failed" for report in reports):
            return
        texts = [_text(report) for report in reports]
        version = _version_read(name, self._seen[name], reports)
        etag, mtime = version.etag, version.mtime_ns
        if None in texts or not (etag or _has_settled(name, version)):
            etag = mtime = None  # it is read again
        checked = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        database.execute(
            "INSERT INTO captures VALUES (?, ?, ?, ?, ?, ?)",
            (key, version.size, mtime, etag, self._options, checked),
        )
        for number, (report, text) in enumerate(zip(reports, texts, strict=True), 1):
            identity = report.identity
            known = (None, None) if identity is None else (identity.id, identity.base)
            row = (key, number, report.verdict, report.complete, *known, text or "{}")
            database.execute("INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def _make(self) -> None:
        self._database.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {_APPLICATION};"
            f" PRAGMA user_version = {_VERSION}; COMMIT;"
        )

    def _check(self) -> None:
        """Raise FailureError where the file is not a catalogue of this version."""
        with self._errors():
            (application,) = self._database.execute("PRAGMA application_id").fetchone()
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            found = _objects(self._database)
        if application != _APPLICATION:
            raise self._fault("it is a database of another program")
        if version != _VERSION:
            raise self._fault(f"version {version}, only {_VERSION} is known")
        with closing(sqlite3.connect(":memory:")) as model:
            model.executescript(_SCHEMA)
            if found != _objects(model):
                raise self._fault("it has other tables")

    def _fault(self, why: str) -> FailureError:
        return FailureError(
            f"{escape(self._path)} is not a catalogue: {why}",
            hint="specify another file, or remove it",
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn an error of SQLite into a FailureError."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise FailureError(f"{escape(self._path)}: {escape(str(error))}") from error
        except (sqlite3.Error, UnicodeError) as error:
            raise self._fault(escape(str(error))) from error


def _objects(database: sqlite3.Connection) -> list[tuple[object, ...]]:
    """Return all tables, indices, views and triggers of a database."""
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    return database.execute(query).fetchall()


def _is_gone(address: object, below: tuple[str, ...]) -> bool:
    """Return whether there is no file at an address in the database.

    Of an object, whether it is below one of the URLs ``below``, all of whose objects are known otherwise.
    """
    if isinstance(address, str) and not address.startswith("/"):
        return address.startswith(below)
    return not (isinstance(address, _Key) and os.path.lexists(address))


def _versions(captures: Sequence[Capture]) -> list[ObjectVersion | None]:
    """Return the version of each of ``captures``; see :func:`_version`."""
    asked = [one.name for one in captures if one.version is None and is_url(one.name)]
    answers: dict[str, ObjectVersion | None] = {}
    if asked:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 (only with a URL)

        with ThreadPoolExecutor(limits.REQUESTS_MAX) as threads:
            answers = dict(zip(asked, threads.map(_version, asked), strict=True))
    return [
        one.version or (answers[one.name] if one.name in answers else _version(one.name))
        for one in captures
    ]


def _version(name: str) -> ObjectVersion | None:
    """Return the version of the STREAM ``name``, None if it is neither a file from its start nor an object.

    An object whose URL has a query is none: the query belongs to its address, but may be a secret.
    """
    try:
        address = parse_address(name)
        if address.scheme == "url":
            return None if has_query(name) else _object_version(address)
        if address.scheme != "file" or address.offset is not None:
            return None
        found = os.stat(address.path)
    except (OSError, UsageError):
        return None
    return ObjectVersion(mtime_ns=found.st_mtime_ns, size=found.st_size)


def _object_version(address: Address) -> ObjectVersion:
    """Return the version of an object, unknown where its store fails."""
    try:
        return Store(address).find_version()
    except FailureError:
        return ObjectVersion()


def _version_read(name: str, seen: ObjectVersion, reports: list[Report]) -> ObjectVersion:
    """Return the version of the STREAM ``name`` that was read for ``reports``; unknown where it changed.

    ``seen``: that before it was read.
    """
    if is_url(name):
        read = {one.transfer.version if one.transfer else ObjectVersion() for one in reports}
        return read.pop() if len(read) == 1 else ObjectVersion()
    return seen if _version(name) == seen else ObjectVersion(size=seen.size)


def _has_settled(name: str, version: ObjectVersion) -> bool:
    """Return whether a further change would also change the modification time."""
    settled = _SETTLED_AWAY if is_url(name) else _SETTLED
    return version.mtime_ns is not None and time.time() - version.mtime_ns / 1e9 >= settled


def _key(name: str) -> str | bytes:
    """Return the address of the STREAM ``name``, which is the same in every working directory."""
    if is_url(name):
        return shown_address(name)
    data = encode_name(os.path.abspath(parse_address(name).path))
    try:
        return data.decode()
    except UnicodeError:
        return data


def _text(report: Report) -> str | None:
    """Return a report as JSON; None if it is too long to be kept."""
    pieces: list[str] = []
    length = 0

    def write(piece: str) -> None:
        nonlocal length
        length += len(piece)
        if length > limits.CATALOGUE_REPORT_MAX:
            raise OverflowError
        pieces.append(piece)

    try:
        write_json(kept_report(report), write)
    except OverflowError:
        return None
    return json.dumps(json.loads("".join(pieces)), separators=(",", ":"))
