"""What stands behind the end of v1 records decides whether a reading of them makes sense.

The records here can be read in two ways, both of which come to the same end, that of more records last:
where nothing sensible stands there, the other way is given up before.
"""

import pytest

from blkmig_cli.wire.events import Block
from blkmig_cli.wire.schema_io import Input
from tests.support import raw
from tests.support.feed import events, in_file, piped

pytestmark = pytest.mark.usefixtures("engine")

HEAD = raw.HEADER + raw.configuration()
#: 16 bytes of bits, or 8 and a record; no other length makes sense.
RECORDS = (
    raw.block(4096, 8)
    + raw.block(0, 0x20, rest=raw.v1(("b", bytes(8) + raw.progress(1))))
    + raw.block(2048, 8, "dd") * 40
    + raw.EOS
)
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


def verdict(source: Input) -> str | None:
    """Why the records cannot be read; None if the way that is left is taken."""
    found, error = events(source)
    lengths = [
        part.bits.length for event in found if isinstance(event, Block) for part in event.bitmaps
    ]
    if error is None or lengths:
        assert lengths == [8]
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
