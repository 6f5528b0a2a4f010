"""Streams that are made to cost much: validate reads each in bounded memory, and ends without a traceback."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hostile import SIZE_MAX, STREAMS

MIB = 1 << 20
#: What validate may take; it takes more of bitmaps by the thousand, which is a known fault.
MEMORY = 256 * MIB
KNOWN = {"many-bitmaps", "v2-many-bitmaps"}
# It ends the process; the tests set no bound on time.
_PROCESSOR_SECONDS = 300


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in STREAMS if name not in KNOWN])
def test_validate_in_bounded_memory(name: str, tmp_path: Path) -> None:
    data = STREAMS[name]()
    assert len(data) < SIZE_MAX
    path = tmp_path / "s"
    path.write_bytes(data)
    limit = (_PROCESSOR_SECONDS, _PROCESSOR_SECONDS)
    with subprocess.Popen(
        [sys.executable, "-m", "blkmig_cli", "validate", path, "-q"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        resource.prlimit(process.pid, resource.RLIMIT_CPU, limit)
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, 1, 3), errors
    assert len(errors.splitlines()) <= 1, errors
    assert usage.ru_maxrss * 1024 < MEMORY
