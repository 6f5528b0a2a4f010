"""send and build: refusals, failing targets and images, mistakes in specs, wrong streams on purpose."""

import gzip
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blkmig_cli import limits
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from tests.conftest import Run, fails
from tests.support import raw, zstd
from tests.support.nbd import qemu_nbd, tool, uri
from tests.support.nbd import run as run_program

MIB = 1 << 20


def test_send_refusals(run: Run, tmp_path: Path) -> None:
    image, target = tmp_path / "d.img", tmp_path / "s.bin"
    image.write_bytes(bytes(1000))
    fails(run("send", image, "--to", target), 4, f"with: truncate -s 1024 {image}")
    image.write_bytes(bytes(1024))
    fails(run("send", image, "--to", target, "--bitmaps"), 4, "no image has any bitmap")
    fails(run("send", image, "--to", image), 2, "are the same file")
    fails(run("send", image, "--to", target, "--bitmaps", "--dialect", "classic"), 2, "no place")
    fails(run("send", image, "--to", target, "--bitmaps", "--container", "none"), 2, "no place")
    fails(run("send", f"a={image}", f"a={image}", "--to", target), 2, "twice")
    fails(run("send", "a=", "--to", target), 2, "a=: no image is specified")
    fails(run("send", tmp_path / "missing", "--to", target), 4, "No such file")
    side = Path(f"{image}.bitmaps.json")
    write_bitmaps(str(side), BitmapFile(2048, {"b": DirtyBitmap("b", 512)}))
    fails(run("send", image, "--to", target, "--bitmaps"), 4, "is of a disk of 2048 bytes")
    write_bitmaps(str(side), BitmapFile(1024, {"b": DirtyBitmap("b", 512)}))
    side.write_text("{}")
    fails(run("send", image, "--to", target, "--bitmaps"), 4, "not a file of bitmaps")
    fails(run("send", image, "--to", tmp_path / "no" / "s.bin"), 4, "No such file")
    fails(run("send", image, "--to", target, "--machine", "x" * 4097), 2, "--machine: over 4096")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.img", "d.img.bitmaps.json"]


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        ([], ""),
        (["--container", "none"], "no QEMU loads bare block records"),
        (["--machine", "none"], "machine none has no disks"),
        (["--machine", "pc-i440fx-2.3"], "machine pc-i440fx-2.3 does not know"),
        (["--dialect", "v2"], "no released QEMU reads dialect v2"),
        (["--for-qemu", "1.5"], "zero blocks, which are new in 1.6"),
        (["--for-qemu", "1.5", "--no-zero-blocks"], "QEMU 1.5 does not know the configuration"),
        (["--bitmaps", "--for-qemu", "2.11"], "does not know the dirty-bitmap section"),
        (["--bitmaps", "--for-qemu", "2.12"], ""),
        (["--for-qemu", "9.1"], "QEMU 9.1 has no block section"),
        (["--bitmaps", "--bitmaps-only", "--for-qemu", "9.1"], ""),
        (["--disk", "cut"], "device 'cut': QEMU 7.2 fails on data in a last chunk"),
    ],
)
def test_what_a_qemu_cannot_load(run: Run, tmp_path: Path, words: list[str], warning: str) -> None:
    image, cut = tmp_path / "d.img", tmp_path / "cut.img"
    image.write_bytes(bytes(MIB))
    cut.write_bytes(b"x" * 512)
    bitmap_file(Path(f"{image}.bitmaps.json"), MIB, "b")
    options = ["--machine", "pc", "--for-qemu", "7.2"]
    disks = [f"d={image}"]
    if words[:1] == ["--disk"]:
        words, disks = [], [*disks, f"cut={cut}"]
    outcome = run("send", *disks, "--to", tmp_path / "s.bin", *options, *words)
    assert outcome.status == 0, outcome
    found = [line for line in outcome.err.splitlines() if "warning" in line]
    assert warning in outcome.err
    assert bool(found) == bool(warning), outcome.err


def bitmap_file(path: Path, size: int, *names: str) -> None:
    """Write a file of bitmaps with one granule dirty each; of any names."""
    entries = [
        {
            "name": name, "granularity": 512, "recording": True, "persistent": False,
            "count": 512, "dirty": [{"start": 0, "length": 512}],
        }
        for name in names
    ]  # fmt: skip
    path.write_text(json.dumps({"version": 1, "virtual-size": size, "bitmaps": entries}))


def test_bitmaps_by_name(run: Run, tmp_path: Path) -> None:
    """One that is named must be there; as NAME, DEVICE:NAME, or DEVICE/NAME as reports print it."""
    image, target = tmp_path / "d.img", tmp_path / "s.bin"
    image.write_bytes(bytes(1024))
    words = ("send", f"a={image}", "--to", target, "--bitmap")
    fails(run(*words, "x"), 2, "no bitmap 'x'; there is no bitmap")
    bitmap_file(Path(f"{image}.bitmaps.json"), 1024, "x", "y", "a/x")
    fails(run(*words, "z"), 2, "no bitmap 'z'; there are the bitmaps 'a/x', 'a/y', 'a/a/x'")
    fails(run(*words, "x", "--bitmap", "b:x"), 2, "no bitmap 'b:x'")
    fails(run(*words, "a/x"), 2, "'a/x' may mean 'a:a/x', 'a:x'; use DEVICE:NAME")
    for name, found in {
        "x": ["x"], "a:x": ["x"], "a/y": ["y"], "a:a/x": ["a/x"],
    }.items():  # fmt: skip
        assert run(*words, name).status == 0
        report = run("validate", target, "--output", "json").report
        assert [bitmap["name"] for bitmap in report["bitmaps"]] == found
    fails(run("send", image, "--to", target, "--bitmaps-from", f"x={image}"), 2, "no device 'x'")
    fails(
        run("send", image, f"b={image}", "--to", target, "--bitmaps-from", image),
        2,
        "without DEVICE, and the devices are 'drive0', 'b'",
    )


NAMES = ["", "x\0y", "\ud800", "x" * 256, "\u20ac" * 86]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dialect", ["qemu", "v1", "v2"])
def test_names_that_the_wire_cannot_carry(
    run: Run, tmp_path: Path, name: str, dialect: str
) -> None:
    image, target, side = (tmp_path / name for name in ("d.img", "s.bin", "b.json"))
    image.write_bytes(bytes(1024))
    bitmap_file(side, 1024, name)
    words = ("send", image, "--dialect", dialect, "--to", target)
    status, text = (4, "no name") if name == "" else (4, "bitmap name ")
    fails(run(*words, "--bitmaps-from", side), status, text)
    if name and name.isprintable():  # others are no words of a command line
        fails(run("send", f"{name}={image}", "--dialect", dialect, "--to", target), 4, "255 bytes")
    bitmap_file(side, 1024, "b")
    outcome = run("send", f"={image}", "--dialect", dialect, "--bitmaps-from", side, "--to", target)
    if dialect == "qemu":
        fails(outcome, 4, "a device without a name, and bitmaps")
        assert not target.exists()
    else:
        assert outcome.status == 0
        assert run("validate", target).status == 0


@pytest.mark.parametrize("dialect", ["qemu", "v1", "v2"])
def test_as_many_bitmaps_as_are_read(
    run: Run, tmp_path: Path, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BITMAPS_MAX", 3)
    image, target, side = (tmp_path / name for name in ("d.img", "s.bin", "b.json"))
    image.write_bytes(bytes(1024))
    words = ("send", image, "--dialect", dialect, "--to", target, "--bitmaps-from", side)
    bitmap_file(side, 1024, *"abc")
    assert run(*words).status == 0
    hints = [f"--granularity={name}=512" for name in "abc"] if dialect == "v1" else []
    assert run("validate", target, *hints).status == 0
    bitmap_file(side, 1024, *"abcd")
    fails(run(*words), 4, "4 bitmaps, 3 are the most")


STREAM = raw.qemu(raw.block(0, 8), raw.block(2048, 8))
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "xz": lzma.compress, "zstd": zstd.compress,
}  # fmt: skip
WRONG_KINDS = {
    "migration stream": STREAM,
    "libvirt save image": b"LibvirtQemudSave" + bytes(76),
    **{f"{kind} file": pack(STREAM) for kind, pack in PACKED.items()},
}


@pytest.mark.parametrize("kind", WRONG_KINDS)
def test_what_is_no_disk(run: Run, tmp_path: Path, kind: str) -> None:
    """A stream or a compressed file given as an image, unless it is said to be one."""
    image, target = tmp_path / "d.img", tmp_path / "s.bin"
    image.write_bytes(WRONG_KINDS[kind].ljust(1 << 20, b"\0"))
    fails(run("send", image, "--to", target), 4, f"d.img looks like a {kind}, not a disk image")
    assert not target.exists()
    assert run("send", image, "--to", target, "-f", "raw").status == 0
    assert run("compare", target, f"drive0={image}", "-f", "raw").status == 0


def test_a_disk_that_begins_as_a_stream_does(run: Run, tmp_path: Path) -> None:
    """In a format with a magic of its own, it is a disk, for which -f raw would be wrong."""
    tool("qemu-storage-daemon")
    disk, image, target = tmp_path / "d.img", tmp_path / "d.qcow2", tmp_path / "s.bin"
    disk.write_bytes(STREAM.ljust(MIB, b"\0"))
    run_program("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image)
    assert run("send", image, "--to", target).status == 0
    assert run("compare", target, f"drive0={disk}", "-f", "raw").status == 0
    with qemu_nbd(disk) as path:
        fails(run("send", uri(path), "--to", target), 4, "looks like a migration stream")


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
        (HEADER + '{"type": "' + "x" * 9999 + '"}\n', "xxx' is unknown"),
        (HEADER + '{"type": "progress", "percent": 1, "flags": [[]]}', "flags: [] is not a flag"),
        (HEADER + "{oops\n", "line 2: not JSON"),
        (HEADER + "[]\n", "line 2: a record is an object"),
        (HEADER + '{"type": "eof", "x": 1}\n', "line 2: 'x' is not a field"),
        (HEADER + '{"type": "progress", "percent": -1}\n', "line 2: percent: -1"),
        (HEADER + '{"type": "eos", "value": 1e3}\n', "line 2: value: 1000.0"),
        (
            HEADER + '{"type": "progress", "percent": 1, "flags": ["no"]}',
            "flags: 'no' is not a flag",
        ),
        (HEADER + '{"type": "raw", "payload": {"base64": "%"}}', "line 2: payload: base64"),
        (HEADER + '{"type": "raw", "payload": {"fill": 999, "length": 1}}', "fill 999"),
        (HEADER + '{"type": "section-part", "id": 4294967296}', "id: 4294967296 does not fit"),
        ('{"blkmig-spec": 2}\n', "version 2"),
        ("records: []\n", "no 'blkmig-spec'"),
        ("blkmig-spec: 1\nrecords:\n  - {type: eof}\n  - {type: eof, y: 1}\n", "record 2: 'y'"),
        ("blkmig-spec: 1\nrecords: 5\n", "records: is not a list"),
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
def test_an_empty_disk(run: Run, tmp_path: Path, dialect: str) -> None:
    image, target = tmp_path / "d.img", tmp_path / "s.bin"
    image.write_bytes(b"")
    bitmap_file(Path(f"{image}.bitmaps.json"), 0)
    fails(run("send", image, "--dialect", dialect, "--to", target), 4, "d.img is empty")
    fails(run("send", image, "--dialect", dialect, "-f", "raw", "--to", target), 4, "is empty")
    assert not target.exists()


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
    # Without hints, the bounds contain the disk's size.
    bounds = run("validate", target, "--output", "json").report["devices"][0]["inferred-size"]
    assert bounds["min"] <= image.stat().st_size <= (bounds["max"] or 1 << 60)
