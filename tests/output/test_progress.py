"""Progress: what a terminal shows; where stderr is no terminal, there is none."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blkmig_cli.operations.replay.replay import replay
from blkmig_cli.operations.replay.request import ReplayRequest
from blkmig_cli.operations.send.send import send
from blkmig_cli.progress import Tick
from blkmig_cli.transport.source import open_stream

SCRIPT = """
import sys, time
from blkmig_cli.output.progress import progress
total = {total}
with progress("working", total, quiet={quiet}) as tick:
    for done in range(1, 6):
        tick(done << 28)
        time.sleep(0.12)
"""


def on_a_terminal(words: list[str], **environment: str) -> str:
    """What a command with a terminal of 80 columns for its stderr writes there."""
    ours, theirs = pty.openpty()
    surroundings = {**os.environ, "COLUMNS": "80", "TERM": "xterm", **environment}
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=theirs, env=surroundings
    )
    os.close(theirs)
    found = b""
    try:
        while data := os.read(ours, 4096):
            found += data
    except OSError:  # the last one has closed it
        pass
    os.close(ours)
    assert process.wait() == 0
    return found.decode()


def lines(shown: str) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


def test_a_known_end() -> None:
    found = lines(on_a_terminal(["-c", SCRIPT.format(total=5 << 28, quiet=False)]))
    assert all(len(line) <= 80 for line in found)
    assert any(
        re.fullmatch(
            r"working \S+ [\d.]+ [MG]iB of 1\.25 GiB [\d.]+ [KMG]iB/s 0:00:\d\d left", line
        )
        for line in found
    )


def test_long_figures_stay_on_one_line() -> None:
    script = SCRIPT.format(total=1357 << 30, quiet=False).replace("<< 28", "<< 35")
    found = lines(on_a_terminal(["-c", script.replace("working", "validating 123 of 1000")]))
    assert all(line.startswith("validating 123 of 1000 ") for line in found)
    assert any("GiB of 1.325 TiB " in line and line.endswith(" left") for line in found)


def test_an_unknown_end() -> None:
    found = lines(on_a_terminal(["-c", SCRIPT.format(total=None, quiet=False)]))
    assert any(
        re.fullmatch(r"working \S+ [\d.]+ [MG]iB [\d.]+ [KMG]iB/s 0:00:\d\d so far", line)
        for line in found
    )


@pytest.mark.parametrize(
    ("quiet", "environment"), [(True, {}), (False, {"TERM": "dumb"})], ids=["quiet", "dumb"]
)
def test_no_bar(quiet: bool, environment: dict[str, str]) -> None:
    assert on_a_terminal(["-c", SCRIPT.format(total=5 << 28, quiet=quiet)], **environment) == ""


def test_a_note() -> None:
    script = SCRIPT.format(total=5 << 28, quiet=False).replace("import progress", "import *")
    script = script.replace("total = ", "note = Note(); total = ")
    script = script.replace("quiet=False", "quiet=False, note=note")
    script = script.replace("    tick(", "    note(f'pass {done}'); tick(")
    found = lines(on_a_terminal(["-c", script]))
    assert any(re.fullmatch("pass [0-9]+", line) for line in found)
    assert all(len(line) <= 80 for line in found)


@pytest.mark.parametrize(
    ("device", "shown"),
    [
        pytest.param("drive0", "drive0", marks=pytest.mark.long),
        ("a very long name of a device", "a very long nam…"),
        pytest.param("[red]", "[red]", marks=pytest.mark.long),
        ("\x1b[31m", r"\x1b[31m"),
    ],
)
def test_the_disk_at_work(device: str, shown: str) -> None:
    script = SCRIPT.format(total=5 << 28, quiet=False)
    script = script.replace("<< 28)", f"<< 28, {device!r} if done < 4 else None)")
    found = lines(on_a_terminal(["-c", script]))
    assert any(line.startswith(f"working {shown} ") for line in found)
    assert found[-1].startswith(f"working {shown} ")
    assert all(len(line) <= 80 for line in found)


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_operations_name_the_disk(tmp_path: Path, kind: str) -> None:
    """Each of two disks, in the order of the work, with bytes that only grow."""
    told: list[tuple[str, list[tuple[int, str | None]]]] = []

    @contextmanager
    def progress(label: str, total: int | None) -> Iterator[Tick]:
        told.append((label, []))
        yield lambda done, disk=None: told[-1][1].append((done, disk))

    images, stream = {}, str(tmp_path / "s.bin")
    for device, byte in (("a", b"\1"), ("b", b"\2")):
        images[device] = str(tmp_path / device)
        Path(images[device]).write_bytes(byte * (2 << 20) + bytes(20 << 20))
    send(images, stream, manifest=str(tmp_path / "m"), progress=progress)
    request = ReplayRequest({device: f"{path}.new" for device, path in images.items()}, create=True)
    name = stream if kind == "file" else f"exec:cat {stream}"
    with progress("replaying", None) as tick, open_stream(name) as opened:
        assert replay(opened, request, tick).accepted
    assert [label for label, _ in told] == ["sending", "hashing", "replaying"]
    for _, ticks in told:
        named = [disk for _, disk in ticks if disk is not None]
        assert list(dict.fromkeys(named)) == ["a", "b"]
        assert named == sorted(named)
        assert [done for done, _ in ticks] == sorted(done for done, _ in ticks)


def test_no_color() -> None:
    script = SCRIPT.format(total=5 << 28, quiet=False)
    colour = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")
    assert colour.search(on_a_terminal(["-c", script]))
    assert not colour.search(on_a_terminal(["-c", script], NO_COLOR="1"))


def test_nothing_when_piped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(total=5 << 28, quiet=False)],
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("environment", "coloured", "escaped"),
    [
        ({}, True, True),
        ({"NO_COLOR": ""}, True, True),
        ({"NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, False),
    ],
    ids=["terminal", "empty", "no-color", "dumb"],
)
def test_colours_of_a_report(environment: dict[str, str], coloured: bool, escaped: bool) -> None:
    """The console follows NO_COLOR, TERM and the like."""
    script = "import sys; from blkmig_cli.output.human.console import console; "
    script += "console(sys.stderr).print('word', style='bold red')"
    shown = on_a_terminal(["-c", script], **environment)
    assert ("31m" in shown) == coloured
    assert ("\x1b" in shown) == escaped
