"""Verdicts and exit statuses of reports, by their findings and failures."""

import pytest

from blkmig_cli.checks.catalogue import Finding, Severity, finding_of
from blkmig_cli.checks.report import BitmapVerdict, DirtyRanges, Report, failed_report
from blkmig_cli.contents.bitmaps import BitmapState
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.errors import BlkmigError, FailureError, NotAStreamError, TruncatedError


def finding(severity: Severity, name: str = "limit") -> Finding:
    return Finding(name, severity, "text")


@pytest.mark.parametrize(
    ("severities", "counting", "strict"),
    [([], [], []), (["note"], [], []), (["warning", "note"], [], ["warning"]),
     (["note", "error", "warning"], ["error"], ["error", "warning"])],
)  # fmt: skip
def test_findings_that_count(
    severities: list[Severity], counting: list[str], strict: list[str]
) -> None:
    report = Report("s", findings=tuple(map(finding, severities)))
    assert [found.severity for found in report.counting()] == counting
    assert [found.severity for found in report.counting(strict=True)] == strict
    assert (report.exit_status(), report.exit_status(strict=True)) == (bool(counting), bool(strict))
    assert report.valid == (not counting)


@pytest.mark.parametrize(
    ("complete", "error", "verdict"),
    [(True, False, "whole"), (None, False, "unknown"), (False, False, "incomplete"),
     (True, True, "faulty"), (None, True, "faulty"), (False, True, "incomplete")],
)  # fmt: skip
def test_verdicts(complete: bool | None, error: bool, verdict: str) -> None:
    found = (finding("error"),) if error else (finding("warning"),)
    assert Report("s", complete=complete, findings=found).verdict == verdict


@pytest.mark.parametrize(
    ("failure", "verdict", "status"),
    [(NotAStreamError("x"), "not-a-stream", 3), (FailureError("x"), "failed", 4),
     (TruncatedError("x"), "damaged", 3)],
)  # fmt: skip
def test_failures(failure: BlkmigError, verdict: str, status: int) -> None:
    report = Report("s", complete=True, failure=failure)
    assert (report.verdict, report.exit_status(), report.valid) == (verdict, status, False)
    with pytest.raises(type(failure), match="s: x") as caught:
        report.check_read()
    assert caught.value.stream == "s"
    Report("s").check_read()
    failed = failed_report("t", failure)
    assert (failed.stream, failed.failure, failed.findings) == (
        "t",
        failure,
        (finding_of(failure),),
    )


def test_findings_are_added_and_ignored() -> None:
    one, two = finding("error"), finding("note", "identity")
    report = Report("s", findings=(one,)).adding([two])
    assert report.findings == (one, two)
    assert report.ignoring(["limit"]).findings == (two,)
    assert report.ignoring([]).findings == (one, two)


@pytest.mark.parametrize(
    ("device", "offset", "place"),
    [(None, None, ""), ("d", None, " (device d)"), (None, 0, " (byte 0)"),
     ("a\n", 9, " (device a\\x0a, byte 9)"), ("", None, " (device )")],
)  # fmt: skip
def test_a_finding_as_text(device: str | None, offset: int | None, place: str) -> None:
    found = Finding("limit", "error", "too\tmuch", offset, device)
    assert str(found) == f"error: too\\x09much{place} [limit]"


@pytest.mark.parametrize("hint", [None, "do this"])
def test_an_error_as_a_finding(hint: str | None) -> None:
    text = "cut; do this" if hint else "cut"
    found = finding_of(TruncatedError("cut", offset=9, device="d", hint=hint))
    assert found == Finding("truncated", "error", text, 9, "d")


@pytest.mark.parametrize(
    ("most", "ranges"),
    [(0, []), (1, [(0, 512)]), (2, [(0, 512), (1024, 1024)]),
     (3, [(0, 512), (1024, 1024), (1 << 20, 100)]), (9, [(0, 512), (1024, 1024), (1 << 20, 100)])],
)  # fmt: skip
def test_the_first_dirty_ranges(most: int, ranges: list[tuple[int, int]]) -> None:
    """They are cut at the disk's end."""
    content = DirtyBitmap("b", 512)
    for granule in (0, 2, 3, 2048, 9999):
        content.set_range(granule * 512, 512)
    state = BitmapState("d", "b", 512, content=content)
    verdict = BitmapVerdict(state, (512,), 0, True, 0, (1 << 20) + 100)
    assert verdict.dirty_ranges(most) == DirtyRanges(ranges, 3 - len(ranges))


def test_dirty_ranges_without_bits() -> None:
    listed = DirtyRanges([(0, 512)], 7)
    state = BitmapState("d", "b", None)
    assert BitmapVerdict(state, (), None, None, 0, None, listed).dirty_ranges(9) == listed
    assert BitmapVerdict(state, (), None, None, 0).dirty_ranges(9) is None
