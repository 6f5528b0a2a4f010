"""Manifests: send writes what others compute, validate finds whatever differs, damaged ones are refused."""

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli import limits
from blkmig_cli.checks.manifest import check_images, read_manifest, write_manifest
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from blkmig_cli.disks.raw import open_raw
from blkmig_cli.errors import FailureError
from blkmig_cli.progress import no_tick
from tests.conftest import Capture, Run, fails
from tests.support import raw
from tests.support.strategies import bitmaps

MIB = 1 << 20
SIZE = 5 * MIB + 3 * 512


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with holes inside and at its end, and two bitmaps."""
    path = tmp_path / "a.img"
    with open(path, "wb") as file:
        file.write(b"\1" * MIB)
        file.seek(3 * MIB + 777)
        file.write(b"\2" * MIB)
        file.truncate(SIZE)
    daily = DirtyBitmap("daily", 65536)
    daily.set_range(SIZE - 1, 1)
    fine = DirtyBitmap("fine", 512, recording=False, persistent=True)
    fine.set_range(0, 4096)
    write_bitmaps(f"{path}.bitmaps.json", BitmapFile(SIZE, {"daily": daily, "fine": fine}))
    return path


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    return tmp_path / "s.bin"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "m.json"


def words_digest(bitmap: DirtyBitmap, size: int) -> str:
    """Counted out bit by bit: what QEMU hashes are little-endian words up to the disk's end."""
    granules = -(-size // bitmap.granularity)
    bits = bytearray(-(-granules // 64) * 8)
    for start, length in bitmap.ranges(size):
        for at in range(start, start + length, bitmap.granularity):
            granule = at // bitmap.granularity
            bits[granule // 8] |= 1 << granule % 8
    return hashlib.sha256(bits).hexdigest()


def ids(outcome: Any) -> list[str]:
    return [finding["id"] for finding in outcome.report["findings"]]


@pytest.mark.parametrize("dialect", ["qemu", "v1", "v2"])
def test_what_send_writes(run: Run, disk: Path, stream: Path, manifest: Path, dialect: str) -> None:
    words = ("send", disk, "--bitmaps", "--dialect", dialect, "--to", stream, "-q")
    assert run(*words, "--manifest", manifest).status == 0
    found = json.loads(manifest.read_text())
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    assert found["devices"] == [{"device": "drive0", "size": SIZE, "sha256": digest}]
    held = read_bitmaps(f"{disk}.bitmaps.json").bitmaps
    assert found["bitmaps"] == [
        {
            "device": "drive0",
            "name": bitmap.name,
            "granularity": bitmap.granularity,
            "recording": None if dialect == "v1" else bitmap.recording,
            "persistent": None if dialect == "v1" else bitmap.persistent,
            "count": bitmap.count(SIZE),
            "sha256": words_digest(bitmap, SIZE),
        }
        for bitmap in held.values()
    ]
    outcome = run("validate", stream, "--manifest", manifest)
    assert outcome.status == 0
    assert f"matches {manifest}" in outcome.out
    # ... and without it, the report does not mention it.
    assert "matches" not in run("validate", stream).out


@given(st.data(), st.integers(1, 6145))
def test_digests_of_bitmaps(data: st.DataObject, sectors: int) -> None:
    bitmap = data.draw(bitmaps(sectors * 512, "b"))
    assert bitmap.sha256(sectors * 512) == words_digest(bitmap, sectors * 512)


def test_captures(run: Run, capture: Capture, manifest: Path) -> None:
    """The digests that other programs took of the source: sha256sum of its disks, QEMU of its bitmaps."""
    truth = capture.truth
    devices = [
        {
            "device": name,
            "size": disk["size"],
            "sha256": disk["sha256"] if truth["has_blocks"] else None,
        }
        for name, disk in truth["devices"].items()
    ]
    carried = truth["dialect"] != "v1"
    entries = [
        {
            **{key: bitmap[key] for key in ("device", "name", "granularity", "count", "sha256")},
            "recording": bitmap["enabled"] if carried else None,
            "persistent": bitmap["persistent"] if carried else None,
        }
        for bitmap in truth["bitmaps"]
    ]
    document = {"version": 1, "devices": devices, "bitmaps": entries}
    manifest.write_text(json.dumps(document))
    words = ("validate", capture.path, "--manifest", manifest, "--output", "json")
    sent_whole = truth["complete"] and "base_sha256" not in truth
    assert ("manifest-differs" in ids(run(*words))) != sent_whole
    outcome = run(*words, "--incremental")
    assert ("manifest-unchecked" in ids(outcome)) != sent_whole
    assert "manifest-differs" not in ids(outcome)
    # ... and a digest of something else is noticed.
    for entry in [*devices, *entries] if sent_whole else []:
        kept = entry["sha256"]
        if kept is not None:
            entry["sha256"] = "0" * 64
            manifest.write_text(json.dumps(document))
            assert ids(run(*words)).count("manifest-differs") == 1
            entry["sha256"] = kept


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another disk": ({"devices.0.device": "x"}, "the disk is not in the manifest"),
    "another size": (
        {"devices.0.size": SIZE + MIB},
        f"the disk has {SIZE} bytes, not {SIZE + MIB}",
    ),
    "another digest": ({"devices.0.sha256": "0" * 64}, "not 000000000000..."),
    "another bitmap": ({"bitmaps.0.name": "x"}, "'x': is missing"),
    "no such bitmap": ({"bitmaps.0.name": "x"}, "'daily': is not in the manifest"),
    "another granularity": ({"bitmaps.0.granularity": 512}, "granularity is 65536, not 512"),
    "another count": ({"bitmaps.0.count": 512}, "1536 bytes are dirty, not 512"),
    "another bitmap's digest": ({"bitmaps.1.sha256": "0" * 64}, "but others"),
    "another flag": ({"bitmaps.1.recording": True}, "it is not recording"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_differs(run: Run, disk: Path, stream: Path, manifest: Path, name: str) -> None:
    words = ("send", disk, "--bitmaps", "--to", stream, "--manifest", manifest, "-q")
    assert run(*words).status == 0
    changes, text = CHANGES[name]
    document = json.loads(manifest.read_text())
    for place, value in changes.items():
        kind, index, key = place.split(".")
        document[kind][int(index)][key] = value
        if key == "device":
            document["bitmaps"] = []
    manifest.write_text(json.dumps(document))
    outcome = run("validate", stream, "--manifest", manifest)
    assert outcome.status == 1
    assert "manifest-differs" in outcome.out
    assert text in outcome.out
    assert "matches" not in outcome.out


def test_a_disk_that_the_manifest_does_not_name(
    run: Run, disk: Path, stream: Path, manifest: Path
) -> None:
    words = ("send", disk, "--to", stream, "--manifest", manifest, "-q")
    assert run(*words).status == 0
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(document | {"devices": [], "bitmaps": []}))
    outcome = run("validate", stream, "--manifest", manifest)
    assert outcome.status == 1
    assert "the disk is not in the manifest" in outcome.out


def test_one_byte_of_data(run: Run, disk: Path, stream: Path, manifest: Path) -> None:
    """Only the manifest's digests can show this."""
    assert run("send", disk, "--to", stream, "--manifest", manifest, "-q").status == 0
    content = bytearray(stream.read_bytes())
    content[content.index(b"\2\2\2\2") + 99] = 3
    stream.write_bytes(content)
    assert run("validate", stream).status == 0
    outcome = run("validate", stream, "--manifest", manifest, "--output", "json")
    assert (outcome.status, ids(outcome)) == (1, ["manifest-differs"])
    smaller = run("validate", stream, "--manifest", manifest, "--device-size", SIZE - 512)
    assert f"the disk has {SIZE - 512} bytes, not {SIZE}" in smaller.out


@pytest.mark.parametrize("option", ["--bitmaps-only", "--skip-unallocated"])
def test_what_is_not_sent_whole(
    run: Run, disk: Path, stream: Path, manifest: Path, option: str
) -> None:
    """Such disks have no digest; a pipe will do, as none is read."""
    words = ("send", disk, "--bitmaps", option, "--to", stream, "--manifest", manifest, "-q")
    assert run(*words).status == 0
    assert json.loads(manifest.read_text())["devices"] == [
        {"device": "drive0", "size": SIZE, "sha256": None}
    ]
    outcome = run("validate", f"exec:cat {stream}", "--manifest", manifest, "--incremental")
    assert outcome.status == 0
    assert "matches" in outcome.out


def test_a_pipe_is_kept(run: Run, disk: Path, stream: Path, manifest: Path) -> None:
    run("send", disk, "--to", stream, "--manifest", manifest, "-q")
    outcome = run("validate", f"exec:cat {stream}", "--manifest", manifest)
    assert outcome.status == 0
    assert "matches" in outcome.out


def test_a_damaged_stream_is_not_compared(
    run: Run, disk: Path, stream: Path, manifest: Path
) -> None:
    run("send", disk, "--to", stream, "--manifest", manifest, "-q")
    stream.write_bytes(stream.read_bytes()[:-50])
    outcome = run("validate", stream, "--manifest", manifest)
    assert outcome.status == 3
    assert "manifest" not in outcome.out.replace(str(manifest), "")


def test_no_manifest_before_its_stream(run: Run, disk: Path, stream: Path, manifest: Path) -> None:
    """A stream that is not sent writes no manifest, and an existing one stays."""
    manifest.write_text("old")
    words = ("send", disk, "--manifest", manifest, "-q")
    fails(run(*words, "--to", "/dev/full"), 4, "No space left")
    fails(run(*words, "--to", "exec:cat >/dev/null; exit 3"), 4, "status 3")
    assert manifest.read_text() == "old"
    fails(run(*words, "-U", "--to", stream), 2, "may change after it was sent")
    for path in (disk, stream, Path(f"{disk}.bitmaps.json")):
        named = ("send", disk, "--bitmaps-from", f"{disk}.bitmaps.json", "--to", stream, "-q")
        fails(run(*named, "--manifest", path), 2, "are the same file")
    assert not stream.exists()
    fails(
        run("send", disk, "-q", "--to", stream, "--manifest", "/dev/null"), 4, "not a regular file"
    )
    assert Path("/dev/null").is_char_device()


def test_check_images(run: Run, disk: Path, stream: Path, manifest: Path) -> None:
    """The images that replay wrote are compared with the same manifest."""
    run("send", disk, "--bitmaps", "--to", stream, "--manifest", manifest, "-q")
    copy = disk.with_name("copy.img")
    assert run("replay", stream, "--image", copy, "--create", "-q").status == 0
    wanted = read_manifest(str(manifest))
    held = read_bitmaps(f"{copy}.bitmaps.json").bitmaps
    found = {("drive0", name): bitmap for name, bitmap in held.items()}
    image = open_raw(str(copy), writable=True)
    try:
        assert not list(check_images(wanted, {"drive0": image}, found, no_tick))
        image.write(4 * MIB, memoryview(b"x"))
        found["drive0", "daily"].set_range(0, 1)
        differences = list(check_images(wanted, {"drive0": image}, found, no_tick))
        assert [difference.device for difference in differences] == ["drive0", "drive0"]
        assert "SHA-256" in differences[0].message
        assert "'daily'" in differences[1].message
        assert not list(check_images(wanted, None, None, no_tick))
    finally:
        image.close()


ENTRY = {"device": "d", "size": 1024, "sha256": "a" * 64}
BITMAP = {
    "device": "d", "name": "b", "granularity": 512, "recording": True, "persistent": None,
    "count": 512, "sha256": "b" * 64,
}  # fmt: skip


def document(**changes: Any) -> dict[str, Any]:
    """A good manifest, but for changes: of the root, of its disk (d_), of its bitmap (b_)."""
    root: dict[str, Any] = {"version": 1}
    entry, bitmap = dict(ENTRY), dict(BITMAP)
    for key, value in changes.items():
        kind, _, name = key.rpartition("_")
        {"": root, "d": entry, "b": bitmap}[kind][name] = value
    return {"devices": [entry], "bitmaps": [bitmap], **root}


def test_a_good_manifest(manifest: Path) -> None:
    manifest.write_text(json.dumps(document()))
    found = read_manifest(str(manifest))
    write_manifest(str(manifest), found)
    assert json.loads(manifest.read_text()) == document()
    assert read_manifest(str(manifest)) == found


DAMAGED: list[dict[str, Any]] = [
    {"devices": None},
    {"devices": [ENTRY, ENTRY]},
    {"devices": [5]},
    {"bitmaps": [BITMAP, BITMAP]},
    {"bitmaps": {}},
    {"d_device": None},
    {"d_size": -1},
    {"d_size": True},
    {"d_size": 1 << 63},
    {"d_size": 1e3},
    {"d_sha256": "A" * 64},
    {"d_sha256": "a" * 63},
    {"d_sha256": "a" * 64 + "\n"},
    {"b_device": "e"},
    {"b_name": 1},
    {"b_granularity": 1000},
    {"b_granularity": 0},
    {"b_recording": 1},
    {"b_persistent": "no"},
    {"b_count": 1025},
    {"b_sha256": None},
    {"blkmig": {}},
    {"blkmig": {"version": 2}},
    {"blkmig": 5},
]


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"version": 2}',
        *[json.dumps(document(**changes)) for changes in DAMAGED],
    ],
)
def test_damaged_manifests_are_refused(manifest: Path, damaged: str) -> None:
    manifest.write_text(damaged)
    with pytest.raises(FailureError, match=r"m\.json is not a manifest: "):
        read_manifest(str(manifest))


def test_manifests_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blkmig_cli.limits.MANIFEST_MAX", 1 << 20)
    with pytest.raises(FailureError, match="over 1 MiB"):
        read_manifest("/dev/zero")


@pytest.mark.parametrize("content", [b"x" * 512, bytes(MIB), bytes(MIB) + b"x" * 512])
def test_disks_of_all_kinds(run: Run, tmp_path: Path, content: bytes) -> None:
    """Only data, only a hole, a hole before data."""
    disk, stream, manifest = (tmp_path / name for name in ("d", "s", "m"))
    with open(disk, "wb") as file:
        file.truncate(len(content))
        if content.strip(b"\0"):
            file.seek(len(content.rstrip(b"x")))
            file.write(content.lstrip(b"\0"))
    run("send", disk, "--to", stream, "--manifest", manifest, "-q")
    (entry,) = json.loads(manifest.read_text())["devices"]
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert run("validate", stream, "--manifest", manifest).status == 0


@pytest.mark.parametrize("source", ["file", "pipe"])
def test_replay_compares_images_with_it(source: str, run: Run, tmp_path: Path) -> None:
    image, bitmaps = tmp_path / "disk.img", tmp_path / "disk.img.bitmaps.json"
    image.write_bytes(bytes([3]) * MIB + bytes(MIB) + bytes([4]) * 512)
    bitmap = DirtyBitmap("b", 65536)
    bitmap.set_range(0, 65536)
    write_bitmaps(str(bitmaps), BitmapFile(2 * MIB + 512, {"b": bitmap}))
    stream, manifest, copy = tmp_path / "s.bin", tmp_path / "m.json", tmp_path / "copy"
    words = ["send", f"d={image}", "--bitmaps", "--dialect", "v1", "--to", stream]
    assert run(*words, "--manifest", manifest).status == 0
    name = stream if source == "file" else f"exec:cat {stream}"
    words = ["replay", name, "--image", copy, "--manifest", manifest]
    assert run(*words, "--create").status == 0  # the manifest says size and granularity
    assert copy.read_bytes() == image.read_bytes()
    document = json.loads(manifest.read_text())
    document["devices"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(document))
    outcome = run(*words, "--output", "json")
    assert outcome.status == 1
    assert "manifest-differs" in [found["id"] for found in outcome.report["findings"]]
    # The image is marked as incomplete, as it is not what the manifest says.
    fails(run(*words), 4, "is incomplete")
    other = tmp_path / "other"
    other.write_bytes(image.read_bytes())
    words[3] = other
    assert run(*words, "--bitmaps-only").status == 0
    fails(run(*words, "--dry-run"), 2, "see blkmig validate")
    fails(run(*words[:-1], tmp_path / "none"), 4, "No such file")


@pytest.mark.parametrize("command", ["validate", "replay"])
def test_a_disk_that_is_only_claimed(
    run: Run, stream: Path, manifest: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes claim 64 TiB: its bits are not hashed, and the report does not call them equal."""
    monkeypatch.setattr(limits, "ZEROS_HASHED_FOR", 1 << 16)
    ranges = (b"\x42" + struct.pack(">QI", at << 31, 1 << 31) for at in range(64))
    stream.write_bytes(
        raw.qemu(bitmaps=raw.bitmap_start(granularity=512) + b"".join(ranges) + raw.COMPLETE)
    )
    bitmap = {
        "device": "d", "name": "b", "granularity": 512, "recording": True, "persistent": False,
        "count": 0, "sha256": "0" * 64,
    }  # fmt: skip
    devices = [{"device": "d", "size": 64 << 40, "sha256": None}]
    manifest.write_text(json.dumps({"version": 1, "devices": devices, "bitmaps": [bitmap]}))
    words = [command, stream, "--manifest", manifest, "--output", "json"]
    if command == "replay":
        words += ["--bitmaps-only", "--bitmaps-to", stream.with_name("b.json")]
        words += ["--device-size", "64T"]  # so large a disk must be meant
    outcome = run(*words)
    assert outcome.status == 1
    (found,) = outcome.report["findings"]
    assert found["id"] == "manifest-differs"
    assert "bitmap 'b': was not compared: too many zeros to hash (over 512 f" in found["message"]


def test_zeros_are_hashed_in_measure(
    run: Run, tmp_path: Path, stream: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there is of data decides how many; all disks and bitmaps of a manifest count together."""
    monkeypatch.setattr(limits, "ZEROS_HASHED_FOR", 8192)
    image, other = tmp_path / "a.img", tmp_path / "b.img"
    allowed = 512 * 8192
    image.write_bytes(b"")
    os.truncate(image, allowed)
    words = ["send", f"a={image}", "--to", stream, "--manifest", manifest]
    assert run(*words).status == 0
    assert run("validate", stream, "--manifest", manifest, "--device-size=4M").status == 0
    os.truncate(image, allowed + MIB)
    stream.unlink()
    outcome = run(*words)
    fails(outcome, 4, "--manifest: too many zeros to hash")
    assert "(device 'a')" in outcome.err
    assert not stream.exists()
    assert run(*words[:-2]).status == 0
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    giant = [{"device": "a", "size": allowed + MIB, "sha256": digest}]
    manifest.write_text(json.dumps({"version": 1, "devices": giant, "bitmaps": []}))
    outcome = run("validate", stream, "--manifest", manifest)
    assert outcome.status == 1
    assert "the disk was not compared: too many zeros to hash" in outcome.out
    # More data, also of another disk, allow more.
    other.write_bytes(b"x" * 16384)
    assert run(*words, f"b={other}").status == 0
    assert run("validate", stream, "--manifest", manifest).status == 0
    bitmap = DirtyBitmap("fine", 512)
    write_bitmaps(f"{other}.bitmaps.json", BitmapFile(16384, {"fine": bitmap}))
    monkeypatch.setattr(limits, "ZEROS_HASHED", 320)
    assert run(*words, f"b={other}").status == 0
    outcome = run(*words, f"b={other}", "--bitmaps")
    fails(outcome, 4, "--manifest: bitmap 'fine': too many zeros")
    assert "(device 'b')" in outcome.err


def test_only_what_is_compared_counts(
    run: Run, disk: Path, stream: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ZEROS_HASHED", 0)
    words = ["send", disk, "--to", stream, "--manifest", manifest, "--skip-unallocated"]
    assert run(*words).status == 0
    fails(run(*words, "--bitmaps"), 4, "--manifest: bitmap 'daily': too many zeros")
