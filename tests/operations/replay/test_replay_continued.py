"""A replay that was continued, and ends early again."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.neighbours import Neighbours
from blkmig_cli.errors import UsageError
from blkmig_cli.operations.replay import destination, held, writer
from blkmig_cli.operations.replay import journal as module
from blkmig_cli.operations.replay.journal import Entry
from blkmig_cli.operations.replay.replay import replay
from blkmig_cli.operations.replay.request import ReplayRequest, ReplayResult
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.hints import Hints
from tests.support import raw
from tests.support.replays import MIB, data, filled, folder, put, source

__all__ = ["folder"]

NEW: Any = {"create": True}


def replayed(kind: str, **more: Any) -> ReplayResult:
    with open_stream(source(kind)) as stream:
        return replay(stream, ReplayRequest({"d": "x"}, **more))


FOUR = raw.qemu(*(data(2048 * at, at + 1) for at in range(4)))


def cut_at(chunk: int) -> bytes:
    return FOUR[: FOUR.index(raw.word(2048 * chunk, 1)) + 77]


def test_a_stream_that_is_cut_off_again() -> None:
    put(cut_at(1))
    assert replayed("pipe", **NEW).resumed == {}
    first = json.loads(Path("x.replay.json").read_text())["position"]
    put(cut_at(3))
    result = replayed("pipe", **NEW, resume=True)
    assert (result.accepted, result.written) == (False, {"d": 2 * MIB})
    assert (result.partial_images, result.resumed) == (["x.partial"], {"d": first})
    second = json.loads(Path("x.replay.json").read_text())
    assert (second["records"], second["received"]) == (3, 3 * MIB)
    put(FOUR)
    result = replayed("pipe", **NEW, resume=True)
    assert (result.written, result.resumed) == ({"d": MIB}, {"d": second["position"]})
    assert Path("x").read_bytes() == b"".join(map(filled, range(1, 5)))


def test_an_image_that_fails_when_it_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    put(cut_at(1))
    replayed("pipe", **NEW)
    first = json.loads(Path("x.replay.json").read_text())["position"]

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    put(FOUR)
    for kind in ("file", "pipe"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            result = replayed(kind, **NEW, resume=True)
        assert result.resumed == {"d": first}
        assert (result.accepted, result.partial_images) == (False, ["x.partial"])


def test_an_error_at_the_end_of_a_pipe() -> None:
    """What was received is on the images, up to the end."""
    put(FOUR)
    with pytest.raises(UsageError, match="--granularity: no bitmap 'z'") as error:
        replayed("pipe", **NEW, hints=Hints({}, {(None, "z"): 512}))
    assert error.value.__notes__ == ["x.partial is incomplete; use --resume to continue"]
    journal = json.loads(Path("x.replay.json").read_text())
    assert (journal["state"], journal["position"], journal["records"]) == (
        "incomplete", len(FOUR), 4
    )  # fmt: skip
    assert (journal["damaged"], journal["findings"], journal["end"]) == (False, [], 4 * MIB)


# -- the positions in the journal


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """The entries of the journal, in order; one after each record of data, or four of zeros."""
    found: list[Entry] = []
    original = module.write_journal

    def write_journal(neighbours: Neighbours, entry: Entry) -> None:
        found.append(entry)
        original(neighbours, entry)

    monkeypatch.setattr(destination, "write_journal", write_journal)
    monkeypatch.setattr(writer, "_CHECKPOINT", 4 * 4096)
    return found


@pytest.mark.parametrize("kind", ["file", "pipe"])
@pytest.mark.parametrize("room", [16 << 20, -1])
def test_positions_behind_records(
    monkeypatch: pytest.MonkeyPatch, entries: list[Entry], kind: str, room: int
) -> None:
    """All records that begin before it are on the image: it is where the next one begins."""
    monkeypatch.setattr(held, "_ROOM", room)
    put(FOUR)
    assert replayed(kind, **NEW).accepted
    ends = [FOUR.index(raw.word(2048 * at, 1)) for at in range(1, 4)]
    ends.append(FOUR.index(filled(4)) + MIB)
    saved = [(entry.position, entry.records) for entry in entries if entry.state == "writing"]
    assert saved == [(0, 0), *zip(ends, range(1, 5), strict=True)]
    assert [entry.position for entry in entries if entry.state == "finished"] == [len(FOUR)]


@pytest.mark.parametrize("kind", ["file", pytest.param("pipe", marks=pytest.mark.long)])
def test_positions_behind_runs(entries: list[Entry], kind: str) -> None:
    """A run of zeros is applied in one step."""
    number = 200
    zeros = b"".join(raw.block(4096 * at, 8) for at in range(number))
    put(raw.qemu(zeros, raw.block(4096 * number, 0, rest=filled(7))))
    assert replayed(kind, **NEW, incremental=True).accepted
    content = Path("s.bin").read_bytes()
    end = content.index(zeros) + len(zeros)
    saved = [(entry.position, entry.records) for entry in entries if entry.state == "writing"]
    assert (end, number) in saved
    assert (content.index(filled(7)) + MIB, number + 1) in saved
    assert len(saved) < 20
    image = Path("x").read_bytes()
    assert image == bytes(2 * MIB * number) + filled(7)


@pytest.mark.parametrize("kind", ["file", pytest.param("pipe", marks=pytest.mark.long)])
@pytest.mark.parametrize("taken", [True, False])
def test_runs_of_several_devices(kind: str, taken: bool) -> None:
    """Only what is taken is written, to the image of each."""
    zeros = [raw.block(2048 * at, 8, name) for at in range(100) for name in "de"]
    put(raw.qemu(*zeros))
    names = "de" if taken else "d"
    for name in names:
        put(filled(9, 100 * MIB), name)
    request = ReplayRequest(
        {name: name for name in names}, devices=None if taken else frozenset("d")
    )  # fmt: skip
    with open_stream(source(kind)) as stream:
        result = replay(stream, request)
    assert result.written == dict.fromkeys(names, 100 * MIB)
    assert all(Path(name).read_bytes() == bytes(100 * MIB) for name in names)


def test_runs_are_not_written_without_disks() -> None:
    zeros = [raw.block(2048 * at, 8) for at in range(100)]
    put(raw.qemu(*zeros, bitmaps=raw.bitmap_start() + raw.COMPLETE))
    put(filled(9, 100 * MIB), "x")
    assert replayed("pipe", disks=False, allow_incomplete=True).written == {}
    assert Path("x").read_bytes() == filled(9, 100 * MIB)


def test_the_end_of_a_stream_with_another_device() -> None:
    """One that is not taken has no image, and no journal."""
    put(raw.qemu(data(0, 1), data(0, 2, "e"))[:-40])
    result = replayed("pipe", **NEW, devices=frozenset("d"))
    assert (result.accepted, result.partial_images) == (False, ["x.partial"])
    assert json.loads(Path("x.replay.json").read_text())["state"] == "incomplete"
    for path in ("x.partial", "x.replay.json"):
        Path(path).unlink()
    put(raw.qemu(data(0, 1), data(0, 2, "e")))
    with pytest.raises(UsageError, match="no bitmap 'z'"):
        replayed("pipe", **NEW, devices=frozenset("d"), hints=Hints({}, {(None, "z"): 512}))
