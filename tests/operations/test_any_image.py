"""Images of other formats than raw, judged by QEMU's tools and by a reader of our own for bitmaps."""

import filecmp
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.disks.image import FilePart
from tests.conftest import Run, fails
from tests.support import qcow2
from tests.support.long import examples
from tests.support.qcow2 import needs_qemu_utils, qemu_img
from tests.support.replays import here, refused

pytestmark = needs_qemu_utils

MIB = 1 << 20
ODD = 3 * MIB + 5 * 512
#: Bitmaps from the finest granularity to one that is larger than a disk.
GRANULARITIES = {"b512": 512, "b4k": 4096, "b64k": 65536, "b1m": MIB, "b64m": 64 * MIB}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(name: str, size: int = ODD, *options: str, bitmaps: bool = True) -> Path:
    """A qcow2 image with data in a few places; of its bitmaps, one does not record."""
    path = Path(name)
    qemu_img("create", "-q", "-f", "qcow2", *options, path, size)
    if bitmaps:
        for bitmap, granularity in GRANULARITIES.items():
            qemu_img("bitmap", "--add", "-g", granularity, path, bitmap)
        qemu_img("bitmap", "--disable", path, "b4k")
    place = random.Random(size)
    commands = [
        f"write -P {number} {place.randrange(size // 512 - 9) * 512} 4k" for number in (1, 2)
    ]
    qcow2.write(path, *commands, f"write -P 3 {size - 512} 512", "write -P 4 0 512")
    return path


def check_equal(made: Path, original: Path) -> None:
    """The disk, all bitmaps with flags and granularity, and the image's metadata."""
    qcow2.same(made, "qcow2", original, "qcow2")
    qcow2.check(made)
    expected = qcow2.stored_bitmaps(original)
    assert qcow2.stored_bitmaps(made) == expected
    assert not any(bitmap.in_use for bitmap in expected.values())
    names = list(expected)
    assert qcow2.digests(made, names) == qcow2.digests(original, names)


SIZES = [512, ODD, 4 * MIB, 70 * MIB + 512]


@pytest.mark.parametrize(
    ("size", "source"),
    [
        (ODD, "file"),
        *(pytest.param(size, "file", marks=pytest.mark.long) for size in SIZES if size != ODD),
        pytest.param(ODD, "pipe", marks=pytest.mark.long),
        pytest.param(4 * MIB, "pipe", marks=pytest.mark.long),
    ],
)
def test_a_qcow2_image_with_its_bitmaps_goes_through(run: Run, size: int, source: str) -> None:
    if size == 512:
        qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", size)
        qemu_img("bitmap", "--add", "-g", 512, "a.qcow2", "b512")
        qcow2.write(Path("a.qcow2"), "write -P 1 0 512")
        original = Path("a.qcow2")
    else:
        original = make("a.qcow2", size)
    assert run("send", original, "--bitmaps", "--to", "s.bin").status == 0
    stream = "s.bin" if source == "file" else "exec:cat s.bin"
    done = run("replay", stream, "--image", "b.qcow2", "--create", "--verify")
    assert done.status == 0, done
    assert "written, verified" in done.out
    check_equal(Path("b.qcow2"), original)
    assert sorted(os.listdir()) == [
        "a.qcow2",
        "b.qcow2",
        "b.qcow2.blkmig.json",
        "b.qcow2.replay.json",
        "s.bin",
    ]
    # In place, over other content and other bitmaps.
    other = Path("c.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", other, size)
    qemu_img("bitmap", "--add", "-g", GRANULARITIES["b512"], other, "b512")
    qcow2.write(other, f"write -P 9 0 {size}")
    assert run("replay", stream, "--image", other).status == 0
    check_equal(other, original)
    assert run("compare", "s.bin", "c.qcow2").status == 0
    assert run("validate", "s.bin", "--image", "c.qcow2").status == 0


@pytest.mark.parametrize(
    "kind",
    [
        *("data file", "backing"),
        *(
            pytest.param(kind, marks=pytest.mark.long)
            for kind in ("compressed", "v2", "2M clusters", "vmdk")
        ),
    ],
)
def test_kinds_of_images_are_read(run: Run, kind: str) -> None:
    path, image_format = Path("a.qcow2"), "qcow2"
    match kind:
        case "v2":
            make("a.qcow2", ODD, "-o", "compat=0.10", bitmaps=False)
        case "2M clusters":
            make("a.qcow2", ODD, "-o", "cluster_size=2M")
        case "data file":
            make("a.qcow2", ODD, "-o", "data_file=a.data,data_file_raw=on")
        case "compressed":
            make("plain.qcow2", ODD)
            qemu_img("convert", "-c", "-O", "qcow2", "--bitmaps", "plain.qcow2", path)
        case "backing":
            Path("base.img").write_bytes(os.urandom(2 * MIB))
            make("middle.qcow2", ODD, "-b", "base.img", "-F", "raw", bitmaps=False)
            make("a.qcow2", ODD, "-b", "middle.qcow2", "-F", "qcow2")
        case "vmdk":
            path, image_format = Path("a.vmdk"), "vmdk"
            make("plain.qcow2", 4 * MIB, bitmaps=False)
            qemu_img("convert", "-O", "vmdk", "plain.qcow2", path)
    bitmaps = ["--bitmaps"] if kind not in ("v2", "vmdk") else []
    assert run("send", path, *bitmaps, "--to", "s.bin").status == 0
    assert run("replay", "s.bin", "--image", "raw", "--create").status == 0
    qcow2.same(path, image_format, Path("raw"))
    assert run("compare", "s.bin", path).status == 0
    if bitmaps:
        assert run("replay", "s.bin", "--image", "b.qcow2", "--create").status == 0
        check_equal(Path("b.qcow2"), path)


@pytest.mark.parametrize(
    "image_format",
    [
        "vmdk",
        *(
            pytest.param(f, marks=pytest.mark.long)
            for f in ("qcow2", "vdi", "vhdx", "vpc", "qed", "qcow")
        ),
    ],
)
def test_formats_are_created(run: Run, image_format: str) -> None:
    """With bitmaps beside them, as only qcow2 has a place for bitmaps."""
    size = 4 * MIB
    original = make("a.qcow2", size)
    assert run("send", original, "--bitmaps", "--to", "s.bin").status == 0
    done = run("replay", "s.bin", "--image", "b", "-f", image_format, "--create")
    if done.status and "has" in done.err:  # a format with sizes of its own
        fails(done, 4, f"an image of format {image_format} has")
        assert not Path("b").exists()
        return
    assert done.status == 0, done
    qcow2.same(original, "qcow2", Path("b"), image_format)
    assert Path("b.bitmaps.json").exists() == (image_format != "qcow2")
    fails(run("compare", "s.bin", "b"), 4, "looks like") if image_format != "vpc" else None
    assert run("compare", "s.bin", "b", "-f", image_format).status == 0


@pytest.mark.long
def test_options_of_new_images(run: Run) -> None:
    original = make("a.qcow2")
    run("send", original, "--bitmaps", "--to", "s.bin")
    words = [
        "replay",
        "s.bin",
        "--image",
        "b.qcow2",
        "--create",
        "-o",
        "cluster_size=2M,compat=1.1",
    ]
    assert run(*words).status == 0
    assert '"cluster-size": 2097152' in qemu_img("info", "--output", "json", "b.qcow2")
    check_equal(Path("b.qcow2"), original)
    # Version 2 has no place for bitmaps: they are beside it.
    assert run("replay", "s.bin", "--image", "c.qcow2", "--create", "-o", "compat=0.10").status == 0
    assert run("compare", "s.bin", "c.qcow2").status == 0
    assert Path("c.qcow2.bitmaps.json").exists()
    before = here()
    outcome = run("replay", "s.bin", "--image", "d.qcow2", "--create", "-o", "cluster_size=3")
    fails(outcome, 4, "d.qcow2.partial: qemu-img create: ")
    assert not Path("d.qcow2").exists()
    assert set(before) <= set(here())


def test_an_increment_goes_onto_a_new_overlay(run: Run) -> None:
    """Zeros over data of the backing file are written; what was not sent is that of the backing file."""
    Path("base.img").write_bytes(b"\5" * ODD)
    overlay = make("o.qcow2", ODD, "-b", "base.img", "-F", "raw", bitmaps=False)
    qcow2.write(overlay, "write -z 1M 1M")
    assert run("send", overlay, "--skip-unallocated", "--to", "s.bin").status == 0
    options = "backing_file=base.img,backing_fmt=raw"
    words = ["replay", "s.bin", "--image", "p.qcow2", "--create", "--incremental", "-o", options]
    words += ["--device-size", str(ODD)]
    assert run(*words).status == 0
    qcow2.same(Path("p.qcow2"), "qcow2", overlay, "qcow2")
    qcow2.check(Path("p.qcow2"))
    assert Path("base.img").read_bytes() == b"\5" * ODD


@pytest.mark.long
def test_bitmaps_that_cannot_be_read(run: Run) -> None:
    path = make("a.qcow2")
    data = bytearray(path.read_bytes())
    # The flag "in use" of its entry in the directory, and in older directories.
    for found in re.finditer(b"b512", data):
        data[found.start() - 24 + 15] |= 1
    path.write_bytes(data)
    for words in (["--bitmaps"], ["--bitmap", "b512"]):
        fails(run("send", path, *words, "--to", "s.bin"), 4, "bitmap 'b512': it is inconsistent")
    assert run("send", path, "--bitmap", "b64k", "--to", "s.bin").status == 0
    fails(run("send", path, "--bitmap", "none", "--to", "x"), 2, "b64k")
    before = here()
    outcome = run("replay", "s.bin", "--image", path)
    assert outcome.status == 0  # it is another one
    run("send", make("g.qcow2"), "--bitmap", "b512", "--to", "t.bin")
    before = here()
    refused(run("replay", "t.bin", "--image", path), 4, "qemu-img bitmap --remove", before)


def test_bitmaps_are_persistent_in_an_image(run: Run) -> None:
    """Also those that are not so in the stream: that is no difference, any other one is."""
    Path("a.img").write_bytes(bytes(MIB))
    bitmap = {"name": "b", "granularity": 65536, "recording": True, "persistent": False,
              "count": 65536, "dirty": [{"start": 0, "length": 65536}]}  # fmt: skip
    document = {"version": 1, "virtual-size": MIB, "bitmaps": [bitmap]}
    Path("a.img.bitmaps.json").write_text(json.dumps(document))
    assert run("send", "a.img", "--bitmaps", "--to", "s.bin").status == 0
    assert run("replay", "s.bin", "--image", "b.qcow2", "--create").status == 0
    assert run("compare", "s.bin", "b.qcow2").status == 0
    qemu_img("bitmap", "--disable", "b.qcow2", "b")
    outcome = run("compare", "s.bin", "b.qcow2")
    assert outcome.status == 1
    assert "recording True and False" in outcome.out


def test_bitmaps_only(run: Run) -> None:
    original = make("a.qcow2")
    run("send", original, "--bitmaps", "--bitmaps-only", "--to", "s.bin")
    qemu_img("create", "-q", "-f", "qcow2", "b.qcow2", ODD)
    qcow2.write(Path("b.qcow2"), "write -P 7 0 1M")
    before = Path("b.qcow2").read_bytes()
    assert run("replay", "s.bin", "--image", "b.qcow2", "--dry-run").status == 0
    assert Path("b.qcow2").read_bytes() == before
    assert run("replay", "s.bin", "--image", "b.qcow2", "--bitmaps-only").status == 0
    assert qcow2.stored_bitmaps(Path("b.qcow2")) == qcow2.stored_bitmaps(original)
    qcow2.check(Path("b.qcow2"))
    before_all = here()
    outcome = run("replay", "s.bin", "--image", "c.qcow2", "--create", "--bitmaps-only")
    refused(outcome, 4, "c.qcow2 does not exist", before_all)
    assert run("replay", "s.bin", "--image", "b.qcow2", "--bitmaps-to", "b.json").status == 0
    assert Path("b.json").exists()


def test_an_external_data_file(run: Run) -> None:
    """It is written in place of the image, which holds the bitmaps."""
    original = make("a.qcow2")
    run("send", original, "--bitmaps", "--to", "s.bin")
    options = "data_file=d.raw,data_file_raw=on"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, "d.qcow2", ODD)
    assert run("replay", "s.bin", "--image", "d.qcow2", "--verify").status == 0
    check_equal(Path("d.qcow2"), original)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", "d.raw", original)


def test_other_bitmaps_of_an_image_are_kept(run: Run) -> None:
    """QEMU records the writes in those that record; the others are named in a warning."""
    run("send", make("a.qcow2"), "--bitmap", "b64k", "--to", "s.bin")
    other = Path("c.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", other, ODD)
    for name in ("live", "still"):
        qemu_img("bitmap", "--add", "-g", "64k", other, name)
    qemu_img("bitmap", "--disable", other, "still")
    done = run("replay", "s.bin", "--image", other)
    assert done.status == 0
    assert "c.qcow2: bitmaps that do not record this write were kept: 'still'" in done.err
    stored = qcow2.stored_bitmaps(other)
    assert stored["still"].dirty == ()
    assert stored["live"].dirty
    assert stored["b64k"] == qcow2.stored_bitmaps(Path("a.qcow2"))["b64k"]


def test_a_guest_cannot_choose_the_format(run: Run) -> None:
    """A raw disk with the header of a qcow2 image whose backing file is a file of the host."""
    Path("secret").write_bytes(b"s" * MIB)
    qemu_img("create", "-q", "-f", "qcow2", "-b", f"{os.getcwd()}/secret", "-F", "raw", "evil", MIB)
    os.truncate("evil", MIB)
    before = here()
    for name in ("disk.img", "disk", "disk.raw"):
        os.rename("evil", name)
        fails(run("send", name, "--to", "s.bin"), 4, "looks like qcow2; use -f qcow2 if it is")
        assert run("send", name, "-f", "raw", "--to", "s.bin").status == 0
        run("replay", "s.bin", "--image", "copy", "--create", "--overwrite")
        assert b"ssss" not in Path("copy").read_bytes()
        os.rename(name, "evil")
    assert set(before) <= set(here())


def test_the_format_of_a_backing_file_is_not_guessed(run: Run) -> None:
    """QEMU would open it as what its content looks like."""
    make("inner.qcow2", bitmaps=False)
    make("a.qcow2", ODD, "-b", "inner.qcow2", "-F", "qcow2", bitmaps=False)
    data = Path("a.qcow2").read_bytes()
    # The extension with the format of the backing file, made unknown.
    Path("a.qcow2").write_bytes(data.replace(b"\xe2\x79\x2a\xca", b"\xe2\x79\x2a\xcb", 1))
    fails(run("send", "a.qcow2", "--to", "s.bin"), 4, "qemu-img rebase -u -F FORMAT -b")
    backing = 'json:{"driver":"raw","file":{"driver":"null-co"}}'
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", "raw", "b.qcow2", ODD)
    fails(run("send", "b.qcow2", "--to", "s.bin"), 4, "is not a file")


def test_layers_have_no_other_use(run: Run) -> None:
    Path("base.img").write_bytes(bytes(ODD))
    make("a.qcow2", ODD, "-b", "base.img", "-F", "raw", bitmaps=False)
    before = here()
    outcome = run("send", "a.qcow2", "--to", "base.img")
    refused(outcome, 2, "are the same file", before)
    make("d.qcow2", ODD, "-o", "data_file=d.data", bitmaps=False)
    run("send", "d.qcow2", "--to", "s.bin")
    os.link("s.bin", "kept")
    os.unlink("d.data")
    os.link("s.bin", "d.data")
    before = here()
    refused(run("replay", "s.bin", "--image", "d.qcow2"), 2, "are the same file", before)


def test_an_image_in_use(run: Run) -> None:
    path = make("a.qcow2")
    run("send", path, "--bitmaps", "--to", "s.bin")
    words = [
        "qemu-storage-daemon",
        "--blockdev",
        f"driver=qcow2,node-name=d,file.driver=file,file.filename={path.absolute()}",
        *("--chardev", "stdio,id=m", "--monitor", "chardev=m"),
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        try:
            assert user.stdout is not None
            assert user.stdout.readline()  # it has opened the image
            fails(run("send", path, "--to", "x"), 4, "a.qcow2 is in use: ")
            fails(run("replay", "s.bin", "--image", path), 4, "in use")
            assert run("send", path, "-U", "--to", "t.bin").status == 0
            outcome = run("send", path, "-U", "--bitmaps", "--to", "t.bin")
            fails(outcome, 4, "it is inconsistent: the image was not closed properly, or is in use")
        finally:
            user.terminate()


def test_the_tools_are_named_where_they_are_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("send", make("a.qcow2"), "--to", "s.bin")
    monkeypatch.setenv("PATH", "/nonexistent")
    fails(
        run("send", "a.qcow2", "--to", "x"), 4, "qemu-storage-daemon is missing; install qemu-utils"
    )
    fails(run("replay", "s.bin", "--image", "b.qcow2", "--create"), 4, "install qemu-utils")
    assert not Path("b.qcow2").exists()


def test_extract(run: Run) -> None:
    original = make("a.qcow2")
    run("send", original, "--to", "s.bin")
    assert run("extract", "s.bin", "--to", "b.qcow2").status == 0
    qcow2.same(Path("b.qcow2"), "qcow2", original, "qcow2")
    qcow2.check(Path("b.qcow2"))
    before = here()
    refused(run("extract", "s.bin", "--to", "b.qcow2"), 4, "b.qcow2: File exists", before)
    refused(run("extract", "s.bin", "-f", "qcow2"), 2, "is not a file", before)
    assert run("extract", "s.bin", "-f", "vmdk", "--to", "c").status == 0
    qcow2.same(Path("c"), "vmdk", original, "qcow2")
    assert sorted(os.listdir()) == ["a.qcow2", "b.qcow2", "c", "s.bin"]


def children() -> list[str]:
    """The storage daemons on this machine whose sockets are in this test's folder."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            place = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if b"qemu-storage-daemon" in words and place == os.getcwd():
            found.append(pid)
    return found


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        *(pytest.param(other, marks=pytest.mark.long) for other in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_a_replay_that_is_ended_is_resumed(run: Run, number: signal.Signals) -> None:
    """Its children end as well, and the image is sound."""
    original = make("a.qcow2", 40 * MIB)
    qcow2.write(original, "write -P 6 0 40M")
    run("send", original, "--bitmaps", "--to", "s.bin")
    os.mkfifo("pipe")
    words = [sys.executable, "-m", "blkmig_cli", "replay", "-", "--image", "b.qcow2", "--create",
             "--device-size", str(40 * MIB)]  # fmt: skip
    with open("pipe", "rb+", buffering=0) as pipe:
        process = subprocess.Popen(
            words, stdin=pipe, stderr=subprocess.PIPE, start_new_session=True
        )
        content = Path("s.bin").read_bytes()
        os.set_blocking(pipe.fileno(), False)
        sent, deadline = 0, time.monotonic() + 60
        while sent < len(content) // 2 and time.monotonic() < deadline:
            try:
                sent += pipe.write(content[sent : sent + 65536]) or 0
            except BlockingIOError:
                time.sleep(0.01)
        assert sent >= len(content) // 2
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert b"b.qcow2.partial is incomplete; use --resume to continue" in errors
    while children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert children() == []
    qcow2.check(Path("b.qcow2.partial"))
    fails(run("replay", "s.bin", "--image", "b.qcow2", "--create"), 4, "--resume")
    wrong = run("replay", "s.bin", "--image", "b.qcow2", "-f", "raw", "--create", "--resume")
    fails(wrong, 4, "has format qcow2, not raw")
    assert run("replay", "s.bin", "--image", "b.qcow2", "--create", "--resume").status == 0
    check_equal(Path("b.qcow2"), original)
    # What is finished is not written again; what was changed since is noticed.
    assert run("replay", "s.bin", "--image", "b.qcow2", "--create", "--resume").status == 0
    qcow2.write(Path("b.qcow2"), "write -P 1 0 40M")
    fails(run("replay", "s.bin", "--image", "b.qcow2", "--resume"), 4, "not as the replay left it")
    restart = run("replay", "s.bin", "--image", "b.qcow2", "--overwrite", "--restart")
    assert restart.status == 0
    check_equal(Path("b.qcow2"), original)


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a small file system")
def test_a_full_file_system(run: Run) -> None:
    """Nothing is called finished; the replay is resumed when there is room."""
    original = make("a.qcow2", 8 * MIB)
    qcow2.write(original, "write -P 6 0 8M")
    run("send", original, "--bitmaps", "--to", "s.bin")
    os.mkdir("small")
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "none", "small"], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        words = ["replay", "s.bin", "--image", "small/b.qcow2", "--create"]
        done = run(*words)
        assert done.status == 4
        assert "No space left on device" in done.err
        assert not Path("small/b.qcow2").exists()
        subprocess.run(["mount", "-o", "remount,size=40M", "small"], check=True)
        assert run(*words, "--resume").status == 0
        check_equal(Path("small/b.qcow2"), original)
    finally:
        subprocess.run(["umount", "small"], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a small file system")
def test_a_file_system_without_room_for_the_bitmaps(run: Run) -> None:
    """QEMU would only log that it lost them."""
    os.mkdir("small")
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", "small"], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        size = 64 * MIB
        qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", size)
        qemu_img("bitmap", "--add", "-g", 512, "a.qcow2", "b")
        qcow2.write(Path("a.qcow2"), *(f"write -z {at}M 512k" for at in range(64)))
        run("send", "a.qcow2", "--bitmaps", "--to", "s.bin")
        qemu_img("create", "-q", "-f", "qcow2", "small/b.qcow2", size)
        with open("small/filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass
        done = run("replay", "s.bin", "--image", "small/b.qcow2", "--bitmaps-only")
        assert done.status == 4, done
        os.unlink("small/filler")
        assert run("replay", "s.bin", "--image", "small/b.qcow2", "--bitmaps-only").status == 0
        check_equal(Path("small/b.qcow2"), Path("a.qcow2"))
    finally:
        subprocess.run(["umount", "small"], check=True)


def test_a_child_that_is_killed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and the replay is resumed."""
    from blkmig_cli.disks.qemu.image import QemuImage

    original = make("a.qcow2", 8 * MIB)
    qcow2.write(original, "write -P 6 0 8M")
    run("send", original, "--bitmaps", "--to", "s.bin")
    written = QemuImage.write_part

    def write(self: QemuImage, offset: int, part: FilePart) -> bool:
        if offset == 6 * MIB:
            for pid in children():
                os.kill(int(pid), signal.SIGKILL)
        return written(self, offset, part)

    words = ["replay", "s.bin", "--image", "b.qcow2", "--create"]
    with monkeypatch.context() as patch:
        patch.setattr(QemuImage, "write_part", write)
        fails(run(*words), 4, "b.qcow2.partial: ")
    assert run(*words, "--resume").status == 0
    check_equal(Path("b.qcow2"), original)


def test_a_child_inherits_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that kept a pipe of ours open would keep its reader waiting."""
    from blkmig_cli.disks.qemu.image import QemuImage

    run("send", make("a.qcow2"), "--to", "s.bin")
    read, write = os.pipe()
    os.set_inheritable(write, True)
    held: list[set[str]] = []
    original = QemuImage.write

    def looking(self: QemuImage, offset: int, data: memoryview) -> None:
        folders = [f"/proc/{pid}/fd" for pid in children()]
        held.extend(
            {os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)} for folder in folders
        )
        original(self, offset, data)

    monkeypatch.setattr(QemuImage, "write", looking)
    ours = os.readlink(f"/proc/self/fd/{write}")
    assert run("replay", "s.bin", "--image", "b.qcow2", "--create").status == 0
    os.close(read)
    os.close(write)
    assert held
    for files in held:
        assert ours not in files
        assert not any(file.endswith("s.bin") for file in files)


@pytest.mark.long
def test_a_manifest(run: Run) -> None:
    original = make("a.qcow2")
    words = ["send", original, "--bitmaps", "--to", "s.bin", "--manifest", "s.json"]
    assert run(*words).status == 0
    replay = ["replay", "s.bin", "--image", "b.qcow2", "--create", "--manifest", "s.json"]
    assert run(*replay).status == 0
    check_equal(Path("b.qcow2"), original)
    manifest = Path("s.json").read_text()
    (digest,) = re.findall('"sha256": "([0-9a-f]{64})"', manifest.partition('"bitmaps"')[0])
    Path("s.json").write_text(manifest.replace(digest, "0" * 64))
    outcome = run(*replay[:3], "c.qcow2", *replay[4:])
    assert outcome.status == 1
    assert not Path("c.qcow2").exists()
    qcow2.check(Path("c.qcow2.partial"))


PLACES = st.tuples(
    st.sampled_from(["write -P 1", "write -P 255", "write -z", "write -z -u", "discard"]),
    st.floats(0, 1),
    st.sampled_from([512, 4096, 65536, 300 * 512, MIB]),
)


@pytest.mark.scaled
@settings(max_examples=examples(5, 60), deadline=None)
@given(
    st.integers(1, 5 * 2048),
    st.sampled_from([512, 65536, 2 * MIB]),
    st.lists(PLACES, max_size=40),
    st.booleans(),
)
def test_any_image_is_sent_as_its_content(
    sectors: int, cluster: int, writes: list[tuple[str, float, int]], packed: bool
) -> None:
    """Data, zero and unallocated clusters in any order, compressed or not: as the raw disk is sent."""
    from blkmig_cli.operations.send.send import send
    from blkmig_cli.operations.send.stream import SendOptions

    with tempfile.TemporaryDirectory() as place:
        image, raw = Path(place, "a.qcow2"), Path(place, "a.raw")
        size = sectors * 512
        options = f"cluster_size={cluster}"
        qemu_img("create", "-q", "-f", "qcow2", "-o", options, image, size)
        commands = []
        for what, at, length in writes:
            start = min(int(at * sectors), sectors - 1) * 512
            commands.append(f"{what} {start} {min(length, size - start)}")
        qcow2.write(image, *commands)
        if packed:
            os.rename(image, raw)
            qemu_img("convert", "-c", "-f", "qcow2", "-O", "qcow2", "-o", options, raw, image)
        qemu_img("convert", "-f", "qcow2", "-O", "raw", image, raw)
        for source in (image, raw):
            send({"d": str(source)}, f"{source}.bin", SendOptions(), identity=None)
        # (pytest takes minutes to show how two streams differ.)
        assert filecmp.cmp(f"{image}.bin", f"{raw}.bin", shallow=False)


@pytest.mark.long
def test_many_ranges_on_a_large_disk(run: Run) -> None:
    """100,000 dirty ranges on 1 TiB."""
    count, step = 100_000, 8 * MIB
    ranges = ",".join(f'{{"start":{n * step},"length":65536}}' for n in range(count))
    bitmap = (
        '{"name":"b","granularity":65536,"recording":true,"persistent":true,'
        f'"count":{count * 65536},"dirty":[{ranges}]}}'
    )
    Path("b.json").write_text(f'{{"version":1,"virtual-size":{1 << 40},"bitmaps":[{bitmap}]}}')
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "1T")
    assert (
        run("send", "a.qcow2", "--bitmaps-from", "b.json", "--no-identity", "--to", "s.bin").status
        == 0
    )
    assert run("replay", "s.bin", "--image", "b.qcow2", "--create").status == 0
    stored = qcow2.stored_bitmaps(Path("b.qcow2"))["b"]
    assert stored.dirty == tuple((n * step, 65536) for n in range(count))
    assert run("send", "b.qcow2", "--bitmaps", "--no-identity", "--to", "t.bin").status == 0
    assert Path("t.bin").read_bytes() == Path("s.bin").read_bytes()
