"""v1 without hints: the lengths, the disk's size and the granularities found are never wrong."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from blkmig_cli.checks.checker import Checker
from blkmig_cli.errors import TruncatedError, UndecidableError
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.hints import Hints
from tests.support import raw
from tests.support.feed import in_file, piped


@dataclass(frozen=True)
class Truth:
    """A v1 stream, and what it was made of."""

    size: int
    granularities: dict[str, int]
    dirty: dict[str, frozenset[int]]
    lengths: list[list[int]]
    data: bytes = field(repr=False)

    @property
    def hints(self) -> Hints:
        granularities: dict[tuple[str | None, str], int] = {
            (None, name): value for name, value in self.granularities.items()
        }
        return Hints({None: self.size}, granularities)


def words(dirty: frozenset[int], granularity: int, sector: int, sectors: int) -> bytes:
    """The bits of one record, as the format's page has them."""
    number = (sectors * 512 - 1) // granularity // 64 + 1
    first = sector * 512 // granularity // 64 * 64
    value = sum(1 << bit - first for bit in dirty if first <= bit < first + 64 * number)
    return value.to_bytes(8 * number, "little")


@st.composite
def truths(draw: st.DrawFn) -> Truth:
    sectors = draw(st.one_of(st.integers(1, 5 * 2048), st.sampled_from([2047, 2048, 2049, 4096])))
    size = sectors * 512
    granularities = {
        name: 1 << draw(st.integers(9, 31))
        for name in draw(st.lists(st.sampled_from(["a", "bitmap", "é"]), unique=True, max_size=2))
    }
    dirty = {
        name: frozenset(draw(st.sets(st.integers(0, -(-size // g) - 1), max_size=30)))
        for name, g in granularities.items()
    }
    chunks = list(range(-(-sectors // 2048)))
    order = draw(st.sampled_from(["forward", "backward", "any"]))
    chunks = draw(st.permutations(chunks)) if order == "any" else chunks
    records, lengths = b"", []
    for chunk in reversed(chunks) if order == "backward" else chunks:
        sector = chunk * 2048
        count = min(2048, sectors - sector)
        bits = {n: words(dirty[n], g, sector, count) for n, g in granularities.items()}
        kind = draw(st.sampled_from([0x20, 0x28, 0x28, 0x30]))
        data = draw(st.binary(min_size=1, max_size=1)) * raw.CHUNK if kind == 0x30 else b""
        records += raw.block(sector, kind, rest=raw.v1(*bits.items()) + data)
        lengths.append([len(piece) for piece in bits.values()])
    whole = records + raw.EOS if draw(st.booleans()) else raw.qemu(records)
    return Truth(size, granularities, dirty, lengths, whole)


SETTINGS = settings(max_examples=120)


def found_lengths(blocks: list[Block]) -> list[list[int]]:
    return [[part.bits.length for part in block.bitmaps] for block in blocks]


@SETTINGS
@given(truths())
def test_with_hints(truth: Truth) -> None:
    for source in (in_file(truth.data), piped(truth.data)):
        blocks = [e for e in Decoder(source, hints=truth.hints) if isinstance(e, Block)]
        assert found_lengths(blocks) == truth.lengths
        for block in blocks:
            assert block.sectors == min(2048, truth.size // 512 - block.sector)
            assert {part.name: part.granularity for part in block.bitmaps} == truth.granularities


@SETTINGS
@given(truths(), st.booleans())
def test_without_hints(truth: Truth, from_pipe: bool) -> None:
    source = piped(truth.data) if from_pipe else in_file(truth.data)
    decoder = Decoder(source)
    checker = Checker(Hints())
    blocks = []
    try:
        for event in decoder:
            checker.feed(event, source)
            if isinstance(event, Block):
                blocks.append(event)
    except (UndecidableError, TruncatedError):
        assert found_lengths(blocks) == truth.lengths[: len(blocks)]
        return
    assert found_lengths(blocks) == truth.lengths
    report = checker.finish("s", decoder)
    for block in blocks:
        count = min(2048, truth.size // 512 - block.sector)
        assert block.sectors_min <= count <= block.sectors or not block.bitmaps
    for verdict in report.bitmaps:
        name = verdict.bitmap.name
        assert truth.granularities[name] in verdict.candidates
        if truth.granularities[name] < 16384 and truth.size > raw.CHUNK:
            assert verdict.candidates == (truth.granularities[name],)
            assert verdict.bitmap.content is not None
            dirty = {
                granule
                for first, number in verdict.bitmap.content.granule_runs()
                for granule in range(first, first + number)
            }
            assert dirty == truth.dirty[name]
    assert len(report.bitmaps) == len(truth.granularities)
    for device in report.devices:
        least, most = device.size.least, device.size.most
        assert least <= truth.size
        assert most is None or truth.size <= most
