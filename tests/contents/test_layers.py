"""Layouts of streams on top of each other: what the last one has counts, within the disk's last size."""

import os

import pytest

from blkmig_cli.contents.final_layout import EndState, Stretch
from blkmig_cli.contents.layers import Layers
from blkmig_cli.wire.events import Payload
from tests.support.feed import in_file

CHUNK = 2048
MIB = 1 << 20


def layout(*stretches: Stretch) -> EndState:
    found = EndState()
    for stretch in stretches:
        found.put(stretch)
    return found


def shown(layers: Layers, device: str = "d") -> list[tuple[int, int, int | None]]:
    return [(found.start, found.end, found.offset) for found in layers.disks[device]]


@pytest.fixture
def layers() -> Layers:
    """A disk of four chunks, of which the first has data and the last two are zeros."""
    found = Layers()
    first = layout(Stretch(0, CHUNK, 100, 0), Stretch(2 * CHUNK, 4 * CHUNK))
    found.add(in_file(b"a" * 5000), 4000, {"d": first, "e": first}, {"d": 4 * MIB}, frozenset())
    return found


def test_only_disks_of_known_size_are_held(layers: Layers) -> None:
    assert shown(layers) == [(0, CHUNK, 100), (2 * CHUNK, 4 * CHUNK, None)]
    assert layers.disks.keys() == {"d"}


def test_the_last_stream_counts(layers: Layers) -> None:
    """Its data lies behind that of the streams before."""
    second = layout(Stretch(2 * CHUNK, 3 * CHUNK, 7, 2 * CHUNK))
    layers.add(in_file(b"b" * 5000), 3000, {"d": second}, {"d": 4 * MIB}, frozenset())
    assert shown(layers) == [
        (0, CHUNK, 100), (2 * CHUNK, 3 * CHUNK, 4007), (3 * CHUNK, 4 * CHUNK, None),
    ]  # fmt: skip
    target = bytearray(1)
    for offset, byte in ((100, b"a"), (3999, b"a"), (4000, b"b"), (4007, b"b")):
        layers.source.read_into(memoryview(target), offset)
        assert target == byte
        fd, place = layers.source.place_of(offset)
        assert os.pread(fd, 1, place) == byte


def test_data_at_the_first_byte(layers: Layers) -> None:
    second = layout(Stretch(0, CHUNK, 0, 0))
    layers.add(in_file(b"b" * 5000), 3000, {"d": second}, {"d": 4 * MIB}, frozenset())
    assert shown(layers) == [(0, CHUNK, 4000), (2 * CHUNK, 4 * CHUNK, None)]


def test_data_is_given_to_a_pipe(layers: Layers) -> None:
    layers.add(in_file(b"b" * 5000), 3000, {}, {"d": 4 * MIB}, frozenset())
    reader, writer = os.pipe()
    try:
        given = layers.source.give_to(writer, Payload(4001, 2))
        assert given in (0, 2)
        assert not given or os.read(reader, 9) == b"bb"
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("size", [3 * MIB, 3 * MIB - 511, MIB, 512])
def test_a_disk_that_has_shrunk(layers: Layers, size: int) -> None:
    """What was beyond its end is no content, also where it grows again."""
    layers.add(in_file(b""), 0, {}, {"d": size}, frozenset())
    sectors = -(-size // 512)
    wanted = [(0, min(CHUNK, sectors), 100), (2 * CHUNK, 3 * CHUNK, None)]
    wanted = wanted if sectors > 2 * CHUNK else wanted[:1]
    assert shown(layers) == wanted
    layers.add(in_file(b""), 0, {}, {"d": 4 * MIB}, frozenset())
    assert shown(layers) == wanted


def test_new_content_beyond_the_end(layers: Layers) -> None:
    whole = layout(Stretch(0, 4 * CHUNK))
    layers.add(in_file(b""), 0, {"d": whole}, {"d": 2 * MIB + 512}, frozenset({"d"}))
    assert shown(layers) == [(0, 2 * CHUNK + 1, None)]


def test_a_complete_disk_replaces_what_was_below(layers: Layers) -> None:
    second = layout(Stretch(CHUNK, 2 * CHUNK, 7, CHUNK))
    layers.add(in_file(b"b" * 5000), 3000, {"d": second}, {"d": 4 * MIB}, frozenset({"d"}))
    assert shown(layers) == [(CHUNK, 2 * CHUNK, 4007)]
