"""Output of ``validate`` for CI: JUnit XML, SARIF, and the summary of many streams."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from blkmig_cli.checks.catalogue import CHECKS, Finding, finding_of
from blkmig_cli.checks.remedies import REMEDIES
from blkmig_cli.checks.report import Report
from blkmig_cli.errors import FailureError, StreamError
from blkmig_cli.operations.many.tally import Tally
from blkmig_cli.output.github import annotations, step_summary
from blkmig_cli.output.junit import JUnit
from blkmig_cli.output.sarif import Sarif
from tests.conftest import Capture, Outcome, Run, fails
from tests.support import raw
from tests.support.long import examples

SARIF = Draft202012Validator(json.loads(Path(__file__).with_name("sarif.schema.json").read_text()))
WHOLE = raw.qemu(raw.block(0, 8), bitmaps=raw.bitmap_start()
                 + raw.bitmap_bits(0, 2048, bytes(8)) + raw.COMPLETE)  # fmt: skip
# Of the disk in past.bin.
SIZE = ("--device-size", "e=1M")

# The JUnit XML that Jenkins, GitLab and others read (the xUnit plugin's junit-10.xsd), as far as it
# is written here: attributes, and the elements that may stand inside.
GRAMMAR = {
    "testsuites": ({"name", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors"}, {"testcase"}),
    "testcase": ({"name", "classname"}, {"failure", "error", "system-out"}),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}


def cases(text: str) -> list[ET.Element]:
    """Return the testcases of a document that has the right grammar and counts."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = GRAMMAR[element.tag]
        assert set(element.attrib) == attributes
        assert {child.tag for child in element} <= children
    (suite,) = root
    for element in (root, suite):
        assert element.get("tests") == str(len(suite))
        assert element.get("failures") == str(len(list(root.iter("failure"))))
        assert element.get("errors") == str(len(list(root.iter("error"))))
    for case in suite:
        assert [child.tag for child in case] in (
            ["system-out"],
            ["failure", "system-out"],
            ["error", "system-out"],
        )
    return list(suite)


def run_of(text: str) -> Any:
    """The run of a document that keeps to the schema, and whose indices lead where they say."""
    document = json.loads(text)
    SARIF.validate(document)
    (run,) = document["runs"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert run["artifacts"][place["index"]]["location"]["uri"] == place["uri"]
    return run


@pytest.fixture
def streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One of each verdict, in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    content = {
        "whole.bin": WHOLE,
        "perhaps.bin": raw.qemu(raw.block(0, 8)),
        "holes.bin": raw.qemu(raw.block(0, 8), raw.block(4096, 8)),
        "past.bin": raw.qemu(raw.block(0, 8, device="e"), raw.block(2048, 8, device="e")),
        "cut.bin": WHOLE[:-9],
    }
    for name, data in content.items():
        Path(name).write_bytes(data)
    return [*content, "no such file"]


def test_every_capture(capture: Capture, run: Run) -> None:
    """Both formats say of real streams what the JSON says."""
    words = ["validate", capture.path, *capture.hints(), "--output"]
    shown, xml, results = (run(*words, kind) for kind in ("json", "junit", "sarif"))
    assert shown.status == xml.status == results.status
    (case,) = cases(xml.out)
    found = shown.report["findings"]
    failing = [finding["id"] for finding in found if finding["severity"] == "error"]
    assert [child.get("type") for child in case if child.tag == "failure"] == failing[:1]
    sarif_run = run_of(results.out)
    assert [
        (
            result["ruleId"],
            result["level"],
            result["message"]["text"],
            result["locations"][0]["physicalLocation"].get("region", {}).get("byteOffset"),
        )
        for result in sarif_run["results"]
    ] == [(f["id"], f["severity"], f["message"], f["offset"]) for f in found]
    uri = capture.path.as_uri()
    assert [artifact["location"]["uri"] for artifact in sarif_run["artifacts"]] == [uri]


def test_rules_are_the_checks(run: Run, streams: list[str]) -> None:
    rules = run_of(run("validate", streams[0], "--output", "sarif").out)["tool"]["driver"]["rules"]
    assert {
        rule["id"]: (rule["defaultConfiguration"]["level"], rule["shortDescription"]["text"])
        for rule in rules
    } == CHECKS
    assert {rule["id"]: rule["help"]["text"] for rule in rules} == REMEDIES


def outcomes(outcome: Outcome) -> list[tuple[str, str]]:
    """Return the outcome of each testcase: passed, or another element and its type."""
    found = []
    for case in cases(outcome.out):
        fault = next((child for child in case if child.tag != "system-out"), None)
        found.append(("passed", "") if fault is None else (fault.tag, fault.get("type") or ""))
    return found


def test_junit_outcomes(run: Run, streams: list[str]) -> None:
    outcome = run("validate", *SIZE, *streams, "--output", "junit")
    assert outcome.status == 4
    assert [case.get("name") for case in cases(outcome.out)] == streams
    expected = [
        ("passed", ""),
        ("passed", ""),
        ("failure", "missing-chunks"),
        ("failure", "sector-past-end"),
        ("failure", "truncated"),
        ("error", "input-failed"),
    ]
    assert outcomes(outcome) == expected
    strict = run("validate", *SIZE, *streams, "--output", "junit", "--strict")
    assert outcomes(strict)[1] == ("failure", "completeness-unknown")
    forgiven = run("validate", *SIZE, *streams, "--output", "junit", "--ignore", "missing-chunks")
    assert outcomes(forgiven)[2] == ("passed", "")


def test_an_ignored_damage_stays_a_failure(run: Run, streams: list[str]) -> None:
    outcome = run("validate", "cut.bin", "--ignore", "truncated", "--output", "junit")
    assert outcome.status == 3
    assert outcomes(outcome) == [("failure", "truncated")]


@pytest.mark.parametrize("kind", ["json", "junit", "sarif"])
def test_a_missing_stream_is_in_the_document(run: Run, streams: list[str], kind: str) -> None:
    """CI must not take an empty report for a good one."""
    outcome = run("validate", "no such file", "--output", kind)
    assert outcome.status == 4
    assert outcome.err == "blkmig: no such file: No such file or directory\n"
    if kind == "junit":
        assert outcomes(outcome) == [("error", "input-failed")]
    elif kind == "sarif":
        found = run_of(outcome.out)
        assert found["invocations"] == [{"executionSuccessful": False}]
        assert [result["ruleId"] for result in found["results"]] == ["input-failed"]
    else:
        assert [finding["id"] for finding in outcome.report["findings"]] == ["input-failed"]


def test_sarif_uris(run: Run, streams: list[str]) -> None:
    names = {
        "a b%.bin": "a%20b%25.bin",
        "c:d.bin": "c%3Ad.bin",
        "sub/é\udcff.bin": "sub/%C3%A9%FF.bin",
        "file:whole.bin,offset=0": "whole.bin",
        "exec:cat 'whole.bin'": "exec:cat%20%27whole.bin%27",
        "tcp:[::1]:9": "tcp:[::1]:9",
        "-": "fd:0",
    }
    reports = [Report(name) for name in names]
    sarif = Sarif()
    for report in reports:
        sarif.add(report)
    found = [artifact["location"]["uri"] for artifact in run_of(sarif.text())["artifacts"]]
    assert found == list(names.values())


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Return the workflow commands in a log, as GitHub's runner reads them, unescaped.

    (actions/runner, src/Runner.Common/ActionCommand.cs: TryParseV2, TryParse; and Runner.Worker.)
    """
    found = []
    for line in text.splitlines():
        assert "##[" not in line  # the older form, anywhere in a line
        parsed = re.fullmatch(r"\s*::(\w[\w-]*)(?: (.*?))?::(.*)", line)
        if parsed:
            pairs = (pair.split("=", 1) for pair in (parsed[2] or "").split(","))
            properties = {key: plain(value, "%:,") for key, value in pairs}
            found.append((parsed[1], properties, plain(parsed[3], "%")))
    return found


def plain(text: str, escaped: str) -> str:
    for char in escaped[::-1]:
        text = text.replace(f"%{ord(char):02X}", char)
    return text


def test_github(run: Run, streams: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An annotation for each finding, at its file; a line for each stream; and the summary."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    Path("summary.md").write_text("of another step\n")
    words = ["validate", *SIZE, *streams]
    outcome = run(*words, "--output", "github", "--junit", "a.xml", "--sarif", "a.sarif")
    document = run(*words, "--output", "json")
    assert outcome.status == document.status == 4
    kinds = {"error": "error", "warning": "warning", "note": "notice"}
    assert commands(outcome.out) == [
        (
            kinds[finding["severity"]],
            {"file": stream["stream"], "title": finding["id"]},
            f"{stream['stream']}: {finding['message']}{place(finding)}",
        )
        for stream in document.json["streams"]
        for finding in stream["findings"]
    ]
    lines = [line for line in outcome.out.splitlines() if not line.startswith("::")]
    assert lines == [f"{one['verdict']}: {one['stream']}" for one in document.json["streams"]]
    assert outcome.err == ""
    for kind, path in (("junit", "a.xml"), ("sarif", "a.sarif")):
        assert Path(path).read_text() == run(*words, "--output", kind).out.rstrip("\n")
    before, title, *rest = Path("summary.md").read_text().splitlines()
    assert before == "of another step"
    assert title == "### blkmig validate: 6 streams"
    assert "1 whole, 1 unknown, 1 incomplete, 1 faulty, 1 damaged, 1 failed" in rest
    assert "| no such file | failed | 1 | 0 |" in rest
    assert not any("whole" in line for line in rest if line.startswith("|"))


def place(finding: dict[str, Any]) -> str:
    """The place of a finding; where a stream ends too early is in the message."""
    byte = None if finding["id"] == "truncated" else finding["offset"]
    names = {"device": finding["device"], "byte": byte}
    shown = ", ".join(f"{key} {value}" for key, value in names.items() if value is not None)
    return f" ({shown})" if shown else ""


def test_github_paths(run: Run, streams: list[str]) -> None:
    """Files are relative to the checkout, others have none."""
    outcome = run("validate", Path("cut.bin").resolve(), "exec:cat cut.bin", "--output", "github")
    files = [properties.get("file") for _, properties, _ in commands(outcome.out)]
    assert set(files[:2]) == {"cut.bin"}
    assert set(files[2:]) == {None}


def test_a_file_is_written_whatever_happens(run: Run, streams: list[str]) -> None:
    assert run("validate", "no such file", "--junit", "a.xml").status == 4
    assert outcomes(run("validate", "no such file", "--output", "junit")) == outcomes(
        Outcome(4, Path("a.xml").read_text(), "")
    )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--junit", "whole.bin"], 2, "are the same file"),
        (["--junit", "a", "--sarif", "./a"], 2, "are the same file"),
        (["--junit", "none/a.xml"], 4, "none/a.xml: No such file"),
    ],
)
def test_files_that_cannot_be_written(
    run: Run, streams: list[str], words: list[str], status: int, message: str
) -> None:
    outcome = run("validate", "whole.bin", *words)
    assert outcome.status == status
    assert message in outcome.err
    assert Path("whole.bin").read_bytes() == WHOLE


def test_a_step_summary_that_cannot_be_written(
    run: Run, streams: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "none/summary.md")
    fails(run("validate", "whole.bin", "--output", "github"), 4, "none/summary.md: No such file")


def test_the_summary(run: Run, streams: list[str]) -> None:
    outcome = run("validate", *SIZE, *streams)
    assert outcome.status == 4
    *lines, last = outcome.out.splitlines()[-7:]
    shown = [line.split() for line in lines]
    assert [" ".join(words) for words in shown] == [
        "whole.bin whole 0 0",
        "perhaps.bin unknown 0 1",
        "holes.bin incomplete 1 0",
        "past.bin faulty 1 0",
        "cut.bin damaged 2 0",
        "no such file failed 1 0",
    ]
    counts = "1 whole, 1 unknown, 1 incomplete, 1 faulty, 1 damaged, 1 failed"
    assert last == f"6 streams: {counts}"
    assert "1 stream" not in run("validate", "whole.bin").out


def test_a_row_of_the_summary_is_one_line(run: Run, streams: list[str]) -> None:
    long = Path("d" * 200) / ("n" * 200)
    long.parent.mkdir()
    long.write_bytes(WHOLE)
    rows = run("validate", "whole.bin", long).out.splitlines()[-2:-1]
    assert [row.split() for row in rows] == [[str(long), "whole", "0", "0"]]


REPORT_TEXT = st.text(st.characters(codec=None), max_size=30)


@pytest.mark.scaled
@settings(max_examples=examples(17, 500))
@given(stream=REPORT_TEXT.filter(bool), device=REPORT_TEXT, message=REPORT_TEXT)
def test_hostile_text(stream: str, device: str, message: str) -> None:
    """Any text whatever, lone surrogates and control characters too, gives sound documents."""
    failures: list[Callable[[str], FailureError | StreamError]] = [FailureError, StreamError]
    for make in failures:
        failure = make(message)
        findings = (finding_of(failure), Finding("truncated", "note", message, 5, device))
        report = Report(stream, failure=failure, findings=findings)
        junit, sarif = JUnit(strict=False), Sarif()
        junit.add(report)
        sarif.add(report)
        text = junit.text()
        assert text.isascii()
        (case,) = cases(text)
        assert all(char.isprintable() for char in case.get("name") or "")
        run_of(sarif.text())
        found = commands("\n".join(annotations(report)))
        assert [kind for kind, _, _ in found] == ["error", "notice"]
        assert found[1][1]["title"] == "truncated"
        tally = Tally()
        tally.add(report)
        *_, row = step_summary(tally)
        assert len(re.findall(r"(?<!\\)\|", row)) == 5
