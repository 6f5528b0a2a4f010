"""``dump``: the JSON objects, the filters, the payloads, and how it ends."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, fails
from tests.support import raw

pytestmark = pytest.mark.usefixtures("engine")

DATA = bytes(range(256)) * 4096
BITS = b"\3".ljust(8, b"\0")
CHUNKS = raw.bitmap_start() + raw.bitmap_bits(0, 2048, BITS) + raw.COMPLETE
RECORDS = [raw.block(0, 0, rest=DATA), raw.block(2048, 8, "e"), raw.progress(50)]
STREAM = raw.qemu(*RECORDS, bitmaps=CHUNKS)


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "s.bin"
    path.write_bytes(STREAM)
    return path


def objects(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_objects(stream: Path, run: Run) -> None:
    found = objects(run("dump", stream, "--output", "jsonl").out)
    assert [(item["type"], item["section"]) for item in found] == [
        ("header", None),
        ("configuration", None),
        ("section-start", "block"),
        ("eos", "block"),
        ("section-footer", "block"),
        ("section-start", "dirty-bitmap"),
        ("bitmap-eos", "dirty-bitmap"),
        ("section-footer", "dirty-bitmap"),
        ("section-part", "block"),
        ("block", "block"),
        ("block", "block"),
        ("progress", "block"),
        ("eos", "block"),
        ("section-footer", "block"),
        ("section-end", "block"),
        ("progress", "block"),
        ("eos", "block"),
        ("section-footer", "block"),
        ("section-end", "dirty-bitmap"),
        ("bitmap-start", "dirty-bitmap"),
        ("bitmap-bits", "dirty-bitmap"),
        ("bitmap-complete", "dirty-bitmap"),
        ("bitmap-eos", "dirty-bitmap"),
        ("section-footer", "dirty-bitmap"),
        ("eof", None),
    ]
    ends = [0] + [item["offset"] + item["length"] for item in found]
    assert [item["offset"] for item in found] == ends[:-1]
    assert ends[-1] == len(STREAM)
    assert found[1]["machine"] == "none"
    assert found[9] == {
        "offset": STREAM.index(RECORDS[0]),
        "length": len(RECORDS[0]),
        "section": "block",
        "type": "block",
        "device": "d",
        "sector": 0,
        "sectors": 2048,
        "flags": ["device-block"],
        "flags-value": 1,
        "data": "payload",
        "bitmaps": [],
    }
    assert (found[10]["data"], found[10]["device"], found[10]["sector"]) == ("zero", "e", 2048)
    assert found[11]["percent"] == 50
    start, bits = found[19], found[20]
    assert (start["device"], start["bitmap"], start["granularity"]) == ("d", "b", 65536)
    assert (bits["device"], bits["bitmap"], bits["sector"], bits["sectors"]) == ("d", "b", 0, 2048)


def test_bitmaps_in_a_block(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "v2"
    bitmaps = raw.v2(2048, ("b", 3, 65536, BITS), ("c", 0, 512, b""))
    path.write_bytes(raw.block(0, 0x60, rest=bitmaps) + raw.EOS)
    block = objects(run("dump", path, "--output", "jsonl").out)[0]
    assert block["data"] == "none"
    keys = ("name", "granularity", "count", "length")
    assert [[item[key] for key in keys] for item in block["bitmaps"]] == [
        ["b", 65536, 131072, 8],
        ["c", 512, 0, 0],
    ]
    path.write_bytes(raw.block(0, 0x28, rest=raw.v1(("b", BITS))) + raw.EOS)
    block = objects(run("dump", path, "--output", "jsonl").out)[0]
    assert [[item[key] for key in keys] for item in block["bitmaps"]] == [["b", None, None, 8]]


def test_json_is_one_document(stream: Path, run: Run) -> None:
    document = run("dump", stream, "--output", "json").json
    assert document["records"] == objects(run("dump", stream, "--output", "jsonl").out)
    empty = run("dump", stream, "--output", "json", "--type", "undecoded").json
    assert empty["records"] == []


FILTERS: dict[str, tuple[list[str], list[str]]] = {
    "device": (["--device", "e"], ["block"]),
    "devices": (["--device", "e", "--device", "d", "--type", "block"], ["block", "block"]),
    "bitmap's device": (
        ["--device", "d"],
        ["block", "bitmap-start", "bitmap-bits", "bitmap-complete"],
    ),
    "type": (["--type", "progress"], ["progress", "progress"]),
    "types": (["--type", "header", "--type", "eof"], ["header", "eof"]),
    "sectors": (["--sectors", "2047-2048"], ["block", "bitmap-bits"]),
    "sectors half-open": (["--sectors", "0-2048", "--type", "block"], ["block"]),
    "sectors beyond": (["--sectors", "2048-5000"], ["block"]),
    "sectors of nothing": (["--sectors", "4096-5000"], []),
    "limit": (["--limit", "3"], ["header", "configuration", "section-start"]),
    "limit of the filtered": (["--limit", "1", "--type", "block"], ["block"]),
    "limit 0": (["--limit", "0"], []),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(stream: Path, run: Run, name: str) -> None:
    words, expected = FILTERS[name]
    outcome = run("dump", stream, "--output", "jsonl", *words)
    assert outcome.status == 0
    assert [item["type"] for item in objects(outcome.out)] == expected
    human = run("dump", stream, *words)
    assert human.status == 0
    if words[0] != "--limit":
        assert len(human.out.splitlines()) == 1 + len(expected)


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        ("sha256", hashlib.sha256(DATA).hexdigest()),
        ("hex", DATA.hex()),
        ("base64", base64.b64encode(DATA).decode()),
    ],
)
@pytest.mark.parametrize("source", ["{}", "exec:cat {}"])
def test_payload(stream: Path, run: Run, payload: str, shown: str, source: str) -> None:
    words = ("--output", "jsonl", "--payload", payload, "--type", "block")
    found = objects(run("dump", source.format(stream), *words).out)
    assert found[0][payload] == shown
    assert payload not in found[1]


def test_payload_none_shows_nothing(stream: Path, run: Run) -> None:
    for item in objects(run("dump", stream, "--output", "jsonl", "--payload", "none").out):
        assert not {"sha256", "hex", "base64"} & set(item)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--sectors", "5"],
        ["--sectors", "a-b"],
        ["--sectors", "9-1"],
        ["--sectors", "0-" + "9" * 5000],
        ["--limit", str(1 << 63)],
        ["--limit", "-1"],
        ["--limit", "x"],
        ["--payload", "all", "--output", "json"],
        ["--payload", "hex"],
        ["--output", "yaml"],
        ["--container", "tar"],
    ],
)
def test_usage_errors(stream: Path, run: Run, words: list[str]) -> None:
    outcome = run("dump", *([stream] if words else []), *words)
    assert outcome.status == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_records_before_the_damage_are_shown(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    cut = len(STREAM) - 3
    path.write_bytes(STREAM[:cut])
    whole = objects(run("dump", path, "--output", "jsonl").out)
    assert whole[-1]["type"] == "bitmap-eos"
    for output in ("human", "json", "jsonl"):
        outcome = run("dump", path, "--output", output)
        assert outcome.status == 3
        assert len(outcome.err.splitlines()) == 1
        assert f"at byte {cut}" in outcome.err
    assert run("dump", path, "--output", "json").json["records"] == whole


def test_limit_spares_the_damaged_rest(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(STREAM[:100])
    assert run("dump", path, "--limit", "2").status == 0


def test_names_are_escaped_for_people(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "hostile"
    record = raw.word(0, 9) + raw.name(b"\x1b]0;x\x07\xff\n")
    path.write_bytes(raw.qemu(record, machine="none\x1b"))
    outcome = run("dump", path)
    assert outcome.status == 0
    assert not {"\x1b", "\x07"} & set(outcome.out)
    assert "\\x1b]0;x\\x07\\xff\\x0a" in outcome.out
    (block,) = objects(run("dump", path, "--output", "jsonl", "--type", "block").out)
    assert block["device"] == "\x1b]0;x\x07\udcff\n"


def ram_stream(parts: int, pages: int) -> bytes:
    """Parts that hold RAM pages, then empty parts."""
    page = (0x1000 | 0x22).to_bytes(8, "big") + b"\0"
    eos = (0x10).to_bytes(8, "big")
    out = raw.HEADER + raw.configuration() + raw.start(2, "ram", 4, eos) + raw.footer(2)
    out += raw.part(2, page * pages + eos) + raw.footer(2)
    for _ in range(parts):
        out += raw.part(2, eos) + raw.footer(2)
    return out + raw.part(2, eos, kind=3) + raw.footer(2) + raw.EOF


def test_ram_is_one_line_unless_all(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(ram_stream(0, 7))
    words = ("dump", path, "--output", "jsonl", "--type", "ram")
    assert [item["records"] for item in objects(run(*words).out)] == [1, 8, 1]
    assert len(objects(run(*words, "--all").out)) == 10


def test_empty_parts_fold_for_people_only(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(ram_stream(1000, 1))
    assert len(run("dump", path).out.splitlines()) < 20
    assert "1,000 empty parts" in run("dump", path).out
    assert len(objects(run("dump", path, "--output", "jsonl").out)) > 3000


@pytest.mark.parametrize("output", ["human", "json", "jsonl"])
def test_a_device_that_the_stream_does_not_have(stream: Path, run: Run, output: str) -> None:
    for words in (["--device", "x"], ["--device", "d", "--device", "x", "--type", "progress"]):
        outcome = run("dump", stream, "--output", output, *words)
        fails(outcome, 2, "no device 'x'; there are the devices 'd', 'e'")
        if output == "json":
            assert json.loads(outcome.out)["records"] == []
    # Of the rest nothing is known.
    assert run("dump", stream, "--device", "x", "--limit", "0").status == 0
    assert run("dump", stream, "--device", "d", "--limit", "1", "--device", "x").status == 0
    stream.write_bytes(STREAM[:-20])
    assert run("dump", stream, "--output", output, "--device", "x").status == 3


def test_no_line_ends_in_blanks(stream: Path, run: Run) -> None:
    for text in run("dump", stream).out.splitlines():
        assert text == text.rstrip()


def test_the_names_of_what_a_configuration_has(run: Run, tmp_path: Path) -> None:
    path, key = tmp_path / "s.bin", raw.name("configuration/target-page-bits")
    bits = b"\x05" + key + (1).to_bytes(4, "big") + (12).to_bytes(4, "big")
    command = b"\x08\0\x03\0\0"
    path.write_bytes(raw.HEADER + raw.configuration("pc") + bits + command + raw.EOF)
    assert run("dump", path, "--spec").out == (
        '{"blkmig-spec": 1}\n'
        '{"type": "header", "version": 3}\n'
        '{"type": "configuration", "machine": "pc", "subsections": '
        '[{"name": "configuration/target-page-bits", "value": 12}]}\n'
        '{"type": "command", "command": "postcopy-advise"}\n'
        '{"type": "eof"}\n'
    )
    lines = [json.loads(line) for line in run("dump", path, "--output", "jsonl").out.splitlines()]
    assert [lines[1]["target-page-bits"], lines[2]["command"]] == [12, "postcopy-advise"]
