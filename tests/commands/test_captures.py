"""Real streams against independent truth: disks, bitmaps, completeness, every byte accounted for."""

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap_file import read_bitmaps
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import DeviceState
from tests.conftest import (
    MANY_PARTS,
    MORE,
    NAMES,
    Capture,
    Run,
    captures_but,
    each_event,
    each_record,
    get_capture,
)
from tests.support.feed import events, in_file, piped

COARSE = 16384


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def replay(capture: Capture, run: Run, folder: Path, *options: str) -> tuple[int, dict[str, Path]]:
    images = {device: folder / f"{device}.img" for device in capture.truth["devices"]}
    words = [f"--image={device}={path}" for device, path in images.items()]
    if capture.base.exists():
        shutil.copy(capture.base, images["drive0"])
    words.append("--incremental" if capture.base.exists() else "--create")
    return run("replay", capture.path, *words, *options).status, images


def check_disks(capture: Capture, images: dict[str, Path], *, exact: bool) -> None:
    if not capture.truth.get("has_blocks", True):
        assert not any(path.exists() for path in images.values())
        return
    for device, disk in capture.truth["devices"].items():
        content = images[device].read_bytes()
        assert sha256(content[: disk["size"]]) == disk["sha256"]
        assert not exact or len(content) == disk["size"]


def check_bitmaps(capture: Capture, images: dict[str, Path], *, coarse: bool) -> None:
    for device, path in images.items():
        expected = [b for b in capture.truth["bitmaps"] if b["device"] == device]
        expected = [b for b in expected if coarse or b["granularity"] < COARSE]
        side = Path(f"{path}.bitmaps.json")
        assert side.exists() == bool(expected)
        if not expected:
            continue
        found = {bitmap["name"]: bitmap for bitmap in json.loads(side.read_text())["bitmaps"]}
        content = read_bitmaps(str(side)).bitmaps
        assert set(found) == {bitmap["name"] for bitmap in expected}
        for bitmap in expected:
            shown = found[bitmap["name"]]
            for key in ("granularity", "count", "dirty", "persistent"):
                assert shown[key] == bitmap[key]
            assert shown["recording"] == bitmap["enabled"]
            granules = -(-capture.truth["devices"][device]["size"] // bitmap["granularity"])
            words = content[bitmap["name"]].words(0, -(-granules // 64))
            assert sha256(words.tobytes()) == bitmap["sha256"]


def test_replay_with_hints(capture: Capture, run: Run, tmp_path: Path) -> None:
    status, images = replay(capture, run, tmp_path, *capture.hints())
    assert status == (0 if capture.truth["complete"] else 1)
    if capture.truth["complete"]:
        check_disks(capture, images, exact=True)
        check_bitmaps(capture, images, coarse=True)


def test_replay_without_hints(capture: Capture, run: Run, tmp_path: Path) -> None:
    """Without hints: the same disks and fine bitmaps; other granularities are reported as unknown."""
    more = []
    if capture.name == "classic-tail":
        # A last chunk that is cut by the disk's end: its size is only known within bounds.
        status, images = replay(capture, run, tmp_path)
        assert status == 1
        assert not any(path.exists() for path in images.values())
        more = ["--device-size", "max"]
    status, images = replay(capture, run, tmp_path, *more)
    v1 = capture.truth["dialect"] == "v1"
    open_bitmaps = [b for b in capture.truth["bitmaps"] if v1 and b["granularity"] >= COARSE]
    assert status == int(bool(open_bitmaps) or not capture.truth["complete"])
    if not capture.truth["complete"]:
        return
    check_disks(capture, images, exact=False)
    check_bitmaps(capture, images, coarse=not v1)
    report = run("validate", capture.path, "--output", "json").report
    candidates = {b["name"]: b["candidates"] for b in report["bitmaps"]}
    for bitmap in capture.truth["bitmaps"]:
        assert bitmap["granularity"] in candidates[bitmap["name"]]
        if bitmap not in open_bitmaps:
            assert candidates[bitmap["name"]] == [bitmap["granularity"]]


def test_validate(capture: Capture, run: Run) -> None:
    report = run("validate", capture.path, "--output", "json", *capture.hints()).report
    sizes = {name: disk["size"] for name, disk in capture.truth["devices"].items()}
    assert {d["name"]: d["size"] for d in report["devices"]} == sizes
    missing = {
        d["name"]: [(m["start"], m["length"]) for m in d["missing"]] for d in report["devices"]
    }
    mib = 1 << 20
    expected: dict[str, list[tuple[int, int]]] = {name: [] for name in sizes}
    if capture.name == "classic-incomplete":
        expected = {"drive0": [(33 * mib, sizes["drive0"] - 33 * mib)]}
    elif capture.base.exists():
        expected = {"drive0": [(0, 2 * mib), (3 * mib, 2 * mib), (6 * mib, 2 * mib)]}
    assert missing == expected
    assert report["complete"] is (not any(expected.values()))
    assert report["valid"] is report["complete"]


def test_an_incomplete_capture_is_found_without_hints(run: Run, unpacked: Path) -> None:
    outcome = run("validate", get_capture("classic-incomplete", unpacked).path, "--output", "json")
    assert outcome.status == 1
    assert outcome.report["complete"] is False
    start = outcome.report["devices"][0]["missing"][0]["start"]
    assert start == 33 << 20


def test_incremental_is_meant(run: Run, unpacked: Path) -> None:
    path = get_capture("classic-incremental-5.2", unpacked).path
    assert run("validate", path, "--device-size", "8M", "--incremental").status == 0
    assert run("validate", path, "--device-size", "8M").status == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, marks=pytest.mark.long if long else [])
        for options in ([], ["--all"])
        for name in NAMES
        for long in [name in MORE or (name == "bitmaps-7.2-with-blocks" and options != [])]
    ],
)
def test_dump_tiles_the_file(name: str, options: list[str], run: Run, unpacked: Path) -> None:
    capture = get_capture(name, unpacked)
    outcome = run("dump", capture.path, "--output", "jsonl", *options)
    assert outcome.status == 0
    at = 0
    for text in outcome.out.splitlines():
        record = json.loads(text)
        assert record["offset"] == at
        assert {"length", "section", "type"} <= set(record)
        at += record["length"]
    assert at == capture.path.stat().st_size


@each_event
def test_file_and_pipe_agree(capture: Capture) -> None:
    """All but the size of device state, which only the description at a file's end can give."""
    data = capture.data
    from_file, _ = events(in_file(data))
    from_pipe, error = events(piped(data))
    assert error is None
    assert len(from_file) == len(from_pipe)
    for one, other in zip(from_file, from_pipe, strict=True):
        if isinstance(one, DeviceState) and isinstance(other, DeviceState):
            assert (one.offset, one.length) == (other.offset, other.length)
        else:
            assert one == other


@each_record
def test_pipe_replay(capture: Capture, run: Run, tmp_path: Path) -> None:
    images = {device: tmp_path / f"{device}.img" for device in capture.truth["devices"]}
    words = [f"--image={device}={path}" for device, path in images.items()]
    if capture.base.exists():
        shutil.copy(capture.base, images["drive0"])
    words.append("--incremental" if capture.base.exists() else "--create")
    words += capture.hints()
    if capture.name == "v1-blocks-and-bitmaps":  # one of them by a process, from stdin
        command = [sys.executable, "-m", "blkmig_cli", "replay", "-", *words]
        with subprocess.Popen(["cat", capture.path], stdout=subprocess.PIPE) as cat:
            done = subprocess.run(command, stdin=cat.stdout, capture_output=True, check=False)
        status = done.returncode
    else:
        status = run("replay", f"exec:cat {capture.path}", *words).status
    assert status == int(not capture.truth["complete"])
    if not capture.truth["complete"]:
        return
    check_disks(capture, images, exact=True)
    check_bitmaps(capture, images, coarse=True)


@captures_but(MORE)
def test_one_byte_at_a_time(capture: Capture) -> None:
    """Small captures as a whole; of the others the first 64 KiB, which end inside an object."""
    data = capture.data
    if len(data) >= 100 << 10:
        data = data[: 64 << 10]
    whole = events(piped(data))
    assert events(piped(data, [1] * len(data))) == whole
    assert len(whole[0]) > 10


@captures_but((*MORE, "bitmaps-7.2-with-blocks"))
def test_encoder_is_the_inverse(capture: Capture) -> None:
    data = capture.data
    source = in_file(data)
    digest = hashlib.sha256()
    for event in Decoder(source):
        for piece in encode(event):
            digest.update(piece if isinstance(piece, bytes) else source.view(piece))
    assert digest.hexdigest() == capture.truth["sha256"]


PAYLOADS = ("base64", "ref")
LONG_ROUND_TRIPS = [
    *itertools.product((*MANY_PARTS, *MORE), PAYLOADS),
    ("bitmaps-7.2-with-blocks", "base64"),
]
ROUND_TRIPS = [
    pytest.param(
        name, payload, marks=pytest.mark.long if (name, payload) in LONG_ROUND_TRIPS else []
    )
    for name, payload in itertools.product(NAMES, PAYLOADS)
]


@pytest.mark.parametrize(("name", "payload"), ROUND_TRIPS)
def test_spec_round_trip(name: str, payload: str, run: Run, unpacked: Path, tmp_path: Path) -> None:
    capture = get_capture(name, unpacked)
    spec, copy = tmp_path / "spec", tmp_path / "copy.bin"
    spec.write_text(run("dump", capture.path, "--spec", "--payload", payload).out)
    assert run("build", spec, "--to", copy).status == 0
    assert sha256(copy.read_bytes()) == capture.truth["sha256"]


@pytest.mark.parametrize(
    "name",
    ["classic-tail", "v1-blocks-and-bitmaps", "bitmaps-7.2-with-blocks", "classic-live-writes"],
)
def test_v2_is_reachable(run: Run, unpacked: Path, tmp_path: Path, name: str) -> None:
    """From any dialect to v2 and back to a disk: the same end state."""
    capture = get_capture(name, unpacked)
    _, first = replay(capture, run, tmp_path, *capture.hints())
    stream = tmp_path / "v2.bin"
    sources = [f"{device}={path}" for device, path in first.items()]
    bitmaps = ["--bitmaps"] if capture.truth["bitmaps"] else []
    assert run("send", *sources, "--dialect", "v2", "--to", stream, *bitmaps).status == 0
    again = tmp_path / "again"
    again.mkdir()
    sizes = [word for word in capture.hints() if not word.startswith("--granularity")]
    del sizes[2 * len(capture.truth["devices"]) :]
    status, images = replay(Capture(name, stream, capture.truth), run, again, *sizes)
    assert status == 0
    check_disks(capture, images, exact=True)
    check_bitmaps(capture, images, coarse=True)
    report = run("validate", stream, "--dialect", "v2", "--output", "json").report
    assert report["valid"] is True
    assert report["complete"] is not False
