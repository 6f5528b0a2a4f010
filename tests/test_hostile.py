"""Hostile streams: validate reads each in bounded memory, and ends without a traceback."""

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
# In a process between: a child's peak is never less than that of the process that forks it.
_MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in STREAMS if name not in KNOWN])
def test_validate_in_bounded_memory(name: str, tmp_path: Path) -> None:
    data = STREAMS[name]()
    assert len(data) < SIZE_MAX
    path = tmp_path / "s"
    path.write_bytes(data)
    command = [sys.executable, "-m", "blkmig_cli", "validate", str(path), "-q"]
    with subprocess.Popen(
        [sys.executable, "-c", _MEASURE, *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        limit = (_PROCESSOR_SECONDS, _PROCESSOR_SECONDS)
        resource.prlimit(process.pid, resource.RLIMIT_CPU, limit)
        out, errors = process.communicate()
    status, kilobytes = map(int, out.split())
    assert status in (0, 1, 3), errors
    assert len(errors.splitlines()) <= 1, errors
    assert kilobytes * 1024 < MEMORY
