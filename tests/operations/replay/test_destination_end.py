"""The ends of a destination: what becomes of its image, its record and its bitmaps, step by step."""

import json
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.disks.record import Holding
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay import destination as module
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.operations.replay.journal import Entry, Stop, read_journal, write_journal
from blkmig_cli.operations.replay.request import ReplayRequest
from tests.support.replays import MIB, filled, folder, here, put

__all__ = ["folder"]

HOLDING = Holding("01234567-89ab-cdef-0123-456789abcdef", "d")
STOP = Stop(0, None, 0, False, (), ())


class Pictured:
    """Stands for an image of 2 MiB, and notes what is done to it."""

    size = 2 * MIB
    is_single_file = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.done: list[object] = []

    def bitmaps(self) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        def call(*given: object) -> None:
            self.done.append((name, *given) if given else name)

        return call


def opened(
    monkeypatch: pytest.MonkeyPatch, size: int | None = 2 * MIB, **more: Any
) -> tuple[Destination, Pictured]:
    """A destination of an existing image."""
    if not Path("x").exists():
        put(filled(9, 2 * MIB), "x")
    image: Any = Pictured("x")
    monkeypatch.setattr(module, "open_image", lambda *_, **__: image)
    found = Destination("x", size, ReplayRequest({"d": "x"}, **more), None)
    found.open(lambda *_: None)
    return found, image


def made(**more: Any) -> Destination:
    """A destination of a new image."""
    known: dict[str, Any] = {"create": True}
    found = Destination("x", 2 * MIB, ReplayRequest({"d": "x"}, **(known | more)), None)
    found.open(lambda *_: None)
    return found


def state() -> str | None:
    entry = read_journal(neighbours_of("x"))
    return None if entry is None else entry.state


def test_an_image_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    found, image = opened(monkeypatch)
    put(b"{}", "x.blkmig.json")
    for _ in range(2):
        assert found.image_for(MIB) is image
    assert image.done == ["begin_writing"]
    assert not Path("x.blkmig.json").exists()
    assert (state(), found.begun, found.incomplete_path) == ("writing", True, "x")
    found.save(5)
    found.complete()
    found.save(6, "written")
    found.rename()
    assert state() == "written"
    found.finish(7)
    assert image.done == ["begin_writing", "flush", "flush", "flush"]
    assert state() == "finished"
    found.close()
    assert image.done[-1] == "close"
    assert "x.blkmig.json" not in here()


@pytest.mark.parametrize(("single", "recorded"), [(True, True), (False, False)])
def test_what_it_holds(monkeypatch: pytest.MonkeyPatch, single: bool, recorded: bool) -> None:
    """Unless the image depends on other files."""
    found, image = opened(monkeypatch)
    image.is_single_file = single
    found.holds = HOLDING
    found.image_for(MIB)
    found.rename()
    assert image.done == ["begin_writing", "end_writing"]
    found.finish(7)
    assert Path("x.blkmig.json").exists() is recorded
    entry = read_journal(neighbours_of("x"))
    assert entry is not None
    assert entry.stream == HOLDING.id


def test_an_image_that_was_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no journal, and keeps its record."""
    found, image = opened(monkeypatch)
    put(b"{}", "x.blkmig.json")
    found.holds = HOLDING
    found.save(5)
    found.stop(5, STOP)
    found.complete()
    found.rename()
    found.finish(5)
    found.make_empty()
    assert image.done == []
    assert set(here()) == {"x", "x.blkmig.json"}
    assert here()["x.blkmig.json"] == b"{}"


def test_bitmaps_in_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """They change its file, so that its record no longer fits."""
    found, image = opened(monkeypatch)
    put(b"{}", "x.blkmig.json")
    found.write_bitmaps(["b"])  # type: ignore[list-item]
    assert image.done == [("write_bitmaps", ["b"])]
    assert not Path("x.blkmig.json").exists()


def test_bitmaps_in_a_new_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is that of the image that will be replaced."""
    put(filled(9), "x")
    put(b"{}", "x.blkmig.json")
    put(b"{}", "x.bitmaps.json")
    image: Any = Pictured("x.partial")
    asked: list[object] = []

    def create(*given: object) -> Any:
        asked.append(given)
        return image

    monkeypatch.setattr(module, "create_partial", create)
    found = made(create=False, overwrite=True)
    found.image_for(MIB)
    found.write_bitmaps(["b"])  # type: ignore[list-item]
    assert asked == [("x.partial", "x", "raw", 2 * MIB, ())]
    assert image.done == ["begin_writing", ("write_bitmaps", ["b"])]
    assert here()["x.blkmig.json"] == here()["x.bitmaps.json"] == b"{}"
    renamed: list[object] = []
    monkeypatch.setattr(module, "finish", lambda *given, **named: renamed.append((given, named)))
    found.rename()
    assert renamed == [((image, "x"), {"replace": True})]
    assert "x.blkmig.json" not in here()
    assert "x.bitmaps.json" not in here()
    found.close()


@pytest.mark.parametrize("there", [True, False])
def test_another_process_that_was_faster(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """It has made the image in the meantime; or it could not be made at all."""
    found = made()
    if there:
        put(b"of another", "x.partial")
    else:

        def full(*_: object) -> None:
            raise FailureError("no space")

        monkeypatch.setattr(module, "create_partial", full)
    with pytest.raises(FailureError) as error:
        found.image_for(MIB)
    assert str(error.value) == (
        "x is incomplete: a replay was interrupted, or another is at work; "
        "use --resume to continue it, or --restart to start over"
        if there else "no space"
    )  # fmt: skip
    assert state() is None


def test_the_journal_of_another_image_does_not_remain() -> None:
    write_journal(neighbours_of("x"), Entry("finished", True, 5))
    found = made()
    found.image_for(MIB)
    found.close()
    entry = read_journal(neighbours_of("x"))
    assert entry is not None
    assert (entry.state, entry.size, entry.new) == ("writing", 2 * MIB, True)


@pytest.mark.parametrize(
    ("size", "existing", "makes", "created"),
    [(0, False, True, True), (512, False, True, False), (None, False, True, False)],
)
def test_the_image_of_a_disk_of_0_bytes(
    size: int | None, existing: bool, makes: bool, created: bool
) -> None:
    found = Destination("x", size, ReplayRequest({"d": "x"}, create=makes), None)
    found.open(lambda *_: None)
    found.make_empty()
    assert (found.image is not None) is created
    found.make_empty()
    found.rename()
    found.finish(0)
    assert set(here()) == ({"x"} if created else set())
    found.close()


@pytest.mark.parametrize(
    ("length", "size", "resized"),
    [(MIB, 2 * MIB, 2 * MIB), (2 * MIB, 2 * MIB, None), (3 * MIB, MIB + 512, MIB + 512)],
)
def test_the_size_at_the_end(length: int, size: int, resized: int | None) -> None:
    found = Destination("x", None, ReplayRequest({"d": "x"}, create=True), None)
    found.open(lambda *_: None)
    found.image_for(length)
    assert Path("x.partial").stat().st_size == length
    found.decide(size)
    found.complete()
    assert Path("x.partial").stat().st_size == (resized or length)
    found.close()


def test_growing() -> None:
    """Where the size is unknown, up to the end of each write; otherwise at once."""
    found = Destination("x", None, ReplayRequest({"d": "x"}, create=True), None)
    found.open(lambda *_: None)
    for end, length in ((5, 5), (3, 5), (9, 9)):
        image = found.image_for(end)
        assert image.size == length
    found.decide(20)
    assert found.image_for(6).size == 20
    assert found.image_for(30).size == 20
    found.close()


def test_an_image_that_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is to receive an increment of a disk that has grown."""
    found, image = opened(monkeypatch)
    found.image_for(9 * MIB)
    assert image.done == ["begin_writing"]
    found.grows = True
    found.image_for(9 * MIB)
    assert image.done == ["begin_writing"]
    found.decide(3 * MIB)
    found.image_for(MIB)
    assert image.done == ["begin_writing", ("resize", 3 * MIB)]


@pytest.mark.parametrize("new", [True, False])
def test_the_rest_of_a_stream(monkeypatch: pytest.MonkeyPatch, new: bool) -> None:
    """From the first write on, the journal is that of the rest."""
    before = Entry("incomplete", new, 2 * MIB, 99, 1, 1, "0" * 64, STOP, device="d", received=7)
    write_journal(neighbours_of("x"), before)
    if new:
        put(filled(9, 2 * MIB), "x.partial")
        found = made(resume=True)
    else:
        found, _ = opened(monkeypatch, resume=True)
    found.continue_with_rest()
    assert found.history.resumed_at is None
    assert read_journal(neighbours_of("x")) == before
    found.image_for(MIB)
    assert read_journal(neighbours_of("x")) == Entry(
        "writing", new, 2 * MIB, device="d", received=7
    )
    found.close()


def test_where_nothing_is_continued_it_is_no_rest() -> None:
    found = made()
    found.continue_with_rest()
    found.image_for(MIB)
    text = json.loads(Path("x.replay.json").read_text())
    assert (text["state"], text["position"]) == ("writing", 0)
    found.close()


def test_accepting_what_is_not_to_be_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a journal, or when all is done, nothing happens."""
    found, image = opened(monkeypatch)
    found.accept()
    assert (image.done, state()) == ([], None)
    write_journal(neighbours_of("x"), Entry("finished", False, 2 * MIB))
    found, image = opened(monkeypatch, resume=True)
    found.accept()
    assert image.done == []
    write_journal(neighbours_of("x"), Entry("incomplete", False, None, stop=STOP))
    found, image = opened(monkeypatch, None, resume=True)
    found.decide(2 * MIB)
    found.accept()
    assert image.done == ["flush"]
    entry = read_journal(neighbours_of("x"))
    assert entry is not None
    assert (entry.state, entry.size, entry.stop) == ("finished", 2 * MIB, STOP)
