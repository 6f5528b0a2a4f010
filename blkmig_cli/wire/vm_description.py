"""The JSON description at a stream's end, which states the size of each device's state.

Source: QEMU 7.2, migration/savevm.c (qemu_savevm_state_complete_precopy_non_iterable).
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from blkmig_cli import limits
from blkmig_cli.json_text import parse_json
from blkmig_cli.schemas.constants import NAME_WRAP, SectionType
from blkmig_cli.schemas.framing import DescriptionHead, subsection_overhead
from blkmig_cli.wire.events import DeviceState, StateMismatch
from blkmig_cli.wire.schema_io import Input

_HEAD = DescriptionHead.sizeof()
_PIECE = 1 << 20  # bytes that are searched at once

#: Sizes of device state in bytes, by section name and instance id.
StateSizes = dict[tuple[str, int], int]


def find_description(source: Input) -> StateSizes | None:
    """Return the sizes in the description at the input's end; None where none is found.

    It is found from the end as 0x06 and a be32 length that reaches exactly the end; the same byte
    can occur inside, so the search continues until the text is valid.  A pipe is read ahead.
    """
    left = source.available(limits.DESCRIPTION_REACH)
    if left == limits.DESCRIPTION_REACH:
        return None
    end, window, tries = source.offset + left, 1 << 16, 0
    while True:
        start = max(end - window, source.offset)
        tail = source.peek_at(start, end - start)
        for at in islice(_beginnings(tail), tries, limits.DESCRIPTION_TRIES_MAX):
            found = parse_description(tail[at + _HEAD :])
            if found is not None:
                return found
            tries += 1
        if start == source.offset or window >= limits.DESCRIPTION_MAX:
            return None
        window = min(window * 16, limits.DESCRIPTION_MAX)


def _beginnings(tail: bytes) -> Iterator[int]:
    """Yield the offsets in ``tail`` of 0x06 and a length that reaches its end, the last one first."""
    raw = np.frombuffer(tail, np.uint8)
    for end in range(max(len(raw) - _HEAD, 0), 0, -_PIECE):
        start = max(end - _PIECE, 0)
        places = start + np.flatnonzero(raw[start:end] == SectionType.VMDESCRIPTION)
        lengths = np.zeros(len(places), np.int64)
        for byte in range(1, _HEAD):
            lengths = lengths << 8 | raw[places + byte]
        yield from reversed(places[lengths == len(raw) - _HEAD - places].tolist())


def parse_description(text: bytes) -> StateSizes | None:
    """Return the sizes in the JSON ``text``; None if it is not a description.

    Invalid entries are ignored.
    """
    if not text.startswith(b"{"):
        return None
    sizes: StateSizes = {}
    try:
        for device in parse_json(text)["devices"]:
            try:
                name, instance = device["name"], device["instance_id"]
                if isinstance(name, str) and isinstance(instance, int):
                    sizes[name, instance] = _state_size(device)
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return sizes


def compare_sizes(
    states: Mapping[tuple[str, int], DeviceState], text: bytes | memoryview
) -> tuple[frozenset[int], tuple[StateMismatch, ...]]:
    """Compare ``states``, by section name and instance id, with the description ``text``.

    Returns the offsets of states with the described length, and the states with another length.
    """
    sizes = parse_description(bytes(text)) if states else None
    confirmed, mismatches = set(), []
    for key, state in states.items():
        size = (sizes or {}).get(key)
        if size == state.length:
            confirmed.add(state.offset)
        elif size is not None:
            mismatches.append(StateMismatch(state.offset, key[0], state.length, size))
    return frozenset(confirmed), tuple(mismatches)


def _state_size(state: dict[str, Any]) -> int:
    total = 0
    for field in state.get("fields", []):
        size, repeat = field["size"], field.get("array_len", 1)
        if not isinstance(size, int) or not isinstance(repeat, int) or size < 0 or repeat < 0:
            raise ValueError("a field's size is not a number of bytes")
        total += size * repeat
    for subsection in state.get("subsections", []):
        name = subsection["vmsd_name"].encode()
        if len(name) >= NAME_WRAP:
            raise ValueError("a name that is too long for its length byte")
        total += subsection_overhead(name) + _state_size(subsection)
    if total > limits.STATE_MAX:
        raise ValueError("a device's state is too large")
    return total
