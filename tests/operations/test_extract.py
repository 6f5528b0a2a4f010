"""``extract``: one disk or bitmap, complete or not at all."""

import hashlib
import json
from pathlib import Path

import pytest

import blkmig_cli
from tests.conftest import Capture, Run, fails
from tests.support import raw

MIB = 1 << 20
DIRTY = raw.bitmap_start() + raw.bitmap_bits(0, 4096, b"\3".ljust(8, b"\0")) + raw.COMPLETE


def filled(sector: int, byte: int = 7, device: str = "d") -> bytes:
    return raw.block(sector, 0, device, bytes([byte]) * MIB)


def put(folder: Path, content: bytes, name: str = "s.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


TWO = raw.qemu(filled(2048), raw.block(0, 8), bitmaps=DIRTY)
DISK = bytes(MIB) + bytes([7]) * MIB


def test_captures(capture: Capture, run: Run, tmp_path: Path) -> None:
    if capture.path.stat().st_size > 60 * MIB:
        return
    whole = "incomplete" not in capture.name and "incremental" not in capture.name
    blocks = run("validate", capture.path, *capture.hints(), "--output", "json").report["devices"]
    for device in [found["name"] for found in blocks if found["chunks"]]:
        words = ["extract", capture.path, *capture.hints(), "--device", device]
        outcome = run(*words, "--to", tmp_path / device)
        assert outcome.status == (0 if whole else 1), outcome
        assert (tmp_path / device).exists() is whole
        if whole:
            digest = hashlib.sha256((tmp_path / device).read_bytes()).hexdigest()
            assert digest == capture.truth["devices"][device]["sha256"]
    for bitmap in capture.truth["bitmaps"]:
        name = f"{bitmap['device']}:{bitmap['name']}"
        target = tmp_path / "bitmap.json"
        assert (
            run("extract", capture.path, *capture.hints(), "--bitmap", name, "--to", target).status
            == 0
        )
        (found,) = json.loads(target.read_text())["bitmaps"]
        assert found["dirty"] == bitmap["dirty"]
        assert (found["recording"], found["persistent"]) == (
            bitmap["enabled"],
            bitmap["persistent"],
        )


def test_zeros_are_holes_in_a_new_file(run: Run, tmp_path: Path) -> None:
    stream = put(tmp_path, raw.qemu(*[raw.block(2048 * at, 8) for at in range(64)], filled(131072)))
    target = put(tmp_path, b"old" * MIB, "disk")
    assert run("extract", stream, "--to", target, "-q").status == 0
    assert target.stat().st_size == 65 * MIB
    assert target.stat().st_blocks * 512 <= 2 * MIB
    assert target.read_bytes() == bytes(64 * MIB) + bytes([7]) * MIB
    as_data = put(tmp_path, raw.qemu(filled(2048), filled(0, 0)))
    assert run("extract", as_data, "--to", target, "-q").status == 0
    assert target.read_bytes() == DISK
    assert target.stat().st_blocks * 512 < 2 * MIB
    ending = put(tmp_path, raw.qemu(filled(0), raw.block(2048, 8)))
    assert run("extract", ending, "--to", target, "-q").status == 0
    assert target.read_bytes() == bytes([7]) * MIB + bytes(MIB)
    assert run("extract", ending, "--to", f"exec:cat > {target}.2", "-q").status == 0
    assert Path(f"{target}.2").read_bytes() == target.read_bytes()


def test_missing_chunks(run: Run, tmp_path: Path) -> None:
    stream, target = put(tmp_path, raw.qemu(filled(0), filled(4096))), tmp_path / "disk"
    words = ["extract", stream, "--to", target, "--device-size=3M"]
    fails(run(*words), 1, "1 MiB was not sent: bytes 1048576-2097152")
    assert not target.exists()
    outcome = run(*words, "--allow-incomplete")
    assert outcome.status == 0
    assert outcome.err == "blkmig: warning: 1 MiB of d was not sent, and is written as zeros\n"
    assert target.read_bytes() == bytes([7]) * MIB + bytes(MIB) + bytes([7]) * MIB
    outcome = run(*words, "--allow-incomplete", "-q")
    assert "1 MiB of d was not sent" in outcome.err  # zeros are not what was asked for
    bigger = run("extract", stream, "--to", target, "--device-size=4M", "-q")
    assert bigger.status == 1


def test_chunks_that_may_be_missing(run: Run, tmp_path: Path) -> None:
    """If the disk's end is not known, or a guest went on writing, it is not proven that any are missing."""
    target = tmp_path / "disk"
    unfinished = raw.qemu(filled(0)).replace(raw.part(1, raw.progress(100) + raw.EOS, 3), b"")
    unfinished = unfinished.replace(raw.footer(1) * 2, raw.footer(1))
    stream = put(tmp_path, unfinished)
    fails(run("extract", stream, "--to", target, "--device-size=1M"), 1, "section has no end")
    outcome = run("extract", stream, "--to", target, "--device-size=1M", "--allow-incomplete")
    assert outcome.err == "blkmig: warning: the block section has no end\n"
    both = [filled(0), filled(0, 8, "e"), filled(2048, 8, "e"), raw.progress(5)]
    stream = put(tmp_path, raw.qemu(*both))
    fails(run("extract", stream, "--to", target, "--device", "d"), 1, "of these disks or of others")
    words = ["extract", stream, "--to", target, "--device", "d", "--device-size", "d=1M"]
    assert run(*words).status == 0  # all of this one came
    assert target.read_bytes() == bytes([7]) * MIB


def test_the_wrong_size(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "disk"
    stream = put(tmp_path, raw.qemu(filled(0), filled(2048)))
    for words in (["--device-size=1M"], ["--device-size=1M", "--allow-incomplete"]):
        fails(run("extract", stream, "--to", target, *words), 1, "past the disk's end")
    far = put(tmp_path, raw.qemu(filled(0), raw.block(1 << 45, 8)), "far")
    fails(run("extract", far, "--to", target, "--allow-incomplete"), 4, "the disk has 16 PiB")
    assert not target.exists()
    outcome = run("extract", stream, "--to", target)
    assert "size of 'd' is unknown; assumed 2 MiB; see --device-size" in outcome.err
    assert run("extract", stream, "--to", target, "--device-size=1537K").err == ""
    assert target.read_bytes() == bytes([7]) * (1537 << 10)


def test_damaged(run: Run, tmp_path: Path) -> None:
    stream, target = (
        put(tmp_path, raw.qemu(filled(0), filled(2048))[: -MIB // 2]),
        tmp_path / "disk",
    )
    fails(run("extract", stream, "--to", target), 3, "use --allow-incomplete to write")
    assert not target.exists()
    outcome = run("extract", stream, "--to", target, "--allow-incomplete", "-q")
    assert outcome.status == 3
    assert "truncated" in outcome.err
    assert target.read_bytes() == bytes([7]) * MIB


def test_which_device(run: Run, tmp_path: Path) -> None:
    stream, target = put(tmp_path, raw.qemu(filled(0), filled(0, 8, "e"))), tmp_path / "disk"
    fails(run("extract", stream, "--to", target), 2, "the disks 'd', 'e'; specify --device")
    fails(
        run("extract", stream, "--to", target, "--device", "f"),
        2,
        "no device 'f'; there are the devices 'd', 'e'",
    )
    fails(
        run("extract", stream, "--to", target, "--bitmap", "b"),
        2,
        "no bitmap 'b'; there is no bitmap",
    )
    fails(run("extract", stream, "--to", target, "--bitmap", "b", "--device", "d"), 2, "for disks")
    assert run("extract", stream, "--to", target, "--device", "e", "-q").status == 0
    assert target.read_bytes() == bytes([8]) * MIB


def test_pipes(run: Run, tmp_path: Path) -> None:
    stream, target = put(tmp_path, TWO), tmp_path / "out"
    assert run("extract", f"exec:cat {stream}", "--to", target).status == 0
    assert target.read_bytes() == DISK
    assert run("extract", f"exec:cat {stream}", "--bitmap", "b", "--to", target).status == 0
    assert json.loads(target.read_text())["bitmaps"][0]["count"] == 131072
    assert run("extract", stream, "--bitmap", "b", "--to", f"exec:cat > {target}").status == 0
    assert json.loads(target.read_text())["virtual-size"] == 2 * MIB
    fails(run("extract", stream, "--to", stream), 2, "are the same file")


@pytest.mark.parametrize("hints", [[], ["--granularity", "bitmap0=64K"]])
def test_open_and_unfinished_bitmaps(
    hints: list[str], run: Run, unpacked: Path, tmp_path: Path
) -> None:
    words = ["extract", unpacked / "v1-blocks-and-bitmaps.bin", "--bitmap", "bitmap0"]
    outcome = run(*words, *hints, "--to", tmp_path / "b")
    if not hints:
        fails(outcome, 3, "16 KiB, 32 KiB or 64 KiB")
    else:
        assert outcome.status == 0
        assert "size of 'drive0' is unknown; assumed 9 MiB" in outcome.err
        assert json.loads((tmp_path / "b").read_text())["virtual-size"] == 9 * MIB
    half = put(tmp_path, raw.qemu(bitmaps=DIRTY[: -len(raw.COMPLETE)]))
    fails(run("extract", half, "--bitmap", "b", "--to", tmp_path / "c"), 1, "is incomplete")


def test_a_size_that_the_stream_excludes_is_not_assumed(run: Run, tmp_path: Path) -> None:
    """Its progress shows a disk that ends within its last chunk."""
    records = [raw.progress(0), filled(0), raw.progress(49), filled(2048), raw.progress(98)]
    stream, target = put(tmp_path, raw.qemu(*records, filled(4096))), tmp_path / "disk"
    outcome = run("extract", stream, "--to", target)
    fails(outcome, 1, "size of 'd' is unknown (2 to ")
    assert "specify --device-size d=SIZE" in outcome.err
    assert not target.exists()
    assert run("extract", stream, "--to", target, "--device-size", 2 * MIB + 4096).status == 0
    assert target.stat().st_size == 2 * MIB + 4096


def test_bitmaps_as_reports_print_them(run: Run, tmp_path: Path) -> None:
    chunks = raw.bitmap_start("d", "a/b") + raw.bitmap_bits(0, 2048, bytes(8)) + raw.COMPLETE
    chunks += raw.bitmap_start("d/a", "b") + raw.bitmap_bits(0, 2048, bytes(8)) + raw.COMPLETE
    chunks += raw.bitmap_start("d", "c") + raw.bitmap_bits(0, 2048, bytes(8)) + raw.COMPLETE
    stream, target = put(tmp_path, raw.qemu(bitmaps=chunks)), tmp_path / "b"
    for name in ("c", "d:c", "d/c", "a/b", "d/a:b"):
        assert run("extract", stream, "--bitmap", name, "--to", target, "-q").status == 0, name
    outcome = run("extract", stream, "--bitmap", "d/a/b", "--to", target)
    fails(outcome, 2, "use DEVICE:NAME")
    fails(
        run("extract", stream, "--bitmap", "x", "--to", target),
        2,
        "no bitmap 'x'; there are the bitmaps",
    )


def test_an_increment_alone_is_no_disk(run: Run, tmp_path: Path) -> None:
    """Its gaps are intended, but not zeros."""
    image, base, stream = put(tmp_path, b"\5" * 2 * MIB, "d.img"), *map(tmp_path.joinpath, "ab")
    assert run("send", image, "--to", base).status == 0
    put(tmp_path, DISK[:MIB] + b"\5" * MIB, "d.img")
    bitmap = {"name": "b", "granularity": 65536, "recording": True, "persistent": False}
    bitmap |= {"count": MIB, "dirty": [{"start": 0, "length": MIB}]}
    bits = {"version": 1, "virtual-size": 2 * MIB, "bitmaps": [bitmap]}
    put(tmp_path, json.dumps(bits).encode(), "d.img.bitmaps.json")
    assert run("send", image, "--since", "b", "--base", base, "--to", stream).status == 0
    target = tmp_path / "out.img"
    fails(run("extract", stream, "--to", target), 1, "1 MiB of the disk was not sent")
    fails(run("extract", stream, "--to", target), 1, "--base")
    assert not target.exists()
    with blkmig_cli.open(stream) as opened, pytest.raises(blkmig_cli.IncompleteError):
        opened.disk("drive0")
    assert run("extract", stream, "--base", base, "--to", target).status == 0
    assert target.read_bytes() == image.read_bytes()
    outcome = run("extract", stream, "--allow-incomplete", "--to", target)
    fails(outcome, 0, "1 MiB of drive0 was not sent, and is written as zeros")
    assert target.read_bytes() == bytes(2 * MIB)


@pytest.mark.parametrize("command", ["extract", "scrub", "convert", "convert --normalize", "fold"])
def test_what_cannot_be_read_is_named(run: Run, tmp_path: Path, command: str) -> None:
    text = put(tmp_path, b"this is not a stream\n")
    outcome = run(*command.split(), text)
    fails(outcome, 3, f"blkmig: {text}: not a migration stream but text")
    assert "--allow-incomplete" not in outcome.err
    cut = put(tmp_path, TWO[:-MIB])
    fails(run(*command.split(), cut), 3, f"blkmig: {cut}: stream truncated")
