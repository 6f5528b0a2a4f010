"""The JSON description at a file's end: how long each device's state is, and the page size."""

from dataclasses import dataclass
from typing import Any

from blkmig_cli import limits
from blkmig_cli.json_text import parse_json
from blkmig_cli.schemas.constants import NAME_WRAP, SectionType
from blkmig_cli.schemas.framing import DescriptionHead, subsection_overhead
from blkmig_cli.wire.schema_io import Input

_HEAD = DescriptionHead.sizeof()


@dataclass(frozen=True, slots=True)
class Description:
    """Sizes of devices' state in bytes by (section name, instance id); page size in bytes, if told."""

    sizes: dict[tuple[str, int], int]
    page_size: int | None


def find_description(source: Input) -> Description | None:
    """Read the description at the end of a file; None for a pipe, or where there is none.

    It is found from the end as 0x06 and a be32 length that reaches exactly the end; the same byte
    can occur inside, so the search goes on until the text is one.
    """
    if source.size is None:
        return None
    window, tries = 1 << 16, 0
    while True:
        start = max(source.size - window, 0)
        tail = source.peek_at(start, source.size - start)
        at = tail.rfind(SectionType.VMDESCRIPTION)
        while at >= 0 and tries < limits.DESCRIPTION_TRIES_MAX:
            length = len(tail) - at - _HEAD
            if length > 0 and int.from_bytes(tail[at + 1 : at + _HEAD], "big") == length:
                found = parse_description(tail[at + _HEAD :])
                if found is not None:
                    return found
                tries += 1
            at = tail.rfind(SectionType.VMDESCRIPTION, 0, at)
        if start == 0 or window >= limits.DESCRIPTION_MAX:
            return None
        window = min(window * 16, limits.DESCRIPTION_MAX)


def parse_description(text: bytes) -> Description | None:
    """What the JSON ``text`` says of sizes; None if it is no description.

    A device whose entry makes no sense is left out, and so sized by its footer.
    """
    if not text.startswith(b"{"):
        return None
    try:
        root = parse_json(text)
        devices = root["devices"]
        page_size = root.get("page_size")
        sizes = {}
        for device in devices:
            try:
                name, instance = device["name"], device["instance_id"]
                if isinstance(name, str) and isinstance(instance, int):
                    sizes[name, instance] = _state_size(device)
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Description(sizes, page_size if _is_page_size(page_size) else None)


def _is_page_size(value: Any) -> bool:
    return isinstance(value, int) and 1024 <= value <= 1 << 20 and value & (value - 1) == 0


def _state_size(state: dict[str, Any]) -> int:
    total = 0
    for field in state.get("fields", []):
        size, repeat = field["size"], field.get("array_len", 1)
        if not isinstance(size, int) or not isinstance(repeat, int) or size < 0 or repeat < 0:
            raise ValueError("a field's size is no count of bytes")
        total += size * repeat
    for subsection in state.get("subsections", []):
        name = subsection["vmsd_name"].encode()
        if len(name) >= NAME_WRAP:
            raise ValueError("a name that is too long for its length byte")
        total += subsection_overhead(name) + _state_size(subsection)
    if total > limits.DISK_MAX:
        raise ValueError("a state larger than any file")
    return total
