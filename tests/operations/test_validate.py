"""``validate``: its verdicts, its options, and every exit status of the contract."""

import gzip
from pathlib import Path

import pytest

from blkmig_cli import limits
from blkmig_cli.checks.catalogue import CHECKS
from tests.conftest import Outcome, Run, fails
from tests.support import raw

pytestmark = pytest.mark.usefixtures("engine")

MIB = 1 << 20
ZERO = raw.qemu(raw.block(0, 8))
BITS = raw.bitmap_bits(0, 2048, b"\3".ljust(8, b"\0"))
WHOLE = raw.qemu(raw.block(0, 8), bitmaps=raw.bitmap_start() + BITS + raw.COMPLETE)
CUT = WHOLE[:-8]


def filled(byte: int) -> bytes:
    return bytes([byte]) * MIB


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """A stream whose one disk of 1 MiB and one bitmap are whole."""
    path = tmp_path / "whole.bin"
    path.write_bytes(WHOLE)
    return path


def put(folder: Path, data: bytes, name: str = "s.bin") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def ids(outcome: Outcome) -> list[str]:
    return [finding["id"] for finding in outcome.report["findings"]]


def test_the_document(stream: Path, run: Run) -> None:
    outcome = run("validate", stream, "--output", "json")
    assert outcome.status == 0
    assert outcome.err == ""
    assert outcome.json == {
        "version": 1,
        "passed-over": 0,
        "streams": [
            {
                "stream": str(stream),
                "dialect": "qemu",
                "container": "qemu",
                "verdict": "whole",
                "valid": True,
                "complete": True,
                "identity": None,
                "devices": [
                    {
                        "name": "d",
                        "chunks": 1,
                        "zero-chunks": 1,
                        "repeated-chunks": 0,
                        "missing": [],
                        "size": MIB,
                        "inferred-size": {"min": MIB, "max": MIB},
                    }
                ],
                "bitmaps": [
                    {
                        "device": "d",
                        "name": "b",
                        "granularity": 65536,
                        "candidates": [65536],
                        "recording": True,
                        "persistent": False,
                        "count": 131072,
                        "complete": True,
                        "dirty": [{"start": 0, "length": 131072}],
                        "dirty-omitted": 0,
                    }
                ],
                "findings": [],
            }
        ],
    }


def test_dirty_ranges_are_bounded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all bitmaps of a stream, and in their number; cut at the disk's end."""
    bits = {"a": 0x8005, "b": 0b1011011, "c": 0b1, "d": 0b11}
    sections = b"".join(
        raw.bitmap_start(bitmap=name)
        + raw.bitmap_bits(0, 2047, word.to_bytes(8, "little"))
        + raw.COMPLETE
        for name, word in bits.items()
    )
    stream = put(tmp_path, raw.qemu(raw.block(0, 8), bitmaps=sections))
    first = run("validate", stream, "--output", "json").report["bitmaps"][0]
    assert first["dirty"][2] == {"start": 15 * 65536, "length": 65536 - 512}
    assert first["count"] == 3 * 65536 - 512

    def listed() -> list[tuple[int | None, int | None]]:
        found = run("validate", stream, "--output", "json").report["bitmaps"]
        lists = [(one["dirty"], one["dirty-omitted"]) for one in found]
        return [(None if dirty is None else len(dirty), left) for dirty, left in lists]

    assert listed() == [(3, 0), (3, 0), (1, 0), (1, 0)]
    monkeypatch.setattr(limits, "DIRTY_RANGES_MAX", 5)
    assert listed() == [(3, 0), (2, 1), (0, 1), (0, 1)]
    monkeypatch.setattr(limits, "SHOWN_MAX", 3)
    assert listed() == [(3, 0), (2, 1), (0, 1), (None, None)]


def test_human_says_whole(stream: Path, run: Run) -> None:
    outcome = run("validate", stream)
    assert outcome.status == 0
    assert "whole" in outcome.out
    assert "incomplete" not in outcome.out
    assert "\x1b" not in outcome.out


def test_unknown_size_is_a_warning(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, ZERO)
    outcome = run("validate", path, "--output", "json")
    assert outcome.status == 0
    assert outcome.report["complete"] is None
    assert ids(outcome) == ["completeness-unknown"]
    assert outcome.report["findings"][0]["severity"] == "warning"
    assert run("validate", path, "--strict").status == 1
    assert run("validate", path, "--strict", "--ignore", "completeness-unknown").status == 0
    assert run("validate", path, "--strict", "--device-size", "1M").status == 0


def test_missing_chunks(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(raw.block(0, 8), raw.block(4096, 8)))
    outcome = run("validate", path, "--output", "json", "--device-size", "d=4M")
    assert outcome.status == 1
    assert outcome.report["complete"] is False
    assert outcome.report["valid"] is False
    assert outcome.report["devices"][0]["missing"] == [
        {"start": MIB, "length": MIB},
        {"start": 3 * MIB, "length": MIB},
    ]
    assert ids(outcome) == ["missing-chunks"]
    assert outcome.report["findings"][0]["device"] == "d"
    assert "was not sent" in run("validate", path, "--device-size", "4M").out
    assert run("validate", path, "--device-size", "4M", "--ignore", "missing-chunks").status == 0


@pytest.mark.parametrize(
    ("words", "cell"),
    [
        ([], "at least 1 MiB"),
        (["--device-size", "3M"], "1 MiB"),
        (["--incremental"], "in the base"),
    ],
)
def test_how_much_is_missing(run: Run, tmp_path: Path, words: list[str], cell: str) -> None:
    gap = put(tmp_path, raw.qemu(raw.block(0, 8), raw.block(4096, 8)))
    row = run("validate", gap, *words).out.splitlines()[2]
    assert row.endswith(f"       2     2         0  {cell:>7}")


def test_an_unfinished_capture_is_no_increment(run: Run) -> None:
    path = Path(__file__).parents[1] / "captures" / "classic-incomplete.bin.gz"
    row = run("validate", path, "--incremental").out.splitlines()[2]
    assert row == "drive0  88.24 to 96.97 MiB      33     0         0  at least 55.24 MiB"


def test_what_is_missing_is_unknown(run: Run, tmp_path: Path) -> None:
    """Where the size is unknown, or only other disks are known to be larger."""
    path = put(tmp_path, raw.qemu(raw.block(0, 8)))
    out = run("validate", path).out.splitlines()
    assert out[1:3] == [
        "DISK            SIZE  CHUNKS  ZERO  REPEATED  MISSING",
        "d     at least 512 B       1     1         0  unknown",
    ]
    assert out[3] == (
        "warning: the size of 'd' is unknown (at least 512 B); specify --device-size "
        "[completeness-unknown]"
    )
    assert run("validate", path, "--device-size", "1M").out.splitlines()[2].endswith("      0 B")


def test_what_progress_shows_is_not_of_a_disk_that_it_does_not_fit(
    run: Run, tmp_path: Path
) -> None:
    """The capture has two disks, of 48 MiB and 5.012 MiB; it is cut off before the second one."""
    capture = Path(__file__).parents[1] / "captures" / "bitmaps-7.2-with-blocks.bin.gz"
    path = put(tmp_path, gzip.decompress(capture.read_bytes())[:20_000_000])
    report = run("validate", path, "--output", "json").report
    (disk, _) = report["devices"]
    assert disk["missing"] == [{"start": 16 * MIB, "length": 13 * MIB}]
    found = [finding for finding in report["findings"] if finding["id"] == "missing-chunks"]
    assert [(finding["device"], finding["message"]) for finding in found] == [
        ("drive0", "at least 13 MiB was not sent: bytes 16777216-30408704"),
        (None, "progress shows that at least 16.39 MiB more was not sent"),
    ]
    row = run("validate", path).out.splitlines()[2]
    assert row == "drive0  at least 31 MiB      19     0         0  at least 13 MiB"


def test_ranges_that_a_message_does_not_list(run: Run, tmp_path: Path) -> None:
    for chunks, more in ((4, ""), (5, " and 1 more range"), (6, " and 2 more ranges")):
        path = put(tmp_path, raw.qemu(*(raw.block(4096 * at, 8) for at in range(chunks))))
        shown = ", ".join(f"{at * MIB}-{(at + 1) * MIB}" for at in (1, 3, 5))
        assert f"was not sent: bytes {shown}{more} (device d)" in run("validate", path).out


def test_incremental_accepts_missing_chunks(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(raw.block(4096, 8)))
    words = ("validate", path, "--device-size", "4M", "--output", "json")
    assert run(*words).status == 1
    outcome = run(*words, "--incremental")
    assert outcome.status == 0
    assert outcome.report["complete"] is True
    assert ids(outcome) == ["incremental"]


def test_a_gap_is_found_without_hints(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(raw.block(0, 8), raw.block(4096, 8)))
    outcome = run("validate", path, "--output", "json")
    assert outcome.status == 1
    assert outcome.report["devices"][0]["missing"] == [{"start": MIB, "length": MIB}]


def test_chunks_are_counted(run: Run, tmp_path: Path) -> None:
    data = raw.block(2048, 0, rest=filled(1))
    path = put(tmp_path, raw.qemu(raw.block(0, 8), data, data, raw.block(0, 8, device="e")))
    devices = run("validate", path, "--output", "json").report["devices"]
    counts = [
        (d["name"], d["chunks"], d["zero-chunks"], d["repeated-chunks"], d["missing"])
        for d in devices
    ]
    assert counts == [("d", 3, 1, 1, []), ("e", 1, 1, 0, [])]


def test_sector_past_the_end(run: Run, tmp_path: Path) -> None:
    data = raw.qemu(raw.block(0, 8), raw.block(2048, 8))
    path = put(tmp_path, data)
    outcome = run("validate", path, "--output", "json", "--device-size", "1M")
    assert outcome.status == 1
    (finding,) = outcome.report["findings"]
    assert finding["id"] == "sector-past-end"
    assert finding["offset"] == data.index(raw.block(2048, 8))
    assert run("validate", path, "--device-size", "1049088").status == 0


def test_unfinished_block_section(run: Run, tmp_path: Path) -> None:
    data = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.block(0, 8) + raw.EOS)
    path = put(tmp_path, data + raw.footer(1) + raw.EOF)
    outcome = run("validate", path, "--output", "json", "--device-size", "1M")
    assert outcome.status == 1
    assert outcome.report["complete"] is False
    assert "section-unfinished" in ids(outcome)


def test_missing_final_progress(run: Run, tmp_path: Path) -> None:
    data = raw.qemu(raw.block(0, 8)).replace(raw.progress(100), raw.progress(99))
    outcome = run("validate", put(tmp_path, data), "--output", "json", "--device-size", "1M")
    assert outcome.status == 0
    assert ids(outcome) == ["no-final-progress"]


def test_progress_over_100(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(raw.block(0, 8), raw.progress(101)))
    outcome = run("validate", path, "--output", "json", "--device-size", "1M")
    assert "progress-range" in ids(outcome)


def test_a_stream_without_records(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.HEADER + raw.configuration() + raw.EOF)
    assert ids(run("validate", path, "--output", "json")) == ["nothing-here"]


@pytest.mark.parametrize("chunks", [raw.bitmap_start() + BITS, raw.bitmap_start()])
def test_a_bitmap_that_never_ended(run: Run, tmp_path: Path, chunks: bytes) -> None:
    outcome = run("validate", put(tmp_path, raw.qemu(bitmaps=chunks)), "--output", "json")
    assert outcome.status == 1
    assert "bitmap-incomplete" in ids(outcome)
    assert outcome.report["complete"] is False
    assert outcome.report["bitmaps"][0]["complete"] is False


def test_bits_past_the_disks_end(run: Run, tmp_path: Path) -> None:
    far = raw.bitmap_bits(0, 128, b"\2".ljust(8, b"\0"))
    data = raw.qemu(bitmaps=raw.bitmap_start() + far + raw.COMPLETE)
    outcome = run("validate", put(tmp_path, data), "--output", "json", "--device-size", "64k")
    assert "bitmap-past-end" in ids(outcome)


def test_truncation_is_a_finding_and_an_error(run: Run, tmp_path: Path) -> None:
    outcome = run("validate", put(tmp_path, CUT), "--output", "json")
    assert outcome.status == 3
    assert outcome.report["valid"] is False
    assert outcome.report["complete"] is False
    assert (ids(outcome)[0], outcome.report["findings"][0]["offset"]) == ("truncated", len(CUT))
    assert f"at byte {len(CUT)}" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_the_worst_of_several(stream: Path, run: Run, tmp_path: Path) -> None:
    gap = put(tmp_path, raw.qemu(raw.block(2048, 8)), "gap")
    cut = put(tmp_path, CUT, "cut")
    away = tmp_path / "away"
    assert run("validate", stream, stream).status == 0
    assert run("validate", stream, gap, stream).status == 1
    assert run("validate", cut, gap).status == 3
    outcome = run("validate", away, cut, stream, "--output", "json")
    assert outcome.status == 4
    assert [found["stream"] for found in outcome.json["streams"]] == [
        *map(str, (away, cut, stream))
    ]
    assert outcome.json["streams"][0]["findings"][0]["id"] == "input-failed"
    assert str(away) in outcome.err
    assert "1 whole" in run("validate", stream, gap).out


def test_list_checks(run: Run) -> None:
    outcome = run("validate", "--list-checks")
    assert outcome.status == 0
    for check in CHECKS:
        assert check in outcome.out


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("{s}", "--ignore", "no-such-check"),
        ("{s}", "--device-size", "lots"),
        ("{s}", "--granularity", "b"),
        ("{s}", "--granularity", "b=1000"),
        ("{s}", "--dialect", "v3"),
        ("{s}", "--output", "xml"),
        ("{s}", "--image", "d=a", "--image", "d=b"),
        ("{s}", "--image", "d="),
        ("{s}", "--nonsense"),
        ("fd:x",),
        ("file:{s},offset=x",),
    ],
)
def test_usage_errors(stream: Path, run: Run, words: tuple[str, ...]) -> None:
    outcome = run("validate", *(word.replace("{s}", str(stream)) for word in words))
    assert outcome.status == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert outcome.err


@pytest.mark.parametrize("last", [1, 2])
def test_image_is_compared_with_the_end_state(run: Run, tmp_path: Path, last: int) -> None:
    records = [raw.block(0, 0, rest=filled(2)), raw.block(0, 0, rest=filled(last))]
    path, image = put(tmp_path, raw.qemu(*records)), put(tmp_path, filled(1), "disk")
    outcome = run("validate", path, "--image", f"d={image}", "--output", "json")
    assert outcome.status == (0 if last == 1 else 1)
    assert ids(outcome) == ([] if last == 1 else ["image-differs"])
    assert outcome.report["devices"][0]["size"] == MIB
    assert run("validate", path, "--image", image).status == outcome.status


def test_image_differs_in_one_byte(run: Run, tmp_path: Path) -> None:
    content = bytearray(filled(1))
    content[5000] ^= 1
    path = put(tmp_path, raw.qemu(raw.block(0, 0, rest=filled(1))))
    outcome = run("validate", path, "--image", put(tmp_path, bytes(content), "disk"))
    assert outcome.status == 1
    assert "bytes 4608-5120" in outcome.out


def test_padding_is_not_compared(run: Run, tmp_path: Path) -> None:
    path = put(tmp_path, raw.qemu(raw.block(0, 0, rest=b"\1" * 1000 + filled(2)[1000:])))
    assert run("validate", path, "--image", put(tmp_path, b"\1" * 1000, "disk")).status == 0


def test_image_of_another_size(stream: Path, run: Run, tmp_path: Path) -> None:
    image = put(tmp_path, bytes(2 * MIB), "disk")
    outcome = run("validate", stream, "--image", image, "--output", "json")
    assert outcome.status == 1
    assert "size-mismatch" in ids(outcome)


def test_image_errors(stream: Path, run: Run, tmp_path: Path) -> None:
    qcow2 = put(tmp_path, b"QFI\xfb".ljust(MIB, b"\0"), "disk")
    assert run("validate", stream, "--image", qcow2).status == 4
    assert run("validate", stream, "--image", qcow2, "-f", "raw").status == 1
    assert run("validate", stream, "--image", tmp_path / "away").status == 4
    assert run("validate", stream, "--image", f"nobody={qcow2}", "-f", "raw").status == 2
    two = put(tmp_path, raw.qemu(raw.block(0, 8), raw.block(0, 8, device="e")), "two")
    outcome = run("validate", two, "--image", put(tmp_path, bytes(MIB), "zeros"))
    assert outcome.status == 2
    assert "'d', 'e'" in outcome.err


def test_hostile_names(run: Run, tmp_path: Path) -> None:
    name = b"a\x1b[31m\n\xff"
    bitmap = b"\x1c" + raw.name(name) + raw.name(name) + b"\0\1\0\0\1"
    record = raw.word(2048, 9) + raw.name(name)
    path = put(tmp_path, raw.qemu(record, bitmaps=bitmap))
    shown = run("validate", path)
    assert shown.status == 1
    assert "\x1b" not in shown.out + shown.err
    assert "a\\x1b[31m\\x0a\\xff" in shown.out
    report = run("validate", path, "--output", "json").report
    assert report["devices"][0]["name"] == "a\x1b[31m\n\udcff"
    assert report["bitmaps"][0]["name"] == "a\x1b[31m\n\udcff"


V1_CHUNKS = [raw.block(at, 0x28, rest=raw.v1(("b", bytes(8)))) for at in (0, 2048)]
NOSUCH = raw.start(1, "nosuch", 1, b"abc") + raw.footer(1)


@pytest.mark.parametrize(
    ("check", "data", "status"),
    [
        ("not-a-stream", b"nothing like it", 3),
        ("malformed", b"QEVM\0\0\0\5".ljust(48, b"\0"), 3),
        ("unknown-flags", raw.qemu(raw.block(0, 0x88)), 3),
        ("v2-rules", raw.qemu(raw.block(0, 0x68, rest=raw.v2(2050)), raw.block(4096, 8)), 3),
        ("undecidable", raw.qemu(*V1_CHUNKS), 3),
        ("resynchronised", raw.HEADER + raw.configuration() + NOSUCH + raw.EOF, 0),
    ],
)
def test_checks_by_the_least_stream(
    run: Run, tmp_path: Path, check: str, data: bytes, status: int
) -> None:
    outcome = run("validate", put(tmp_path, data), "--output", "json")
    assert check in ids(outcome)
    assert outcome.status == status


def test_options_of_the_form(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bare.bin"
    path.write_bytes(raw.block(0, 0, "d", bytes(MIB)) + raw.progress(100) + raw.EOS)
    outcome = run("validate", path, "--dialect=classic", "--container=none", "--device-size=1M")
    assert outcome.status == 0
    assert outcome.out.startswith(f"{path}: whole  (dialect classic, container none)\nDISK ")
    assert not outcome.out.endswith("\n\n")
    fails(
        run("validate", path, "--dialect=classic", "--container=qemu"), 3, "not a migration stream"
    )
