"""What a stream proves of its disks' sizes."""

from typing import Any

import pytest

from blkmig_cli.checks.survey import read_stream
from blkmig_cli.contents.bitmaps import BitmapState
from blkmig_cli.contents.sizes import SizeBounds
from blkmig_cli.contents.state import DiskState, StreamState
from blkmig_cli.progress import no_tick
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.identity import DiskIdentity, Identity, description
from tests.support import raw
from tests.support.feed import BySchemas, in_file
from tests.support.runs import run_of

WORD = bytes([1]) + bytes(7)
HINTS = Hints(granularities={("drive0", "daily"): 1 << 20, ("drive0", "weekly"): 1 << 20})


def v1(sector: int) -> bytes:
    return raw.block(sector, 0x20, "drive0", raw.v1(("daily", WORD), ("weekly", bytes(8))))


def v2(sector: int, sectors: int = 2048) -> bytes:
    return raw.block(sector, 0x60, "drive0", raw.v2(sectors, ("daily", 1, 1 << 20, WORD)))


#: What: records, and the least size of the disk in sectors.
RECORDS = {
    "one chunk": (raw.block(0, 9, "drive0"), 0),
    "v1": (v1(0) + v1(20480), 20481),
    "v1, many": (b"".join(map(v1, range(0, 204800, 2048))), 202753),
    "v1, many, the last one lower": (b"".join(map(v1, range(202752, 0, -2048))), 202753),
    "v2": (v2(0) + v2(20480), 22528),
    "v2, many": (b"".join(map(v2, range(0, 204800, 2048))), 204800),
    "v2, many, the last one lower": (b"".join(map(v2, range(202752, 0, -2048))), 204800),
    "v2, a range": (v2(0) + v2(20480, 40960), 61440),
}


@pytest.mark.parametrize("what", RECORDS)
@pytest.mark.parametrize("kind", [None, BySchemas])
def test_the_least_size(what: str, kind: type[BySchemas] | None) -> None:
    records, least = RECORDS[what]
    source = in_file(raw.qemu(records)) if kind is None else in_file(raw.qemu(records), kind)
    state = StreamState()
    assert read_stream(Decoder(source, hints=HINTS), no_tick, state) is None
    assert state.disk("drive0").least == least * 512


@pytest.mark.parametrize("number", [97, 98])
def test_progress_inside_of_parts_and_at_their_ends(number: int) -> None:
    """The last one of a run may be of either kind."""
    data = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
    for percent in range(number):
        last = raw.word(percent, 6) if percent % 3 == 1 else raw.progress(percent) + raw.EOS
        data += raw.part(1, raw.block(percent * 2048, 9) + last) + raw.footer(1)
    data += raw.part(1, raw.progress(100) + raw.EOS, kind=3) + raw.footer(1) + raw.EOF
    found, by_schemas = StreamState(), StreamState()
    assert read_stream(Decoder(in_file(data)), no_tick, found) is None
    assert read_stream(Decoder(in_file(data, BySchemas)), no_tick, by_schemas) is None
    assert found.progress == by_schemas.progress
    assert found.progress.percent == number - 1


def test_a_device_that_is_not_there() -> None:
    state = StreamState()
    assert state.stated_size("d") is None
    assert state.proven_size("d") == SizeBounds(0, None, "none")
    assert not state.covered("d")
    assert (state.end, state.block_started, state.block_ended) == (0, False, False)


MIB = 1 << 20
IDENTITY = Identity(
    "01234567-89ab-cdef-0123-456789abcdef",
    None,
    False,
    "2026-01-31T23:59:59Z",
    "paused",
    {"a": DiskIdentity(MIB), "d": DiskIdentity(2 * MIB)},
)


def concluded(data: bytes, **hints: Any) -> StreamState:
    """Return the state at a stream's end; ``hints`` as in Hints."""
    state, decoder = StreamState(), Decoder(in_file(data), hints=Hints(**hints))
    failure = read_stream(decoder, no_tick, state)
    state.conclude(decoder.conclusion(), Hints(**hints), proper_end=failure is None)
    return state


def zeros(*sectors: int, device: str = "d") -> bytes:
    return b"".join(raw.block(sector, 8, device) for sector in sectors)


def of_disk(disk: DiskState) -> tuple[int, ...]:
    counts = disk.chunks, disk.zero_chunks, disk.repeated_chunks
    return (*counts, disk.top, disk.top_offset)


DATA = raw.block(4096, 0, rest=b"\1" * raw.CHUNK)
#: What: records, hints, (chunks, zeros, repeated, top, its offset), and the covered sectors.
DISKS: dict[str, tuple[bytes, dict[str, Any], tuple[int, ...], list[tuple[int, int]]]] = {
    "one chunk": (zeros(0), {}, (1, 1, 0, 0, 54), [(0, 2048)]),
    "a gap": (zeros(0, 6144), {}, (2, 2, 0, 6144, 64), [(0, 2048), (6144, 8192)]),
    "sent again": (zeros(0, 2048, 2048, 0), {}, (4, 4, 2, 2048, 64), [(0, 4096)]),
    "in part sent again": (zeros(0, 2048, 1000), {}, (3, 3, 1, 2048, 64), [(0, 4096)]),
    "in part new": (zeros(0, 1000, 999), {}, (3, 3, 1, 1000, 64), [(0, 3048)]),
    "data": (zeros(0) + DATA + zeros(4096), {}, (3, 2, 1, 4096, 64), [(0, 2048), (4096, 6144)]),
    "cut": (zeros(0, 2048, 2048), {"sizes": {"d": MIB + 1}}, (3, 3, 1, 2048, 64), [(0, 2049)]),
    "past the end": (
        zeros(0, 2048, 2048), {"sizes": {"d": MIB}}, (3, 3, 0, 2048, 64), [(0, 2048)]),
    "past the end, sent again": (
        raw.block(2048, 0x68, rest=raw.v2(1)) + zeros(2048), {"sizes": {"d": MIB}},
        (2, 2, 1, 2048, 54), [(2048, 2049)]),
    "bitmaps alone": (
        raw.block(0, 0x60, rest=raw.v2(2048, ("b", 1, 65536, WORD))), {}, (0, 0, 0, -1, 0), []),
}  # fmt: skip


@pytest.mark.parametrize("what", DISKS)
def test_a_disk(what: str) -> None:
    records, hints, counts, covered = DISKS[what]
    state = concluded(raw.qemu(records), **hints)
    assert of_disk(state.disks["d"]) == counts
    assert list(state.covered("d")) == covered
    assert state.disks["d"].has_blocks == bool(counts[0])


@pytest.mark.parametrize(
    ("records", "stated", "least", "covered"),
    [
        ([(0, 2048)], None, 2048, [(0, 2048)]),
        ([(0, 2047)], 2047, 2047, [(0, 2047)]),
        ([(0, 2049)], 2049, 2049, [(0, 2049)]),
        ([(0, 4096)], None, 4096, [(0, 4096)]),
        ([(0, 2048), (4096, 1)], 4097, 4097, [(0, 2048), (4096, 4097)]),
    ],
)
def test_v2_ranges(
    records: list[tuple[int, int]],
    stated: int | None,
    least: int,
    covered: list[tuple[int, int]],
) -> None:
    """Only one that ends within a chunk states the disk's size."""
    data = b"".join(v2(*record) for record in records)
    disk = concluded(raw.qemu(data)).disks["drive0"]
    assert disk.stated == (stated and stated * 512)
    assert disk.least == least * 512
    assert list(disk.bitmaps_covered) == covered


def of_bitmap(bitmap: BitmapState) -> tuple[Any, ...]:
    flags = bitmap.recording, bitmap.persistent, bitmap.ended
    return (bitmap.origin, bitmap.granularity, *flags, list(bitmap.covered))


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_flags_of_bitmaps(flags: int) -> None:
    """The last ones count, also in the bitmap itself; v1 has none."""
    first = raw.block(0, 0x60, rest=raw.v2(2048, ("b", 3 - flags, 65536, WORD)))
    last = raw.block(2048, 0x60, rest=raw.v2(2048, ("b", flags, 65536, WORD)))
    on, kept = flags % 2 == 1, flags >= 2
    bitmap = concluded(raw.qemu(first, last)).bitmaps["d", "b"]
    assert of_bitmap(bitmap) == ("v2", 65536, on, kept, False, [(0, 4096)])
    assert bitmap.content is not None
    assert (bitmap.content.recording, bitmap.content.persistent) == (on, kept)
    start = raw.bitmap_start(granularity=512, flags=flags & 1)
    bits = raw.bitmap_bits(0, 64, WORD)
    for end in (raw.COMPLETE, b""):
        bitmap = concluded(raw.qemu(bitmaps=start + bits + end)).bitmaps["d", "b"]
        assert of_bitmap(bitmap) == ("dirty-bitmap", 512, on, False, bool(end), [(0, 64)])


def test_v1_bitmaps() -> None:
    state = concluded(raw.qemu(v1(0) + v1(2048)), granularities=HINTS.granularities)
    assert [of_bitmap(bitmap) for bitmap in state.bitmaps.values()] == [
        ("v1", 1 << 20, True, False, False, [(0, 4096)])
    ] * 2
    assert list(state.bitmaps) == [("drive0", "daily"), ("drive0", "weekly")]


@pytest.mark.parametrize(
    ("step", "candidates"), [(1, [16384]), (0, [1 << shift for shift in range(14, 32)])]
)
def test_granularities_that_remain(step: int, candidates: list[int]) -> None:
    """Of the eight bytes of each chunk, the first bit is in turn clear and set, or always clear."""
    words = [(at % 2 * step).to_bytes(8, "little") for at in range(8)]
    records = [
        raw.part(1, raw.block(at * 2048, 0x28, rest=raw.v1(("b", word))) + raw.EOS) + raw.footer(1)
        for at, word in enumerate(words)
    ]
    empty = raw.part(1, raw.EOS)
    data = raw.qemu().replace(empty, b"".join(records) + empty)
    bitmap = concluded(data, sizes={"d": 8 * MIB}).bitmaps["d", "b"]
    assert bitmap.candidates == candidates
    assert (bitmap.open is None) == (len(candidates) == 1)
    if bitmap.content is None:
        assert bitmap.granularity is None
    else:
        assert bitmap.granularity == 16384
        assert bitmap.content.ranges() == [(at << 20, 16384) for at in (1, 3, 5, 7)]


def described(sizes: dict[str, int], identity: Identity | None = None) -> bytes:
    text = description(sizes, identity)
    return raw.qemu(zeros(0)) + b"\x06" + len(text).to_bytes(4, "big") + text


def test_a_description() -> None:
    state = concluded(described({"d": 2 * MIB, "e": MIB}))
    assert (state.described, state.identity) == ({"d": 2 * MIB, "e": MIB}, None)
    assert list(state.disks) == ["d"]
    assert state.stated_size("d") == 2 * MIB
    assert state.machine == "none"
    assert state.end == len(described({"d": 2 * MIB, "e": MIB}))


def test_an_identity() -> None:
    """A disk of which nothing was sent is one of the stream; that of a manifest counts last."""
    state = concluded(described({}, IDENTITY))
    assert (state.identity, state.identity_fault) == (IDENTITY, None)
    assert list(state.disks) == ["d", "a"]
    assert not state.disks["a"].has_blocks
    other = Identity(**{name: getattr(IDENTITY, name) for name in (
        "id", "base", "incremental", "created", "consistency")}, disks={"m": DiskIdentity(512)},
    )  # fmt: skip
    assert concluded(described({}, IDENTITY), identity=other).identity == IDENTITY
    state = concluded(raw.qemu(zeros(0)), identity=other)
    assert (state.identity, list(state.disks)) == (other, ["d", "m"])
    faulty = described({}, IDENTITY).replace(b'"paused"', b'"pausex"')
    state = concluded(faulty)
    assert (state.identity, state.described) == (None, {"a": MIB, "d": 2 * MIB})
    assert state.identity_fault is not None
    assert "consistency" in state.identity_fault


@pytest.mark.parametrize(
    ("end", "final", "ended"),
    [(raw.progress(100) + raw.EOS, True, True), (raw.progress(50) + raw.EOS, False, True),
     (raw.progress(100), True, False), (raw.EOS, False, True)],
)  # fmt: skip
def test_bare_records(end: bytes, final: bool, ended: bool) -> None:
    """The progress before the end is that of the section's end."""
    state = concluded(zeros(0, 2048) + end)
    assert (state.block_started, state.block_ended) == (True, ended)
    assert (state.progress.final, state.progress.percent) == (final, None)
    assert state.machine is None


@pytest.mark.parametrize("end", [raw.progress(100) + raw.EOS, raw.progress(50) + raw.EOS, raw.EOS])
def test_bare_records_as_a_run(end: bytes) -> None:
    data = zeros(0) + raw.progress(10) + zeros(2048) + end
    source = in_file(data)
    decoder = Decoder(source)
    events = list(decoder)
    for last in (len(events), len(events) - 1):
        state = StreamState()
        state.feed_run(run_of(events[:last], source), source)
        for event in events[last:]:
            state.feed(event, source)
        state.conclude(decoder.conclusion(), Hints(), proper_end=True)
        assert state.progress == concluded(data).progress
    assert state.progress.percent == 10


def test_progress_in_the_bulk_phase_and_at_the_end() -> None:
    state = concluded(raw.qemu(raw.progress(10), zeros(0), raw.progress(20)))
    assert (state.progress.percent, state.progress.final) == (20, True)
    assert (state.block_started, state.block_ended) == (True, True)
    state = concluded(raw.qemu(bitmaps=raw.bitmap_start(), blocks=False))
    assert (state.block_started, state.block_ended) == (False, False)


@pytest.mark.parametrize(
    ("length", "end", "top"),
    [(0, 0, -2048), (1, 1, 0), (512, 1, 0), (513, 2, 0), (MIB, 2048, 0), (MIB + 1, 2049, 2048),
     (2 * MIB, 4096, 2048), (3 * MIB - 1, 6144, 4096)],
)  # fmt: skip
def test_what_was_received_before(length: int, end: int, top: int) -> None:
    state = StreamState()
    state.add_received("d", length)
    disk = state.disks["d"]
    assert list(disk.covered) == ([(0, end)] if end else [])
    assert (disk.top, disk.chunks, disk.has_blocks) == (top, 0, bool(end))
    assert state.progress.continues
    assert state.progress.tops == ({"d": top} if end else {})


def bits(sectors: int, name: str = "b", end: bytes = raw.COMPLETE) -> bytes:
    return raw.bitmap_start(bitmap=name) + raw.bitmap_bits(0, sectors, WORD) + end


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (raw.qemu(bitmaps=bits(100)), 51200),
        (raw.qemu(bitmaps=bits(100, end=b"")), None),
        (raw.qemu(bitmaps=raw.bitmap_start() + raw.COMPLETE), None),
        (raw.qemu(bitmaps=bits(100) + bits(100, "c")), 51200),
        (raw.qemu(bitmaps=bits(100) + bits(101, "c")), None),
        (raw.qemu(bitmaps=bits(100) + bits(101, "c", b"")), 51200),
        (raw.qemu(raw.block(0, 0x60, rest=raw.v2(99)), bitmaps=bits(100)), 99 * 512),
        (raw.qemu(raw.block(0, 0x60, rest=raw.v2(2048, ("c", 1, 512, b""))), bitmaps=bits(100)),
         51200),
    ],
)  # fmt: skip
def test_a_size_that_is_stated(data: bytes, size: int | None) -> None:
    """By a v2 range, or by all bitmaps that ended."""
    assert concluded(data).stated_size("d") == size


ONE = raw.qemu(zeros(0, 2048), raw.progress(50))
STATED = raw.qemu(zeros(0, 2048), raw.progress(50), bitmaps=bits(4096))


@pytest.mark.parametrize(
    ("data", "hints", "expected"),
    [
        (ONE, {}, (2056192, 2 * MIB, "progress")),
        (ONE, {"sizes": {"d": 3 * MIB}}, (3 * MIB, 3 * MIB, "option")),
        (ONE, {"images": {"d": 3 * MIB}}, (3 * MIB, 3 * MIB, "image")),
        (ONE, {"sizes": {"d": MIB}, "images": {"d": 3 * MIB}}, (MIB, MIB, "option")),
        (ONE, {"largest": {"d"}}, (2 * MIB, 2 * MIB, "option")),
        (ONE, {"largest": {"e"}}, (2056192, 2 * MIB, "progress")),
        (raw.qemu(zeros(0)), {"largest": {"d"}}, (512, None, "none")),
        (STATED, {}, (2 * MIB, 2 * MIB, "stream")),
        (STATED, {"images": {"d": 3 * MIB}}, (2 * MIB, 2 * MIB, "stream")),
        (STATED, {"sizes": {"d": 3 * MIB}}, (3 * MIB, 3 * MIB, "option")),
    ],
)
def test_which_size_counts(
    data: bytes, hints: dict[str, Any], expected: tuple[int, int | None, Any]
) -> None:
    state = concluded(data, **hints)
    assert state.size("d", Hints(**hints)) == SizeBounds(*expected)
    if data == STATED:
        assert state.proven_size("d") == SizeBounds(2 * MIB, 2 * MIB, "stream")


def tail(words: int, *percents: int) -> bytes:
    """Two chunks, of which the second has ``words`` of bits for 256 KiB each."""
    first, last = (
        raw.block(at, 0x28, rest=raw.v1(("b", bytes(8 * number))))
        for at, number in ((0, 4), (2048, words))
    )
    return raw.qemu(first, *map(raw.progress, percents), last)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tail(1), (MIB + 512, MIB + (256 << 10), "bitmap-layout")),
        (tail(2), (MIB + (256 << 10) + 512, MIB + (512 << 10), "bitmap-layout")),
        # Progress allows as much, more, less, or too little.
        (tail(1, 80), (MIB + 512, MIB + (256 << 10), "bitmap-layout")),
        (tail(1, 79), (MIB + 512, MIB + (256 << 10), "bitmap-layout")),
        (tail(1, 90), (MIB + 512, 1164800, "bitmap-layout")),
        (tail(2, 90), (MIB + (256 << 10) + 512, MIB + (512 << 10), "bitmap-layout")),
        (raw.qemu(zeros(0, 2048), raw.progress(33)), (3084288, 3177472, "progress")),
        (raw.qemu(zeros(0, 2048), zeros(0, device="e")), (MIB + 512, None, "none")),
        (raw.qemu(raw.block(0, 0x68, rest=raw.v2(2048))), (MIB, None, "none")),
        (raw.qemu(raw.block(0, 0x60, rest=raw.v2(2048))), (MIB, None, "none")),
    ],
)
def test_bounds(data: bytes, expected: tuple[int, int | None, Any]) -> None:
    state = concluded(data, granularities={(None, "b"): 4096})
    assert state.proven_size("d") == SizeBounds(*expected)


def test_bounds_by_a_record_at_the_end_and_by_progress() -> None:
    first, second, last = (
        raw.block(at, 0x28, rest=raw.v1(("b", bytes(8 * number))))
        for at, number in ((0, 4), (2048, 4), (4096, 1))
    )
    data = raw.qemu(first, second, raw.progress(48), last)
    state = concluded(data, granularities={(None, "b"): 4096})
    assert state.proven_size("d") == SizeBounds(4180 * 512, 4608 * 512, "bitmap-layout")
    # Progress allows the least sector of those in which the last word lies, and no more.
    first, last = (
        raw.block(at, 0x28, rest=raw.v1(("b", bytes(8 * number))))
        for at, number in ((0, 32), (2048, 8))
    )
    state = concluded(raw.qemu(first, raw.progress(82), last), granularities={(None, "b"): 512})
    assert state.proven_size("d") == SizeBounds(2497 * 512, 2497 * 512, "bitmap-layout")


@pytest.mark.parametrize(("records", "least"), [([0, 2048], 2048), ([0, 2048, 2048], 2048)])
def test_bounds_by_chunks_that_explain_the_percentages(records: list[int], least: int) -> None:
    """Each chunk but the first one explains one percentage, also where the disk's end cuts it."""
    percents = [raw.progress(percent) for percent in (0, 50)]
    state = concluded(raw.qemu(zeros(*records), *percents))
    assert state.proven_size("d").most == 2 * MIB
    more = concluded(raw.qemu(zeros(*records), raw.progress(49), raw.progress(50)))
    assert more.proven_size("d").most is None
