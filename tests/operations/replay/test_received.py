"""What an interrupted replay has received: its token, the rest that continues it, and what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.errors import BlkmigError, FailureError, UsageError
from blkmig_cli.operations.replay import held as module
from blkmig_cli.operations.replay.destinations import Destinations
from blkmig_cli.operations.replay.held import HeldRecords
from blkmig_cli.operations.replay.journal import Entry, State, Stop, write_journal
from blkmig_cli.operations.replay.received import check_continued, resume_token
from blkmig_cli.operations.replay.request import ReplayRequest
from blkmig_cli.operations.resume_token import Received, digest_of, token_of
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import BitmapChunk, Block, Event
from blkmig_cli.wire.rest import rest_machine
from blkmig_cli.wire.runs.columns import Run
from tests.support import raw
from tests.support.feed import in_file
from tests.support.replays import BITMAP, MIB, data, filled, folder, here, put
from tests.support.strategies import MemoryImage

__all__ = ["folder"]

OTHER = "01234567-89ab-cdef-0123-456789abcdef"


def left(
    name: str, length: int = MIB, *, device: str | None = "d", state: State = "incomplete",
    bitmaps: bool = False,
) -> None:  # fmt: skip
    """Leave an unfinished image of 2 MiB, of which so much was received."""
    put(filled(1, 2 * MIB), f"{name}.partial" if state != "finished" else name)
    stop = Stop(0, None, 0, False, (), ()) if state == "incomplete" else None
    entry = Entry(state, True, 2 * MIB, stop=stop, device=device, received=length, bitmaps=bitmaps)
    write_journal(neighbours_of(name), entry)


def received(device: str, length: int = MIB, *, bitmaps: bool = False) -> Received:
    digest = digest_of(MemoryImage(filled(1, length)), length, lambda *_: None)
    return Received(device, length, digest, bitmaps)


def images(*names: str | None) -> dict[str | None, str]:
    return {name: f"{name or 'd'}.img" for name in names}


def new(named: dict[str | None, str], **more: Any) -> ReplayRequest:
    return ReplayRequest(named, create=True, **more)


# -- the token


def test_the_token_of_images() -> None:
    left("d.img", bitmaps=True)
    left("e.img", MIB + 512, device="e")
    left("f.img", 0, device="f")
    before = here()
    token = resume_token(new(images("d", "e", "f")))
    assert token.disks == (received("d", bitmaps=True), received("e", MIB + 512))
    assert here() == before


def test_the_token_of_the_only_image() -> None:
    left("d.img", device="whatever")
    assert resume_token(new(images(None))).disks == (received("whatever"),)


class Shown:
    """Progress that is noted."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None]] = []

    @contextmanager
    def __call__(self, what: str, total: int | None) -> Iterator[Any]:
        self.steps.append((what, total))
        yield lambda *_, **__: None


def test_the_progress_of_a_token() -> None:
    left("d.img")
    left("e.img", MIB + 512, device="e")
    shown = Shown()
    resume_token(new(images("d", "e")), shown)
    assert shown.steps == [("reading", MIB), ("reading", MIB + 512)]


def in_full(error: Any) -> tuple[type[BlkmigError], str]:
    return error.type, str(error.value)


@pytest.mark.parametrize(
    ("state", "length", "device", "named", "expected"),
    [
        ("incomplete", 0, "d", "d",
         (FailureError, "nothing was received in d.img; send the whole stream again")),
        ("incomplete", MIB, None, "d",
         (FailureError, "nothing was received in d.img; send the whole stream again")),
        ("finished", MIB, "d", "d", (FailureError, "the replay to d.img is finished")),
        ("incomplete", MIB, "e", "d", (FailureError, "d.img has received 'e', not 'd'")),
    ],
)  # fmt: skip
def test_no_token(
    state: Any, length: int, device: str | None, named: str,
    expected: tuple[type[BlkmigError], str],
) -> None:  # fmt: skip
    left("d.img", length, device=device, state=state)
    with pytest.raises(BlkmigError) as error:
        resume_token(new(images(named)))
    assert in_full(error) == expected


def test_no_token_of_several() -> None:
    """Unless one of them has something."""
    left("d.img", 0)
    left("e.img", 0, device="e")
    with pytest.raises(FailureError) as error:
        resume_token(new(images("d", "e")))
    assert str(error.value) == ("nothing was received in d.img, e.img; send the whole stream again")
    left("d.img", MIB, state="finished")
    Path("d.img.partial").unlink()
    left("e.img", MIB, device="e")
    assert [disk.device for disk in resume_token(new(images("d", "e"))).disks] == ["d", "e"]


def test_no_token_without_images() -> None:
    with pytest.raises(UsageError) as error:
        resume_token(new({None: "{device}.img"}))
    assert str(error.value) == (
        "the images are not specified one by one; use --image DEVICE=IMAGE for each"
    )


def test_a_token_that_would_be_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    left("d.img")
    monkeypatch.setattr(limits, "TOKEN_MAX", 5)
    with pytest.raises(FailureError, match="a token for 1 disks would have over 5 bytes"):
        resume_token(new(images("d")))


# -- the rest


def rest(state: str) -> bytes:
    return raw.qemu(data(2048, 1), machine=rest_machine(state))


STATE = token_of([received("d")]).id


def continued(content: bytes, request: ReplayRequest, kind: str = "file") -> list[Received]:
    put(content)
    made = Destinations(request, FileUses())
    try:
        made.open()
        with open_stream("s.bin" if kind == "file" else "exec:cat s.bin") as stream:
            return check_continued(stream, request, made)
    finally:
        made.close()


@pytest.mark.parametrize("kind", ["file", "pipe"])
@pytest.mark.parametrize("number", [None, 1])
def test_the_rest_continues_its_images(kind: str, number: int | None) -> None:
    left("d.img")
    request = new(images("d"), resume=True, number=number)
    assert continued(rest(STATE), request, kind) == [received("d")]


@pytest.mark.parametrize(
    "content",
    [
        raw.qemu(data(0, 1)),
        b"",
        b"no stream",
        rest("x"),
        rest(STATE)[:20],
        raw.block(0, 8) + raw.EOS,
    ],
)
def test_any_other_stream(content: bytes) -> None:
    left("d.img")
    assert continued(content, new(images("d"), resume=True)) == []


@pytest.mark.parametrize(
    "more",
    [
        {"number": 2, "resume": True},
        {"dry_run": True, "restart": False},
        {"allow_incomplete": True, "restart": True},
    ],
)
def test_what_continues_nothing(more: dict[str, Any]) -> None:
    if more.get("resume"):
        left("d.img")
    assert continued(rest(STATE), new(images("d"), **more)) == []
    assert continued(rest(STATE), ReplayRequest({}, dry_run=True)) == []
    assert continued(rest(STATE), ReplayRequest({}, bitmap_files={"d": "b"})) == []


@pytest.mark.parametrize("state", [OTHER, token_of([received("d", MIB - 512)]).id])
def test_the_rest_of_something_else(state: str) -> None:
    left("d.img")
    with pytest.raises(FailureError) as error:
        continued(rest(state), new(images("d"), resume=True))
    assert str(error.value) == (
        "the stream is not the rest of what the images have received; "
        "get a new token with blkmig replay --print-token"
    )


def test_the_rest_for_an_image_that_has_nothing() -> None:
    left("d.img", 0)
    with pytest.raises(FailureError, match="is not the rest of what"):
        continued(rest(STATE), new(images("d"), resume=True))


def test_the_rest_without_resume() -> None:
    with pytest.raises(UsageError) as error:
        continued(rest(STATE), new(images("d")))
    assert str(error.value) == (
        "the stream is the rest of an interrupted one, for the images that have received the first "
        "part; use --resume"
    )


# -- records that are held


class Taken:
    """A consumer that notes what comes."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def feed(self, event: Event, source: object) -> None:
        self.events.append(event)

    def feed_run(self, run: Run, source: object) -> None:
        self.events += run


STREAM = raw.qemu(
    data(0, 1), *(raw.block(2048 * at, 8) for at in range(1, 40)), data(0, 2, "e"), bitmaps=BITMAP
)


def pieces() -> Iterator[Any]:
    decoder = Decoder(in_file(STREAM))
    try:
        while True:
            yield decoder.piece()
    except StopIteration:
        return


def test_records_are_passed_on_as_they_came() -> None:
    """Those of disks and bitmaps; the ticks are where each ends, with its device."""
    source, found, expected, ticks = in_file(STREAM), HeldRecords(), [], []
    runs = 0
    for piece in pieces():
        if isinstance(piece, Run):
            runs += 1
            found.feed_run(piece, source)
            expected += list(piece)
        else:
            found.feed(piece, source)
            expected.append(piece)
    assert runs
    assert found.complete
    taken = Taken()
    found.pass_on(source, lambda at, device=None: ticks.append((at, device)), taken)
    assert [e for e in taken.events if isinstance(e, Block | BitmapChunk)] == [
        e for e in expected if isinstance(e, Block | BitmapChunk)
    ]
    assert [at for at, _ in ticks] == sorted(at for at, _ in ticks)
    assert ticks[0][1] == "d"
    assert "e" in {device for _, device in ticks}
    assert ticks[-1][0] == max(e.offset + e.length for e in expected if isinstance(e, BitmapChunk))


@pytest.mark.parametrize("room", [0, 511, 512, 1023, 1024])
def test_how_many_are_held(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """512 bytes for each, and for each of its bitmaps; what is too many is not held at all."""
    monkeypatch.setattr(module, "_ROOM", room)
    source, taken = in_file(STREAM), Taken()
    plain = Block(0, 15, "block", "d", 0, 2048, 2048, 9, "classic", None, ())
    found = HeldRecords()
    for number in range(1, 4):
        found.feed(plain, source)
        assert found.complete is (number * 512 <= room)
    found.pass_on(source, lambda *_: None, taken)
    assert taken.events == []
    found = HeldRecords()
    found.feed(plain, source)
    found.pass_on(source, lambda *_: None, taken)
    assert taken.events == ([plain] if room >= 512 else [])
