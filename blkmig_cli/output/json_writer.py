"""Writing JSON documents in pieces, so that long lists are never held in memory."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any

# Characters per write.
_PIECE = 1 << 16
_SCALARS = (str, int, float, bool, type(None))


class Items:
    """A list in a document that is generated while it is written: ``make`` returns an iterator."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self._make())


class Rows(Items):
    """A list of flat objects that is generated while it is written.

    ``make`` returns an iterator of keys and values: those of an object, or of several that have the same
    keys, one after the other.  A value is a whole number, or JSON text.
    """


class Late:
    """A value in a document that is computed when all before it is written: ``make`` returns it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def write_json(document: Any, write: Callable[[str], object]) -> None:
    """Pass ``write`` the text of ``json.dumps(document, indent=1)`` and a newline, in pieces.

    ``document`` may contain :class:`Items` and :class:`Rows` in place of lists, and :class:`Late`.
    """
    held: list[str] = []
    length = 0
    for text in chain(_texts(document, "\n"), ["\n"]):
        held.append(text)
        length += len(text)
        if length >= _PIECE:
            write("".join(held))
            held, length = [], 0
    write("".join(held))


@cache
def _encoder(line: str) -> json.JSONEncoder:
    """Return an encoder of flat objects, with ``line`` before each key except the first."""
    return json.JSONEncoder(separators=("," + line, ": "))


@cache
def _pattern(keys: tuple[str, ...], line: str) -> str:
    """Return the text of a flat object with ``%s`` for each value; ``line`` as in :func:`_texts`."""
    return f"{line}{{{','.join(f'{line} {json.dumps(key)}: %s' for key in keys)}{line}}}"


def _texts(value: Any, line: str) -> Iterator[str]:
    """Yield the text of ``value`` in pieces; ``line``: a newline and the indent of its parent."""
    inner = line + " "
    if isinstance(value, Mapping):
        if all(isinstance(item, _SCALARS) for item in value.values()):
            # Most objects are flat, and json writes them fastest.
            text = _encoder(inner).encode(value)
            yield f"{{{inner}{text[1:-1]}{line}}}" if value else text
            return
        before = "{"
        for key, item in value.items():
            yield f"{before}{inner}{json.dumps(key)}: "
            yield from _texts(item, inner)
            before = ","
        yield line + "}"
    elif isinstance(value, Rows):
        before = "["
        for keys, values in value:
            pattern = _pattern(keys, inner)
            if len(values) > len(keys):
                pattern = ",".join([pattern] * (len(values) // len(keys)))
            yield before + pattern % tuple(values)
            before = ","
        yield "[]" if before == "[" else line + "]"
    elif isinstance(value, list | tuple | Items):
        before = "["
        for item in value:
            yield before + inner
            yield from _texts(item, inner)
            before = ","
        yield "[]" if before == "[" else line + "]"
    elif isinstance(value, Late):
        yield from _texts(value.make(), line)
    else:
        yield json.dumps(value)
