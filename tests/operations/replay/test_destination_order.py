"""The order in which a replay changes files: what the journal claims is on stable storage by then."""

import json
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks import new_image
from blkmig_cli.disks.raw import RawImage
from blkmig_cli.operations.replay import destination as module
from blkmig_cli.operations.replay import writer
from blkmig_cli.operations.replay.journal import Entry
from tests.conftest import Run
from tests.support import raw
from tests.support.replays import (
    DISK,
    GAP,
    MIB,
    STREAM,
    InOrder,
    data,
    filled,
    folder,
    here,
    put,
    source,
)  # fmt: skip

__all__ = ["folder"]

ID = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is done to the image and the files beside it, in order."""
    done: list[Any] = []

    def note(owner: Any, name: str, shown: Any) -> None:
        original = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            found = shown(*given)
            if found is not None:
                done.append(found)
            return original(*given, **named)

        monkeypatch.setattr(owner, name, call)

    def entry(_: object, written: Entry) -> tuple[object, ...]:
        found = (written.state, written.new, written.size, written.records, written.received)
        return (*found, written.stream) if written.stream else found

    monkeypatch.setattr(writer, "Overlap", InOrder)
    note(module, "write_journal", entry)
    note(module, "discard_journal", lambda _: "no journal")
    note(module, "discard_record", lambda _: "no record")
    note(module, "write_record", lambda _, holds: ("record", holds.device))
    note(module, "finish", lambda *_: "rename")
    note(module, "create_partial", lambda path, *_: f"create {path}")
    note(RawImage, "flush", lambda _: "flush")
    note(RawImage, "resize", lambda _, size: ("resize", size))
    note(RawImage, "write", lambda _, offset, found: ("write", offset, len(found)))
    note(RawImage, "zero", lambda _, offset, length: ("zero", offset, length))
    return done


def named(content: bytes, **known: object) -> bytes:
    """A stream with an identity."""
    disk = {"size": 2 * MIB, "full": True, "since": None, "mark": None}
    found = {"version": 1, "id": ID, "base": None, "incremental": False,
             "created": "2026-01-31T23:59:59Z", "consistency": "crash", "disks": {"d": disk}}  # fmt: skip
    text = json.dumps({"devices": [], "blkmig": found | known}).encode()
    return content + b"\6" + len(text).to_bytes(4, "big") + text


def writes(*chunks: int) -> list[tuple[str, int, int]]:
    return [("write", at * MIB, MIB) for at in chunks]


def test_a_new_image_from_a_file(run: Run, steps: list[Any]) -> None:
    """Its size is known before the first write, and everything is in the journal at the end."""
    put(STREAM)
    assert run("replay", "s.bin", "--image", "x", "--create").status == 0
    assert steps == [
        "no journal",
        "create x.partial",
        ("writing", True, 2 * MIB, 0, 0),
        ("resize", 2 * MIB),
        *writes(0, 1),
        "flush",
        ("written", True, 2 * MIB, 2, 2 * MIB),
        "rename",
        "flush",
        ("finished", True, 2 * MIB, 2, 2 * MIB),
    ]


def test_a_new_image_from_a_pipe(run: Run, steps: list[Any]) -> None:
    """It grows; its size is set at the end, which is in the middle of the last chunk."""
    cut = raw.bitmap_start() + raw.bitmap_bits(0, 3072, bytes(8)) + raw.COMPLETE
    put(raw.qemu(data(0, 1), data(2048, 2), bitmaps=cut))
    assert run("replay", source("pipe"), "--image", "x", "--create", "--no-bitmaps").status == 0
    size = 3 * MIB // 2
    assert steps == [
        "no journal",
        "create x.partial",
        ("writing", True, None, 0, 0),
        ("resize", MIB),
        *writes(0),
        ("resize", 2 * MIB),
        *writes(1),
        ("resize", size),
        "flush",
        ("written", True, size, 2, 2 * MIB),
        "rename",
        "flush",
        ("finished", True, size, 2, 2 * MIB),
    ]


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_an_image_in_place(run: Run, steps: list[Any], kind: str) -> None:
    """Its record is removed before the journal, which is written before the first byte of it."""
    put(STREAM)
    put(filled(9, 2 * MIB), "x")
    put(b"{}", "x.blkmig.json")
    assert run("replay", source(kind), "--image", "x").status == 0
    size = 2 * MIB if kind == "file" else None
    assert steps == [
        "no record",
        ("writing", False, size, 0, 0),
        *writes(0, 1),
        "flush",
        ("written", False, 2 * MIB, 2, 2 * MIB),
        "flush",
        ("finished", False, 2 * MIB, 2, 2 * MIB),
    ]
    assert not Path("x.blkmig.json").exists()


def test_checkpoints(run: Run, steps: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many bytes, what was written is flushed, and then in the journal."""
    monkeypatch.setattr(writer, "_CHECKPOINT", 2 * MIB)
    put(raw.qemu(*(data(2048 * at, at + 1) for at in range(5))))
    words = ["replay", source("pipe"), "--image", "x", "--create", "--device-size", "5M"]
    assert run(*words).status == 0
    assert [step for step in steps if step != "flush" or steps[steps.index(step) - 1] == step] == [
        "no journal",
        "create x.partial",
        ("writing", True, 5 * MIB, 0, 0),
        ("resize", 5 * MIB),
        *writes(0, 1),
        ("writing", True, 5 * MIB, 2, 2 * MIB),
        *writes(2, 3),
        ("writing", True, 5 * MIB, 4, 4 * MIB),
        *writes(4),
        ("written", True, 5 * MIB, 5, 5 * MIB),
        "rename",
        ("finished", True, 5 * MIB, 5, 5 * MIB),
    ]
    for at, step in enumerate(steps):
        if isinstance(step, tuple) and step[0] in ("writing", "written") and step[3]:
            assert steps[at - 1] == "flush"


def test_what_an_image_holds_is_recorded_last(run: Run, steps: list[Any]) -> None:
    """The journal has the id from the beginning, where the stream is known by then."""
    put(named(STREAM))
    assert run("replay", "s.bin", "--image", "x", "--create").status == 0
    journals = [step for step in steps if isinstance(step, tuple) and len(step) == 6]
    assert [(step[0], step[5]) for step in journals] == [
        ("writing", ID), ("written", ID), ("finished", ID)
    ]  # fmt: skip
    at = steps.index(("record", "d"))
    assert steps[at - 1] == "rename"
    assert steps[at + 1 :] == ["flush", journals[-1]]
    record = json.loads(Path("x.blkmig.json").read_text())
    assert (record["id"], record["device"]) == (ID, "d")


def test_what_is_known_of_a_stream_only_at_its_end(run: Run, steps: list[Any]) -> None:
    put(named(STREAM))
    assert run("replay", source("pipe"), "--image", "x", "--create").status == 0
    journals = [step for step in steps if isinstance(step, tuple) and step[0] in
                ("writing", "written", "finished")]  # fmt: skip
    assert [(step[0], *step[5:]) for step in journals] == [
        ("writing",), ("written", ID), ("finished", ID)
    ]  # fmt: skip
    assert ("record", "d") in steps


@pytest.mark.parametrize("made", [True, False])
def test_an_image_is_no_longer_written_when_it_gets_its_name(
    run: Run, steps: list[Any], monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """Or else its record would not fit."""
    monkeypatch.setattr(RawImage, "end_writing", lambda _: steps.append("end"))
    put(named(STREAM))
    if not made:
        put(filled(9, 2 * MIB), "x")
    words = ["replay", "s.bin", "--image", "x", *(["--create"] if made else [])]
    assert run(*words).status == 0
    at = steps.index("end")
    assert [step for step in steps[:at] if step == ("record", "d")] == []
    assert steps[at + 1 : at + 3] == (
        ["rename", ("record", "d")] if made else [("record", "d"), "flush"]
    )


@pytest.mark.parametrize("kind", ["file", "pipe"])
@pytest.mark.parametrize("words", ["--create", "--overwrite", "--create --restart"])
def test_an_image_of_another_format(
    run: Run, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    """It is made with the size of its disk, and with the options of its format."""
    asked: list[Any] = []

    def create(path: str, like: str | None, *given: Any) -> Any:
        asked.append((path, like, *given))
        return new_image.create_partial(path, like)

    def over(image: RawImage, *given: Any) -> Any:
        asked.append((image.path, *given))
        image.resize(given[1])
        return image

    monkeypatch.setattr(module, "create_partial", create)
    monkeypatch.setattr(module, "create_over", over)
    put(STREAM)
    if "restart" in words:
        put(filled(9, 5 * MIB), "x.partial")
    if "overwrite" in words:
        put(filled(9, 5 * MIB), "x")
    options = ["-f", "qcow2", "-o", "a=b", "-o", "c=d", "--no-bitmaps"]
    outcome = run("replay", source(kind), "--image", "x", *words.split(), *options)
    assert outcome.status == 0, outcome
    like = "x" if "overwrite" in words else None
    made = ("qcow2", 2 * MIB, ("a=b", "c=d"))
    assert asked == [("x.partial", *(() if "restart" in words else (like,)), *made)]
    assert Path("x").read_bytes() == DISK
    assert json.loads(Path("x.replay.json").read_text())["format"] == "qcow2"


@pytest.mark.parametrize(
    "known", [{"incremental": True, "disks": {"d": {"size": 2 * MIB, "full": False}}}]
)
def test_an_increment_extends_its_image(run: Run, steps: list[Any], known: dict[str, Any]) -> None:
    put(named(STREAM, **known))
    put(filled(9), "x")
    words = ["replay", "s.bin", "--image", "x", "--no-base-check"]
    assert run(*words).status == 0
    assert steps == [
        "no record",
        ("writing", False, 2 * MIB, 0, 0),
        ("resize", 2 * MIB),
        *writes(0, 1),
        "flush",
        ("written", False, 2 * MIB, 2, 2 * MIB),
        "flush",
        ("finished", False, 2 * MIB, 2, 2 * MIB),
    ]
    assert Path("x").read_bytes() == DISK


@pytest.mark.parametrize("made", [True, False])
def test_an_incomplete_stream(run: Run, steps: list[Any], made: bool) -> None:
    put(GAP)
    if not made:
        put(filled(9, 2 * MIB), "x")
    words = ["replay", source("pipe"), "--image", "x", *(["--create"] if made else [])]
    assert run(*words).status == 1
    start = ["no journal", "create x.partial"] if made else ["no record"]
    assert steps == [
        *start,
        ("writing", made, None, 0, 0),
        *([("resize", MIB)] if made else []),
        *writes(0),
        "flush",
        ("incomplete", made, 2 * MIB, 1, MIB),
    ]
    del steps[:]
    accept = ["replay", "--image", "x", "--resume", "--allow-incomplete"]
    assert run(*accept).status == 0
    assert steps == [
        *([("resize", 2 * MIB)] if made else []),
        "flush",
        ("written", made, 2 * MIB, 1, MIB),
        *(["rename"] if made else []),
        ("finished", made, 2 * MIB, 1, MIB),
    ]


@pytest.mark.parametrize("made", [True, False])
def test_continuing(run: Run, steps: list[Any], made: bool) -> None:
    """The records of the journal are compared, and only the rest is written."""
    put(STREAM[: STREAM.index(raw.word(2048, 1)) + 500], "cut.bin")
    put(STREAM)
    if not made:
        put(filled(9, 2 * MIB), "x")
    more = ["--create"] if made else []
    assert run("replay", source("pipe", "cut.bin"), "--image", "x", *more).status == 3
    del steps[:]
    assert run("replay", "s.bin", "--image", "x", *more, "--resume").status == 0
    assert steps == [
        *([] if made else ["no record"]),
        *([("resize", 2 * MIB)] if made else []),
        *writes(1),
        "flush",
        ("written", made, 2 * MIB, 2, 2 * MIB),
        *(["rename"] if made else []),
        "flush",
        ("finished", made, 2 * MIB, 2, 2 * MIB),
    ]
    assert Path("x").read_bytes() == DISK
    del steps[:]
    before = here()
    assert run("replay", "s.bin", "--image", "x", *more, "--resume").status == 0
    assert steps == []
    assert here() == before


def test_starting_over(run: Run, steps: list[Any]) -> None:
    """The unfinished image is emptied."""
    put(STREAM)
    put(filled(9, 5 * MIB), "x.partial")
    assert run("replay", "s.bin", "--image", "x", "--create", "--restart").status == 0
    assert steps[:4] == [
        ("writing", True, 2 * MIB, 0, 0),
        ("resize", 0),
        ("resize", 2 * MIB),
        *writes(0),
    ]
    assert Path("x").read_bytes() == DISK


def test_a_written_image_that_has_its_name_already(run: Run, steps: list[Any]) -> None:
    """The replay ended between the two: only the journal is finished."""
    put(raw.qemu(data(0, 1), data(2048, 2)))
    assert run("replay", "s.bin", "--image", "x", "--create").status == 0
    journal = json.loads(Path("x.replay.json").read_text())
    Path("x.replay.json").write_text(json.dumps(journal | {"state": "written"}))
    for words in (["--create", "--resume"], ["--overwrite", "--resume"], ["--resume"]):
        Path("x.replay.json").write_text(json.dumps(journal | {"state": "written"}))
        del steps[:]
        assert run("replay", "s.bin", "--image", "x", *words).status == 0
        assert [step for step in steps if step != "flush"] == [
            ("written", True, 2 * MIB, 2, 2 * MIB),
            ("finished", True, 2 * MIB, 2, 2 * MIB),
        ]
        assert Path("x").read_bytes() == DISK


def test_an_image_that_replaces_another(run: Run, steps: list[Any]) -> None:
    put(STREAM)
    put(b"old", "x")
    for name in ("x.bitmaps.json", "x.blkmig.json"):
        put(b"old", name)
    assert run("replay", "s.bin", "--image", "x", "--overwrite", "--no-bitmaps").status == 0
    assert steps[:3] == ["no journal", "create x.partial", ("writing", True, 2 * MIB, 0, 0)]
    assert set(here()) == {"s.bin", "x", "x.replay.json"}
    assert Path("x").read_bytes() == DISK
