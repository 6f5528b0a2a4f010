"""The rules by which replay protects what is there: uses of files, new images, what is written when."""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from tests.conftest import Outcome, Run, fails
from tests.support import raw

MIB = 1 << 20
BLKMIG = [sys.executable, "-m", "blkmig_cli"]


def filled(byte: int, length: int = MIB) -> bytes:
    return bytes([byte]) * length


def data(sector: int, byte: int, device: str = "d") -> bytes:
    return raw.block(sector, 0, device, filled(byte))


BITMAP = raw.bitmap_start() + raw.bitmap_bits(0, 4096, b"\3".ljust(8, b"\0")) + raw.COMPLETE
#: Two chunks of data, and a bitmap that states the disk's size.
STREAM = raw.qemu(data(0, 1), data(2048, 2), bitmaps=BITMAP)
DISK = filled(1) + filled(2)
#: The second chunk is missing, as the bitmap shows.
GAP = raw.qemu(data(0, 1), bitmaps=BITMAP)
TWO = raw.qemu(data(0, 1), data(0, 2, "e"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All happens here, by names without a folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(content: bytes, name: str = "s.bin") -> str:
    Path(name).write_bytes(content)
    return name


def here() -> dict[str, bytes | str | None]:
    """What stands in the folder: files by content, links by target."""
    found: dict[str, bytes | str | None] = {}
    for path in Path().iterdir():
        found[path.name] = os.readlink(path) if path.is_symlink() else None
        if path.is_file() and not path.is_symlink():
            found[path.name] = path.read_bytes()
    return found


def refused(
    outcome: Outcome, status: int, words: str, before: dict[str, bytes | str | None]
) -> None:
    """One line, the exit status, and nothing has changed."""
    fails(outcome, status, words)
    assert here() == before


def source(kind: str, name: str = "s.bin") -> str:
    return name if kind == "file" else f"exec:cat {name}"


both_sources = pytest.mark.parametrize("kind", ["file", "pipe"])


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
        assert "--overwrite" in outcome.err
        assert "in place" in outcome.err
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
    before = here()
    outcome = run("replay", "s.bin", "--image", "x.qcow2", "--create")
    refused(outcome, 4, "x.qcow2: format qcow2 is not supported; use -f raw", before)
    assert run("replay", "s.bin", "--image", "x.qcow2", "--create", "-f", "raw").status == 0
    fails(run("replay", "s.bin", "--image", "x.qcow2", "--overwrite"), 4, "-f raw")


def test_a_stream_that_changes_while_it_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was judged is not what is applied then: the image stays incomplete."""
    from blkmig_cli.operations.replay import replay as module
    from blkmig_cli.operations.replay.judgement import judge

    put(STREAM)

    def judged(*given: object) -> object:
        found = judge(*given)  # type: ignore[arg-type]
        with open("s.bin", "r+b") as file:
            file.write(STREAM[:-20] + bytes(20))
        return found

    monkeypatch.setattr(module, "judge", judged)
    outcome = run("replay", "s.bin", "--image", "x", "--create", "--allow-incomplete", "-q")
    assert outcome.status == 3
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
    """They would count as those of the new one."""
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


# -- 3: nothing is written from a stream that is not all right


@both_sources
@pytest.mark.parametrize("made", [True, False])
def test_missing_chunks_are_accepted_afterwards(run: Run, kind: str, made: bool) -> None:
    put(GAP)
    if not made:
        put(filled(9, 2 * MIB), "x")
    before = here()
    words = ["replay", source(kind), "--image", "x", *(["--create"] if made else [])]
    outcome = run(*words)
    fails(outcome, 1, "missing-chunks")
    if kind == "file":
        assert here() == before
        assert "nothing was written" in outcome.out
        assert run(*words, "--allow-incomplete").status == 0
    else:
        assert "incomplete: at least 1 MiB" in outcome.err or "incomplete: 1 MiB" in outcome.err
        assert "use --allow-incomplete to take what is sound" in outcome.err
        assert Path("x").exists() != made
        state = json.loads(Path("x.replay.json").read_text())["state"]
        assert state == "incomplete"
        fails(run(*words), 4, "--resume")
        fails(run("replay", "--image", "x", "--resume"), 2, "no STREAM")
        fails(run("replay", "--image", "x", "--allow-incomplete"), 2, "no STREAM")
        outcome = run("replay", "--image", "x", "--resume", "--allow-incomplete")
        assert outcome.status == 0
        assert "without the stream, its bitmaps are not written: b" in outcome.err
    assert Path("x").read_bytes() == filled(1) + (bytes(MIB) if made else filled(9))
    assert json.loads(Path("x.replay.json").read_text())["state"] == "finished"
    assert not Path("x.partial").exists()
    assert run("replay", "--image", "x", "--resume", "--allow-incomplete").status == 0


@both_sources
def test_damage_is_accepted_afterwards(run: Run, kind: str) -> None:
    """What comes before it is taken, and the exit status says that there was more."""
    put(STREAM[: len(STREAM) - 90])
    words = ["replay", source(kind), "--image", "x", "--create"]
    assert run(*words).status == 3
    if kind == "file":
        assert set(here()) == {"s.bin"}
        assert run(*words, "--allow-incomplete").status == 3
    else:
        assert set(here()) == {"s.bin", "x.partial", "x.replay.json"}
        outcome = run("replay", "--image", "x", "--resume", "--allow-incomplete")
        assert outcome.status == 3
        assert "stream truncated" in outcome.err
        assert "warning: x: took 2097152 bytes" in outcome.err
    assert Path("x").read_bytes() == DISK
    assert set(here()) == {"s.bin", "x", "x.replay.json"}


@both_sources
def test_damage_is_accepted_at_once(run: Run, kind: str) -> None:
    put(STREAM[: MIB + 4000])
    words = ["replay", source(kind), "--image", "x", "--create", "--allow-incomplete"]
    assert run(*words).status == 3
    assert Path("x").read_bytes() == filled(1)
    assert json.loads(Path("x.replay.json").read_text())["state"] == "finished"


def test_an_empty_stdin_is_no_stream() -> None:
    put(STREAM[:-90])
    make = [*BLKMIG, "replay", "exec:cat s.bin", "--image", "x", "--create", "-q"]
    assert subprocess.run(make, check=False, capture_output=True).returncode == 3
    accept = [*BLKMIG, "replay", "-", "--image", "x", "--resume", "-q"]
    for more, status in ([], 3), (["--allow-incomplete"], 3):
        assert not Path("x").exists()
        done = subprocess.run(
            [*accept, *more], stdin=subprocess.DEVNULL, check=False, capture_output=True
        )
        assert done.returncode == status
    assert Path("x").read_bytes() == DISK


def test_what_cannot_be_accepted(run: Run) -> None:
    put(STREAM)
    accept = ["replay", "--resume", "--allow-incomplete", "--image"]
    fails(run(*accept, "x"), 4, "x: No such file")
    put(bytes(2 * MIB), "x")
    before = here()
    refused(run(*accept, "x"), 4, "is not an incomplete image", before)
    # Killed: what was written last may be torn.
    from blkmig_cli.disks.neighbours import neighbours_of
    from blkmig_cli.operations.replay.journal import Entry, write_journal

    write_journal(neighbours_of("x"), Entry("writing", new=False, size=2 * MIB))
    before = here()
    refused(run(*accept, "x"), 4, "interrupted before the end of its stream", before)


@both_sources
def test_incremental_accepts_gaps(run: Run, kind: str) -> None:
    put(GAP)
    put(filled(9, 2 * MIB), "x")
    assert run("replay", source(kind), "--image", "x", "--incremental").status == 0
    assert Path("x").read_bytes() == filled(1) + filled(9)


@both_sources
@pytest.mark.parametrize("made", [True, False])
def test_a_sector_past_the_end_of_the_disk(run: Run, kind: str, made: bool) -> None:
    put(raw.qemu(data(0, 1), data(2048, 2), data(4096, 3)))
    if not made:
        put(filled(9, 3 * MIB), "x")
    words = ["--image", "x", "--device-size", "2M", *(["--create"] if made else [])]
    outcome = run("replay", source(kind), *words)
    fails(outcome, 1, "sector 4096 is past the disk's end")
    if kind == "file":
        assert Path("x").exists() != made
    else:
        written = Path("x.partial" if made else "x").read_bytes()
        assert written == DISK + (b"" if made else filled(9))


def test_the_same_report_from_file_and_pipe(run: Run) -> None:
    for content in (STREAM, GAP, STREAM[:-1], STREAM[: MIB + 500], raw.qemu(data(1, 1))):
        put(content)
        reports = []
        for kind in ("file", "pipe"):
            outcome = run(
                "replay", source(kind), "--image", "x", "--create", "--output", "json"
            )  # fmt: skip
            report = outcome.report
            for key in ("stream", "partial-images", "bitmap-files"):
                report.pop(key)
            for device in report["devices"]:
                device.pop("bytes-written")
            reports.append((outcome.status, report))
            for name in set(here()) - {"s.bin"}:
                Path(name).unlink()
        assert reports[0] == reports[1]


# -- 5: what is not written has no journal


@both_sources
def test_where_nothing_was_written_there_is_no_journal(run: Run, kind: str) -> None:
    put(raw.qemu(bitmaps=BITMAP))
    put(DISK, "x")
    assert run("replay", source(kind), "--image", "x").status == 0
    assert set(here()) == {"s.bin", "x", "x.bitmaps.json"}
    put(b"no stream")
    assert run("replay", source(kind), "--image", "x", "-q").status == 3
    assert run("replay", source(kind), "--image", "y", "--create", "-q").status == 3
    assert set(here()) == {"s.bin", "x", "x.bitmaps.json"}


def test_the_identity_record_goes_before_the_image_is_written(run: Run) -> None:
    put(STREAM)
    put(bytes(2 * MIB), "x")
    put(b"{}", "x.blkmig.json")
    assert run("replay", "s.bin", "--image", "x").status == 0
    assert not Path("x.blkmig.json").exists()


# -- bitmaps beside the image


def test_bitmaps_that_do_not_record_this_write(run: Run) -> None:
    put(STREAM)
    put(bytes(2 * MIB), "x")
    write_bitmaps("x.bitmaps.json", BitmapFile(2 * MIB, {"old": DirtyBitmap("old", 512)}))
    for words in (["--no-bitmaps"], ["--bitmaps-to", "other"], []):
        outcome = run("replay", "s.bin", "--image", "x", "-q", *words)
        assert outcome.status == 0
        kept = (
            "x.bitmaps.json: kept old, which do not"
            if not words
            else "x.bitmaps.json: kept, but it"
        )
        assert kept in outcome.err


def test_a_quiet_replay_says_one_line(run: Run) -> None:
    put(STREAM)
    outcome = run("replay", "s.bin", "--image", "x", "--create", "-q")
    assert outcome.err == ""
    assert len(outcome.out.splitlines()) == 1
    assert "whole" in outcome.out


@both_sources
def test_bitmaps_of_a_disk_of_unknown_size(run: Run, kind: str) -> None:
    """Without its blocks, the disk ends where the records of its bitmaps do, which is said."""
    bits = b"\1".ljust(256, b"\0")
    put(raw.qemu(*(raw.block(2048 * at, 0x20, rest=raw.v1(("b", bits))) for at in range(3))))
    outcome = run("replay", source(kind), "--bitmaps-to", "bits", "--dialect", "v1")
    assert outcome.status == 0, outcome
    assert f"took {3 * MIB} bytes" in outcome.err
    assert read_bitmaps("bits").size == 3 * MIB
    assert read_bitmaps("bits").bitmaps["b"].granularity == 512


@both_sources
def test_merged_disks(run: Run, kind: str) -> None:
    """A disk without a name, and the qcow2 file that holds it: neither is written whole."""
    qcow2 = b"QFI\xfb".ljust(MIB, b"\0")
    put(raw.qemu(raw.block(0, 0, "", filled(1)), raw.block(0, 0, "", qcow2)))
    outcome = run("replay", source(kind), "--image", "x", "--create", "--allow-incomplete")
    fails(outcome, 3, "device ''")
    assert not Path("x").exists()
    assert Path("x.partial").exists() == (kind == "pipe")


# -- modes and owners


def mode(name: str) -> int:
    return os.stat(name).st_mode & 0o7777


def test_files_of_bitmaps_have_the_mode_of_their_image(run: Run) -> None:
    put(STREAM)
    put(bytes(2 * MIB), "x")
    for wanted in (0o600, 0o640, 0o664):
        os.chmod("x", wanted)
        assert run("replay", "s.bin", "--image", "x").status == 0
        assert mode("x.bitmaps.json") == wanted
    if not os.getuid():
        os.chown("x", 1234, 4321)
        assert run("replay", "s.bin", "--image", "x").status == 0
        found = os.stat("x.bitmaps.json")
        assert (found.st_uid, found.st_gid) == (1234, 4321)


def test_an_image_that_replaces_another_has_its_mode(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before it is complete: what only its owner might read stays so."""
    from blkmig_cli.disks.new_image import NewImage

    put(STREAM)
    put(b"old", "x")
    os.chmod("x", 0o600)
    if not os.getuid():
        os.chown("x", 1234, 4321)
    seen = []
    original = NewImage.write

    def write(self: NewImage, offset: int, data: memoryview) -> None:
        seen.append(mode("x.partial"))
        original(self, offset, data)

    monkeypatch.setattr(NewImage, "write", write)
    assert run("replay", "s.bin", "--image", "x", "--overwrite").status == 0
    assert set(seen) == {0o600}
    assert (mode("x"), mode("x.bitmaps.json")) == (0o600, 0o600)
    if not os.getuid():
        assert (os.stat("x").st_uid, os.stat("x").st_gid) == (1234, 4321)


def test_new_files_have_the_mode_of_the_umask(run: Run) -> None:
    put(STREAM)
    before = os.umask(0o027)
    try:
        assert run("replay", "s.bin", "--image", "x", "--create").status == 0
    finally:
        os.umask(before)
    assert [mode(name) for name in ("x", "x.bitmaps.json", "x.replay.json")] == [0o640] * 3


# -- 4: sizes, through the command line


def progressed(percent: int, *records: bytes) -> bytes:
    """Chunks whose progress bounds the disk's size."""
    return raw.qemu(*records, raw.progress(percent))


#: Zeros up to 6 MiB; at 99 % of five MiB the disk cannot have more than 5.05 MiB.
NARROW = progressed(99, *(raw.block(2048 * at, 8) for at in range(6)))
#: The last chunk carries other bytes behind the disk's end, which is at 2.02 MiB at most.
LEAK = progressed(99, data(0, 1), data(2048, 2), data(4096, 3))


@both_sources
@pytest.mark.parametrize(("content", "least", "most"), [(NARROW, 5, 6), (LEAK, 2, 3)])
def test_a_size_outside_the_bounds_is_never_made(
    run: Run, kind: str, content: bytes, least: int, most: int
) -> None:
    put(content)
    words = ["replay", source(kind), "--image", "x", "--create"]
    outcome = run(*words, "-q")
    fails(outcome, 1, "size of 'd' is unknown")
    assert "--device-size d=SIZE or --device-size d=max" in outcome.err
    assert not Path("x").exists()
    if kind == "pipe":
        assert set(here()) == {"s.bin", "x.partial", "x.replay.json"}
        # The bounds are in the journal.
        outcome = run("replay", "--image", "x", "--resume", "--allow-incomplete")
        assert outcome.status == 1
        assert "size-unknown" in outcome.out
        accept = ["replay", "--image", "x", "--resume", "--allow-incomplete"]
        assert run(*accept, "--device-size", "max").status == 0
    else:
        assert set(here()) == {"s.bin"}
        assert run(*words, "--device-size", "max").status == 0
    assert least * MIB < os.path.getsize("x") < most * MIB
    (bounds,) = [
        d["inferred-size"] for d in run("validate", "s.bin", "--output", "json").report["devices"]
    ]
    assert os.path.getsize("x") == bounds["max"]
    assert run("validate", "s.bin", "--image", "x").status == 0
    Path("x").unlink()
    outcome = run(*words, "--device-size", f"{most}M", "--restart")
    fails(outcome, 1, "size-mismatch")


@both_sources
def test_a_larger_image_that_is_intended(run: Run, kind: str) -> None:
    """What lies behind the disk counts for nothing."""
    put(DISK + filled(3, 1536), "disk")
    assert run("send", "d=disk", "--to", "s.bin", "--manifest", "m.json").status == 0
    put(filled(9, 8 * MIB), "x")
    size = 2 * MIB + 1536
    words = ["--image", "d=x", "--device-size", f"d={size}", "--verify", "--manifest", "m.json"]
    for more in ([], ["--resume"]):
        assert run("replay", source(kind), *words, *more).status == 0
        assert Path("x").read_bytes() == DISK + filled(3, 1536) + filled(9, 6 * MIB - 1536)
    assert run("validate", "s.bin", "--image", "d=x", "--device-size", f"d={size}").status == 0


@both_sources
def test_a_v2_range_that_reaches_behind_the_image(run: Run, kind: str) -> None:
    """Its length is stated: the image is too small, which a pipe shows when it comes."""
    bits = raw.v2(2048, ("b", 1, 65536, b""))
    put(raw.qemu(raw.block(0, 0x70, rest=bits + filled(6))))
    put(filled(9, MIB - 512), "x")
    outcome = run("replay", source(kind), "--image", "x")
    fails(outcome, 4, "enlarge the image")
    assert Path("x").read_bytes() == filled(9, MIB - 512)


# -- interrupted


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("made", [True, False])
def test_a_signal_says_what_is_left_and_how_to_continue(made: bool, name: str) -> None:
    if not made:
        put(filled(9, 2 * MIB), "x")
    words = [*BLKMIG, "replay", "-", "--image", "x", "-q", *(["--create"] if made else [])]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=False)
    assert process.stdin is not None
    process.stdin.write(STREAM[: MIB + 5000])
    process.stdin.flush()
    while not Path("x.replay.json").exists():
        assert process.poll() is None
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[name]
    (line,) = err.decode().splitlines()
    left = "x.partial" if made else "x"
    assert line.endswith(f"; {left} is incomplete; use --resume to continue")
    put(STREAM)
    with open("s.bin", "rb") as file:
        done = subprocess.run([*words, "--resume"], stdin=file, check=False)
    assert done.returncode == 0
    assert Path("x").read_bytes() == DISK
