"""Requests that make no sense, and what a result says of what went wrong."""

from typing import Any

import numpy as np
import pytest

from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.checks.manifest import Manifest
from blkmig_cli.checks.report import DeviceVerdict, Report
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.contents.state import DiskState
from blkmig_cli.errors import BlkmigError, FailureError, StreamError, UsageError
from blkmig_cli.operations.replay.request import ReplayRequest, ReplayResult
from blkmig_cli.ranges import ByteRanges
from blkmig_cli.wire.hints import Hints

FILES: Any = {"images": {None: "x"}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"disks": False, "bitmaps": False},
         "--no-bitmaps and --bitmaps-only together leave nothing to do"),
        ({"bitmap_files": {None: "b"}, "bitmaps": False},
         "--no-bitmaps and --bitmaps-to exclude each other"),
        ({"resume": True, "restart": True}, "--resume and --restart exclude each other"),
        ({"format_options": ("a=b",)}, "-o is for images that are created; see --create"),
        ({"format_options": ("size=1",), "create": True},
         "-o size=1 is refused: it is that of the disk"),
        ({"resume": True, "dry_run": True}, "--resume and --restart need disks to be written"),
        ({"resume": True, "disks": False}, "--resume and --restart need disks to be written"),
        ({"restart": True, "dry_run": True}, "--resume and --restart need disks to be written"),
        ({"restart": True, "disks": False}, "--resume and --restart need disks to be written"),
        ({"manifest": Manifest(), "dry_run": True},
         "--manifest is compared with what was written; see blkmig validate --manifest"),
        ({"verify_base": Manifest(), "base_check": False},
         "--verify-base and --no-base-check exclude each other"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("with_stream", [True, False])
def test_contradictions(given: dict[str, Any], said: str, with_stream: bool) -> None:
    with pytest.raises(UsageError) as error:
        ReplayRequest(**FILES, **given).check(with_stream=with_stream)
    assert str(error.value) == said


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"disks": False},
        {"bitmaps": False},
        {"bitmap_files": {None: "b"}},
        {"resume": True},
        {"restart": True},
        {"dry_run": True},
        {"disks": False, "dry_run": True},
        {"format_options": ("a=b",), "create": True},
        {"format_options": ("a=b",), "overwrite": True},
        {"manifest": Manifest()},
        {"verify_base": Manifest()},
        {"base_check": False},
        {"images": {}},
    ],
)
def test_requests_that_are_in_order(given: dict[str, Any]) -> None:
    ReplayRequest(**(FILES | given)).check(with_stream=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"resume": True, "allow_incomplete": True}, None),
        ({"resume": True}, "no STREAM is specified"),
        ({"allow_incomplete": True}, "no STREAM is specified"),
        ({"resume": True, "allow_incomplete": True, "images": {}}, "no --image is specified"),
    ],
)
def test_requests_without_a_stream(given: dict[str, Any], said: str | None) -> None:
    request = ReplayRequest(**(FILES | given))
    if said is None:
        request.check(with_stream=False)
        return
    with pytest.raises(UsageError) as error:
        request.check(with_stream=False)
    assert str(error.value) == said


def test_what_is_asked_for() -> None:
    request = ReplayRequest()
    assert [request.makes, request.continues, request.accepts] == [False] * 3
    assert ReplayRequest(create=True).makes
    assert ReplayRequest(overwrite=True).makes
    assert ReplayRequest(resume=True).continues
    assert ReplayRequest(restart=True).continues
    assert ReplayRequest(resume=True, allow_incomplete=True).accepts
    assert not ReplayRequest(restart=True, allow_incomplete=True).accepts
    assert request.disks
    assert request.bitmaps
    assert request.base_check
    assert (request.number, request.dialect, request.container) == (None, "auto", "auto")
    for name in ("mounted", "incremental", "dry_run", "verify", "create", "overwrite", "restart"):
        assert getattr(request, name) is False


def test_devices_and_formats() -> None:
    request = ReplayRequest(devices=frozenset("d"), formats={"d": "qcow2", None: "raw"})
    assert (request.takes("d"), request.takes("e")) == (True, False)
    assert (request.format_of("d"), request.format_of("e")) == ("qcow2", "raw")
    assert request.format_of(None) == "raw"
    assert ReplayRequest().takes("e")
    assert ReplayRequest(formats={"d": "qcow2"}).format_of("e") is None


def test_what_is_known() -> None:
    hints = Hints({"d": 1024})
    assert ReplayRequest(hints=hints).known is hints
    completed = ReplayRequest(hints=hints, manifest=Manifest()).known
    assert completed is not hints
    assert completed.sizes == {"d": 1024}


# -- what a result says

NOTHING = ByteRanges(np.empty((0, 2), np.int64), 512)
DEVICE = DeviceVerdict(
    DiskState("d"), NOTHING, SizeBounds(0, None, "none"), intended=False, end_known=False
)
GAP = Finding("missing-chunks", "error", "gap", None, "d")
PAST = Finding("sector-past-end", "error", "past", 9, "d")
MANY = Finding("bulk-unfinished", "error", "unsent")
LEFT = Finding("unnamed-device", "warning", "no name")
CUT = StreamError("cut")
TAKE = "; use --allow-incomplete to take what is sound"


@pytest.mark.parametrize(
    ("failure", "accepted", "devices", "said"),
    [
        (CUT, False, True, f"cut{TAKE}"),
        (CUT, True, True, "cut"),
        (CUT, False, False, "cut"),
        (StreamError("cut", hint="do"), False, True, "cut; do"),
        (FailureError("broken"), False, True, "broken"),
        (StreamError("cut", offset=7), False, True, f"cut (at byte 7){TAKE}"),
    ],
)
def test_the_problem_of_a_failure(
    failure: BlkmigError, accepted: bool, devices: bool, said: str
) -> None:
    report = Report("s", devices=(DEVICE,) if devices else (), findings=(GAP,), failure=failure)
    assert ReplayResult(report, accepted).problem == said


@pytest.mark.parametrize(
    ("findings", "partial", "said"),
    [
        ([], [], None),
        ([LEFT], [], None),
        ([GAP], [], f"nothing was written: gap (device d) [missing-chunks]{TAKE}"),
        ([LEFT, MANY], ["x"], f"incomplete: unsent [bulk-unfinished]{TAKE}"),
        # What no option accepts comes first.
        ([GAP, PAST, MANY], ["x"], "incomplete: past (device d, byte 9) [sector-past-end]"),
        ([MANY, GAP], ["x"], f"incomplete: unsent [bulk-unfinished]{TAKE}"),
    ],
)
def test_the_problem_of_findings(
    findings: list[Finding], partial: list[str], said: str | None
) -> None:
    report = Report("s", devices=(DEVICE,), findings=tuple(findings))
    assert ReplayResult(report, False, partial_images=partial).problem == said
    assert ReplayResult(report, True, partial_images=partial).problem is None
    assert ReplayResult(report, False).exit_status == (1 if said else 0)
