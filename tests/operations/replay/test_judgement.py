"""Judging a stream for a replay: what is accepted, with which severity, and the evidence for sizes."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from blkmig_cli.checks.manifest import DiskEntry, Manifest
from blkmig_cli.disks.bitmap import DirtyBitmap
from blkmig_cli.disks.bitmap_file import BitmapFile, write_bitmaps
from blkmig_cli.disks.record import Holding
from blkmig_cli.errors import FailureError, UndecidableError, UsageError
from blkmig_cli.operations.replay.destinations import Destinations
from blkmig_cli.operations.replay.disk_size import Evidence
from blkmig_cli.operations.replay.journal import Stop
from blkmig_cli.operations.replay.judgement import Judgement, Reading, judge
from blkmig_cli.operations.replay.request import ReplayRequest
from blkmig_cli.operations.resume_token import Received
from blkmig_cli.progress import no_tick
from blkmig_cli.system.file_uses import FileUses
from blkmig_cli.transport.source import open_stream
from blkmig_cli.wire.hints import Hints
from tests.conftest import Run
from tests.support import raw
from tests.support.replays import (
    BITMAP,
    GAP,
    MIB,
    STREAM,
    TWO,
    data,
    filled,
    folder,
    here,
    put,
    refused,
)  # fmt: skip

__all__ = ["folder"]

ID = "01234567-89ab-cdef-0123-456789abcdef"
BASE = "11234567-89ab-cdef-0123-456789abcdef"
X: Any = {"d": "x"}


class Judged:
    """A stream that was read, its images, and the judgement."""

    def __init__(
        self, stack: ExitStack, content: bytes, request: ReplayRequest, kind: str,
        continued: tuple[Received, ...],
    ) -> None:  # fmt: skip
        put(content)
        name = "s.bin" if kind == "file" else "exec:cat s.bin"
        self.request = request
        self.destinations = Destinations(request, FileUses())
        stack.callback(self.destinations.close)
        self.destinations.open()
        stream = stack.enter_context(open_stream(name))
        self.reading = Reading(stream, request, self.destinations, continued)
        self.failure = self.reading.to_end(no_tick)

    def judge(self) -> Judgement:
        return judge(self.reading, self.failure, self.destinations, self.request)

    def stop(self, device: str = "d") -> Stop:
        found = self.destinations.image_of(device)
        return self.reading.stop(device, found, self.failure)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def read(
    stack: ExitStack, content: bytes, images: Any = None, kind: str = "file",
    continued: tuple[Received, ...] = (), **more: Any,
) -> Judged:  # fmt: skip
    request = ReplayRequest(X if images is None else images, **({"create": True} | more))
    return Judged(stack, content, request, kind, continued)


def findings(judgement: Judgement) -> list[tuple[str, str]]:
    return [(found.id, found.severity) for found in judgement.report.findings]


both_kinds = pytest.mark.parametrize("kind", ["file", "pipe"])
OPEN_BITMAP = raw.bitmap_start() + raw.bitmap_bits(0, 4096, bytes(8))
UNKNOWN_BITS = raw.qemu(raw.block(0, 0x30, rest=raw.v1(("b", b"\1".ljust(8, b"\0"))) + filled(4)))
UNSENT = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
UNENDED = UNSENT + raw.part(1, data(0, 1) + raw.EOS) + raw.footer(1) + raw.EOF


@pytest.mark.parametrize(
    ("content", "more", "found", "accepted"),
    [
        (STREAM, {}, [], True),
        (GAP, {}, [("missing-chunks", "error")], False),
        (GAP, {"incremental": True}, [("incremental", "note")], True),
        (GAP, {"allow_incomplete": True}, [("missing-chunks", "warning")], True),
        (GAP, {"bitmaps": False}, [("missing-chunks", "error")], False),
        (GAP, {"disks": False}, [("missing-chunks", "warning")], True),
        (UNENDED, {}, [("section-unfinished", "error")], False),
        (UNENDED, {"incremental": True}, [("section-unfinished", "error")], False),
        (UNENDED, {"allow_incomplete": True}, [("section-unfinished", "warning")], True),
        (raw.qemu(data(0, 1), data(2048, 2), bitmaps=OPEN_BITMAP), {},
         [("bitmap-incomplete", "error")], False),
        (raw.qemu(data(0, 1), data(2048, 2), bitmaps=OPEN_BITMAP), {"bitmaps": False},
         [("bitmap-incomplete", "warning")], True),
        (raw.qemu(data(0, 1), data(2048, 2), bitmaps=OPEN_BITMAP), {"allow_incomplete": True},
         [("bitmap-incomplete", "warning")], True),
        # Its granularity is unknown: the disk is written, and the exit status says it.
        (UNKNOWN_BITS, {}, [("bitmap-open", "error")], True),
        (UNKNOWN_BITS, {"bitmaps": False}, [("bitmap-open", "warning")], True),
    ],
)  # fmt: skip
def test_severities(
    stack: ExitStack, content: bytes, more: dict[str, Any], found: list[tuple[str, str]],
    accepted: bool,
) -> None:  # fmt: skip
    judgement = read(stack, content, **more).judge()
    serious = [each for each in findings(judgement) if each[0] != "completeness-unknown"]
    assert serious == found
    assert judgement.accepted is accepted


def test_what_is_wrong_with_a_device_that_is_not_taken(stack: ExitStack) -> None:
    content = raw.qemu(data(0, 1), data(2048, 2, "e"), bitmaps=raw.bitmap_start("e") + raw.COMPLETE)
    judged = read(stack, content, devices=frozenset("d"))
    judgement = judged.judge()
    assert {severity for _, severity in findings(judgement)} == {"warning"}
    assert judgement.accepted
    assert list(judgement.sizes) == ["d"]


@pytest.mark.parametrize(("allowed", "accepted"), [(True, True), (False, False)])
def test_damage(stack: ExitStack, allowed: bool, accepted: bool) -> None:
    judgement = read(stack, STREAM[: MIB + 500], allow_incomplete=allowed).judge()
    assert judgement.accepted is accepted
    assert judgement.report.failure is not None
    assert ("truncated", "error") in findings(judgement)


def test_damage_and_another_error(stack: ExitStack) -> None:
    """The damage is accepted, but not what lies past the disk's end."""
    content = raw.qemu(data(0, 1), data(4096, 1))[:-30]
    hints = Hints({"d": MIB})
    judgement = read(stack, content, allow_incomplete=True, hints=hints).judge()
    assert ("sector-past-end", "error") in findings(judgement)
    assert not judgement.accepted


# -- sizes


def test_a_size_that_is_assumed(stack: ExitStack) -> None:
    judgement = read(stack, raw.qemu(data(0, 1), data(0, 2, "e")), {"d": "x", "e": "y"}).judge()
    bounds = judgement.warnings[0].partition("(")[2].partition(")")[0]
    assert judgement.warnings == [
        f"size of '{device}' is not in the stream ({bounds}); took {MIB} bytes, "
        "the end of its last chunk; see --device-size"
        for device in "de"
    ]
    assert {name: found.size for name, found in judgement.sizes.items()} == {"d": MIB, "e": MIB}


@both_kinds
def test_evidence(stack: ExitStack, kind: str) -> None:
    """Of the device, its image, and an option; ``end`` is that of the last chunk."""
    put(filled(9, 3 * MIB), "x")
    judged = read(stack, STREAM, {"d": "x"}, kind, create=False, hints=Hints({"d": 3 * MIB}))
    found = judged.destinations.image_of("d")
    at = STREAM.index(raw.word(2048, 1))
    assert judged.reading.evidence("d", found) == Evidence(
        "d", "x", judged.reading.evidence("d", None).stream, MIB, 2 * MIB, at,
        3 * MIB, False, None, 3 * MIB, False, False, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("more", "gaps"),
    [
        ({}, False),
        ({"incremental": True}, True),
        ({"allow_incomplete": True}, True),
    ],
)
def test_whether_chunks_may_be_missing(stack: ExitStack, more: dict[str, Any], gaps: bool) -> None:
    manifest = Manifest(disks={"d": DiskEntry("d", 5 * MIB, None)})
    hints = Hints(largest={"d"})
    judged = read(stack, raw.qemu(data(0, 1)), manifest=manifest, hints=hints, **more)
    evidence = judged.reading.evidence("d", None)
    assert (evidence.path, evidence.image, evidence.is_device, evidence.grows) == (
        "", None, False, False
    )  # fmt: skip
    assert (evidence.manifest, evidence.option, evidence.largest) == (5 * MIB, None, True)
    assert evidence.gaps is gaps


def test_the_end_of_a_disk_without_records(stack: ExitStack) -> None:
    """That of the records of its bitmaps."""
    bits = b"\1".ljust(256, b"\0")
    content = raw.qemu(
        *(raw.block(2048 * at, 0x20, rest=raw.v1(("b", bits))) for at in range(3)),
        raw.block(0, 0x20, "e", raw.v1(("b", bits))),
    )
    judged = read(stack, content, {}, bitmap_files={"d": "b", "e": "c"}, create=False)
    ends = {name: judged.reading.evidence(name, None).end for name in "de"}
    assert ends == {"d": 3 * MIB, "e": MIB}
    assert judged.reading.evidence("d", None).gaps
    assert judged.reading.evidence("f", None).end == 0


def test_an_image_of_which_a_part_was_received(stack: ExitStack) -> None:
    """It is no gap."""
    content = raw.qemu(data(2048, 2), bitmaps=BITMAP)
    received = (Received("d", MIB, "0" * 64),)
    assert read(stack, content, continued=received).judge().accepted
    stack.close()
    assert not read(stack, content).judge().accepted
    stack.close()
    short = (Received("d", MIB - 512, "0" * 64),)
    assert not read(stack, content, continued=short).judge().accepted


# -- what is recorded of an incomplete stream


@both_kinds
def test_the_end_of_a_stream(stack: ExitStack, kind: str) -> None:
    judged = read(stack, GAP, kind=kind)
    judged.judge()
    assert judged.stop() == Stop(2 * MIB, 2 * MIB, MIB, False, (), ())
    stack.close()
    judged = read(stack, STREAM[: MIB + 500], kind=kind)
    judged.judge()
    assert (judged.stop().damaged, judged.stop().end) == (True, MIB)
    assert judged.reading.has_blocks("d")
    assert not judged.reading.has_blocks("e")


def test_the_position_and_names(stack: ExitStack) -> None:
    judged = read(stack, TWO, {"d": "x", "e": "y"})
    assert judged.reading.position == len(TWO)
    names = judged.reading.names
    assert (list(names.devices), list(names.bitmaps)) == (["d", "e"], [])
    stack.close()
    judged = read(stack, STREAM)
    assert list(judged.reading.names.bitmaps) == [("d", "b")]


# -- merged disks


MERGED = raw.qemu(raw.block(0, 0, "", filled(1)), raw.block(0, 0, "", b"QFI\xfb".ljust(MIB, b"\0")))


@pytest.mark.parametrize(
    ("images", "more", "refuses"),
    [
        ({"": "x"}, {}, True),
        ({"": "x", "d": "y"}, {"devices": frozenset(["", "d"])}, True),
        ({"d": "x"}, {"devices": frozenset("d")}, False),
        ({"": "x"}, {"disks": False}, False),
    ],
)
def test_merged_disks(
    stack: ExitStack, images: dict[str, str], more: dict[str, Any], refuses: bool
) -> None:
    if not refuses:
        assert read(stack, MERGED, images, **more).failure is None
        return
    with pytest.raises(UndecidableError) as error:
        read(stack, MERGED, images, **more)
    assert error.value.check == "merged-devices"
    assert str(error.value) == (
        "a disk and the file that holds it are mixed under an empty name (section 'block', "
        "device ''); capture again, with disks that have an id (-drive id=NAME)"
    )


# -- what the image will hold


def named(
    content: bytes, *, full: bool = True, base: str | None = None, size: int = 2 * MIB
) -> bytes:
    disk = {"size": size, "full": full, "since": None, "mark": None}
    found = {"version": 1, "id": ID, "base": base, "incremental": not full,
             "created": "2026-01-31T23:59:59Z", "consistency": "crash", "disks": {"d": disk}}  # fmt: skip
    text = json.dumps({"devices": [], "blkmig": found}).encode()
    return content + b"\6" + len(text).to_bytes(4, "big") + text


@both_kinds
def test_what_the_image_will_hold(stack: ExitStack, kind: str) -> None:
    judged = read(stack, named(STREAM), kind=kind)
    judged.judge()
    assert judged.destinations.image_of("d").holds == Holding(ID, "d")
    assert judged.reading.identity is not None
    stack.close()
    judged = read(stack, named(GAP), kind=kind, allow_incomplete=True)
    judged.judge()
    assert judged.destinations.image_of("d").holds is None
    stack.close()
    judged = read(stack, STREAM, kind=kind)
    judged.judge()
    assert judged.destinations.image_of("d").holds is None
    assert judged.reading.identity is None


@pytest.mark.parametrize(
    ("existing", "chunks", "grown"),
    [
        (MIB, [1], False),
        (MIB, [0], True),
        (MIB, [0, 1], False),
        (2 * MIB, [0], False),
        (3 * MIB // 2, [0], True),
        (512, [1], True),
    ],
)
def test_the_grown_part_of_an_increment(
    stack: ExitStack, existing: int, chunks: list[int], grown: bool
) -> None:
    put(filled(9, existing), "x")
    content = named(raw.qemu(*(data(2048 * at, at + 1) for at in chunks)), full=False)
    judged = read(stack, content, create=False, base_check=False)
    judgement = judged.judge()
    assert judged.destinations.image_of("d").grows
    assert (("wrong-base", "error") in findings(judgement)) == grown
    assert judgement.accepted is not grown
    for size in (None, 2 * MIB):
        assert not judged.reading.lacks_growth("d", size, 2 * MIB)


def test_an_increment_without_its_base(stack: ExitStack) -> None:
    """Its size is not decided; and another device is judged all the same."""
    content = named(raw.qemu(data(2048, 1), data(0, 2, "e")), full=False, base=BASE)
    judgement = read(stack, content, {"d": "x", "e": "y"}).judge()
    assert ("wrong-base", "error") in findings(judgement)
    assert list(judgement.sizes) == ["e"]
    assert not judgement.accepted


# -- bitmaps


def held(granularity: int, name: str = "b") -> None:
    put(filled(9), "x")
    write_bitmaps("x.bitmaps.json", BitmapFile(MIB, {name: DirtyBitmap(name, granularity)}))


V2 = raw.qemu(raw.block(0, 0x70, rest=raw.v2(2048, ("b", 1, 65536, b"")) + filled(1)))


@pytest.mark.parametrize(
    ("granularity", "name", "fits"), [(32768, "b", False), (65536, "b", True), (32768, "c", True)]
)
def test_another_granularity(stack: ExitStack, granularity: int, name: str, fits: bool) -> None:
    held(granularity, name)
    judged = read(stack, V2, create=False)
    if fits:
        assert judged.judge().accepted
        return
    with pytest.raises(FailureError) as error:
        judged.judge()
    assert str(error.value) == (
        f"bitmap 'b' has granularity {granularity} in x.bitmaps.json, 65536 in the stream "
        "(device 'd'); remove it from there"
    )


def test_another_granularity_of_the_section(stack: ExitStack) -> None:
    """There, QEMU has a new bitmap of the stream's granularity."""
    put(filled(9, 2 * MIB), "x")
    found = BitmapFile(2 * MIB, {"b": DirtyBitmap("b", 512)})
    write_bitmaps("x.bitmaps.json", found)
    assert read(stack, STREAM, create=False).judge().accepted


@pytest.mark.parametrize("bitmaps", [True, False])
def test_the_bitmaps_of_a_device(stack: ExitStack, bitmaps: bool) -> None:
    judged = read(stack, STREAM, bitmaps=bitmaps)
    judgement = judged.judge()
    assert list(judgement.bitmaps("d")) == ["b"]
    assert judgement.bitmaps("e") == {}
    stack.close()
    judgement = read(stack, raw.qemu(data(0, 1), bitmaps=OPEN_BITMAP)).judge()
    assert judgement.bitmaps("d") == {}


def test_bitmaps_of_a_new_image_without_blocks(run: Run) -> None:
    put(raw.qemu(bitmaps=BITMAP))
    words = ["replay", "s.bin", "--image", "x.qcow2", "--create"]
    before = here()
    refused(
        run(*words), 4,
        "x.qcow2 does not exist, and no blocks of it are written (device 'd'); "
        "write its bitmaps to a file with --bitmaps-to",
        before,
    )  # fmt: skip


# -- names


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"devices": frozenset("f")}, "--device: no device 'f'; there is the device 'd'"),
        ({"formats": {"f": "raw"}}, "-f: no device 'f'; there is the device 'd'"),
        ({"hints": Hints({"f": 5})}, "--device-size: no device 'f'; there is the device 'd'"),
        ({"formats": {None: "raw"}}, None),
    ],
)
def test_names_in_options_without_an_image(
    stack: ExitStack, more: dict[str, Any], said: str | None
) -> None:
    judged = read(stack, STREAM, {}, create=False, dry_run=True, **more)
    if said is None:
        assert judged.judge().sizes == {}
        return
    with pytest.raises(UsageError) as error:
        judged.judge()
    assert str(error.value) == said


@pytest.mark.parametrize("length", [MIB + 500, len(STREAM)])
def test_names_that_may_come_later(stack: ExitStack, length: int) -> None:
    """Of a stream that was cut off, no name is known to be missing."""
    judged = read(stack, STREAM[:length], {"d": "x", "f": "y"})
    if length < len(STREAM):
        assert not judged.judge().accepted
        return
    with pytest.raises(UsageError, match="--image: no device 'f'"):
        judged.judge()
