"""Hostile streams: commands read each in bounded memory, and end without a traceback."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import raw
from tests.support.hostile import SIZE_MAX, STREAMS
from tests.support.hostile_files import BITMAP_FILES, MANIFESTS, SPECS

MIB = 1 << 20
#: What a command may take.
MEMORY = 256 * MIB
# It ends the process; the tests set no bound on time.
_PROCESSOR_SECONDS = 300
# In a process between: a child's peak is never less than that of the process that forks it.
_MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
#: By command: its options, and the streams that it reads, those that are worst for it.
COMMANDS = {
    "map": ([], ["downwards", "unaligned", "v2-cleared", "alternating-bits", "strewn-bits-at-random"]),
    "map-json": (["--output", "json"], ["downwards"]),
    "salvage": ([], ["repeated", "many-bitmaps", "ram-pages", "nearly-records", "chains-of-records"]),
    "extract": (["--allow-incomplete", "--to", "out"], ["downwards", "at-random", "repeated"]),
    "compare": (["{stream}"], ["downwards", "unaligned", "repeated"]),
    "info": ([], ["many-sections", "progress-only", "bits-in-every-megabyte"]),
    "replay": (["--image", "{device}.img", "--create", "--incremental"], ["downwards", "unaligned"]),
    "dump": ([], ["sectors-past-any-disk", "v2-giant", "huge-granules"]),
    "dump-jsonl": (["--output", "jsonl"], ["v2-many-bitmaps"]),
    "convert": (["--normalize", "--incremental", "--to", "out"], ["irregular", "unaligned"]),
    "scrub": (["--to", "out"], ["irregular", "progress-of-many-devices"]),
}  # fmt: skip
_OTHERS = [(command, name) for command, (_, names) in COMMANDS.items() for name in names]
# validate reads those that no other command reads, and the worst ones.
_WORST = {"downwards", "many-bitmaps"}
_READ = {name for _, name in _OTHERS} - _WORST
CASES = [*(("validate", name) for name in STREAMS if name not in _READ), *_OTHERS]


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the streams that the tests have made so far."""
    return tmp_path_factory.mktemp("streams")


@pytest.mark.long
@pytest.mark.parametrize(("command", "name"), CASES)
def test_bounded_memory(command: str, name: str, streams: Path, tmp_path: Path) -> None:
    path = streams / name
    if not path.exists():
        data = STREAMS[name]()
        assert len(data) < SIZE_MAX
        path.write_bytes(data)
    options, _ = COMMANDS.get(command, ([], []))
    verb = command.partition("-")[0]
    options = [str(path) if option == "{stream}" else option for option in options]
    status, errors = measured(tmp_path, verb, str(path), "-q", *options)
    if command == "validate":
        assert status != 4
        assert len(errors.splitlines()) <= 1, errors


def measured(folder: Path, *words: str) -> tuple[int, str]:
    """Run a command in ``folder``, in bounded memory; return its exit status, and what it says."""
    arguments = [sys.executable, "-m", "blkmig_cli", *words]
    with subprocess.Popen(
        [sys.executable, "-c", _MEASURE, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
    ) as process:  # fmt: skip
        limit = (_PROCESSOR_SECONDS, _PROCESSOR_SECONDS)
        resource.prlimit(process.pid, resource.RLIMIT_CPU, limit)
        out, errors = process.communicate()
    status, kilobytes = map(int, out.split())
    assert status in (0, 1, 3, 4), errors
    assert "Traceback" not in errors
    assert kilobytes * 1024 < MEMORY
    return status, errors


#: Files other than streams, and the words that read one of them.
FILES = {
    "spec": (SPECS, ["build", "{file}", "--to", "out"]),
    "bitmaps": (BITMAP_FILES, ["send", "d=disk.img", "--bitmaps-from", "{file}", "--to", "out"]),
    "manifest": (MANIFESTS, ["validate", "s.bin", "--manifest", "{file}", "-q"]),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (made, _) in FILES.items() for name in made]
)
def test_bounded_memory_of_other_files(kind: str, name: str, tmp_path: Path) -> None:
    made, words = FILES[kind]
    data = made[name]()
    assert len(data) < SIZE_MAX
    (tmp_path / "f").write_bytes(data)
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    (tmp_path / "s.bin").write_bytes(raw.qemu(raw.block(0, 9)))
    _, errors = measured(tmp_path, *(word.replace("{file}", "f") for word in words))
    assert len(errors.splitlines()) <= 1, errors
