"""Encoding is the inverse of decoding, to the byte: every object of the formats, alone and in runs."""

import struct
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blkmig_cli.schemas.constants import BlockFlag, SectionType
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.encoder import encode, encoded_length
from blkmig_cli.wire.events import Block, Eos, Event, Footer, Payload, Progress, Ram, SectionHeader
from blkmig_cli.wire.runs.columns import Column, Numbers, Run, laid_out
from blkmig_cli.wire.runs.encoder import encode_run
from blkmig_cli.wire.schema_io import Input
from tests.support import raw
from tests.support.feed import in_file
from tests.wire.test_decoder import GOOD, RAM, mem_size, ram


def subsection(name: str, body: bytes) -> bytes:
    return b"\5" + raw.name(f"configuration/{name}") + struct.pack(">I", 1) + body


PAGE_BITS = subsection("target-page-bits", struct.pack(">I", 14))
NAMES = subsection(
    "capabilities", struct.pack(">I", 2) + raw.name("x-ignore-shared") + raw.name("a")
)
UUID = subsection("uuid", bytes(range(16)))
CONFIGURATIONS = {
    "no-subsections": b"",
    "page-bits": PAGE_BITS,
    "capabilities": NAMES,
    "no-capabilities": subsection("capabilities", struct.pack(">I", 0)),
    "uuid": UUID,
    "all": PAGE_BITS + NAMES + UUID,
}


def mapped() -> bytes:
    header = struct.pack(">IQQQ", 1, 4096, 0, 500)
    prefix = ram(mem_size(("a", 4096, header)), capabilities=("mapped-ram",))
    cut = prefix.rindex(header) + len(header)
    return prefix[:cut].ljust(500, b"\xbb").ljust(500 + 4096, b"\xaa") + prefix[cut:]


STREAMS = {
    **GOOD,
    **{f"ram-{name}": data for name, data in RAM.items()},
    **{
        f"configuration-{name}": raw.HEADER + raw.configuration("pc") + body + raw.EOF
        for name, body in CONFIGURATIONS.items()
    },
    "mapped-ram": mapped(),
    "ram-page-of-a-block": ram(struct.pack(">Q", 0x7008) + raw.name("a") + b"\x77" * 4096),
    "ram-fill": ram(struct.pack(">Q", 0x22) + b"\xfe"),
}


def encoded(events: Iterable[Event], source: Input) -> bytes:
    return b"".join(
        piece if isinstance(piece, bytes) else bytes(source.view(piece))
        for event in events
        for piece in encode(event)
    )


@pytest.mark.parametrize("name", STREAMS)
def test_round_trip(name: str) -> None:
    source = in_file(STREAMS[name])
    events = list(Decoder(source, keep_state=True))
    assert encoded(events, source) == STREAMS[name]
    assert [encoded_length(event) for event in events] == [event.length for event in events]


@given(
    st.lists(st.sampled_from(["block", "progress", "page", "plain"]), min_size=1, max_size=6),
    st.integers(1, 40),
    st.data(),
)
def test_runs(kinds: list[str], rows: int, data: st.DataObject) -> None:
    """The bytes of a run are those of its events, one by one; sectors up to all 55 bits."""
    columns = []
    order = st.lists(st.integers(0, 3 * rows), min_size=rows, max_size=rows).map(sorted)
    in_rows = data.draw(st.booleans())

    def places() -> Numbers:
        """Return what the events of a column are sorted by: row by row, or in any order."""
        return np.array(range(rows) if in_rows else data.draw(order), np.int64)

    for kind in kinds:
        most = (1 << 55) - 1 if kind == "block" else 100
        drawn = data.draw(st.lists(st.integers(0, most), min_size=rows, max_size=rows))
        numbers = np.array(drawn, np.int64)
        if kind == "block":
            name = data.draw(st.sampled_from(["", "d", "drive0", "\udcff"]))
            flags = data.draw(st.sampled_from([0x09, 0x0B, 0x29]))
            block = Block(0, 0, "block", name, drawn[0], 2048, 2048, flags, "v1", None, ())
            columns.append(Column(block, places(), numbers))
        elif kind == "progress":
            progress = Progress(0, 0, "block", drawn[0], BlockFlag.PROGRESS)
            columns.append(Column(progress, places(), numbers))
        elif kind == "page":
            page = Ram(0, 0, "ram", 0x22, None, drawn[0] * 4096, (0,))
            columns.append(Column(page, places(), numbers * 4096))
        else:
            header = SectionHeader(0, 0, "block", SectionType.PART, 1, 0, 1)
            columns += [
                Column(header, places()),
                Column(Eos(0, 0, "block", 2), places()),
                Column(Footer(0, 0, "block", 1), places()),
            ]
    run = laid_out(columns, [encoded_length(column.event) for column in columns])
    one_by_one = b"".join(
        piece for event in run for piece in encode(event) if isinstance(piece, bytes)
    )
    assert bytes(encode_run(run)) == one_by_one
    assert run.start == 0
    assert len(one_by_one) == run.end


def test_runs_have_no_payloads() -> None:
    data = Block(0, 0, "block", "d", 0, 2048, 2048, 1, "classic", Payload(0, raw.CHUNK), ())
    page = Ram(0, 0, "ram", 8, "a", 0, (), Payload(0, 4096))
    for event in (data, page):
        with pytest.raises(AssertionError):
            encode_run(Run((Column(event, np.zeros(1, np.int64)),), encoded_length(event)))
