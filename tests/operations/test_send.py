"""send and build: refusals, failing targets and images, mistakes in specs, wrong streams on purpose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from tests.conftest import Run, fails
from tests.support import raw

MIB = 1 << 20


def test_send_refusals(run: Run, tmp_path: Path) -> None:
    image, target = tmp_path / "d.img", tmp_path / "s.bin"
    image.write_bytes(bytes(1000))
    fails(run("send", image, "--to", target), 4, "no multiple of 512")
    image.write_bytes(bytes(1024))
    fails(run("send", image, "--to", target, "--bitmaps"), 4, "no image has any bitmap")
    fails(run("send", image, "--to", image), 2, "are the same file")
    fails(run("send", image, "--to", target, "--bitmaps", "--dialect", "classic"), 2, "no place")
    fails(run("send", image, "--to", target, "--bitmaps", "--container", "none"), 2, "no place")
    fails(run("send", f"a={image}", f"a={image}", "--to", target), 2, "twice")
    fails(run("send", f"{'x' * 256}={image}", "--to", target), 2, "255 bytes")
    fails(run("send", tmp_path / "missing", "--to", target), 4, "No such file")
    side = Path(f"{image}.bitmaps.json")
    write_bitmaps(str(side), BitmapFile(2048, {"b": DirtyBitmap("b", 512)}))
    fails(run("send", image, "--to", target, "--bitmaps"), 4, "is of a disk of 2048 bytes")
    write_bitmaps(str(side), BitmapFile(1024, {"b": DirtyBitmap("b", 512)}))
    fails(run("send", image, "--to", target, "--bitmap", "c"), 4, "no image has a bitmap 'c'")
    side.write_text("{}")
    fails(run("send", image, "--to", target, "--bitmaps"), 4, "no file of bitmaps")
    fails(run("send", image, "--to", tmp_path / "no" / "s.bin"), 4, "No such file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.img", "d.img.bitmaps.json"]


def test_a_failing_target_leaves_nothing(run: Run, tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(os.urandom(4 * MIB))
    fails(run("send", image, "--to", "/dev/full", "-q"), 4, "No space left")
    outcome = run("send", image, "--to", "exec:head -c 1000 >/dev/null", "-q")
    fails(outcome, 4, "the reader closed its end")
    fails(run("send", image, "--to", "exec:cat >/dev/null; exit 3", "-q"), 4, "status 3")
    command = f"{sys.executable} -m blkmig_cli send {image} | head -c 1000 | wc -c; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1000", "141"]
    assert done.stderr == ""


def test_an_image_that_shrinks(tmp_path: Path) -> None:
    """Cut while it is sent: an error, and no target."""
    image, target = tmp_path / "d.img", tmp_path / "s.bin"
    image.write_bytes(os.urandom(8 * MIB))
    script = (
        "import os,sys; from blkmig_cli.disks import raw; old = raw.RawImage._fill\n"
        "def fill(self, offset, length):\n"
        f"    if offset >= {4 * MIB}: os.truncate({str(image)!r}, {2 * MIB})\n"
        "    return old(self, offset, length)\n"
        "raw.RawImage._fill = fill; from blkmig_cli.commands import main; main()"
    )
    command = [sys.executable, "-c", script, "send", str(image), "--to", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "became shorter" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["d.img"]


HEADER = '{"blkmig-spec": 1}\n'


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (HEADER + '{"type": "eof"}\n{"type": "block"}\n', "line 3: device: is missing"),
        (HEADER + '{"type": "what"}\n', "line 2: type: 'what'"),
        (HEADER + '{"type": ["eof"]}\n', "line 2: type: ['eof']"),
        (HEADER + '{"type": "' + "x" * 9999 + '"}\n', "xxx... is none"),
        (HEADER + '{"type": "progress", "percent": 1, "flags": [[]]}', "flags: [] is no flag"),
        (HEADER + "{oops\n", "line 2: no JSON"),
        (HEADER + "[]\n", "line 2: a record is an object"),
        (HEADER + '{"type": "eof", "x": 1}\n', "line 2: 'x' is no field"),
        (HEADER + '{"type": "progress", "percent": -1}\n', "line 2: percent: -1"),
        (HEADER + '{"type": "eos", "value": 1e3}\n', "line 2: value: 1000.0"),
        (HEADER + '{"type": "progress", "percent": 1, "flags": ["no"]}', "flags: 'no' is no flag"),
        (HEADER + '{"type": "raw", "payload": {"base64": "%"}}', "line 2: payload: base64"),
        (HEADER + '{"type": "raw", "payload": {"fill": 999, "length": 1}}', "fill 999"),
        (HEADER + '{"type": "section-part", "id": 4294967296}', "id: 4294967296 does not fit"),
        ('{"blkmig-spec": 2}\n', "version 2"),
        ("records: []\n", "no 'blkmig-spec'"),
        ("blkmig-spec: 1\nrecords:\n  - {type: eof}\n  - {type: eof, y: 1}\n", "record 2: 'y'"),
        ("blkmig-spec: 1\nrecords: 5\n", "records: is no list"),
        ("a: [unclosed\n", "neither JSON nor YAML"),
        ("!!python/object/apply:os.system [id]\n", "neither JSON nor YAML"),
    ],
)
def test_mistakes_in_a_spec(run: Run, tmp_path: Path, spec: str, words: str) -> None:
    path, target = tmp_path / "spec", tmp_path / "out.bin"
    path.write_text(spec)
    fails(run("build", path, "--to", target), 3, words)
    assert not target.exists()


def test_build_writes_what_is_wrong_on_purpose(run: Run, tmp_path: Path) -> None:
    path, target = tmp_path / "spec.yaml", tmp_path / "out.bin"
    (tmp_path / "piece").write_bytes(b"0123456789")
    path.write_text(
        "blkmig-spec: 1\nrecords:\n"
        "  - {type: block, device: d, sector: 7, flags: 0x1ff, sectors: 1, dialect: v2,\n"
        "     bitmaps: [{name: '', granularity: 3, attributes: 255, bits: {hex: ff, stated: 99}}],\n"
        "     data: {file: piece, offset: 2, length: 3}}\n"
        "  - {type: raw, payload: {fill: 65, length: 4}}\n"
        "  - {type: section-footer, id: 5}\n"
    )
    assert run("build", path, "--to", target).status == 0
    expected = (
        raw.word(7, 0x1FF) + raw.name("d") + bytes.fromhex("00000001 00000001")
        + bytes.fromhex("00 ff 00000003 00000063 ff") + b"234" + b"AAAA" + raw.footer(5)
    )  # fmt: skip
    assert target.read_bytes() == expected
    fails(run("build", tmp_path / "missing", "--to", target), 4, "No such file")
    (tmp_path / "piece").write_bytes(b"0")
    fails(run("build", path, "--to", target), 4, "ends before byte 5")
    assert target.read_bytes() == expected


@pytest.mark.parametrize("dialect", ["qemu", "classic", "v1", "v2"])
def test_a_disk_of_nothing(run: Run, tmp_path: Path, dialect: str) -> None:
    image, target, copy = tmp_path / "d.img", tmp_path / "s.bin", tmp_path / "copy.img"
    image.write_bytes(b"")
    side = {"b": DirtyBitmap("b", 512)}
    write_bitmaps(f"{image}.bitmaps.json", BitmapFile(0, side))
    options = ["--bitmaps"] if dialect == "qemu" else []
    assert run("send", image, "--dialect", dialect, "--to", target, *options).status == 0
    words = ["replay", target, "--image", f"drive0={copy}", "--create", "--device-size", "0"]
    assert run(*words).status == 0
    assert copy.read_bytes() == b""
    assert Path(f"{copy}.bitmaps.json").exists() == bool(options)


@pytest.mark.parametrize("sectors", [2049, 5000, 7144, 8191, 8192])
@pytest.mark.parametrize("dialect", ["qemu", "classic"])
def test_what_is_sent_is_found_whole(run: Run, tmp_path: Path, sectors: int, dialect: str) -> None:
    """Also where the last chunk begins earlier than on the grid, to end with the disk."""
    image, target = tmp_path / "d.img", tmp_path / "s.bin"
    image.write_bytes(b"x" * sectors * 512)
    assert run("send", image, "--dialect", dialect, "--to", target).status == 0
    outcome = run("validate", target, "--image", image, "--output", "json")
    assert outcome.status == 0, outcome.report["findings"]
    assert outcome.report["complete"] is True
    # With nothing told, the bounds hold the disk.
    bounds = run("validate", target, "--output", "json").report["devices"][0]["inferred-size"]
    assert bounds["min"] <= image.stat().st_size <= (bounds["max"] or 1 << 60)
