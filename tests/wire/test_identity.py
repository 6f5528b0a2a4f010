"""The identity in a description: what is written is read, and what makes no sense is ignored."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.wire.identity import (
    CONSISTENCIES,
    DiskIdentity,
    Identity,
    Statement,
    description,
    parse_identity,
    read_statement,
)

ID = "01234567-89ab-cdef-0123-456789abcdef"
BASE = "ffffffff-89ab-cdef-0123-456789abcdef"
DOCUMENT: dict[str, Any] = {
    "version": 1, "id": ID, "base": BASE, "incremental": True, "created": "2026-01-31T23:59:59Z",
    "consistency": "paused", "disks": {"d": {"size": 512, "full": False, "since": "a", "mark": None}},
}  # fmt: skip

names = st.one_of(st.none(), st.text(st.characters(exclude_categories=()), max_size=20))
disks = st.builds(
    DiskIdentity, st.integers(1, 1 << 53).map(lambda n: n * 512), st.booleans(), names, names
)
identities = st.builds(
    Identity,
    st.uuids().map(str),
    st.one_of(st.none(), st.just(BASE)),
    st.booleans(),
    st.just("2026-01-31T23:59:59Z"),
    st.sampled_from(CONSISTENCIES),
    st.dictionaries(st.text(max_size=9), disks, max_size=3),
)


def text(found: Any) -> bytes:
    return json.dumps({"devices": [], "blkmig": found}).encode()


@given(identities)
def test_what_is_written_is_read(identity: Identity) -> None:
    sizes = {name: disk.size for name, disk in identity.disks.items()}
    assert read_statement(description({}, identity)) == Statement(sizes, identity)
    more = read_statement(description({"other": 1024, **sizes}, identity))
    assert more.sizes == {"other": 1024, **sizes}
    assert more.identity is not None
    assert more.identity.disks["other"] == DiskIdentity(1024)


@pytest.mark.parametrize("incremental", [False, True])
def test_disks_with_gaps(incremental: bool) -> None:
    """Of a disk that is not stated nothing is known."""
    stated = {"full": DiskIdentity(512, full=True), "part": DiskIdentity(512, full=False)}
    identity = Identity(ID, None, incremental, "2026-01-31T23:59:59Z", CONSISTENCIES[0], stated)
    assert [identity.has_gaps(name) for name in ("full", "part", "other")] == [
        False, incremental, False,
    ]  # fmt: skip
    assert [identity.is_full(name) for name in ("full", "part", "other")] == [True, False, False]


WRONG: dict[str, list[Any]] = {
    "id": ["", "x", ID.upper(), ID + "\n", None, 5, [], {}],
    "base": ["", "x", ID, 5, False],
    "incremental": [None, 0, 1, "true"],
    "created": [None, 5, "", "now", "2026-01-31", "2026-01-31T23:59:59", "2026-01-31T23:59:59Z" * 9],
    "consistency": [None, "", "good", [], 1],
    "disks": [None, [], 5, {"d": 512}, {"x" * 2000: {"size": 512}}, {str(n): {} for n in range(5000)}],
    "version": [None, 2, True, "1", 1.0],
}  # fmt: skip
WRONG_DISKS: dict[str, list[Any]] = {
    "size": [None, -512, 0, 511, 1 << 63, "512", 512.0, True, 10**30],
    "full": [None, 0, "yes"],
    "since": [5, "x" * 2000, ["a"]],
    "mark": [5, {}],
}
CASES = [(key, value) for key, values in WRONG.items() for value in values]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_wrong_value(case: int) -> None:
    key, value = CASES[case]
    found = read_statement(text(DOCUMENT | {key: value}))
    assert found.identity is None
    assert found.fault is not None
    assert len(found.fault) < 300
    assert "\n" not in found.fault


@pytest.mark.parametrize("key", DOCUMENT)
def test_a_missing_key(key: str) -> None:
    found = read_statement(text({name: value for name, value in DOCUMENT.items() if name != key}))
    if key == "base":  # as null
        assert found.fault is None
    else:
        assert found.fault is not None


@pytest.mark.parametrize("key", WRONG_DISKS)
def test_a_wrong_disk(key: str) -> None:
    for value in WRONG_DISKS[key]:
        disk = DOCUMENT["disks"]["d"] | {key: value}
        found = read_statement(text(DOCUMENT | {"disks": {"d": disk}}))
        assert found.identity is None
        assert found.fault is not None
        assert found.fault.startswith(f"disk 'd': {key} is ")


def test_two_bases() -> None:
    """The sizes are those of the last key, the identity is none of both."""
    twice = text(DOCUMENT).replace(b'"base":', b'"base": null, "base":')
    found = read_statement(twice)
    assert found == Statement({"d": 512}, fault="the key 'base' occurs twice in an object")


def test_a_description_of_qemu_is_none_of_ours() -> None:
    assert read_statement(b'{"devices": [{"name": "blkmig", "x": 1, "x": 2}]}') == Statement()
    assert read_statement(b'{"x": "blkmig", "y": NaN}') == Statement()


def test_no_identity_is_no_object() -> None:
    values: list[Any] = [None, [], 5, "x"]
    for value in values:
        with pytest.raises(ValueError, match="not an object"):
            parse_identity(value)
