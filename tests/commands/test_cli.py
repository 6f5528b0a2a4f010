"""The commands' contract: exit statuses, one line for an error, what is written and what is not."""

import gzip
import json
import lzma
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from blkmig_cli.checks.catalogue import CHECKS
from blkmig_cli.checks.remedies import REMEDIES
from blkmig_cli.commands import cli
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from tests.conftest import Run, fails
from tests.support import raw, zstd

MIB = 1 << 20
DATA = b"\xa5" * raw.CHUNK
# Two chunks of 2.5 MiB: data, zeros, and half a chunk of data with padding.
DISK = DATA + bytes(MIB) + DATA[: MIB // 2]
SMALL = raw.qemu(raw.block(0, 0, rest=DATA), raw.block(2048, 8), raw.block(4096, 0, rest=DATA))
TWO = raw.qemu(raw.block(0, 8, device="a"), raw.block(0, 8, device="b"))
WITH_BITMAP = raw.qemu(
    raw.block(0, 8),
    bitmaps=raw.bitmap_start() + raw.bitmap_bits(0, 2048, b"\x03" + bytes(7)) + raw.COMPLETE,
)


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "s.bin"
    path.write_bytes(SMALL)
    return path


# -- replay


def test_replay_makes_the_disk(run: Run, stream: Path, tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    words = ["replay", stream, "--image", image, "--create", "--device-size", len(DISK)]
    outcome = run(*words, "--output", "json")
    assert outcome.status == 0
    assert image.read_bytes() == DISK
    assert outcome.report["devices"][0]["bytes-written"] == len(DISK)
    assert image.stat().st_blocks * 512 <= 2 * MIB, "the zero chunk takes room"


def test_zero_chunks_become_holes_in_an_old_image(run: Run, stream: Path, tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(b"\xff" * len(DISK))
    assert run("replay", stream, "--image", f"d={image}").status == 0
    assert image.read_bytes() == DISK
    assert image.stat().st_blocks * 512 <= 2 * MIB


def test_unknown_size_ends_at_the_last_chunk_with_a_warning(
    run: Run, stream: Path, tmp_path: Path
) -> None:
    image = tmp_path / "d.img"
    outcome = run("replay", stream, "--image", image, "--create")
    assert outcome.status == 0
    assert image.stat().st_size == 3 * MIB
    assert "warning" in outcome.err
    assert "--device-size" in outcome.err


def test_replay_needs_images(run: Run, stream: Path, tmp_path: Path) -> None:
    fails(run("replay", stream), 2, "'d'")
    two = tmp_path / "two.bin"
    two.write_bytes(TWO)
    image = tmp_path / "d.img"
    fails(run("replay", two, "--image", image, "--create"), 2, "'a', 'b'")
    fails(run("replay", two, "--image", f"a={image}", "--create"), 2, "device 'b' has no image")
    fails(
        run("replay", stream, "--image", f"x={image}", "--create"),
        2,
        "no device 'x'; there is the device 'd'",
    )
    fails(run("replay", stream, "--image", image), 4, "--create")
    assert not image.exists()


def test_small_and_large_images(run: Run, stream: Path, tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(b"\xff" * 2 * MIB)
    fails(run("replay", stream, "--image", image), 4, "at least")
    assert image.read_bytes() == b"\xff" * 2 * MIB
    outcome = run("replay", stream, "--image", image, "--device-size", "2M")
    fails(outcome, 1, "past the disk's end")
    assert image.read_bytes() == b"\xff" * 2 * MIB
    fails(run("replay", stream, "--image", image, "--device-size", "9M"), 4, "--device-size")
    small_v2 = raw.qemu(raw.block(0, 0x60, rest=raw.v2(2050, ("b", 1, 65536, bytes(8)))),
                        raw.block(0, 0x08), raw.block(2048, 0x08))  # fmt: skip
    other = tmp_path / "v2.bin"
    other.write_bytes(small_v2)
    image.write_bytes(b"\xff" * 4 * MIB)
    outcome = run("replay", other, "--image", image)
    assert outcome.status == 1
    assert "size-mismatch" in outcome.out


def test_a_hostile_sector_makes_no_huge_file(run: Run, tmp_path: Path) -> None:
    far, image = tmp_path / "far.bin", tmp_path / "d.img"
    far.write_bytes(raw.qemu(raw.block(1 << 45, 8)))
    fails(run("replay", far, "--image", image, "--create"), 4, "would grow to")
    assert not image.exists()


@pytest.mark.parametrize("cut", [3, 100, MIB, len(SMALL) - 1])
def test_a_damaged_file_writes_nothing(run: Run, tmp_path: Path, cut: int) -> None:
    path, image = tmp_path / "cut.bin", tmp_path / "d.img"
    path.write_bytes(SMALL[:cut])
    outcome = run("replay", path, "--image", image, "--create")
    assert outcome.status == 3
    assert f"at byte {cut}" in outcome.err
    assert not image.exists()


def test_a_damaged_pipe_keeps_what_was_good(tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    cut = SMALL[: len(SMALL) - MIB]
    command = [sys.executable, "-m", "blkmig_cli", "replay", "-", "--image", str(image), "--create"]
    done = subprocess.run(command, input=cut, capture_output=True, check=False)
    assert done.returncode == 3
    assert f"at byte {len(cut)}" in done.stderr.decode()
    assert b"2 MiB written" in done.stdout
    assert b"is incomplete; use --resume to continue" in done.stdout
    assert Path(f"{image}.partial").read_bytes() == DISK[: 2 * MIB]
    assert not image.exists()


def test_missing_chunks(run: Run, tmp_path: Path) -> None:
    path, image = tmp_path / "holes.bin", tmp_path / "d.img"
    path.write_bytes(raw.qemu(raw.block(2048, 0, rest=DATA)))
    for option in ("--incremental", "--allow-incomplete"):
        image.write_bytes(b"\x11" * 3 * MIB)
        outcome = run("replay", path, "--image", image)
        assert outcome.status == 1
        assert "bytes 0-1048576, 2097152-3145728" in outcome.out
        assert image.read_bytes() == b"\x11" * 3 * MIB
        assert run("replay", path, "--image", image, option).status == 0
        assert image.read_bytes() == b"\x11" * MIB + DATA + b"\x11" * MIB


def test_dry_run_writes_nothing(run: Run, stream: Path, tmp_path: Path) -> None:
    outcome = run("replay", stream, "--image", tmp_path / "d.img", "--create", "--dry-run")
    assert outcome.status == 0
    assert run("replay", stream, "--dry-run").status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["s.bin"]


def test_bitmaps_are_written_kept_and_left_out(run: Run, tmp_path: Path) -> None:
    path, image = tmp_path / "b.bin", tmp_path / "d.img"
    side, other = Path(f"{image}.bitmaps.json"), tmp_path / "other.json"
    path.write_bytes(WITH_BITMAP)
    words = ["replay", path, "--image", image]
    assert run(*words, "--create", "--no-bitmaps").status == 0
    assert not side.exists()
    assert run(*words, "--bitmaps-to", other).status == 0
    assert not side.exists()
    assert read_bitmaps(str(other)).bitmaps["b"].ranges(MIB) == [(0, 131072)]
    kept, old = DirtyBitmap("kept", 512), DirtyBitmap("b", 4096)
    write_bitmaps(str(side), BitmapFile(MIB, {"kept": kept, "b": old}))
    outcome = run(*words)
    assert outcome.status == 0
    assert "kept" in outcome.err
    assert {n: b.granularity for n, b in read_bitmaps(str(side)).bitmaps.items()} == {
        "kept": 512,
        "b": 65536,
    }
    image.unlink()
    side.unlink()
    fails(run(*words, "--bitmaps-only"), 4, "--create")
    assert run(*words, "--create", "--bitmaps-only").status == 0
    assert side.exists()
    assert not image.exists()
    fails(run(*words, "--bitmaps-only", "--no-bitmaps"), 2, "nothing to do")
    side.unlink()
    assert run(*words, "--create").status == 0
    side.write_text("{")
    fails(run(*words), 4, "not a file of bitmaps")


def test_v2_refuses_another_granularity(run: Run, tmp_path: Path) -> None:
    path, image = tmp_path / "v2.bin", tmp_path / "d.img"
    path.write_bytes(raw.qemu(raw.block(0, 0x68, rest=raw.v2(2048, ("b", 1, 65536, bytes(8))))))
    image.write_bytes(DATA)
    write_bitmaps(f"{image}.bitmaps.json", BitmapFile(MIB, {"b": DirtyBitmap("b", 512)}))
    fails(run("replay", path, "--image", image), 4, "granularity 512")
    assert image.read_bytes() == DATA


def test_other_formats_are_refused(run: Run, stream: Path, tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(b"QFI\xfb".ljust(len(DISK), b"\0"))
    fails(run("replay", stream, "--image", image), 4, "qcow2")
    fails(run("send", image, "--to", tmp_path / "x"), 4, "qcow2")
    assert run("replay", stream, "--image", image, "-f", "raw").status == 0


# -- validate and dump


def test_validate_statuses(run: Run, stream: Path, tmp_path: Path) -> None:
    assert run("validate", stream).status == 0
    assert run("validate", stream, "--strict").status == 1
    assert run("validate", stream, "--strict", "--ignore", "completeness-unknown").status == 0
    assert run("validate", stream, "--device-size", "4M").status == 1
    past = run("validate", stream, "--device-size", "2M")
    assert past.status == 1
    assert "sector-past-end" in past.out
    fails(run("validate", stream, "--ignore", "nonsense"), 2, "nonsense")
    fails(run("validate"), 2, "no STREAM")
    fails(run("validate", stream, "--granularity", "b=7"), 2, "power of two")
    fails(run("validate", stream, "--device-size", "x=1Q"), 2, "invalid size '1Q'")
    bad = tmp_path / "text"
    bad.write_text("nothing like a stream")
    several = run("validate", stream, bad, "--output", "json")
    assert several.status == 3
    assert [found["valid"] for found in several.json["streams"]] == [True, False]
    missing = run("validate", stream, bad, tmp_path / "missing")
    assert missing.status == 4
    assert "3 streams: 1 unknown, 1 not-a-stream, 1 failed" in missing.out


def test_list_checks(run: Run) -> None:
    listed = run("validate", "--list-checks").out
    assert all(check in listed for check in CHECKS)


def test_explain(run: Run) -> None:
    """What a check means, and what to do; the names of options in it exist."""
    for check, (severity, meaning) in CHECKS.items():
        done = run("validate", "--explain", check)
        assert done.status == 0
        assert done.out == f"{check} ({severity})\n{meaning}\n{REMEDIES[check]}\n"
    both = run("validate", "--explain", "footer", "--explain", "limit").out
    assert both.index("footer (error)") < both.index("\n\nlimit (error)")
    wrong = run("validate", "--explain", "mising-chunks")
    fails(wrong, 2, "--explain mising-chunks: no such check; did you mean 'missing-chunks'")
    commands = [
        cli.get_command(click.Context(cli), name) for name in cli.list_commands(click.Context(cli))
    ]
    params = [param for command in commands if command is not None for param in command.params]
    known = {word for param in params for word in param.opts}
    for text in REMEDIES.values():
        assert set(re.findall(r"--[a-z-]+", text)) <= known, text


def test_validate_against_an_image(run: Run, stream: Path, tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(DISK)
    assert run("validate", stream, "--image", image).status == 0
    image.write_bytes(DISK[:5000] + b"!" + DISK[5001:-1] + b"!")
    outcome = run("validate", stream, "--image", f"d={image}", "--output", "json")
    assert outcome.status == 1
    message = next(f["message"] for f in outcome.report["findings"] if f["id"] == "image-differs")
    assert f"differs in 1 KiB: bytes 4608-5120, {len(DISK) - 512}-{len(DISK)}" in message
    (device,) = outcome.report["devices"]
    assert device["differing"] == [
        {"start": 4608, "length": 512},
        {"start": len(DISK) - 512, "length": 512},
    ]
    fails(run("validate", stream, "--image", f"x={image}"), 2, "'x'")


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 3, "empty"),
        (b"This is text, and no stream.\n", 3, "not a migration stream"),
        (raw.qemu(raw.block(0, 0x88)), 3, "flags 0x80 are unknown"),
    ],
)
@pytest.mark.parametrize("command", ["dump", "validate"])
def test_no_stream(
    run: Run, tmp_path: Path, command: str, content: bytes, status: int, words: str
) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    fails(run(command, path), status, words)


@pytest.mark.parametrize("command", ["dump", "validate", "replay"])
def test_missing_files_and_folders(run: Run, tmp_path: Path, command: str) -> None:
    fails(run(command, tmp_path / "missing"), 4, "No such file")
    fails(run(command, tmp_path), 4, "directory")
    fails(run(command, "tcp:localhost"), 2, "tcp:HOST:PORT")


def test_every_kind_of_input(run: Run, stream: Path, tmp_path: Path) -> None:
    expected = run("dump", stream, "--output", "jsonl").out
    packed = {
        "x.gz": gzip.compress(SMALL),
        "x.xz": lzma.compress(SMALL),
        "x.zst": zstd.compress(SMALL),
    }
    ways = [f"file:{stream}", f"exec:cat {stream}"]
    for name, content in packed.items():
        (tmp_path / name).write_bytes(content)
        ways.append(str(tmp_path / name))
        (tmp_path / f"cut-{name}").write_bytes(content[: len(content) // 2])
        assert run("dump", tmp_path / f"cut-{name}").status == 3
    (tmp_path / "late").write_bytes(b"12345" + SMALL)
    ways.append(f"file:{tmp_path / 'late'},offset=5")
    for way in ways:
        outcome = run("dump", way, "--output", "jsonl")
        assert (outcome.status, outcome.out) == (0, expected), way
    fails(run("dump", f"exec:cat {stream}; exit 5", "--limit", "0"), 4, "status 5")
    with open(stream, "rb") as file:
        outcome = run("dump", f"fd:{file.fileno()}", "--output", "jsonl")
        assert outcome.out == expected


def test_dump_filters(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "two.bin"
    path.write_bytes(TWO)

    def records(*options: str) -> list[dict[str, object]]:
        out = run("dump", path, "--output", "jsonl", *options).out
        return [json.loads(line) for line in out.splitlines()]

    assert [r["device"] for r in records("--type", "block")] == ["a", "b"]
    assert [r["device"] for r in records("--device", "b")] == ["b"]
    assert records("--sectors", "2048-4096") == []
    assert len(records("--sectors", "2047-2048")) == 2
    assert len(records("--limit", "3")) == 3
    document = run("dump", path, "--output", "json").json
    assert document["records"] == records()
    fails(run("dump", path, "--sectors", "5"), 2, "A-B")
    fails(run("dump", path, "--sectors", "5-3"), 2, "not a range of a disk's sectors")
    fails(run("dump", path, "--payload", "hex"), 2, "--output")
    human = run("dump", path).out.splitlines()
    assert "a: sectors 0+2048, zeros" in human[7] + human[8]


def test_dump_payloads(run: Run, stream: Path) -> None:
    import hashlib

    out = run("dump", stream, "--type", "block", "--output", "jsonl", "--payload", "sha256").out
    first = json.loads(out.splitlines()[0])
    assert first["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_hostile_names_are_escaped(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x"
    name = "\x1b[31m\udcff/../x"
    raw_name = name.encode("utf-8", "surrogateescape")
    path.write_bytes(raw.qemu(raw.word(0, 9) + raw.name(raw_name)))
    for command in ("dump", "validate"):
        out = run(command, path).out
        assert "\\x1b[31m\\xff/../x" in out
        assert "\x1b" not in out
    record = json.loads(run("dump", path, "--type", "block", "--output", "jsonl").out)
    assert record["device"] == name
    fails(run("replay", path), 2, "\\x1b[31m\\xff")


def test_empty_parts_are_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x"
    empty = (raw.part(1, raw.EOS) + raw.footer(1)) * 1000
    data = raw.qemu(raw.block(0, 8))
    begun = data.index(raw.footer(1)) + 5
    path.write_bytes(data[:begun] + empty + data[begun:])
    out = run("dump", path).out
    assert "1,000 empty parts" in out
    assert len(out.splitlines()) < 25


def test_help_and_version(run: Run) -> None:
    assert "Examples:" in run("--help").out
    assert run("--version").out.startswith("blkmig, version ")
    for command in ("dump", "validate", "replay", "send", "build"):
        assert "Examples:" in run(command, "--help").out
    assert run("nonsense").status == 2
