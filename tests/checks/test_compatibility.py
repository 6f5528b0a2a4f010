"""What QEMU cannot load, by its version."""

from typing import Any

import pytest

from blkmig_cli.checks.compatibility import Traits, answers, objections, parse_version

PLAIN: dict[str, Any] = {"container": "qemu", "dialect": "classic", "disks": ["d"], "machine": "pc"}
#: What: traits, the version, and the reason, "" for none.
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "plain": (PLAIN, "7.2", ""),
    "plain, oldest": (PLAIN, "2.4", ""),
    "plain, too old": (PLAIN, "2.3", "2.3 does not know the configuration and footers"),
    "plain, new": (PLAIN, "9.0", ""),
    "plain, too new": (PLAIN, "9.1", "9.1 has no block section"),
    "bare": (PLAIN | {"container": "none"}, "7.2", "no QEMU loads bare block records"),
    "v1 without bitmaps": (PLAIN | {"dialect": "v1"}, "7.2", ""),
    "v1": (PLAIN | {"dialect": "v1", "bitmaps": True}, "7.2", "reads dialect v1"),
    "v2": (PLAIN | {"dialect": "v2"}, "7.2", "reads dialect v2"),
    "bitmaps": (PLAIN | {"bitmaps": True}, "2.12", ""),
    "bitmaps, too old": (PLAIN | {"bitmaps": True}, "2.11", "new in 2.12"),
    "bitmaps alone": (PLAIN | {"disks": [], "bitmaps": True}, "10.0", ""),
    "unnamed": (PLAIN | {"disks": [""]}, "7.2", "a disk without a name"),
    "no machine": (PLAIN | {"machine": "none"}, "7.2", "machine none has no disks"),
    "machine not known": (PLAIN | {"machine": None}, "7.2", ""),
    "old machine": (PLAIN | {"machine": "pc-i440fx-2.3"}, "7.2", "pc-i440fx-2.3 does not know"),
    "old enough machine": (PLAIN | {"machine": "pc-i440fx-2.4"}, "7.2", ""),
    "machine of a new major version": (PLAIN | {"machine": "pc-q35-7.2"}, "7.2", ""),
    "cut": (PLAIN | {"cut": ["d"]}, "7.2", "device 'd': QEMU 7.2 fails on data in a last chunk"),
    "cut, before it failed": (PLAIN | {"cut": ["d"]}, "2.9", ""),
    "cut, since it failed": (PLAIN | {"cut": ["d"]}, "2.10", "fails on data"),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_reasons(what: str) -> None:
    traits, version, reason = CASES[what]
    found = list(objections(Traits(**traits), parse_version(version)))
    assert len(found) == bool(reason), found
    assert all(reason in text for text in found)


def test_zero_blocks() -> None:
    traits = Traits(**PLAIN | {"container": "qemu", "zero_blocks": True})
    assert any("use --no-zero-blocks" in text for text in objections(traits, (1, 5)))
    assert not any("use --no-zero-blocks" in text for text in objections(traits, (1, 6)))
    traits.zero_blocks = False
    assert not any("use --no-zero-blocks" in text for text in objections(traits, (1, 5)))


@pytest.mark.parametrize(("text", "version"), [("7.2", (7, 2)), ("9", (9, 0)), ("7.2.22", (7, 2))])
def test_versions(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "x", "7.", ".2", "7.2.", "7.2.1.1", "1234.1", "7.1234"])
def test_invalid_versions(text: str) -> None:
    with pytest.raises(ValueError, match="invalid version of QEMU"):
        parse_version(text)


def test_answers_on_a_return_path() -> None:
    assert not answers((2, 4))
    assert answers((2, 5))
    assert answers((7, 2))
