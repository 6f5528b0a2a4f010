"""Images that a replay refuses: what is said, to the last word, and that nothing has changed."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.errors import FailureError
from blkmig_cli.operations.replay import destination as module
from blkmig_cli.operations.replay.destination import Destination
from blkmig_cli.operations.replay.journal import Entry, Stop, write_journal
from blkmig_cli.operations.replay.request import ReplayRequest
from blkmig_cli.text import human_size
from tests.conftest import Run
from tests.support.replays import (
    MIB,
    STREAM,
    filled,
    folder,
    here,
    put,
    refused,
    source,
)

__all__ = ["folder"]

AGAIN = "use --restart to start over"
INCOMPLETE = (
    "x is incomplete: a replay was interrupted, or another is at work; "
    "use --resume to continue it, or --restart to start over"
)
#: A record was applied, as far as the entry goes.
APPLIED: dict[str, Any] = {"position": 99, "records": 1, "data_records": 1, "digest": "0" * 64}


def journal(
    state: Any = "writing", *, new: bool = True, size: int | None = None, **more: Any
) -> None:
    write_journal(neighbours_of("x"), Entry(state, new, size, **more))


def image(length: int = 2 * MIB, name: str = "x") -> None:
    put(filled(9, length), name)


def partial(length: int = 2 * MIB) -> None:
    image(length, "x.partial")


def bitmaps() -> None:
    write_bitmaps("x.bitmaps.json", BitmapFile(2 * MIB, {"old": DirtyBitmap("old", 512)}))


def all_of(*made: Callable[[], object]) -> Callable[[], None]:
    def make() -> None:
        for each in made:
            each()

    return make


REFUSED: dict[str, tuple[Callable[[], object], str, int, str]] = {
    "a missing one": (
        lambda: None, "", 4,
        "x: No such file or directory; use --create to make it"),
    "an existing one": (
        image, "--create", 4,
        "x: File exists; use --overwrite to replace it, or leave out --create to write it in place"),
    "a folder": (
        lambda: os.mkdir("x"), "--create", 4,
        "x: File exists, but is not a regular file; remove it, or choose another name"),
    "a folder to replace": (
        lambda: os.mkdir("x"), "--overwrite", 4,
        "x is not a regular file; specify the file itself"),
    "a link to replace": (
        all_of(lambda: image(name="y"), lambda: os.symlink("y", "x")), "--overwrite", 4,
        "x is a symbolic link; specify the file itself"),
    "an unfinished one": (partial, "--create", 4, INCOMPLETE),
    "an unfinished one to replace another": (
        all_of(image, partial), "--overwrite", 4, INCOMPLETE),
    "an unfinished one, and another": (
        all_of(image, partial), "--create --resume", 4,
        "both x and x.partial exist; "
        "remove or rename one of them, or use --overwrite to replace the first"),
    "an unfinished one, and another, to start over": (
        all_of(image, partial), "--restart", 4,
        "both x and x.partial exist; "
        "remove or rename one of them, or use --overwrite to replace the first"),
    "a journal of one in place": (
        all_of(image, lambda: journal(new=False)), "", 4, INCOMPLETE),
    "a journal of one in place that ended too early": (
        all_of(image, lambda: journal("incomplete", new=False, stop=Stop(0, None, 0, False, (), ()))),
        "", 4, INCOMPLETE),
    "a journal of one in place, to create": (
        all_of(image, lambda: journal(new=False)), "--create", 4, INCOMPLETE),
    "a journal of one in place, to replace": (
        all_of(image, lambda: journal(new=False)), "--overwrite", 4, INCOMPLETE),
    "a journal of one in place, to replace with --resume": (
        all_of(image, lambda: journal(new=False)), "--overwrite --resume", 4, INCOMPLETE),
    "a finished journal of one in place, to create": (
        all_of(image, lambda: journal("finished", new=False, size=2 * MIB)), "--create", 4,
        "x: File exists; use --overwrite to replace it, or leave out --create to write it in place"),
    "an existing one, to create with --resume": (
        all_of(image, lambda: journal(new=False)), "--create --resume", 4,
        "x: File exists; use --overwrite to replace it, or leave out --create to write it in place"),
    "an existing one, to create with --restart": (
        all_of(image, lambda: journal(new=False)), "--create --restart", 4,
        "x: File exists; use --overwrite to replace it, or leave out --create to write it in place"),
    "a journal of a new one for one in place": (
        all_of(image, journal), "--resume", 4, f"x.replay.json is of another image; {AGAIN}"),
    "a journal of one in place for a new one": (
        all_of(partial, lambda: journal(new=False)), "--resume", 4,
        f"x.replay.json is of another image; {AGAIN}"),
    "a journal of another format": (
        all_of(partial, lambda: journal(image_format="qcow2")), "--create --resume", 4,
        f"x: the unfinished image has format qcow2, not raw; use -f qcow2, or {AGAIN}"),
    "a journal of another format, to continue": (
        all_of(partial, lambda: journal(image_format="q\n")), "--resume", 4,
        f"x: the unfinished image has format q\\x0a, not raw; use -f q\\x0a, or {AGAIN}"),
    "a journal that is none": (
        all_of(image, lambda: put(b"{}", "x.replay.json")), "", 4,
        f"x.replay.json is not a journal of a replay: version None, only 1 is known; {AGAIN}"),
    "one smaller than the disk": (
        image, f"--device-size={2 * MIB + 512}", 4,
        f"x has {2 * MIB} bytes, the disk {2 * MIB + 512}; enlarge the image, or see --device-size"),
    "a journal of a larger disk": (
        all_of(partial, lambda: journal(size=2 * MIB)), f"--resume --device-size={2 * MIB - 512}", 4,
        f"x.replay.json is of a disk of {2 * MIB} bytes, not {2 * MIB - 512}; "
        f"see --device-size, or {AGAIN}"),
    "a journal of a smaller disk": (
        all_of(partial, lambda: journal(size=2 * MIB)), f"--resume --device-size={2 * MIB + 512}", 4,
        f"x.replay.json is of a disk of {2 * MIB} bytes, not {2 * MIB + 512}; "
        f"see --device-size, or {AGAIN}"),
    "an image that has become smaller": (
        all_of(lambda: image(2 * MIB - 512), lambda: journal(new=False, size=2 * MIB)), "--resume", 4,
        f"x has {2 * MIB - 512} bytes, the replay left {2 * MIB}; {AGAIN}"),
    "a new image that has become smaller": (
        all_of(lambda: image(2 * MIB - 512), lambda: journal("finished", size=2 * MIB)), "--resume", 4,
        f"x has {2 * MIB - 512} bytes, the replay left {2 * MIB}; {AGAIN}"),
    "a new image that has become larger": (
        all_of(lambda: image(2 * MIB + 512), lambda: journal("finished", size=2 * MIB)), "--resume", 4,
        f"x has {2 * MIB + 512} bytes, the replay left {2 * MIB}; {AGAIN}"),
    "a new image for an increment that has become smaller": (
        all_of(lambda: image(2 * MIB - 512), lambda: journal("finished", size=2 * MIB, stream="i")),
        "--resume", 4,
        f"x has {2 * MIB - 512} bytes, the replay left {2 * MIB}; {AGAIN}"),
    "bitmaps of an image that is gone": (
        bitmaps, "--create", 4,
        "x.bitmaps.json exists, though x does not; remove it, or use --overwrite to replace it"),
    "an NBD export to create": (
        lambda: None, "--create nbd", 4,
        "nbd://h/x: File exists; without --create, it is written in place"),
    "an NBD export to replace": (
        lambda: None, "--overwrite nbd", 2,
        "nbd://h/x is an NBD export; without --overwrite, it is written in place"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(run: Run, what: str) -> None:
    make, options, status, said = REFUSED[what]
    put(STREAM)
    make()
    *words, last = ["--image=x", *options.split()]
    words += ["--image=nbd://h/x"] if last == "nbd" else [last]
    words = words[1:] if last == "nbd" else words
    before = here()
    refused(run("replay", "s.bin", *words), status, said, before)
    for kind in ("file", "pipe"):
        outcome = run("replay", source(kind), *words)
        note = "; x.partial is incomplete" if "x.partial" in before else "; x is incomplete"
        assert outcome.err in (
            f"blkmig: {said}\n", f"blkmig: {said}{note}; use --resume to continue\n"
        )  # fmt: skip


# -- how an existing image is opened


class Opened:
    """Stands for an image of 2 MiB, with a place for bitmaps in it or without."""

    size = 2 * MIB

    def __init__(self, path: str, *, place: bool) -> None:
        self.path = path
        self.closed = False
        self._place = place

    def bitmaps(self) -> list[object] | None:
        return [] if self._place else None

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("place", [True, False])
@pytest.mark.parametrize(
    ("more", "how", "again"),
    [
        ({}, {"writable": True, "shared": False, "claimed": False}, False),
        ({"mounted": True}, {"writable": True, "shared": False, "claimed": True}, False),
        ({"dry_run": True}, {"writable": False, "shared": False, "claimed": False}, False),
        ({"bitmaps": False}, {"writable": True, "shared": False, "claimed": False}, False),
        ({"disks": False}, {"writable": False, "shared": True, "claimed": False}, True),
        ({"disks": False, "dry_run": True},
         {"writable": False, "shared": True, "claimed": False}, False),
    ],
)  # fmt: skip
def test_how_an_existing_image_is_opened(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], how: dict[str, bool], again: bool,
    place: bool,
) -> None:  # fmt: skip
    """Not for writing where nothing of it is written; its bitmaps may be in it."""
    asked: list[dict[str, Any]] = []
    made: list[Opened] = []

    def register(_: str, __: bool) -> None:
        pass

    def open_image(path: str, **given: Any) -> Any:
        asked.append(given)
        made.append(Opened(path, place=place))
        return made[-1]

    monkeypatch.setattr(module, "open_image", open_image)
    image()
    found = Destination("x", None, ReplayRequest({"d": "x"}, **more), "raw")
    found.open(register)
    first = {"image_format": "raw", "register": register, **how}
    second = {"writable": True, "image_format": "raw"}
    assert asked == ([first, second] if again and place else [first])
    assert [each.closed for each in made] == ([True, False] if again and place else [False])
    assert found.image is made[-1]  # type: ignore[comparison-overlap]
    assert (found.existing_size, found.begun, found.finished) == (2 * MIB, False, False)


# -- what a destination says of itself


@pytest.mark.parametrize(
    ("path", "options", "stated", "needs", "kept"),
    [
        ("x", {}, None, False, None),
        ("x", {"create": True}, None, False, None),
        ("y.qcow2", {"create": True}, None, True, []),
        ("y", {"create": True}, "qcow2", True, []),
        ("y.qcow2", {"create": True}, "raw", False, None),
        ("y.qcow2", {"create": True, "format_options": ("compat=0.10",)}, None, True, None),
        ("y.vmdk", {"create": True}, None, True, None),
    ],
)
def test_new_images(
    path: str, options: dict[str, Any], stated: str | None, needs: bool, kept: list[object] | None
) -> None:
    """Whether one needs its size first, and has a place for bitmaps."""
    if not options:
        image()
    found = Destination(path, None, ReplayRequest({"d": path}, **options), stated)
    found.open(lambda *_: None)
    assert found.needs_size is needs
    assert found.stored_bitmaps() == kept
    assert found.existing_size == (None if options else 2 * MIB)
    assert found.limit == (None if options else 2 * MIB)
    assert (found.image is None) == bool(options)
    assert (found.is_device, found.journal, found.incomplete_path) == (False, None, None)
    found.close()


def test_an_export() -> None:
    found = Destination("nbd://h/x", None, ReplayRequest({"d": "nbd://h/x"}), None)
    assert (found.is_device, found.needs_size, found.limit) == (True, True, None)
    found.decide(MIB)
    assert found.limit == MIB


@pytest.mark.parametrize(
    ("end", "fits"), [(limits.GROWTH_MAX, True), (limits.GROWTH_MAX + 1, False)]
)
def test_growth(end: int, fits: bool) -> None:
    """Of a disk of unknown size only."""
    found = Destination("x", None, ReplayRequest({"d": "x"}, create=True), None)
    found.open(lambda *_: None)
    if fits:
        found.check_growth(end)
    else:
        with pytest.raises(FailureError) as error:
            found.check_growth(end)
        assert str(error.value) == (
            f"x would grow to {human_size(end)}; if this is intended, specify --device-size"
        )
    found.decide(512)
    found.check_growth(end)


@pytest.mark.parametrize(
    ("entry", "options"),
    [
        # The size may be stated after the stream was cut off: it was only the likely one.
        (Entry("incomplete", False, MIB, stop=Stop(0, None, 0, False, (), ())), {}),
        (Entry("writing", False, None), {}),
        (Entry("writing", False, 2 * MIB), {}),
        # An increment extends its image, which may not have happened yet.
        (Entry("writing", False, 4 * MIB, stream="i"), {}),
        (Entry("finished", False, 2 * MIB), {}),
        (Entry("finished", True, 2 * MIB), {}),
        (Entry("finished", True, 2 * MIB), {"create": True}),
        (Entry("finished", True, 2 * MIB), {"overwrite": True}),
        (Entry("written", True, 2 * MIB), {"create": True}),
        (Entry("written", True, 2 * MIB), {"overwrite": True}),
    ],
)
def test_images_that_are_continued(entry: Entry, options: dict[str, Any]) -> None:
    image()
    write_journal(neighbours_of("x"), entry)
    size = 2 * MIB if entry.stop is not None else None
    found = Destination("x", size, ReplayRequest({"d": "x"}, resume=True, **options), None)
    found.open(lambda *_: None)
    assert found.journal == entry
    assert found.begun
    assert found.finished == (entry.state == "finished")
    assert found.existing_size == 2 * MIB
    assert found.incomplete_path == (None if found.finished else "x")
    found.close()


@pytest.mark.parametrize(
    ("entry", "options"),
    [
        (None, {}),
        (None, {"overwrite": True}),
        (Entry("writing", True, None), {"overwrite": True}),
    ],
)
def test_images_of_which_nothing_is_continued(entry: Entry | None, options: dict[str, Any]) -> None:
    image()
    if entry is not None:
        write_journal(neighbours_of("x"), entry)
    found = Destination("x", None, ReplayRequest({"d": "x"}, resume=True, **options), None)
    found.open(lambda *_: None)
    assert (found.journal, found.begun) == (None, False)
    assert found.existing_size == (None if options else 2 * MIB)
    found.close()


@pytest.mark.parametrize("state", ["writing", "incomplete", "written", "finished"])
@pytest.mark.parametrize("journaled", [True, False])
def test_unfinished_images(state: Any, journaled: bool) -> None:
    """A finished journal is older than the image."""
    partial()
    stop = Stop(0, None, 0, False, (), ()) if state == "incomplete" else None
    entry = Entry(state, True, 2 * MIB, stop=stop, device="d", received=7, bitmaps=True)
    if journaled:
        write_journal(neighbours_of("x"), entry)
    found = Destination("x", None, ReplayRequest({"d": "x"}, resume=True, create=True), None)
    found.open(lambda *_: None)
    goes_on = journaled and state != "finished"
    assert found.journal == (entry if goes_on else None)
    assert found.begun is goes_on
    assert found.existing_size is None
    assert found.incomplete_path == ("x.partial" if goes_on else None)
    assert (found.reception.device, found.reception.length) == (("d", 7) if goes_on else (None, 0))
    found.close()


@pytest.mark.parametrize(
    ("journaled", "options", "fits"),
    [
        (False, {}, False),
        (True, {}, False),
        (False, {"resume": True}, False),
        (True, {"resume": True}, True),
        (False, {"restart": True}, True),
        (True, {"restart": True}, True),
    ],
)
def test_bitmaps_of_an_image_that_is_gone(
    journaled: bool, options: dict[str, Any], fits: bool
) -> None:
    """They are those of a replay that is continued, or started over."""
    bitmaps()
    if journaled:
        journal("finished", size=2 * MIB)
    found = Destination("x", None, ReplayRequest({"d": "x"}, create=True, **options), None)
    if fits:
        found.open(lambda *_: None)
        assert (found.journal, found.existing_size) == (None, None)
        return
    with pytest.raises(FailureError, match="exists, though x does not"):
        found.open(lambda *_: None)
