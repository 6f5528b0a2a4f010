"""The library: fails where a stream is not whole, and says why; for a test of your own."""

import sys

import blkmig_cli

with blkmig_cli.open(sys.argv[1]) as stream:
    report = stream.report()
for finding in report.findings:
    print(f"{finding.severity}: {finding.message}")
sys.exit(not (report.valid and report.complete))
