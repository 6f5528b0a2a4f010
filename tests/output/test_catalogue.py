"""Catalogues: what is unchanged is not read again, and is reported as before; hostile files are refused."""

import copy
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blkmig_cli
from blkmig_cli.output.human.console import console
from blkmig_cli.output.human.report import report_text
from blkmig_cli.output.report_reading import read_report
from blkmig_cli.system.documents import Entry
from tests.conftest import Capture, Run, fails
from tests.output.test_ci_formats import WHOLE, run_of
from tests.output.test_json_schemas import hold
from tests.support import raw
from tests.support.long import examples

HOLES = raw.qemu(raw.block(0, 8), raw.block(4096, 8))
OLD = 10**18


def put(path: str, data: bytes, mtime: int = OLD) -> None:
    """Write a file that was modified long ago."""
    Path(path).write_bytes(data)
    os.utime(path, ns=(mtime, mtime))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("c").mkdir()
    for name, data in {
        "whole": WHOLE,
        "holes": HOLES,
        "cut": WHOLE[:-30],
        "text": b"this is no stream",
        "two": WHOLE + WHOLE,
        "\udcff\n": raw.qemu(raw.block(0, 8, device="\x1b")),
    }.items():
        put(f"c/{name}", data)
    return tmp_path


def check(run: Run, *words: object) -> Any:
    """Validate with the catalogue; return the document."""
    outcome = run("validate", *words, "--catalogue", "c.db", "--output", "json")
    hold("validate", outcome.json)
    return outcome.json


def test_the_report_stays_the_same(folder: Path, run: Run) -> None:
    plain = run("validate", "c")
    for unchanged in (False, True):
        outcome = run("validate", "c", "--catalogue", "c.db")
        assert (outcome.status, outcome.err) == (plain.status, plain.err)
        more = "6 files unchanged, not read again\n" if unchanged else ""
        assert outcome.out == plain.out + more
    for kind in ("junit", "sarif", "github"):
        words = ["validate", "c", "--output", kind]
        assert run(*words, "--catalogue", "c.db").out == run(*words).out
    document = check(run, "c")
    assert document.pop("unchanged") == 6
    assert document.pop("without-base") == []
    assert document == run("validate", "c", "--output", "json").json


@pytest.mark.parametrize(
    ("words", "cell"), [([], "at least 1 MiB"), (["--incremental"], "in the base")]
)
def test_what_is_missing_is_kept(folder: Path, run: Run, words: list[str], cell: str) -> None:
    for unchanged in (0, 1):
        assert check(run, "c/holes", *words)["unchanged"] == unchanged
        out = run("validate", "c/holes", "--catalogue", "c.db", *words).out.splitlines()
        assert out[2] == f"d     at least 2 MiB       2     2         0  {cell}"


def test_every_capture(capture: Capture, run: Run, folder: Path) -> None:
    os.utime(capture.path, ns=(OLD, OLD))
    words = [capture.path, *capture.hints()]
    first, second = (check(run, *words) for _ in range(2))
    assert (first.pop("unchanged"), second.pop("unchanged")) == (0, 1)
    assert first == second


def test_unchanged_files_are_not_read(folder: Path, run: Run) -> None:
    """Other content under the same size and modification time stays unseen; any change is seen."""
    assert check(run, "c/whole")["streams"][0]["verdict"] == "whole"
    put("c/whole", bytes(len(WHOLE)))
    assert check(run, "c/whole")["streams"][0]["verdict"] == "whole"
    put("c/whole", bytes(len(WHOLE)), OLD + 1)
    assert check(run, "c/whole")["streams"][0]["verdict"] == "not-a-stream"
    put("c/whole", bytes(len(WHOLE) + 1), OLD + 1)
    assert check(run, "c/whole")["unchanged"] == 0


def test_the_address_is_absolute(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    check(run, "c/whole")
    monkeypatch.chdir("c")
    outcome = run("validate", "./whole", "--catalogue", "../c.db", "--output", "json")
    assert outcome.json["unchanged"] == 1
    assert outcome.report["stream"] == "./whole"


@pytest.mark.parametrize(
    "words",
    [
        ["--device-size", "32M"],
        ["--device-size", "d=32M"],
        ["--device-size", "max"],
        ["--dialect", "qemu"],
        ["--container", "qemu"],
        ["--incremental"],
        ["--for-qemu", "7.2"],
    ],
)
def test_other_options_read_again(folder: Path, run: Run, words: list[str]) -> None:
    check(run, "c/holes")
    assert check(run, "c/holes", *words)["unchanged"] == 0
    assert check(run, "c/holes", *words, "--strict")["unchanged"] == 1


def test_another_version_reads_again(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(run, "c/whole")
    monkeypatch.setattr("blkmig_cli.commands.validation.__version__", "9")
    assert check(run, "c/whole")["unchanged"] == 0


def test_what_is_ignored_is_kept(folder: Path, run: Run) -> None:
    check(run, "c/holes", "--ignore", "missing-chunks")
    found = check(run, "c/holes")
    assert found["unchanged"] == 1
    assert "missing-chunks" in [one["id"] for one in found["streams"][0]["findings"]]


def test_a_file_that_was_just_written_is_read_again(folder: Path, run: Run) -> None:
    """It could be written once more in the same tick of the clock."""
    Path("c/new").write_bytes(WHOLE)
    assert [check(run, "c/new")["unchanged"] for _ in range(2)] == [0, 0]


def test_a_file_that_changes_while_it_is_read(folder: Path, run: Run) -> None:
    """Neither of the two contents is taken for that which was read."""
    check(run, "c/whole", "exec:touch -d 2001-01-01 c/holes; cat c/whole", "c/holes")
    assert check(run, "c/holes")["unchanged"] == 0


def test_what_is_no_file_is_read_again(folder: Path, run: Run) -> None:
    words = ["exec:cat c/whole", "file:c/whole,offset=0", "nothing"]
    assert [check(run, *words)["unchanged"] for _ in range(2)] == [0, 0]


def test_a_file_that_fails_is_forgotten(folder: Path, run: Run) -> None:
    check(run, "c/whole")
    os.rename("c/whole", "away")
    assert check(run, "c/whole")["streams"][0]["verdict"] == "failed"
    os.rename("away", "c/whole")
    assert check(run, "c/whole")["streams"][0]["verdict"] == "whole"


def test_processes_and_the_catalogue(folder: Path, run: Run) -> None:
    words = [sys.executable, "-m", "blkmig_cli", "validate", "c", "-j2", "--catalogue", "c.db"]
    subprocess.run([*words, "-q"], capture_output=True, check=False)
    assert check(run, "c")["unchanged"] == 6


def test_an_interruption_keeps_what_was_found(folder: Path, run: Run) -> None:
    words = ["validate", "c/whole", "exec:kill -INT $PPID", "--catalogue", "c.db"]
    done = subprocess.run(
        [sys.executable, "-m", "blkmig_cli", *words], capture_output=True, check=False
    )
    assert done.returncode == 128 + signal.SIGINT
    assert check(run, "c/whole")["unchanged"] == 1


# -- increments


def make_chain(run: Run) -> list[str]:
    """Make a stream and two increments onto it; return their ids."""
    ids = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(3)]
    Path("disk.img").write_bytes(bytes(1 << 20))
    bitmap = {"name": "b", "granularity": 65536, "recording": True, "persistent": False,
              "count": 65536, "dirty": [{"start": 0, "length": 65536}]}  # fmt: skip
    document = {"version": 1, "virtual-size": 1 << 20, "bitmaps": [bitmap]}
    Path("disk.img.bitmaps.json").write_text(json.dumps(document))
    for number, name in enumerate(ids):
        more = [] if number == 0 else ["--since", "b", "--base", ids[number - 1]]
        target = f"c/{number}"
        done = run("send", "disk.img", "--to", target, "--id", name, *more, "-q")
        assert done.status == 0, done.err
        os.utime(target, ns=(OLD, OLD))
    return ids


def test_increments_that_lack_their_base(folder: Path, run: Run) -> None:
    ids = make_chain(run)
    assert check(run, "c/2", "c/1", "c/0")["without-base"] == []
    os.unlink("c/1")
    found = check(run, "c/2", "c/0")["without-base"]
    assert [one["stream"] for one in found] == [str(folder / "c/2")]
    (finding,) = found[0]["findings"]
    assert finding["id"] == "base-missing"
    assert ids[1] in finding["message"]
    # Of other captures than those that are specified, too.
    words = ["validate", "c/whole", "--catalogue", "c.db"]
    plain = run(*words, "--summary")
    assert plain.status == 0
    assert f"{folder}/c/2: warning: its base {ids[1]} is no stream of the catalogue" in plain.out
    assert run(*words, "--strict").status == 1
    assert run(*words, "--strict", "--ignore", "base-missing").status == 0
    assert "::warning file=c/2,title=base-missing::" in run(*words, "--output", "github").out
    results = run_of(run(*words, "--output", "sarif").out)["results"]
    assert [result["ruleId"] for result in results] == ["base-missing"]


# -- what is in the file


def query(text: str) -> list[Any]:
    database = sqlite3.connect("c.db")
    try:
        return database.execute(text).fetchall()
    finally:
        database.close()


def test_tables(folder: Path, run: Run) -> None:
    check(run, "c/whole", "c/holes")
    place = str(folder / "c/whole")
    (row,) = query(f"SELECT * FROM captures WHERE address = '{place}'")
    assert row[1:3] == (len(WHOLE), OLD)
    rows = query("SELECT verdict, complete, id, base FROM streams ORDER BY address")
    assert rows == [("incomplete", 0, None, None), ("whole", 1, None, None)]
    assert query(f"SELECT device, chunks FROM disks WHERE address = '{place}'") == [("d", 1)]
    assert query("SELECT name, granularity FROM bitmaps") == [("b", 65536)]
    assert ("missing-chunks", "error") in query("SELECT id, severity FROM findings")


def change(script: str) -> Callable[[], object]:
    def make() -> None:
        database = sqlite3.connect("c.db")
        database.executescript(script)
        database.close()

    return make


def instead(make: Callable[[str], None]) -> None:
    """Make something else in place of the catalogue, which is in ``d`` then."""
    os.rename("c.db", "d")
    make("c.db")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Path("c.db").write_bytes(b"no database" * 99), "c.db is not a catalogue: file is"),
        (lambda: Path("c.db").write_bytes(b"SQLite format 3\0" + bytes(99)), "c.db is not a cat"),
        (change("PRAGMA application_id = 1"), "it is a database of another program"),
        (change("PRAGMA user_version = 1"), "version 1, only 3 is known"),
        (change("CREATE TABLE more (x)"), "it has other tables"),
        (
            change("CREATE TRIGGER t AFTER INSERT ON streams BEGIN DELETE FROM captures; END"),
            "it has other tables",
        ),
        (change("UPDATE streams SET report = '{'"), "is not a catalogue"),
        (change("UPDATE streams SET report = x'00'"), "a report is no text"),
        (change("UPDATE streams SET report = '[]'"), "is not a catalogue"),
        (change("DELETE FROM streams"), "a report is missing"),
        (change("UPDATE streams SET base = 5"), "an invalid address or id"),
        (change("UPDATE streams SET address = 5, base = 'x'"), "is not a catalogue"),
        (lambda: instead(lambda path: os.symlink("d", path)), "c.db is a symbolic link"),
        (lambda: os.link("c.db", "d"), "c.db is a file with other hard links"),
        (lambda: instead(os.mkfifo), "c.db is a FIFO"),
        (lambda: instead(os.mkdir), "c.db is a directory"),
        (lambda: os.symlink("whole", "c.db-journal"), "c.db-journal is a symbolic link"),
    ],
)
def test_a_hostile_catalogue(
    folder: Path, run: Run, make: Callable[[], object], message: str
) -> None:
    check(run, "c/whole")
    make()
    outcome = run("validate", "c/whole", "--catalogue", "c.db")
    fails(outcome, 4, message)
    assert outcome.out == "" or "report" not in message


def test_a_catalogue_that_cannot_be_made(folder: Path, run: Run) -> None:
    fails(run("validate", "c/whole", "--catalogue", "none/c.db"), 4, "none/c.db: unable to open")
    fails(run("validate", "c/whole", "--catalogue", "c/whole"), 2, "are the same file")
    fails(
        run("validate", "c/whole", "--catalogue", "c.db", "--image", "x"), 2, "cannot be combined"
    )


def test_an_empty_file_becomes_one(folder: Path, run: Run) -> None:
    Path("c.db").touch()
    assert check(run, "c/whole")["unchanged"] == 0
    assert check(run, "c/whole")["unchanged"] == 1


def test_control_characters_in_a_catalogue(folder: Path, run: Run) -> None:
    check(run, "c/holes")
    change("UPDATE streams SET report = replace(report, 'was not sent', '\\u001b[31m')")()
    assert "\x1b" not in run("validate", "c/holes", "--catalogue", "c.db").out


REPORT = {
    "stream": "s", "dialect": "qemu", "container": "qemu", "complete": True,
    "identity": None, "failure": None,
    "devices": [{"name": "d", "chunks": 1, "zero-chunks": 0, "repeated-chunks": 0,
                 "missing": [{"start": 0, "length": 512}], "size": 512,
                 "inferred-size": {"min": 512, "max": 512}}],
    "bitmaps": [{"device": "d", "name": "b", "granularity": 512, "candidates": [],
                 "recording": True, "persistent": False, "count": 0, "complete": True}],
    "findings": [{"id": "truncated", "severity": "error", "offset": 1, "device": None,
                  "message": "m"}],
}  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([2**63 - 1, -1]), st.floats(),
    st.text(max_size=5), st.just([]), st.just({}), st.just([{}]),
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return all values in a document, by the object that has them and their key."""
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
    found = [(value, key) for key, _ in pairs]
    for _, item in pairs:
        if isinstance(item, dict | list):
            found += places(item)
    return found


@pytest.mark.scaled
@settings(max_examples=examples(70, 2000))
@given(st.data())
def test_any_report(data: st.DataObject) -> None:
    """A report with other values is one that can be printed, or a ValueError."""
    document = json.loads(json.dumps(REPORT))
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(places(document)))
        holder[key] = copy.deepcopy(data.draw(VALUES))  # the strategy has one list for all
    try:
        report = read_report(Entry(document, "report"))
    except ValueError:
        return
    with open(os.devnull, "w", encoding="utf-8") as file:
        report_text(report, console(file))
    assert isinstance(report, blkmig_cli.Report)
