"""Reports as JUnit XML, for the test results of CI systems.

There is one testsuite, with a testcase per stream.  A stream that fails a check, or that cannot be
read to its end, is a failure; an input that is missing or fails is an error.  A testcase has at most
one of these (readers use only the first): its type is the check that ended the reading, or the first
one that failed, its text all findings that fail the check.  The others are in system-out.
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
    # All output of escape is valid in XML 1.0; newlines are added only here.
    case = ET.SubElement(suite, "testcase", name=escape(report.stream), classname="blkmig.validate")
    counting = report.counting(strict=strict)
    fault = counting[0] if counting else None
    if report.failure is not None:  # it remains one, even if its check is ignored
        fault = finding_of(report.failure)
    if fault is not None:
        kind = "error" if isinstance(report.failure, FailureError) else "failure"
        element = ET.SubElement(case, kind, type=fault.id, message=escape(fault.message))
        element.text = "\n".join(map(str, counting or [fault]))
    others = [str(finding) for finding in report.findings if finding not in counting]
    ET.SubElement(case, "system-out").text = "\n".join([report.verdict, *others])
