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


class JUnit:
    """The document of reports, which are added one after the other; ``strict``: warnings fail, too."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._root = ET.Element("testsuites", name=_SUITE)
        self._suite = ET.SubElement(self._root, "testsuite", name=_SUITE)

    def add(self, report: Report) -> None:
        """Add the testcase of a stream."""
        _case(self._suite, report, strict=self._strict)

    def text(self) -> str:
        """Return the document, in ASCII."""
        for element in (self._root, self._suite):
            element.set("tests", str(len(self._suite)))
            element.set("failures", str(len(self._suite.findall("*/failure"))))
            element.set("errors", str(len(self._suite.findall("*/error"))))
        ET.indent(self._root)
        document: bytes = ET.tostring(self._root, "us-ascii", xml_declaration=True)
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
