"""Whether a stream from a pipe is announced as an increment, before it is read."""

import pytest

from blkmig_cli.wire.announcement import announcement, is_announced
from blkmig_cli.wire.decoder import Decoder
from blkmig_cli.wire.encoder import encode
from blkmig_cli.wire.events import Progress
from tests.support import raw
from tests.support.feed import events, piped

HEAD = raw.HEADER + raw.configuration()
EARLY = raw.start(1, "block", 1, raw.progress(0) + raw.EOS) + raw.footer(1)
NONE = raw.start(1, "block", 1, raw.EOS) + raw.footer(1)
LATER = raw.start(9, "block", 1, raw.progress(0) + raw.EOS) + raw.footer(9)
OTHER = raw.start(2, "dirty-bitmap", 1, b"\x01") + raw.footer(2)


@pytest.mark.parametrize(
    ("data", "announced"),
    [
        (HEAD + EARLY + raw.EOF, True),
        (HEAD + OTHER + EARLY, True),
        (HEAD + EARLY[: -len(raw.footer(1))], True),
        (raw.qemu(raw.progress(0), raw.block(0, 8)), False),
        (HEAD + OTHER + raw.start(1, "block", 1, raw.EOS) + raw.footer(1) + raw.EOF, False),
        (HEAD + raw.EOF, False),
    ],
)
def test_progress_in_the_first_part(data: bytes, announced: bool) -> None:
    assert is_announced(Decoder(piped(data))) == announced


def test_the_record() -> None:
    assert announcement() == Progress(0, 0, "block", 0, 4)
    assert list(encode(announcement())) == [raw.progress(0)]


@pytest.mark.parametrize(
    ("data", "announced"),
    [
        (HEAD + OTHER + raw.part(2, b"\x01") + raw.footer(2) + EARLY, False),
        (HEAD + raw.start(3, "dev", 1, b"state", kind=4) + raw.footer(3) + EARLY, False),
        (HEAD + NONE + OTHER + LATER, False),
        (HEAD + NONE + LATER, False),
        (HEAD, False),
        (raw.progress(0) + raw.block(0, 8) + raw.EOS, False),
    ],
)
def test_progress_that_is_none(data: bytes, announced: bool) -> None:
    """What comes later, or in another section."""
    found, _ = events(piped(data + raw.EOF))
    assert is_announced(found) == announced


@pytest.mark.parametrize(("data", "left"), [(HEAD + EARLY, 2), (HEAD + NONE + OTHER, 3)])
def test_no_more_is_read_than_is_needed(data: bytes, left: int) -> None:
    """What comes later may not be there yet."""
    found, _ = events(piped(data))
    behind = iter(found)
    is_announced(behind)
    assert len(list(behind)) == left
