"""docs/qemu.md: its commands are run in order in one folder, and it names the check of every defect."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.checks.catalogue import CHECKS
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from tests.conftest import Run
from tests.interop import disks
from tests.support import qcow2
from tests.support.peers import PATIENCE, connect, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "qemu.md").read_text()


class Monitor:
    """The QMP monitor at ``path``, used line by line, as a person would."""

    def __init__(self, path: Path) -> None:
        self._socket = connect(path)
        self._file = self._socket.makefile("rw")
        assert "QMP" in json.loads(self._file.readline())
        self.say('{"execute": "qmp_capabilities"}')

    def say(self, line: str) -> Any:
        """Send a line; return the answer without the events before it.

        QEMU 7.2 greets twice if one connects while it is starting.
        """
        self._file.write(line + "\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "event" not in answer and "QMP" not in answer:
                assert "return" in answer, (line, answer)
                return answer["return"]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.mark.block_migration
@pytest.mark.long
def test_the_commands(tmp_path: Path) -> None:
    run_commands(PAGE, tmp_path)
    assert PAGE.count("```console") == 10


@pytest.mark.long
def test_a_running_guest(tmp_path: Path) -> None:
    """That chapter by itself, for every QEMU."""
    _, _, rest = PAGE.partition("\n## A capture of a running guest (QEMU 5.2 and later)\n")
    chapter = rest.partition("\n## ")[0]
    assert chapter.count("```console") == 2
    run_commands(chapter, tmp_path)


@pytest.mark.long
def test_an_old_capture_to_a_qemu_of_today(run: Run, tmp_path: Path) -> None:
    """That chapter by itself, with a stream made by blkmig, for every QEMU."""
    disk, daily = tmp_path / "disk.img", make_stream(run, tmp_path)
    _, _, rest = PAGE.partition("\n## Loading an old capture with a current QEMU\n")
    chapter = rest.partition("\n## ")[0]
    assert chapter.count("```console") == 3
    answers = run_commands(chapter, tmp_path)
    assert answers.count({"sha256": daily}) == 2
    # What was promised is what the images hold for the next QEMU that opens them.
    for name in ("new.qcow2", "meta.qcow2", "other.qcow2"):
        made = tmp_path / name
        assert qcow2.digests(made, ["daily"]) == {"daily": daily}
        assert not qcow2.stored_bitmaps(made)["daily"].in_use
        qcow2.same(made, "qcow2", disk)
    qcow2.same(tmp_path / "raw.img", "raw", disk)


def test_into_a_qemu_that_waits(run: Run, tmp_path: Path) -> None:
    """That chapter by itself, with a stream made by blkmig, for every QEMU."""
    daily = make_stream(run, tmp_path)
    _, _, rest = PAGE.partition("\n## Disks and bitmaps into a QEMU that waits (every version)\n")
    chapter = rest.partition("\n## ")[0]
    assert chapter.count("```console") == 1
    assert {"sha256": daily} in run_commands(chapter, tmp_path)
    qcow2.same(tmp_path / "waiting.qcow2", "qcow2", tmp_path / "disk.img")


def make_stream(run: Run, folder: Path) -> str:
    """Make stream.bin, with a bitmap ``daily``; return the bitmap's digest."""
    disk = folder / "disk.img"
    size = 40 << 20
    disk.write_bytes(disks.noisy(4 << 20))
    os.truncate(disk, size)
    daily = disks.bitmap("daily", 65536, size)
    write_bitmaps(f"{disk}.bitmaps.json", BitmapFile(size, {"daily": daily}))
    assert run("send", disk, "--bitmaps", "--to", folder / "stream.bin").status == 0
    return daily.sha256(size)


def run_commands(text: str, folder: Path) -> list[Any]:
    """Run the commands in ``text``; return the answers of the monitors."""
    background: list[subprocess.Popen[bytes]] = []
    try:
        answers = run_lines(text, folder, background)
        assert not background
    finally:
        for process in background:
            process.kill()
            process.wait()
    return answers


def holds(condition: str, answer: Any) -> bool:
    """Return whether the answer is the one that the page says to wait for."""
    if condition == "the job is concluded":
        assert not any("error" in job for job in answer), answer
        return [job["status"] for job in answer] == ["concluded"]
    assert answer.get("status") not in ("failed", "cancelled"), answer
    if condition == "status is completed":
        return bool(answer.get("status") == "completed")
    assert condition == "disk.remaining is 1048576 or less"
    return bool(answer.get("disk", {}).get("remaining", 1 << 60) <= 1048576)


def run_lines(text: str, tmp_path: Path, background: list[subprocess.Popen[bytes]]) -> list[Any]:
    answers = []
    monitor = None
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            words = line[2:]
            if line.startswith("$") and words.endswith("&"):
                background.append(
                    subprocess.Popen(
                        f"exec {words.removesuffix('&')}",
                        shell=True,
                        cwd=tmp_path,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                )
                # A person would not be faster than the program either.
                made = "in.sock" if "replay unix:" in words else "qmp.sock"
                wait_until((tmp_path / made).exists)
            elif line.startswith("$"):
                done = subprocess.run(
                    words, shell=True, cwd=tmp_path, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False,
                )  # fmt: skip
                assert done.returncode == 0, (words, done.stdout)
            else:
                assert line.startswith("> "), line
                monitor = monitor or Monitor(tmp_path / "qmp.sock")
                command, _, condition = words.partition("  # until ")
                answer = monitor.say(command)
                while condition and not holds(condition, answer):
                    time.sleep(0.001)
                    answer = monitor.say(command)
                answers.append(answer)
                if "quit" in words:
                    monitor.close()
                    monitor = None
                    assert [process.wait(PATIENCE) for process in background] == [0] * len(
                        background
                    )
                    background.clear()
                    (tmp_path / "qmp.sock").unlink(missing_ok=True)
    return answers


def test_the_page_names_the_checks() -> None:
    """Checks that concern QEMU are explained here, and no unknown check is named."""
    named = set(re.findall(r"^\| \[`([a-z-]+)`\]", PAGE, re.MULTILINE))
    assert named <= set(CHECKS)
    about_qemu = {check for check, (_, text) in CHECKS.items() if "QEMU" in text}
    assert about_qemu - {"qemu-cannot-load"} <= named
    assert "[`qemu-cannot-load`]" in PAGE
