"""A catalogue: what was found in many captures, in an SQLite database, so that only changed ones are read.

The standard library reads and writes SQLite, and every language has a client; see docs/many.md for
queries.  A report is kept as the JSON object of ``validate --output json``, which views present as
tables of disks, bitmaps and findings.  A capture is unchanged if it has the same size and modification time,
and is read with the same options by the same version of blkmig.

The file may come from anywhere: it is used only if it has exactly the tables and views below, and what is
read from it is checked.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from blkmig_cli import limits
from blkmig_cli.checks.report import Report
from blkmig_cli.errors import FailureError, UsageError, failing
from blkmig_cli.json_text import parse_json
from blkmig_cli.output.json_writer import write_json
from blkmig_cli.output.report_reading import kept_report, read_report
from blkmig_cli.system.address import parse_address
from blkmig_cli.system.atomic import check_neighbour
from blkmig_cli.system.documents import Entry
from blkmig_cli.text import encode_name, escape
from blkmig_cli.transport.source import stream_name
from blkmig_cli.wire.identity import is_id

_VERSION = 1
# "blkm", which file(1) shows.
_APPLICATION = 0x626C6B6D
_SCHEMA = """
CREATE TABLE captures (
  address PRIMARY KEY, size INTEGER, mtime_ns INTEGER, options TEXT, checked TEXT
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
# A change within this time of an earlier one may leave the modification time as it was.
_SETTLED = 2.0
# Captures that are written at once.
_BATCH = 64

# Size in bytes and modification time in ns of a file.
_Version = tuple[int, int]
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
        self._seen: dict[str, tuple[_Version, bool]] = {}
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

    def has(self, name: str) -> bool:
        """Return whether the file of the STREAM ``name`` is as it was when it was added."""
        version = _version(name)
        if version is None:
            return False
        self._seen[name] = version, time.time() - version[1] / 1e9 >= _SETTLED
        with self._errors():
            row = self._database.execute(
                "SELECT size, mtime_ns, options FROM captures WHERE address = ?", (_key(name),)
            ).fetchone()
        return bool(row == (*version, self._options))

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

        Files that no longer exist are removed first.
        """
        self._store()
        with self._errors(), self._database:
            addresses = self._database.execute("SELECT address FROM captures").fetchall()
            gone = [row for row in addresses if not _exists(row[0])]
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
        version, settled = self._seen[name]
        for table in ("captures", "streams"):
            database.execute(f"DELETE FROM {table} WHERE address = ?", (key,))  # noqa: S608
        if any(report.verdict == "failed" for report in reports):
            return
        texts = [_text(report) for report in reports]
        unchanged = settled and _version(name) == version and None not in texts
        mtime = version[1] if unchanged else None  # None: it is read again
        checked = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        database.execute(
            "INSERT INTO captures VALUES (?, ?, ?, ?, ?)",
            (key, version[0], mtime, self._options, checked),
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


def _exists(address: object) -> bool:
    """Return whether there is a file at an address in the database."""
    return isinstance(address, _Key) and os.path.lexists(address)


def _version(name: str) -> _Version | None:
    """Return the version of the STREAM ``name``, None if it is not a file from its start."""
    try:
        address = parse_address(name)
        if address.scheme != "file" or address.offset is not None:
            return None
        found = os.stat(address.path)
    except (OSError, UsageError):
        return None
    return found.st_size, found.st_mtime_ns


def _key(name: str) -> str | bytes:
    """Return the address of the STREAM ``name``, a file, which is the same in every working directory."""
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
