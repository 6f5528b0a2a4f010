"""Reports as JUnit XML, for what CI systems show of test results.

One testsuite, one testcase a stream.  A stream that a check finds fault with, or that cannot be read
to its end, is a failure; an input that is missing or breaks off is an error.  A testcase has one of
these at most (readers look at the first only): its type is the check that ended the reading, or the
first that found something, its text all findings that count.  The others are in system-out.
"""

from xml.etree import ElementTree as ET

from blkmig_cli.checks.catalogue import finding_of
from blkmig_cli.checks.report import Report
from blkmig_cli.errors import FailureError
from blkmig_cli.text import escape

_SUITE = "blkmig validate"


def junit(reports: list[Report], *, strict: bool) -> str:
    """Return the document of ``reports``, in ASCII; ``strict``: warnings fail a stream, too."""
    root = ET.Element("testsuites", name=_SUITE)
    suite = ET.SubElement(root, "testsuite", name=_SUITE)
    for report in reports:
        _case(suite, report, strict=strict)
    for element in (root, suite):
        element.set("tests", str(len(reports)))
        element.set("failures", str(len(suite.findall("*/failure"))))
        element.set("errors", str(len(suite.findall("*/error"))))
    ET.indent(root)
    document: bytes = ET.tostring(root, "us-ascii", xml_declaration=True)
    return document.decode("ascii")


def _case(suite: ET.Element, report: Report, *, strict: bool) -> None:
    # Whatever escape lets pass has a place in XML 1.0; line ends are made here only.
    case = ET.SubElement(suite, "testcase", name=escape(report.stream), classname="blkmig.validate")
    counting = report.counting(strict=strict)
    fault = counting[0] if counting else None
    if report.failure is not None:  # which stays one, even where its check is ignored
        fault = finding_of(report.failure)
    if fault is not None:
        kind = "error" if isinstance(report.failure, FailureError) else "failure"
        element = ET.SubElement(case, kind, type=fault.id, message=escape(fault.message))
        element.text = "\n".join(map(str, counting or [fault]))
    others = [str(finding) for finding in report.findings if finding not in counting]
    ET.SubElement(case, "system-out").text = "\n".join([report.verdict, *others])
