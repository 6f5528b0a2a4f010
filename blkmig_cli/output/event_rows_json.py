"""The JSON texts of a run's events, made by template: what ``json.dumps`` of each would give."""

import json
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from blkmig_cli.output.events_json import Json
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.runs import Bytes, Column, Numbers, Run

# Dirty bits in a byte.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)


def run_texts(run: Run, as_json: Callable[[Any], Json]) -> Iterator[str]:
    """The text of every event of ``run``; ``as_json`` makes the object of one, payloads aside."""
    columns = [_texts(column, run, as_json) for column in run.columns]
    return columns[0] if len(columns) == 1 else chain.from_iterable(zip(*columns, strict=True))


def _texts(column: Column, run: Run, as_json: Callable[[Any], Json]) -> Iterator[str]:
    event, found = column.event, as_json(column.event)
    numbers = {"offset": event.offset + run.stride * np.arange(run.rows)}
    if column.numbers is not None:
        numbers["sector" if isinstance(event, Block) else "percent"] = column.numbers
    shown: Json = {key: _Hole() if key in numbers else value for key, value in found.items()}
    values: list[Numbers] = [numbers[key] for key in found if key in numbers]
    if isinstance(event, Block):
        for part, bits in zip(found["bitmaps"], column.bits, strict=True):
            if part["granularity"] is not None:
                part["count"] = _Hole()
                values.append(_dirty(bits) * part["granularity"])
    return map(_pattern(shown).__mod__, zip(*(value.tolist() for value in values), strict=True))


class _Hole:
    """Where each event has a number of its own."""


def _pattern(value: Any) -> str:
    """``json.dumps`` of ``value`` as a pattern for ``%``, with a number for every hole."""
    if isinstance(value, _Hole):
        return "%d"
    if isinstance(value, dict):
        items = (f"{_pattern(key)}: {_pattern(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_pattern, value)) + "]"
    return json.dumps(value).replace("%", "%%")


def _dirty(bits: Bytes) -> Numbers:
    """Dirty bits in each row of ``bits``."""
    found: Numbers = _BITS[bits].sum(axis=1, dtype=np.int64)
    return found
