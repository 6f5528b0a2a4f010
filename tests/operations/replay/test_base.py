"""Whether an image holds the base of an increment: why not, to the last word."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.checks.manifest import DiskEntry, Manifest
from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.disks.record import Holding, write_record
from blkmig_cli.operations.replay.base import BaseCheck, check_base, grown_since
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.operations.replay.journal import Entry, write_journal
from blkmig_cli.operations.replay.request import ReplayRequest
from blkmig_cli.wire.identity import DiskIdentity, Identity
from tests.support.replays import MIB, filled, folder, put
from tests.support.strategies import MemoryImage

__all__ = ["folder"]

ID, BASE, OTHER = (f"{at}1234567-89ab-cdef-0123-456789abcdef" for at in range(3))


def increment(
    base: str | None = BASE, *, full: bool = False, incremental: bool = True, device: str = "d"
) -> Identity:
    disk = DiskIdentity(MIB, full)
    return Identity(ID, base, incremental, "", "crash", {device: disk})


def opened(*, new: bool = False, resume: bool = False) -> Destination:
    request = ReplayRequest({"d": "x"}, create=new, resume=resume)
    found = Destination("x", None, request, None)
    found.open(lambda *_: None)
    return found


def checked(
    identity: Identity | None = None, *, verify: Manifest | None = None, unchecked: bool = False,
    **more: bool,
) -> BaseCheck:  # fmt: skip
    found = opened(**more)
    identity = identity or increment()
    try:
        return check_base(identity, "d", found, verify, unchecked=unchecked)
    finally:
        found.close()


def fault(check: BaseCheck) -> str:
    assert [check.proven, check.grows, check.applied] == [False] * 3
    found = check.fault
    assert found is not None
    assert (found.id, found.severity, found.device) == ("wrong-base", "error", "d")
    return found.message


def holds(number: str, device: str = "d") -> None:
    write_record(neighbours_of("x"), Holding(number, device))


@pytest.fixture(autouse=True)
def image() -> None:
    put(filled(1), "x")


@pytest.mark.parametrize(
    ("identity", "proven"),
    [
        (increment(full=True), True),
        (increment(full=True, incremental=False), True),
        (increment(incremental=False), False),
        (increment(device="e"), False),
        (increment(device="e", full=True), False),
    ],
)
def test_streams_that_need_no_base(identity: Identity, proven: bool) -> None:
    """What has all of a disk proves what the image will hold."""
    assert checked(identity) == BaseCheck(proven=proven)
    found = opened()
    assert check_base(None, "d", found, None, unchecked=False) == BaseCheck()
    found.close()


def test_a_base_that_is_not_checked() -> None:
    assert checked(unchecked=True) == BaseCheck(grows=True)


@pytest.mark.parametrize(("stream", "proven"), [(ID, True), (OTHER, False), (None, False)])
def test_an_increment_that_was_begun(stream: str | None, proven: bool) -> None:
    """The run that began it has checked the base."""
    write_journal(neighbours_of("x"), Entry("writing", False, MIB, stream=stream))
    check = checked(resume=True)
    if proven:
        assert check == BaseCheck(proven=True, grows=True)
    else:
        assert "does not exist" in fault(check)


def test_the_record_of_the_base() -> None:
    holds(BASE)
    assert checked() == BaseCheck(proven=True, grows=True)


def test_the_record_of_the_increment_itself() -> None:
    holds(ID)
    assert checked() == BaseCheck(proven=True, grows=True, applied=True)


HINT = "; if the image holds it, use --verify-base MANIFEST, or --no-base-check"
NOT = f"x does not hold the base {BASE} of the increment: "
UNSTATED = "the stream does not state which base x has to hold"


@pytest.mark.parametrize(
    ("number", "device", "base", "said"),
    [
        (None, "d", BASE, f"{NOT}x.blkmig.json, which would state it, does not exist{HINT}"),
        (OTHER, "d", BASE, f"{NOT}it holds 'd' of {OTHER}{HINT}"),
        (BASE, "e", BASE, f"{NOT}it holds 'e' of {BASE}{HINT}"),
        (ID, "e", BASE, f"{NOT}it holds 'e' of {ID}{HINT}"),
        (OTHER, "d", None, f"{UNSTATED}{HINT}"),
        (None, "d", None, f"{UNSTATED}{HINT}"),
    ],
)
def test_other_records(number: str | None, device: str, base: str | None, said: str) -> None:
    if number is not None:
        holds(number, device)
    assert fault(checked(increment(base))) == said


@pytest.mark.parametrize("changed", ["size", "time"])
def test_a_record_of_an_image_that_was_written_since(changed: str) -> None:
    holds(BASE)
    at = os.stat("x").st_mtime_ns
    if changed == "size":
        os.truncate("x", MIB + 512)
    os.utime("x", ns=(at, at + (changed == "time")))
    assert fault(checked()) == f"{NOT}it was written after x.blkmig.json{HINT}"


def test_a_new_image() -> None:
    Path("x").unlink()
    text = f"x is a new image, and the stream is an increment; replay its base {BASE} first"
    assert fault(checked(new=True)) == text
    manifest = base_manifest()
    assert fault(checked(new=True, verify=manifest)) == text
    said = "x is a new image, and the stream is an increment; replay its base first"
    assert fault(checked(increment(None), new=True)) == said


def base_manifest(**changed: Any) -> Manifest:
    digest = hashlib.sha256(filled(1)).hexdigest()
    disks = {"d": DiskEntry("d", MIB, digest), "e": DiskEntry("e", 512, digest)}
    identity = Identity(BASE, None, False, "", "crash", {})
    known: dict[str, Any] = {"path": "m", "disks": disks, "identity": identity}
    return Manifest(**(known | changed))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"identity": None}, f"{NOT}m is not its manifest{HINT}"),
        ({"identity": Identity(OTHER, None, False, "", "crash", {})},
         f"{NOT}m is not its manifest{HINT}"),
        ({"disks": {}}, f"{NOT}m has no digest of the disk{HINT}"),
        ({"disks": {"d": DiskEntry("d", MIB, None)}}, f"{NOT}m has no digest of the disk{HINT}"),
    ],
)  # fmt: skip
def test_the_manifest_of_a_base(changed: dict[str, Any], said: str | None) -> None:
    """It proves the base, whatever the record says."""
    for number in (None, OTHER):
        if number is not None:
            holds(number)
        check = checked(verify=base_manifest(**changed))
        if said is None:
            assert check == BaseCheck(proven=True, grows=True)
        else:
            assert fault(check) == said


@pytest.mark.parametrize("content", [filled(2), filled(1, MIB - 512), filled(1, MIB + 512)])
def test_an_image_that_differs_from_the_manifest(content: bytes) -> None:
    put(content, "x")
    said = fault(checked(verify=base_manifest()))
    assert said.startswith(NOT)
    assert said.endswith(HINT)
    assert ("SHA-256" in said) == (len(content) == MIB)


class Export:
    """Stands for an NBD export of 2 MiB, which may be larger than the disk on it."""

    path = "nbd://h/x"
    is_device = True
    journal = None

    def __init__(self, content: bytes) -> None:
        self.image = MemoryImage(content)
        self.existing_size = len(content)


def test_an_export() -> None:
    """It is not extended, and has no record; what is behind the disk is not compared."""
    found: Any = Export(filled(1) + filled(9))
    check = check_base(increment(), "d", found, None, unchecked=False)
    assert fault(check) == (
        f"nbd://h/x does not hold the base {BASE} of the increment: "
        f"of an NBD export, no record is kept that proves it{HINT}"
    )
    assert check_base(increment(), "d", found, None, unchecked=True) == BaseCheck()
    proven = BaseCheck(proven=True)
    assert check_base(increment(), "d", found, base_manifest(), unchecked=False) == proven
    found.journal = Entry("writing", False, MIB, stream=ID)
    assert check_base(increment(), "d", found, None, unchecked=False) == proven
    found = Export(filled(1, MIB - 512))
    assert fault(check_base(increment(), "d", found, base_manifest(), unchecked=False))


def test_a_disk_that_has_grown() -> None:
    found = grown_since("d", 4096)
    assert (found.id, found.severity, found.device) == ("wrong-base", "error", "d")
    assert found.message == (
        "the disk has grown to 4096 bytes since its base, and not all of the new part is in the "
        "increment; make it again, with --base STREAM"
    )
