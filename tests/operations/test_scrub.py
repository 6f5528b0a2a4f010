"""scrub: nothing but the padding changes, and only where the disk's size is certain."""

from pathlib import Path

import pytest

from tests.conftest import Capture, Run, each_record, fails
from tests.support import raw

SIZE = raw.CHUNK + 1536
TAIL = b"\x11" * 1536
LEAK = b"\x99" * (raw.CHUNK - 1536)
RECORDS = (raw.block(0, 0, rest=b"\x10" * raw.CHUNK), raw.block(2048, 0, rest=TAIL + LEAK))
STREAMS = {
    "container": raw.qemu(*RECORDS),
    "bare": b"".join(RECORDS) + raw.progress(100) + raw.EOS,
    "v2, which states the size": raw.qemu(
        raw.block(0, 0x10, rest=b"\x10" * raw.CHUNK),
        raw.block(2048, 0x70, rest=raw.v2(3) + TAIL + LEAK),
    ),
    "twice": raw.qemu(*RECORDS, RECORDS[1]),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_only_the_padding_changes(run: Run, tmp_path: Path, name: str, way: str) -> None:
    stream, target = tmp_path / "s.bin", tmp_path / "clean.bin"
    stream.write_bytes(STREAMS[name])
    # In a pipe the first data comes before the record that states the size.
    words = [] if name.startswith("v2") and way == "file" else ["--device-size", SIZE]
    source = stream if way == "file" else f"exec:cat {stream}"
    outcome = run("scrub", source, "--to", target, *words)
    assert outcome.status == 0
    assert target.read_bytes() == STREAMS[name].replace(LEAK, bytes(len(LEAK)))
    leaks = STREAMS[name].count(LEAK) * len(LEAK)
    assert f"{leaks:,} of them not zero" in outcome.err
    for path, expected in ((source, True), (target, False)):
        found = run("validate", path, *words, "--output", "json").report["findings"]
        leaked = [finding for finding in found if finding["id"] == "padding-leak"]
        assert bool(leaked) == expected
        assert all(f"{leaks:,} bytes" in finding["message"] for finding in leaked)


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_the_second_of_two_streams(run: Run, tmp_path: Path, way: str) -> None:
    stream, target = tmp_path / "s.bin", tmp_path / "clean.bin"
    both = STREAMS["container"] + STREAMS["twice"]
    stream.write_bytes(both)
    source = stream if way == "file" else f"exec:cat {stream}"
    words = ["--device-size", SIZE, "--stream", 2, "--to", target]
    assert run("scrub", source, *words).status == 0
    assert target.read_bytes() == STREAMS["twice"].replace(LEAK, bytes(len(LEAK)))


@each_record
def test_captures_without_leaks_stay_as_they_are(
    run: Run, capture: Capture, tmp_path: Path
) -> None:
    target = tmp_path / "clean.bin"
    assert run("scrub", capture.path, *capture.hints(), "--to", target, "-q").status == 0
    was, now = capture.data, target.read_bytes()
    assert len(was) == len(now)
    if was != now:
        found = run("validate", capture.path, *capture.hints(), "--output", "json").report[
            "findings"
        ]
        assert "padding-leak" in {finding["id"] for finding in found}


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ([], 3, "specify --device-size"),
        (["--device-size", 512], 1, "check --device-size"),
        (["--device-size", "3M"], 0, ""),
    ],
)
def test_sizes(run: Run, tmp_path: Path, words: list[object], status: int, text: str) -> None:
    stream, target = tmp_path / "s.bin", tmp_path / "clean.bin"
    stream.write_bytes(STREAMS["container"])
    for source in (stream, f"exec:cat {stream}"):
        outcome = run("scrub", source, "--to", target, "-q", *words)
        if status:
            fails(outcome, status, text)
            assert not target.exists()
        else:
            assert target.read_bytes() == STREAMS["container"]
            target.unlink()


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_damage_leaves_no_target(run: Run, tmp_path: Path, way: str) -> None:
    stream, target = tmp_path / "s.bin", tmp_path / "clean.bin"
    stream.write_bytes(STREAMS["container"][:-40])
    source = stream if way == "file" else f"exec:cat {stream}"
    fails(run("scrub", source, "--device-size", SIZE, "--to", target, "-q"), 3, "truncated")
    fails(run("scrub", stream, "--device-size", SIZE, "--to", stream), 2, "are the same file")
    assert [path.name for path in tmp_path.iterdir()] == ["s.bin"]
