"""The QEMU found on this machine: without one these tests are skipped, or fail where it is required."""

import os
from pathlib import Path

import pytest

from tests.interop import qemu

REQUIRED = "BLKMIG_REQUIRE_QEMU" in os.environ
HERE = Path(__file__).parent


MISSING = qemu.BINARY is None or qemu.QEMU_IMG is None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if MISSING and not REQUIRED:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no qemu-system-x86_64, or no qemu-img"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly what was not tried."""
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "interop" in r.nodeid]
    if skipped:
        terminalreporter.line(
            f"{len(skipped)} tests against a real QEMU were skipped: install qemu-system-x86 and "
            "qemu-utils, then run make test-qemu"
        )
