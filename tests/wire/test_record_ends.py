"""What stands behind the end of v1 records decides whether a reading of them makes sense.

The records here can be read in two ways, both of which come to the same end, that of more records last:
where nothing sensible stands there, the other way is given up before.
"""

import pytest

from blkmig_cli import limits
from blkmig_cli.wire.events import Block
from blkmig_cli.wire.hints import Hints
from blkmig_cli.wire.schema_io import Input
from tests.support import raw
from tests.support.feed import events, in_file, piped

pytestmark = pytest.mark.usefixtures("engine")

HEAD = raw.HEADER + raw.configuration()
#: 16 bytes of bits, or 8 and a record; no other length makes sense.
OPEN = (
    raw.block(4096, 8)
    + raw.block(0, 0x20, rest=raw.v1(("b", bytes(8) + raw.progress(1))))
    + raw.block(2048, 8, "dd") * 40
)
RECORDS = OPEN + raw.EOS
OLD = raw.HEADER + raw.start(7, "block", 1, raw.EOS) + raw.part(7, RECORDS)
NEW = HEAD + raw.start(7, "block", 1, raw.EOS) + raw.footer(7) + raw.part(7, RECORDS)
#: No section has ended, so that it is not known whether there are footers.
FIRST = raw.HEADER + raw.start(7, "block", 1, RECORDS)
FOOTER, OTHER = raw.footer(7), raw.footer(8)
NAMED = raw.start(9, "n" * 255, 1)

ENDS, CUT, NONSENSE = "UndecidableError", "TruncatedError", None
CASES: dict[str, tuple[bytes, str | None]] = {
    "old, nothing": (OLD, CUT),
    "old, end": (OLD + raw.EOF, ENDS),
    "old, a part": (OLD + raw.part(7, b""), ENDS),
    "old, another part": (OLD + raw.part(8, b""), NONSENSE),
    "old, a footer": (OLD + FOOTER + raw.EOF, NONSENSE),
    "old, a byte": (OLD + b"\x55", NONSENSE),
    "new, nothing": (NEW, CUT),
    "new, half a footer": (NEW + FOOTER[:3], CUT),
    "new, a footer alone": (NEW + FOOTER, CUT),
    "new, half of another": (NEW + OTHER[:4], CUT),
    "new, another alone": (NEW + OTHER, NONSENSE),
    "new, another and the end": (NEW + OTHER + raw.EOF, NONSENSE),
    "new, a footer and the end": (NEW + FOOTER + raw.EOF, ENDS),
    "new, a footer and a part": (NEW + FOOTER + raw.part(7, b""), ENDS),
    "new, a footer and another part": (NEW + FOOTER + raw.part(8, b""), NONSENSE),
    "new, a footer and a byte": (NEW + FOOTER + b"\x55", NONSENSE),
    "new, a long name": (NEW + FOOTER + NAMED, ENDS),
    "new, a long name that is none": (NEW + FOOTER + NAMED[:260] + b"\n" + NAMED[261:], NONSENSE),
    "new, no footer": (NEW + raw.EOF + bytes(9), NONSENSE),
    "first, nothing": (FIRST, CUT),
    "first, half a footer": (FIRST + FOOTER[:1], CUT),
    "first, a footer alone": (FIRST + FOOTER, CUT),
    "first, another alone": (FIRST + OTHER, NONSENSE),
    "first, a footer and the end": (FIRST + FOOTER + raw.EOF, ENDS),
    "first, a footer and a byte": (FIRST + FOOTER + b"\x55", NONSENSE),
    "first, end": (FIRST + raw.EOF, ENDS),
    "first, a byte": (FIRST + b"\x55", NONSENSE),
    "bare, nothing": (RECORDS, ENDS),
    "bare, more": (RECORDS + raw.EOS, ENDS),
    "bare, a flag of no dialect": (RECORDS + raw.word(0, 0x80), NONSENSE),
}


def verdict(source: Input, hints: Hints | None = None) -> str | None:
    """Why the records cannot be read; None if the way that is left is taken."""
    found, error = events(source, hints=hints)
    lengths = [
        part.bits.length for event in found if isinstance(event, Block) for part in event.bitmaps
    ]
    if error is None or lengths:
        assert lengths[:1] == [8]
        return None
    assert "specify --granularity" in error
    return error.partition(":")[0]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("source", [in_file, piped])
def test_ends(name: str, source: type) -> None:
    data, expected = CASES[name]
    assert verdict(source(data)) == expected


def test_a_footer_is_of_the_section_that_ends() -> None:
    """Of two sections with blocks, it is the one whose part it is."""
    start = raw.start(8, "block", 1, raw.EOS) + raw.footer(8)
    data = HEAD + raw.start(7, "block", 1, raw.EOS) + FOOTER + start + raw.part(7, RECORDS)
    assert verdict(in_file(data + FOOTER + raw.EOF)) == ENDS
    assert verdict(in_file(data + OTHER + raw.EOF)) is None


DATA = bytes(raw.CHUNK)
#: The highest sector of a record.
MOST = limits.DISK_MAX // 512
Z = raw.block(0, 8, "z")
MORE: dict[str, tuple[bytes, bool]] = {
    "progress": (raw.progress(100), True),
    "too much progress": (raw.progress(101), False),
    "the highest sector": (raw.block(MOST, 8), True),
    "past the highest sector": (raw.block(MOST + 1, 8), False),
    "a name of zeros": (raw.block(0, 8, "a\0"), False),
    "no name": (raw.block(0, 8, ""), True),
    "data": (raw.block(0, 0x10, rest=DATA), True),
    "zeros, not data": (raw.block(0, 0x18), True),
    "nothing": (raw.block(0, 0), True),
    "unknown flags": (raw.block(0, 0x88), False),
    "no flags": (raw.word(0, 0), False),
    "no bitmaps": (raw.block(0, 0x28, rest=raw.v1()), True),
    "a bitmap without a name": (raw.block(0, 0x28, rest=raw.v1(("", bytes(8)))), False),
    "a bitmap's name of zeros": (raw.block(0, 0x28, rest=raw.v1(("b\0", bytes(8)))), False),
    "many bitmaps": (raw.block(0, 0x28, rest=(1025).to_bytes(4, "big")), False),
}


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("before", [b"", Z])
def test_records_before_the_end(name: str, before: bytes) -> None:
    """Whether they make sense in a stream of v1."""
    more, good = MORE[name]
    data = NEW.removesuffix(RECORDS) + OPEN + before + more + raw.EOS + FOOTER + raw.EOF
    assert verdict(in_file(data)) == (ENDS if good else NONSENSE)


ENDING: dict[str, tuple[bytes, str | None]] = {
    "v2 of a device": (Z + raw.block(0, 0x68, "z"), ENDS),
    "v2 of another device": (raw.block(0, 0x68, "z"), NONSENSE),
    "v2 of no device": (Z + raw.word(0, 0x6A), NONSENSE),
    "an end with an offset": (raw.word(1, 2) + FOOTER + raw.EOF, NONSENSE),
    "an end with progress": (raw.word(100, 6) + FOOTER + raw.EOF, ENDS),
    "an end with too much progress": (raw.word(101, 6) + FOOTER + raw.EOF, NONSENSE),
    "an end in a record": (raw.block(0, 0x0A) + FOOTER + raw.EOF, ENDS),
    "an end in a record, and a byte": (raw.block(0, 0x0A) + FOOTER + b"\x55", NONSENSE),
    "an end in a record alone": (raw.block(0, 0x0A), CUT),
    "half a word": (raw.EOS[:7], CUT),
    "half a name": (raw.block(0, 8, "ddd")[:-1], CUT),
    "half of the data": (raw.block(0, 0x10, rest=DATA[:-1]), CUT),
    "all of the data": (raw.block(0, 0x10, rest=DATA), CUT),
    "no count": (raw.block(0, 0x28, rest=bytes(3)), CUT),
    "no bitmap's name": (raw.block(0, 0x28, rest=bytes(3) + b"\1\5dd"), CUT),
    "half of the bits": (raw.block(0, 0x28, rest=raw.v1(("c", bytes(7)))), CUT),
}


@pytest.mark.parametrize("name", ENDING)
@pytest.mark.parametrize("source", [in_file, piped])
def test_the_last_record(name: str, source: type) -> None:
    more, expected = ENDING[name]
    assert verdict(source(NEW.removesuffix(RECORDS) + OPEN + more)) == expected


@pytest.mark.parametrize(
    ("records", "good"),
    [
        ([("c", "e")], True),
        ([("c", "e", "f")], False),
        ([("c",), ("e",)], True),
        ([("c",), ("e",), ("f",)], False),
        ([("c",), ("c", "e"), ("e", "c")], True),
    ],
)
def test_so_many_bitmaps(
    records: list[tuple[str, ...]], good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside that of another device."""
    monkeypatch.setattr(limits, "BITMAPS_MAX", 3)
    more = b"".join(
        raw.block(0, 0x28, "z", raw.v1(*((name, bytes(8)) for name in names))) for names in records
    )
    data = NEW.removesuffix(RECORDS) + OPEN + more + raw.EOS + FOOTER + raw.EOF
    hints = Hints({}, {(None, name): 65536 for name in "cef"})
    assert verdict(in_file(data), hints) == (ENDS if good else NONSENSE)
