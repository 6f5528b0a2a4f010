"""Reports as SARIF 2.1.0, for code scanning: every check is a rule, every finding a result.

The URI of a file is its path, relative or absolute as it was specified; that of another stream is the
specified one.  Regions are bytes of the (uncompressed) stream.  A rule's help is its text, without a URI, as
the page of the checks (docs/checks.md) has no public address.
"""

import json
from typing import Any
from urllib.parse import quote

from blkmig_cli import __version__
from blkmig_cli.checks.catalogue import CHECKS, Finding
from blkmig_cli.checks.remedies import REMEDIES
from blkmig_cli.checks.report import Report
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.system.address import Address, parse_address
from blkmig_cli.text import encode_name, escape

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_RULES = list(CHECKS)

_Json = dict[str, Any]


class Sarif:
    """The document of reports, which are added one after the other: one run."""

    def __init__(self) -> None:
        self._uris: dict[str, int] = {}  # and their places in the list of artifacts
        self._results: list[_Json] = []
        self._failed = False

    def add(self, report: Report) -> None:
        """Add the results of a stream."""
        uri = _uri(report.stream)
        index = self._uris.setdefault(uri, len(self._uris))
        self._results += [_result(finding, uri, index) for finding in report.findings]
        self._failed |= isinstance(report.failure, FailureError)

    def text(self) -> str:
        """Return the document."""
        run = {
            "tool": {"driver": {"name": "blkmig", "version": __version__, "rules": _rules()}},
            "invocations": [{"executionSuccessful": not self._failed}],
            "artifacts": [
                {"location": {"uri": uri}, "roles": ["analysisTarget"]} for uri in self._uris
            ],
            "results": self._results,
        }
        return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _rules() -> list[_Json]:
    return [
        {
            "id": check,
            "shortDescription": {"text": meaning},
            "help": {"text": REMEDIES[check]},
            "defaultConfiguration": {"level": severity},
        }
        for check, (severity, meaning) in CHECKS.items()
    ]


def _result(finding: Finding, uri: str, index: int) -> _Json:
    physical: _Json = {"artifactLocation": {"uri": uri, "index": index}}
    if finding.offset is not None:
        physical["region"] = {"byteOffset": finding.offset}
    location: _Json = {"physicalLocation": physical}
    if finding.device is not None:
        location["logicalLocations"] = [{"name": escape(finding.device), "kind": "device"}]
    return {
        "ruleId": finding.id,
        "ruleIndex": _RULES.index(finding.id),
        "level": finding.severity,
        "message": {"text": escape(finding.message)},
        "locations": [location],
    }


def _uri(stream: str) -> str:
    try:
        address = parse_address(stream)
    except UsageError:  # a name from the library, such as that of a file object
        address = Address(stream, "file", path=stream)
    if address.scheme != "file":
        return "fd:0" if stream == "-" else quote(encode_name(stream), safe=":/?=,@[]")
    encoded = quote(encode_name(address.path))
    return f"file://{encoded}" if address.path.startswith("/") else encoded
