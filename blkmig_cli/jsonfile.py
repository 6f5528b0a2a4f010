"""Files of ours in JSON: written whole or not at all; read within bounds, and not believed unseen.

``read_document`` makes one error of whatever is wrong in a file; what a document is made of is asked
for by the functions below it, which raise ValueError with what is wrong.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from blkmig_cli.atomic import replacing
from blkmig_cli.errors import FailureError
from blkmig_cli.text import escape

T = TypeVar("T")


def read_document(path: str, most: int, what: str, parse: Callable[[dict[str, Any]], T]) -> T:
    """What ``parse`` makes of the object in the file at ``path``, of up to ``most`` bytes.

    ``what``: what it should be, as in "no file of bitmaps".  Raises FailureError where the file is
    missing, too large, no JSON, or ``parse`` raises ValueError.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(most + 1)
        if len(text) > most:
            raise ValueError(f"it is over {most >> 20} MiB")
        return parse(as_object(json.loads(text), "the document"))
    except OSError as error:
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FailureError(f"{escape(path)} is no {what}: {error}") from None


def write_document(path: str, document: dict[str, Any]) -> None:
    """Write ``path`` atomically: it holds the old content or the new, never a part.

    Raises FailureError.
    """
    content = json.dumps(document, indent=1) + "\n"
    try:
        with replacing(path) as fd, open(fd, "wb", closefd=False) as file:
            file.write(content.encode())
    except OSError as error:
        raise FailureError(f"{escape(path)}: {error.strerror or error}") from error


def check_version(root: dict[str, Any], known: int) -> None:
    """Raises ValueError unless ``root`` is of the version that is ``known``."""
    if root.get("version") != known:
        raise ValueError(f"version {root.get('version')!r}, only {known} is known")


def as_object(value: Any, where: str) -> dict[str, Any]:
    """``value``, an object; ``where`` it stands."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no object")
    return value


def objects(entry: dict[str, Any], key: str, where: str = "") -> list[tuple[str, dict[str, Any]]]:
    """The objects in the list ``key``, each with its place."""
    value = entry.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{where}{key} is no list")
    places = ((f"{where}{key}[{index}]", item) for index, item in enumerate(value))
    return [(place, as_object(item, place)) for place, item in places]


def number(entry: dict[str, Any], key: str, most: int) -> int:
    """The whole number ``key``, from 0 to ``most``."""
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{key} is no number from 0 to {most}")
    return value


def flag(entry: dict[str, Any], key: str) -> bool:
    """The truth value ``key``."""
    value = entry.get(key)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is neither true nor false")
    return value


def text(entry: dict[str, Any], key: str) -> str:
    """The text ``key``."""
    value = entry.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value
