"""Many captures: directories, globs, lists; several processes; what happens to one that dies."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CAPTURES, Run, fails
from tests.output.test_ci_formats import WHOLE
from tests.output.test_json_schemas import hold
from tests.support import raw

BLKMIG = [sys.executable, "-m", "blkmig_cli"]
# The end of what a test waits for; only a failing one waits so long.
PATIENCE = 60


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with captures of all verdicts in ``c``, and what is no stream."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c" / "deep").mkdir(parents=True)
    for place, data in {
        "c/a.bin": WHOLE,
        "c/b.txt": b"no stream at all, but a text",
        "c/cut.bin": WHOLE[:-40],
        "c/deep/exec:false": WHOLE,
        "c/deep/empty": b"",
        "c/holes.bin": raw.qemu(raw.block(0, 8), raw.block(4096, 8)),
        "c/two.bin": WHOLE + WHOLE,
    }.items():
        Path(place).write_bytes(data)
    for name in ("classic-none", "classic-incomplete", "v1-blocks-and-bitmaps"):
        shutil.copy(CAPTURES / f"{name}.bin.gz", "c")
    os.mkfifo("c/fifo")
    os.symlink(".", "c/loop")
    os.symlink("nowhere", "c/broken")
    return tmp_path


IN_FOLDER = [
    "c/a.bin", "c/classic-incomplete.bin.gz", "c/classic-none.bin.gz", "c/cut.bin", "c/holes.bin",
    "c/two.bin", "c/two.bin (stream 2)", "c/v1-blocks-and-bitmaps.bin.gz", "c/deep/exec:false",
]  # fmt: skip


def names(document: object) -> list[str]:
    assert isinstance(document, dict)
    return [stream["stream"] for stream in document["streams"]]


def test_a_directory(run: Run, folder: Path) -> None:
    outcome = run("validate", "c", "--output", "json")
    assert outcome.status == 3
    assert names(outcome.json) == IN_FOLDER
    assert outcome.json["passed-over"] == 2
    assert "passed over" in run("validate", "c", "-v").err


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("c/*.bin", ["c/a.bin", "c/cut.bin", "c/holes.bin", "c/two.bin", "c/two.bin (stream 2)"]),
        ("c/de*/*", ["c/deep/exec:false"]),
    ],
)
def test_globs(run: Run, folder: Path, pattern: str, found: list[str]) -> None:
    assert names(run("validate", pattern, "--output", "json").json) == found


def test_a_file_whose_name_is_a_glob(run: Run, folder: Path) -> None:
    Path("[ab].bin").write_bytes(WHOLE)
    assert names(run("validate", "[ab].bin", "--output", "json").json) == ["[ab].bin"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["c/nothing*"], "no file matches 'c/nothing*'"),
        (["empty"], "empty: there are no files in this directory"),
        (["others"], "no streams were found"),
    ],
)
def test_nothing_found(run: Run, folder: Path, words: list[str], message: str) -> None:
    Path("empty").mkdir()
    Path("others").mkdir()
    Path("others/text").write_bytes(b"a text that is no stream")
    for command in ("validate", "info"):
        fails(run(command, *words), 4, message)


def test_named_files_must_be_streams(run: Run, folder: Path) -> None:
    outcome = run("validate", "c/a.bin", "c/b.txt", "c/deep", "no such file", "--output", "json")
    verdicts = [stream["verdict"] for stream in outcome.json["streams"]]
    assert verdicts == ["whole", "not-a-stream", "whole", "failed"]
    assert outcome.status == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all directories")
def test_a_directory_that_cannot_be_read(run: Run, folder: Path) -> None:
    os.mkdir("c/locked", 0)
    outcome = run("validate", "c", "--output", "json")
    assert outcome.status == 4
    assert names(outcome.json) == [*IN_FOLDER[:-1], "c/locked", IN_FOLDER[-1]]


@pytest.mark.parametrize(("null", "end"), [([], b"\n"), (["--null"], b"\0"), (["-0"], b"\0")])
def test_a_list_of_names(run: Run, folder: Path, null: list[str], end: bytes) -> None:
    """Its names are paths, also those that look like other URIs, as a list may come from anywhere."""
    Path("exec:touch made").write_bytes(WHOLE)
    Path("fd:5").write_bytes(WHOLE)
    Path("a*").write_bytes(WHOLE)
    Path("\udcff").write_bytes(WHOLE)
    wanted = ["c/a.bin", "exec:touch made", "fd:5", "a*", "\udcff", "c/deep"]
    data = end.join(map(os.fsencode, wanted)) + end
    Path("list").write_bytes(data)
    shown = ["c/a.bin", "./exec:touch made", "./fd:5", "a*", "\udcff", "c/deep/exec:false"]
    words = ["validate", "--files-from", "list", *null, "--output", "json"]
    assert names(run(*words).json) == shown
    done = subprocess.run(
        [*BLKMIG, *words[:2], "-", *words[3:]], input=data, capture_output=True, check=False
    )
    assert names(json.loads(done.stdout)) == shown
    assert not Path("made").exists()


def test_a_list_with_urls(run: Run, folder: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="no fsspec; install blkmig[remote]")
    fsspec.filesystem("memory").pipe("/list/[a]*", WHOLE)
    (folder / "list").write_text("c/a.bin\nmemory://list/[a]*\nexec:false\n")
    outcome = run("validate", "--files-from", "list", "--output", "json")
    found = {stream["stream"]: stream["verdict"] for stream in json.loads(outcome.out)["streams"]}
    assert found == {"c/a.bin": "whole", "memory://list/[a]*": "whole", "./exec:false": "failed"}


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--files-from", "none"], 4, "none: No such file"),
        (["--files-from", "blank"], 2, "there are no names in it"),
        (["--files-from", "nul"], 2, "use --null"),
        (["--null", "c"], 2, "--null without --files-from"),
        ([], 2, "no STREAM is specified"),
        (["c", "--jobs", "0"], 2, "--jobs"),
        (["c/**/*.bin"], 2, "** is not supported"),
        (["c/a.bin", "c/holes.bin", "--device-size", "none=1M"], 2, "no device 'none'"),
        (["c", "--summary", "--output", "json"], 2, "mutually exclusive"),
    ],
)
def test_usage(run: Run, folder: Path, words: list[str], status: int, message: str) -> None:
    Path("blank").write_bytes(b"\n\n")
    Path("nul").write_bytes(b"a\0b")
    outcome = run("validate", *words)
    assert outcome.status == status
    assert message in outcome.err


def test_a_summary(run: Run, folder: Path) -> None:
    first, *rows, counts, others = run("validate", "c", "--summary").out.splitlines()
    assert first.split() == ["STREAM", "VERDICT", "ERRORS", "WARNINGS"]
    assert len(rows) == len(IN_FOLDER)
    assert counts.startswith("9 streams: ")
    assert others == "2 other files passed over"


def output(*words: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run([*BLKMIG, *words], capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["validate", "-v"], marks=pytest.mark.long),
        ["validate", "--output", "json", "--strict", "--ignore", "truncated"],
        pytest.param(["info", "--output", "json"], marks=pytest.mark.long),
        pytest.param(["info"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_the_same_report_from_several_processes(folder: Path, words: list[str]) -> None:
    Path("x").write_bytes(WHOLE)
    # Also what only the first process can read.
    named = [*words, "c", "x", "exec:cat x", "nothing"]
    alone = output(*named, "--jobs", "1")
    assert alone == output(*named, "--jobs", "3")
    assert alone[0] == 4
    if "json" in words:
        hold(words[0], json.loads(alone[1]))


@pytest.mark.long
def test_colours_from_several_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    alone = output("validate", "c", "--jobs", "1")
    assert b"\x1b[1;32mwhole" in alone[1]
    assert alone == output("validate", "c", "--jobs", "2")


def test_usage_errors_of_processes(folder: Path) -> None:
    Path("disk.img").write_bytes(bytes(1 << 20))
    words = ["validate", "c/a.bin", "c/holes.bin", "--image", "none=disk.img", "--jobs", "2"]
    status, _, message = output(*words)
    assert status == 2
    assert message == b"blkmig: the stream has no blocks of device 'none'; the stream has 'd'\n"


class Waiting:
    """A run with several processes, of which one reads from a FIFO, and waits."""

    def __init__(self, fifo: Path, *words: str) -> None:
        self.fifo = str(fifo)
        self.process = subprocess.Popen(
            [*BLKMIG, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.writer = -1

    def reader(self) -> int:
        """Return the process that reads from the FIFO, as soon as there is one."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.writer < 0:
                try:
                    self.writer = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
                except OSError:
                    time.sleep(0.01)
                    continue
            for number in filter(str.isdigit, os.listdir("/proc")):
                if int(number) != os.getpid() and self._has_it_open(number):
                    return int(number)
            time.sleep(0.01)
        raise AssertionError("nothing reads from the FIFO")

    def _has_it_open(self, number: str) -> bool:
        try:
            descriptors = os.listdir(f"/proc/{number}/fd")
            links = [os.readlink(f"/proc/{number}/fd/{one}") for one in descriptors]
        except OSError:
            return False
        return self.fifo in links

    def send(self, data: bytes) -> None:
        """Write ``data``, and end it."""
        os.set_blocking(self.writer, True)
        os.write(self.writer, data)
        os.close(self.writer)
        self.writer = -1

    def end(self) -> tuple[int, bytes, bytes]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        if self.writer >= 0:
            os.close(self.writer)


@pytest.fixture
def waiting(folder: Path) -> Iterator[Waiting]:
    files = [f"s/{number:02}" for number in range(12)]
    Path("s").mkdir()
    for name in files:
        Path(name).write_bytes(WHOLE)
    words = ["validate", files[0], "c/fifo", *files[1:], "--jobs", "2", "--output", "json"]
    found = Waiting(folder / "c/fifo", *words)
    yield found
    found.close()


def gone(number: int) -> bool:
    """Return whether a process has ended, or does at last."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_process_that_dies_is_replaced(waiting: Waiting) -> None:
    first = waiting.reader()
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert waiting.reader() != first
    waiting.send(WHOLE)
    status, out, err = waiting.end()
    assert (status, err) == (0, b"")
    assert [stream["verdict"] for stream in json.loads(out)["streams"]] == ["whole"] * 13


def test_two_processes_that_die(waiting: Waiting) -> None:
    """The capture fails, the others are read."""
    first = waiting.reader()
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    second = waiting.reader()
    os.kill(second, signal.SIGKILL)
    status, out, err = waiting.end()
    assert status == 4
    streams = json.loads(out)["streams"]
    assert [stream["verdict"] for stream in streams] == ["whole", "failed"] + ["whole"] * 11
    assert [finding["id"] for finding in streams[1]["findings"]] == ["input-failed"]
    assert err.startswith(b"blkmig: c/fifo: two processes that read it ended unexpectedly; ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "status", "message"),
    [
        (signal.SIGINT, 130, b"blkmig: interrupted\n"),
        pytest.param(signal.SIGTERM, 143, b"blkmig: terminated\n", marks=pytest.mark.long),
        (signal.SIGKILL, -9, b""),
    ],
)
def test_the_end_of_all(waiting: Waiting, number: int, status: int, message: bytes) -> None:
    """No process is left behind, whatever ends the first one."""
    reader = waiting.reader()
    waiting.process.send_signal(number)
    found, _, err = waiting.end()
    assert (found, err) == (status, message)
    assert gone(reader)


MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "blkmig_cli", *sys.argv[1:]], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_of(*words: str) -> int:
    """Run a command; return the KiB of memory that it had at most."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_memory_of_many_compressed(folder: Path) -> None:
    """One process frees what it holds of a compressed stream when it is through with that."""
    packed = gzip.compress(raw.qemu(b"".join(raw.block(n * 2048, 8) for n in range(450_000))), 1)
    peaks = []
    for name, count in (("few", 2), ("many", 30)):
        Path(name).mkdir()
        for number in range(count):
            Path(name, f"{number:02}.gz").write_bytes(packed)
        peaks.append(peak_of("validate", name, "--jobs", "1"))
    assert peaks[1] - peaks[0] < 10 << 10  # KiB


@pytest.mark.long
def test_memory_of_many(folder: Path) -> None:
    """10,000 captures with 20 disks each take little more memory than 1,000: a line for each."""
    blocks = b"".join(raw.block(0, 8, f"disk{number}") for number in range(20))
    peaks = []
    for name, count in (("few", 1000), ("many", 10000)):
        Path(name).mkdir()
        for number in range(count):
            Path(name, f"{number:04}").write_bytes(raw.qemu(blocks))
        peaks.append(peak_of("validate", name, "--jobs", "2"))
    assert peaks[1] - peaks[0] < 9000 * 2  # KiB


@pytest.mark.parametrize("command", ["validate", "info"])
def test_quiet_is_a_line_a_stream(command: str, run: Run, tmp_path: Path) -> None:
    """Also with findings, several streams in one file, and other files passed over."""
    (tmp_path / "a.bin").write_bytes(raw.qemu(raw.block(0, 8)) * 2)
    (tmp_path / "b.txt").write_text("text")
    done = run(command, tmp_path, "-q")
    assert [line.partition(": ")[2].split()[0] for line in done.out.splitlines()] == ["unknown"] * 2
    assert done.err == ""
