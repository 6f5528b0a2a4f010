"""The library: fails if a stream is not complete, with the reason; for use in a test."""

import sys

import blkmig_cli

if len(sys.argv) != 2:
    sys.exit("usage: check_stream.py STREAM")

with blkmig_cli.open(sys.argv[1]) as stream:
    report = stream.report()
for finding in report.findings:
    print(f"{finding.severity}: {finding.message}")
sys.exit(not (report.valid and report.complete))
