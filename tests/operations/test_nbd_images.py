"""Commands with NBD exports as images, served by qemu-nbd and nbdkit."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from blkmig_cli.disks.nbd.image import NbdImage
from tests.conftest import Outcome, Run, fails
from tests.support import nbd, qcow2
from tests.support.qcow2 import needs_qemu_utils, qemu_img

pytestmark = needs_qemu_utils

MIB = 1 << 20
SIZE = 5 * MIB + 3 * 512


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def disk() -> Path:
    """A raw disk with data at its start, in its middle and at its end."""
    path, data = Path("disk"), bytearray(SIZE)
    for at, length in ((0, 70_000), (2 * MIB + 512, MIB), (SIZE - 512, 512)):
        data[at : at + length] = random.Random(at).randbytes(length)
    path.write_bytes(data)
    return path


def blank(size: int = SIZE, name: str = "target") -> Path:
    """A disk with other content."""
    path = Path(name)
    path.write_bytes(b"\xa5" * size)
    return path


def records() -> list[str]:
    """The files in the state folder."""
    return os.listdir("state/blkmig") if Path("state/blkmig").exists() else []


def test_send(run: Run, disk: Path) -> None:
    """It gives the stream that the file itself gives."""
    assert run("send", disk, "--no-identity", "--to", "a.bin").status == 0
    with nbd.qemu_nbd(disk, "-r") as path:
        assert run("send", nbd.uri(path), "--no-identity", "--to", "b.bin").status == 0
        assert run("send", f"drive0={nbd.uri(path)}", "--no-identity", "--to", "c.bin").status == 0
        fails(
            run("send", nbd.uri(path), "-f", "qcow2", "--no-identity", "--to", "x"),
            2,
            "is an NBD export",
        )
        fails(
            run("send", nbd.uri(path), "--bitmaps", "--no-identity", "--to", "x"),
            4,
            "no image has any bitmap",
        )
    for name in ("b.bin", "c.bin"):
        assert Path(name).read_bytes() == Path("a.bin").read_bytes()


def test_bitmaps_of_an_export(run: Run) -> None:
    """Their ranges are the same; the granularity, which NBD does not tell, may be finer."""
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", SIZE)
    for name, granularity in (("fine", 4096), ("coarse", MIB), ("none", 65536)):
        qemu_img("bitmap", "--add", "-g", granularity, "a.qcow2", name)
    qcow2.write(Path("a.qcow2"), "write 4k 4k", f"write {SIZE - 512} 512")
    qemu_img("bitmap", "--clear", "a.qcow2", "none")
    with nbd.qemu_nbd(
        Path("a.qcow2"), "-r", "-B", "fine", "-B", "coarse", "-B", "none", format="qcow2"
    ) as path:
        assert run("send", nbd.uri(path), "--bitmaps", "--to", "s.bin").status == 0
        assert run("send", nbd.uri(path), "--bitmap", "fine", "--to", "t.bin").status == 0
        fails(run("send", nbd.uri(path), "--bitmap", "other", "--to", "x"), 2, "coarse")
    assert run("replay", "s.bin", "--image", "b", "--create").status == 0
    found = {one["name"]: one for one in json.loads(Path("b.bitmaps.json").read_text())["bitmaps"]}
    stored = qcow2.stored_bitmaps(Path("a.qcow2"))
    assert list(found) == ["fine", "coarse", "none"] or set(found) == set(stored)
    for name, bitmap in found.items():
        assert tuple((one["start"], one["length"]) for one in bitmap["dirty"]) == stored[name].dirty
    assert [found[name]["granularity"] for name in ("fine", "coarse", "none")] == [
        4096,
        65536,
        65536,
    ]
    report = run("validate", "t.bin", "--output", "json").report
    assert [bitmap["name"] for bitmap in report["bitmaps"]] == ["fine"]


def test_the_output_of_nbdinfo(run: Run) -> None:
    """Its bitmap is that which is sent from the export; its name is that of the file."""
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", SIZE)
    qemu_img("bitmap", "--add", "-g", 4096, "a.qcow2", "fine")
    qcow2.write(Path("a.qcow2"), "write 4k 4k", f"write {SIZE - 512} 512")
    with nbd.qemu_nbd(Path("a.qcow2"), "-r", "-B", "fine", format="qcow2") as path:
        found = nbd.run("nbdinfo", "--map=qemu:dirty-bitmap:fine", "--json", nbd.uri(path))
        Path("fine.json").write_text(found)
        assert run("send", nbd.uri(path), "--bitmaps", "--no-identity", "--to", "s.bin").status == 0
        words = ["--bitmaps-from", "fine.json", "--no-identity", "--to", "t.bin"]
        assert run("send", nbd.uri(path), *words).status == 0
    assert Path("s.bin").read_bytes() == Path("t.bin").read_bytes()
    extents = json.loads(found)
    for wrong, message in (
        (extents[1:], "does not follow byte 0"),
        ([{**extents[0], "length": 0}], "does not follow byte 0"),
        ([{**extents[0], "type": "1"}], "type is not a number"),
        ([{}], "offset is not a number"),
        ([[]], "not an object"),
        ([], "no extents"),
    ):
        Path("wrong.json").write_text(json.dumps(wrong))
        outcome = run("send", "a.qcow2", "--bitmaps-from", "wrong.json", "--to", "x")
        fails(outcome, 4, message)


@pytest.mark.parametrize("source", ["file", "pipe"])
@pytest.mark.parametrize("behind", [0, 512, 2 * MIB])
def test_replay(run: Run, disk: Path, source: str, behind: int) -> None:
    """What an export holds behind the disk stays as it is."""
    run("send", disk, "--to", "s.bin")
    stream = "s.bin" if source == "file" else "exec:cat s.bin"
    target = blank(SIZE + behind)
    with nbd.qemu_nbd(target) as path:
        words = ["--image", nbd.uri(path), "--device-size", str(SIZE), "--verify"]
        assert run("replay", stream, *words).status == 0
        assert target.read_bytes() == disk.read_bytes() + b"\xa5" * behind
        assert run("compare", "s.bin", nbd.uri(path)).status == 0
        size = ["--device-size", str(SIZE)]
        assert run("validate", "s.bin", "--image", nbd.uri(path), *size).status == 0
        assert len(records()) == 1
        # Finished: nothing is redone; what was changed since is noticed.
        assert run("replay", stream, *words, "--resume").status == 0
        with nbd.opened(path, writable=True) as image:
            image.write(512, memoryview(b"other".ljust(512)))
        fails(run("replay", stream, *words, "--resume"), 4, "not as the replay left it")
        assert run("compare", "s.bin", nbd.uri(path)).status == 1
        assert run("validate", "s.bin", "--image", nbd.uri(path), *size).status == 1
        assert run("replay", stream, *words, "--restart").status == 0
        assert run("compare", "s.bin", nbd.uri(path)).status == 0


def test_two_exports(run: Run, disk: Path) -> None:
    run("send", f"a={disk}", f"b={disk}", "--to", "s.bin")
    one, two = blank(name="one"), blank(name="two")
    size = ["--device-size", str(SIZE)]
    with nbd.qemu_nbd(one) as first, nbd.qemu_nbd(two, "-x", "b") as second:
        images = [f"a={nbd.uri(first)}", f"b={nbd.uri(second, 'b')}"]
        words = ["replay", "s.bin", *size, "--image"]
        fails(run(*words, images[0], "--image", f"b={nbd.uri(first)}"), 2, "are the same file")
        assert run(*words, images[0], "--image", images[1]).status == 0
    assert one.read_bytes() == two.read_bytes() == disk.read_bytes()
    assert len(records()) == 2


def test_what_is_refused(run: Run, disk: Path) -> None:
    """Before anything is written."""
    Path("disk.bitmaps.json").write_text(
        json.dumps(
            {"version": 1, "virtual-size": SIZE, "bitmaps": [
                {"name": "b", "granularity": 512, "recording": True, "persistent": True,
                 "count": 0, "dirty": []}]}
        )
    )  # fmt: skip
    run("send", disk, "--bitmaps", "--to", "s.bin")
    target, small = blank(), blank(SIZE - 512, "small")
    before = target.read_bytes()
    with (
        nbd.qemu_nbd(target) as path,
        nbd.qemu_nbd(target, "-r") as locked,
        nbd.qemu_nbd(small) as little,
    ):
        replay = ["replay", "s.bin", "--image"]
        fails(
            run(*replay, nbd.uri(path)), 2, "is an NBD export, which has no place for the bitmaps"
        )
        fails(run(*replay, nbd.uri(path), "--no-bitmaps", "--create"), 4, "it is written in place")
        fails(run(*replay, nbd.uri(path), "--no-bitmaps", "--overwrite"), 2, "is an NBD export")
        fails(run(*replay, nbd.uri(locked), "--no-bitmaps"), 4, "is a read-only export")
        fails(run(*replay, nbd.uri(path, "no"), "--no-bitmaps"), 4, "export")
        fails(run(*replay, nbd.uri(little), "--no-bitmaps"), 4, f"has {SIZE - 512} bytes")
        assert small.read_bytes() == b"\xa5" * (SIZE - 512)
        assert target.read_bytes() == before
        assert run(*replay, nbd.uri(path), "--bitmaps-to", "b.json").status == 0
    assert target.read_bytes() == disk.read_bytes()
    assert Path("b.json").exists()
    gone = "nbd+unix:///?socket=none"
    for words in (["send", gone, "--to", "x"], ["compare", "s.bin", gone], [*replay, gone]):
        fails(run(*words), 4, "none: No such file or directory")
    fails(run("send", "nbd://", "--to", "x"), 2, "invalid NBD URI 'nbd://'")


def test_extract(run: Run, disk: Path) -> None:
    run("send", disk, "--to", "s.bin")
    target, small = blank(SIZE + 512), blank(SIZE - 512, "small")
    with nbd.qemu_nbd(target) as path, nbd.qemu_nbd(small) as little:
        size = ["--device-size", str(SIZE)]
        fails(run("extract", "s.bin", *size, "--to", nbd.uri(little)), 4, "bytes, the disk")
        assert run("extract", "s.bin", *size, "--to", nbd.uri(path)).status == 0
    assert target.read_bytes() == disk.read_bytes() + b"\xa5" * 512
    assert small.read_bytes() == b"\xa5" * (SIZE - 512)


def test_a_server_that_fails_while_it_is_written(run: Run, disk: Path) -> None:
    """The replay is resumed on the same export, which another server serves."""
    run("send", disk, "--to", "s.bin")
    Path("target").write_bytes(b"\xa5" * SIZE)
    os.mkdir("sockets")
    place, fault = Path("sockets/s"), Path("fault")
    words = ["replay", "s.bin", "--device-size", str(SIZE), "--image", nbd.uri(str(place))]
    with nbd.nbdkit("--filter=error", "file", "target", "error-pwrite=ENOSPC",
                    "error-pwrite-rate=100%", f"error-pwrite-file={fault.absolute()}") as path:  # fmt: skip
        place.symlink_to(path)
        fault.touch()
        done = run(*words)
        assert done.status == 4
        assert "No space left on device" in done.err
        assert "use --resume" in done.out
        fails(run(*words), 4, "is incomplete")
        fault.unlink()
        assert run(*words, "--resume").status == 0
    assert Path("target").read_bytes() == disk.read_bytes()


def test_blocks_of_a_server_are_kept_to(run: Run, disk: Path) -> None:
    """Unaligned records and a last chunk within a block of 64 KiB."""
    with open(disk, "r+b") as file:
        file.truncate(6 * MIB)
    run("send", disk, "--no-identity", "--to", "s.bin")
    Path("target").write_bytes(b"\xa5" * 6 * MIB)
    policy = ("--filter=blocksize-policy", "blocksize-minimum=64k", "blocksize-preferred=64k",
              "blocksize-error-policy=error")  # fmt: skip
    with nbd.nbdkit(policy[0], "file", "target", *policy[1:]) as path:
        assert run("replay", "s.bin", "--image", nbd.uri(path)).status == 0
        assert run("compare", "s.bin", nbd.uri(path)).status == 0
        assert run("send", nbd.uri(path), "--no-identity", "--to", "t.bin").status == 0
    assert Path("target").read_bytes() == disk.read_bytes()
    assert Path("t.bin").read_bytes() == Path("s.bin").read_bytes()


def test_an_export_with_a_part_of_a_file(run: Run, disk: Path) -> None:
    """Cut off, or longer by zeros, which are not the file's."""
    content = disk.read_bytes()
    for size in (SIZE - 512, SIZE + MIB):
        with nbd.nbdkit("--filter=truncate", "file", disk, f"truncate={size}") as path:
            assert run("send", nbd.uri(path), "--to", "s.bin").status == 0
        assert run("replay", "s.bin", "--image", "copy", "--overwrite").status == 0
        assert Path("copy").read_bytes() == content[:size].ljust(size, b"\0") or not "they differ"


def test_an_export_that_shrinks(run: Run, disk: Path) -> None:
    """Behind what is left of it, the server fails; nothing is left of the stream."""
    with nbd.nbdkit("file", disk) as path:
        fails(truncating(run, path, disk), 4, "Input/output error")
    assert not Path("s.bin").exists()


def truncating(run: Run, path: str, disk: Path) -> Outcome:
    """Send an export whose file becomes shorter once its size is known."""
    original = NbdImage.extents

    def extents(self: NbdImage) -> Iterator[tuple[int, int]]:
        found = list(original(self))
        os.truncate(disk, MIB)
        yield from found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NbdImage, "extents", extents)
        return run("send", nbd.uri(path), "--to", "s.bin")
