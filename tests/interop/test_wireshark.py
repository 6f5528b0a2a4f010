"""docs/blkmig.lua in tshark shows a stream over TCP as our decoder reads it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from blkmig_cli.wire.events import (
    BitmapChunk,
    BitmapEos,
    Block,
    CommandEvent,
    Configuration,
    DeviceState,
    Eof,
    Eos,
    Event,
    Footer,
    Header,
    Progress,
    Ram,
    SectionHeader,
    Undecoded,
    VmDescription,
)
from tests.conftest import MANY_PARTS, MORE, Capture, captures_but
from tests.project.test_docs import script
from tests.support import raw
from tests.support.feed import events, in_file
from tests.support.pcap import pcap
from tests.wire.test_decoder import GOOD
from tests.wire.test_encoding import CONFIGURATIONS, RAMS

Streams = list[tuple[int, int, bytes]]

_PORT = 4444
_LONG = (*MORE, "bitmaps-7.2-with-blocks", "classic-zero-two-drives-pc", "v1-no-bitmaps")
# By name, the cases that are not in a container, which nobody would recognise in a capture.
_CASES = {name: data for name, data in (GOOD | RAMS).items() if data.startswith(raw.HEADER)}
# RAM that is skipped.
_SKIPPED = ("addresses", "addresses and mapped", "huge-pages", "all kinds")


@pytest.fixture(scope="module")
def lua(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("tshark") is None:
        pytest.skip("no tshark is installed")
    path = tmp_path_factory.mktemp("wireshark") / "blkmig.lua"
    path.write_text(script("make_wireshark").document())
    return path


def shown(
    lua: Path, streams: Streams, *, segment: int, passes: int = 1, field: str = "object"
) -> dict[tuple[int, int], list[str]]:
    """Return the values of a field of the dissector's, by ports."""
    capture = lua.with_name("capture.pcap")
    capture.write_bytes(pcap(streams, segment))
    words = ["tshark", "-r", str(capture), "-X", f"lua_script:{lua}", "-T", "fields"]
    words += [
        "-e",
        "tcp.srcport",
        "-e",
        "tcp.dstport",
        "-e",
        f"blkmig.{field}",
        "-E",
        "aggregator=|",
    ]
    done = subprocess.run(
        [*words, *(["-2"] if passes == 2 else [])], capture_output=True, text=True, check=False
    )
    assert "Lua" not in done.stderr, done.stderr
    if "fields aren't valid" in done.stderr and os.geteuid() == 0:
        pytest.skip("this tshark runs no Lua scripts as root")
    assert done.returncode == 0, done.stderr
    found: dict[tuple[int, int], list[str]] = {}
    for line in done.stdout.splitlines():
        source, target, objects = line.split("\t")
        found.setdefault((int(source), int(target)), []).extend(filter(None, objects.split("|")))
    return found


def line(event: Event) -> str:
    match event:
        case Header():
            text = "header"
        case Configuration():
            text = f"configuration {event.machine}"
        case SectionHeader():
            text = f"section {int(event.kind)} {event.section}"
        case Footer():
            text = f"footer {event.id}"
        case CommandEvent():
            text = f"command {event.command}"
        case Block():
            text = f"block {event.sector} {event.flags} {event.device}"
        case Progress():
            text = f"word {event.percent} {event.flags}"
        case Eos():
            text = f"word {event.value >> 9} {event.value & 0x1FF}"
        case BitmapChunk():
            text = f"chunk {event.flags} {event.device}/{event.bitmap}"
        case BitmapEos():
            text = f"chunk {event.flags}"
        case Ram():
            text = f"ram {event.offset_in_block} {event.flags}"
        case DeviceState():
            text = f"state {event.length}"
        case Eof():
            text = "eof"
        case VmDescription():
            text = "description"
        case Undecoded():
            text = "undecoded"
        case _:
            raise AssertionError(event)
    return f"{event.offset} {text}"


def lines(data: bytes) -> list[str]:
    found, error = events(in_file(data), chosen=True)
    assert error is None
    return list(map(line, found))


@captures_but(_LONG, without=MANY_PARTS)  # which take a minute each
def test_captures(lua: Path, capture: Capture) -> None:
    """All that they hold, but for v1's from the first record with bitmaps on."""
    (found,) = shown(lua, [(50000, _PORT, capture.data)], segment=32768).values()
    expected, _ = events(in_file(capture.data))
    if capture.truth["dialect"] == "v1" and capture.truth["bitmaps"]:
        end = next(
            at for at, event in enumerate(expected) if isinstance(event, Block) and event.bitmaps
        )
        assert all(text.endswith("undecoded") for text in found[end:])
        assert found[end].split()[0] == str(expected[end].offset)
        found, expected = found[:end], expected[:end]
    assert found == list(map(line, expected))


@pytest.mark.parametrize(
    ("segment", "passes"),
    [(9000, 1), *(pytest.param(*more, marks=pytest.mark.long) for more in ((65000, 2), (11, 1)))],
)
def test_all_that_is_accepted(lua: Path, segment: int, passes: int) -> None:
    """Each as a connection of its own, in segments of that length; small ones if these are short."""
    cases = {
        50000 + number: (name, data)
        for number, (name, data) in enumerate(_CASES.items())
        if segment > 1000 or len(data) < 1000
    }
    streams = [(port, _PORT, data) for port, (_, data) in cases.items()]
    found = shown(lua, streams, segment=segment, passes=passes)
    assert len(found) == len(cases) > 10
    for port, (name, data) in cases.items():
        objects = found[port, _PORT]
        if name in _SKIPPED:
            start = int(objects[-3].split()[0])
            assert objects[-3:] == [
                f"{start} state {len(data) - 6 - start}",
                f"{len(data) - 6} footer 2",
                f"{len(data) - 1} eof",
            ]
        elif name == "trailing-bytes":
            assert objects[-1].endswith("undecoded")
        else:
            assert objects == lines(data), name


def test_configurations(lua: Path) -> None:
    """Subsections are objects of their own."""
    heads = {
        name: raw.HEADER + raw.configuration() + parts for name, parts in CONFIGURATIONS.items()
    }
    streams = [(50000 + at, _PORT, head + raw.EOF) for at, head in enumerate(heads.values())]
    found = shown(lua, streams, segment=20)
    for at, (name, head) in enumerate(heads.items()):
        objects = found[50000 + at, _PORT]
        assert objects[-1] == f"{len(head)} eof"
        assert [text.split()[2] for text in objects if " subsection " in text] == [
            f"configuration/{part}" for part in _PARTS[name]
        ]


_PARTS = {
    "plain": [],
    "bits": ["target-page-bits"],
    "capabilities": ["capabilities"],
    "no capabilities": ["capabilities"],
    "uuid": ["uuid"],
    "all": ["target-page-bits", "capabilities", "uuid"],
    "in another order": ["uuid", "target-page-bits", "capabilities"],
}


def test_return_path(lua: Path) -> None:
    answer = b"\0\1\0\4\0\0\0\0" + b"\0\2\0\4\0\0\0\1"
    data = GOOD["qemu"]
    found = shown(lua, [(50000, _PORT, data), (_PORT, 50000, answer)], segment=11)
    assert found[50000, _PORT] == lines(data)
    assert found[_PORT, 50000] == ["0 return path 1", "8 return path 2"]


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("bitmap", "alias.name", ["d", "b"]),
        ("v2", "v2_bitmap_head.granularity", ["65536"]),
        ("sizes", "mem_size_entry.length", ["4096", "8192"]),
    ],
)
def test_fields(lua: Path, name: str, field: str, values: list[str]) -> None:
    found = shown(lua, [(50000, _PORT, _CASES[name])], segment=9000, field=field)
    assert found[50000, _PORT] == values
