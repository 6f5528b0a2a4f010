"""What a stream proves of its disks' sizes."""

import pytest

from blkmig_cli.checks.survey import read_stream
from blkmig_cli.contents.state import StreamState
from blkmig_cli.progress import no_tick
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.hints import Hints
from tests.support import raw
from tests.support.feed import BySchemas, in_file

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
    assert state.proven_size("d").exact is None
    assert not state.covered("d")
