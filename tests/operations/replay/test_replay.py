"""What the result of a replay tells, in each of its ends; and when a pipe is copied first."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.checks.manifest import BitmapEntry, DiskEntry, Manifest
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from blkmig_cli.errors import FailureError, UsageError
from blkmig_cli.operations.replay import held, writer
from blkmig_cli.operations.replay import replay as module
from blkmig_cli.operations.replay.judgement import Reading, judge
from blkmig_cli.operations.replay.replay import replay
from blkmig_cli.operations.replay.request import ReplayRequest, ReplayResult
from blkmig_cli.transport.source import open_stream
from blkmig_cli.transport.spool import spool as spool_file
from blkmig_cli.wire.announcement import announcement
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.identity import DiskIdentity, Identity
from tests.support import raw
from tests.support.feed import encoded
from tests.support.replays import (
    BITMAP,
    DISK,
    GAP,
    MIB,
    STREAM,
    TWO,
    data,
    filled,
    folder,
    here,
    put,
    source,
)  # fmt: skip

__all__ = ["folder"]

both_kinds = pytest.mark.parametrize("kind", ["file", "pipe"])
ID, BASE = (f"{at}1234567-89ab-cdef-0123-456789abcdef" for at in range(2))
NEW: Any = {"create": True}
#: With progress before each chunk, as a stream has it that announces an increment.
COUNTED = raw.qemu(raw.progress(0), data(0, 1), raw.progress(50), data(2048, 2), bitmaps=BITMAP)


def replayed(kind: str, images: dict[str | None, str] | None = None, **more: Any) -> ReplayResult:
    request = ReplayRequest({"d": "x"} if images is None else images, **more)
    with open_stream(source(kind)) as stream:
        return replay(stream, request)


def shown(result: ReplayResult) -> tuple[Any, ...]:
    return (
        result.accepted, result.written, result.bitmap_files, result.partial_images,
        result.resumed, result.applied, result.warnings,
    )  # fmt: skip


@both_kinds
def test_a_whole_stream(kind: str) -> None:
    put(STREAM)
    result = replayed(kind, **NEW)
    assert shown(result) == (True, {"d": 2 * MIB}, ["x.bitmaps.json"], [], {}, (), [])
    assert read_bitmaps("x.bitmaps.json").size == 2 * MIB
    # Once more: it is finished, and nothing of it is written again.
    Path("x.bitmaps.json").unlink()
    result = replayed(kind, **NEW, resume=True)
    assert shown(result) == (True, {"d": 0}, [], [], {"d": None}, (), [])
    assert not Path("x.bitmaps.json").exists()


@both_kinds
def test_an_incomplete_stream(kind: str) -> None:
    put(GAP)
    result = replayed(kind, **NEW)
    if kind == "file":
        assert shown(result) == (False, {}, [], [], {}, (), [])
        assert set(here()) == {"s.bin"}
        return
    assert shown(result) == (False, {"d": MIB}, [], ["x.partial"], {}, (), [])
    journal = json.loads(Path("x.replay.json").read_text())
    assert (journal["least"], journal["most"], journal["end"]) == (2 * MIB, 2 * MIB, MIB)
    assert (journal["damaged"], journal["position"]) == (False, len(GAP))
    assert [found["id"] for found in journal["findings"]] == ["missing-chunks"]
    assert journal["bitmaps"] == [{"name": "b"}]
    # Now with the rest; and what was applied before is compared only.
    put(STREAM)
    with pytest.raises(FailureError, match="of another stream") as error:
        replayed(kind, **NEW, resume=True)
    assert error.value.__notes__ == ["x.partial is incomplete; use --resume to continue"]


def test_a_stream_that_was_cut_off() -> None:
    cut = STREAM.index(raw.word(2048, 1)) + 99
    put(STREAM[:cut])
    result = replayed("pipe", **NEW)
    assert shown(result) == (False, {"d": MIB}, [], ["x.partial"], {}, (), [])
    journal = json.loads(Path("x.replay.json").read_text())
    at = journal["position"]
    assert (journal["damaged"], journal["bitmaps"], journal["records"]) == (True, [], 1)
    assert [found["id"] for found in journal["findings"]] == ["truncated"]
    put(STREAM)
    result = replayed("file", **NEW, resume=True)
    assert shown(result) == (
        True, {"d": MIB}, ["x.bitmaps.json"], [], {"d": at}, (), []
    )  # fmt: skip
    assert Path("x").read_bytes() == DISK


def test_notes_on_what_is_incomplete() -> None:
    """Of all images that have been begun, with the verb that fits."""
    put(TWO[: TWO.index(raw.block(0, 0, "e")) + 500])
    images: Any = {"d": "x", "e": "y\n"}
    assert not replayed("pipe", images, **NEW).accepted
    with pytest.raises(UsageError, match="no STREAM") as error:
        replay(None, ReplayRequest(images, resume=True))
    assert not hasattr(error.value, "__notes__")
    put(b"not a stream")
    for name in ("x", "y\n"):
        journal = json.loads(Path("x.replay.json").read_text())
        put(json.dumps(journal | {"device": "d"}).encode(), f"{name}.replay.json")
        put(filled(1), f"{name}.partial")
    with pytest.raises(FailureError) as failure:
        replay(None, ReplayRequest({**images, "f": "z"}, resume=True, allow_incomplete=True, **NEW))
    assert failure.value.__notes__ == [
        "x.partial, y\\x0a.partial are incomplete; use --resume to continue"
    ]


def test_where_an_image_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    put(STREAM)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    for kind in ("file", "pipe"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            result = replayed(kind, **NEW, restart=kind == "pipe")
        assert shown(result) == (False, {"d": 0}, [], ["x.partial"], {}, (), [])
        failure = result.report.failure
        assert isinstance(failure, FailureError)
        assert failure.device == "d"
        assert result.exit_status == 4
        assert "input-failed" in [found.id for found in result.report.findings]


@both_kinds
def test_two_devices(kind: str) -> None:
    put(TWO)
    result = replayed(kind, {"d": "x", "e": "y"}, **NEW)
    assert result.written == {"d": MIB, "e": MIB}
    assert len(result.warnings) == 2
    result = replayed(kind, {"d": "z"}, **NEW, devices=frozenset("d"))
    assert result.written == {"d": MIB}


@both_kinds
def test_a_dry_run(kind: str) -> None:
    put(STREAM)
    several: list[Any] = [{"d": "x"}, {}]
    for images in several:
        result = replayed(kind, images, dry_run=True, create=bool(images))
        assert shown(result) == (True, {}, [], [], {}, (), [])
    put(GAP)
    assert not replayed(kind, {}, dry_run=True).accepted
    assert set(here()) == {"s.bin"}


@both_kinds
@pytest.mark.parametrize(
    ("content", "devices"),
    [(STREAM, "the device 'd'"), (TWO, "the devices 'd', 'e'"), (raw.qemu(), "no devices")],
)
def test_without_an_image(kind: str, content: bytes, devices: str) -> None:
    put(content)
    with pytest.raises(UsageError) as error:
        replayed(kind, {})
    assert str(error.value) == (
        f"no --image is specified; the stream has {devices}; "
        "use --image DEVICE=IMAGE for each, or --dry-run"
    )


@both_kinds
def test_bitmaps_only(kind: str) -> None:
    put(STREAM)
    put(filled(9, 2 * MIB), "x")
    result = replayed(kind, disks=False)
    assert shown(result) == (True, {}, ["x.bitmaps.json"], [], {}, (), [])
    assert Path("x").read_bytes() == filled(9, 2 * MIB)


@both_kinds
def test_bitmaps_that_are_kept(kind: str) -> None:
    put(STREAM)
    put(filled(9, 2 * MIB), "x")
    found = BitmapFile(2 * MIB, {name: DirtyBitmap(name, 512) for name in ("b", "c", "e")})
    write_bitmaps("x.bitmaps.json", found)
    result = replayed(kind)
    assert result.warnings == [
        "x.bitmaps.json: bitmaps that do not record this write were kept: 'c', 'e'"
    ]
    for more in ({"bitmaps": False}, {"bitmap_files": {"d": "f"}}):
        result = replayed(kind, **more)
        assert result.warnings == ["x.bitmaps.json: kept, but it does not record this write"]
    assert result.bitmap_files == ["f"]


# -- against a manifest


def manifest(**changed: Any) -> Manifest:
    digest = hashlib.sha256(DISK).hexdigest()
    return Manifest(disks={"d": DiskEntry("d", 2 * MIB, changed.get("digest", digest))})


@both_kinds
def test_a_manifest(kind: str) -> None:
    put(raw.qemu(data(0, 1), data(2048, 2)))
    assert replayed(kind, **NEW, manifest=manifest()).accepted
    result = replayed(kind, {"d": "y"}, **NEW, manifest=manifest(digest="0" * 64))
    assert (result.accepted, result.partial_images) == (False, ["y.partial"])
    (found,) = [each for each in result.report.findings if each.severity == "error"]
    assert (found.id, found.device) == ("manifest-differs", "d")
    journal = json.loads(Path("y.replay.json").read_text())
    assert journal["state"] == "incomplete"
    assert [each["id"] for each in journal["findings"]] == ["manifest-differs"]


@both_kinds
@pytest.mark.parametrize(("name", "taken", "differs"), [("e", False, False), ("e", True, True)])
def test_a_manifest_with_another_disk(kind: str, name: str, taken: bool, differs: bool) -> None:
    """One that is not taken is not missed."""
    put(raw.qemu(data(0, 1), data(2048, 2)))
    wanted = manifest()
    wanted.disks[name] = DiskEntry(name, MIB, "0" * 64)
    devices = None if taken else frozenset("d")
    result = replayed(kind, **NEW, manifest=wanted, devices=devices)
    assert result.accepted is not differs


@both_kinds
def test_a_manifest_of_a_disk_on_a_larger_image(kind: str) -> None:
    """Only the disk counts."""
    put(raw.qemu(data(0, 1), data(2048, 2)))
    put(filled(9, 3 * MIB), "x")
    hints = Hints({"d": 2 * MIB})
    assert replayed(kind, manifest=manifest(), hints=hints).accepted
    assert Path("x").read_bytes() == DISK + filled(9)


# -- a pipe that is copied first


@contextmanager
def spooled(patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note whether the stream of a pipe is copied."""
    done: list[str] = []

    def spool(*given: Any) -> Any:
        done.append("copied")
        return spool_file(*given)

    patch.setattr(module, "spool", spool)
    yield done


def named(content: bytes, *, full: bool, announced: bool = True) -> bytes:
    disk = {"size": 2 * MIB, "full": full, "since": None, "mark": None}
    found = {"version": 1, "id": ID, "base": BASE, "incremental": True,
             "created": "2026-01-31T23:59:59Z", "consistency": "crash", "disks": {"d": disk}}  # fmt: skip
    text = json.dumps({"devices": [], "blkmig": found}).encode()
    if announced:
        start = raw.start(1, "block", 1, raw.EOS)
        with_it = raw.start(1, "block", 1, encoded([announcement()]) + raw.EOS)
        assert content.count(start) == 1
        content = content.replace(start, with_it)
    return content + b"\6" + len(text).to_bytes(4, "big") + text


@pytest.mark.parametrize(
    ("content", "more", "existing", "copied"),
    [
        (STREAM, NEW, False, False),
        (STREAM, {}, True, False),
        (named(COUNTED, full=False), {"base_check": False}, True, True),
        (named(COUNTED, full=False), {"base_check": False, "dry_run": True}, True, False),
        (named(COUNTED, full=False), {**NEW, "base_check": False}, False, False),
        (named(COUNTED, full=False, announced=False), {"base_check": False}, True, False),
        (STREAM, {"number": 1}, True, False),
        (raw.qemu() + STREAM, {"number": 2}, True, True),
        (raw.qemu() + STREAM, {"number": 2, **NEW}, False, False),
    ],
)
def test_pipes_that_are_copied_first(
    monkeypatch: pytest.MonkeyPatch, content: bytes, more: dict[str, Any], existing: bool,
    copied: bool,
) -> None:  # fmt: skip
    """Those that may be an increment of an existing image, which its end tells."""
    put(content)
    if existing:
        put(filled(9, 2 * MIB), "x")
    with spooled(monkeypatch) as done:
        assert replayed("pipe", **more).accepted
    assert bool(done) is copied
    if not more.get("dry_run"):
        assert Path("x").read_bytes() == DISK


@pytest.mark.parametrize(("incremental", "copied"), [(True, True), (False, False)])
def test_a_manifest_that_says_it_is_an_increment(
    monkeypatch: pytest.MonkeyPatch, incremental: bool, copied: bool
) -> None:
    put(raw.qemu(data(0, 1), data(2048, 2)))
    put(filled(9, 2 * MIB), "x")
    disks = {"d": DiskIdentity(2 * MIB, not incremental)}
    wanted = manifest()
    wanted.identity = Identity(ID, BASE if incremental else None, incremental, "", "crash", disks)
    with spooled(monkeypatch) as done:
        assert replayed("pipe", manifest=wanted, base_check=False).accepted
    assert bool(done) is copied


def test_an_increment_that_is_applied_already() -> None:
    put(named(COUNTED, full=False))
    put(filled(9, 2 * MIB), "x")
    assert replayed("file", verify_base=base()).accepted
    at = os.stat("x").st_mtime_ns
    for kind in ("file", "pipe"):
        result = replayed(kind)
        assert shown(result) == (True, {}, [], [], {}, ("d",), [])
    assert os.stat("x").st_mtime_ns == at


def base() -> Manifest:
    digest = hashlib.sha256(filled(9, 2 * MIB)).hexdigest()
    identity = Identity(BASE, None, False, "", "crash", {"d": DiskIdentity(2 * MIB, True)})
    return Manifest("m", {"d": DiskEntry("d", 2 * MIB, digest)}, {}, identity)


# -- records that are decoded once or twice


@pytest.mark.parametrize(("room", "times"), [(16 << 20, 1), (-1, 2)])
def test_how_often_a_file_is_decoded(
    monkeypatch: pytest.MonkeyPatch, room: int, times: int
) -> None:
    monkeypatch.setattr(held, "_ROOM", room)
    decoded = []
    original = Reading.from_start

    def from_start(self: Any) -> Any:
        decoded.append(1)
        return original(self)

    monkeypatch.setattr(Reading, "from_start", from_start)
    put(STREAM)
    ticks: list[int] = []
    with open_stream("s.bin") as stream:
        result = replay(
            stream, ReplayRequest({"d": "x"}, **NEW), lambda at, _=None: ticks.append(at)
        )
    assert result.accepted
    assert len(decoded) == times
    assert Path("x").read_bytes() == DISK
    assert ticks == sorted(ticks)
    assert ticks


@both_kinds
def test_bitmaps_in_the_journal(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says whether the stream has some, for a resume token."""
    monkeypatch.setattr(writer, "_CHECKPOINT", 1)
    for content, has in ((STREAM, True), (raw.qemu(data(0, 1)), False)):
        put(content)
        assert replayed(kind, **NEW).accepted
        assert json.loads(Path("x.replay.json").read_text())["has-bitmaps"] is has
        for path in set(here()) - {"s.bin"}:
            Path(path).unlink()
    put(raw.qemu(raw.block(0, 0x70, rest=raw.v2(2048, ("b", 1, 65536, b"")) + filled(1))))
    assert replayed(kind, **NEW).accepted
    assert json.loads(Path("x.replay.json").read_text())["has-bitmaps"] is True


def test_a_file_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    put(STREAM)

    def judged(*given: Any) -> Any:
        found = judge(*given)
        with open("s.bin", "ab") as file:
            file.write(b"x")
        return found

    monkeypatch.setattr(module, "judge", judged)
    result = replayed("file", **NEW)
    failure = result.report.failure
    assert isinstance(failure, FailureError)
    assert str(failure) == "s.bin was changed while it was read"
    assert result.partial_images == ["x.partial"]


@both_kinds
def test_files_that_are_read_and_written(kind: str) -> None:
    """The stream, and the manifest, are no images."""
    put(STREAM)
    put(b"{}", "m.json")
    wanted = manifest()
    wanted.path = "m.json"
    with pytest.raises(UsageError) as error:
        replayed(kind, {"d": "m.json"}, manifest=wanted)
    assert str(error.value) == (
        "the manifest (m.json) and the image of 'd' (m.json) are the same file"
    )
    if kind == "file":
        with pytest.raises(UsageError) as same:
            replayed(kind, {"d": "./s.bin"})
        assert str(same.value) == (
            "the stream (s.bin) and the image of 'd' (./s.bin) are the same file"
        )


@both_kinds
def test_bitmaps_against_a_manifest(kind: str) -> None:
    """Of the devices that are taken, unless none is applied."""
    put(STREAM)
    wanted = manifest()
    wanted.bitmaps["d", "b"] = BitmapEntry("d", "b", 65536, True, False, 131072, "0" * 64)
    result = replayed(kind, **NEW, manifest=wanted)
    assert [found.id for found in result.report.findings if found.severity == "error"] == [
        "manifest-differs"
    ]
    assert replayed(kind, {"d": "y"}, **NEW, manifest=wanted, bitmaps=False).accepted
