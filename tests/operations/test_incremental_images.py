"""Increments of qcow2 images by their own bitmaps, and what replay asks of the image below one."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from blkmig_cli.operations.map import map_disks
from blkmig_cli.operations.reading import Reading
from tests.conftest import Run, fails
from tests.support import qcow2, raw
from tests.support.nbd import qemu_nbd, uri
from tests.support.qcow2 import needs_qemu_utils, qemu_img

Make = Callable[..., None]

MIB = 1 << 20
SIZE = 4 * MIB + 512
ID = "01234567-89ab-cdef-0123-456789abcdef"
OTHER = "11234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A qcow2 image, and its full stream s0.bin with the mark b0."""
    folder = tmp_path_factory.mktemp("made")
    image = folder / "d.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, SIZE)
    qcow2.write(image, "write -P 1 0 3M")
    words = [
        "--mark",
        "b0",
        "--to",
        folder / "s0.bin",
        "--manifest",
        folder / "s0.json",
        "--id",
        ID,
    ]
    assert run("send", f"drive0={image}", *words).status == 0
    return folder


@pytest.fixture
def make(made: Path) -> Make:
    """Return what copies these files here, and changes the image."""

    def change(*commands: str) -> None:
        shutil.copytree(made, ".", dirs_exist_ok=True)
        if commands:
            qcow2.write(Path("d.qcow2"), *commands)

    return change


def increment(run: Run, name: str, since: str, mark: str, base: str, *words: str) -> None:
    more = ["--mark", mark, "--base", base, "--to", name, "--manifest", f"{name}.json"]
    done = run("send", "d.qcow2", "--since", since, *more, *words)
    assert done.status == 0, done.err


def blocks(run: Run, stream: str) -> list[dict[str, object]]:
    lines = run("dump", stream, "--output", "jsonl", "--type", "block").out.splitlines()
    return [json.loads(line) for line in lines]


def bitmaps(path: str = "d.qcow2") -> dict[str, qcow2.Stored]:
    return qcow2.stored_bitmaps(Path(path))


@needs_qemu_utils
@pytest.mark.parametrize("suffix", [pytest.param("img", marks=pytest.mark.long), "qcow2"])
def test_a_cycle_of_a_qcow2_image(run: Run, make: Make, suffix: str) -> None:
    make("write -P 2 1M 4k", "write -z 2M 1M")
    held = bitmaps()["b0"]
    assert (held.granularity, held.recording) == (65536, True)
    increment(run, "s1.bin", "b0", "b1", "s0.json")
    assert bitmaps()["b0"] == held
    identity = run("validate", "s1.bin", "--output", "json").report["identity"]
    assert identity["base"] == ID
    assert identity["incremental"]
    assert identity["disks"] == {
        "drive0": {"size": SIZE, "full": False, "since": "b0", "mark": "b1"}
    }
    qcow2.write(Path("d.qcow2"), f"write -P 3 {SIZE - 512} 512")
    qemu_img("resize", "-q", "d.qcow2", SIZE + 2 * MIB)
    qcow2.write(Path("d.qcow2"), f"write -P 4 {SIZE + MIB} 512")
    increment(run, "s2.bin", "b1", "b2", "s1.bin", "--drop", "b0")
    assert list(bitmaps()) == ["b1", "b2"]
    qcow2.check(Path("d.qcow2"))
    image = f"x.{suffix}"
    assert run("replay", "s0.bin", "--image", image, "--create", "-q").status == 0
    for name in ("s1.bin", "s2.bin"):
        done = run("replay", name, "--image", image, "--manifest", f"{name}.json", "-q")
        assert done.status == 0, done.err
    image_format = "raw" if suffix == "img" else suffix
    qcow2.same(Path("d.qcow2"), "qcow2", Path(image), image_format)
    done = run("replay", "s2.bin", "--image", image)
    assert done.status == 0
    assert "holds this increment already" in done.out


@needs_qemu_utils
def test_the_record_of_an_image_with_a_bitmap_of_its_own(run: Run, make: Make) -> None:
    """QEMU stores it when the image is no longer written, which is before the record."""
    make("write -P 2 1M 4k")
    increment(run, "s1.bin", "b0", "b1", "s0.json")
    qemu_img("create", "-q", "-f", "qcow2", "x.qcow2", SIZE)
    qemu_img("bitmap", "--add", "x.qcow2", "own")
    for name in ("s0.bin", "s1.bin"):
        done = run("replay", name, "--image", "x.qcow2", "-q")
        assert done.status == 0, done.err
    assert list(bitmaps("x.qcow2")) == ["own"]


@needs_qemu_utils
def test_only_what_changed_is_sent(run: Run, make: Make) -> None:
    """Whole chunks, zeros as such, and the chunk that ends with the disk; at least one chunk."""
    make("write -P 2 1536k 4k", "write -z 2M 1M", f"write -P 3 {SIZE - 512} 512")
    increment(run, "s1.bin", "b0", "b1", "s0.bin")
    sent = blocks(run, "s1.bin")
    assert [(block["sector"], block["data"]) for block in sent] == [
        (2048, "payload"),
        (4096, "zero"),
        (6144, "zero"),
        (SIZE // 512 - 2048, "payload"),
    ]
    increment(run, "s2.bin", "b1", "b2", "s1.bin")
    sent = blocks(run, "s2.bin")
    assert [block["sector"] for block in sent] == [0]


@needs_qemu_utils
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--since", "no", "--base", ID], 4, "bitmap 'no': d.qcow2 has no such bitmap"),
        (["--since", "off", "--base", ID], 4, "it is not recording"),
        (["--since", "b1", "--base", "s0.bin"], 4, "is not the one that was created with the base"),
        (["--since", "a:b0"], 2, "--since: no device 'a'"),
        (["--since", "b0", "--since", "b1"], 2, "--since is specified twice"),
        (["--since", "b0", "--skip-unallocated"], 2, "exclude each other"),
        (["--since", "b0", "--bitmaps-only"], 2, "exclude each other"),
        (["--else", "full"], 2, "--else is for --since"),
        (["--mark", "b0"], 4, "has a bitmap 'b0' already"),
        (["--mark", ""], 2, "the name is empty"),
        (["--mark", "b" * 1024], 2, "over 255 bytes"),
        (["--mark", "m", "-U"], 2, "may change"),
        (["--drop", "no"], 2, "no image has a bitmap 'no'"),
        (["--base", "s0.bin"], 2, "--base is for a stream of changes"),
        (["--since", "b0", "--base", "missing.bin"], 4, "No such file"),
    ],
)
def test_what_is_refused_when_sending(
    run: Run, make: Make, words: list[str], status: int, said: str
) -> None:
    make()
    qemu_img("bitmap", "--add", "d.qcow2", "b1")
    qemu_img("bitmap", "--add", "--disable", "d.qcow2", "off")
    before = Path("d.qcow2").read_bytes()
    fails(run("send", "d.qcow2", "--to", "s1.bin", *words), status, said)
    assert not Path("s1.bin").exists()
    assert Path("d.qcow2").read_bytes() == before or not "the image was changed"


@needs_qemu_utils
def test_else_full_sends_a_disk_whole(run: Run, make: Make) -> None:
    make("write -P 2 1M 4k")
    words = ["--since", "no", "--else", "full", "--base", ID, "--to", "s1.bin"]
    done = run("send", "d.qcow2", *words)
    assert done.status == 0
    assert "the disk is sent whole" in done.err
    assert run("replay", "s1.bin", "--image", "x.img", "--create", "-q").status == 0
    qcow2.same(Path("d.qcow2"), "qcow2", Path("x.img"))


def test_nothing_records_a_raw_disk(run: Run) -> None:
    Path("d.img").write_bytes(bytes(MIB))
    for option in ("--mark", "--drop"):
        fails(run("send", "d.img", option, "b0", "--to", "s.bin"), 2, "would record its changes")


def test_a_bitmap_beside_an_image_that_was_written_since(run: Run) -> None:
    """It does not tell these writes; a file that is specified is believed."""
    raw_disk(run)
    os.utime("d.img", ns=(2 << 60, 2 << 60))
    words = ["--since", "b", "--base", "s0.bin", "--to", "s1.bin"]
    fails(run("send", "d.img", *words), 4, "was written after d.img.bitmaps.json")
    assert run("send", "d.img", *words, "--bitmaps-from", "d.img.bitmaps.json").status == 0


def raw_disk(run: Run) -> None:
    """A raw disk, its stream, and a bitmap that tells all later changes."""
    Path("d.img").write_bytes(b"\1" * (2 * MIB))
    assert run("send", "d.img", "--to", "s0.bin", "--manifest", "s0.json").status == 0
    Path("d.img").write_bytes(b"\1" * MIB + b"\2" * MIB)
    bitmap = {"name": "b", "granularity": 65536, "recording": True, "persistent": False}
    bitmap |= {"count": MIB, "dirty": [{"start": MIB, "length": MIB}]}
    document = {"version": 1, "virtual-size": 2 * MIB, "bitmaps": [bitmap]}
    Path("d.img.bitmaps.json").write_text(json.dumps(document))


def raw_chain(run: Run) -> None:
    """An image x.img that holds the base, and an increment s1.bin."""
    raw_disk(run)
    words = ["--since", "b", "--base", "s0.bin", "--to", "s1.bin"]
    assert run("send", "d.img", *words).status == 0
    assert run("replay", "s0.bin", "--image", "x.img", "--create", "-q").status == 0


def touched() -> None:
    os.utime("x.img", ns=(1 << 60, 1 << 60))


def other_program() -> None:
    with open("x.img", "r+b") as file:
        file.write(b"\1")


def copied() -> None:
    shutil.copy("x.img", "y.img")
    os.rename("y.img", "x.img")


def forged() -> None:
    record = json.loads(Path("x.img.blkmig.json").read_text())
    Path("x.img.blkmig.json").write_text(json.dumps(record | {"device": "other"}))


def gone() -> None:
    os.unlink("x.img.blkmig.json")


@pytest.mark.parametrize("change", [touched, other_program, copied, forged, gone])
@pytest.mark.parametrize("source", ["s1.bin", "exec:cat s1.bin"])
def test_an_image_that_may_not_hold_the_base(run: Run, change: object, source: str) -> None:
    raw_chain(run)
    assert callable(change)
    change()
    before = sorted(os.listdir())
    done = run("replay", source, "--image", "x.img")
    fails(done, 1, "does not hold the base")
    assert Path("x.img").read_bytes() == b"\1" * (2 * MIB) or not "the image was changed"
    assert sorted(os.listdir()) == before
    # The user knows better: by the base's digests, or by a word.
    shutil.copy("x.img", "y.img")
    wrong = run("replay", source, "--image", "y.img", "--verify-base", "s1.json")
    assert wrong.status == 4
    for image, words in (("x.img", ["--verify-base", "s0.json"]), ("y.img", ["--no-base-check"])):
        assert run("replay", source, "--image", image, *words, "-q").status == 0
        assert Path(image).read_bytes() == Path("d.img").read_bytes() or not "they differ"
    assert Path("x.img.blkmig.json").exists()
    assert not Path("y.img.blkmig.json").exists()
    both = run("replay", source, "--image", "x.img", "--verify-base", "s0.json", "--no-base-check")
    fails(both, 2, "exclude each other")


def test_a_base_that_differs_from_its_manifest(run: Run) -> None:
    raw_chain(run)
    other_program()
    with open("x.img", "r+b") as file:
        file.write(b"\7")
    done = run("replay", "s1.bin", "--image", "x.img", "--verify-base", "s0.json")
    fails(done, 1, "SHA-256")
    assert Path("x.img").read_bytes()[:1] == b"\7"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"blkmig": None}, "m.json is not its manifest"),
        ({"devices": [], "bitmaps": []}, "m.json has no digest of the disk"),
        ({"devices": [{"device": "drive0", "size": 2 * MIB, "sha256": None}]}, "no digest"),
        ({}, ""),
    ],
)
def test_what_the_manifest_of_a_base_lacks(run: Run, changes: dict[str, object], text: str) -> None:
    raw_chain(run)
    other_program()
    document = json.loads(Path("s0.json").read_text()) | changes
    Path("m.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    done = run("replay", "s1.bin", "--image", "x.img", "--verify-base", "m.json")
    assert done.status == bool(text)
    assert text in done.err
    for source in ("s1.bin", "exec:cat s1.bin"):
        words = ["--image", "n.img", "--create", "--verify-base", "s0.json"]
        fails(run("replay", source, *words), 1, "is a new image, and the stream is an increment")


def test_an_increment_behind_another_stream(run: Run) -> None:
    """From a pipe, which is read to its end before the image is written."""
    raw_chain(run)
    other_program()
    Path("both.bin").write_bytes(raw.qemu(raw.block(0, 8)) + Path("s1.bin").read_bytes())
    words = ["replay", "exec:cat both.bin", "--image", "x.img", "--stream", "2"]
    fails(run(*words), 1, "does not hold the base")
    assert Path("x.img").read_bytes() == b"\1" * (2 * MIB) or not "the image was changed"
    assert run(*words, "--no-base-check", "-q").status == 0
    assert Path("x.img").read_bytes() == Path("d.img").read_bytes() or not "they differ"


def test_an_increment_that_states_no_base(run: Run) -> None:
    raw_disk(run)
    done = run("send", "d.img", "--since", "b", "--to", "s1.bin")
    assert done.status == 0
    assert "warning: the increment names no base" in done.err
    assert run("replay", "s0.bin", "--image", "x.img", "--create", "-q").status == 0
    text = "the stream does not state which base x.img has to hold"
    fails(run("replay", "s1.bin", "--image", "x.img"), 1, text)
    assert run("replay", "s1.bin", "--image", "x.img", "--no-base-check", "-q").status == 0
    assert Path("x.img").read_bytes() == Path("d.img").read_bytes()


def test_a_base_that_is_not_whole(run: Run) -> None:
    raw_disk(run)
    stream = Path("s0.bin").read_bytes()
    at = stream.index(raw.word(2048, 1))
    Path("half.bin").write_bytes(stream[:at] + stream[at + len(raw.block(0, 0, "drive0")) + MIB :])
    words = ["send", "d.img", "--since", "b", "--to", "s1.bin"]
    fails(run(*words, "--base", "half.bin"), 4, "half.bin is incomplete")
    Path("n.bin").write_bytes(raw.qemu(raw.block(0, 8), raw.block(2048, 8)))
    fails(run(*words, "--base", "n.bin"), 4, "n.bin has no identity; specify the id of the base")


def test_bitmaps_that_do_not_tell_the_changes(run: Run) -> None:
    raw_disk(run)
    words = ["send", "d.img", "--base", "s0.bin", "--to", "s1.bin", "--since"]
    fails(run(*words, "c"), 4, "d.img.bitmaps.json has no such bitmap")
    fails(run(*words, "other:b"), 2, "no device 'other'")
    Path("e.img").write_bytes(bytes(MIB))
    two = ["send", "d=d.img", "e=e.img", "--to", "s1.bin"]
    fails(run(*two, "--since", "d:b"), 2, "--since names no bitmap of 'e'")
    from_one = ["--since", "b", "--bitmaps-from", "d.img.bitmaps.json"]
    fails(run(*two, *from_one), 2, "--bitmaps-from without DEVICE, and there are several disks")
    fails(run("send", "e.img", "--since", "b", "--to", "s1.bin"), 4, "e.img has no bitmaps")
    document = json.loads(Path("d.img.bitmaps.json").read_text())
    document["virtual-size"] = 4 * MIB
    Path("d.img.bitmaps.json").write_text(json.dumps(document))
    fails(run(*words, "b"), 4, f"is of a disk of {4 * MIB} bytes, not {2 * MIB} (device 'drive0')")
    document["virtual-size"] = 2 * MIB
    document["bitmaps"][0]["recording"] = False
    Path("d.img.bitmaps.json").write_text(json.dumps(document))
    fails(run(*words, "b"), 4, "it is not recording")
    for more, text in (
        (["--skip-unallocated"], "--since and --skip-unallocated exclude each other"),
        (["--bitmaps-only", "--bitmaps"], "--since and --bitmaps-only exclude each other"),
        (["--mark", ""], "--mark: the name is empty"),
        (["--mark", "m", "-U"], "-U: the image may change"),
    ):
        fails(run(*words, "b", *more), 2, text)
    fails(run("send", "d.img", "--to", "s1.bin", "--else", "full"), 2, "--else is for --since")
    assert not Path("s1.bin").exists()


def test_a_new_image_holds_no_base(run: Run) -> None:
    raw_chain(run)
    base = run("info", "s0.bin", "--output", "json").json["identity"]["id"]
    done = run("replay", "s1.bin", "--image", "new.img", "--create")
    text = f"new.img is a new image, and the stream is an increment; replay its base {base} first"
    fails(done, 1, f"s1.bin: nothing was written: {text} (device drive0) [wrong-base]\n")
    assert not list(Path().glob("new.img*"))


def test_the_map_of_an_increment(run: Run) -> None:
    """A cell shows what was sent; with its base, what is under it was not sent more than once."""
    Path("d.img").write_bytes(b"\1" * (8 * MIB))
    assert run("send", "d.img", "--to", "s0.bin").status == 0
    Path("d.img").write_bytes(bytes(MIB) + b"\1" * (6 * MIB) + b"\2" * MIB)
    dirty = [{"start": at * MIB, "length": MIB} for at in (0, 7)]
    bitmap = {"name": "b", "granularity": 65536, "recording": True, "persistent": False}
    bitmap |= {"count": 2 * MIB, "dirty": dirty}
    document = {"version": 1, "virtual-size": 8 * MIB, "bitmaps": [bitmap]}
    Path("d.img.bitmaps.json").write_text(json.dumps(document))
    words = ["--since", "b", "--base", "s0.bin", "--to", "s1.bin"]
    assert run("send", "d.img", *words).status == 0
    stream, size = "s1.bin", 8 * MIB
    with Reading().contents(stream) as contents:
        (disk,) = map_disks(contents)
        assert disk.cells(8) == ["zero", *["missing"] * 6, "data"]
        assert disk.cells(3) == ["zero", "missing", "data"]
        assert disk.cells(1) == ["data"]
    with Reading(bases=("s0.bin",)).contents(stream) as contents:
        (disk,) = map_disks(contents)
        assert disk.cells(8) == ["zero", *["data"] * 7]
        assert disk.amounts() == {"missing": 0, "repeated": 0, "data": size - MIB, "zero": MIB}
    ranges = run("map", stream, "--base", "s0.bin", "--ranges").out.splitlines()[1:]
    assert [line.split() for line in ranges] == [
        ["0", f"{MIB}", "zero", "drive0"],
        [f"{MIB}", f"{7 * MIB}", "data", "drive0"],
    ]


def test_what_an_increment_leaves_out_is_in_its_base(run: Run) -> None:
    raw_chain(run)
    for command in ("validate", "info"):
        assert "drive0  2 MiB       1     0         0  in the base\n" in run(command, "s1.bin").out
    (device,) = run("validate", "s1.bin", "--output", "json").report["devices"]
    assert device["missing"] == [{"start": 0, "length": MIB}]
    assert "drive0  2 MiB       1     0         0      0 B\n" in (
        run("info", "s1.bin", "--base", "s0.bin").out
    )


def test_why_an_increment_is_not_applied(run: Run) -> None:
    raw_chain(run)
    gone()
    base = run("info", "s0.bin", "--output", "json").json["identity"]["id"]
    done = run("replay", "s1.bin", "--image", "x.img")
    assert done.err == (
        f"blkmig: s1.bin: nothing was written: x.img does not hold the base {base} of the increment: "
        "x.img.blkmig.json, which would state it, does not exist; if the image holds it, use "
        "--verify-base MANIFEST, or --no-base-check (device drive0) [wrong-base]\n"
    )
    assert done.out.count("[wrong-base]") == 1
    dry = run("replay", "s1.bin", "--image", "x.img", "--dry-run")
    assert dry.out.count("[wrong-base]") == 1
    assert dry.err == ""


def test_any_other_replay_removes_the_record(run: Run) -> None:
    raw_chain(run)
    Path("o.bin").write_bytes(raw.qemu(raw.block(0, 8), raw.block(2048, 8)))
    assert run("replay", "o.bin", "--image", "x.img", "-q").status == 0
    assert not Path("x.img.blkmig.json").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 1, "id": "x"}', "symlink", "fifo"]
)
def test_a_hostile_record(run: Run, content: str) -> None:
    raw_chain(run)
    record = Path("x.img.blkmig.json")
    record.unlink()
    if content == "symlink":
        record.symlink_to("s0.bin")
    elif content == "fifo":
        os.mkfifo(record)
    else:
        record.write_text(content)
    before = Path("s0.bin").read_bytes()
    assert run("replay", "s1.bin", "--image", "x.img").status == 4
    assert Path("x.img").read_bytes() == b"\1" * (2 * MIB) or not "the image was changed"
    assert Path("s0.bin").read_bytes() == before or not "the target was changed"


def test_an_increment_that_was_interrupted_is_resumed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base was checked when it began; the record is written when it is complete."""
    raw_chain(run)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert run("replay", "s1.bin", "--image", "x.img", "-q").status == 4
    assert not Path("x.img.blkmig.json").exists()
    fails(run("replay", "s1.bin", "--image", "x.img"), 4, "--resume")
    assert run("replay", "s1.bin", "--image", "x.img", "--resume", "-q").status == 0
    assert Path("x.img").read_bytes() == Path("d.img").read_bytes() or not "they differ"
    assert "holds this increment already" in run("replay", "s1.bin", "--image", "x.img").out


def test_an_increment_without_the_grown_part(run: Run) -> None:
    """Its base was not known when it was sent, so that it does not have all that was added."""
    raw_disk(run)
    with open("d.img", "ab") as file:
        file.write(b"\3" * (3 * MIB))
    document = json.loads(Path("d.img.bitmaps.json").read_text())
    Path("b.json").write_text(json.dumps(document | {"virtual-size": 5 * MIB}))
    manifest = json.loads(Path("s0.json").read_text())
    base = manifest["blkmig"]["id"]
    words = ["--since", "b", "--bitmaps-from", "b.json", "--base", base, "--to", "s1.bin"]
    assert run("send", "d.img", *words).status == 0
    assert run("replay", "s0.bin", "--image", "x.img", "--create", "-q").status == 0
    done = run("replay", "s1.bin", "--image", "x.img")
    fails(done, 1, "has grown to 5242880 bytes")
    assert Path("x.img").stat().st_size == 2 * MIB
    fails(run("fold", "s0.bin", "s1.bin", "--to", "f.bin"), 1, "has grown to 5242880 bytes")


@needs_qemu_utils
def test_an_export_has_no_record(run: Run, tmp_path: Path) -> None:
    raw_chain(run)
    with qemu_nbd(Path("x.img")) as path:
        done = run("replay", "s1.bin", "--image", uri(path))
        fails(done, 1, "an NBD export")
        assert (
            run("replay", "s1.bin", "--image", uri(path), "--verify-base", "s0.json", "-q").status
            == 0
        )
    assert Path("x.img").read_bytes() == Path("d.img").read_bytes() or not "they differ"


def test_fold_refuses_what_is_no_chain(run: Run) -> None:
    raw_chain(run)
    Path("q.bin").write_bytes(raw.qemu(raw.block(0, 8), raw.block(2048, 8)))
    Path("cut.bin").write_bytes(Path("s1.bin").read_bytes()[:-40])
    for streams, status, said in (
        (["q.bin", "s1.bin"], 1, "q.bin has no identity"),
        (["s1.bin", "s0.bin"], 1, "s0.bin is not an increment"),
        (["s0.bin", "s0.bin"], 1, "s0.bin is not an increment"),
        (["s0.bin", "s1.bin", "s1.bin"], 1, "s1.bin has the base"),
        (["s0.bin", "cut.bin"], 3, "truncated"),
        (["-", "-"], 2, "stdin"),
    ):
        fails(run("fold", *streams, "--to", "f.bin"), status, said)
        assert not Path("f.bin").exists()
    fails(run("fold", "s0.bin", "s1.bin", "--to", "s1.bin"), 2, "the target")


def test_a_base_that_belongs_to_none(run: Run) -> None:
    raw_chain(run)
    for words in (["map", "s0.bin"], ["info", "s0.bin"], ["compare", "s0.bin", "d.img"]):
        fails(run(*words, "--base", "s1.bin"), 1, "s1.bin is not a base of s0.bin")
    fails(run("convert", "s1.bin", "--base", "s0.bin", "--to", "x"), 2, "--normalize")
    words = ["--base", "s0.bin", "--normalize", "--to", "f.bin"]
    assert run("convert", "s1.bin", *words).status == 0
    assert run("fold", "s0.bin", "s1.bin", "--to", "g.bin").status == 0
    assert Path("f.bin").read_bytes() == Path("g.bin").read_bytes() or not "they differ"
    assert run("compare", "f.bin", "d.img", "-q").status in (0, 1)
    shown = run("info", "s1.bin", "--base", "s0.bin", "--output", "json").json
    assert shown["devices"][0]["missing"] == []
    assert shown["identity"]["incremental"] is False


@needs_qemu_utils
def test_the_bitmap_of_an_export(run: Run, make: Make) -> None:
    make("write -P 2 1M 4k")
    with qemu_nbd(Path("d.qcow2"), "-r", "-B", "b0", format="qcow2") as path:
        words = ["--since", "b0", "--base", "s0.bin", "--to", "s1.bin"]
        assert run("send", uri(path), *words).status == 0
        fails(run("send", uri(path), "--mark", "b1", "--to", "s2.bin"), 2, "record its changes")
        absent = ["--since", "b1", "--base", ID, "--to", "s2.bin"]
        fails(run("send", uri(path), *absent), 4, "no such bitmap")
    assert [block["sector"] for block in blocks(run, "s1.bin")] == [2048]


def test_bare_records_have_their_identity_in_the_manifest(run: Run) -> None:
    raw_disk(run)
    words = ["--since", "b", "--base", "s0.bin", "--container", "none", "--dialect", "v2"]
    done = run("send", "d.img", *words, "--to", "s1.bin")
    assert "its readers need --incremental" in done.err
    assert run("send", "d.img", *words, "--to", "s1.bin", "--manifest", "s1.json").status == 0
    assert run("replay", "s0.bin", "--image", "x.img", "--create", "-q").status == 0
    shutil.copy("x.img", "y.img")
    for source in ("s1.bin", "exec:cat s1.bin"):
        done = run("replay", source, "--image", "y.img", "--manifest", "s1.json")
        fails(done, 1, "does not hold the base")
    assert run("replay", "s1.bin", "--image", "x.img", "--manifest", "s1.json", "-q").status == 0
    assert Path("x.img").read_bytes() == Path("d.img").read_bytes() or not "they differ"


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        ([], False),
        (["--no-identity"], True),
        (["--container", "none", "--dialect", "classic"], True),
        (["--container", "none", "--dialect", "classic", "--manifest", "s1.json"], False),
    ],
)
def test_whether_a_stream_states_that_it_is_an_increment(
    run: Run, words: list[str], warned: bool
) -> None:
    raw_disk(run)
    base = [] if "--no-identity" in words else ["--base", "s0.bin"]
    done = run("send", "d.img", "--since", "b", *base, "--to", "s1.bin", *words)
    assert done.status == 0, done
    assert ("its readers need --incremental" in done.err) == warned
    assert "its readers need" not in run("send", "d.img", "--to", "f.bin", "--no-identity").err


def test_an_increment_whose_description_was_cut_off(run: Run) -> None:
    """Nothing states what it is: its gaps are faults."""
    raw_chain(run)
    stream = Path("s1.bin").read_bytes()
    end = stream.rindex(b'{"devices"') - 5
    Path("cut.bin").write_bytes(stream[:end])
    assert run("replay", "cut.bin", "--image", "x.img").status in (1, 3)
    assert run("replay", "exec:cat cut.bin", "--image", "x.img").status in (1, 3)
    assert Path("x.img").read_bytes() == b"\1" * (2 * MIB) or not "the image was changed"
    fails(run("send", "d.img", "--since", "b", "--base", "cut.bin", "--to", "s2.bin"), 4, "cut.bin")


@needs_qemu_utils
@pytest.mark.parametrize(
    "dialect", ["qemu", *(pytest.param(each, marks=pytest.mark.long) for each in ("v1", "v2"))]
)
def test_an_estimate(run: Run, make: Make, dialect: str) -> None:
    """It is exact where no data is zero, and at most too large; nothing is written."""
    make("write -P 2 1M 4k", "write -z 2M 1M", "write -P 0 3M 64k")
    before = Path("d.qcow2").read_bytes()
    for words in ([], ["--since", "b0", "--base", ID], ["--no-zero-blocks"]):
        options = [*words, "--dialect", dialect, "--id", OTHER, "--bitmaps"]
        done = run("send", "d.qcow2", *options, "--mark", "b1", "--estimate")
        assert done.status == 0, done.err
        estimated = int(done.out.split()[2].replace(",", ""))
        assert Path("d.qcow2").read_bytes() == before or not "the image was changed"
        assert run("send", "d.qcow2", *options, "--to", "s1.bin").status == 0
        size = Path("s1.bin").stat().st_size
        zeros = 0 if "--no-zero-blocks" in words else MIB
        assert 0 <= estimated - size - zeros < 64, (estimated, size)
    for word in ("--to", "--manifest"):
        fails(run("send", "d.qcow2", "--estimate", word, "no"), 2, "exclude each other")
    assert not Path("no").exists()
