"""Tests against the QEMU of this machine: what it cannot do is skipped, with the reason.

With BLKMIG_REQUIRE_QEMU there must be a QEMU: without one the tests fail.
"""

import os
from pathlib import Path

import pytest

from tests.interop import qemu

REQUIRED = "BLKMIG_REQUIRE_QEMU" in os.environ
HERE = Path(__file__).parent
MISSING = qemu.BINARY is None or qemu.QEMU_IMG is None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = None
    if MISSING and not REQUIRED:
        reason = "no qemu-system-x86_64 or no qemu-img; install qemu-system-x86 and qemu-utils"
    if qemu.ROOT and os.geteuid() != 0:
        reason = f"only root can start the QEMU in {qemu.ROOT}"
    no_blocks = None
    if not MISSING and not qemu.has_block_migration():
        no_blocks = f"QEMU {'.'.join(map(str, qemu.version()))} has no block migration"
    for item in items:
        if HERE in item.path.parents:
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))
            elif no_blocks is not None and item.get_closest_marker("block_migration"):
                item.add_marker(pytest.mark.skip(reason=no_blocks))
