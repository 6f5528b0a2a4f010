"""Files of ours in JSON: written whole or not at all; read within bounds, and not believed unseen.

``read_document`` makes one error of whatever is wrong in a file; what a document is made of is asked
for of its ``Entry``, which raises ValueError with what is wrong.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from blkmig_cli.errors import FailureError, failing
from blkmig_cli.json_text import parse_json
from blkmig_cli.system.atomic import replacing
from blkmig_cli.text import brief, escape

T = TypeVar("T")


def read_document(path: str, most: int, what: str, parse: Callable[["Entry"], T]) -> T:
    """What ``parse`` makes of the object in the file at ``path``, of up to ``most`` bytes.

    ``what``: what it should be, as in "no file of bitmaps".  Raises FailureError where the file is
    missing, too large, no JSON, or ``parse`` raises ValueError.
    """
    with failing(path), open(path, "rb") as file:
        text = file.read(most + 1)
    try:
        if len(text) > most:
            raise ValueError(f"it is over {most >> 20} MiB")
        return parse(Entry(parse_json(text, strict=True), ""))
    except ValueError as error:
        raise FailureError(f"{escape(path)} is no {what}: {error}") from None


def encoded(document: dict[str, Any]) -> bytes:
    """What a file with ``document`` holds."""
    return json.dumps(document, indent=1).encode() + b"\n"


def write_document(path: str, document: dict[str, Any], temporary: str | None = None) -> None:
    """Write ``path`` atomically: it holds the old content or the new, never a part.

    ``temporary``: see ``replacing``.  Raises FailureError.
    """
    content = encoded(document)
    with replacing(path, temporary) as fd, failing(path), open(fd, "wb", closefd=False) as file:
        file.write(content)


class Entry:
    """An object in a document, asked for what it must hold; ``where`` it stands, for errors.

    What is not there, or of another kind, is a ValueError.
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where or 'the document'} is no object")
        self._given: dict[str, Any] = value
        self._where = where

    def fault(self, what: str) -> ValueError:
        """What to raise where something is wrong with this entry."""
        return ValueError(f"{self._where}: {what}" if self._where else what)

    def check_version(self, known: int) -> None:
        """Raise ValueError where the document is not of the version ``known``."""
        found = self._given.get("version")
        if found != known or not isinstance(found, int) or isinstance(found, bool):
            raise self.fault(f"version {brief(found)}, only {known} is known")

    def entries(self, key: str) -> "Iterator[Entry]":
        """The objects in the list ``key``."""
        value = self._given.get(key)
        if not isinstance(value, list):
            raise self.fault(f"{key} is no list")
        place = f"{self._where}.{key}" if self._where else key
        for index, item in enumerate(value):
            yield Entry(item, f"{place}[{index}]")

    def number(self, key: str, most: int) -> int:
        """The whole number ``key``, from 0 to ``most``."""
        value = self._given.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self.fault(f"{key} is no number from 0 to {most}")
        return value

    def flag(self, key: str) -> bool:
        """The truth value ``key``."""
        value = self._given.get(key)
        if not isinstance(value, bool):
            raise self.fault(f"{key} is neither true nor false")
        return value

    def text(self, key: str) -> str:
        """The text ``key``."""
        value = self._given.get(key)
        if not isinstance(value, str):
            raise self.fault(f"{key} is no text")
        return value

    def is_null(self, key: str) -> bool:
        """Is ``key`` there, and null?"""
        return key in self._given and self._given[key] is None
