"""What QEMU gets wrong, on streams made by hand: for machines without a QEMU."""

import random
import struct
from pathlib import Path
from typing import Any

import pytest

from blkmig_cli.checks.compatibility import Traits, objections, parse_version
from tests.conftest import Run
from tests.support import raw
from tests.support.feed import events, in_file

DATA = b"\x22" * raw.CHUNK
QCOW2 = b"QFI\xfb".ljust(raw.CHUNK, b"\0")


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--device-size", "9M"], "capture again with downtime-limit 0"),
        (
            ["--device-size", "500M"],
            "check --device-size, as progress fits a disk 'd' of 2 to 9.091 MiB",
        ),
        ([], "capture again with downtime-limit 0"),
    ],
)
def test_a_size_that_progress_excludes(
    run: Run, tmp_path: Path, options: list[str], advice: str
) -> None:
    """It makes a capture seem incomplete."""
    path = tmp_path / "s.bin"
    found = findings(run, path, bulk(0, 22, chunks=3), *options)
    assert found["bulk-unfinished"]["message"].endswith(f"; {advice}")
    shown = run("info", path, *options).out
    assert "next: the capture is incomplete" in shown
    assert ("unless --device-size is too large:" in shown) == bool(options)


def findings(run: Run, path: Path, content: bytes, *options: object) -> dict[str, Any]:
    path.write_bytes(content)
    found = run("validate", path, "--output", "json", *options).report["findings"]
    return {finding["id"]: finding for finding in found}


def bulk(*percents: int, chunks: int, device: str = "d") -> bytes:
    """Chunks from the disk's begin, after progress records."""
    records = [raw.progress(percent) for percent in percents]
    return raw.qemu(*records, *(raw.block(n * 2048, 8, device) for n in range(chunks)))


@pytest.mark.parametrize(
    ("percents", "chunks", "size", "expected"),
    [
        ((0, 10, 20), 3, "10M", "bulk-unfinished"),
        ((0, 10, 20), 3, None, "bulk-unfinished"),  # the last chunk of a disk is no 80 percent
        ((0, 33, 66), 3, None, None),
        ((0, 33, 66), 3, "3M", None),
        ((0, 50, 100), 2, "4M", "missing-chunks"),  # an incremental one went on to the end
        ((0, 50, 75), 2, "4M", "missing-chunks"),
        ((0, 49), 2, "4M", "bulk-unfinished"),
        ((), 2, "4M", "missing-chunks"),
    ],
)
def test_abandoned_or_incremental(
    run: Run,
    tmp_path: Path,
    percents: tuple[int, ...],
    chunks: int,
    size: str | None,
    expected: str,
) -> None:
    options = [] if size is None else ["--device-size", size]
    found = findings(run, tmp_path / "s.bin", bulk(*percents, chunks=chunks), *options)
    assert {"bulk-unfinished", "missing-chunks"} & set(found) == ({expected} - {None})
    if "missing-chunks" in found:  # an advice, where the rest may be missing intentionally
        advised = "use --incremental if" in found["missing-chunks"]["message"]
        assert advised == bool(percents)
    words = ["validate", tmp_path / "s.bin", "--output", "json", "--incremental", *options]
    report = run(*words).report
    meant = {finding["id"] for finding in report["findings"]}
    assert ("bulk-unfinished" in meant) == (expected == "bulk-unfinished")
    assert (report["verdict"] == "incomplete") == (expected == "bulk-unfinished")


def test_gaps_before_the_end_of_an_abandoned_capture(run: Run, tmp_path: Path) -> None:
    """What was not reached is the capture's; each gap before it is a fault of its own."""
    chunks = (raw.block(at * 2048, 8) for at in (0, 2, 4, 5))
    content = raw.qemu(raw.progress(0), *chunks, raw.progress(25))
    found = findings(run, tmp_path / "s.bin", content, "--device-size", "20M")
    assert "14 MiB" in found["bulk-unfinished"]["message"]
    assert "bytes 6291456-20971520" in found["bulk-unfinished"]["message"]
    assert "2 MiB" in found["missing-chunks"]["message"]


def test_a_truncated_stream_was_not_abandoned(run: Run, tmp_path: Path) -> None:
    content = bulk(0, 10, chunks=2)[:-60]
    found = findings(run, tmp_path / "s.bin", content, "--device-size", "10M")
    assert "truncated" in found
    assert "bulk-unfinished" not in found


def test_unnamed_and_merged(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.bin"
    one = raw.qemu(raw.block(0, 0, "", DATA))
    assert "several disks?" not in findings(run, path, one)["unnamed-device"]["message"]
    twice = raw.qemu(raw.block(0, 0, "", DATA), raw.block(0, 0, "", DATA))
    assert "several disks?" in findings(run, path, twice)["unnamed-device"]["message"]
    mixed = raw.qemu(raw.block(0, 0, "", QCOW2), raw.block(0, 0, "", DATA))
    found = findings(run, path, mixed)
    assert "merged-devices" in found
    assert "unnamed-device" not in found
    # A disk with a name may hold what it likes.
    named = raw.qemu(raw.block(0, 0, "d", QCOW2), raw.block(0, 0, "d", DATA))
    assert not {"merged-devices", "unnamed-device"} & set(findings(run, path, named))


def wrapped(name: bytes, *, zero: bool) -> bytes:
    """Two records and an end, with a name of over 255 bytes as QEMU writes it."""
    head = bytes([len(name) % 256]) + name
    rest = b"" if zero else DATA
    flags = 9 if zero else 1
    return raw.qemu(raw.word(0, flags) + head + rest, raw.word(2048, flags) + head + rest)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("length", [256, 300, 700])
@pytest.mark.parametrize("letter", [b"n", b"a", b"\xff"])
def test_names_that_wrap(run: Run, tmp_path: Path, letter: bytes, length: int, zero: bool) -> None:
    found = findings(run, tmp_path / "s.bin", wrapped(letter * length, zero=zero))
    assert "name-wrapped" in found
    assert f"{length // 256 * 256} bytes longer" in found["name-wrapped"]["message"]


def test_damage_is_not_taken_for_a_wrapped_name(run: Run, tmp_path: Path) -> None:
    content = bytearray(
        raw.qemu(raw.block(0, 8), raw.block(2048, 0, rest=DATA), raw.block(4096, 8))
    )
    at = content.index(DATA) + len(DATA)
    content[at : at + 8] = b"\xff" * 8
    found = findings(run, tmp_path / "s.bin", bytes(content))
    assert "name-wrapped" not in found


TEXT = b"".join(b"line %5d of a text on a disk\n" % at for at in range(40_000))[: raw.CHUNK]
DISKS = {
    "zeros": bytes(raw.CHUNK),
    "text": TEXT,
    "one letter": b"n" * raw.CHUNK,
    "noise": random.Random(8).randbytes(raw.CHUNK),
}


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("name", [b"n", b"drive-virtio-disk0"])
def test_a_repeated_stretch_is_not_taken_for_a_wrapped_name(disk: str, name: bytes) -> None:
    """As a resumed transfer leaves it, also of a length by which names wrap."""
    records = [raw.word(2048 * at, 1) + raw.name(name) + DISKS[disk] for at in range(3)]
    records.insert(1, raw.word(2048, 9) + raw.name(name))
    data = raw.qemu(*records)
    edges = [data.index(record) for record in records]
    edges += [edge + 9 + len(name) for edge in edges] + [len(data) - 60]
    for edge in edges:
        for length in (256, 1024):
            for before in (0, 3, 100):
                at = max(edge - before, length)
                _, error = events(in_file(data[:at] + data[at - length :]))
                assert "longer than its length byte" not in (error or ""), (at, length)


def test_empty_parts(run: Run, tmp_path: Path) -> None:
    empty = raw.part(1, raw.EOS) + raw.footer(1)
    whole = raw.qemu(raw.block(0, 8))
    at = whole.index(raw.part(1, raw.block(0, 8)))
    few, many = (whole[:at] + empty * number + whole[at:] for number in (999, 1000))
    assert "empty-parts" not in findings(run, tmp_path / "s.bin", few)
    found = findings(run, tmp_path / "s.bin", many)["empty-parts"]
    assert (found["message"], found["offset"]) == ("1,000 empty parts (block)", at)


def test_parts_of_ram_are_not_empty(run: Run, tmp_path: Path) -> None:
    """Those whose payload ends at once are, others are not."""
    page, end = struct.pack(">QB", 0x22, 0), struct.pack(">Q", 0x10)
    size = struct.pack(">Q", 4096 | 4) + raw.name("m") + struct.pack(">Q", 4096)
    head = raw.HEADER + raw.configuration() + raw.start(2, "ram", 4, size + end) + raw.footer(2)
    first = raw.part(2, struct.pack(">Q", 2) + raw.name("m") + b"\0" + end) + raw.footer(2)
    for payload, empty in ((end, True), (page + end, False)):
        parts = (raw.part(2, payload) + raw.footer(2)) * 1000
        found = findings(run, tmp_path / "s.bin", head + first + parts + raw.EOF)
        assert ("empty-parts" in found) == empty


def test_states_that_are_sized_by_their_footers(run: Run, tmp_path: Path) -> None:
    """The place is that of the first one."""
    states = [raw.start(n, f"s{n}", 1, b"abc", kind=4) + raw.footer(n) for n in (3, 4, 5)]
    head = raw.HEADER + raw.configuration()
    data = head + b"".join(states) + raw.EOF
    found = findings(run, tmp_path / "s.bin", data)["resynchronised"]
    assert found["message"] == "the state of 3 sections was sized by its footer"
    assert found["offset"] == len(head + raw.start(3, "s3", 1, kind=4))


@pytest.mark.parametrize(
    ("text", "version"), [("7.2", (7, 2)), ("10.0.3", (10, 0)), ("9", (9, 0)), ("2.12", (2, 12))]
)
def test_versions(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "x", "7.", "7.2.x", "-1", "1.2.3.4", "9999.1"])
def test_no_versions(run: Run, text: str) -> None:
    with pytest.raises(ValueError, match="invalid version of QEMU"):
        parse_version(text)
    assert run("send", "x", "--for-qemu", text).status == 2


def test_what_every_version_objects_to() -> None:
    """From the first QEMU to one yet to come: a feature is missing before its version only."""
    traits = Traits("qemu", "qemu", "pc", ["d"], ["d"], zero_blocks=True, bitmaps=True)
    found = {
        version: list(objections(traits, version))
        for version in [(1, 5), (1, 6), (2, 3), (2, 4), (2, 9), (2, 10), (2, 12), (9, 0), (9, 1)]
    }
    assert [len(found[version]) for version in found] == [3, 2, 2, 1, 1, 2, 1, 1, 1]
    assert "2.12" in found[2, 10][0]
    assert "last chunk" in found[9, 0][0]
    assert "no block section" in found[9, 1][0]
    assert not list(objections(Traits("qemu", "qemu", "none", bitmaps=True), (10, 0)))


def test_progress_that_contradicts_a_complete_disk(run: Run, tmp_path: Path) -> None:
    """Every chunk was sent, and progress stays at 0 after eight of them: a finding of its own."""
    path = tmp_path / "s.bin"
    chunks = b"".join(raw.block(at * 2048, 8) for at in range(8))
    path.write_bytes(raw.qemu(raw.progress(0) + chunks + raw.progress(0)))
    outcome = run("validate", path, "--device-size", "8M", "--output", "json")
    found = {finding["id"] for finding in outcome.report["findings"]}
    assert "progress-contradiction" in found or "bulk-unfinished" in found
    assert outcome.status == 1
    path.write_bytes(raw.qemu(raw.progress(0) + chunks))
    outcome = run("validate", path, "--device-size", "8M", "--output", "json")
    assert "progress-contradiction" in {finding["id"] for finding in outcome.report["findings"]}
    assert (outcome.status, outcome.report["verdict"]) == (1, "faulty")


@pytest.mark.parametrize(
    ("size", "leaks"),
    [(4096, None), (4095, "512 bytes"), (2049, "1,048,064 bytes"), (2048, None)],
)
@pytest.mark.parametrize("early", [True, False])
def test_data_after_the_end_of_a_disk(
    run: Run, tmp_path: Path, size: int, leaks: str | None, early: bool
) -> None:
    """The size in sectors is known before the data, by an option, or after them, by a bitmap."""
    bits = raw.bitmap_start(granularity=512) + raw.bitmap_bits(0, size, bytes(-(-size // 64) * 8))
    records = raw.block(0, 0, rest=DATA), raw.block(2048, 0, rest=DATA)
    data = raw.qemu(*records, bitmaps=None if early else bits + raw.COMPLETE)
    options = ["--device-size", size * 512] if early else []
    found = findings(run, tmp_path / "s.bin", data, *options)
    assert ("partial-tail" in found) == (leaks is not None)
    assert ("sector-past-end" in found) == (size == 2048)
    if size == 2048 and early:
        leaks = "1,048,576 bytes"
    assert ("padding-leak" in found) == (leaks is not None)
    assert leaks is None or found["padding-leak"]["message"].startswith(leaks)


def test_many_chunks_after_the_end_of_a_disk(run: Run, tmp_path: Path) -> None:
    """Each of a run is counted."""
    data = raw.qemu(*(raw.block(at * 2048, 0, rest=DATA) for at in range(40)))
    found = findings(run, tmp_path / "s.bin", data, "--device-size", "1M")
    assert found["padding-leak"]["message"].startswith(f"{39 << 20:,} bytes")


def test_the_last_of_many_chunks_is_cut(run: Run, tmp_path: Path) -> None:
    """Its disk's size is known only after them."""
    size = 39 * 2048 + 1
    bits = raw.bitmap_start(granularity=1 << 20) + raw.bitmap_bits(0, size, bytes(8))
    records = [raw.block(at * 2048, 0, rest=DATA) for at in range(40)]
    data = raw.qemu(*records, bitmaps=bits + raw.COMPLETE)
    found = findings(run, tmp_path / "s.bin", data)
    assert (
        found["partial-tail"]["offset"] == found["padding-leak"]["offset"] == data.find(records[39])
    )
