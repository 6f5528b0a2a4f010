"""The QEMU found on this machine: without one these tests are skipped, or fail where it is required."""

import os
from pathlib import Path

import pytest

from blkmig_cli.checks.compatibility import BLOCKS_END
from tests.interop import qemu

REQUIRED = "BLKMIG_REQUIRE_QEMU" in os.environ
HERE = Path(__file__).parent


MISSING = qemu.BINARY is None or qemu.QEMU_IMG is None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if REQUIRED:
        return
    reason = None
    if MISSING:
        reason = "no qemu-system-x86_64, or no qemu-img"
    elif qemu.version() >= BLOCKS_END:
        reason = "this QEMU has no block migration any more"
    for item in items:
        if reason is not None and HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly what was not tried."""
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "interop" in r.nodeid]
    if skipped:
        terminalreporter.line(
            f"{len(skipped)} tests against a real QEMU were skipped: they need qemu-system-x86 and "
            "qemu-utils, 2.12 to 9.0; then run make test-qemu"
        )
