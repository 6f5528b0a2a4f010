"""Streams with more parts than are allowed: the error belongs to the check of limits."""

import struct

import pytest

from blkmig_cli import limits
from blkmig_cli.errors import StreamError
from blkmig_cli.wire.decoder import Decoder
from tests.support import raw
from tests.support.feed import in_file

HEAD = raw.HEADER + raw.configuration()
SECTIONS = b"".join(raw.start(at, "block", 1, raw.EOS) + raw.footer(at) for at in range(9))
BLOCKS = b"".join(raw.name(f"m{at}") + struct.pack(">Q", 4096) for at in range(9))
RAM = raw.start(2, "ram", 4, struct.pack(">Q", 9 * 4096 | 4) + BLOCKS + struct.pack(">Q", 0x10))


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("SECTIONS_MAX", HEAD + SECTIONS, "over 8 sections"),
        ("RAM_BLOCKS_MAX", HEAD + RAM, "over 8 RAM blocks"),
    ],
)
def test_its_check(monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, text: str) -> None:
    monkeypatch.setattr(limits, name, 8)
    with pytest.raises(StreamError, match=text) as error:
        list(Decoder(in_file(data)))
    assert error.value.check == "limit"
