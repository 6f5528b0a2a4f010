"""Parsing untrusted JSON within limits."""

import json
from typing import Any, NoReturn

from blkmig_cli import limits
from blkmig_cli.text import brief

# A larger document may have one list or object per this many bytes.  (Each takes up to 14 times as
# much memory.)
_BYTES_A_PART = 16
# More digits than any valid number has.
_DIGITS_MAX = 40


def parse_json(text: bytes, *, strict: bool = False) -> Any:
    """Return the value of a JSON text.

    ``strict``: refuse duplicate keys in an object, NaN and Infinity.  Raises ValueError where the text
    is not JSON, is nested too deep, has numbers of too many digits, or would take far more memory than
    its length.
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
    raise ValueError(f"{name} is not a number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, _ in pairs:
            if found.pop(key, pairs) is pairs:
                raise ValueError(f"the key {brief(key)} occurs twice in an object")
    return found
