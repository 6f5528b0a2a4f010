"""The file of a journal: everything is kept, and what cannot be one is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.checks.catalogue import Finding
from blkmig_cli.disks.neighbours import Neighbours, neighbours_of
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay import journal as module
from blkmig_cli.operations.replay.journal import (
    NO_RECORDS,
    Entry,
    State,
    Stop,
    discard_journal,
    read_journal,
    write_journal,
)
from tests.support.replays import folder

__all__ = ["folder"]

X = neighbours_of("x")
DIGEST = "0123456789abcdef" * 4
FULL = Entry(
    "incomplete", True, 5, 40, 3, 2, DIGEST,
    Stop(1, 2, 3, True, (Finding("truncated", "error", "cut"),), ("b", "c")),
    "qcow2", "an id", "d", 7, True, True,
)  # fmt: skip
DOCUMENT = {
    "version": 1, "state": "incomplete", "new": True, "size": 5, "position": 40, "records": 3,
    "data-records": 2, "digest": DIGEST, "format": "qcow2", "stream": "an id", "device": "d",
    "received": 7, "has-bitmaps": True, "size-assumed": True, "least": 1, "most": 2, "end": 3,
    "damaged": True,
    "findings": [{"id": "truncated", "message": "cut"}], "bitmaps": [{"name": "b"}, {"name": "c"}],
}  # fmt: skip


def test_the_document() -> None:
    write_journal(X, FULL)
    assert json.loads(Path("x.replay.json").read_text()) == DOCUMENT
    assert read_journal(X) == FULL


@pytest.mark.parametrize(
    "entry",
    [
        Entry("writing", False, None),
        Entry("written", True, 0),
        Entry("finished", False, limits.DISK_MAX),
        Entry("writing", True, None, limits.DISK_MAX, 1, 0, DIGEST),
        Entry("writing", True, None, 1, 1, 1, DIGEST, received=limits.DISK_MAX),
        Entry("incomplete", True, None, stop=Stop(0, None, 0, False, (), ())),
        Entry("incomplete", True, None,
              stop=Stop(limits.DISK_MAX, limits.DISK_MAX, limits.DISK_MAX, False, (), ())),
    ],
)  # fmt: skip
def test_entries_come_back(entry: Entry) -> None:
    write_journal(X, entry)
    assert read_journal(X) == entry
    assert not Path("x.replay.json.new").exists()


@pytest.mark.parametrize(
    ("state", "kept"), [("writing", False), ("written", True), ("finished", True)]
)
def test_the_end_of_the_stream_stays_when_it_is_accepted(state: State, kept: bool) -> None:
    Path("x.replay.json").write_text(json.dumps(DOCUMENT | {"state": state}))
    entry = read_journal(X)
    assert entry is not None
    assert (entry.state, entry.stop) == (state, FULL.stop if kept else None)


def test_a_journal_of_an_earlier_version() -> None:
    """It says nothing of what was received, nor of the format."""
    known = {"format", "stream", "device", "received", "has-bitmaps", "size-assumed"}
    Path("x.replay.json").write_text(
        json.dumps({key: DOCUMENT[key] for key in DOCUMENT if key not in known})
    )
    entry = read_journal(X)
    assert entry is not None
    assert (entry.image_format, entry.stream, entry.device) == ("raw", None, None)
    assert (entry.received, entry.bitmaps, entry.assumed) == (0, False, False)


AT_MOST = f"is not a number from 0 to {limits.DISK_MAX}"
APART = "position, records and digest do not fit together"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, "version 2, only 1 is known"),
        ({"state": "done"}, "unknown state"),
        ({"state": 1}, "state is not a string"),
        ({"digest": DIGEST[1:]}, "digest is not a SHA-256"),
        ({"digest": DIGEST + "0"}, "digest is not a SHA-256"),
        ({"digest": DIGEST.upper()}, "digest is not a SHA-256"),
        ({"position": limits.DISK_MAX + 1}, f"position {AT_MOST}"),
        ({"position": -1}, f"position {AT_MOST}"),
        ({"records": 41}, "records is not a number from 0 to 40"),
        ({"data-records": 4}, "data-records is not a number from 0 to 3"),
        ({"position": 0, "records": 0, "data-records": 0}, APART),
        ({"records": 0, "data-records": 0}, APART),
        ({"records": 0, "data-records": 0, "digest": NO_RECORDS}, APART),
        ({"digest": NO_RECORDS}, APART),
        ({"size": limits.DISK_MAX + 1}, f"size {AT_MOST}"),
        ({"size": None, "state": "written"}, "no size"),
        ({"size": None, "state": "finished"}, "no size"),
        ({"new": 1}, "new is neither true nor false"),
        ({"format": 1}, "format is not a string"),
        ({"stream": 1}, "stream is not a string"),
        ({"device": 1}, "device is not a string"),
        ({"received": limits.DISK_MAX + 1}, f"received {AT_MOST}"),
        ({"has-bitmaps": 1}, "has-bitmaps is neither true nor false"),
        ({"least": limits.DISK_MAX + 1}, f"least {AT_MOST}"),
        ({"most": limits.DISK_MAX + 1}, f"most {AT_MOST}"),
        ({"end": limits.DISK_MAX + 1}, f"end {AT_MOST}"),
        ({"damaged": None}, "damaged is neither true nor false"),
        ({"findings": {}}, "findings is not a list"),
        ({"findings": [{"id": "whatever", "message": "m"}]}, "findings[0]: unknown id"),
        ({"findings": [{"id": "truncated"}]}, "findings[0]: message is not a string"),
        ({"bitmaps": [{}]}, "bitmaps[0]: name is not a string"),
    ],
)  # fmt: skip
def test_what_is_no_journal(changed: dict[str, Any], said: str) -> None:
    Path("x.replay.json").write_text(json.dumps(DOCUMENT | changed))
    with pytest.raises(FailureError) as error:
        read_journal(X)
    assert str(error.value) == (
        f"x.replay.json is not a journal of a replay: {said}; use --restart to start over"
    )


def test_one_that_is_too_long() -> None:
    text = json.dumps(DOCUMENT)
    Path("x.replay.json").write_text(text.ljust(limits.JOURNAL_MAX))
    assert read_journal(X) == FULL
    Path("x.replay.json").write_text(text.ljust(limits.JOURNAL_MAX + 1))
    with pytest.raises(FailureError, match=r"is over .* MiB; use --restart to start over"):
        read_journal(X)


def test_without_one() -> None:
    assert read_journal(X) is None


def test_one_that_is_replaced_keeps_no_temporary_file() -> None:
    Path("x.replay.json.new").write_text("of a replay that was killed")
    write_journal(X, FULL)
    write_journal(X, Entry("writing", False, None))
    assert [path.name for path in Path().iterdir()] == ["x.replay.json"]


def test_one_in_the_state_folder() -> None:
    """Which is made, for its owner only."""
    there = Neighbours("nbd://h", os.path.abspath("a/b/j"), None, None, None)
    for _ in range(2):
        write_journal(there, FULL)
    assert read_journal(there) == FULL
    assert Path("a/b").stat().st_mode & 0o777 == 0o700
    Path("c").write_text("a file")
    for name in ("c/j", "c/d/j"):
        with pytest.raises(FailureError, match="c"):
            write_journal(Neighbours("nbd://h", os.path.abspath(name), None, None, None), FULL)


def test_a_missing_folder_of_an_image_is_not_made() -> None:
    with pytest.raises(FailureError, match=r"a/x\.replay\.json"):
        write_journal(neighbours_of("a/x"), FULL)
    assert not Path("a").exists()


@pytest.mark.parametrize("there", [True, False])
def test_discarding(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """Its folder is put on stable storage, if anything was removed."""
    synced: list[str] = []
    monkeypatch.setattr(module, "sync_folder", synced.append)
    if there:
        write_journal(X, FULL)
    discard_journal(X)
    assert not list(Path().iterdir())
    assert synced == (["x.replay.json"] if there else [])


def test_discarding_where_the_folder_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise OSError(5, "Input/output error")

    write_journal(X, FULL)
    monkeypatch.setattr(module, "sync_folder", fail)
    with pytest.raises(FailureError, match=r"x\.replay\.json: Input/output error"):
        discard_journal(X)
