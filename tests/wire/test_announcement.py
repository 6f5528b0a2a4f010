"""Whether a stream from a pipe is announced as an increment, before it is read."""

import pytest

from blkmig_cli.wire.announcement import is_announced
from blkmig_cli.wire.decoder import Decoder
from tests.support import raw
from tests.support.feed import piped

HEAD = raw.HEADER + raw.configuration()
EARLY = raw.start(1, "block", 1, raw.progress(0) + raw.EOS) + raw.footer(1)
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
