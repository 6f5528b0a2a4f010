"""``compare``: one changed byte anywhere is found; sizes and missing chunks are listed apart."""

import os
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.checks.survey import read_contents
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.contents.stream_disk import StreamDisk
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, read_bitmaps, write_bitmaps
from blkmig_cli.disks.raw import RawImage, open_raw
from blkmig_cli.operations import compare
from blkmig_cli.operations.compare import (
    CompareOptions,
    compare_sides,
    differing_ranges,
    differing_sectors,
    image_side,
    stream_side,
)
from blkmig_cli.progress import no_tick
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.hints import Hints
from tests.conftest import Capture, Outcome, Run, fails
from tests.support import raw
from tests.support.long import examples

MIB = 1 << 20


def put(folder: Path, content: bytes, name: str) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def filled(sector: int, byte: int = 7, device: str = "d") -> bytes:
    return raw.block(sector, 0, device, bytes([byte]) * MIB)


def compared(run: Run, *words: object) -> tuple[int, Any]:
    outcome = run("compare", *words, "--output", "json")
    assert outcome.status in (0, 1), outcome
    assert outcome.json["same"] is (outcome.status == 0)
    return outcome.status, outcome.json


TWO = raw.qemu(filled(0), raw.block(2048, 8))
TOLD = "--device-size=2M"


def test_captures_against_what_replay_makes_of_them(
    capture: Capture, run: Run, tmp_path: Path
) -> None:
    devices = [name for name, disk in capture.truth["devices"].items() if disk.get("sha256")]
    if capture.path.stat().st_size > 60 * MIB or not devices:
        return
    words = [f"--image={name}={tmp_path / name}" for name in devices]
    run("replay", capture.path, *capture.hints(), *words, "--create", "--allow-incomplete", "-q")
    for name in devices:
        if not (tmp_path / name).exists():
            continue
        image = f"{name}={tmp_path / name}"
        hints = [*capture.hints(), "--incremental"]
        status, _ = compared(run, capture.path, image, *hints)
        assert status == 0
        path = tmp_path / name
        content = bytearray(path.read_bytes())
        with_data = np.flatnonzero(np.frombuffer(content, np.uint8))
        place = int(with_data[len(with_data) // 2])
        content[place] ^= 1
        path.write_bytes(content)
        status, found = compared(run, image, capture.path, *hints)
        (device,) = found["devices"]
        assert device["differing"] == [{"start": place - place % 512, "length": 512}]
        assert status == 1


@given(st.binary(min_size=1, max_size=3000), st.lists(st.integers(0, 2999), max_size=5))
def test_sectors_that_differ(data: bytes, places: list[int]) -> None:
    other = bytearray(data)
    for place in places:
        other[place % len(data)] ^= 0xFF
    found = {at for low, high in differing_sectors(data, bytes(other)) for at in range(low, high)}
    assert found == {at // 512 for at in range(len(data)) if data[at] != other[at]}


def test_any_byte(run: Run, tmp_path: Path) -> None:
    stream = put(tmp_path, TWO, "s.bin")
    good = bytes([7]) * MIB + bytes(MIB)
    assert run("compare", stream, put(tmp_path, good, "i"), TOLD).status == 0
    for place in (0, 511, 512, MIB - 1, MIB, 2 * MIB - 1):
        content = bytearray(good)
        content[place] ^= 1
        outcome = run("compare", stream, put(tmp_path, bytes(content), "i"), TOLD)
        assert outcome.status == 1
        low = place - place % 512
        assert f"d: 512 B differ: bytes {low}-{low + 512}\n" in outcome.out
        assert outcome.out.endswith("different\n")


def test_sizes(run: Run, tmp_path: Path) -> None:
    stream = put(tmp_path, TWO, "s.bin")
    longer = put(tmp_path, (bytes([7]) * MIB).ljust(3 * MIB, b"\0"), "longer")
    outcome = run("compare", stream, longer, TOLD)
    assert outcome.status == 0
    assert f"d: {2 * MIB} and {3 * MIB} bytes" in outcome.out
    assert run("compare", stream, longer, TOLD, "--strict").status == 1
    longer.write_bytes((bytes([7]) * MIB).ljust(3 * MIB - 1, b"\0") + b"\1")
    assert run("compare", stream, longer, TOLD).status == 1
    cut = put(tmp_path, raw.qemu(filled(0), filled(2048)), "cut")
    image = put(tmp_path, bytes([7]) * (MIB + 4096), "i")
    # The disk's size is open: the image's own is as good as any.
    assert run("compare", cut, image, "--strict").status == 0


def test_missing_chunks_are_not_zeros(run: Run, tmp_path: Path) -> None:
    stream = put(tmp_path, raw.qemu(filled(0), filled(4096)), "s.bin")
    zeros = put(tmp_path, bytes([7]) * MIB + bytes(MIB) + bytes([7]) * MIB, "i")
    outcome = run("compare", stream, zeros, "--device-size=3M")
    assert outcome.status == 1
    spans = f"bytes {MIB}-{2 * MIB}"
    assert f"d: 1 MiB not sent in {stream}: {spans}\n" in outcome.out
    assert run("compare", stream, zeros, "--device-size=3M", "--incremental").status == 0
    assert run("compare", stream, stream, "--device-size=3M").status == 0


def test_devices(run: Run, tmp_path: Path) -> None:
    both = put(tmp_path, raw.qemu(filled(0), filled(0, 8, "e")), "both")
    one = put(tmp_path, raw.qemu(filled(0)), "one")
    swapped = put(tmp_path, raw.qemu(filled(0, 8), filled(0, 7, "e")), "swapped")
    assert run("compare", both, both).status == 0
    outcome = run("compare", both, one)
    assert outcome.status == 1
    assert f"e: not in {one}" in outcome.out
    assert run("compare", both, swapped).status == 1
    image = put(tmp_path, bytes([8]) * MIB, "i")
    assert run("compare", both, f"e={image}").status == 0
    assert run("compare", f"d={image}", both).status == 1
    fails(run("compare", both, image), 2, "specify DEVICE=IMAGE")
    fails(run("compare", both, f"x={image}"), 2, "no device 'x'; there are the devices 'd', 'e'")
    fails(run("compare", image, image), 2, "is a stream")


def test_bitmaps(run: Run, tmp_path: Path) -> None:
    dirty = raw.bitmap_start() + raw.bitmap_bits(0, 4096, b"\3".ljust(8, b"\0")) + raw.COMPLETE
    stream = put(tmp_path, raw.qemu(filled(0), raw.block(2048, 8), bitmaps=dirty), "s.bin")
    image = tmp_path / "i"
    assert run("replay", stream, "--image", image, "--create", "-q").status == 0
    assert run("compare", stream, image).status == 0
    held = read_bitmaps(f"{image}.bitmaps.json").bitmaps["b"]

    def changed(*bitmaps: DirtyBitmap) -> Outcome:
        named = {bitmap.name: bitmap for bitmap in bitmaps}
        write_bitmaps(f"{image}.bitmaps.json", BitmapFile(2 * MIB, named))
        return run("compare", stream, image)

    other = DirtyBitmap("b", 65536, held.recording, held.persistent)
    other.set_range(0, 65536)
    outcome = changed(other)
    assert outcome.status == 1
    assert "d/b: dirty 131072 and 65536 bytes\n" in outcome.out
    other.set_range(65536, 65536)
    assert changed(other).status == 0
    other.recording = not other.recording
    assert "d/b: recording" in changed(other).out
    assert "d/c: not in" in changed(held, DirtyBitmap("c", 512)).out
    Path(f"{image}.bitmaps.json").unlink()
    outcome = run("compare", stream, image)
    assert outcome.status == 0
    assert "bitmaps: not compared" in outcome.out


def test_open_granularities_are_not_called_the_same(run: Run, unpacked: Path) -> None:
    path = unpacked / "v1-blocks-and-bitmaps.bin"
    outcome = run("compare", path, path)
    assert outcome.status == 1
    assert "of unknown granularity" in outcome.out


def test_damaged_and_pipes(run: Run, tmp_path: Path) -> None:
    stream = put(tmp_path, TWO, "s.bin")
    damaged = put(tmp_path, TWO[: MIB // 2], "damaged")
    fails(run("compare", stream, damaged), 3, "truncated")
    assert run("compare", stream, f"exec:cat {stream}").status == 0
    fails(run("compare", stream, tmp_path / "missing"), 4, "No such file")
    assert run("compare", stream, stream, "-q").out == ""


@pytest.mark.parametrize("words", [["--output", "json"], []])
def test_an_image_that_begins_like_a_stream(words: list[str], run: Run, tmp_path: Path) -> None:
    stream = put(tmp_path, raw.qemu(raw.block(0, 0, "d", (TWO * 2)[:MIB])), "s.bin")
    image = put(tmp_path, (TWO * 2)[:MIB], "i")
    assert run("compare", stream, image, *words).status == 3  # taken for a stream, which is cut
    assert run("compare", stream, image, "-f", "raw", *words).status == 0
    assert run("compare", stream, f"d={image}", *words).status == 0


def sector(disk: bytes | bytearray, number: int) -> bytes:
    return bytes(disk[number * 512 : (number + 1) * 512])


@st.composite
def written(draw: st.DrawFn) -> tuple[bytes, bytearray, list[bool]]:
    """Records at any sector, again and on top of each other; their disk, and which sectors came."""
    size = draw(st.sampled_from([3 * MIB, 3 * MIB + 1536]))
    disk, sent = bytearray(size), [False] * (size // 512)
    records = []
    for number in range(draw(st.integers(1, 6))):
        sector = draw(st.integers(0, size // 512 - 1))
        zero = draw(st.booleans())
        data = bytes(MIB) if zero else bytes([number + 1]) * MIB
        records.append(raw.block(sector, 8 if zero else 0, "d", b"" if zero else data))
        end = min(sector + 2048, size // 512)
        disk[sector * 512 : end * 512] = data[: (end - sector) * 512]
        sent[sector:end] = [True] * (end - sector)
    return raw.qemu(*records), disk, sent


@pytest.mark.scaled
@settings(max_examples=examples(20, 200))
@given(
    written(),
    st.lists(st.integers(0, 6146), max_size=5),
    st.sampled_from([-MIB, 0, 5 * 512]),
    st.sampled_from([1, 3, 1 << 14]),
)
def test_the_sectors_that_differ_are_those_of_a_model(
    made: tuple[bytes, bytearray, list[bool]], changed: list[int], more: int, window: int
) -> None:
    data, disk, sent = made
    image = disk + bytes(more) if more >= 0 else disk[:more]
    for at in changed:
        if at * 512 < len(image):
            image[at * 512 + at % 512] ^= 0x55
    with TemporaryDirectory() as folder:
        stream, path = put(Path(folder), data, "s"), put(Path(folder), bytes(image), "i")
        hints = Hints({"d": len(disk)})
        with (
            open_stream(str(stream)) as opened,
            closing(open_raw(str(path), writable=False)) as raw_,
            pytest.MonkeyPatch.context() as patch,
        ):
            contents = read_contents(opened, Decoder(opened.input, hints=hints), hints, no_tick)
            patch.setattr(compare, "_RANGES", window)
            found = differing_ranges(contents.disk("d"), raw_, no_tick)
            sides = stream_side(contents), image_side("d", raw_)
            (whole,) = compare_sides(*sides, CompareOptions(), no_tick).disks
    there = range(min(len(disk), len(image)) // 512)
    expected = {at for at in there if sent[at] and sector(disk, at) != sector(image, at)}
    assert {at for low, high in found for at in range(low // 512, high // 512)} == expected
    ours = bytes(disk).ljust(max(len(disk), len(image)), b"\0")
    theirs = bytes(image).ljust(len(ours), b"\0")
    every = {
        at
        for at in range(len(ours) // 512)
        if (at >= len(sent) or sent[at]) and sector(ours, at) != sector(theirs, at)
    }
    assert {at for low, high in whole.differing for at in range(low // 512, high // 512)} == every
    gone = {at for low, high in whole.missing[0] for at in range(low // 512, high // 512)}
    assert gone == {at for at, came in enumerate(sent) if not came}
    assert not whole.missing[1]


@pytest.mark.parametrize("sizes", [{"d": 2 * MIB}, {}])
def test_what_a_larger_device_holds_behind_the_disk_does_not_count(
    sizes: dict[str | None, int], tmp_path: Path
) -> None:
    stream = put(tmp_path, TWO, "s.bin")
    path = put(tmp_path, bytes([7]) * MIB + bytes(MIB) + b"other data" * 1000, "lv")
    hints, strict = Hints(sizes), CompareOptions(strict=True)
    with open_stream(str(stream)) as opened:
        contents = read_contents(opened, Decoder(opened.input, hints=hints), hints, no_tick)
        for is_file in (True, False):
            fd = os.open(path, os.O_RDONLY)
            device = RawImage(str(path), fd, path.stat().st_size, is_file=is_file)
            with closing(device):
                sides = stream_side(contents), image_side("d", device)
                for pair in (sides, sides[::-1]):
                    assert compare_sides(*pair, strict, no_tick).same is not is_file
                assert not differing_ranges(contents.disk("d"), device, no_tick)


def test_two_disks_of_unknown_sizes_get_one_size(tmp_path: Path) -> None:
    """Each fits into the bounds of the other one."""
    sizes = (2 * MIB, 2 * MIB - 512)
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_stream(str(put(tmp_path, TWO, f"{size}")))) for size in sizes
        ]
        sides = []
        for stream, size in zip(opened, sizes, strict=True):
            contents = read_contents(stream, Decoder(stream.input), Hints(), no_tick)
            side = stream_side(contents)
            disk = side.disks["d"]
            assert isinstance(disk, StreamDisk)
            side.disks["d"], side.bounds["d"] = (
                disk.resized(size),
                SizeBounds(MIB + 512, None, "none"),
            )
            sides.append(side)
        (found,) = compare_sides(sides[0], sides[1], CompareOptions(strict=True), no_tick).disks
    assert found.is_same(CompareOptions(strict=True))


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_validate_compares_as_far_as_the_disk_goes(way: str, run: Run, tmp_path: Path) -> None:
    """The disk's size is that of --device-size, not that of a larger image."""
    stream = put(tmp_path, raw.qemu(filled(0), filled(2048)), "s.bin")
    size = MIB + 4096
    image = put(tmp_path, bytes([7]) * size + b"old data" * MIB, "lv")
    source = stream if way == "file" else f"exec:cat {stream}"
    words = ["validate", source, "--device-size", size, "--image", f"d={image}"]
    outcome = run(*words, "--output", "json")
    assert outcome.status == 0
    assert outcome.report["devices"][0]["size"] == size
    assert outcome.report["devices"][0]["differing"] == []
    content = bytearray(image.read_bytes())
    content[size - 1] ^= 1
    image.write_bytes(content)
    outcome = run(*words, "--output", "json")
    assert outcome.status == 1
    differing = outcome.report["devices"][0]["differing"]
    assert differing == [{"start": size - 512, "length": 512}]


def test_validate_looks_at_the_last_record_of_a_chunk_only(run: Run, tmp_path: Path) -> None:
    stream = put(tmp_path, raw.qemu(filled(0, 1), filled(1024, 2), filled(0, 3)), "s.bin")
    image = put(tmp_path, bytes([3]) * MIB + bytes([2]) * (MIB // 2), "i")
    assert run("validate", stream, "--image", image).status == 0
    image.write_bytes(bytes([3]) * MIB + bytes([2]) * (MIB // 2 - 1) + b"x")
    outcome = run("validate", stream, "--image", image)
    assert outcome.status == 1
    assert "differs in 512 B" in outcome.out


def test_an_image_may_end_inside_of_a_sector(run: Run, tmp_path: Path) -> None:
    """What differs behind the image's end is still listed by the disk's sectors."""
    stream = put(tmp_path, raw.qemu(raw.block(0, 0, "d", bytes(MIB - 512) + b"x" * 512)), "s.bin")
    image = put(tmp_path, bytes(MIB - 1000), "i")
    status, found = compared(run, stream, image, "--device-size", f"d={MIB}")
    (device,) = found["devices"]
    assert status == 1
    assert device["sizes"] == [MIB, MIB - 1000]
    assert device["differing"] == [{"start": MIB - 512, "length": 512}]
    put(tmp_path, bytes(MIB - 200), "i")
    _, found = compared(run, stream, image, "--device-size", f"d={MIB}")
    assert found["devices"][0]["differing"] == [{"start": MIB - 512, "length": 512}]
