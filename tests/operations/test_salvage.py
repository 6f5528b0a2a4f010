"""``salvage``: all that is intact, nothing else, and the sizes of disks as they are known."""

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blkmig_cli import limits
from blkmig_cli.contents.final_layout import EndState, Stretch
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.disks.bitmap_words import Room
from blkmig_cli.errors import StreamError
from blkmig_cli.operations.salvage.result import Salvaged
from blkmig_cli.operations.salvage.salvage import Salvage
from blkmig_cli.progress import no_tick
from blkmig_cli.schemas.constants import BitmapFlag
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.hints import Hints
from tests.conftest import Capture, Run, fails
from tests.support import raw
from tests.support.feed import in_file
from tests.support.long import examples

MIB = 1 << 20
NAMED = int(BitmapFlag.DEVICE_NAME | BitmapFlag.BITMAP_NAME)


def put(folder: Path, content: bytes, name: str = "s.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def noise(number: int) -> bytes:
    return random.Random(number).randbytes(64) * (MIB // 64)


def parts(*records: bytes) -> bytes:
    """A stream with each record in a part of its own, as QEMU writes them, and bitmaps at its end."""
    out = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    out += raw.start(2, "dirty-bitmap", 1, raw.bitmap_start() + b"\x01") + raw.footer(2)
    for record in records:
        out += raw.part(1, record + raw.EOS) + raw.footer(1)
    out += raw.part(1, raw.progress(100) + raw.EOS, kind=3) + raw.footer(1)
    plain = raw.bitmap_bits(0, 24576, b"\3".ljust(24, b"\0"))
    names = raw.name("d") + raw.name("b")  # which a part names again, as QEMU's first one does
    bits = bytes([plain[0] | NAMED]) + names + plain[1:] + raw.COMPLETE
    return out + raw.part(2, bits + b"\x01", kind=3) + raw.footer(2) + raw.EOF


CHUNKS = {at: noise(at) for at in range(12)}
RECORDS = [raw.block(2048 * at, 0, "d", data) for at, data in CHUNKS.items()]
STREAM = parts(*RECORDS)
HINTS = Hints({"d": 12 * MIB})


def salvaged(data: bytes, hints: Hints = HINTS) -> Salvaged:
    source = in_file(data)
    return Salvage("s", source, Decoder(source, hints=hints), hints).run(no_tick)


def chunks(found: Salvaged) -> dict[int, bytes]:
    """The chunks of the disk that are there.  (Damage in a name makes another disk of its chunk.)"""
    disk = next((disk for disk in found.disks if disk.device == "d"), None)
    if disk is None:
        return {}
    image = disk.image
    assert isinstance(image, StreamDisk)
    there = set(CHUNKS) - {
        at for start, end in disk.missing() for at in range(start // MIB, -(-end // MIB))
    }
    return {at: image.read(at * MIB, MIB) for at in sorted(there)}


def test_an_intact_stream(capture: Capture, run: Run, tmp_path: Path) -> None:
    if capture.path.stat().st_size > 60 * MIB:
        return
    out = tmp_path / "out.bin"
    outcome = run("salvage", capture.path, *capture.hints(), "--to", out)
    if "incomplete" in capture.name:
        assert outcome.status == 0
    assert outcome.status == 0, outcome
    assert "intact, nothing is lost" in outcome.out
    hints = [word for word in capture.hints() if "granularity" not in word]
    assert run("compare", capture.path, out, *capture.hints(), "--incremental").status == 0
    assert hints


@pytest.mark.scaled
@settings(max_examples=examples(20, 200))
@given(st.integers(100, len(STREAM) - 1))
def test_everything_before_a_cut(at: int) -> None:
    found = salvaged(STREAM[:at])
    whole = [
        event.sector // 2048 for event in events_before(STREAM[:at]) if isinstance(event, Block)
    ]
    assert chunks(found) == {chunk: CHUNKS[chunk] for chunk in whole}
    assert [(gap.end) for gap in found.gaps] == [at]
    assert not any(disk.bitmaps for disk in found.disks) or at > STREAM.index(
        b"\x7e\0\0\0\2", 12 * MIB
    )


def events_before(data: bytes) -> list[Any]:
    found: list[Any] = []
    with suppress(StreamError):
        found.extend(Decoder(in_file(data), hints=HINTS))
    return found


@pytest.mark.scaled
@settings(max_examples=examples(20, 600))
@example(105, 1, "zeros")
@given(
    st.integers(60, len(STREAM) - 2000),
    st.sampled_from([1, 8, 100, 5000, MIB, 3 * MIB // 2]),
    st.sampled_from(["zeros", "ones", "random", "remove", "insert"]),
)
def test_no_wrong_byte_and_all_that_is_far_from_damage(at: int, length: int, how: str) -> None:
    length = min(length, len(STREAM) - at - 1000)
    piece = {"zeros": bytes(length), "ones": b"\xff" * length}.get(how)
    if how in ("random", "insert"):
        piece = random.Random(at).randbytes(length)
    rest = STREAM[at:] if how == "insert" else STREAM[at + length :]
    found = salvaged(STREAM[:at] + (piece or b"") + rest)
    size = 2 + 10 + MIB + 8 + 10
    hurt = range((at - 2000) // size - 1, (at + length) // size + 2)
    there = chunks(found)
    wrong = [chunk for chunk, data in there.items() if data != CHUNKS[chunk]]
    if how in ("remove", "insert"):
        assert not wrong
    else:
        # Damage within data, or in a sector's number, cannot be seen: it moves nothing.
        assert len([chunk for chunk in wrong if chunk not in hurt]) <= 1
    # The last records have too little behind them to be distinguished from disk data.
    for chunk in range(9):
        assert chunk in there or chunk in hurt, (chunk, hurt, found.gaps)
    if set(there) != set(CHUNKS):
        # Its name was hit, or its sector: then it is where another chunk is.
        assert found.gaps or len(found.disks) > 1 or length == 1


def test_a_disk_that_holds_streams_does_not_pass_for_one() -> None:
    """A stream in a file on the disk, and records of zeros by the thousand, right where damage is."""
    inner = parts(*[raw.block(2048 * at, 0, "d", b"\xee" * MIB) for at in range(4)])
    zeros = b"".join(raw.block(2048 * (at % 12), 8, "d") for at in range(100_000))
    disk = (inner + zeros)[: 5 * MIB].ljust(5 * MIB, b"\0")
    content = {at: disk[at * MIB :][:MIB] for at in range(5)} | {
        at: noise(at) for at in range(5, 12)
    }
    stream = parts(*[raw.block(2048 * at, 0, "d", data) for at, data in content.items()])
    for chunk in range(6):
        record = raw.block(2048 * chunk, 0, "d", content[chunk][:100])
        at = stream.index(record[:10], 100 if chunk else 0)
        at = stream.index(record) if stream.count(record) == 1 else at
        for hole in (9, 3000):
            found = salvaged(stream[:at] + b"\xff" * hole + stream[at + hole :])
            image = found.disks[0].image if found.disks else None
            there = {
                number
                for number in range(12)
                if image is not None
                and not any(s <= number * MIB < e for s, e in found.disks[0].missing())
            }
            for number in there:
                assert image is not None
                assert image.read(number * MIB, MIB) == content[number]
            assert there >= set(range(7, 12))


def test_what_is_left_out_takes_its_older_version_with_it() -> None:
    """The second version of a chunk is right before the damage, and the first is out of date."""
    again = raw.block(0, 0, "d", noise(99))
    stream = parts(*RECORDS[:6], again, *RECORDS[6:])
    at = stream.index(again) + len(again)
    found = salvaged(stream[:at] + b"\xff" * 30 + stream[at + 30 :])
    assert {device: list(sectors) for device, sectors in found.unconfirmed.items()} == {
        "d": [(0, 2048)]
    }
    assert set(chunks(found)) == set(range(1, 12)) - {6}
    assert found.outdated


def test_removed_sectors() -> None:
    state = EndState()
    state.put(Stretch(0, 6144, 1000, 0, 1 << 20))
    state.remove(2048, 4096)
    assert [(stretch.start, stretch.end) for stretch in state] == [(0, 2048), (4096, 6144)]
    state.remove(0, 9999)
    assert list(state) == []


def test_bitmaps_that_may_have_lost_bits_are_left_out() -> None:
    whole = salvaged(STREAM)
    assert [bitmap.name for bitmap in whole.disks[0].bitmaps] == ["b"]
    bits = STREAM.index(raw.part(2, b"", kind=3), 12 * MIB)
    for at in range(bits, len(STREAM) - 1):
        found = salvaged(STREAM[:at] + b"\xff" + STREAM[at + 1 :])
        for bitmap in found.disks[0].bitmaps:
            # Nothing says whether a bit, or a granule's number, is right.
            assert bitmap.granularity == 65536
        assert found.disks[0].bitmaps or found.lost_bitmaps
    in_blocks = STREAM[: 3 * MIB] + b"\xff" * MIB + STREAM[4 * MIB :]
    found = salvaged(in_blocks)
    assert found.disks[0].bitmaps[0].ranges(None) == whole.disks[0].bitmaps[0].ranges(None)


def test_v1_bits_are_not_given_where_newer_ones_may_be_lost(
    run: Run, unpacked: Path, tmp_path: Path
) -> None:
    content = (unpacked / "v1-blocks-and-bitmaps.bin").read_bytes()
    hints = ["--device-size=9M"] + [
        f"--granularity={bitmap['name']}={bitmap['granularity']}"
        for bitmap in json.loads(
            (Path(__file__).parents[1] / "captures" / "v1-blocks-and-bitmaps.json").read_text()
        )["bitmaps"]
    ]
    path = put(tmp_path, content[: 2 * MIB] + b"\xff" * 600_000 + content[2 * MIB + 600_000 :])
    found = run("salvage", path, *hints, "--output", "json")
    assert found.status == 1
    assert [disk["bitmaps"] for disk in found.json["devices"]] == [[]]
    assert len(found.json["lost-bitmaps"]) == 4


def test_the_start_is_lost(run: Run, tmp_path: Path) -> None:
    for cut in (1, 50, MIB // 2, 3 * MIB):
        found = salvaged(STREAM[cut:])
        first = -(-cut // MIB) if cut > 60 else 0
        assert set(chunks(found)) >= set(range(first + 1, 12))
        assert all(data == CHUNKS[at] for at, data in chunks(found).items())
    path = put(tmp_path, random.Random(5).randbytes(3 * MIB))
    fails(run("salvage", path), 3, "not a migration stream")


def test_bare_records() -> None:
    bare = b"".join(RECORDS) + raw.progress(100) + raw.EOS
    assert chunks(salvaged(bare)) == CHUNKS
    at = bare.index(RECORDS[5][:10])
    found = salvaged(bare[:at] + b"\xff" * 40 + bare[at + 40 :])
    assert set(chunks(found)) == set(CHUNKS) - {4, 5}
    assert all(data == CHUNKS[chunk] for chunk, data in chunks(found).items())


def test_the_command(run: Run, tmp_path: Path) -> None:
    at = STREAM.index(RECORDS[4][:10])
    damaged = STREAM[:at] + b"\xff" * 90 + STREAM[at + 90 :]
    path, out, image = put(tmp_path, damaged), tmp_path / "out", tmp_path / "image"
    hints = ["--device-size", "12M"]
    assert run("validate", path, *hints).status == 3
    outcome = run("salvage", path, "--to", out, *hints)
    assert outcome.status == 1
    assert "damaged in 1 place" in outcome.out
    assert "DISK    SIZE  MISSING  BITMAPS" in outcome.out
    assert (
        run("replay", out, "--image", image, "--create", "--allow-incomplete", *hints, "-q").status
        == 0
    )
    lost = run("map", out, *hints, "--output", "json").json["devices"][0]["extents"]
    for extent in lost:
        start, end = extent["start"], extent["start"] + extent["length"]
        expected = b"".join(CHUNKS.values())[start:end] if extent["present"] else bytes(end - start)
        assert image.read_bytes()[start:end] == expected
    assert sum(extent["length"] for extent in lost if not extent["present"]) <= 3 * MIB
    assert (
        run("salvage", f"exec:cat {path}", *hints).out.splitlines()[1:]
        == outcome.out.splitlines()[1:-1]
    )
    fails(run("salvage", path, "--to", path, *hints), 2, "are the same file")


@pytest.mark.scaled
@settings(max_examples=examples(5, 150))
@given(st.binary(max_size=3000), st.integers(0, 1 << 62))
def test_hostile_input_ends(data: bytes, word: int) -> None:
    forged = b"".join(raw.word((word + at) % (1 << 50), 1) + b"\1d" for at in range(300))
    for content in (data, raw.HEADER + data, STREAM[:100] + forged + data, forged):
        salvaged(content, Hints())


@pytest.mark.parametrize("words", [["--output", "json"], []])
def test_empty(words: list[str], run: Run, tmp_path: Path) -> None:
    outcome = run("salvage", put(tmp_path, b""), *words)
    assert outcome.status == 3


def test_many_lost_bitmaps(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their lines and names are bounded."""
    monkeypatch.setattr(limits, "SHOWN_MAX", 16)
    number = limits.SHOWN_MAX + 2
    bits = b"".join(raw.bitmap_start("d", f"{at}", 512) for at in range(number))
    data = raw.qemu(raw.block(0, 9), bitmaps=bits + raw.bitmap_bits(0, 64, b"\1" * 8))
    lines = run("salvage", put(tmp_path, data), "-q").out.splitlines()
    lost = [line for line in lines if "is left out" in line]
    assert len(lost) == limits.SHOWN_MAX == len(lines) - 2
    assert "and 2 lines more (--output json has all)" in lines


@pytest.mark.parametrize("parted", [False, True])
def test_bits_that_take_too_much_memory(
    parted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only their bitmap is lost, also where they come in runs."""
    chunks = [raw.bitmap_bits(at << 40, 64, b"\1" * 8) for at in range(400)]
    between = b"\1" + raw.footer(2) + raw.part(2, b"") if parted else b""
    bits = raw.bitmap_start(granularity=512) + between + between.join(chunks) + raw.COMPLETE
    path = put(tmp_path, raw.qemu(raw.block(0, 9), bitmaps=bits))

    def lost() -> list[str]:
        source = in_file(path.read_bytes())
        found = Salvage(str(path), source, Decoder(source), Hints()).run(no_tick)
        assert [disk.device for disk in found.disks] == ["d"]
        return [lost.why for lost in found.lost_bitmaps]

    before = lost()
    monkeypatch.setattr(Room, "__init__", lambda self: setattr(self, "left", 20_000))
    assert lost() == ["its bits do not fit on any disk"] != before
