"""What ``salvage --to`` writes: the sectors that are intact, no others, and the disks' sizes."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.contents.final_layout import EndStates
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.operations.salvage.result import Salvaged
from blkmig_cli.operations.salvage.salvage import Salvage
from blkmig_cli.operations.salvage.writing import disks_to_send, salvaged_pieces, unwritable
from blkmig_cli.progress import no_tick
from blkmig_cli.transport.payloads import ImageRange
from blkmig_cli.transport.target import resolve_content
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.identity import Identity, Statement, description, read_statement
from blkmig_cli.wire.runs.columns import expand
from tests.conftest import Run, fails
from tests.support import raw
from tests.support.feed import in_file
from tests.support.long import examples

MIB = 1 << 20
ODD = 5 * MIB + 8192


def put(folder: Path, content: bytes, name: str = "s.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def noise(seed: int, length: int = MIB) -> bytes:
    return random.Random(seed).randbytes(512) * (length // 512)


def salvaged(data: bytes, hints: Hints) -> Salvaged:
    source = in_file(data)
    return Salvage("s", source, Decoder(source, hints=hints), hints).run(no_tick)


def written(found: Salvaged) -> bytes:
    """Return the stream that is made of what was found."""
    out = bytearray()
    disks = disks_to_send(found.disks)
    whole = found.exit_status == 0
    for event in expand(salvaged_pieces(found.disks, disks, intact=found.intact, whole=whole)):
        for piece in encode(event):
            if isinstance(piece, bytes):
                out += piece
            elif isinstance(piece, ImageRange):
                out += piece.image.read(piece.offset, piece.length - piece.padding)
                out += bytes(piece.padding)
            else:
                out += b"".join(resolve_content(piece))
    return bytes(out)


def content(data: bytes, device: str, size: int) -> tuple[bytes, list[bool]]:
    """Return the disk that replay makes of a stream, and which of its sectors the stream has."""
    source, states = in_file(data), EndStates()
    for event in Decoder(source):
        states.feed(event, source)
    disk = StreamDisk("s", source, states.disks[device], size)
    there = [False] * (size // 512)
    for piece in disk.pieces():
        if piece.kind != "missing":
            there[piece.start // 512 : piece.end // 512] = [True] * (
                (piece.end - piece.start) // 512
            )
    return disk.read(0, size), there


@st.composite
def records(draw: st.DrawFn) -> tuple[bytes, int, bytearray, list[bool]]:
    """Records at any sector, on top of each other; their disk, and which sectors came."""
    size = draw(st.sampled_from([4 * MIB, ODD, 3 * MIB - 512, 700 * 512]))
    disk, sent = bytearray(size), [False] * (size // 512)
    made = []
    for number in range(draw(st.integers(1, 6))):
        sector = draw(st.one_of(st.integers(0, size // 512 - 1), st.just(0), st.just(2048)))
        sector = min(sector, size // 512 - 1)
        zero = draw(st.booleans())
        data = bytes(MIB) if zero else noise(number + 1)
        made.append(raw.block(sector, 8 if zero else 0, "d", b"" if zero else data))
        end = min(sector + 2048, size // 512)
        disk[sector * 512 : end * 512] = data[: (end - sector) * 512]
        sent[sector:end] = [True] * (end - sector)
    return raw.qemu(*made), size, disk, sent


@pytest.mark.scaled
@settings(max_examples=examples(21, 300))
@given(records())
def test_an_intact_stream_gives_its_sectors_and_no_others(
    made: tuple[bytes, int, bytearray, list[bool]],
) -> None:
    data, size, disk, sent = made
    found = salvaged(data, Hints({"d": size}))
    out = written(found)
    assert found.intact
    assert content(out, "d", size) == (bytes(disk), sent)
    assert salvaged(out, Hints()).disks[0].size == size
    assert salvaged(out, Hints()).disks[0].size_known


@pytest.mark.scaled
@settings(max_examples=examples(21, 300))
@given(records(), st.lists(st.integers(0, 10300), min_size=2, max_size=6), st.booleans())
def test_what_was_left_out_stays_left_out(
    made: tuple[bytes, int, bytearray, list[bool]], edges: list[int], known: bool
) -> None:
    """Also where less than a chunk of its neighbours remains, which no record can hold."""
    data, size, disk, sent = made
    found = salvaged(data, Hints({"d": size}))
    layout, found.disks[0].size_known = found.disks[0].layout, known
    for low, high in zip(edges[::2], edges[1::2], strict=False):
        layout.remove(min(low, high), max(low, high))
        sent[min(low, high) : max(low, high)] = [False] * len(sent[min(low, high) : max(low, high)])
    for low, high in unwritable(found.disks[0].image, size_known=known):
        assert high - low < 2048
        assert all(sent[low:high])
        layout.remove(low, high)
        sent[low:high] = [False] * len(sent[low:high])
    if not any(layout):
        return
    if not known:
        found.disks[0].image = found.disks[0].image.resized(layout.end * 512)
    image, there = content(written(found), "d", size)
    assert there == sent
    for sector, came in enumerate(sent):
        if came:
            place = slice(sector * 512, (sector + 1) * 512)
            assert image[place] == disk[place]


def sent_with_moved_tail(run: Run, folder: Path) -> tuple[Path, bytes]:
    """A stream of a disk of no whole MiB, whose last chunk stands on an unaligned sector."""
    disk = b"".join(noise(at, MIB) for at in range(5)) + noise(9, ODD - 5 * MIB)
    image, stream = put(folder, disk, "image"), folder / "t.bin"
    assert run("send", f"drive0={image}", "--to", stream, "-q").status == 0
    found = [json.loads(line) for line in run("dump", stream, "--output", "jsonl").out.splitlines()]
    last = [item for item in found if item["type"] == "block"][-1]
    assert last["sector"] == (ODD - MIB) // 512
    assert last["sector"] % 2048
    return stream, disk


@pytest.mark.parametrize("hints", [[], ["--device-size", str(ODD)]])
def test_an_intact_last_chunk_on_an_unaligned_sector_is_found(
    hints: list[str], run: Run, tmp_path: Path
) -> None:
    stream, disk = sent_with_moved_tail(run, tmp_path)
    data = bytearray(stream.read_bytes())
    at = data.rindex(raw.block(8192, 0, "drive0"))
    data[at : at + 64] = b"\xff" * 64  # the head of the record before it
    damaged, out, copy = put(tmp_path, bytes(data), "d.bin"), tmp_path / "out", tmp_path / "copy"
    outcome = run("salvage", damaged, "--to", out, *hints, "--output", "json")
    assert outcome.status == 1
    (device,) = outcome.json["devices"]
    assert device["size"] == ODD
    # That record, and the one before, which nothing confirms.
    assert device["missing"] == [{"start": 3 * MIB, "length": MIB + ODD % MIB}]
    assert run("replay", out, "--image", copy, "--create", "--allow-incomplete", *hints).status == 0
    there = bytearray(disk)
    for gap in device["missing"]:
        there[gap["start"] : gap["start"] + gap["length"]] = bytes(gap["length"])
    assert copy.read_bytes() == bytes(there)


@pytest.mark.parametrize("size", [4 * MIB, 4 * MIB - 512, 6 * MIB, ODD])
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_the_size_that_was_told_is_stated(way: str, size: int, run: Run, tmp_path: Path) -> None:
    """Though the disk's last chunks are lost, replay needs no option to make the whole disk."""
    stream = raw.qemu(*(raw.block(2048 * at, 0, "d", noise(at)) for at in range(4)))
    damaged = put(tmp_path, stream[: -2 * MIB])
    out, image = tmp_path / "out", tmp_path / "image"
    assert run("salvage", damaged, "--to", out, "--device-size", size).status == 1
    source = out if way == "file" else f"exec:cat {out}"
    (device,) = run("validate", source, "--output", "json").report["devices"]
    assert device["size"] == size
    assert device["missing"] == [{"start": 2 * MIB, "length": size - 2 * MIB}]
    words = ["replay", source, "--image", image, "--create", "--allow-incomplete", "-q"]
    assert run(*words).status == 0
    assert image.read_bytes() == noise(0) + noise(1) + bytes(size - 2 * MIB)
    # What the stream states does not make an option wrong.
    assert run("validate", source, "--device-size", size + MIB).status == 1


def test_an_unknown_size_is_not_stated(run: Run, tmp_path: Path) -> None:
    stream = raw.qemu(*(raw.block(2048 * at, 0, "d", noise(at)) for at in range(4)))
    damaged, out = put(tmp_path, stream[: -MIB - 100]), tmp_path / "out"
    outcome = run("salvage", damaged, "--to", out)
    assert "at least 2 MiB" in outcome.out
    assert "size of 'd' is unknown; specify --device-size d=SIZE" in outcome.out
    report = run("validate", out, "--output", "json").report
    assert report["devices"][0]["size"] is None
    assert report["complete"] is not True
    found = {finding["id"] for finding in report["findings"]}
    assert found == {"salvaged", "no-final-progress"}


def test_sizes_that_the_stream_states_are_kept(run: Run, tmp_path: Path) -> None:
    tail = raw.block(4096, 0x70, "d", raw.v2(3) + noise(1))
    stream = raw.qemu(raw.block(0, 0x10, "d", noise(0)), tail, raw.block(2048, 0x10, "d", noise(2)))
    damaged, out = put(tmp_path, stream[:-MIB]), tmp_path / "out"
    assert run("salvage", damaged, "--to", out).status == 1
    assert run("validate", out, "--output", "json").report["devices"][0]["size"] == 2 * MIB + 1536
    again = tmp_path / "again"
    assert run("salvage", out, "--to", again).status == 0
    assert run("compare", out, again).status == 0


def test_a_disk_that_is_lost_completely_is_named(run: Run, tmp_path: Path) -> None:
    both = [raw.block(2048 * at, 0, name, noise(at)) for name in ("d", "e") for at in range(3)]
    path = put(tmp_path, raw.qemu(*both)[: 3 * MIB + 200])
    outcome = run("salvage", path, "--device-size", "d=3M", "--device-size", "e=3M")
    assert outcome.status == 1
    assert "disk e is lost, all 3 MiB of it" in outcome.out
    hints = ["--device-size", "d=3M", "--device-size", "e=3M", "--output", "json"]
    assert run("salvage", path, *hints).json["lost-devices"] == [{"name": "e", "size": 3 * MIB}]
    # Of an intact stream it is a mistake.
    intact = put(tmp_path, raw.qemu(*both[:3]), "intact")
    fails(run("salvage", intact, *hints[:4]), 2, "no device 'e'; there is the device 'd'")


def test_a_bitmap_names_a_disk_that_is_lost_completely(run: Run, tmp_path: Path) -> None:
    starts = raw.bitmap_start("d") + raw.bitmap_start("e") + b"\x01"
    stream = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    stream += raw.start(2, "dirty-bitmap", 1, starts) + raw.footer(2)
    for at in range(4):
        stream += raw.part(1, raw.block(2048 * at, 0, "d", noise(at)) + raw.EOS) + raw.footer(1)
    outcome = run("salvage", put(tmp_path, stream))
    assert outcome.status == 1
    assert "disk e is lost\n" in outcome.out
    assert "bitmap e/b is left out: it has no end" in outcome.out


@pytest.mark.parametrize("hints", [[], ["--device-size", "d=4M"]])
def test_progress_shows_that_more_is_lost(hints: list[str], run: Run, tmp_path: Path) -> None:
    """Of two disks of 4 MiB, only one came: at its last chunk the progress is 37 %."""
    blocks = []
    for at in range(4):
        blocks += [raw.progress(100 * at // 8), raw.block(2048 * at, 0, "d", noise(at))]
    path = put(tmp_path, raw.qemu(*blocks)[:-10])
    outcome = run("salvage", path, *hints)
    assert outcome.status == 1
    least = (100 * 2 * 2048 // 38 + 1) * 512 - 4 * MIB
    which = "other disks" if hints else "these disks or of others"
    assert f"at least {least / MIB:.4g} MiB of {which} is missing" in outcome.out
    found = run("salvage", path, *hints, "--output", "json").json
    assert found["other-missing"] == least


def test_a_text_file_is_no_stream(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, b"no stream at all\n" * 1000)
    outcome = run("salvage", path, "--to", tmp_path / "out")
    assert outcome.status == 3
    assert "not a migration stream" in outcome.out
    assert not (tmp_path / "out").exists()


def test_a_stream_on_stdout_has_its_report_on_stderr(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(raw.block(0, 8)))
    fails(run("salvage", path, "--to", "-", "--output", "json"), 2, "both write to stdout")
    command = [sys.executable, "-m", "blkmig_cli", "salvage", str(path), "--to", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.startswith(b"QEVM")
    assert done.stdout.endswith(b"}")
    assert b"intact, nothing is lost" in done.stderr


def test_bitmaps_of_a_disk_of_unknown_size_are_left_out(run: Run, unpacked: Path) -> None:
    """What would be written of them covers the disk, and so would state its size."""
    hints = [f"--granularity={name}=64K" for name in ("coarse", "bitmap0")]
    path = unpacked / "v1-blocks-and-bitmaps.bin"
    outcome = run("salvage", path, *hints, "--output", "json")
    assert outcome.json["devices"][0]["bitmaps"] == []
    reasons = {lost["why"] for lost in outcome.json["lost-bitmaps"]}
    assert reasons == {"the size of its disk is unknown; specify --device-size"}


def test_what_is_left_of_a_disk_is_not_taken_for_a_smaller_one(run: Run, tmp_path: Path) -> None:
    """A stream of send states the disk's size at its end, which is lost."""
    image, stream, out = tmp_path / "disk.img", tmp_path / "s.bin", tmp_path / "out"
    image.write_bytes(b"".join(noise(at) for at in range(4)))
    assert run("send", f"d={image}", "--dialect", "classic", "--to", stream).status == 0
    cut = put(tmp_path, stream.read_bytes()[: 2 * MIB + 5000], "cut.bin")
    assert run("salvage", cut, "--to", out).status == 1
    why = "the stream is the intact part of a damaged one, from which data is missing [salvaged]"
    new = tmp_path / "new.img"
    fails(run("replay", out, "--image", new, "--create"), 1, why)
    assert not new.exists()
    words = ["--image", new, "--create", "--allow-incomplete", "-q"]
    assert run("replay", out, *words).status == 0
    assert new.read_bytes() == image.read_bytes()[: new.stat().st_size]
    # With --incremental, who applies it knows of the gaps.
    assert run("replay", out, "--image", image, "--incremental", "-q").status == 0
    assert run("validate", out, "--incremental").status == 0
    assert run("extract", out, "--to", tmp_path / "e.img").status == 1
    # Another form of it says the same.
    fails(run("convert", out, "--dialect", "v2", "--to", tmp_path / "v2"), 1, "--incremental")
    words = ["--normalize", "--container", "none", "--incremental", "--to", tmp_path / "bare"]
    fails(
        run("convert", out, *words), 2, "container none cannot state that the stream is the intact"
    )
    converted = tmp_path / "v2.bin"
    words = ["--dialect", "v2", "--incremental", "--to", converted]
    assert run("convert", out, *words).status == 0
    for path in (out, converted):
        report = run("validate", path, "--output", "json").report
        assert report["verdict"] == "incomplete"
        assert "salvaged" in [finding["id"] for finding in report["findings"]]


def test_what_is_whole_is_not_called_a_part(run: Run, tmp_path: Path) -> None:
    stream, out = put(tmp_path, raw.qemu(raw.block(0, 0, "d", noise(0)))), tmp_path / "out"
    assert run("salvage", stream, "--to", out, "--device-size", MIB).status == 0
    assert b"salvaged" not in out.read_bytes()
    assert run("validate", out).status == 0


CREATED = "2026-01-31T23:59:59Z"
SIZES: dict[str, int] = {"d": 512, "e\udcff": (1 << 62), "": 1024}


def test_descriptions_state_sizes() -> None:
    assert read_statement(description(SIZES)) == Statement(SIZES)
    assert json.loads(description({})) == {"devices": []}
    assert read_statement(memoryview(description(SIZES))) == Statement(SIZES)


@pytest.mark.parametrize("sizes", [SIZES, {}])
def test_descriptions_state_that_a_stream_is_a_part(sizes: dict[str, int]) -> None:
    stated = description(sizes, salvaged=True)
    assert read_statement(stated) == Statement(sizes, salvaged=True)
    identity = Identity("0" * 8 + "-0000" * 3 + "-" + "0" * 12, None, False, CREATED, "crash")
    both = read_statement(description(sizes, identity, salvaged=True))
    assert both.salvaged
    assert both.identity is not None
    assert both.sizes == sizes
    other = stated.replace(b"true", b"1")
    assert read_statement(other).salvaged is False


@pytest.mark.parametrize(
    "identity",
    [
        {},
        [],
        5,
        {"version": 2, "disks": {"d": {"size": 512}}},
        {"version": 1, "disks": [["d", 512]]},
        {"version": 1, "disks": {"d": 512}},
        {"version": 1, "disks": {str(at): {"size": 512} for at in range(5000)}},
        *(
            {"version": 1, "disks": {"d": {"size": size}}}
            for size in (0, -512, 511, True, 512.0, "512", None, 1 << 63, 10**4000)
        ),
    ],
)
def test_a_description_that_makes_no_sense_states_nothing(identity: Any) -> None:
    assert read_statement(json.dumps({"devices": [], "blkmig": identity}).encode()).sizes == {}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'"blkmig"',
        b'{"blkmig"',
        b'{"blkmig": ' + b"[" * 100_000,
        b'{"blkmig": {"version": 1, "disks": {"d": {"size": ' + b"9" * 5000 + b"}}}}",
        description({"d": 512}) + b" " * (4 << 20),
    ],
)
def test_hostile_descriptions_state_nothing(text: bytes) -> None:
    assert read_statement(text) == Statement()


@pytest.mark.parametrize(
    ("options", "percents"), [([], [100]), (["--device-size=2M"], [0, 50, 100])]
)
def test_progress_in_what_is_written(
    run: Run, tmp_path: Path, options: list[str], percents: list[int]
) -> None:
    """It would bound the size of a disk; where that is unknown, there is only the end's."""
    path, out = tmp_path / "s.bin", tmp_path / "out.bin"
    path.write_bytes(raw.qemu(*(raw.block(at, 0, "d", b"\1" * raw.CHUNK) for at in (0, 2048))))
    assert run("salvage", path, *options, "--to", out).status == 0
    events = [json.loads(line) for line in run("dump", out, "--output=jsonl").out.splitlines()]
    assert [event["percent"] for event in events if event["type"] == "progress"] == percents
