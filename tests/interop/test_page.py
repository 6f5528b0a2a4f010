"""docs/qemu.md: its commands are run, in order, in one folder; and it names every defect's check."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.checks.catalogue import CHECKS

PAGE = (Path(__file__).parents[2] / "docs" / "qemu.md").read_text()


class Monitor:
    """The QMP monitor at ``path``, spoken to line by line, as a person would."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        for _ in range(600):  # the socket has its name a moment before somebody listens
            try:
                self._socket.connect(str(path))
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        self._file = self._socket.makefile("rw")
        assert "QMP" in json.loads(self._file.readline())
        self.say('{"execute": "qmp_capabilities"}')

    def say(self, line: str) -> Any:
        """Send a line; gives the answer, past the events before it."""
        self._file.write(line + "\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "event" not in answer:
                assert "return" in answer, (line, answer)
                return answer["return"]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def await_file(path: Path) -> None:
    """Wait until a program has made its socket."""
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.01)
    raise TimeoutError(path)


@pytest.mark.block_migration
def test_the_commands(tmp_path: Path) -> None:
    background: list[subprocess.Popen[bytes]] = []
    try:
        run_page(tmp_path, background)
        assert not background
    finally:
        for process in background:
            process.kill()
            process.wait()
    assert PAGE.count("```console") == 5


def holds(condition: str, answer: dict[str, Any]) -> bool:
    """Is the answer to query-migrate what the page says to wait for?"""
    assert answer.get("status") not in ("failed", "cancelled"), answer
    if condition == "status is completed":
        return bool(answer.get("status") == "completed")
    assert condition == "disk.remaining is 1048576 or less"
    return bool(answer.get("disk", {}).get("remaining", 1 << 60) <= 1048576)


def run_page(tmp_path: Path, background: list[subprocess.Popen[bytes]]) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    monitor = None
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            words = line[2:]
            if line.startswith("$") and words.endswith("&"):
                background.append(
                    subprocess.Popen(
                        f"exec {words.removesuffix('&')}",
                        shell=True,
                        cwd=tmp_path,
                        env=environment,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                )
                # A person would not be faster than the program either.
                made = "in.sock" if "replay unix:" in words else "qmp.sock"
                await_file(tmp_path / made)
            elif line.startswith("$"):
                done = subprocess.run(
                    words, shell=True, cwd=tmp_path, env=environment, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
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
                if "quit" in words:
                    monitor.close()
                    monitor = None
                    assert [process.wait(60) for process in background] == [0] * len(background)
                    background.clear()
                    (tmp_path / "qmp.sock").unlink(missing_ok=True)


def test_the_page_names_the_checks() -> None:
    """Those that speak of QEMU are explained here, and nothing else passes for a check."""
    told = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE))
    assert told <= set(CHECKS)
    about_qemu = {check for check, (_, text) in CHECKS.items() if "QEMU" in text}
    assert about_qemu - {"qemu-cannot-load"} <= told
    assert "`qemu-cannot-load`" in PAGE
