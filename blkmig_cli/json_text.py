"""JSON that others have written, parsed within bounds."""

import json
from typing import Any, NoReturn

from blkmig_cli import limits
from blkmig_cli.text import brief

# A larger document may have a list or object for so many bytes.  (Each takes up to 14 times as many.)
_BYTES_A_PART = 16
# More digits than any number has that can be meant.
_DIGITS_MAX = 40


def parse_json(text: bytes, *, strict: bool = False) -> Any:
    """Return the value that a JSON text stands for.

    ``strict``: no key may stand twice in an object, and NaN and Infinity are no numbers.  Raises
    ValueError where the text is no JSON, is nested too deep, has numbers that cannot be meant, or
    would take far more memory than bytes.
    """
    parts = text.count(b"[") + text.count(b"{")
    if parts > max(limits.JSON_PARTS_MAX, len(text) // _BYTES_A_PART):
        raise ValueError(f"{parts} lists and objects in {len(text)} bytes")
    try:
        return json.loads(
            text,
            parse_int=_integer,
            parse_constant=_constant if strict else None,
            object_pairs_hook=_object if strict else None,
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, _ in pairs:
            if found.pop(key, pairs) is pairs:
                raise ValueError(f"the key {brief(key)} stands twice in an object")
    return found
