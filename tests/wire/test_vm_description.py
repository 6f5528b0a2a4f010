"""The description at a stream's end: where it is found, and which sizes of device state it gives."""

import json
import struct
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.wire.events import DeviceState, StateMismatch
from blkmig_cli.wire.vm_description import compare_sizes, find_description, parse_description
from tests.support.feed import in_file, piped

TEXT = b'{"devices": [{"name": "dev", "instance_id": 3, "fields": [{"size": 7}]}]}'
SIZES = {("dev", 3): 7}


def framed(text: bytes) -> bytes:
    return b"\6" + struct.pack(">I", len(text)) + text


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (framed(TEXT), SIZES),
        (b"\0" + framed(TEXT), SIZES),
        (b"\0" + framed(TEXT) + b"\0", None),
        (b"\0" + framed(TEXT)[:-1], None),
        (b"\0" + framed(b"{}"), None),
        (b"\0" + framed(b'{"devices": []}'), {}),
        (b"\0" + framed(b"x" + TEXT), None),
        (b"\0" + framed(b""), None),
        (bytes(5), None),
        (bytes(4), None),
        (b"", None),
        (bytes(1 << 16) + framed(TEXT), SIZES),
        (bytes(1 << 20) + framed(TEXT), SIZES),
        (framed(b"\6" + TEXT) + framed(TEXT), SIZES),
        (b"\0" + framed(TEXT[:-2] + b"," + framed(b"[1]" * 9) + TEXT[-2:]), None),
    ],
)
def test_at_the_end(data: bytes, found: dict[tuple[str, int], int] | None) -> None:
    for source in (in_file(data), piped(data)):
        assert find_description(source) == found
        assert source.offset == 0


@pytest.mark.parametrize("length", [(1 << 16) - 5, (1 << 16) - 4, 1 << 16, 1 << 20, (1 << 20) + 9])
def test_long_ones(length: int) -> None:
    """Longer than what is searched first."""
    text = TEXT[:-1] + b" " * (length - len(TEXT)) + b"}"
    data = b"\0" * 100 + framed(text)
    assert find_description(in_file(data)) == SIZES


def test_only_up_to_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(200) + framed(TEXT)
    for reach, found in ((len(data), None), (len(data) + 1, SIZES)):
        monkeypatch.setattr(limits, "DESCRIPTION_REACH", reach)
        assert find_description(in_file(data)) == found


def device(**more: Any) -> dict[str, Any]:
    return {"name": "dev", "instance_id": 3} | more


def sub(name: str, *sizes: int) -> dict[str, Any]:
    return {"vmsd_name": name, "fields": [{"size": size} for size in sizes]}


MOST = limits.STATE_MAX
DEVICES: dict[str, tuple[Any, int | None]] = {
    "no fields": (device(), 0),
    "fields": (device(fields=[{"size": 1}, {"size": 2}]), 3),
    "an array": (device(fields=[{"size": 3, "array_len": 5}]), 15),
    "an empty array": (device(fields=[{"size": 3, "array_len": 0}, {"size": 0}]), 0),
    "a subsection": (device(fields=[{"size": 1}], subsections=[sub("abc", 4)]), 1 + 9 + 4),
    "two": (device(subsections=[sub("a"), sub("bc", 1)]), 7 + 8 + 1),
    "one inside": (device(subsections=[sub("a") | {"subsections": [sub("b", 1)]}]), 7 + 7 + 1),
    "a long name": (device(subsections=[sub("x" * 255)]), 261),
    "a longer name": (device(subsections=[sub("x" * 256)]), None),
    "a name of two bytes": (device(subsections=[sub("é")]), 8),
    "the most": (device(fields=[{"size": MOST}]), MOST),
    "more": (device(fields=[{"size": MOST + 1}]), None),
    "more together": (device(fields=[{"size": MOST}, {"size": 1}]), None),
    "more in a subsection": (device(subsections=[sub("a", MOST)]), None),
    "no number": (device(fields=[{"size": "1"}]), None),
    "a fraction": (device(fields=[{"size": 1.5}]), None),
    "negative": (device(fields=[{"size": -1}]), None),
    "no length": (device(fields=[{"size": 1, "array_len": "1"}]), None),
    "a negative length": (device(fields=[{"size": 1, "array_len": -1}]), None),
    "no size": (device(fields=[{}]), None),
    "no list": (device(fields=5), None),
    "no name of a subsection": (device(subsections=[{"fields": []}]), None),
    "no text": (device(subsections=[{"vmsd_name": 5}]), None),
    "another name": (device(name=5), None),
    "another instance": (device(instance_id="3"), None),
    "no instance": ({"name": "dev"}, None),
    "no object": (5, None),
}


@pytest.mark.parametrize("name", DEVICES)
def test_sizes(name: str) -> None:
    """A device whose size makes no sense has none; the others have theirs."""
    value, size = DEVICES[name]
    other = {"name": "other", "instance_id": 0, "fields": [{"size": 9}]}
    found = parse_description(json.dumps({"devices": [value, other]}).encode())
    expected = {("other", 0): 9} | ({} if size is None else {("dev", 3): size})
    assert found == expected


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b' {"devices": []}', b"{}", b'{"devices": 5}', b'{"devices": [}', b"{" * 99],
)
def test_no_description(text: bytes) -> None:
    assert parse_description(text) is None


def test_comparison() -> None:
    states = {
        ("dev", 3): DeviceState(100, 7, "dev", "footer"),
        ("dev", 4): DeviceState(200, 7, "dev", "footer"),
        ("other", 3): DeviceState(300, 8, "other", "footer"),
    }
    sized = [("dev", 3, 7), ("other", 3, 7), ("more", 0, 1)]
    devices = [{"name": n, "instance_id": i, "fields": [{"size": s}]} for n, i, s in sized]
    text = json.dumps({"devices": devices}).encode()
    expected = frozenset({100}), (StateMismatch(300, "other", 8, 7),)
    assert compare_sizes(states, text) == expected
    assert compare_sizes(states, memoryview(text)) == expected
    assert compare_sizes(states, b"nonsense") == (frozenset(), ())
    assert compare_sizes({}, text) == (frozenset(), ())
