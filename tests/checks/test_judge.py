"""What a report says of small streams: verdict, findings, missing ranges and bitmaps, all of it."""

from typing import Any

import pytest

from blkmig_cli.checks.checker import Checker
from blkmig_cli.checks.judge import differing
from blkmig_cli.checks.report import Report
from blkmig_cli.checks.survey import read_stream
from blkmig_cli.progress import no_tick
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.identity import DiskIdentity, Identity
from tests.support import raw
from tests.support.feed import in_file

MIB = 1 << 20
WORD = b"\1".ljust(8, b"\0")
ID = "01234567-89ab-cdef-0123-456789abcdef"
BASE = "ffffffff-89ab-cdef-0123-456789abcdef"


def judged(data: bytes, *, incremental: bool = False, **hints: Any) -> Report:
    """Return the report on a stream; ``hints`` as in Hints."""
    decoder = Decoder(in_file(data), hints=Hints(**hints))
    checker = Checker(Hints(**hints), incremental=incremental)
    failure = read_stream(decoder, no_tick, checker)
    return checker.finish("s", decoder, failure)


def findings(report: Report) -> list[str]:
    return [str(finding) for finding in report.findings]


def zeros(*chunks: int, device: str = "d") -> bytes:
    return b"".join(raw.block(chunk * 2048, 8, device) for chunk in chunks)


def v1(*chunks: int) -> bytes:
    return b"".join(raw.block(at * 2048, 0x28, rest=raw.v1(("b", WORD))) for at in chunks)


def v1_at(sector: int) -> bytes:
    return raw.block(sector, 0x28, rest=raw.v1(("b", WORD)))


def v2(sector: int, sectors: int, name: str = "b") -> bytes:
    return raw.block(sector, 0x68, rest=raw.v2(sectors, (name, 1, 65536, WORD)))


def bits(sectors: int, word: bytes = WORD, name: str = "b", device: str = "d") -> bytes:
    start = raw.bitmap_start(device, name)
    return start + raw.bitmap_bits(0, sectors, word) + raw.COMPLETE


def identity(incremental: bool, **disks: tuple[int, bool]) -> Identity:
    """Return an identity; ``disks``: size, and whether all of it was sent, by device."""
    stated = {name: DiskIdentity(size, full=full) for name, (size, full) in disks.items()}
    return Identity(ID, BASE, incremental, "2026-01-31T23:59:59Z", "paused", stated)


#: Two disks, of which progress showed once that there are 61,441 sectors.
TWO = raw.qemu(
    zeros(0) + zeros(0, device="e") + zeros(1) + zeros(1, 2, device="e"),
    raw.progress(9),
    raw.progress(99),
)
#: One disk, with such progress.
ONE = raw.qemu(zeros(0, 1, 2), raw.progress(9), raw.progress(99))
PLAIN = raw.qemu(zeros(0))
CONTRADICTION = (
    "error: the progress records do not fit the disks, of which every chunk was sent (the last states "
    "{} %): other disks may be missing [progress-contradiction]"
)
ABANDONED = (
    "error: the capture is incomplete ({} % sent): {}; capture again with downtime-limit 0{} "
    "[bulk-unfinished]"
)
OTHERS = "of these disks or of others"
MISSING = "error: {} was not sent: bytes {} [missing-chunks]"
INCREMENTAL = "note: {} was not sent: bytes {} (device {}) [incremental]"
MISMATCH = "error: the stream {}, --device-size says {} (device d) [size-mismatch]"

#: What: the stream, hints, verdict, and findings.
DISKS: dict[str, tuple[bytes, dict[str, Any], str, list[str]]] = {
    "of unknown size": (raw.qemu(zeros(0, 1)), {}, "unknown", [
        "warning: the size of 'd' is unknown (at least 1 MiB); specify --device-size "
        "[completeness-unknown]"]),
    "one of two of unknown size": (
        raw.qemu(zeros(0) + zeros(0, device="e")), {"sizes": {"d": MIB}}, "unknown", [
        "warning: the size of 'e' is unknown (at least 512 B); specify --device-size "
        "[completeness-unknown]"]),
    "two of unknown size": (raw.qemu(zeros(0) + zeros(0, device="e")), {}, "unknown", [
        "warning: the size of 'd' is unknown (at least 512 B), the size of 'e' is unknown "
        "(at least 512 B); specify --device-size [completeness-unknown]"]),
    "three gaps": (raw.qemu(zeros(1, 3)), {"sizes": {"d": 5 * MIB}}, "incomplete", [
        MISSING.format("3 MiB", "0-1048576, 2097152-3145728, 4194304-5242880 (device d)")]),
    "four gaps": (raw.qemu(zeros(1, 3, 5)), {"sizes": {"d": 7 * MIB}}, "incomplete", [
        MISSING.format("4 MiB", "0-1048576, 2097152-3145728, 4194304-5242880 and 1 more range "
                       "(device d)")]),
    "a gap, and an unknown size": (raw.qemu(zeros(1)), {}, "incomplete", [
        MISSING.format("at least 1 MiB", "0-1048576 (device d)")]),
    "abandoned, with a gap": (
        raw.qemu(zeros(0, 2, 4), raw.progress(20)), {"sizes": {"d": 20 * MIB}}, "incomplete", [
        ABANDONED.format(20, "15 MiB was not sent: bytes 5242880-20971520", " (device d)"),
        MISSING.format("2 MiB", "1048576-2097152, 3145728-4194304 (device d)")]),
    "abandoned, of unknown size": (
        raw.qemu(raw.progress(0) + zeros(0, 1), raw.progress(49)), {}, "incomplete", [
        ABANDONED.format(49, "at least 512 B was not sent: bytes 2097152-2097664, or disks of which "
                         "nothing was sent", " (device d)")]),
    "not abandoned, of unknown size": (
        raw.qemu(raw.progress(0) + zeros(0, 1), raw.progress(50)), {}, "whole", []),
    "abandoned, of which every chunk was sent": (
        raw.qemu(zeros(0, 1), raw.progress(49)), {"sizes": {"d": 2 * MIB}}, "incomplete", [
        MISMATCH.format("proves a disk of at least 2097664 bytes", 2 * MIB),
        ABANDONED.format(49, f"at least 512 B was not sent, {OTHERS}", "")]),
    "abandoned, with another of unknown size": (
        raw.qemu(raw.progress(0) + zeros(*range(8)) + zeros(0, device="e")),
        {"sizes": {"d": 8 * MIB}}, "incomplete", [
        ABANDONED.format(0, f"more was not sent, {OTHERS}", "")]),
    "abandoned, with a gap, of unknown size": (
        raw.qemu(zeros(0, 2) + zeros(0, device="e"), raw.progress(40)), {}, "incomplete", [
        MISSING.format("at least 1 MiB", "1048576-2097152 (device d)"),
        ABANDONED.format(40, f"at least 899.5 KiB was not sent, {OTHERS}", "")]),
    "abandoned, and another that is whole": (
        raw.qemu(zeros(0, 1) + zeros(0, device="e"), raw.progress(0)),
        {"sizes": {"d": 4 * MIB, "e": MIB}}, "incomplete", [
        ABANDONED.format(0, "2 MiB was not sent: bytes 2097152-4194304", " (device d)")]),
    "progress that stays at 0": (
        raw.qemu(raw.progress(0) + zeros(*range(8))), {"sizes": {"d": 8 * MIB}}, "faulty", [
        CONTRADICTION.format(0)]),
    "progress that showed more than one disk": (ONE, {}, "incomplete", [
        "error: progress shows that at least 17 MiB more was not sent [missing-chunks]"]),
    "progress that showed more than one complete disk": (
        ONE, {"sizes": {"d": 3 * MIB}}, "faulty", [CONTRADICTION.format(99)]),
    "progress that showed more than two disks": (TWO, {}, "incomplete", [
        "error: progress shows that at least 25 MiB more was not sent [missing-chunks]"]),
    "progress that showed more than two disks, one of known size": (
        TWO, {"sizes": {"d": 2 * MIB}}, "incomplete", [
        "error: progress shows that at least 25 MiB more was not sent [missing-chunks]"]),
    "progress that showed more than two complete disks": (
        TWO, {"sizes": {"d": 2 * MIB, "e": 3 * MIB}}, "faulty", [CONTRADICTION.format(99)]),
    "no final progress": (
        PLAIN.replace(raw.progress(100), raw.progress(99)), {"sizes": {"d": MIB}}, "whole", [
        "warning: the block section ended without 100 percent (byte 104) [no-final-progress]"]),
    "no end": (
        PLAIN.replace(raw.part(1, raw.progress(100) + raw.EOS, kind=3) + raw.footer(1), b""),
        {"sizes": {"d": MIB}}, "incomplete", [
        "error: the block section has no end (byte 78) [section-unfinished]"]),
    "none": (raw.qemu(), {}, "unknown", [
        "warning: the stream has no disks and no bitmaps [nothing-here]"]),
    "a record at the end": (raw.qemu(zeros(0, 1)), {"sizes": {"d": MIB}}, "faulty", [
        "error: sector 2048 is past the disk's end at 1 MiB (device d, byte 64) "
        "[sector-past-end]"]),
    "a record of which a byte is on the disk": (
        raw.qemu(zeros(0, 1)), {"sizes": {"d": MIB + 1}}, "faulty", [
        MISMATCH.format("proves a disk of at least 1049088 bytes", MIB + 1)]),
    "a record of which a sector is on the disk": (
        raw.qemu(zeros(0, 1)), {"sizes": {"d": MIB + 512}}, "whole", []),
    "a file's size that cuts the records": (
        raw.qemu(zeros(0, 1)), {"images": {"d": MIB + 1}}, "whole", []),
    "a stated size": (raw.qemu(v2(0, 2000)), {"sizes": {"d": 2000 * 512}}, "whole", []),
    "a lesser size than stated": (raw.qemu(v2(0, 2000)), {"sizes": {"d": 1999 * 512}}, "faulty", [
        MISMATCH.format("states a disk of 1024000 bytes", 1023488)]),
    "a progress over 100": (raw.qemu(zeros(0), raw.progress(101)), {"sizes": {"d": MIB}}, "whole", [
        "warning: progress of 101 percent (byte 64) [progress-range]"]),
    "a damaged end": (PLAIN[:-1] + b"\x77", {"sizes": {"d": MIB}}, "damaged", [
        "error: section type 0x77 is unknown (byte 103) [unknown-section]"]),
}  # fmt: skip


@pytest.mark.parametrize("what", DISKS)
def test_disks(what: str) -> None:
    data, hints, verdict, expected = DISKS[what]
    report = judged(data, **hints)
    assert (report.verdict, findings(report)) == (verdict, expected)


#: What: the stream, hints, whether it is complete, and findings.
GAPS: dict[str, tuple[bytes, dict[str, Any], bool | None, list[str]]] = {
    "of a known size": (raw.qemu(zeros(0, 2)), {"sizes": {"d": 4 * MIB}}, True, [
        INCREMENTAL.format("2 MiB", "1048576-2097152, 3145728-4194304", "d")]),
    "of an unknown size": (raw.qemu(zeros(0, 2)), {}, True, [
        INCREMENTAL.format("at least 1 MiB", "1048576-2097152", "d")]),
    "of one disk, by progress": (ONE, {}, True, []),
    "of two disks, by progress": (TWO, {}, True, []),
    "of two disks, all sent": (TWO, {"sizes": {"d": 2 * MIB, "e": 3 * MIB}}, True, []),
    "of another disk, by progress that stays at 0": (
        raw.qemu(raw.progress(0) + zeros(*range(8))), {"sizes": {"d": 8 * MIB}}, None, [
        CONTRADICTION.format(0)]),
    "of everything": (raw.qemu(), {}, True, [
        "warning: the stream has no disks and no bitmaps [nothing-here]"]),
    "of an end": (
        PLAIN.replace(raw.part(1, raw.progress(100) + raw.EOS, kind=3) + raw.footer(1), b""),
        {"sizes": {"d": MIB}}, False, [
        "error: the block section has no end (byte 78) [section-unfinished]"]),
}  # fmt: skip


@pytest.mark.parametrize("what", GAPS)
def test_gaps_that_are_intentional(what: str) -> None:
    data, hints, complete, expected = GAPS[what]
    report = judged(data, incremental=True, **hints)
    assert (report.complete, findings(report)) == (complete, expected)


#: What: the stream, sizes, the identity, whether it is complete, and findings.
IDENTITIES: dict[
    str, tuple[bytes, dict[str, int], Identity, bool | None, list[str]]
] = {
    "an increment": (
        raw.qemu(zeros(0, 2)), {"d": 4 * MIB}, identity(True, d=(4 * MIB, False)), True, [
        INCREMENTAL.format("2 MiB", "1048576-2097152, 3145728-4194304", "d")]),
    "an increment of unknown size": (
        raw.qemu(zeros(0, 2)), {}, identity(True, d=(4 * MIB, False)), True, [
        INCREMENTAL.format("at least 1 MiB", "1048576-2097152", "d")]),
    "a full disk among increments": (
        raw.qemu(zeros(0, 2)), {"d": 4 * MIB}, identity(True, d=(4 * MIB, True)), False, [
        MISSING.format("2 MiB", "1048576-2097152, 3145728-4194304 (device d)")]),
    "a disk that is not stated": (
        raw.qemu(zeros(0, 2)), {"d": 4 * MIB}, identity(True, e=(MIB, False)), False, [
        MISSING.format("2 MiB", "1048576-2097152, 3145728-4194304 (device d)")]),
    "two disks": (
        raw.qemu(zeros(0, 2) + zeros(1, device="e")), {"d": 4 * MIB, "e": 2 * MIB},
        identity(True, d=(4 * MIB, False), e=(2 * MIB, True)), False, [
        INCREMENTAL.format("2 MiB", "1048576-2097152, 3145728-4194304", "d"),
        MISSING.format("1 MiB", "0-1048576 (device e)")]),
    "an increment of nothing": (raw.qemu(), {}, identity(True, d=(MIB, False)), True, []),
    "a full disk of which nothing was sent": (
        raw.qemu(), {"d": MIB + 1}, identity(True, d=(MIB + 512, True)), False, [
        MISSING.format("1 MiB", "0-1049088 (device d)")]),
    "a full disk of unknown size of which nothing was sent": (
        raw.qemu(), {}, identity(True, d=(MIB + 512, True)), True, []),
    "a disk of which nothing was sent": (
        raw.qemu(), {"d": MIB}, identity(False, d=(MIB, False)), None, []),
}  # fmt: skip


@pytest.mark.parametrize("what", IDENTITIES)
def test_identities(what: str) -> None:
    data, sizes, stated, complete, expected = IDENTITIES[what]
    report = judged(data, sizes=sizes, identity=stated)
    assert (report.complete, findings(report)) == (complete, expected)
    assert report.identity == stated


UNKNOWN = "warning: the size of 'd' is unknown (at least 1 MiB); specify --device-size " + (
    "[completeness-unknown]"
)
INCOMPLETE = "error: bitmap 'b' is incomplete (device d) [bitmap-incomplete]"
COVERS = "error: bitmap 'b' covers at least {} bytes, the disk has {} (device d) [bitmap-size]"
PAST = "warning: bitmap 'b' has dirty bits past the disk's end (device d) [bitmap-past-end]"
SIXTEEN, SEVENTEEN = (1 << 15).to_bytes(8, "little"), (1 << 16).to_bytes(8, "little")
TAIL = raw.progress(50)
#: What: the stream, hints, dirty bytes and completeness of the bitmap, its reach and limit, findings.
BITMAPS: dict[
    str,
    tuple[bytes, dict[str, Any], tuple[int | None, bool | None, int, int | None], list[str]],
] = {
    "section": (raw.qemu(zeros(0), bitmaps=bits(2048)), {}, (65536, True, MIB, MIB), []),
    "section, size known": (
        raw.qemu(bitmaps=bits(2048)), {"sizes": {"d": MIB}}, (65536, True, MIB, MIB), []),
    "section, too long by a sector": (
        raw.qemu(bitmaps=bits(2048)), {"sizes": {"d": MIB - 512}},
        (65536, False, MIB, MIB - 512), [COVERS.format(MIB, MIB - 512)]),
    "section, too long by a byte": (
        raw.qemu(bitmaps=bits(2048)), {"sizes": {"d": MIB - 1}},
        (65536, False, MIB, MIB - 1), [COVERS.format(MIB, MIB - 1)]),
    "section, too short": (
        raw.qemu(bitmaps=bits(2048)), {"sizes": {"d": MIB + 1}},
        (65536, False, MIB, MIB + 1), [INCOMPLETE]),
    "section, longer than a file": (
        raw.qemu(bitmaps=raw.bitmap_start() + raw.bitmap_bits(0, 2048, WORD)),
        {"images": {"d": MIB - 512}},
        (65536, False, MIB, MIB - 512), [COVERS.format(MIB, MIB - 512)]),
    "section without bits": (
        raw.qemu(bitmaps=raw.bitmap_start() + raw.COMPLETE), {"sizes": {"d": MIB}},
        (0, False, 0, MIB), [INCOMPLETE]),
    "section without bits, size unknown": (
        raw.qemu(bitmaps=raw.bitmap_start() + raw.COMPLETE), {}, (0, False, 0, None), [INCOMPLETE]),
    "section without bits, of an empty disk": (
        raw.qemu(bitmaps=raw.bitmap_start() + raw.COMPLETE), {"sizes": {"d": 0}},
        (0, True, 0, 0), []),
    "dirty to the disk's end": (
        raw.qemu(bitmaps=bits(2049, SIXTEEN)), {"sizes": {"d": MIB}},
        (65536, False, MIB + 512, MIB), [COVERS.format(MIB + 512, MIB)]),
    "dirty past the disk's end": (
        raw.qemu(bitmaps=bits(2049, SEVENTEEN)), {"sizes": {"d": MIB}},
        (0, False, MIB + 512, MIB), [COVERS.format(MIB + 512, MIB), PAST]),
    "dirty in a granule that the end cuts": (
        raw.qemu(bitmaps=bits(2049, SEVENTEEN)), {"sizes": {"d": MIB + 512}},
        (512, True, MIB + 512, MIB + 512), []),
    "v2": (raw.qemu(v2(0, 2000)), {}, (65536, True, 1024000, 1024000), []),
    "v2, size unknown": (raw.qemu(v2(0, 2048)), {}, (65536, None, MIB, None), [UNKNOWN]),
    "v2 without final progress": (
        raw.qemu(v2(0, 2000)).replace(raw.progress(100), raw.progress(99)), {},
        (65536, False, 1024000, 1024000), [
        INCOMPLETE,
        "warning: the block section ended without 100 percent (byte 131) [no-final-progress]"]),
    "v2 with a gap": (raw.qemu(v2(0, 2048), v2(4096, 2048)), {}, (65536, False, 3 * MIB, None), [
        INCOMPLETE, MISSING.format("at least 1 MiB", "1048576-2097152 (device d)")]),
    "v2, left out of a range": (
        raw.qemu(v2(0, 2048), raw.block(2048, 0x68, rest=raw.v2(2000))), {},
        (65536, True, MIB + 1024000, MIB + 1024000), []),
    "v2, too short": (
        raw.qemu(v2(0, 2048)), {"sizes": {"d": MIB + 1}}, (65536, False, MIB, MIB + 1), [
        INCOMPLETE, MISSING.format("512 B", "1048576-1049088 (device d)")]),
    "v2, longer than the disk": (
        raw.qemu(v2(0, 2048)), {"sizes": {"d": MIB - 512}}, (65536, True, MIB, MIB - 512), []),
    "v1": (raw.qemu(v1(0, 1)), {"sizes": {"d": 2 * MIB}}, (65536, True, 2 * MIB, 2 * MIB), []),
    "v1, size unknown": (raw.qemu(v1(0, 1)), {}, (65536, None, 2 * MIB, None), [UNKNOWN]),
    "v1, as long as progress allows": (
        raw.qemu(v1(0, 1), TAIL), {}, (65536, True, 2 * MIB, 2 * MIB), []),
    "v1, longer than the least size by progress": (
        raw.qemu(v1(0) + v1_at(2000), TAIL), {}, (65536, None, 4048 * 512, 2 * MIB), [
        "warning: the size of 'd' is unknown (1.961 to 2 MiB); specify --device-size "
        "[completeness-unknown]"]),
    "v1, not from the begin": (
        raw.qemu(zeros(0) + v1_at(1)), {"sizes": {"d": MIB + 512}},
        (65536, False, MIB + 512, MIB + 512), [INCOMPLETE]),
    "v1, not from the begin, size unknown": (
        raw.qemu(zeros(0) + v1_at(1)), {}, (65536, False, MIB + 512, None), [INCOMPLETE]),
    "v1, too short": (
        raw.qemu(v1(0, 1)), {"sizes": {"d": 2 * MIB + 1}}, (65536, False, 2 * MIB, 2 * MIB + 1), [
        INCOMPLETE, MISSING.format("512 B", "2097152-2097664 (device d)")]),
    "v1, damaged before the end of its section": (
        raw.qemu(v1(0, 1))[:-30], {"sizes": {"d": 2 * MIB}},
        (65536, False, 2 * MIB, 2 * MIB), [
        "error: stream truncated at byte 112, inside the record at byte 110 [truncated]", INCOMPLETE]),
}  # fmt: skip


@pytest.mark.parametrize("what", BITMAPS)
def test_bitmaps(what: str) -> None:
    data, hints, expected, texts = BITMAPS[what]
    report = judged(data, granularities={(None, "b"): 65536}, **hints)
    (found,) = report.bitmaps
    assert (found.count, found.complete, found.reach, found.limit) == expected
    assert found.candidates == (65536,)
    wanted = [text for text in findings(report) if "[size-mismatch]" not in text]
    assert wanted == texts


def test_bitmaps_of_two_lengths() -> None:
    """None is too long: neither of the sizes that the stream states is more certain."""
    report = judged(raw.qemu(v2(0, 2000), bitmaps=bits(2048, name="c")))
    assert [(found.bitmap.name, found.complete) for found in report.bitmaps] == [
        ("b", True), ("c", True),
    ]  # fmt: skip
    assert not findings(report)


def test_a_bitmap_of_unknown_granularity() -> None:
    parts = [raw.part(1, v1(chunk) + raw.EOS) + raw.footer(1) for chunk in range(8)]
    empty = raw.part(1, raw.EOS)
    data = raw.qemu().replace(empty, b"".join(parts) + empty)
    report = judged(data, sizes={"d": 8 * MIB})
    (found,) = report.bitmaps
    assert found.candidates == tuple(1 << shift for shift in range(14, 32))
    assert (found.count, found.complete, found.reach) == (None, True, 8 * MIB)
    assert findings(report) == [
        "warning: the granularity of bitmap 'b' is anything from 16 KiB to 2 GiB; specify --granularity "
        "(device d) [bitmap-open]"
    ]


@pytest.mark.parametrize(
    ("data", "complete"),
    [
        (PLAIN[:-1] + b"\x77", None),
        (raw.qemu(zeros(0), bitmaps=bits(2048))[:-1] + b"\x77", None),
        (raw.qemu(zeros(0), bitmaps=raw.bitmap_start())[:-1] + b"\x77", False),
        (PLAIN[:-40], False),
        (raw.HEADER + raw.configuration() + b"\x77", False),
    ],
)
def test_where_the_reading_failed(data: bytes, complete: bool | None) -> None:
    """The stream may have ended there, if what came is complete."""
    report = judged(data)
    assert (report.verdict, report.complete) == ("damaged", complete)
    assert {finding.id for finding in report.findings} <= {
        "unknown-section", "truncated", "bitmap-incomplete", "completeness-unknown",
    }  # fmt: skip


def test_a_contradiction_is_no_finding_where_something_is_incomplete() -> None:
    contradicting = raw.progress(0) + zeros(*range(8))
    data = raw.qemu(contradicting, bitmaps=raw.bitmap_start())
    report = judged(data, sizes={"d": 8 * MIB})
    assert (report.complete, findings(report)) == (False, [INCOMPLETE])


def test_a_bitmap_whose_device_has_no_blocks() -> None:
    """It matters only where others have some."""
    other = bits(2048, device="e")
    assert findings(judged(raw.qemu(zeros(0), bitmaps=other), sizes={"d": MIB})) == [
        "warning: the device of bitmap 'b' has no blocks in this stream (device e) [bitmap-device]"
    ]
    assert not findings(judged(raw.qemu(bitmaps=other)))
    assert not findings(judged(raw.qemu(zeros(0), bitmaps=bits(2048))))


@pytest.mark.parametrize(
    ("data", "dialect"),
    [
        (raw.qemu(zeros(0)), "classic"),
        (raw.qemu(), "classic"),
        (raw.qemu(blocks=False), None),
        (raw.qemu(zeros(0), bitmaps=bits(2048)), "qemu"),
        (raw.qemu(bitmaps=bits(2048), blocks=False), "qemu"),
        (raw.qemu(v1(0)), "v1"),
        (raw.qemu(v1(0), bitmaps=bits(2048, name="c")), "v1"),
        (raw.qemu(v2(0, 2048)), "v2"),
        (raw.qemu(v2(0, 2048), bitmaps=bits(2048, name="c")), "v2"),
    ],
)
def test_dialects(data: bytes, dialect: str | None) -> None:
    assert judged(data, granularities={(None, "b"): 65536}).dialect == dialect


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "512 B: bytes 0-512"), (3, "1.5 KiB: bytes 0-512, 1024-1536, 2048-2560"),
     (4, "2 KiB: bytes 0-512, 1024-1536, 2048-2560 and 1 more range"),
     (5, "2.5 KiB: bytes 0-512, 1024-1536, 2048-2560 and 2 more ranges")],
)  # fmt: skip
def test_an_image_that_differs(number: int, text: str) -> None:
    ranges = [(at * 1024, 512) for at in range(number)]
    (found,) = differing(ranges, "a\n", "d")
    assert str(found) == f"error: a\\x0a differs in {text} (device d) [image-differs]"
    assert list(differing([], "a", "d")) == []
