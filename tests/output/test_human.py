"""Output for people: on a terminal of 80 columns, and piped."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from blkmig_cli import limits
from blkmig_cli.operations.compare import CompareOptions, compare
from blkmig_cli.operations.info import info
from blkmig_cli.operations.map import map_stream
from blkmig_cli.operations.reading import Reading
from blkmig_cli.operations.salvage.salvage import salvage
from blkmig_cli.output.human.checks import where_explained
from blkmig_cli.output.human.comparison import comparison_text
from blkmig_cli.output.human.console import console, table
from blkmig_cli.output.human.info import info_text
from blkmig_cli.output.human.map import map_text
from blkmig_cli.output.human.salvage import salvage_text
from blkmig_cli.output.svg import map_svg
from tests.conftest import Capture, Run
from tests.support import raw


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def compared(path: str, out: Console) -> None:
    sides = compare((None, path), (None, path), Reading(), CompareOptions())
    comparison_text(sides, out)


SHOWN: dict[str, Callable[[str, Console], None]] = {
    "info": lambda path, out: info_text(next(info(path, Reading())), out, detailed=True),
    "map": lambda path, out: map_text(map_stream(path, Reading()).disks, out),
    "compare": compared,
    "salvage": lambda path, out: salvage_text(salvage(path, None, Reading()), out),
}


@pytest.mark.parametrize("what", SHOWN)
@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_captures(
    kind: type[io.StringIO], what: str, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    if capture.path.stat().st_size > 20 << 20:
        return
    out = kind()
    SHOWN[what](str(capture.path), console(out))
    lines = out.getvalue().splitlines()
    assert lines
    for line in lines:
        assert line == line.rstrip()
        if kind is Terminal:
            # What is to be copied into a shell is not wrapped.
            assert len(line) <= 80 or line.startswith("  blkmig "), line


def test_the_last_column_is_not_filled_up() -> None:
    out = io.StringIO()
    rows = table("A", "B", right=("A",))
    rows.add_row("1", "a long one")
    rows.add_row("22", "short")
    rows.add_row("333", "")
    console(out).print(rows)
    assert out.getvalue() == "  A  B\n  1  a long one\n 22  short\n333\n"


def test_long_tables_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The rest is counted; the JSON has all."""
    monkeypatch.setattr(limits, "SHOWN_MAX", 3)
    path = tmp_path / "s"
    path.write_bytes(raw.qemu(*(raw.block(0, 9, device) for device in "abcde")))
    out = io.StringIO()
    info_text(next(info(str(path), Reading())), console(out), detailed=False)
    lines = out.getvalue().splitlines()
    assert [line[0] for line in lines if line[1:2] == " " and line[0] in "abcde"] == ["a", "b", "c"]
    assert "and 2 disks more (--output json has all)" in lines


def test_long_maps_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Disks and their bitmaps are shown up to the limit, in the terminal and as an image."""
    bits = b"".join(raw.bitmap_start(device, f"b{at}") for device in "ab" for at in range(3))
    path = tmp_path / "s"
    path.write_bytes(raw.qemu(raw.block(0, 9, "a"), raw.block(0, 9, "b"), bitmaps=bits))
    maps = map_stream(str(path), Reading()).disks
    for most, names in (8, 6), (6, 4), (4, 3), (3, 2), (1, 0):
        monkeypatch.setattr(limits, "SHOWN_MAX", most)
        out = io.StringIO()
        map_text(maps, console(out))
        for text in out.getvalue(), map_svg("s", maps):
            assert len(re.findall(r"\bb[012]\b", text)) == names
            assert ("and 2 rows more (--output json has all)" in text) == (most == 6)
            assert (" more (" in text) == (most < 8)


@pytest.mark.parametrize(("kind", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_a_terminal_says_how_findings_are_explained(
    kind: type[io.StringIO], shown: bool, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For people, once, and not where nothing is wrong."""
    text = "blkmig validate --explain ID explains a finding"
    out = kind()
    where_explained(console(out))
    assert (text in out.getvalue()) is shown
    wrong, right = tmp_path / "wrong.bin", tmp_path / "right.bin"
    wrong.write_bytes(raw.qemu(raw.block(2048, 8)))
    right.write_bytes(raw.qemu(raw.block(0, 8)))
    size = ("--device-size", "2M")
    for command in ("validate", "replay --dry-run"):
        with monkeypatch.context() as patch:
            patch.setattr(Console, "is_terminal", shown)
            said = run(*command.split(), wrong, *size).out
            assert said.count(text) == shown
            assert text not in run(*command.split(), wrong, *size, "-q").out
    with monkeypatch.context() as patch:
        patch.setattr(Console, "is_terminal", shown)
        assert run("validate", wrong, wrong, *size).out.count(text) == shown
        assert text not in run("validate", right, "--device-size", "1M").out
