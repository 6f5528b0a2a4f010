"""``map``: extents cover the disk without gaps and agree with the stream; cells agree with the extents."""

import io
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from blkmig_cli.checks.survey import read_contents
from blkmig_cli.contents.final_layout import EndState, Stretch
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.errors import StreamError
from blkmig_cli.operations.map import (
    KINDS,
    bitmap_cells,
    cell_edges,
    coverage,
    map_disks,
)
from blkmig_cli.output.human.console import console
from blkmig_cli.output.human.map import map_text
from blkmig_cli.progress import no_tick
from blkmig_cli.schemas.constants import BlockFlag
from blkmig_cli.transport.inputs import FileInput
from blkmig_cli.transport.source import Stream, open_stream
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block, Payload
from blkmig_cli.wire.hints import Hints
from tests.conftest import Capture, Run, each_event, fails
from tests.support import raw
from tests.support.feed import in_file
from tests.support.long import examples
from tests.support.strategies import Repetitive, repetitive

MIB = 1 << 20
SVG = "{http://www.w3.org/2000/svg}"


def put(folder: Path, content: bytes, name: str = "s.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def filled(sector: int, device: str = "d", byte: int = 7) -> bytes:
    return raw.block(sector, 0, device, bytes([byte]) * MIB)


#: 0: data, 1: zeros, 2: not sent, 3: data twice, 4: zeros twice.
ALL_KINDS = raw.qemu(
    filled(0), raw.block(2048, 8), filled(6144), filled(6144, byte=8), raw.block(8192, 8),
    raw.block(8192, 8),
)  # fmt: skip


def test_every_kind(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, ALL_KINDS)
    (device,) = run("map", path, "--device-size=6M", "--output", "json").json["devices"]
    keys = ("start", "length", "present", "zero", "data", "repeated")
    found = [tuple(extent[key] for key in keys) for extent in device["extents"]]
    assert found == [
        (0, MIB, True, False, True, False),
        (MIB, MIB, True, True, False, False),
        (2 * MIB, MIB, False, False, False, False),
        (3 * MIB, MIB, True, False, True, True),
        (4 * MIB, MIB, True, True, False, True),
        (5 * MIB, MIB, False, False, False, False),
    ]
    content = path.read_bytes()
    for extent in device["extents"]:
        if extent["data"]:
            byte = 8 if extent["repeated"] else 7
            assert content[extent["offset"] :][:MIB] == bytes([byte]) * MIB
    out = run("map", path, "--device-size=6M").out
    (row,) = [line for line in out.splitlines() if line.startswith("  disk")]
    signs = row.split()[1]
    assert [signs[len(signs) * at // 12] for at in range(1, 12, 2)] == list("█░?▒░?")
    for meaning in KINDS.values():
        assert meaning in out


def test_ranges(run: Run, tmp_path: Path) -> None:
    """Neighbours of one kind are one range, wherever their data is."""
    path = put(tmp_path, ALL_KINDS.replace(raw.block(2048, 8), filled(2048)))
    heading, *lines = run("map", path, "--device-size=6M", "--ranges").out.splitlines()
    assert heading.split() == ["START", "LENGTH", "KIND", "DISK"]
    assert [tuple(line.split()) for line in lines] == [
        ("0", f"{2 * MIB}", "data", "d"),
        (f"{2 * MIB}", f"{MIB}", "missing", "d"),
        (f"{3 * MIB}", f"{MIB}", "data,repeated", "d"),
        (f"{4 * MIB}", f"{MIB}", "zero,repeated", "d"),
        (f"{5 * MIB}", f"{MIB}", "missing", "d"),
    ]
    totals = run("map", path, "--device-size=6M", "--totals").out.splitlines()
    assert [line.split() for line in totals[1:]] == [
        ["d", "missing", "2", "MiB", f"{2 * MIB}", "33.33", "%"],
        ["d", "repeated", "1", "MiB", f"{MIB}", "16.67", "%"],
        ["d", "data", "2", "MiB", f"{2 * MIB}", "33.33", "%"],
        ["d", "zero", "1", "MiB", f"{MIB}", "16.67", "%"],
    ]
    for words in (["--ranges", "--totals"], ["--ranges", "--output", "json"]):
        fails(run("map", path, *words), 2, "exclude each other")


def test_a_disk_whose_end_is_unknown(run: Run, tmp_path: Path) -> None:
    """What was sent is not all of it, in every form for people, unless the bounds allow no more."""
    path = put(tmp_path, raw.qemu(filled(0), filled(2048)))
    assert run("map", path).out.splitlines()[-2:] == [
        "  █ data 2 MiB",
        "  the size of the disk is unknown: it may continue after 2 MiB",
    ]
    assert run("map", path, "--totals").out.splitlines()[1:] == [
        "d     data     2 MiB  2097152  100.00 %",
        "d     unknown",
    ]
    ranges = run("map", path, "--ranges")
    assert ranges.out.splitlines()[1:] == ["      0  2097152  data           d"]
    assert ranges.err == (
        "blkmig: warning: size of 'd' is unknown: it may continue after byte 2097152\n"
    )
    known = [
        run("map", path, "--device-size=2M", *more) for more in ([], ["--totals"], ["--ranges"])
    ]
    assert not any("unknown" in done.out + done.err for done in known)


def test_an_unfinished_capture(run: Run) -> None:
    path = Path(__file__).parents[1] / "captures" / "classic-incomplete.bin.gz"
    assert run("map", path).out.splitlines()[-2:] == [
        "  ? not sent 55.24 MiB   █ data 33 MiB",
        "  the size of the disk is unknown: it may continue after 88.24 MiB",
    ]
    assert run("map", path, "--totals").out.splitlines()[-1] == ("drive0  unknown  up to 8.734 MiB")


@each_event
def test_ranges_and_totals_of_captures(capture: Capture, run: Run) -> None:
    """They say what the JSON says."""
    devices = run("map", capture.path, *capture.hints(), "--output", "json").json["devices"]
    expected = [
        (f"{device['name']}/{bitmap['name']}", item["start"], item["length"])
        for device in devices
        for bitmap in device["bitmaps"]
        for item in bitmap["dirty"]
    ]
    sizes = {d["name"]: sum(extent["length"] for extent in d["extents"]) for d in devices}
    lines = run("map", capture.path, *capture.hints(), "--ranges").out.splitlines()[1:]
    at = dict.fromkeys(sizes, 0)
    found: list[tuple[str, int, int]] = []
    for start, length, kind, name in map(str.split, lines):
        if kind == "dirty":
            found.append((name, int(start), int(length)))
        else:
            assert int(start) == at[name]
            at[name] += int(length)
    assert found == expected
    assert at == sizes
    totals = run("map", capture.path, *capture.hints(), "--totals").out.splitlines()[1:]
    for name, size in sizes.items():
        rows = [line.split() for line in totals if line.split()[0] == name]
        assert sum(int(row[-3]) for row in rows) == size


def test_captures(capture: Capture, run: Run) -> None:
    found = run("map", capture.path, *capture.hints(), "--output", "json").json
    for device in found["devices"]:
        truth = capture.truth["devices"][device["name"]]
        at = 0
        with open_stream(str(capture.path)) as stream:
            assert isinstance(stream.input, FileInput)
            for extent in device["extents"]:
                assert extent["start"] == at
                at += extent["length"]
                assert (extent["present"], extent["zero"] or extent["data"]).count(True) in (0, 2)
                if extent["data"]:
                    view = stream.input.view  # it begins where a chunk's data do
                    assert len(view(_first(extent))) == min(extent["length"], 512)
        assert not device["extents"] or at == truth["size"]
    unseen = {(bitmap["device"], bitmap["name"]): bitmap for bitmap in capture.truth["bitmaps"]}
    for device in found["devices"]:
        for bitmap in device["bitmaps"]:
            expected = unseen.pop((device["name"], bitmap["name"]))
            assert bitmap["granularity"] == expected["granularity"]
            total = sum(item["length"] for item in bitmap["dirty"])
            assert total == expected.get("count", total)
    assert not unseen
    assert run("map", capture.path, *capture.hints()).status == 0


def _first(extent: dict[str, int]) -> Payload:
    return Payload(extent["offset"], min(extent["length"], 512))


@pytest.mark.scaled
@settings(max_examples=examples(8, 200))
@given(repetitive())
def test_extents_agree_with_the_records(made: Repetitive) -> None:
    source = in_file(made.data)
    expected: dict[str, dict[int, tuple[str, int | None]]] = {}
    again: dict[str, set[int]] = {}
    decoder = Decoder(in_file(made.data), hints=made.hints)
    try:
        for event in decoder:
            if isinstance(event, Block) and (event.data or event.flags & BlockFlag.ZERO_BLOCK):
                table = expected.setdefault(event.device, {})
                first = -(-event.sector // 128) * 128
                for sector in range(first, event.sector + event.sectors, 128):
                    if sector in table:
                        again.setdefault(event.device, set()).add(sector)
                    place = None
                    if event.data is not None:
                        place = event.data.offset + (sector - event.sector) * 512
                    table[sector] = ("data" if event.data else "zero", place)
    except StreamError:
        pass
    contents = read_contents(
        Stream("s", source), Decoder(source, hints=made.hints), made.hints, no_tick
    )
    for disk in map_disks(contents):
        assert all(first.end == after.start for first, after in pairwise(disk.extents))
        if not disk.extents:
            continue
        first, *_, last = [*disk.extents] * 2
        assert (first.start, last.end) == (0, disk.size)
        table, twice = expected[disk.verdict.disk.name], again.get(disk.verdict.disk.name, set())
        for sector, (kind, place) in table.items():
            if sector * 512 >= disk.size:
                continue
            (extent,) = [e for e in disk.extents if e.start <= sector * 512 < e.end]
            assert extent.kind == kind
            assert extent.repeated == (sector in twice)
            if place is not None and extent.offset is not None:
                chunk, inside = divmod(sector * 512 - extent.start, MIB)
                assert extent.offset + chunk * (extent.stride or 0) + inside == place
        for cells in (disk.cells(7), disk.cells(80)):
            edges = [512 * edge for edge in cell_edges(disk.size, len(cells)).tolist()]
            for cell, (low, high) in zip(cells, pairwise(edges), strict=True):
                inside_it = {
                    "repeated" if e.repeated and e.kind == "data" else e.kind
                    for e in disk.extents
                    if e.start < high and low < e.end
                }
                assert cell == next(kind for kind in KINDS if kind in inside_it)


@given(
    st.lists(st.integers(0, 500), min_size=2, max_size=20, unique=True),
    st.integers(1, 50),
)
def test_coverage(points: list[int], number: int) -> None:
    points = sorted(points)[: len(points) // 2 * 2]
    ranges = np.array(points, np.int64).reshape(-1, 2)
    edges = np.array(sorted({500 * at // number for at in range(number + 1)}), np.int64)
    held = {byte for low, high in ranges.tolist() for byte in range(low, high)}
    expected = [len(held & set(range(low, high))) for low, high in pairwise(edges.tolist())]
    assert coverage(ranges, edges).tolist() == expected


def test_cells_of_bitmaps() -> None:
    bitmap = DirtyBitmap("b", 65536)
    bitmap.set_range(0, 131072)
    bitmap.set_range(262144, 65536)
    assert bitmap_cells(bitmap, 524288, 4) == ["dirty", "clean", "partly", "clean"]
    assert bitmap_cells(bitmap, 131072 + 512, 2) == ["dirty", "partly"]


def test_the_largest_disk(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(raw.block(0, 8), raw.block((1 << 54) - 2048, 8)))
    assert "not sent 8 EiB" in run("map", path, "--svg", tmp_path / "svg").out


def test_a_run_of_chunks_is_one_extent(tmp_path: Path) -> None:
    """So that 1 TiB of them costs no more than 1 MiB."""
    path = put(tmp_path, raw.qemu(*[filled(2048 * at) for at in range(9)]))
    with open_stream(str(path)) as stream:
        decoder = Decoder(stream.input)
        contents = read_contents(stream, decoder, Hints(), no_tick)
        (disk,) = map_disks(contents)
    (extent,) = [e for e in disk.extents if e.kind == "data"]
    assert (extent.end, extent.stride) == (9 * MIB, MIB + 10)


def test_svg(run: Run, tmp_path: Path) -> None:
    hostile = '</text><script>&"\x1b\x80'
    path, svg = put(tmp_path, raw.qemu(filled(0, hostile), filled(0, "e"))), tmp_path / "m.svg"
    assert run("map", path, "--svg", svg, "-q").status == 0
    root = ET.fromstring(svg.read_text())
    assert root.tag == f"{SVG}svg"
    assert not list(root.iter(f"{SVG}script"))
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert any(text.startswith('</text><script>&"\\x1b\\x80, at least 512 B') for text in texts)
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert "data: 0 B to 1 MiB" in titles
    fails(run("map", path, "--svg", path), 2, "are the same file")


def test_devices(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(filled(0), filled(0, "e")))
    found = run("map", path, "--device", "e", "--output", "json").json
    assert [device["name"] for device in found["devices"]] == ["e"]
    fails(run("map", path, "--device", "f"), 2, "no device 'f'; there are the devices 'd', 'e'")


def test_damaged(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(filled(0), filled(2048))[: -MIB // 2])
    outcome = run("map", path)
    start = path.read_bytes().index(raw.block(2048, 0))
    text = f"stream truncated at byte {path.stat().st_size}, inside the record at byte {start}"
    fails(outcome, 3, f"{text} (section 'block')\n")
    assert "data 1 MiB" in outcome.out
    piped = run("map", f"exec:cat {path}", "--output", "json")
    assert piped.status == 3
    assert [extent["data"] for extent in piped.json["devices"][0]["extents"]] == [True]


def test_plain_signs(tmp_path: Path) -> None:
    path = put(tmp_path, ALL_KINDS)
    with open_stream(str(path)) as stream:
        contents = read_contents(stream, Decoder(stream.input), Hints(), no_tick)
    target = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    map_text(map_disks(contents), console(target))
    target.flush()
    text = target.buffer.getvalue().decode("ascii")
    assert "# data" in text
    assert "? not sent" in text


def test_state_remembers_what_came_again() -> None:
    state = EndState()
    state.put(Stretch(0, 4096))
    state.put(Stretch(2048, 6144))
    assert list(state.repeated) == [(2048, 4096)]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_fits_the_terminal(width: int, capture: Capture) -> None:
    with open_stream(str(capture.path)) as stream:
        decoder = Decoder(stream.input, hints=Hints())
        contents = read_contents(stream, decoder, Hints(), no_tick)
    target = io.StringIO()
    map_text(map_disks(contents), Console(file=target, width=width, force_terminal=False))
    rows = [line for line in target.getvalue().splitlines() if not line.startswith("  █ data")]
    assert all(len(line) <= width for line in rows)


def test_extents_of_a_chain_have_no_place_in_a_stream(run: Run, tmp_path: Path) -> None:
    disk, base, last = tmp_path / "d.img", tmp_path / "0.bin", tmp_path / "1.bin"
    bitmap = DirtyBitmap("b", 65536)
    bitmap.set_range(MIB, 2 * MIB)
    disk.write_bytes(b"\1" * MIB * 4)
    assert run("send", disk, "--to", base).status == 0
    write_bitmaps(tmp_path / "b.json", BitmapFile(4 * MIB, {"b": bitmap}))
    words = ["--since", "b", "--bitmaps-from", tmp_path / "b.json", "--base", base]
    assert run("send", disk, *words, "--to", last).status == 0
    for options, placed in (([], True), (["--base", base], False)):
        (found,) = run("map", last, *options, "--output", "json").json["devices"]
        data = [extent for extent in found["extents"] if extent["data"]]
        assert sum(extent["length"] for extent in data) == (2 if placed else 4) * MIB
        assert all(("offset" in extent) == ("stride" in extent) == placed for extent in data)


def test_the_text_of_a_map(run: Run, tmp_path: Path) -> None:
    bits = raw.bitmap_start() + raw.bitmap_bits(0, 8192, b"\3".ljust(8, b"\0")) + raw.COMPLETE
    path = put(tmp_path, raw.qemu(filled(0), raw.block(2048, 8), bitmaps=bits))
    assert run("map", path, "--device-size", "4M").out == (
        "d, 4 MiB\n"
        "  disk  ██████████████████░░░░░░░░░░░░░░░░░????????????????????????????????????\n"
        "  b     ██▄····································································\n"
        "        0                1 MiB             2 MiB             3 MiB        4 MiB\n"
        "  ? not sent 2 MiB   █ data 1 MiB   ░ zeros 1 MiB\n"
        "  █ dirty   ▄ partly dirty   · clean\n"
    )
