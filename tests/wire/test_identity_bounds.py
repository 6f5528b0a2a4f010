"""An identity's values at their bounds, what each fault says, and the bytes of a description."""

import json
import re
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.wire.identity import (
    DiskIdentity,
    Identity,
    Statement,
    description,
    identity_document,
    is_id,
    may_state,
    parse_identity,
    read_statement,
)
from tests.wire.test_identity import BASE, DOCUMENT, ID, text

IDENTITY = Identity(
    ID, BASE, True, "2026-01-31T23:59:59Z", "paused", {"d": DiskIdentity(512, False, "a", None)}
)  # fmt: skip


def disk(**more: Any) -> dict[str, Any]:
    return DOCUMENT | {"disks": {"d": {"size": 512} | more}}


def test_the_document() -> None:
    assert parse_identity(DOCUMENT) == IDENTITY
    assert identity_document(IDENTITY) == DOCUMENT


def test_descriptions() -> None:
    assert description({}) == b'{"devices": []}'
    assert json.loads(description({"d": 512})) == {
        "devices": [], "blkmig": {"version": 1, "disks": {"d": {"size": 512}}}
    }  # fmt: skip
    stated = json.loads(description({"d": 1024, "e": 512}, IDENTITY))
    assert stated == {
        "devices": [],
        "blkmig": DOCUMENT | {"disks": {"d": DOCUMENT["disks"]["d"], "e": {"size": 512}}},
    }


NAME, LONG = "x" * limits.NAME_MAX, "x" * (limits.NAME_MAX + 1)
MOST = limits.DISK_MAX // 512 * 512
GOOD: list[dict[str, Any]] = [
    DOCUMENT | {"base": None},
    DOCUMENT | {"incremental": False},
    *(DOCUMENT | {"consistency": each} for each in ("paused", "frozen", "crash")),
    DOCUMENT | {"disks": {}},
    DOCUMENT | {"disks": {str(at): {"size": 512} for at in range(limits.DEVICES_MAX)}},
    DOCUMENT | {"disks": {NAME: {"size": 512}, "": {"size": 512}}},
    disk(size=MOST),
    disk(full=True, since=NAME, mark=NAME),
    disk(since="", mark=""),
    DOCUMENT | {"created": "0000-99-99T99:99:99Z"},
]


@pytest.mark.parametrize("case", range(len(GOOD)))
def test_accepted(case: int) -> None:
    found = parse_identity(GOOD[case])
    for name, given in GOOD[case]["disks"].items():
        assert found.disks[name] == DiskIdentity(
            given["size"], given.get("full", False), given.get("since"), given.get("mark")
        )
    assert (found.base, found.incremental) == (GOOD[case]["base"], GOOD[case]["incremental"])
    assert (found.created, found.consistency) == (GOOD[case]["created"], GOOD[case]["consistency"])


FAULTS: list[tuple[Any, str]] = [
    ([], "it is not an object"),
    ({}, "version None, only 1 is known"),
    (DOCUMENT | {"version": 0}, "version 0, only 1 is known"),
    (DOCUMENT | {"version": True}, "version True, only 1 is known"),
    (DOCUMENT | {"disks": []}, "disks is [], not an object"),
    (
        DOCUMENT | {"disks": {str(at): {} for at in range(limits.DEVICES_MAX + 1)}},
        "2049 disks, 2048 are the most",
    ),
    (DOCUMENT | {"id": "x"}, "id is 'x', not a UUID"),
    (DOCUMENT | {"base": "x"}, "base is 'x', not a UUID or null"),
    (DOCUMENT | {"incremental": 1}, "incremental is 1, not true or false"),
    (DOCUMENT | {"created": "x"}, "created is 'x', not a time such as 2026-01-31T23:59:59Z"),
    (DOCUMENT | {"consistency": "x"}, "consistency is 'x', not one of paused, frozen, crash"),
    (DOCUMENT | {"base": ID}, "its base is its own id"),
    (
        DOCUMENT | {"disks": {"a": 5}},
        "disk 'a' is not an object, or its name is too long",
    ),
    (disk(size=0), "disk 'd': size is 0, not a multiple of 512"),
    (disk(size=513), "disk 'd': size is 513, not a multiple of 512"),
    (disk(size=MOST + 512), f"disk 'd': size is {MOST + 512}, not a multiple of 512"),
    (disk(size=True), "disk 'd': size is True, not a multiple of 512"),
    (disk(full=None), "disk 'd': full is None, not true or false"),
    (disk(since=5), "disk 'd': since is 5, not a name or null"),
    (disk(mark=5), "disk 'd': mark is 5, not a name or null"),
]


@pytest.mark.parametrize("case", range(len(FAULTS)))
def test_faults(case: int) -> None:
    found, message = FAULTS[case]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_identity(found)


@pytest.mark.parametrize("key", ["since", "mark"])
def test_long_names(key: str) -> None:
    for found in (DOCUMENT | {"disks": {LONG: {"size": 512}}}, disk(**{key: LONG})):
        with pytest.raises(ValueError, match="disk "):
            parse_identity(found)


SIZES: list[tuple[Any, dict[str, int]]] = [
    ({"version": 1, "disks": {"d": {"size": 512}}}, {"d": 512}),
    ({"version": 1, "disks": {"d": {"size": MOST}}}, {"d": MOST}),
    ({"version": 1, "disks": {"d": {"size": MOST + 512}, "e": {"size": 512}}}, {"e": 512}),
    ({"version": 1, "disks": {"d": {"size": 0}, "e": {"size": 512}}}, {"e": 512}),
    ({"version": 1, "disks": {"d": 5, "e": {"size": 512}, "f": {}}}, {"e": 512}),
    ({"version": 1, "disks": {str(at): {"size": 512} for at in range(limits.DEVICES_MAX)}},
     {str(at): 512 for at in range(limits.DEVICES_MAX)}),
    ({"version": 1, "disks": {str(at): {"size": 512} for at in range(limits.DEVICES_MAX + 1)}}, {}),
    ({"version": 2, "disks": {"d": {"size": 512}}}, {}),
    ({"disks": {"d": {"size": 512}}}, {}),
    ({"version": 1, "disks": [512]}, {}),
    ([], {}),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(SIZES)))
def test_sizes_alone(case: int) -> None:
    """They are read whatever else is wrong; that nothing else is stated is no fault."""
    stated, sizes = SIZES[case]
    found = read_statement(text(stated))
    assert (found.sizes, found.identity) == (sizes, None)
    assert (found.fault is None) == bool(sizes)


def test_sizes_with_more() -> None:
    found = read_statement(text({"version": 1, "disks": {"d": {"size": 512}}, "id": None}))
    assert found == Statement({"d": 512}, None, "id is None, not a UUID")


@pytest.mark.parametrize(
    ("data", "statement"),
    [
        (b"", Statement()),
        (b'{"devices": []}', Statement()),
        (b'{"blkmig": null}', Statement()),
        (b'["blkmig"]', Statement()),
        (b'{"blkmig": 5}', Statement(fault="it is not an object")),
        (b'{"blkmig": ', Statement()),
        (b'{"blkmig": 5} x', Statement()),
    ],
)
def test_statements(data: bytes, statement: Statement) -> None:
    assert read_statement(data) == statement
    assert read_statement(memoryview(data)) == statement


def test_only_up_to_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    data = text(DOCUMENT)
    for most, expected in ((len(data), IDENTITY), (len(data) - 1, None)):
        monkeypatch.setattr(limits, "IDENTITY_MAX", most)
        assert read_statement(data).identity == expected


def test_data_that_may_state_something() -> None:
    assert may_state(b'{"blkmig": ')
    assert may_state(memoryview(b'x"blkmig"'))
    assert not may_state(b'"blkmi": "migblk"')


@pytest.mark.parametrize("of", ["{}0", "0{}", "{} ", ""])
def test_what_is_no_id(of: str) -> None:
    assert is_id(ID)
    assert not is_id(of.format(ID))
    assert not is_id(ID.replace("-", ""))
