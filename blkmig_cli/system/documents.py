"""blkmig's own JSON files: written atomically; read within limits, and checked.

``read_document`` turns every fault of a file into one error; the values of a document are read
through ``Entry``, which raises ValueError for a value that is missing or invalid.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from blkmig_cli.errors import FailureError, failing
from blkmig_cli.json_text import parse_json
from blkmig_cli.system.atomic import replacing
from blkmig_cli.text import brief, escape

T = TypeVar("T")


def read_document(path: str, most: int, what: str, parse: Callable[["Entry"], T]) -> T:
    """Return the result of ``parse`` for the object in the file at ``path``, of up to ``most`` bytes.

    ``what``: the expected kind of file, such as "file of bitmaps".  Raises FailureError where the
    file is missing, too large, not JSON, or ``parse`` raises ValueError.
    """
    with failing(path), open(path, "rb") as file:
        text = file.read(most + 1)
    try:
        if len(text) > most:
            raise ValueError(f"it is over {most >> 20} MiB")
        return parse(Entry(parse_json(text, strict=True), ""))
    except ValueError as error:
        raise FailureError(f"{escape(path)} is not a {what}: {error}") from None


def encoded(document: dict[str, Any]) -> bytes:
    """Return the bytes of a file with ``document``."""
    return json.dumps(document, indent=1).encode() + b"\n"


def write_document(path: str, document: dict[str, Any], temporary: str | None = None) -> None:
    """Write ``path`` atomically: it has the old content or the new, never a part.

    ``temporary``: see ``replacing``.  Raises FailureError.
    """
    write_pieces(path, [encoded(document)], temporary)


def write_pieces(
    path: str, pieces: Iterable[bytes], temporary: str | None = None, like: str | None = None
) -> None:
    """Write ``path`` as :func:`write_document` does; ``pieces`` are its content.

    ``like``: see ``replacing``.
    """
    with (
        replacing(path, temporary, like) as fd,
        failing(path),
        open(fd, "wb", closefd=False) as file,
    ):
        file.writelines(pieces)


class Entry:
    """An object in a document, whose values are read by type; ``where`` is its place, for errors.

    A value that is missing or of another type is a ValueError.  A document that is a list is an
    object with that list under an empty key.
    """

    def __init__(self, value: Any, where: str) -> None:
        self.is_list = isinstance(value, list) and not where
        if self.is_list:
            value = {"": value}
        if not isinstance(value, dict):
            raise ValueError(f"{where or 'the document'} is not an object")
        self._given: dict[str, Any] = value
        self._where = where

    def fault(self, what: str) -> ValueError:
        """Return the error to raise for a fault of this entry."""
        return ValueError(f"{self._where}: {what}" if self._where else what)

    def check_version(self, known: int) -> None:
        """Raise ValueError where the document is not of the version ``known``."""
        found = self._given.get("version")
        if found != known or not isinstance(found, int) or isinstance(found, bool):
            raise self.fault(f"version {brief(found)}, only {known} is known")

    def entry(self, key: str) -> "Entry":
        """Return the object ``key``."""
        return Entry(self._given.get(key), f"{self._where}.{key}" if self._where else key)

    def entries(self, key: str) -> "Iterator[Entry]":
        """Yield the objects in the list ``key``."""
        place = f"{self._where}.{key}" if self._where else key
        for index, item in enumerate(self._list(key)):
            yield Entry(item, f"{place}[{index}]")

    def rows(self, key: str, names: Sequence[str], most: int) -> list[tuple[int, ...]]:
        """Return the numbers ``names``, from 0 to ``most``, of each object in the list ``key``."""
        found: list[tuple[int, ...]] = []
        for index, item in enumerate(self._list(key)):
            row: tuple[Any, ...] = tuple(map(item.get, names)) if isinstance(item, dict) else ()
            if not row or not all(type(number) is int and 0 <= number <= most for number in row):
                # Report the fault as for any other entry.
                place = f"{self._where}.{key}[{index}]"
                row = tuple(Entry(item, place).number(name, most) for name in names)
            found.append(row)
        return found

    def _list(self, key: str) -> list[Any]:
        value = self._given.get(key)
        if not isinstance(value, list):
            raise self.fault(f"{key} is not a list")
        return value

    def number(self, key: str, most: int) -> int:
        """Return the whole number ``key``, from 0 to ``most``."""
        value = self._given.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self.fault(f"{key} is not a number from 0 to {most}")
        return value

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """Return the boolean ``key``; ``default`` where it is missing, if that is not None."""
        value = self._given.get(key, default)
        if not isinstance(value, bool):
            raise self.fault(f"{key} is neither true nor false")
        return value

    def text(self, key: str, *, default: str | None = None) -> str:
        """Return the string ``key``; ``default`` where it is missing, if that is not None."""
        value = self._given.get(key, default)
        if not isinstance(value, str):
            raise self.fault(f"{key} is not a string")
        return value

    def value(self, key: str) -> Any:
        """Return the value ``key``, of any type; None where it is missing."""
        return self._given.get(key)

    def is_null(self, key: str) -> bool:
        """Return whether ``key`` is present and null."""
        return key in self._given and self._given[key] is None
