"""Which images and files a replay takes: each has one use, none is overwritten unasked."""

import gzip
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from blkmig_cli.disks.qemu.create import check_options
from tests.conftest import Run, fails
from tests.support import raw
from tests.support.replays import (
    BLKMIG,
    DISK,
    GAP,
    MIB,
    STREAM,
    TWO,
    both_sources,
    data,
    filled,
    folder,
    here,
    put,
    refused,
    source,
)

__all__ = ["folder"]


# -- 1: one image, one device; one file, one use


def hard_link(name: str) -> str:
    os.link(name, "linked")
    return "linked"


def soft_link(name: str) -> str:
    os.symlink(name, "linked")
    return "linked"


NAMES: dict[str, Callable[[str], str]] = {
    "the same name": lambda name: name,
    "another path": lambda name: f"./{name}",
    "an absolute path": lambda name: str(Path(name).absolute()),
    "a hard link": hard_link,
    "a symbolic link": soft_link,
}


@pytest.mark.parametrize("other", NAMES)
@pytest.mark.parametrize("stream", ["s.bin", "file:s.bin", "fd:{fd}"])
def test_the_stream_as_its_image(run: Run, other: str, stream: str) -> None:
    put(STREAM)
    name = NAMES[other]("s.bin")
    before = here()
    for words in ([], ["-f", "raw"], ["--overwrite"], ["--dry-run"], ["--resume"]):
        fd = os.open("s.bin", os.O_RDONLY)
        outcome = run("replay", stream.format(fd=fd), "--image", f"d={name}", *words)
        refused(outcome, 2, "are the same file", before)
        os.close(fd)


def test_the_stream_as_its_image_by_stdin() -> None:
    put(STREAM)
    words = [*BLKMIG, "replay", "-", "--image", "s.bin", "-f", "raw"]
    with open("s.bin", "rb") as file:
        done = subprocess.run(words, stdin=file, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the stream (stdin) and the image (s.bin) are the same file" in done.stderr
    assert Path("s.bin").read_bytes() == STREAM


@pytest.mark.parametrize("compress", [False, True])
def test_a_stream_that_is_an_image_s_neighbour(run: Run, compress: bool) -> None:
    content = gzip.compress(STREAM) if compress else STREAM
    put(bytes(2 * MIB), "x")
    for name in (
        "x.partial",
        "x.replay.json",
        "x.replay.json.new",
        "x.bitmaps.json",
        "x.blkmig.json",
    ):
        put(content, name)
        before = here()
        refused(run("replay", name, "--image", "x"), 2, "are the same file", before)
        Path(name).unlink()


@both_sources
@pytest.mark.parametrize("other", NAMES)
@pytest.mark.parametrize("exists", [True, False])
def test_two_devices_onto_one_image(run: Run, kind: str, other: str, exists: bool) -> None:
    put(TWO)
    if not exists and "link" in other:
        os.symlink("x", "linked")
        name = "linked"
    else:
        put(bytes(MIB), "x")
        name = NAMES[other]("x")
    if not exists:
        Path("x").unlink(missing_ok=True)
    before = here()
    words = ["--image", "d=x", "--image", f"e={name}", *([] if exists else ["--create"])]
    refused(run("replay", source(kind), *words), 2, "are the same file", before)


def test_an_image_that_is_the_neighbour_of_another(run: Run) -> None:
    put(TWO)
    for suffix in (".partial", ".replay.json", ".bitmaps.json", ".replay.json.new", ".blkmig.json"):
        before = here()
        words = ["--image", "d=x", "--image", f"e=x{suffix}", "--create"]
        refused(run("replay", "s.bin", *words), 2, "are the same file", before)


def test_files_of_bitmaps(run: Run) -> None:
    put(STREAM)
    put(TWO, "two.bin")
    put(bytes(2 * MIB), "x")
    put(b"{}", "m.json")
    before = here()
    for name in ("s.bin", "x", "x.replay.json", "x.partial", "./s.bin"):
        outcome = run("replay", "s.bin", "--image", "x", "--bitmaps-to", name)
        refused(outcome, 2, "are the same file", before)
    words = ["--image", "d=x", "--image", "e=y", "--create", "--bitmaps-to", "d=b", "--bitmaps-to"]
    refused(run("replay", "two.bin", *words, "e=./b"), 2, "are the same file", before)
    refused(run("replay", "two.bin", *words, "e=x.bitmaps.json"), 2, "are the same file", before)
    # The one beside the image may be named.
    words = ["--image", "x", "--bitmaps-to", f"{Path().absolute()}/x.bitmaps.json"]
    assert run("replay", "s.bin", *words).status == 0
    assert set(read_bitmaps("x.bitmaps.json").bitmaps) == {"b"}


def test_manifests(run: Run) -> None:
    put(DISK, "disk")
    assert run("send", "d=disk", "--to", "s.bin", "--manifest", "m.json").status == 0
    before = here()
    for words in (["m.json"], ["new", "--bitmaps-to", "m.json", "--create"]):
        outcome = run("replay", "s.bin", "--manifest", "m.json", "--image", *words)
        refused(outcome, 2, "are the same file", before)


# -- 2: --create makes


@both_sources
def test_create_refuses_what_exists(run: Run, kind: str) -> None:
    put(STREAM)
    for make in (lambda: put(b"mine", "x"), lambda: os.mkdir("x"), lambda: os.symlink("none", "x")):
        make()
        before = here()
        outcome = run("replay", source(kind), "--image", "x", "--create")
        refused(outcome, 4, "x: File exists", before)
        # Neither would do for what is no file.
        assert ("--overwrite" in outcome.err) is Path("x").is_file()
        assert ("in place" in outcome.err) is Path("x").is_file()
        os.rmdir("x") if Path("x").is_dir() else os.unlink("x")


@both_sources
def test_without_create_the_image_must_exist(run: Run, kind: str) -> None:
    put(STREAM)
    before = here()
    for words in ([], ["--resume"], ["--restart"], ["--dry-run"]):
        outcome = run("replay", source(kind), "--image", "x", *words)
        refused(outcome, 4, "use --create to make it", before)


def test_names_that_announce_another_format(run: Run) -> None:
    put(STREAM)
    assert run("replay", "s.bin", "--image", "x.qcow2", "--create", "-f", "raw").status == 0
    before = here()
    outcome = run("replay", "s.bin", "--image", "x.qcow2")
    refused(
        outcome, 4, "x.qcow2 does not look like qcow2; use -f qcow2 if it is, or -f raw", before
    )
    outcome = run("replay", "s.bin", "--image", "y.dmg", "-f", "dmg", "--create")
    refused(outcome, 4, "y.dmg: images of format dmg cannot be created", before)
    outcome = run("replay", "s.bin", "--image", "y", "-f", "nbd", "--create")
    refused(outcome, 2, "-f: unknown format 'nbd'", before)
    outcome = run("replay", "s.bin", "--image", "y", "-o", "compat=v3", "--create")
    refused(outcome, 2, "-o is for images of other formats than raw", before)
    outcome = run("replay", "s.bin", "--image", "y", "-f", "z=raw", "--create")
    refused(outcome, 2, "'z'", before)
    for option in ("data_file=x", "size=1G", "subformat=twoGbMaxExtentSparse"):
        outcome = run("replay", "s.bin", "--image", "y.vmdk", "-o", option, "--create")
        refused(outcome, 2, f"-o {option} is refused", before)
    for option in ("subformat=streamOptimized", "hwversion=Extent"):
        check_options([option])


@pytest.mark.parametrize("room", [16 << 20, -1])
@pytest.mark.parametrize("change", ["structure", "data", "size"])
def test_a_stream_that_changes_while_it_is_read(
    run: Run, monkeypatch: pytest.MonkeyPatch, change: str, room: int
) -> None:
    """What was checked is not what is written: the image stays incomplete.

    ``room``: whether the records are held, or decoded a second time.
    """
    from blkmig_cli.operations.replay import held
    from blkmig_cli.operations.replay import replay as module
    from blkmig_cli.operations.replay.judgement import judge

    monkeypatch.setattr(held, "_ROOM", room)
    put(STREAM)
    at = STREAM.index(bytes([2]) * 1024)
    changed = {
        "structure": STREAM[:-20] + bytes(20),
        "data": STREAM[:at] + b"\1" + STREAM[at + 1 :],
        "size": STREAM + b"\0",
    }

    def judged(*given: object) -> object:
        found = judge(*given)  # type: ignore[arg-type]
        with open("s.bin", "r+b") as file:
            file.write(changed[change])
        return found

    monkeypatch.setattr(module, "judge", judged)
    outcome = run("replay", "s.bin", "--image", "x", "--create", "--allow-incomplete", "-q")
    fails(outcome, 4, "was changed while it was read")
    assert not Path("x").exists()
    assert Path("x.partial").exists()


def replaced_image() -> None:
    """An image with all that can stand beside it."""
    put(filled(9, 3 * MIB), "x")
    write_bitmaps("x.bitmaps.json", BitmapFile(3 * MIB, {"old": DirtyBitmap("old", 512)}))
    put(b'{"id": "old"}', "x.blkmig.json")


@both_sources
@pytest.mark.parametrize("words", [["--overwrite"], ["--overwrite", "--create"]])
def test_overwrite(run: Run, kind: str, words: list[str]) -> None:
    put(STREAM)
    replaced_image()
    assert run("replay", source(kind), "--image", "x", *words).status == 0
    assert Path("x").read_bytes() == DISK
    assert set(read_bitmaps("x.bitmaps.json").bitmaps) == {"b"}
    assert set(here()) == {"s.bin", "x", "x.bitmaps.json", "x.replay.json"}
    # Also where there is nothing to replace, and with --resume when it is done.
    assert run("replay", source(kind), "--image", "y", *words).status == 0
    before = here()
    outcome = run("replay", source(kind), "--image", "x", *words, "--resume")
    assert outcome.status == 0
    assert "finished already" in outcome.out
    assert here() == before


def test_overwrite_without_bitmaps_leaves_none(run: Run) -> None:
    put(STREAM)
    replaced_image()
    assert run("replay", "s.bin", "--image", "x", "--overwrite", "--no-bitmaps").status == 0
    assert set(here()) == {"s.bin", "x", "x.replay.json"}


@both_sources
@pytest.mark.parametrize("content", [GAP, STREAM[:-20], STREAM[: MIB + 500]])
def test_what_is_not_complete_overwrites_nothing(run: Run, kind: str, content: bytes) -> None:
    put(content)
    replaced_image()
    before = here()
    assert run("replay", source(kind), "--image", "x", "--overwrite").status in (1, 3)
    after = here()
    for name in ("x.replay.json", "x.partial") if kind == "pipe" else ():
        after.pop(name)
    assert after == before
    if kind == "pipe":
        put(STREAM)
        before = here()
        # The image is still there: it must be said again that it is to be replaced.
        refused(run("replay", source(kind), "--image", "x", "--resume"), 4, "both", before)
        refused(run("replay", source(kind), "--image", "x", "--overwrite"), 4, "--resume", before)
        words = ["--image", "x", "--overwrite", "--resume"]
        if content == GAP:  # to which this is no continuation
            fails(run("replay", source(kind), *words), 4, "of another stream")
            words[-1] = "--restart"
        assert run("replay", source(kind), *words).status == 0
        assert Path("x").read_bytes() == DISK
        assert set(read_bitmaps("x.bitmaps.json").bitmaps) == {"b"}


def test_overwrite_replaces_files_only(run: Run) -> None:
    put(STREAM)
    put(filled(9, 2 * MIB), "real")
    os.symlink("real", "x")
    before = here()
    refused(run("replay", "s.bin", "--image", "x", "--overwrite"), 4, "is a symbolic link", before)
    os.mkdir("folder")
    before = here()
    outcome = run("replay", "s.bin", "--image", "folder", "--overwrite")
    refused(outcome, 4, "not a regular file", before)


def test_an_image_in_use_is_not_overwritten(run: Run) -> None:
    from blkmig_cli.disks.raw import open_raw

    put(STREAM)
    put(filled(9, 2 * MIB), "x")
    image = open_raw("x", writable=False)
    before = here()
    refused(run("replay", "s.bin", "--image", "x", "--overwrite"), 4, "in use", before)
    image.close()


@both_sources
def test_bitmaps_of_an_image_that_is_gone(run: Run, kind: str) -> None:
    """They would be taken for those of the new image."""
    put(STREAM)
    write_bitmaps("x.bitmaps.json", BitmapFile(2 * MIB, {"old": DirtyBitmap("old", 512)}))
    before = here()
    words = ["replay", source(kind), "--image", "x"]
    for more in ([], ["--no-bitmaps"], ["--bitmaps-to", "other"], ["--dry-run"], ["--resume"]):
        refused(
            run(*words, "--create", *more), 4, "x.bitmaps.json exists, though x does not", before
        )
    assert run(*words, "--overwrite").status == 0
    assert set(read_bitmaps("x.bitmaps.json").bitmaps) == {"b"}


# -- templates


@both_sources
def test_a_template_stands_for_every_device(run: Run, kind: str) -> None:
    put(raw.qemu(data(0, 1), data(0, 2, "e"), data(0, 3, "f")))
    words = ["--image", "{device}.img", "--image", "e=named"]
    assert run("replay", source(kind), *words, "--create").status == 0
    assert [Path(name).read_bytes()[0] for name in ("d.img", "named", "f.img")] == [1, 2, 3]
    before = here()
    refused(run("replay", source(kind), *words, "--create"), 4, "File exists", before)
    assert run("replay", source(kind), *words, "--overwrite").status == 0
    assert run("replay", source(kind), *words, "--create", "--resume").status == 0


def test_a_template_is_a_name_where_nothing_is_made(run: Run) -> None:
    put(STREAM)
    put(bytes(2 * MIB), "{device}.img")
    assert run("replay", "s.bin", "--image", "{device}.img").status == 0
    assert Path("{device}.img").read_bytes() == DISK


@both_sources
@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/etc/passwd", "../x", "a\nb", "\x1b[31m", b"\xff", "x" * 250,
     "x.partial", "x.replay.json", "x.bitmaps.json", "x.blkmig.json", "x.replay.json.new"],
)  # fmt: skip
def test_device_names_that_are_no_file_names(run: Run, kind: str, name: str | bytes) -> None:
    raw_name = name.encode() if isinstance(name, str) else name
    record = raw.word(0, 1) + bytes([len(raw_name)]) + raw_name + filled(1)
    put(raw.qemu(record))
    before = here()
    outcome = run("replay", source(kind), "--image", "{device}", "--create")
    refused(outcome, 2, "is not a plain file name", before)
    assert "--image DEVICE=IMAGE" in outcome.err
    if isinstance(name, str) and "/" not in name:
        assert run("replay", source(kind), "--image", f"{name}=y", "--create").status == 0


def test_devices_whose_files_would_be_neighbours(run: Run) -> None:
    put(raw.qemu(data(0, 1, "a"), data(0, 2, "a.img.partial")))
    before = here()
    outcome = run("replay", "s.bin", "--image", "{device}.img", "--image", "a=x", "--create")
    assert outcome.status == 0
    for name in set(here()) - set(before):
        Path(name).unlink()
    words = ["--image", "{device}", "--image", "a=a.img", "--create"]
    refused(run("replay", "s.bin", *words), 2, "is not a plain file name", before)


# -- which devices


def test_what_a_device_without_image_has(run: Run) -> None:
    """The message says whether it has a place for bitmaps, and which devices there are."""
    dirty = raw.bitmap_start() + raw.bitmap_bits(0, 2048, bytes(8)) + raw.COMPLETE
    put(raw.qemu(data(0, 1), bitmaps=dirty))
    before = here()
    refused(run("replay", "s.bin"), 2, "the stream has the device 'd'; use --image", before)
    for words in (["--bitmaps-to", "d=b"], ["--bitmaps-to", "b"]):
        outcome = run("replay", "s.bin", *words)
        refused(outcome, 2, "device 'd' has blocks, but no image", before)
        assert "or --bitmaps-only" in outcome.err
    for option, word in (("--image", "e=x"), ("--bitmaps-to", "e=b")):
        outcome = run("replay", "s.bin", option, word, "--create")
        refused(outcome, 2, f"{option}: no device 'e'; there is the device 'd'\n", before)
    put(raw.qemu())
    before = here()
    refused(run("replay", "s.bin"), 2, "the stream has no devices; use --image", before)


def test_devices_to_take(run: Run) -> None:
    put(raw.qemu(data(0, 1), data(0, 2, "e"), raw.block(2048, 8, "e")))
    before = here()
    words = ["replay", "s.bin", "--create"]
    refused(run(*words, "--image", "d=x"), 2, "device 'e' has no image", before)
    refused(run(*words, "--image", "x"), 2, "'d', 'e'", before)
    assert run(*words, "--image", "x", "--device", "d").status == 0
    assert Path("x").read_bytes() == filled(1)
    named = ["--image", "d=y", "--image", "e=z", "--device", "d", "--device", "e"]
    assert run(*words, *named).status == 0
    assert Path("z").read_bytes() == filled(2) + bytes(MIB)
    before = here()
    for name in ("nobody", "dd"):
        refused(run(*words, "--image", "d=w", "--device", name), 2, f"'{name}'", before)


def test_what_is_wrong_with_a_device_that_is_not_taken(run: Run) -> None:
    put(raw.qemu(data(0, 1), data(2048, 2, "e")))
    words = ["replay", "s.bin", "--image", "d=x", "--create"]
    assert run("validate", "s.bin").status == 1
    assert run(*words, "--device", "d").status == 0


@both_sources
@pytest.mark.parametrize(
    "words",
    [
        ["--image", "d=x", "--image", "nobody=y"],
        ["--image", "x", "--bitmaps-to", "nobody=y"],
        ["--image", "x", "--device-size", "nobody=1M"],
        ["--image", "x", "--granularity", "nobody:b=64k"],
        ["--image", "x", "--granularity", "d:other=64k"],
    ],
)
def test_options_that_name_what_is_not_there(run: Run, kind: str, words: list[str]) -> None:
    put(STREAM)
    outcome = run("replay", source(kind), "--create", *words)
    fails(outcome, 2, ": no ")
    assert "there is the" in outcome.err
    if kind == "file":
        assert set(here()) == {"s.bin"}
    else:
        # What came is there, and can be accepted.
        assert "x.partial is incomplete; use --resume to continue" in outcome.err
        assert not Path("x").exists()
        assert run("replay", "--image", "x", "--resume", "--allow-incomplete").status == 0
        assert Path("x").read_bytes() == DISK
