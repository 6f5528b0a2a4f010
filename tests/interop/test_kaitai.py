"""docs/blkmig.ksy, compiled by Kaitai Struct's own compiler, reads streams as our decoder does."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from blkmig_cli.wire.events import Block
from tests.conftest import MANY_PARTS, MORE, Capture, captures_but
from tests.project.test_docs import script
from tests.support import raw
from tests.support.feed import events, in_file
from tests.support.kaitai import blocks_in_javascript, compiled, expected, parsed
from tests.support.long import examples
from tests.support.strategies import MIB, Sent, streams
from tests.wire.test_decoder import GOOD
from tests.wire.test_encoding import CONFIGURATIONS, RAMS

_LONG = (*MORE, "bitmaps-7.2-with-blocks", "classic-zero-two-drives-pc", "v1-no-bitmaps")


@pytest.fixture(scope="module")
def kaitai() -> type[Any]:
    return compiled(script("make_kaitai").document())


def check(kaitai: type[Any], data: bytes) -> int | None:
    """Both read the same; return where Kaitai stops, None if it reads all."""
    found, end = parsed(kaitai, data)
    wanted, error = events(in_file(data), chosen=True)
    # Bits of v1, from which on only we read, may need options.
    assert error is None or end is not None
    assert found == expected(wanted, end)
    return end


@captures_but(_LONG, without=MANY_PARTS)  # which take half a minute each
def test_captures(kaitai: type[Any], capture: Capture) -> None:
    """All that they hold, but for v1's from the first record with bitmaps on."""
    v1_bitmaps = capture.truth["dialect"] == "v1" and capture.truth["bitmaps"]
    assert (check(kaitai, capture.data) is not None) == bool(v1_bitmaps)


@pytest.mark.scaled
@settings(max_examples=examples(15, 300))
@given(streams(most=MIB))
def test_streams(kaitai: type[Any], sent: Sent) -> None:
    has_bitmaps = any(disk.bitmaps for disk in sent.disks)
    stopped = check(kaitai, sent.data) is not None
    assert stopped <= (sent.options.dialect == "v1" and has_bitmaps)


@pytest.mark.parametrize("name", GOOD)
def test_all_that_is_accepted(kaitai: type[Any], name: str) -> None:
    assert check(kaitai, GOOD[name]) is None


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations(kaitai: type[Any], name: str) -> None:
    assert check(kaitai, raw.HEADER + raw.configuration() + CONFIGURATIONS[name] + raw.EOF) is None


@pytest.mark.parametrize("name", RAMS)
def test_ram(kaitai: type[Any], name: str) -> None:
    """Read, or skipped to its footer where capabilities or postcopy change its records."""
    data = RAMS[name]
    if name in ("addresses", "addresses and mapped", "huge-pages", "all kinds"):
        found, end = parsed(kaitai, data)
        assert end is None
        head, state, footer, eof = found[-4:]
        assert head[1:3] == ("section", 1)
        assert state[1:] == ("state", footer[0] - state[0])
        assert (data[footer[0] :], eof) == (raw.footer(2) + raw.EOF, (len(data) - 1, "eof"))
    else:
        assert check(kaitai, data) is None


@pytest.mark.long
def test_javascript(unpacked: Path, tmp_path: Path) -> None:
    """As the Web IDE reads it, where other names and numbers are reserved than in Python."""
    path = unpacked / "classic-zero-two-drives-pc.bin"
    found, _ = events(in_file(path.read_bytes()))
    blocks = [(event.device, event.sector) for event in found if isinstance(event, Block)]
    assert blocks_in_javascript(script("make_kaitai").document(), path, tmp_path) == blocks


def test_truncated(kaitai: type[Any]) -> None:
    """At every byte of a small stream Kaitai reports that it ends too early."""
    data = GOOD["bitmap"]
    for length in range(4, len(data)):
        with pytest.raises(EOFError):
            parsed(kaitai, data[:length])


def test_a_change_of_a_schema_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that is added, and one that Kaitai has no word for."""
    make = script("make_kaitai")
    before = make.document()
    fields = make.framing.SectionHead.subcons
    monkeypatch.setattr(
        make.framing.SectionHead, "subcons", [*fields, "new" / make.framing.Int16ub]
    )
    assert make.document() == before.replace(
        "    - id: version\n      type: u4\n  section_reference",
        "    - id: version\n      type: u4\n    - id: new\n      type: u2\n  section_reference",
    )
    monkeypatch.setattr(make.framing.SectionHead, "subcons", ["new" / make.GreedyBytes])
    with pytest.raises(TypeError, match="new"):
        make.document()
