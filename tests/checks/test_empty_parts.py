"""Empty parts are counted however the events of a stream come, one by one or in runs."""

import pytest

from blkmig_cli.checks.defects import Defects
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.events import SectionHeader
from tests.support import raw
from tests.support.feed import in_file
from tests.support.runs import run_of

START = raw.HEADER + raw.configuration() + raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
START += raw.start(2, "dirty-bitmap", 1, raw.bitmap_start() + b"\1") + raw.footer(2)
END = raw.part(1, raw.progress(100) + raw.EOS, kind=3) + raw.footer(1) + raw.EOF
#: Parts by letter: empty ones of both sections, and others.
PARTS = {
    "e": raw.part(1, raw.EOS) + raw.footer(1),
    "b": raw.part(2, b"\1") + raw.footer(2),
    "z": raw.part(1, raw.block(0, 8) + raw.EOS) + raw.footer(1),
    "p": raw.part(1, raw.progress(9) + raw.EOS) + raw.footer(1),
    "c": raw.part(2, raw.bitmap_bits(0, 8192, bytes(8)) + b"\1") + raw.footer(2),
}
LAST = 1000


def first_empty(parts: str) -> int:
    """Return the offset of the first empty part."""
    at = len(START)
    for part in parts:
        if part in "eb":
            return at
        at += len(PARTS[part])
    return at


@pytest.mark.parametrize(
    ("parts", "total", "names"),
    [
        ("eez", 1002, "block"),
        ("zeeze", 1003, "block"),
        ("bebeeb", 1006, "dirty-bitmap, block"),
        ("zcbpeb", 1003, "dirty-bitmap, block"),
        ("cecbze", 1003, "block, dirty-bitmap"),
        ("ppzzcc", 1000, "block"),
        ("zezezezb", 1004, "block, dirty-bitmap"),
        ("bbbbzz", 1004, "dirty-bitmap, block"),
    ],
)
def test_any_events_as_runs(parts: str, total: int, names: str) -> None:
    """In one run before every event, and one behind it."""
    source = in_file(START + b"".join(map(PARTS.__getitem__, parts + "e" * LAST)) + END)
    events = list(Decoder(source))
    end = len(events) - 5 - 3 * LAST
    assert isinstance(events[end], SectionHeader)
    start = next(number for number, event in enumerate(events) if event.offset == len(START))
    many = run_of(events[end:-5], source)
    expected = (
        "empty-parts", f"{total:,} empty parts ({names})", first_empty(parts),
    )  # fmt: skip
    for cut in range(start, end + 1):
        for further in {min(cut + length, end) for length in (0, 1, 2, 4, 5, 6)}:
            defects = Defects()
            for piece in (events[:start], events[start:cut], events[cut:further]):
                if len(piece) > 1 and piece[0].offset >= len(START):
                    defects.feed_run(run_of(piece, source), source)
                else:
                    for event in piece:
                        defects.feed(event, source)
            if further < end:
                defects.feed_run(run_of(events[further:end], source), source)
            defects.feed_run(many, source)
            for event in events[-5:]:
                defects.feed(event, source)
            assert list(defects.findings()) == [expected], (cut, further)
