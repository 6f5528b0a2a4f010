"""``send``, as a function: what it refuses, warns of, opens and returns."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.disks.neighbours import neighbours_of
from blkmig_cli.errors import BlkmigError, FailureError, UsageError
from blkmig_cli.operations.replay.journal import Entry, State, Stop, write_journal
from blkmig_cli.operations.resume_token import Received, ResumeToken, digest_of
from blkmig_cli.operations.send import send as module
from blkmig_cli.operations.send.changes import SendChanges
from blkmig_cli.operations.send.identity import SendIdentity
from blkmig_cli.operations.send.send import SendBitmaps, send
from blkmig_cli.operations.send.stream import SendOptions
from tests.support.replays import MIB, filled, folder, here, put
from tests.support.strategies import MemoryImage

__all__ = ["folder"]

ID = "01234567-89ab-cdef-0123-456789abcdef"
BASE = "11234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture(autouse=True)
def image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    put(filled(1), "d.img")


def bitmaps(path: str = "d.img.bitmaps.json", *names: str) -> None:
    found = {name: DirtyBitmap(name, 65536) for name in names or ("b",)}
    write_bitmaps(path, BitmapFile(MIB, found))


def token(content: bytes = filled(1), length: int = MIB) -> ResumeToken:
    digest = digest_of(MemoryImage(content), length, lambda *_, **__: None)
    return ResumeToken((Received("d", length, digest),))


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"options": SendOptions("classic"), "bitmaps": SendBitmaps()}, UsageError,
         "dialect classic has no place for bitmaps; use --dialect v1 or v2"),
        ({"options": SendOptions(container="none"), "bitmaps": SendBitmaps()}, UsageError,
         "dialect qemu in --container none has no place for bitmaps; use --dialect v1 or v2"),
        ({"manifest": "m", "shared": True}, UsageError,
         "--manifest and -U: the image may change after it was sent"),
        ({"changes": SendChanges(or_full=True)}, UsageError, "--else is for --since"),
        ({"token": token(), "identity": None}, UsageError,
         "--from-token and --no-identity exclude each other"),
        ({"identity": SendIdentity(ID, BASE)}, UsageError,
         "--base is for a stream of changes; see --since and --skip-unallocated"),
        ({"identity": SendIdentity(ID, BASE), "options": SendOptions(skip_unallocated=True)},
         FailureError,
         "d.img has no backing file, so that it has no changes to a base; leave out --base"),
        ({"bitmaps": SendBitmaps()}, FailureError,
         "no image has any bitmap; specify a file with --bitmaps-from"),
        ({"bitmaps": SendBitmaps(("x",))}, UsageError,
         "--bitmap: no bitmap 'x'; there is no bitmap"),
        ({"formats": {"e": "raw"}}, UsageError, "-f: no device 'e'; there is the device 'd'"),
        ({"manifest": "s.bin"}, UsageError,
         "the manifest (s.bin) and the target (s.bin) are the same file"),
        ({"manifest": "./d.img"}, UsageError,
         "the image of 'd' (d.img) and the manifest (./d.img) are the same file"),
        ({"token": token(filled(2))}, FailureError,
         f"d.img does not begin with the {MIB} bytes that were received: it was written since, or "
         "is another disk (device 'd'); send the whole stream, to replay --restart"),
        ({"changes": SendChanges(mark="m")}, UsageError,
         "--mark: d.img is not a qcow2 image, so that nothing would record its changes"),
        ({"options": SendOptions(machine="x" * 4097)}, UsageError, "--machine: over 4096 bytes"),
    ],
)  # fmt: skip
def test_what_is_refused(given: dict[str, Any], error: type[BlkmigError], said: str) -> None:
    before = here()
    with pytest.raises(error) as raised:
        send({"d": "d.img"}, "s.bin", **given)
    assert str(raised.value) == said
    assert here() == before


def test_a_target_that_is_an_image_or_its_bitmaps() -> None:
    bitmaps()
    for target, said in (
        ("./d.img", "the image of 'd' (d.img) and the target (./d.img) are the same file"),
        ("d.img.bitmaps.json",
         "the bitmaps file (d.img.bitmaps.json) and the target (d.img.bitmaps.json) are the same "
         "file"),
    ):  # fmt: skip
        before = here()
        with pytest.raises(UsageError) as error:
            send({"d": "d.img"}, target, bitmaps=SendBitmaps())
        assert str(error.value) == said
        assert here() == before


@pytest.mark.parametrize(
    ("state", "new", "warns"),
    [
        ("writing", False, True),
        ("incomplete", False, True),
        ("written", False, True),
        ("finished", False, False),
        ("writing", True, False),
    ],
)
def test_an_image_that_was_written_in_part(state: State, new: bool, warns: bool) -> None:
    stop = Stop(0, None, 0, False, (), ()) if state == "incomplete" else None
    write_journal(neighbours_of("d.img"), Entry(state, new, MIB, stop=stop))
    put(filled(1), "e.img")
    warnings: list[str] = []
    result = send({"d": "d.img", "e": "e.img"}, "s.bin", warn=warnings.append)
    text = (
        "d.img: a replay onto it did not finish, as d.img.replay.json says; "
        "see blkmig replay --resume"
    )
    assert warnings == list(result.warnings) == ([text] if warns else [])
    Path("d.img.replay.json").write_text("{")
    assert send({"d": "d.img"}, "s.bin").warnings == ()


@pytest.mark.parametrize(
    ("changes", "options", "identity", "manifest", "number"),
    [
        ({None: "b"}, {}, SendIdentity(ID, BASE), None, 0),
        ({None: "b"}, {}, None, None, 1),
        ({None: "b"}, {"container": "none", "dialect": "classic"}, SendIdentity(ID, BASE), None, 1),
        ({None: "b"}, {"container": "none", "dialect": "classic"}, SendIdentity(ID, BASE), "m", 0),
        ({}, {}, None, None, 0),
    ],
)
def test_whether_anything_states_that_it_is_an_increment(
    changes: dict[str | None, str], options: dict[str, Any], identity: SendIdentity | None,
    manifest: str | None, number: int,
) -> None:  # fmt: skip
    bitmaps()
    text = "nothing in the stream states that it is an increment; its readers need --incremental"
    result = send(
        {"d": "d.img"}, "s.bin", SendOptions(**options), changes=SendChanges(changes),
        identity=identity, manifest=manifest,
    )  # fmt: skip
    assert list(result.warnings).count(text) == number
    assert (result.manifest is not None) == (manifest is not None)


class Shown:
    """Progress that is noted."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None]] = []
        self.last: list[object] = []

    @contextmanager
    def __call__(self, what: str, total: int | None) -> Iterator[Any]:
        self.steps.append((what, total))
        yield lambda *given, **named: self.last.append((given, named))


def test_the_result() -> None:
    put(filled(2, MIB + 512), "e.img")
    shown = Shown()
    result = send(
        {"d": "d.img", "e": "e.img"}, "s.bin", identity=SendIdentity(ID), manifest="m.json",
        progress=shown,
    )  # fmt: skip
    assert shown.steps == [("sending", 2 * MIB + 512), ("hashing", 2 * MIB + 512)]
    assert result.written == Path("s.bin").stat().st_size
    assert result.manifest is not None
    assert result.manifest.identity is not None
    assert result.manifest.identity.id == ID
    assert {name: disk.size for name, disk in result.manifest.disks.items()} == {
        "d": MIB, "e": MIB + 512
    }  # fmt: skip
    assert json.loads(Path("m.json").read_text())["blkmig"]["id"] == ID
    assert send({"d": "d.img"}, "s.bin").manifest is None


@pytest.mark.parametrize(
    ("options", "content"),
    [({}, True), ({"disks": False}, False), ({"skip_unallocated": True}, False)],
)
def test_whether_a_manifest_has_the_digests_of_disks(
    options: dict[str, Any], content: bool
) -> None:
    bitmaps()
    result = send(
        {"d": "d.img"}, "s.bin", SendOptions(**options), manifest="m.json", bitmaps=SendBitmaps()
    )  # fmt: skip
    assert result.manifest is not None
    assert (result.manifest.disks["d"].sha256 is not None) is content
    assert list(result.manifest.bitmaps) == [("d", "b")]


def test_the_manifest_of_an_increment_is_of_the_whole_disk() -> None:
    bitmaps()
    result = send(
        {"d": "d.img"}, "s.bin", changes=SendChanges({None: "b"}), manifest="m.json",
        identity=SendIdentity(ID, BASE),
    )  # fmt: skip
    assert result.manifest is not None
    assert result.manifest.disks["d"].sha256 is not None


@pytest.mark.parametrize(("dialect", "states"), [("qemu", True), ("v1", False), ("v2", True)])
def test_flags_of_bitmaps_in_a_manifest(dialect: str, states: bool) -> None:
    """v1 does not carry them."""
    bitmaps()
    result = send(
        {"d": "d.img"}, "s.bin", SendOptions(dialect), manifest="m.json", bitmaps=SendBitmaps()
    )  # fmt: skip
    assert result.manifest is not None
    assert (result.manifest.bitmaps["d", "b"].recording is not None) is states


def test_the_estimate() -> None:
    """Nothing is written, and nothing is compared."""
    warnings: list[str] = []
    whole = send({"d": "d.img"}, "s.bin", identity=SendIdentity(ID)).written
    Path("s.bin").unlink()
    before = here()
    result = send(
        {"d": "d.img"}, None, identity=SendIdentity(ID), only_estimate=True, warn=warnings.append,
        for_qemu=(9, 1),
    )  # fmt: skip
    assert (result.written, result.manifest) == (whole, None)
    assert warnings == list(result.warnings)
    assert len(warnings) == 1
    send({"d": "d.img"}, None, only_estimate=True, token=token(filled(2)))
    assert here() == before


def test_the_rest() -> None:
    put(filled(1) + filled(2), "d.img")
    shown = Shown()
    whole = send({"d": "d.img"}, "s.bin").written
    result = send({"d": "d.img"}, "t.bin", token=token(), progress=shown)
    assert MIB - 100 < whole - result.written < MIB + 100
    assert shown.steps == [("comparing", MIB), ("sending", 2 * MIB)]


# -- how images are opened


@pytest.mark.parametrize(
    ("given", "how"),
    [
        ({}, {}),
        ({"shared": True}, {"shared": True}),
        ({"formats": {None: "raw"}}, {"image_format": "raw"}),
        ({"formats": {"d": "raw", None: "qcow2"}}, {"image_format": "raw"}),
        ({"options": SendOptions(skip_unallocated=True)}, {"own_layer": True}),
        ({"bitmaps": SendBitmaps()}, {"bitmaps": True}),
        ({"changes": SendChanges({None: "b"})}, {"bitmaps": True}),
    ],
)
def test_how_images_are_opened(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], how: dict[str, Any]
) -> None:
    """And that they are closed."""
    bitmaps()
    asked: list[dict[str, Any]] = []
    closed: list[str] = []
    original = module.__dict__["open_image"]

    def open_image(path: str, **named: Any) -> Any:
        named.pop("register")
        asked.append(named)
        made = original(path, **named)
        close = made.close

        def closing() -> None:
            closed.append(path)
            close()

        monkeypatch.setattr(made, "close", closing)
        return made

    monkeypatch.setattr(module, "open_image", open_image)
    send({"d": "d.img"}, "s.bin", **given)
    plain = {
        "image_format": None, "writable": False, "shared": False, "own_layer": False,
        "bitmaps": False,
    }  # fmt: skip
    assert asked == [plain | how]
    assert closed == ["d.img"]


@pytest.mark.parametrize(("only_estimate", "writable"), [(False, True), (True, False)])
def test_an_image_whose_bitmaps_are_written(
    monkeypatch: pytest.MonkeyPatch, only_estimate: bool, writable: bool
) -> None:
    asked: list[bool] = []

    def open_image(_: str, **named: Any) -> Any:
        asked.append(named["writable"])
        raise FailureError("enough")

    monkeypatch.setattr(module, "open_image", open_image)
    with pytest.raises(FailureError, match="enough"):
        send(
            {"d": "d.img"}, "s.bin", changes=SendChanges(mark="m"), only_estimate=only_estimate
        )  # fmt: skip
    with pytest.raises(FailureError, match="enough"):
        send(
            {"d": "nbd://h/x"}, "s.bin", changes=SendChanges(mark="m"), only_estimate=only_estimate
        )  # fmt: skip
    assert asked == [writable, False]


@pytest.mark.parametrize(
    ("target", "container", "version", "confirmed"),
    [
        ("tcp:127.0.0.1:1", "qemu", (7, 2), True),
        ("unix:none", "qemu", (2, 5), True),
        ("unix:none", "qemu", (2, 4), False),
        ("unix:none", "qemu", None, False),
        ("unix:none", "none", (7, 2), False),
        ("s.bin", "qemu", (7, 2), False),
    ],
)
def test_where_a_confirmation_is_requested(
    monkeypatch: pytest.MonkeyPatch, target: str, container: str,
    version: tuple[int, int] | None, confirmed: bool,
) -> None:  # fmt: skip
    asked: list[bool] = []

    @contextmanager
    def open_target(name: str, _: object, *, confirmed: bool) -> Iterator[Any]:
        assert name == target
        asked.append(confirmed)
        raise FailureError("enough")
        yield

    monkeypatch.setattr(module, "open_target", open_target)
    options = SendOptions("classic" if container == "none" else "qemu", container)
    with pytest.raises(FailureError, match="enough"):
        send({"d": "d.img"}, target, options, for_qemu=version)
    assert asked == [confirmed]
