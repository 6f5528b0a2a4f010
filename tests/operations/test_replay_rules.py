"""What a replay writes, and what it refuses to: streams with errors, sizes, modes, interruptions."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from tests.conftest import Run, fails
from tests.support import raw
from tests.support.replays import (
    BITMAP,
    BLKMIG,
    DISK,
    GAP,
    MIB,
    STREAM,
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
        words = ["replay", "--image", "x", "--resume", "--allow-incomplete"]
        outcome = run(*words, "--output", "json")
        assert outcome.status == 0
        assert "without the stream, its bitmaps are not written: b" in outcome.err
        assert outcome.report["verdict"] == "incomplete"
    assert Path("x").read_bytes() == filled(1) + (bytes(MIB) if made else filled(9))
    assert json.loads(Path("x.replay.json").read_text())["state"] == "finished"
    assert not Path("x.partial").exists()
    # The journal keeps what was accepted.
    again = run("replay", "--image", "x", "--resume", "--allow-incomplete", "--output", "json")
    assert again.status == 0
    assert again.report["verdict"] == "incomplete"
    assert [found["id"] for found in again.report["findings"]] == ["missing-chunks"]


@both_sources
def test_damage_is_accepted_afterwards(run: Run, kind: str) -> None:
    """What comes before it is written, and the exit status says that the stream went on."""
    put(STREAM[: len(STREAM) - 90])
    words = ["replay", source(kind), "--image", "x", "--create"]
    outcome = run(*words)
    assert outcome.status == 3
    assert "warning: size of" not in outcome.err  # it is not decided yet
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
    accepted_again(run)


@both_sources
def test_damage_is_accepted_at_once(run: Run, kind: str) -> None:
    put(STREAM[: MIB + 4000])
    words = ["replay", source(kind), "--image", "x", "--create", "--allow-incomplete"]
    assert run(*words).status == 3
    assert Path("x").read_bytes() == filled(1)
    assert json.loads(Path("x.replay.json").read_text())["state"] == "finished"
    accepted_again(run)


def accepted_again(run: Run) -> None:
    """What was accepted of a damaged stream does not become a success later."""
    before = here(), Path("x").read_bytes(), Path("x.replay.json").read_bytes()
    outcome = run("replay", "--image", "x", "--resume", "--allow-incomplete")
    assert outcome.status == 3
    assert outcome.out == "(stdin): damaged\n"
    assert "stream truncated at byte" in outcome.err
    assert before == (here(), Path("x").read_bytes(), Path("x.replay.json").read_bytes())


@both_sources
@pytest.mark.parametrize("progress", [b"", raw.progress(50)])
def test_an_image_made_in_a_likely_size_does_not_prove_it(
    run: Run, kind: str, progress: bytes
) -> None:
    """Neither when the replay is repeated nor when it is continued."""
    content = data(0, 1) + data(2048, 2) + progress + raw.EOS
    put(content)
    words = ["replay", source(kind), "--image", "x", "--create"]
    first = run(*words, "--output", "json")
    assert (first.status, first.report["verdict"]) == (0, "unknown")
    assert "took 2097152 bytes, the end of its last chunk" in first.err
    again = run(*words, "--resume", "--output", "json")
    assert (again.status, again.err) == (0, first.err)
    for one in (first.report["devices"][0], again.report["devices"][0]):
        assert (one["size"], one["inferred-size"]["max"]) == (None, None)
    for key in ("verdict", "findings"):
        assert again.report[key] == first.report[key]
    # What is known later counts.
    fails(run(*words, "--resume", "--device-size", "3M", "-q"), 4, "enlarge the image")
    assert run(*words, "--resume", "--device-size", "2M").out.startswith(f"{source(kind)}: whole")
    # A size that was specified does.
    os.remove("x")
    assert run(*words, "--resume", "--device-size", "2M").status == 0
    assert run(*words, "--resume", "--output", "json").report["verdict"] == "whole"


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
            "x.bitmaps.json: bitmaps that do not record this write were kept: 'old'"
            if not words
            else "x.bitmaps.json: kept, but it"
        )
        assert kept in outcome.err


def test_a_quiet_replay_prints_one_line(run: Run) -> None:
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
    from blkmig_cli.disks.raw import RawImage

    put(STREAM)
    put(b"old", "x")
    os.chmod("x", 0o600)
    if not os.getuid():
        os.chown("x", 1234, 4321)
    seen = []
    original = RawImage.write

    def write(self: RawImage, offset: int, data: memoryview) -> None:
        seen.append(mode("x.partial"))
        original(self, offset, data)

    monkeypatch.setattr(RawImage, "write", write)
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
        assert outcome.out.count("size-unknown") == 1
        assert "error: size of 'd' is unknown" in outcome.out
        accept = ["replay", "--image", "x", "--resume", "--allow-incomplete"]
        for _ in range(2):
            outcome = run(*accept, "--device-size", "max")
            assert outcome.status == 0
            assert outcome.out.startswith("(stdin): unknown")
            assert "completeness-unknown" in outcome.out
            assert "size-unknown" not in outcome.out
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


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (True, "SIGINT"),
        (False, "SIGTERM"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in ((True, "SIGTERM"), (False, "SIGINT"))
        ),
    ],
)
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


@pytest.mark.parametrize("option", ["--device-size=x=2M", "-fx=raw", "--device=x"])
def test_a_dry_run_checks_the_names_in_options(run: Run, option: str) -> None:
    put(STREAM)
    words = ["replay", "s.bin", "--dry-run", option]
    fails(run(*words), 2, "no device 'x'; there is the device 'd'")
    assert run(*words[:-1], option.replace("x=", "d=").replace("device=x", "device=d")).status == 0


def test_contradictory_options(run: Run) -> None:
    put(STREAM)
    Path("x").write_bytes(bytes(MIB))
    Path("m").write_text('{"version": 1, "devices": [], "bitmaps": []}')
    before = here()
    stream = ["replay", "s.bin", "--image", "d=x"]
    accept = ["replay", "--resume", "--allow-incomplete"]
    for words, text in (
        ([*stream, "-o", "compat=1.1"], "-o is for images that are created"),
        ([*stream, "--create", "-o", "compat=1.1"], "-o is for images of other formats than raw"),
        ([*stream, "--resume", "--restart"], "--resume and --restart exclude each other"),
        ([*stream, "--no-bitmaps", "--bitmaps-only"], "together leave nothing to do"),
        ([*stream, "--verify-base", "m", "--no-base-check"], "exclude each other"),
        (accept[:1], "no STREAM is specified"),
        (accept, "no --image is specified"),
    ):
        refused(run(*words), 2, text, before)


def test_contradictory_options_for_bitmaps(run: Run) -> None:
    put(STREAM)
    words = [
        "replay",
        "s.bin",
        "--image",
        "x",
        "--create",
        "--no-bitmaps",
        "--bitmaps-to",
        "b.json",
    ]
    refused(run(*words), 2, "--no-bitmaps and --bitmaps-to exclude each other", here())


@pytest.mark.parametrize("journal", [True, False])
def test_bitmaps_of_an_image_that_is_gone(run: Run, journal: bool) -> None:
    """They are not taken for those of a new image, whatever the journal says."""
    put(STREAM)
    words = ["replay", "s.bin", "--image", "x", "--create"]
    assert run(*words).status == 0
    Path("x").unlink()
    if not journal:
        Path("x.replay.json").unlink()
    before = here()
    refused(run(*words), 4, "x.bitmaps.json exists, though x does not", before)
    assert run(*words[:-1], "--overwrite").status == 0


@both_sources
def test_a_bitmap_file_of_another_disk(run: Run, kind: str) -> None:
    """With --bitmaps-to; nothing is replaced, and no image is made."""
    put(STREAM)
    bitmap = DirtyBitmap("other", 65536)
    write_bitmaps("b.json", BitmapFile(9 * MIB, {"other": bitmap}))
    before = Path("b.json").read_bytes()
    words = ["replay", source(kind), "--image", "x", "--create", "--bitmaps-to", "b.json"]
    fails(run(*words), 4, "b.json is of a disk of 9437184 bytes, not 2097152")
    assert Path("b.json").read_bytes() == before
    assert not Path("x").exists()
    write_bitmaps("b.json", BitmapFile(2 * MIB, {"other": bitmap}))
    assert run(*words, "--restart").status == 0
    assert set(read_bitmaps("b.json").bitmaps) == {"other", "b"}


def test_an_image_that_is_half_written_is_sent_with_a_warning(run: Run) -> None:
    put(filled(9, 2 * MIB), "x")
    put(STREAM)
    assert run("replay", "s.bin", "--image", "x").status == 0
    assert "did not finish" not in run("send", "x", "--to", "t.bin").err
    put(GAP)
    fails(run("replay", source("pipe"), "--image", "x"), 1, "missing-chunks")
    outcome = run("send", "x", "--to", "t.bin")
    assert outcome.status == 0
    assert "warning: x: a replay onto it did not finish, as x.replay.json says" in outcome.err
    Path("x.replay.json").write_text("{")
    assert "did not finish" not in run("send", "x", "--to", "t.bin").err


def test_an_image_that_was_to_be_replaced_is_sent_without_a_warning(run: Run) -> None:
    put(filled(9, 2 * MIB), "x")
    put(GAP)
    words = ["replay", source("pipe"), "--image", "x", "--create", "--overwrite"]
    fails(run(*words), 1, "missing-chunks")
    assert json.loads(Path("x.replay.json").read_text())["state"] == "incomplete"
    outcome = run("send", "x", "--to", "t.bin")
    assert outcome.status == 0
    assert "did not finish" not in outcome.err
